//! Provisioning by invitation: nobody is given a password. The tenant waits until the administrator accepts, and begins with
//! that.

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use super::super::App;
use super::super::mutation::{Begun, RequestKey};
use super::super::seats::{check_seats, seats_held};
use super::{Plot, Provisioned, Step, StepOutcome, Wish, plan_steps, tenant_to_be};
use crate::ctx::Ctx;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::{InvitationId, TenantId, UserId};
use crate::domain::invitation::{HOLDS_DAYS, Invitation, InvitationStatus, InvitationToken};
use crate::domain::role::RoleNames;
use crate::domain::secret::Secret;
use crate::domain::tenant::Tenant;
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, InTenantAsUser, Scoped, invitations, memberships};
use crate::time::Timestamp;

impl App {
    /// `provision_tenant` for an administrator who is invited. Of a tenant that is there already and waits for this
    /// administrator, or is theirs, what is missing.
    pub(super) async fn provision_by_invitation(
        &self,
        ctx: &Ctx,
        wish: &Wish,
        (catalogue, plot): (Arc<Catalogue>, Plot),
        key: Option<RequestKey>,
    ) -> Result<Provisioned, Error> {
        let account = self.store.find_account(&wish.admin_email).await?;
        let there = self.store.find_slug(&wish.slug).await?.found.and_then(|holder| holder.at(ctx.now));
        // Who has no account yet has no id either.
        let admin = account.map_or_else(
            || User {
                user_id: UserId(Uuid::nil()),
                email: wish.admin_email.clone(),
                display_name: wish.admin_name.clone(),
            },
            |account| account.user,
        );
        if let Some(tenant_id) = there {
            self.waits_for(tenant_id, wish, &admin, (&catalogue, ctx.now)).await?;
        }
        if wish.validate_only {
            let tenant = tenant_to_be(ctx, there.unwrap_or(TenantId(Uuid::nil())), wish, &plot);
            let mut steps = plan_steps(wish, &plot, there.is_some(), false);
            steps.retain(|step| step.step != "admin" && step.step != "welcome_mail");
            let outcome = if there.is_some() { StepOutcome::AlreadyDone } else { StepOutcome::Done };
            steps.push(Step::new("invitation", outcome, admin.email.as_str()));
            let none = Secret::new(String::new());
            return Ok(Provisioned { tenant, admin, password: none.clone(), invitation_token: none, steps });
        }
        let tenant_id = there
            .unwrap_or_else(|| TenantId(key.map_or_else(|| ctx.new_id(), |key| self.tenant_of_request(ctx, &key))));
        let scope = InTenantAsUser(tenant_id, UserId(ctx.caller.principal().unwrap_or_default()));
        let mut open = match self.begin::<Provisioned, _>(ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let mut steps = vec![Step::new("validate", StepOutcome::Done, "plan, features and settings are known")];
        let tenant = if there.is_some() {
            steps.push(Step::new("tenant", StepOutcome::AlreadyDone, format!("{} is there", wish.slug.as_str())));
            self.lock_settled(&mut open.tx, ctx, &catalogue).await?
        } else {
            let tenant = Tenant { pending: true, ..tenant_to_be(ctx, tenant_id, wish, &plot) };
            self.insert_tenant(&mut open.tx, ctx, &catalogue, &tenant).await?;
            let plan = &tenant.subscription.of;
            steps.push(Step::new("tenant", StepOutcome::Done, format!("on plan {} v{}", plan.plan, plan.version)));
            tenant
        };
        // The letter is the invitation's.
        let furnished = Wish { welcome_mail: false, ..wish.clone() };
        let of = (&catalogue, &furnished, &plot);
        let tenant = self.furnish(&mut open.tx, ctx, of, (tenant, &admin), &mut steps).await?;
        steps.retain(|step| step.step != "welcome_mail");
        let (invitation_token, step) =
            self.invite_admin(&mut open.tx, ctx, (&catalogue, wish), (&tenant, &admin)).await?;
        steps.push(step);
        check_seats(&mut open.tx, &catalogue, &tenant, ctx.now).await?;
        let audit = Audit::of(tenant_id.0)
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str())
            .set("plan", tenant.subscription.of.plan.as_str())
            .set("invited", admin.email.as_str());
        let answer = Provisioned { tenant, admin, password: Secret::new(String::new()), invitation_token, steps };
        if answer.invitation_token.expose().is_empty() {
            return self.finish(open, ctx, audit, answer).await;
        }
        self.finish_secret(open, ctx, audit, answer).await
    }

