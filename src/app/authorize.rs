//! One decision: is the subject who they say, are they in the tenant, may they do it, is there quota left? Everything
//! that speaks against it is said at once; amounts are consumed only when nothing does.

use std::sync::Arc;

use super::App;
use super::usage::{Amounts, Consumption, UsageView, Who};
use crate::ctx::{Caller, Ctx, Needs};
use crate::decide::judge::{judge, permissions};
use crate::decide::memory::{Basis, Look};
use crate::decide::tenant::{Claims, Standing};
use crate::domain::api_key::ApiKey;
use crate::domain::cursor::Cursor;
use crate::domain::entitlement::Source;
use crate::domain::id::UserId;
use crate::domain::name::TenantName;
use crate::domain::role::{Role, RoleName};
use crate::domain::user::User;
use crate::error::Error;
use crate::time::Timestamp;

/// What is asked.
pub struct Question {
    /// The tenant, when the caller names one.
    pub tenant: Option<TenantName>,
    /// What else claims a tenant: for users, what their own call does.
    pub claims: Claims,
    /// Whom a service asks about; none when somebody asks for themselves.
    pub subject: Option<Subject>,
    /// What the subject must be allowed to do.
    pub permissions: Vec<String>,
    /// What the tenant must have.
    pub features: Vec<String>,
    /// What must be left.
    pub amounts: Amounts,
    /// Whether amounts are consumed.
    pub consume: bool,
    /// Whether the answer may come before they are committed.
    pub leased: bool,
    /// Makes a repetition harmless.
    pub idempotency_key: Option<String>,
    /// What the decision is to be no older than.
    pub at_least: Option<Cursor>,
    /// Whether it is said what permissions come from.
    pub explain: bool,
}

/// Whom a service asks about.
pub enum Subject {
    /// Whose access token this is.
    Token(String),
    /// Whose API key this is.
    ApiKey(String),
    /// Somebody whom it has let in itself.
    User(UserId),
}

impl Subject {
    const fn field(&self) -> &'static str {
        match self {
            Self::Token(_) => "subject_token",
            Self::ApiKey(_) => "subject_api_key",
            Self::User(_) => "subject_user_id",
        }
    }
}

/// What was decided.
pub struct Decision {
    /// What speaks against it; empty is yes.
    pub reasons: Vec<Error>,
    /// The person, when the token or their key was good.
    pub user: Option<User>,
    /// The key, when the subject is one.
    pub api_key: Option<ApiKey>,
    /// Their place in the tenant, when they have one.
    pub standing: Option<Standing>,
    /// Where the metrics stand.
    pub usage: Vec<UsageView>,
    /// What the permissions come from, when that was asked.
    pub explanation: Vec<Explained>,
    /// On what it was decided.
    pub basis: Basis,
}

/// What a permission comes from, or why it is missing.
pub struct Explained {
    /// The permission.
    pub permission: String,
    /// Whether the subject has it.
    pub held: bool,
    /// Whether a role of theirs has it.
    pub by_role: bool,
    /// Their roles that have it, or when there are none, the tenant's others that do.
    pub roles: Vec<String>,
    /// Whether the key has it, where there is one.
    pub key: Option<bool>,
}

