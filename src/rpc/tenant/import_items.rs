//! Items of an import, read from their messages: all that is wrong with one at once.

use crate::app::import::{ImportMembership, ImportTenant, ImportUser, Item, Refused};
use crate::app::passwords::check_imported;
use crate::domain::catalogue::Catalogue;
use crate::domain::import::Elsewhere;
use crate::domain::name::{Email, Slug, display_name};
use crate::domain::role::{MOST_HELD, RoleName, RoleNames};
use crate::domain::subscription::{ProviderIds, SubscriptionStatus};
use crate::rpc::fields::Fields;
use crate::rpc::{settings, v1};
use crate::time::Timestamp;

/// Later than any end of a trial or of a payment: the year 2200.
const FAR: Timestamp = Timestamp::from_micros(7_258_118_400_000_000);

/// Before anything was made.
const EPOCH: Timestamp = Timestamp::from_micros(0);

/// Reads an item.
///
/// # Errors
/// `FieldsInvalid`.
pub(super) fn read(message: v1::ImportTenantsRequest, catalogue: &Catalogue, now: Timestamp) -> Result<Item, Refused> {
    use v1::import_tenants_request::Item as Sent;
    let mut f = Fields::default();
    let item = match message.item {
        Some(Sent::User(m)) => user(&mut f, &m, now).map(Item::User),
        Some(Sent::Tenant(m)) => tenant(&mut f, m, catalogue, now).map(|tenant| Item::Tenant(Box::new(tenant))),
        Some(Sent::Membership(m)) => membership(&mut f, &m, now).map(Item::Membership),
        None => f.read("item", Err("must be a user, a tenant or a membership")),
    };
    match item {
        Some(item) if f.is_clean() => Ok(item),
        _ => Err(f.refuse().into()),
    }
}

/// An id that must be there.
pub(super) fn external_id(f: &mut Fields, field: &str, text: &str) -> Option<String> {
    let read = f.external_id(field, text)?;
    f.read(field, read.ok_or("must be 1 to 128 printable ASCII characters"))
}

fn user(f: &mut Fields, m: &v1::ImportUser, now: Timestamp) -> Option<ImportUser> {
    let external_id = external_id(f, "external_id", &m.external_id);
    let email = f.read("email", Email::parse(&m.email));
    let name = f.read("display_name", display_name(&m.display_name));
    let hash = match m.password_hash.as_str() {
        "" => Some(None),
        hash => f.read("password_hash", check_imported(hash)).map(|()| Some(m.password_hash.clone())),
    };
    let created_at = f.time("create_time", m.create_time.as_ref(), (EPOCH, now));
    Some(ImportUser {
        external_id: external_id?,
        email: email?,
        display_name: name?,
        password_hash: hash?,
        created_at: created_at?,
    })
}

fn tenant(f: &mut Fields, m: v1::ImportTenant, catalogue: &Catalogue, now: Timestamp) -> Option<ImportTenant> {
    let external_id = external_id(f, "external_id", &m.external_id);
    let slug = f.read("slug", Slug::choose(&m.slug));
    let name = f.read("display_name", display_name(&m.display_name));
    f.plan("plan", &m.plan);
    let cycle = f.cycle("cycle", m.cycle);
    let status = status(f, m.subscription_status);
    let paid_until = f.time("paid_until_time", m.paid_until_time.as_ref(), (EPOCH, FAR));
    let trial_end = f.time("trial_end_time", m.trial_end_time.as_ref(), (EPOCH, FAR));
    let reason = f.text("suspend_reason", &m.suspend_reason, 200);
    let ids = m.provider_ids.unwrap_or_default();
    let customer = f.external_id("provider_ids.customer", &ids.customer);
    let subscription = f.external_id("provider_ids.subscription", &ids.subscription);
    let payment_method = f.external_id("provider_ids.payment_method", &ids.payment_method);
    let own = settings::read(f, m.settings.unwrap_or_default());
    settings::check(f, &own, &catalogue.definition.roles);
    let created_at = f.time("create_time", m.create_time.as_ref(), (EPOCH, now));
    let provider = ProviderIds {
        customer: customer?.unwrap_or_default(),
        subscription: subscription?.unwrap_or_default(),
        payment_method: payment_method?.unwrap_or_default(),
    };
    Some(ImportTenant {
        external_id: external_id?,
        slug: slug?,
        display_name: name?,
        plan: m.plan,
        cycle: cycle?,
        elsewhere: Elsewhere { status: status?, paid_until: paid_until?, trial_end: trial_end?, provider },
        suspend_reason: reason?,
        settings: own,
        created_at: created_at?,
    })
}

#[expect(clippy::option_option, reason = "whether a field could be read, and then whether it was there")]
fn status(f: &mut Fields, number: i32) -> Option<Option<SubscriptionStatus>> {
    let status = match v1::SubscriptionStatus::try_from(number) {
        Ok(v1::SubscriptionStatus::Unspecified) => Ok(None),
        Ok(v1::SubscriptionStatus::Trialing) => Ok(Some(SubscriptionStatus::Trialing)),
        Ok(v1::SubscriptionStatus::Active) => Ok(Some(SubscriptionStatus::Active)),
        Ok(v1::SubscriptionStatus::PastDue) => Ok(Some(SubscriptionStatus::PastDue)),
        Ok(v1::SubscriptionStatus::Paused) => Ok(Some(SubscriptionStatus::Paused)),
        Ok(v1::SubscriptionStatus::Cancelled) => Ok(Some(SubscriptionStatus::Cancelled)),
        Err(_) => Err("must be one of the statuses that there are"),
    };
    f.read("subscription_status", status)
}

fn membership(f: &mut Fields, m: &v1::ImportMembership, now: Timestamp) -> Option<ImportMembership> {
    let tenant = external_id(f, "tenant_external_id", &m.tenant_external_id);
    let user = external_id(f, "user_external_id", &m.user_external_id);
    let roles = roles(f, m);
    let joined_at = f.time("join_time", m.join_time.as_ref(), (EPOCH, now));
    Some(ImportMembership {
        tenant: tenant?,
        user: user?,
        roles: roles?,
        suspended: m.suspended,
        joined_at: joined_at?,
        default: m.default,
    })
}

/// One role or several, by names that may be the tenant's own: whether there are such is seen when the tenant is known.
fn roles(f: &mut Fields, m: &v1::ImportMembership) -> Option<RoleNames> {
    let (field, names) = match (m.role.as_str(), m.roles.as_slice()) {
        (role, []) => ("role", vec![role]),
        ("", names) => ("roles", names.iter().map(String::as_str).collect()),
        _ => return f.read("roles", Err("must be empty where role is named")),
    };
    let count = if names.len() <= MOST_HELD { Ok(()) } else { Err(format!("must be 1 to {MOST_HELD} roles")) };
    f.read(field, count)?;
    let names: Option<Vec<RoleName>> = names.into_iter().map(|name| f.role_name(field, name)).collect();
    RoleNames::of(names?)
}