    /// Whether a tenant that has the slug is the one that was wished for: it waits for the administrator, or is theirs.
    async fn waits_for(
        &self,
        tenant_id: TenantId,
        wish: &Wish,
        admin: &User,
        (catalogue, now): (&Catalogue, Timestamp),
    ) -> Result<(), Error> {
        let found = self.store.find_tenant(tenant_id).await?.map(|(tenant, _)| tenant);
        let same = found.filter(|tenant| tenant.slug == wish.slug && tenant.deleted_at.is_none());
        let same = same.ok_or(Error::SlugTaken)?;
        let mut tx = self.store.read(InTenant(tenant_id)).await?;
        if invitations::find_pending(&mut tx, &wish.admin_email).await?.is_some_and(|pending| pending.opens_tenant) {
            return Ok(());
        }
        // Nobody's yet, and waiting for nobody: whoever was invited declined, or was the wrong one.
        if same.pending && seats_held(&mut tx, now).await? == 0 {
            return Ok(());
        }
        drop(tx);
        self.same_tenant(&wish.slug, tenant_id, admin, catalogue).await
    }

    /// The administrator's invitation, unless it is there or was accepted; what opens it, when it does not go by mail.
    async fn invite_admin(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        (catalogue, wish): (&Catalogue, &Wish),
        (tenant, admin): (&Tenant, &User),
    ) -> Result<(Secret<String>, Step), Error> {
        let none = Secret::new(String::new());
        let already = |what: &str| (none.clone(), Step::new("invitation", StepOutcome::AlreadyDone, what));
        match memberships::get(tx, admin.user_id).await {
            Ok(_) => return Ok(already("it was accepted")),
            Err(Error::MemberNotFound) => {}
            Err(other) => return Err(other),
        }
        let pending = invitations::find_pending(tx, &admin.email).await?;
        if pending.is_some_and(|pending| pending.status(ctx.now) == InvitationStatus::Pending) {
            return Ok(already("it is pending; ResendInvitation makes a new link"));
        }
        let top = catalogue.definition.roles.top();
        let days = wish.settings.over(&catalogue.definition.settings).invitations.expiry_days.unwrap_or(HOLDS_DAYS);
        let token = InvitationToken::generate();
        let invitation = Invitation {
            invitation_id: InvitationId(ctx.new_id()),
            email: admin.email.clone(),
            roles: RoleNames::one(top.name.clone()),
            written: InvitationStatus::Pending,
            inviter: None,
            inviter_key: None,
            mailed: wish.welcome_mail,
            opens_tenant: true,
            accepted_by: None,
            version: 1,
            created_at: ctx.now,
            updated_at: ctx.now,
            sent_at: ctx.now,
            expires_at: ctx.now.after(TimeDelta::days(days.into())),
        };
        invitations::insert(tx, &invitation, &token.digest()).await?;
        let until = format!("{}, until {}", admin.email.as_str(), invitation.expires_at);
        let step = Step::new("invitation", StepOutcome::Done, until);
        if !wish.welcome_mail {
            return Ok((token.into_text(), step));
        }
        let inviter = tenant.display_name.as_str();
        self.post_invitation(tx, (tenant, inviter), &invitation, token.into_text(), ctx.now).await?;
        Ok((none, step))
    }
}
