//! Tenants made and ended as a whole, and what the platform says of them. Making one is a single transaction: after a
//! crash there is all of it or nothing, and a repetition does what is missing.

mod by_invitation;

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use super::tenants::new_tenant;
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::catalogue::{Catalogue, Template};
use crate::domain::entitlement::{FeatureSwitch, Source};
use crate::domain::id::{TenantId, UserId, derived};
use crate::domain::mail::{self, Message};
use crate::domain::name::{Email, Slug};
use crate::domain::plan::Cycle;
use crate::domain::secret::{Secret, generated_password, sealed};
use crate::domain::settings::Settings;
use crate::domain::subscription::Subscription;
use crate::domain::tenant::{SuspendedBy, Suspension, Tenant};
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, InTenantAsUser, Scoped, entitlements, settings, users};

/// A step, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// How it went.
    pub outcome: StepOutcome,
    /// A sentence for people.
    pub detail: String,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepOutcome {
    /// Done by this call.
    Done,
    /// Had been done before.
    AlreadyDone,
    /// Not asked for.
    Skipped,
}

impl Step {
    fn new(step: &str, outcome: StepOutcome, detail: impl Into<String>) -> Self {
        Self { step: step.to_owned(), outcome, detail: detail.into() }
    }
}

/// Flags to set or clear; what is none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlagChanges {
    /// The platform has checked who it is.
    pub verified: Option<bool>,
    /// It is for showing.
    pub demo: Option<bool>,
    /// It takes no changes.
    pub maintenance: Option<bool>,
}

/// How a tenant is to end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Must be its slug.
    pub confirm_slug: String,
    /// Whether everything goes after the grace period; otherwise it is cancelled and kept.
    pub delete_data: bool,
    /// For the audit log.
    pub reason: String,
    /// Only says what would be.
    pub validate_only: bool,
}

/// A tenant to be.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "as the request says it")]
pub struct Wish {
    /// The name that people see.
    pub display_name: String,
    /// Its name in URLs.
    pub slug: Slug,
    /// A template of the catalogue; none when empty.
    pub template: String,
    /// The plan; the template's or the default when empty.
    pub plan: String,
    /// How long a period is; the plan's shortest unless said.
    pub cycle: Option<Cycle>,
    /// How long the trial is; as the plan says unless said.
    pub trial: Option<TimeDelta>,
    /// The administrator.
    pub admin_email: Email,
    /// Their name, for a new account.
    pub admin_name: String,
    /// Over the template's settings.
    pub settings: Settings,
    /// Features to switch on by override.
    pub features: Vec<String>,
    /// The id that another system knows it by.
    pub external_id: Option<String>,
    /// It is for showing.
    pub demo: bool,
    /// It waits to be confirmed.
    pub pending: bool,
    /// The administrator is invited, and it waits until they accept.
    pub by_invitation: bool,
    /// Whether the administrator is told.
    pub welcome_mail: bool,
    /// Only says what would be.
    pub validate_only: bool,
}

/// A tenant that was provisioned.
#[derive(Clone, Serialize, Deserialize)]
pub struct Provisioned {
    /// The tenant.
    pub tenant: Tenant,
    /// Its administrator.
    pub admin: User,
    /// The password of a new account; empty otherwise.
    #[serde(with = "sealed")]
    pub password: Secret<String>,
    /// What opens the invitation of the administrator; empty when there is none, or it goes by mail.
    #[serde(with = "sealed")]
    pub invitation_token: Secret<String>,
    /// What was done.
    pub steps: Vec<Step>,
}

/// What a wish comes to under a catalogue.
struct Plot {
    subscription: Subscription,
    settings: Settings,
    features: Vec<String>,
    demo: bool,
}