impl App {
    /// Decides.
    ///
    /// # Errors
    /// What is wrong with the question or with who asks it; a no is an answer.
    pub async fn authorize(&self, ctx: &Ctx, question: Question) -> Result<Decision, Error> {
        let may_consume = question.consume && !question.amounts.is_empty();
        match &ctx.caller {
            Caller::Service(key) => {
                if may_consume && !key.permissions.contains("usage.write") {
                    return Err(Error::PermissionMissing("usage.write".to_owned()));
                }
            }
            Caller::User(_) | Caller::Delegated(..) => {
                if let Some(subject) = &question.subject {
                    return Err(Error::field(subject.field(), "is for services; you ask for yourself"));
                }
            }
            other => return Err(Error::CallerKindRefused(other.kind())),
        }
        if let Some(revision) = question.at_least {
            self.plane.reach(revision).await?;
        }
        let mut look = self.plane.look();
        let decided = loop {
            // The gate has looked at who asks before, maybe at something older.
            let asks = look.still_live(&ctx.caller, ctx.now).await;
            let decided = match subject(&mut look, ctx, &question).await {
                Ok(subject) => Ok((self.place_of(&mut look, ctx, &question, &subject).await, subject)),
                Err(reason) => Err(reason),
            };
            if look.holds().await {
                asks?;
                break decided;
            }
        };
        let mut decision = Decision::new(look.basis());
        let (place, subject) = match decided {
            Ok(decided) => decided,
            Err(reason @ (Error::CredentialInvalid | Error::TokenExpired)) => return Ok(decision.refused(reason)),
            // One whom a service only names is a stranger, or is not there: that is the same.
            Err(Error::AccountNotFound) => return Ok(decision.refused(Error::TenantNotFound)),
            Err(other) => return Err(other),
        };
        if subject.api_key().is_some() {
            self.key_uses.note_caller(&subject, ctx.now);
        }
        if place.is_ok() || !matches!(subject, Caller::Named(_)) {
            (decision.user, decision.api_key) = (subject.user().cloned(), subject.api_key().cloned());
        }
        match place {
            Ok((standing, switched_off)) => {
                decision.reasons = switched_off;
                self.decide(ctx, &question, (subject, standing), may_consume, decision).await
            }
            Err(reason @ (Error::TenantMissing | Error::TenantNotFound | Error::CredentialInvalid)) => {
                Ok(decision.refused(reason))
            }
            Err(other) => Err(other),
        }
    }

    /// The subject's place in the tenant that it is about, and what of its features speaks against it.
    async fn place_of(
        &self,
        look: &mut Look<'_>,
        ctx: &Ctx,
        question: &Question,
        subject: &Caller,
    ) -> Result<(Standing, Vec<Error>), Error> {
        let claims =
            Claims { token: subject.own_tenant(), request: question.tenant.clone(), ..question.claims.clone() };
        let tenant = match look.locate(&claims, ctx.now).await? {
            Some(tenant) => Some(tenant),
            None => match subject.person() {
                Some(person) => self.fallback(person, ctx.now).await?,
                None => None,
            },
        };
        let standing = look.standing(tenant.ok_or(Error::TenantMissing)?, subject, ctx.now).await?;
        let mut switched_off = Vec::new();
        for feature in &question.features {
            switched_off.extend(missing_feature(look, &standing, feature, ctx.now).await?);
        }
        Ok((standing, switched_off))
    }

    async fn decide(
        &self,
        ctx: &Ctx,
        question: &Question,
        (as_subject, standing): (Caller, Standing),
        consume: bool,
        mut decision: Decision,
    ) -> Result<Decision, Error> {
        let wanted: Vec<&str> = question.permissions.iter().map(String::as_str).collect();
        let needs = Needs { permissions: &wanted, writes: consume, ..Needs::default() };
        let switched_off = std::mem::replace(&mut decision.reasons, judge(&standing, &as_subject, &needs, ctx.now));
        if decision.reasons.iter().any(|reason| matches!(reason, Error::MemberSuspended)) {
            // Suspended members learn that they are, and nothing of the tenant.
            return Ok(decision);
        }
        decision.reasons.extend(switched_off);
        if question.explain {
            decision.explanation = wanted.iter().map(|wanted| explain(&standing, &as_subject, wanted)).collect();
        }
        // Somebody who asks for themselves consumes with their own right to.
        let own_right =
            matches!(ctx.caller, Caller::Service(_)) || permissions(&standing, &as_subject).contains("usage.write");
        if consume && !own_right {
            decision.reasons.push(Error::PermissionMissing("usage.write".to_owned()));
        }
        self.decide_amounts(ctx, question, &standing, consume, &mut decision).await?;
        if let Some(member) = standing.member.as_ref().filter(|_| decision.reasons.is_empty()) {
            self.activity.note_member(standing.tenant.tenant_id, member, ctx.now);
        }
        decision.standing = Some(standing);
        Ok(decision)
    }

