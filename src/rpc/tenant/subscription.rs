//! Plan and subscription.

use chrono::TimeDelta;
use tonic::Request;

use crate::app::mutation::etag;
use crate::app::subscriptions::{BillingEvent, PlanChange, Told};
use crate::domain::catalogue::{MAX_AMOUNT, is_name};
use crate::domain::plan::Cycle;
use crate::domain::subscription::{Payment, ProviderIds, SubscriptionStatus};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

pub(super) async fn get_subscription(
    s: &Services,
    request: Request<v1::GetSubscriptionRequest>,
) -> Result<v1::GetSubscriptionResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    Ok(v1::GetSubscriptionResponse { subscription: Some(subscription(&t.tenant, t.ctx.now)) })
}

pub(super) async fn change_plan(
    s: &Services,
    request: Request<v1::ChangePlanRequest>,
) -> Result<v1::ChangePlanResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    f.read("plan", if is_name(&m.plan) { Ok(()) } else { Err("must be a plan's name") });
    let cycle = f.cycle("cycle", m.cycle);
    let when = f.when("when", m.when);
    let (Some(key), Some(cycle), Some(at_period_end), true) = (key, cycle, when, f.is_clean()) else {
        return Err(f.refuse());
    };
    let change = PlanChange {
        plan: m.plan,
        cycle,
        at_period_end,
        allow_exceeding: m.allow_exceeding,
        validate_only: m.validate_only,
        etag: m.etag,
    };
    let done = s.0.app.change_plan(&t, &change, key).await?;
    let exceeded = done.exceeded.into_iter().map(|excess| v1::OverLimit {
        tenant_id: String::new(),
        metric: excess.metric,
        used: excess.used,
        limit: excess.limit,
    });
    Ok(v1::ChangePlanResponse {
        subscription: Some(subscription(&done.tenant, t.ctx.now)),
        exceeded: exceeded.collect(),
        lost_features: done.lost,
        gained_features: done.gained,
    })
}

pub(super) async fn cancel_subscription(
    s: &Services,
    request: Request<v1::CancelSubscriptionRequest>,
) -> Result<v1::CancelSubscriptionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let when = f.when("when", m.when);
    let reason = f.text("reason", &m.reason, 200);
    let (Some(key), Some(at_period_end), Some(reason)) = (key, when, reason) else { return Err(f.refuse()) };
    let tenant = s.0.app.cancel_subscription(&t, at_period_end, &reason, key).await?;
    Ok(v1::CancelSubscriptionResponse { subscription: Some(subscription(&tenant, t.ctx.now)) })
}

pub(super) async fn resume_subscription(
    s: &Services,
    request: Request<v1::ResumeSubscriptionRequest>,
) -> Result<v1::ResumeSubscriptionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.resume_subscription(&t, key).await?;
    Ok(v1::ResumeSubscriptionResponse { subscription: Some(subscription(&tenant, t.ctx.now)) })
}

pub(super) async fn renew_subscription(
    s: &Services,
    request: Request<v1::RenewSubscriptionRequest>,
) -> Result<v1::RenewSubscriptionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.renew_subscription(&t, key).await?;
    Ok(v1::RenewSubscriptionResponse { subscription: Some(subscription(&tenant, t.ctx.now)) })
}

pub(super) async fn pause_subscription(
    s: &Services,
    request: Request<v1::PauseSubscriptionRequest>,
) -> Result<v1::PauseSubscriptionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.pause_subscription(&t, key).await?;
    Ok(v1::PauseSubscriptionResponse { subscription: Some(subscription(&tenant, t.ctx.now)) })
}

pub(super) async fn record_billing_event(
    s: &Services,
    request: Request<v1::RecordBillingEventRequest>,
) -> Result<v1::RecordBillingEventResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let told = told(m, t.ctx.now)?;
    let (tenant, applied) = s.0.app.record_billing_event(&t, &told).await?;
    Ok(v1::RecordBillingEventResponse { subscription: Some(subscription(&tenant, t.ctx.now)), applied })
}