impl App {
    /// Makes a tenant with its administrator, settings, features and welcome mail. Of a tenant that is there already with
    /// this administrator, what is missing.
    ///
    /// # Errors
    /// `FieldsInvalid`, `PlanUnknown`, `FeatureUnknown`, `SlugTaken`, `ExternalIdTaken`, `AnswerExpired`.
    pub async fn provision_tenant(
        &self,
        ctx: &Ctx,
        wish: &Wish,
        key: Option<RequestKey>,
    ) -> Result<Provisioned, Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let plot = plot(ctx, &catalogue, wish)?;
        if wish.by_invitation {
            return self.provision_by_invitation(ctx, wish, (catalogue, plot), key).await;
        }
        let account = self.store.find_account(&wish.admin_email).await?;
        let there = self.store.find_slug(&wish.slug).await?.found.and_then(|holder| holder.at(ctx.now));
        let new_account = account.is_none();
        let admin = match account {
            Some(account) => account.user,
            None => User {
                user_id: UserId(ctx.new_id()),
                email: wish.admin_email.clone(),
                display_name: wish.admin_name.clone(),
            },
        };
        // Derived, so that a repetition speaks of the same tenant, under which its answer is kept.
        let made = TenantId(key.map_or_else(|| ctx.new_id(), |key| self.tenant_of_request(ctx, &key)));
        let tenant_id = there.unwrap_or(made);
        let password = Secret::new(if new_account { generated_password() } else { String::new() });
        if there.is_some() {
            self.same_tenant(&wish.slug, tenant_id, &admin, &catalogue).await?;
        }
        if wish.validate_only {
            // What is not there has no id yet: one that was made up would name nothing.
            let tenant = tenant_to_be(ctx, there.unwrap_or(TenantId(Uuid::nil())), wish, &plot);
            let user_id = if new_account { UserId(Uuid::nil()) } else { admin.user_id };
            let admin = User { user_id, ..admin };
            let steps = plan_steps(wish, &plot, there.is_some(), new_account);
            let none = Secret::new(String::new());
            return Ok(Provisioned { tenant, admin, password: none.clone(), invitation_token: none, steps });
        }
        // Before the transaction, which may not stay open for as long as a hash takes.
        let hash = if new_account { Some(self.passwords.hash(password.clone(), true).await?) } else { None };
        let scope = InTenantAsUser(tenant_id, admin.user_id);
        let mut open = match self.begin::<Provisioned, _>(ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let mut steps = vec![Step::new("validate", StepOutcome::Done, "plan, features and settings are known")];
        let tenant = if there.is_some() {
            steps.push(Step::new("tenant", StepOutcome::AlreadyDone, format!("{} is there", wish.slug.as_str())));
            steps.push(Step::new(
                "admin",
                StepOutcome::AlreadyDone,
                format!("{} is its administrator", admin.email.as_str()),
            ));
            self.lock_settled(&mut open.tx, ctx, &catalogue).await?
        } else {
            let tenant = tenant_to_be(ctx, tenant_id, wish, &plot);
            if let Some(hash) = &hash {
                users::insert(&mut open.tx, &admin, hash, ctx.now).await?;
            }
            self.insert_owned(&mut open.tx, ctx, &catalogue, (&tenant, admin.user_id)).await?;
            if new_account {
                users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
            }
            let plan = &tenant.subscription.of;
            steps.push(Step::new("tenant", StepOutcome::Done, format!("on plan {} v{}", plan.plan, plan.version)));
            let who = if new_account { "a new account" } else { "an account that was there" };
            steps.push(Step::new("admin", StepOutcome::Done, format!("{}, {who}", admin.email.as_str())));
            tenant
        };
        let tenant = self.furnish(&mut open.tx, ctx, (&catalogue, wish, &plot), (tenant, &admin), &mut steps).await?;
        let audit = Audit::of(tenant_id.0)
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str())
            .set("plan", tenant.subscription.of.plan.as_str())
            .set("owner", admin.user_id.to_string())
            .set(
                "steps",
                steps.iter().filter(|s| s.outcome == StepOutcome::Done).map(|s| s.step.clone()).collect::<Vec<_>>(),
            );
        let none = Secret::new(String::new());
        let answer = Provisioned { tenant, admin, password, invitation_token: none, steps };
        if answer.password.expose().is_empty() {
            return self.finish(open, ctx, audit, answer).await;
        }
        self.finish_secret(open, ctx, audit, answer).await
    }

    /// Settings, features, the flag and the mail: each only where it is missing.
    async fn furnish(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        (catalogue, wish, plot): (&Arc<Catalogue>, &Wish, &Plot),
        (tenant, admin): (Tenant, &User),
        steps: &mut Vec<Step>,
    ) -> Result<Tenant, Error> {
        let (own, version) = settings::find(tx).await?;
        let set = if plot.settings == Settings::default() {
            StepOutcome::Skipped
        } else if own == plot.settings || version > 0 {
            StepOutcome::AlreadyDone
        } else {
            settings::put(tx, &plot.settings, 1, ctx.now).await?;
            StepOutcome::Done
        };
        steps.push(Step::new("settings", set, "the catalogue's defaults hold for the rest"));

        let switches = entitlements::switches(tx).await?;
        let missing: Vec<&String> = plot.features.iter().filter(|name| !switches.contains_key(*name)).collect();
        for feature in &missing {
            let switch = FeatureSwitch { source: Source::Override, enabled: true, expires_at: None };
            entitlements::set_feature(tx, feature, &switch, ctx.now).await?;
        }
        let chosen = match (plot.features.is_empty(), missing.is_empty()) {
            (true, _) => StepOutcome::Skipped,
            (false, true) => StepOutcome::AlreadyDone,
            (false, false) => StepOutcome::Done,
        };
        steps.push(Step::new("features", chosen, "besides those of the plan"));

        let mut after = tenant.clone();
        after.flags.verified = true;
        let verified = if tenant.flags.verified { StepOutcome::AlreadyDone } else { StepOutcome::Done };
        if verified == StepOutcome::Done {
            self.write_tenant(tx, ctx, catalogue, (&tenant, &mut after)).await?;
        }
        steps.push(Step::new("verified", verified, "the platform knows who it is"));

        let mut told = StepOutcome::Skipped;
        if wish.welcome_mail {
            let message = Message {
                template: mail::Template::Welcome,
                recipient: admin.email.clone(),
                payload: serde_json::json!({ "tenant": after.display_name, "slug": after.slug.as_str(), "name": admin.display_name }),
                secret: None,
                about: "provisioned".to_owned(),
            };
            let new = self.post(tx, message, ctx.now).await?;
            told = if new { StepOutcome::Done } else { StepOutcome::AlreadyDone };
        }
        steps.push(Step::new("welcome_mail", told, "the password is not in it"));
        Ok(after)
    }

    /// Whether a tenant that has the slug is the one that was wished for: its top role is the administrator's.
    async fn same_tenant(
        &self,
        slug: &Slug,
        tenant: TenantId,
        admin: &User,
        catalogue: &Catalogue,
    ) -> Result<(), Error> {
        let found = self.store.find_tenant(tenant).await?.map(|(tenant, _)| tenant);
        // An earlier slug that still leads there, or a deleted tenant, is not what was wished for.
        found.filter(|tenant| tenant.slug == *slug && tenant.deleted_at.is_none()).ok_or(Error::SlugTaken)?;
        let member = self.store.find_membership(tenant, admin.user_id).await?.found;
        match member {
            Some(member) if member.is_active_owner(&catalogue.definition.roles) => Ok(()),
            _ => Err(Error::SlugTaken),
        }
    }

    /// The id of the tenant that a call with this `request_id` makes.
    fn tenant_of_request(&self, ctx: &Ctx, key: &RequestKey) -> uuid::Uuid {
        let caller = ctx.caller.principal().unwrap_or_default();
        derived(&self.master.mac("provision", &[caller.as_bytes(), key.request_id.as_bytes()]))
    }

    /// Sets or clears what the platform says of a tenant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn set_tenant_flags(
        &self,
        t: &TenantCtx,
        changes: FlagChanges,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        self.change_tenant(t, "", key, |tenant| {
            let flags = &mut tenant.flags;
            flags.verified = changes.verified.unwrap_or(flags.verified);
            flags.demo = changes.demo.unwrap_or(flags.demo);
            flags.maintenance = changes.maintenance.unwrap_or(flags.maintenance);
            Ok(())
        })
        .await
    }

    /// Ends a tenant: cancels its subscription, and deletes it when asked. What is ended already stays so.
    ///
    /// # Errors
    /// `FieldsInvalid` for another slug, `WrongState` when it is deleted.
    pub async fn deprovision_tenant(
        &self,
        t: &TenantCtx,
        ending: &Ending,
        key: Option<RequestKey>,
    ) -> Result<(Tenant, Vec<Step>), Error> {
        if ending.validate_only {
            let mut tenant = t.tenant.clone();
            let steps = end(&mut tenant, ending, t)?;
            return Ok((tenant, steps));
        }
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        let mut after = before.clone();
        let steps = end(&mut after, ending, t)?;
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?;
        self.finish(open, &t.ctx, audit.set("reason", ending.reason.as_str()), (after, steps)).await
    }
}