    async fn decide_amounts(
        &self,
        ctx: &Ctx,
        question: &Question,
        standing: &Standing,
        consume: bool,
        decision: &mut Decision,
    ) -> Result<(), Error> {
        if question.amounts.is_empty() {
            return Ok(());
        }
        let tenant = (&standing.tenant, standing.catalogue.as_ref());
        let who = Who {
            member: decision.user.as_ref().map(|u| u.user_id),
            api_key: decision.api_key.as_ref().map(|k| k.api_key_id),
        };
        if consume && decision.reasons.is_empty() {
            let key = question.idempotency_key.as_deref();
            let what = Consumption {
                amounts: question.amounts.clone(),
                key: key.map(str::to_owned),
                leased: question.leased,
                who,
                ..Consumption::default()
            };
            match self.consume(ctx, tenant, what).await {
                Ok(consumed) => decision.usage = consumed.usage,
                Err(refused @ (Error::QuotaExceeded(_) | Error::TooFast(_))) => {
                    decision.reasons.push(refused);
                    decision.usage = self.check_quota(ctx, tenant, &question.amounts, who).await?.usage;
                }
                Err(other) => return Err(other),
            }
            return Ok(());
        }
        let checked = self.check_quota(ctx, tenant, &question.amounts, who).await?;
        decision.usage = checked.usage;
        if !checked.shortages.is_empty() {
            decision.reasons.push(Error::QuotaExceeded(checked.shortages));
        }
        if !checked.too_fast.is_empty() {
            decision.reasons.push(Error::TooFast(checked.too_fast));
        }
        Ok(())
    }
}

impl Decision {
    fn new(basis: Basis) -> Self {
        let (reasons, usage, explanation) = (Vec::new(), Vec::new(), Vec::new());
        Self { reasons, user: None, api_key: None, standing: None, usage, explanation, basis }
    }

    fn refused(mut self, reason: Error) -> Self {
        self.reasons.push(reason);
        self
    }
}

/// Why the tenant does not have a feature; none when it has.
async fn missing_feature(
    look: &mut Look<'_>,
    standing: &Standing,
    feature: &str,
    now: Timestamp,
) -> Result<Option<Error>, Error> {
    let Standing { tenant, catalogue, .. } = standing;
    if !catalogue.definition.features.contains_key(feature) {
        return Ok(Some(Error::FeatureUnknown(feature.to_owned())));
    }
    let switches = look.switches(tenant.tenant_id, feature).await?;
    let found = catalogue.effective_feature(&tenant.subscription.of, feature, &switches, now);
    Ok(match found.source {
        _ if found.enabled => None,
        Source::Plan => Some(Error::FeatureNotInPlan(feature.to_owned())),
        by => Some(Error::FeatureOff { feature: feature.to_owned(), by_operator: by == Source::Override }),
    })
}

/// What a permission comes from, or why it is missing.
fn explain(standing: &Standing, subject: &Caller, permission: &str) -> Explained {
    let held = permissions(standing, subject).contains(permission);
    let theirs =
        |role: &RoleName| standing.member.as_ref().is_some_and(|member| member.roles.iter().any(|own| own == role));
    let with_it = standing.roles.ascending().filter(|role| role.permissions.contains(permission));
    let (own, others): (Vec<&Role>, Vec<&Role>) = with_it.partition(|role| theirs(&role.name));
    let by_role = !own.is_empty();
    let told = if by_role || held { own } else { others };
    let roles = told.iter().map(|role| role.name.to_string()).collect();
    let key = match subject {
        Caller::Delegated(key, _) => Some(key.permissions.contains(permission)),
        Caller::Key(key) | Caller::Personal(key, _) => Some(key.permissions.contains(permission)),
        _ => None,
    };
    Explained { permission: permission.to_owned(), held, by_role, roles, key }
}

/// Who it is about: whom a service asks about, or the caller.
async fn subject(look: &mut Look<'_>, ctx: &Ctx, question: &Question) -> Result<Caller, Error> {
    if !matches!(ctx.caller, Caller::Service(_)) {
        return Ok(ctx.caller.clone());
    }
    match &question.subject {
        Some(Subject::Token(token)) => look.person(token, ctx.now).await.map(|person| Caller::User(Arc::new(person))),
        Some(Subject::ApiKey(key)) => look.identify_api_key(key, ctx.now).await,
        Some(Subject::User(user)) => look.named(*user).await,
        None => Err(Error::field("subject_token", "or subject_api_key or subject_user_id must say who it is about")),
    }
}