/// Reads what a billing provider tells.
fn told(m: v1::RecordBillingEventRequest, now: Timestamp) -> Result<Told, Error> {
    let mut f = Fields::default();
    f.read("provider", if is_name(&m.provider) { Ok(()) } else { Err("must be 1 to 64 of a-z, 0-9 and _") });
    let id = (1..=255).contains(&m.event_id.len()) && m.event_id.bytes().all(|b| b.is_ascii_graphic());
    f.read("event_id", if id { Ok(()) } else { Err("must be 1 to 255 printable ASCII characters") });
    let paid_until = f.time(
        "paid_until_time",
        m.paid_until_time.as_ref(),
        (now.after(-TimeDelta::days(3660)), now.after(TimeDelta::days(3660))),
    );
    let at = f.time(
        "event_time",
        m.event_time.as_ref(),
        (Timestamp::from_micros(946_684_800_000_000), now.after(TimeDelta::days(1))),
    );
    f.read("amount", if (0..=MAX_AMOUNT).contains(&m.amount) { Ok(()) } else { Err("must be 0 to 2^53") });
    let currency =
        m.currency.is_empty() || (m.currency.len() == 3 && m.currency.bytes().all(|b| b.is_ascii_uppercase()));
    f.read("currency", if currency { Ok(()) } else { Err("must be three capital letters, as in ISO 4217") });
    let payment = match (m.kind(), paid_until.flatten()) {
        (v1::BillingEventKind::Paid, until) => Ok(Payment::Paid(until)),
        (v1::BillingEventKind::Failed, _) => Ok(Payment::Failed),
        (v1::BillingEventKind::Refunded, _) => Ok(Payment::Refunded),
        (v1::BillingEventKind::Unspecified, _) => Err("must be said: paid, failed or refunded"),
    };
    let kind = i64::from(m.kind);
    let payment = f.read("kind", payment);
    let provider_ids = provider_ids(&mut f, m.provider_ids.unwrap_or_default());
    let (Some(at), Some(payment), true) = (at, payment, f.is_clean()) else { return Err(f.refuse()) };
    let event = BillingEvent {
        provider: m.provider,
        event_id: m.event_id,
        kind,
        at: at.unwrap_or(now),
        amount: m.amount,
        currency: m.currency,
    };
    Ok(Told { event, payment, provider_ids })
}

/// Reads a provider's ids, each at most 255 characters.
pub(super) fn provider_ids(f: &mut Fields, m: v1::ProviderIds) -> ProviderIds {
    let mut id = |name: &str, text: String| {
        let ok = text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
        let problem = "must be at most 255 printable ASCII characters";
        f.read(&format!("provider_ids.{name}"), if ok { Ok(text) } else { Err(problem) }).unwrap_or_default()
    };
    ProviderIds {
        customer: id("customer", m.customer),
        subscription: id("subscription", m.subscription),
        payment_method: id("payment_method", m.payment_method),
    }
}

/// The subscription of a settled tenant, as it stands at the time of the call.
pub(super) fn subscription(tenant: &Tenant, now: Timestamp) -> v1::Subscription {
    let s = &tenant.subscription;
    let status = match s.status {
        SubscriptionStatus::Trialing => v1::SubscriptionStatus::Trialing,
        SubscriptionStatus::Active => v1::SubscriptionStatus::Active,
        SubscriptionStatus::PastDue => v1::SubscriptionStatus::PastDue,
        SubscriptionStatus::Paused => v1::SubscriptionStatus::Paused,
        SubscriptionStatus::Cancelled => v1::SubscriptionStatus::Cancelled,
    };
    v1::Subscription {
        plan: s.of.plan.clone(),
        plan_version: s.of.version,
        status: status.into(),
        cycle: cycle(s.cycle).into(),
        price: s.price,
        currency: s.currency.clone(),
        period_start_time: s.period_start.map(convert::time),
        period_end_time: s.period_end.map(convert::time),
        days_until_renewal: s.period_end.map_or(0, |end| days_until(end, now)),
        paid_until_time: s.paid_until.map(convert::time),
        trial_end_time: s.trial_end.map(convert::time),
        grace_end_time: s.grace_end.map(convert::time),
        cancel_at_period_end: s.cancel_at_period_end,
        next_plan: s.next.as_ref().map(|next| next.of.plan.clone()).unwrap_or_default(),
        next_cycle: cycle(s.next.as_ref().and_then(|next| next.cycle)).into(),
        pause_time: s.paused_at.map(convert::time),
        cancel_time: s.cancelled_at.map(convert::time),
        provider_ids: Some(v1::ProviderIds {
            customer: s.provider.customer.clone(),
            subscription: s.provider.subscription.clone(),
            payment_method: s.provider.payment_method.clone(),
        }),
        etag: etag(tenant.version),
    }
}

pub(super) const fn cycle(cycle: Option<Cycle>) -> v1::BillingCycle {
    match cycle {
        None => v1::BillingCycle::Unspecified,
        Some(Cycle::Month) => v1::BillingCycle::Month,
        Some(Cycle::Year) => v1::BillingCycle::Year,
    }
}

/// Whole days from now on, rounded up; 0 when it is over.
fn days_until(end: Timestamp, now: Timestamp) -> i32 {
    const DAY: i64 = 86_400;
    let seconds = end.since(now).num_seconds().max(0);
    i32::try_from((seconds + DAY - 1) / DAY).unwrap_or(i32::MAX)
}
