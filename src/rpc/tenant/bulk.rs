//! Import, export, and look-up by external id.

use std::pin::Pin;

use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::subscription::provider_ids;
use crate::app::export::Export;
use crate::app::import::{ImportItem, Imported, ImportedMembership, ImportedTenant, ImportedUser};
use crate::ctx::Ctx;
use crate::domain::name::{Email, Slug, display_name};
use crate::domain::secret::Secret;
use crate::domain::subscription::SubscriptionStatus;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::status::{of_framework, reason, status};
use crate::rpc::{Services, settings, v1};
use crate::time::Timestamp;

/// What streams of answers are.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How many items are read ahead, and how many answers wait for a slow reader: then the server reads no further.
const AHEAD: usize = 64;

/// How often the right to go on is asked again, in items.
const RECHECK: i64 = 500;

/// How long a stream may go on.
const LONGEST: TimeDelta = TimeDelta::hours(1);

pub(super) async fn import_tenants(
    s: &Services,
    request: Request<Streaming<v1::ImportTenantsRequest>>,
) -> Result<Answers<v1::ImportTenantsResponse>, Error> {
    let (ctx, _, _, mut items) = s.0.open(request).await?;
    // What cannot be read at all is refused before anything is answered.
    let mut next = items.message().await.map_err(|broken| broken_off(&broken))?;
    let (answers, stream) = mpsc::channel(AHEAD);
    let services = s.clone();
    tokio::spawn(async move {
        let mut index = 0;
        while let Some(item) = next {
            let answer = import_one(&services, &ctx, index, item).await;
            let over = answer.is_err();
            // Nobody listens any more: the rest is for another stream.
            if answers.send(answer).await.is_err() || over {
                return;
            }
            index += 1;
            next = match items.message().await {
                Ok(next) => next,
                Err(broken) => {
                    let _ = answers.send(Err(status(&broken_off(&broken)))).await;
                    return;
                }
            };
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// What tonic says of a stream that it cannot read, in our words.
fn broken_off(broken: &Status) -> Error {
    let told = of_framework(broken.code(), broken.message());
    Error::BodyMalformed(told.message().trim_start_matches("the body is not this method's request: ").to_owned())
}

/// Imports one item. A refused item is an answer; what ends the stream is a status.
async fn import_one(
    s: &Services,
    opened: &Ctx,
    index: i64,
    item: v1::ImportTenantsRequest,
) -> Result<v1::ImportTenantsResponse, Status> {
    let app = &s.0.app;
    let ctx = Ctx { now: app.clock.now(), ..opened.clone() };
    if ctx.now > opened.now.after(LONGEST) {
        return Err(status(&Error::DeadlineExceeded));
    }
    if index % RECHECK == 0 {
        app.plane.still_there(&ctx).await.map_err(|error| status(&error))?;
    }
    let catalogue = app.plane.catalogues.seen();
    let done = match read(item, ctx.now, &catalogue.definition.roles) {
        Ok(item) => app.import(&ctx, &catalogue, item).await,
        Err(error) => Err(error),
    };
    let (outcome, id) = match &done {
        Ok(Imported::Created(id)) => (v1::ImportOutcome::Created, id.to_string()),
        Ok(Imported::Unchanged(id)) => (v1::ImportOutcome::Unchanged, id.to_string()),
        Err(error @ (Error::DatabaseUnavailable(_) | Error::Internal(_))) => return Err(status(error)),
        Err(_) => (v1::ImportOutcome::Refused, String::new()),
    };
    let (reason, message) = match &done {
        Err(error) => (reason(error).to_owned(), error.to_string()),
        Ok(_) => (String::new(), String::new()),
    };
    Ok(v1::ImportTenantsResponse { index, outcome: outcome.into(), id, reason, message })
}

fn read(
    item: v1::ImportTenantsRequest,
    now: Timestamp,
    roles: &crate::domain::role::Roles,
) -> Result<ImportItem, Error> {
    use v1::import_tenants_request::Item;
    let mut f = Fields::default();
    match item.item {
        None => Err(Error::field("item", "must be a user, a tenant or a membership")),
        Some(Item::User(m)) => user(&mut f, m, now).map(ImportItem::User).ok_or_else(|| f.refuse()),
        Some(Item::Tenant(m)) => {
            let tenant = tenant(&mut f, m, now, roles);
            tenant.map(|tenant| ImportItem::Tenant(Box::new(tenant))).ok_or_else(|| f.refuse())
        }
        Some(Item::Membership(m)) => membership(&mut f, m, now).map(ImportItem::Membership).ok_or_else(|| f.refuse()),
    }
}

/// From 1970 until now: when something of the past happened.
fn past(
    f: &mut Fields,
    field: &str,
    time: Option<&prost_types::Timestamp>,
    now: Timestamp,
) -> Option<Option<Timestamp>> {
    f.time(field, time, (Timestamp::from_micros(0), now))
}

/// An external id that must be there.
fn known_id(f: &mut Fields, field: &str, text: &str) -> Option<String> {
    let id = f.external_id(field, text)?;
    f.read(field, id.ok_or("must be said"))
}

fn user(f: &mut Fields, m: v1::ImportUser, now: Timestamp) -> Option<ImportedUser> {
    let external_id = known_id(f, "user.external_id", &m.external_id);
    let email = f.read("user.email", Email::parse(&m.email));
    let name = f.read("user.display_name", display_name(&m.display_name));
    let created_at = past(f, "user.create_time", m.create_time.as_ref(), now);
    let password_hash = (!m.password_hash.is_empty()).then(|| Secret::new(m.password_hash));
    Some(ImportedUser {
        external_id: external_id?,
        email: email?,
        display_name: name?,
        password_hash,
        created_at: created_at?,
    })
}

fn tenant(
    f: &mut Fields,
    m: v1::ImportTenant,
    now: Timestamp,
    roles: &crate::domain::role::Roles,
) -> Option<ImportedTenant> {
    let external_id = known_id(f, "tenant.external_id", &m.external_id);
    let slug = f.read("tenant.slug", Slug::choose(&m.slug));
    let name = f.read("tenant.display_name", display_name(&m.display_name));
    let plan = f.plan("tenant.plan", &m.plan);
    let cycle = f.cycle("tenant.cycle", m.cycle);
    let status = match m.subscription_status() {
        v1::SubscriptionStatus::Unspecified => None,
        v1::SubscriptionStatus::Trialing => Some(SubscriptionStatus::Trialing),
        v1::SubscriptionStatus::Active => Some(SubscriptionStatus::Active),
        v1::SubscriptionStatus::PastDue => Some(SubscriptionStatus::PastDue),
        v1::SubscriptionStatus::Paused => Some(SubscriptionStatus::Paused),
        v1::SubscriptionStatus::Cancelled => Some(SubscriptionStatus::Cancelled),
    };
    let span = (Timestamp::from_micros(0), now.after(TimeDelta::days(3660)));
    let paid_until = f.time("tenant.paid_until_time", m.paid_until_time.as_ref(), span);
    let trial_end = f.time("tenant.trial_end_time", m.trial_end_time.as_ref(), span);
    let suspend_reason = f.text("tenant.suspend_reason", &m.suspend_reason, 200);
    let provider = provider_ids(f, m.provider_ids.unwrap_or_default());
    let own = settings::read(f, m.settings.unwrap_or_default());
    settings::check(f, &own, roles);
    let created_at = past(f, "tenant.create_time", m.create_time.as_ref(), now);
    plan?;
    f.is_clean().then_some(())?;
    Some(ImportedTenant {
        external_id: external_id?,
        slug: slug?,
        display_name: name?,
        plan: m.plan,
        cycle: cycle?,
        status,
        paid_until: paid_until?,
        trial_end: trial_end?,
        suspend_reason: suspend_reason?,
        provider,
        settings: own,
        created_at: created_at?,
    })
}

fn membership(f: &mut Fields, m: v1::ImportMembership, now: Timestamp) -> Option<ImportedMembership> {
    let tenant = known_id(f, "membership.tenant_external_id", &m.tenant_external_id);
    let user = known_id(f, "membership.user_external_id", &m.user_external_id);
    let role = f.text("membership.role", &m.role, 64);
    let joined_at = past(f, "membership.join_time", m.join_time.as_ref(), now);
    Some(ImportedMembership {
        tenant_external_id: tenant?,
        user_external_id: user?,
        role: role?,
        suspended: m.suspended,
        joined_at: joined_at?,
        default: m.default,
    })
}

pub(super) async fn export_tenant(
    s: &Services,
    request: Request<v1::ExportTenantRequest>,
) -> Result<Answers<v1::ExportTenantResponse>, Error> {
    let (t, _) = s.0.enter(request).await?;
    s.0.app.note_export(&t).await?;
    let (answers, stream) = mpsc::channel(2);
    let app = s.0.app.clone();
    tokio::spawn(async move {
        let mut export = Export::default();
        loop {
            let answer = match app.export_page(&t, &mut export).await {
                Ok(None) => return,
                // A page that is only the end of a part has nothing to say.
                Ok(Some(lines)) if lines.is_empty() => continue,
                Ok(Some(lines)) => Ok(v1::ExportTenantResponse { lines }),
                Err(error) => Err(status(&error)),
            };
            let over = answer.is_err();
            if answers.send(answer).await.is_err() || over {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

pub(super) async fn lookup_external_id(
    s: &Services,
    request: Request<v1::LookupExternalIdRequest>,
) -> Result<v1::LookupExternalIdResponse, Error> {
    use v1::lookup_external_id_request::Kind;
    let (_, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let id = match &m.kind {
        None => return Err(Error::field("kind", "must be a tenant's or a user's")),
        Some(Kind::TenantExternalId(id)) => {
            let Some(id) = known_id(&mut f, "tenant_external_id", id) else { return Err(f.refuse()) };
            s.0.app.find_external_tenant(&id).await?.to_string()
        }
        Some(Kind::UserExternalId(id)) => {
            let Some(id) = known_id(&mut f, "user_external_id", id) else { return Err(f.refuse()) };
            s.0.app.find_external_user(&id).await?.to_string()
        }
    };
    Ok(v1::LookupExternalIdResponse { id })
}
