//! One decision: is the subject who they say, are they in the tenant, may they do it, is there quota left? Everything
//! that speaks against it is said at once; amounts are consumed only when nothing does.

use std::sync::Arc;

use super::App;
use super::usage::{Amounts, Consumption, UsageView, Who};
use crate::ctx::{Caller, Ctx, Needs};
use crate::decide::judge::{judge, permissions};
use crate::decide::memory::Look;
use crate::decide::tenant::{Claims, Standing};
use crate::domain::api_key::ApiKey;
use crate::domain::name::TenantName;
use crate::domain::user::User;
use crate::error::Error;

/// What is asked.
pub struct Question {
    /// The tenant, when the caller names one.
    pub tenant: Option<TenantName>,
    /// What else claims a tenant: for users, what their own call does.
    pub claims: Claims,
    /// The subject's access token, when a service asks.
    pub subject_token: Option<String>,
    /// In its place, the subject's API key.
    pub subject_api_key: Option<String>,
    /// What the subject must be allowed to do.
    pub permissions: Vec<String>,
    /// What must be left.
    pub amounts: Amounts,
    /// Whether amounts are consumed.
    pub consume: bool,
    /// Whether the answer may come before they are committed.
    pub leased: bool,
    /// Makes a repetition harmless.
    pub idempotency_key: Option<String>,
}

/// What was decided.
#[derive(Default)]
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
                if question.subject_token.is_some() {
                    return Err(Error::field("subject_token", "is for services; you ask for yourself"));
                }
                if question.subject_api_key.is_some() {
                    return Err(Error::field("subject_api_key", "is for services; you ask for yourself"));
                }
            }
            other => return Err(Error::CallerKindRefused(other.kind())),
        }
        let mut look = self.plane.look();
        let decided = loop {
            let decided = match subject(&mut look, ctx, &question).await {
                Ok(subject) => Ok((self.place_of(&mut look, ctx, &question, &subject).await, subject)),
                Err(reason) => Err(reason),
            };
            if look.holds().await {
                break decided;
            }
        };
        let (standing, subject) = match decided {
            Ok(decided) => decided,
            Err(reason @ (Error::CredentialInvalid | Error::TokenExpired)) => {
                return Ok(Decision { reasons: vec![reason], ..Decision::default() });
            }
            Err(other) => return Err(other),
        };
        if subject.api_key().is_some() {
            self.key_uses.note_caller(&subject, ctx.now);
        }
        let decision =
            Decision { user: subject.user().cloned(), api_key: subject.api_key().cloned(), ..Decision::default() };
        match standing {
            Ok(standing) => self.decide(ctx, &question, (subject, standing), may_consume, decision).await,
            Err(reason @ (Error::TenantMissing | Error::TenantNotFound | Error::CredentialInvalid)) => {
                Ok(decision.refused(reason))
            }
            Err(other) => Err(other),
        }
    }

    /// The subject's place in the tenant that it is about.
    async fn place_of(
        &self,
        look: &mut Look<'_>,
        ctx: &Ctx,
        question: &Question,
        subject: &Caller,
    ) -> Result<Standing, Error> {
        let claims =
            Claims { token: subject.own_tenant(), request: question.tenant.clone(), ..question.claims.clone() };
        let tenant = match look.locate(&claims, ctx.now).await? {
            Some(tenant) => Some(tenant),
            None => match subject.person() {
                Some(person) => self.fallback(person, ctx.now).await?,
                None => None,
            },
        };
        look.standing(tenant.ok_or(Error::TenantMissing)?, subject, ctx.now).await
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
        decision.reasons = judge(&standing, &as_subject, &needs, ctx.now);
        if decision.reasons.iter().any(|reason| matches!(reason, Error::MemberSuspended)) {
            // Suspended members learn that they are, and nothing of the tenant.
            return Ok(decision);
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
    fn refused(mut self, reason: Error) -> Self {
        self.reasons.push(reason);
        self
    }
}

/// Who it is about: whom a service asks about, or the caller.
async fn subject(look: &mut Look<'_>, ctx: &Ctx, question: &Question) -> Result<Caller, Error> {
    if !matches!(ctx.caller, Caller::Service(_)) {
        return Ok(ctx.caller.clone());
    }
    match (question.subject_token.as_deref(), question.subject_api_key.as_deref()) {
        (Some(token), None) => look.person(token, ctx.now).await.map(|person| Caller::User(Arc::new(person))),
        (None, Some(key)) => look.identify_api_key(key, ctx.now).await,
        (None, None) => Err(Error::field("subject_token", "or subject_api_key must say who it is about")),
        (Some(_), Some(_)) => Err(Error::field("subject_api_key", "must not be there besides subject_token")),
    }
}