/// Applies an ending to a tenant.
fn end(tenant: &mut Tenant, ending: &Ending, t: &TenantCtx) -> Result<Vec<Step>, Error> {
    if ending.confirm_slug != tenant.slug.as_str() {
        return Err(Error::field("confirm_slug", "must be the tenant's slug"));
    }
    let now = t.ctx.now;
    if tenant.deleted_at.is_some() {
        return Err(Error::WrongState { state: "deleted", wanted: "a tenant that is not deleted" });
    }
    // What the platform has ended, only the platform begins again: resuming alone opens nothing.
    if t.ctx.caller.suspends_as() == SuspendedBy::Operator {
        let reason = if ending.reason.is_empty() { "ended by the platform" } else { &ending.reason };
        tenant.suspension = Some(Suspension { reason: reason.to_owned(), by: SuspendedBy::Operator });
    }
    let cancelled = match tenant.subscription.cancel(false, now) {
        Ok(()) => StepOutcome::Done,
        Err(_) => StepOutcome::AlreadyDone,
    };
    let mut steps = vec![Step::new("subscription", cancelled, "cancelled: nobody gets in, everything is kept")];
    if ending.delete_data {
        tenant.delete(now)?;
        let until = tenant.purge_at.map(|at| at.to_string()).unwrap_or_default();
        steps.push(Step::new(
            "data",
            StepOutcome::Done,
            format!("deleted: can be undeleted until {until}, then it is purged"),
        ));
    } else {
        steps.push(Step::new("data", StepOutcome::Skipped, "kept"));
    }
    Ok(steps)
}

