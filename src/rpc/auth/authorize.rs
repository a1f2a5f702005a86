//! The whole decision in one call, or many in one.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tonic::Request;

use super::optional_tenant;
use crate::app::authorize::{Decision, Explained, Question, Subject};
use crate::app::usage::Amounts;
use crate::ctx::Ctx;
use crate::decide::memory::Basis;
use crate::decide::tenant::Claims;
use crate::domain::cursor::Cursor;
use crate::domain::role::is_permission;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

/// What is wrong with a text that is no revision.
const ODD_REVISION: &str = "must be a revision as an answer told it";

/// Permissions and features in one question.
const NAMES: usize = 100;

/// Permissions and features in all questions of a batch.
const ALL_NAMES: usize = 10_000;

/// Questions in one batch, and how many of them are worked on at once: those that consume wait for the same commits.
const QUESTIONS: usize = 1000;
pub(super) const AT_ONCE: usize = 64;

pub(super) async fn authorize(
    s: &Services,
    request: Request<v1::AuthorizeRequest>,
) -> Result<v1::AuthorizeResponse, Error> {
    let (ctx, _, claims, m) = s.0.open(request).await?;
    decide(s, &ctx, claims, m).await
}

pub(super) async fn batch_authorize(
    s: &Services,
    request: Request<v1::BatchAuthorizeRequest>,
) -> Result<v1::BatchAuthorizeResponse, Error> {
    let (ctx, _, claims, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let count = if (1..=QUESTIONS).contains(&m.questions.len()) { Ok(()) } else { Err("must be 1 to 1,000") };
    f.read("questions", count);
    let names: usize = m.questions.iter().map(|question| question.permissions.len() + question.features.len()).sum();
    f.read(
        "questions",
        if names <= ALL_NAMES { Ok(()) } else { Err("must name at most 10,000 permissions and features") },
    );
    for (i, _) in m.questions.iter().enumerate().filter(|(_, question)| question.explain).take(QUESTIONS) {
        f.read(&format_args!("questions[{i}].explain"), Err::<(), _>("is for single questions"));
    }
    let Some(at_least) = f.cursor("at_least_revision", &m.at_least_revision, ODD_REVISION) else {
        return Err(f.refuse());
    };
    if !f.is_clean() {
        return Err(f.refuse());
    }
    if let Some(revision) = at_least {
        s.0.app.plane.reach(revision).await?;
    }
    let decisions = m.questions.into_iter().map(async |question| {
        // Others wait for the same thread.
        tokio::task::yield_now().await;
        decide(s, &ctx, claims.clone(), question).await
    });
    let results = stream::iter(decisions).buffered(AT_ONCE).map(result).collect().await;
    Ok(v1::BatchAuthorizeResponse { results })
}

pub(super) async fn test_permissions(
    s: &Services,
    request: Request<v1::TestPermissionsRequest>,
) -> Result<v1::TestPermissionsResponse, Error> {
    let (ctx, _, claims, m) = s.0.open(request).await?;
    let asked = v1::AuthorizeRequest {
        tenant: m.tenant,
        subject_token: m.subject_token,
        subject_api_key: m.subject_api_key,
        subject_user_id: m.subject_user_id,
        permissions: m.permissions.clone(),
        features: m.features.clone(),
        at_least_revision: m.at_least_revision,
        ack_level: v1::AckLevel::CheckOnly.into(),
        ..Default::default()
    };
    let decision = s.0.app.authorize(&ctx, question(claims, asked)?).await?;
    let (mut permissions, mut features) = (m.permissions, m.features);
    let mut others = Vec::new();
    for reason in &decision.reasons {
        match reason {
            Error::PermissionMissing(missing) => permissions.retain(|one| one != missing),
            Error::FeatureUnknown(missing)
            | Error::FeatureNotInPlan(missing)
            | Error::FeatureOff { feature: missing, .. } => features.retain(|one| one != missing),
            other => others.extend(convert::deny_reasons(other)),
        }
    }
    if !others.is_empty() {
        permissions.clear();
        features.clear();
    }
    let told = Told::of(s, &decision.basis);
    Ok(v1::TestPermissionsResponse {
        permissions,
        features,
        reasons: others,
        revision: told.revision,
        staleness: told.staleness,
        max_staleness: told.max_staleness,
    })
}

pub(super) async fn decide(
    s: &Services,
    ctx: &Ctx,
    claims: Claims,
    m: v1::AuthorizeRequest,
) -> Result<v1::AuthorizeResponse, Error> {
    let decision = s.0.app.authorize(ctx, question(claims, m)?).await?;
    Ok(answer(s, ctx, decision))
}

/// Reads a question.
fn question(claims: Claims, m: v1::AuthorizeRequest) -> Result<Question, Error> {
    let mut f = Fields::default();
    let tenant = optional_tenant(&mut f, "tenant", &m.tenant);
    names(&mut f, "permissions", &m.permissions, |name| is_permission(name, false), "must read noun.verb");
    names(&mut f, "features", &m.features, |name| (1..=64).contains(&name.len()), "must name a feature");
    let amounts: Option<Amounts> = f.amounts(&m.amounts, 0);
    let idempotency_key = f.idempotency_key(&m.idempotency_key);
    let level = v1::AckLevel::try_from(m.ack_level).map_err(|_| "must be one of the levels that there are");
    let level = f.read("ack_level", level);
    let at_least = f.cursor("at_least_revision", &m.at_least_revision, ODD_REVISION);
    let subject = subject(&mut f, m.subject_token, m.subject_api_key, &m.subject_user_id);
    match (tenant, amounts, idempotency_key, level, at_least) {
        (Some(tenant), Some(amounts), Some(idempotency_key), Some(level), Some(at_least)) if f.is_clean() => {
            Ok(Question {
                tenant,
                claims,
                subject,
                permissions: m.permissions,
                features: m.features,
                amounts,
                consume: level != v1::AckLevel::CheckOnly,
                leased: level == v1::AckLevel::Leased,
                idempotency_key,
                at_least,
                explain: m.explain,
            })
        }
        _ => Err(f.refuse()),
    }
}

fn names(f: &mut Fields, field: &str, all: &[String], is_one: impl Fn(&str) -> bool, wanted: &'static str) {
    f.read(field, if all.len() <= NAMES { Ok(()) } else { Err("must be at most 100") });
    for (i, name) in all.iter().take(NAMES).enumerate() {
        f.read(&format_args!("{field}[{i}]"), if is_one(name) { Ok(()) } else { Err(wanted) });
    }
}

/// Whom it is about; none when nobody is named.
fn subject(f: &mut Fields, token: String, api_key: String, user: &str) -> Option<Subject> {
    let given = [!token.is_empty(), !api_key.is_empty(), !user.is_empty()];
    match given {
        [false, false, false] => None,
        [true, false, false] => Some(Subject::Token(token)),
        [false, true, false] => Some(Subject::ApiKey(api_key)),
        [false, false, true] => f.user_id("subject_user_id", user).map(Subject::User),
        _ => {
            let last = if given[2] { "subject_user_id" } else { "subject_api_key" };
            f.read(last, Err("must not be there besides another subject"))
        }
    }
}

/// On what something was decided, as answers say it.
struct Told {
    revision: String,
    staleness: Option<prost_types::Duration>,
    max_staleness: Option<prost_types::Duration>,
}

impl Told {
    fn of(s: &Services, basis: &Basis) -> Self {
        let duration = |duration: Duration| duration.try_into().ok();
        Self {
            revision: basis.revision.map(Cursor::text).unwrap_or_default(),
            staleness: basis.staleness().and_then(duration),
            max_staleness: duration(s.0.app.plane.memory.max_staleness()),
        }
    }
}

fn answer(s: &Services, ctx: &Ctx, decision: Decision) -> v1::AuthorizeResponse {
    let standing = decision.standing.as_ref();
    let told = Told::of(s, &decision.basis);
    v1::AuthorizeResponse {
        allowed: decision.reasons.is_empty(),
        reasons: decision.reasons.iter().flat_map(convert::deny_reasons).collect(),
        user: decision.user.as_ref().map(convert::user),
        tenant: standing.map(|s| convert::tenant(&s.tenant, ctx.now)),
        roles: standing.and_then(|s| s.member.as_ref()).map(|member| member.roles.texts()).unwrap_or_default(),
        usage: decision.usage.iter().map(convert::usage).collect(),
        api_key: decision.api_key.as_ref().map(|key| convert::api_key(key, ctx.now)),
        revision: told.revision,
        staleness: told.staleness,
        max_staleness: told.max_staleness,
        explanation: decision.explanation.into_iter().map(explanation).collect(),
    }
}

fn explanation(explained: Explained) -> v1::PermissionExplanation {
    let Explained { permission, held, by_role, roles, key } = explained;
    let (roles, other_roles) = if by_role { (roles, Vec::new()) } else { (Vec::new(), roles) };
    v1::PermissionExplanation { permission, held, roles, other_roles, key }
}

/// What came of one question of many.
pub(super) fn result(decided: Result<v1::AuthorizeResponse, Error>) -> v1::AuthorizeResult {
    use v1::authorize_result::Result as Of;
    let of = match decided {
        Ok(decision) => Of::Decision(decision),
        Err(error) => Of::Error(convert::refusal(&error)),
    };
    v1::AuthorizeResult { result: Some(of) }
}