/// What a wish comes to, with its template.
fn plot(ctx: &Ctx, catalogue: &Catalogue, wish: &Wish) -> Result<Plot, Error> {
    let nothing = Template::default();
    let template = match wish.template.as_str() {
        "" => &nothing,
        name => catalogue.definition.templates.get(name).ok_or_else(|| {
            let names: Vec<&str> = catalogue.definition.templates.keys().map(String::as_str).collect();
            Error::field("template", format!("must be one of the catalogue's: {}", names.join(", ")))
        })?,
    };
    let default = template.plan.as_ref().unwrap_or(&catalogue.definition.default_plan);
    let name = if wish.plan.is_empty() { default } else { &wish.plan };
    let chosen = catalogue.newest(name).ok_or_else(|| Error::PlanUnknown(name.clone()))?;
    if let Some(cycle) = wish.cycle
        && chosen.1.price_of(cycle).is_none()
    {
        return Err(Error::field("cycle", "must be one that the plan has a price for"));
    }
    let mut features: Vec<String> = wish.features.iter().chain(&template.features).cloned().collect();
    features.sort();
    features.dedup();
    if let Some(unknown) = features.iter().find(|name| !catalogue.definition.features.contains_key(*name)) {
        return Err(Error::FeatureUnknown(unknown.clone()));
    }
    let settings = wish.settings.clone().over(&template.settings);
    let subscription = Subscription::begin(chosen, wish.cycle, wish.trial, true, ctx.now);
    Ok(Plot { subscription, settings, features, demo: wish.demo || template.demo })
}

fn tenant_to_be(ctx: &Ctx, tenant_id: TenantId, wish: &Wish, plot: &Plot) -> Tenant {
    let names = (wish.display_name.clone(), wish.slug.clone());
    let mut tenant = new_tenant(ctx, tenant_id, names, plot.subscription.clone());
    tenant.external_id.clone_from(&wish.external_id);
    tenant.flags.demo = plot.demo;
    tenant.pending = wish.pending;
    tenant
}

/// The steps as they would be.
fn plan_steps(wish: &Wish, plot: &Plot, there: bool, new_account: bool) -> Vec<Step> {
    let unless = |already: bool| if already { StepOutcome::AlreadyDone } else { StepOutcome::Done };
    let when = |asked: bool| if asked { StepOutcome::Done } else { StepOutcome::Skipped };
    let who = if new_account { "a new account" } else { "an account that is there" };
    let plan = &plot.subscription.of;
    vec![
        Step::new("validate", StepOutcome::Done, "plan, features and settings are known"),
        Step::new("tenant", unless(there), format!("on plan {} v{}", plan.plan, plan.version)),
        Step::new("admin", unless(there), format!("{}, {who}", wish.admin_email.as_str())),
        Step::new("settings", when(plot.settings != Settings::default()), "the catalogue's defaults hold for the rest"),
        Step::new("features", when(!plot.features.is_empty()), "besides those of the plan"),
        Step::new("verified", StepOutcome::Done, "the platform knows who it is"),
        Step::new("welcome_mail", when(wish.welcome_mail), "the password is not in it"),
    ]
}
