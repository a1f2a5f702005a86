//! Metrics of all kinds and what is done to them besides consuming: gauges and refunds; limits of members and keys; periods in
//! the tenant's time; what a key and a promise stand for.

use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::future::join_all;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_gauge_request::Change;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::harness::{
    Bed, Clients, Tenant, amounts, assert_refused, on_both_engines, request_id, unique, until, wrong_fields,
};
use crate::holds::slot;
use crate::recording::event;

on_both_engines! {
    all_kinds_of_metrics_are_counted
    a_key_stands_for_all_that_was_asked
    what_was_forfeited_without_need_comes_back
    a_refund_gives_back_what_its_event_took_and_no_more
    an_event_is_not_its_own_refund
    a_refund_takes_a_gauge_no_lower_than_it_is
    a_gauge_takes_the_newest_of_its_source
    members_and_keys_have_limits_below_the_tenants
    best_effort_takes_what_there_is
    a_promise_is_kept
    days_begin_in_the_tenants_time_zone
    quota_is_checked_without_being_used
}

const PRODUCT: &str = r#"
default_plan = "p"
[metrics.calls]
unit = "calls"
[metrics.daily]
unit = "calls"
period = "day"
[metrics.ever]
unit = "calls"
period = "lifetime"
[metrics.tokens]
unit = "tokens"
[metrics.storms]
unit = "storms"
[metrics.storage]
unit = "bytes"
kind = "gauge"
[metrics.sessions]
unit = "sessions"
kind = "concurrency"
[plans.p.limits]
calls = { limit = 100, per_member = 10, per_key = 5 }
daily = 10
ever = 7
storage = 1000
sessions = 3
tokens = { limit = 100, soft_percent = 20 }
"#;

pub(crate) async fn product(t: &Bed) -> (Bed, Tenant) {
    let t = Bed::of_product(t.engine, PRODUCT).await;
    let acme = t.tenant("acme").await;
    (t, acme)
}

/// A service that may correct.
pub(crate) async fn service(t: &Bed) -> Clients {
    t.with_key(&t.service_key(&["usage.read", "usage.write", "usage.correct"]).await)
}

pub(crate) async fn usage(clients: &mut Clients, tenant: &Tenant, metric: &str) -> v1::Usage {
    let request = v1::GetUsageRequest { tenant: tenant.id.clone(), metrics: vec![metric.to_owned()] };
    clients.usage.get_usage(request).await.unwrap().into_inner().usage.remove(0)
}

pub(crate) fn ask(tenant: &Tenant, list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    let (tenant, idempotency_key) = (tenant.id.clone(), key.to_owned());
    v1::ConsumeRequest { tenant, amounts: amounts(list), idempotency_key, ..Default::default() }
}

async fn all_kinds_of_metrics_are_counted(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    for (metric, limit) in [("daily", 10), ("ever", 7), ("storage", 1000), ("tokens", 120)] {
        let all = service.usage.consume(ask(&acme, &[(metric, limit)], "")).await.unwrap().into_inner();
        assert_eq!((all.usage[0].used, all.usage[0].scope()), (limit, v1::UsageScope::Tenant));
        let full = service.usage.consume(ask(&acme, &[(metric, 1)], "")).await;
        assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    }
    let tokens = usage(&mut service, &acme, "tokens").await;
    assert_eq!((tokens.limit, tokens.remaining, tokens.percent), (Some(100), Some(0), Some(120)));
    let ever = usage(&mut service, &acme, "ever").await;
    assert!(ever.reset_time.is_none() && ever.period_start_time.is_none());
    assert!(usage(&mut service, &acme, "storage").await.reset_time.is_none());
    assert!(usage(&mut service, &acme, "daily").await.reset_time.is_some());
    // The day ends, the rest does not.
    t.clock.advance(TimeDelta::days(1));
    service.usage.consume(ask(&acme, &[("daily", 10)], "")).await.expect("a new day");
    for metric in ["ever", "storage"] {
        let full = service.usage.consume(ask(&acme, &[(metric, 1)], "")).await;
        assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    }
    let slots = service.usage.consume(ask(&acme, &[("sessions", 1)], "")).await;
    assert_eq!(wrong_fields(slots), ["amounts"]);
}

/// A gauge, storage, that is set.
pub(crate) fn set_storage(tenant: &Tenant, value: i64) -> v1::SetGaugeRequest {
    v1::SetGaugeRequest {
        tenant: tenant.id.clone(),
        metric: "storage".to_owned(),
        change: Some(Change::Value(value)),
        ..Default::default()
    }
}

async fn a_key_stands_for_all_that_was_asked(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let bob = t.member(&acme, "member").await;
    let named = |id: &str, key: &str| v1::ConsumeRequest {
        details: Some(v1::UsageDetails { user_id: id.to_owned(), ..Default::default() }),
        ..ask(&acme, &[("calls", 1)], key)
    };
    service.usage.consume(named(&acme.owner.id, "k")).await.unwrap();
    service.usage.consume(named(&acme.owner.id, "k")).await.expect("the first answer again");
    let other = service.usage.consume(named(&bob.id, "k")).await;
    assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    let taken = |seconds: i64, holder: &str| v1::AcquireSlotRequest {
        holder: holder.to_owned(),
        idempotency_key: "s".to_owned(),
        ..slot(&acme, seconds)
    };
    service.usage.acquire_slot(taken(6, "0x")).await.unwrap();
    let other = service.usage.acquire_slot(taken(60, "x")).await;
    assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    let at = |seconds: i64| v1::RecordUsageRequest {
        tenant: acme.id.clone(),
        events: vec![v1::UsageEvent {
            event_time: Some(prost_types::Timestamp { seconds: t.clock.now().seconds() - seconds, nanos: 0 }),
            ..event(&[("ever", 1)], "e")
        }],
    };
    let (first, other) = (at(60), at(61));
    for (request, reason) in [(first.clone(), ""), (first, ""), (other, "IDEMPOTENCY_KEY_REUSED")] {
        let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
        assert_eq!(results[0].reason, reason);
    }
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 1);
}

/// A gauge that is set takes back every lease, and of those that promises may come from it forfeits all that is left, since
/// nobody else knows what was promised. The server that had the lease knows, and gives back the rest.
async fn what_was_forfeited_without_need_comes_back(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let promised = v1::ConsumeRequest { ack_level: v1::AckLevel::Leased.into(), ..ask(&acme, &[("storage", 1)], "") };
    let forfeited = "select cast(sum(forfeited) as bigint) from quota_account where tenant_id = $1";
    let mut most = 0;
    for _ in 0..10 {
        for _ in 0..10 {
            service.usage.consume(promised.clone()).await.unwrap();
        }
        service.usage.set_gauge(set_storage(&acme, 10)).await.unwrap();
        let rows: Vec<(i64,)> = t.rows(forfeited, &acme.id).await;
        most = most.max(rows[0].0);
    }
    assert!(most > 0, "nothing was ever forfeited");
    until("what was not promised is there again", || async {
        let rows: Vec<(i64,)> = t.rows(forfeited, &acme.id).await;
        rows[0].0 == 0
    })
    .await;
}

async fn a_refund_gives_back_what_its_event_took_and_no_more(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    service.usage.consume(ask(&acme, &[("ever", 5), ("daily", 4)], "event")).await.unwrap();
    let refund = |list: &[(&str, i64)], key: &str| v1::RefundRequest {
        tenant: acme.id.clone(),
        event_key: "event".to_owned(),
        amounts: amounts(list),
        idempotency_key: key.to_owned(),
    };
    let back = service.usage.refund(refund(&[("ever", 2)], "one")).await.unwrap().into_inner();
    assert_eq!(back.usage[0].used, 3);
    // A repetition gives back nothing.
    service.usage.refund(refund(&[("ever", 2)], "one")).await.unwrap();
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 3);
    let other = service.usage.refund(refund(&[("ever", 3)], "one")).await;
    assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    let beyond = service.usage.refund(refund(&[("ever", 4)], "two")).await;
    assert_refused(beyond, Code::FailedPrecondition, "BEYOND_AMOUNT");
    let beyond = service.usage.refund(refund(&[("storage", 1)], "three")).await;
    assert_refused(beyond, Code::FailedPrecondition, "BEYOND_AMOUNT");
    service.usage.refund(refund(&[], "all")).await.unwrap();
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 0);
    assert_eq!(usage(&mut service, &acme, "daily").await.used, 0);
    let nothing = v1::RefundRequest { event_key: "nothing".to_owned(), ..refund(&[], "four") };
    assert_refused(service.usage.refund(nothing).await, Code::NotFound, "USAGE_EVENT_NOT_FOUND");
    let refused = service.usage.consume(ask(&acme, &[("ever", 8)], "refused")).await;
    assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let refused = v1::RefundRequest { event_key: "refused".to_owned(), ..refund(&[], "five") };
    assert_refused(service.usage.refund(refused).await, Code::NotFound, "USAGE_EVENT_NOT_FOUND");
    // Not for members, whatever their role.
    let mut owner = t.with_token(&acme.owner.token);
    assert_refused(owner.usage.refund(refund(&[], "six")).await, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    // Fifty at once give back what there was, once.
    service.usage.consume(ask(&acme, &[("ever", 7)], "raced")).await.unwrap();
    let raced = (0..50).map(|n| {
        let request = v1::RefundRequest { event_key: "raced".to_owned(), ..refund(&[("ever", 1)], &format!("r{n}")) };
        let mut service = service.clone();
        async move { service.usage.refund(request).await.is_ok() }
    });
    assert_eq!(join_all(raced).await.into_iter().filter(|ok| *ok).count(), 7);
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 0);
}

async fn an_event_is_not_its_own_refund(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let refund = v1::RefundRequest {
        tenant: acme.id.clone(),
        event_key: "order 7".to_owned(),
        idempotency_key: "order 7".to_owned(),
        ..Default::default()
    };
    let refused = service.usage.refund(refund.clone()).await;
    assert_refused(refused, Code::NotFound, "USAGE_EVENT_NOT_FOUND");
    // Nothing of it is left: the key stands for what comes now.
    service.usage.consume(ask(&acme, &[("calls", 3)], "order 7")).await.unwrap();
    assert_refused(service.usage.refund(refund).await, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(usage(&mut service, &acme, "calls").await.used, 3);
}

async fn a_refund_takes_a_gauge_no_lower_than_it_is(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    service.usage.consume(ask(&acme, &[("storage", 600)], "big")).await.unwrap();
    service.usage.set_gauge(set_storage(&acme, 100)).await.unwrap();
    let refund =
        v1::RefundRequest { tenant: acme.id.clone(), event_key: "big".to_owned(), ..v1::RefundRequest::default() };
    let told = service.usage.refund(refund.clone()).await.unwrap().into_inner();
    assert_eq!(told.usage[0].used, 0);
    let again = service.usage.refund(refund).await.unwrap().into_inner();
    assert!(again.usage.is_empty(), "there is nothing left of it: {again:?}");
    let storage = usage(&mut service, &acme, "storage").await;
    assert_eq!((storage.used, storage.remaining), (0, Some(1000)));
    let beyond = service.usage.consume(ask(&acme, &[("storage", 1001)], "")).await;
    assert_refused(beyond, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn a_gauge_takes_the_newest_of_its_source(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let set = |change: Change, sequence: Option<i64>, key: &str| v1::SetGaugeRequest {
        tenant: acme.id.clone(),
        metric: "storage".to_owned(),
        sequence,
        idempotency_key: key.to_owned(),
        change: Some(change),
    };
    let answer = service.usage.set_gauge(set(Change::Value(400), Some(10), "")).await.unwrap().into_inner();
    assert_eq!((answer.usage.unwrap().used, answer.applied), (400, true));
    let late = service.usage.set_gauge(set(Change::Value(900), Some(9), "")).await.unwrap().into_inner();
    assert_eq!((late.usage.unwrap().used, late.applied), (400, false));
    service.usage.consume(ask(&acme, &[("storage", 600)], "")).await.expect("up to its limit");
    let full = service.usage.consume(ask(&acme, &[("storage", 1)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let lower = set(Change::LowerBy(100), None, "less");
    service.usage.set_gauge(lower.clone()).await.unwrap();
    service.usage.set_gauge(lower).await.unwrap();
    assert_eq!(usage(&mut service, &acme, "storage").await.used, 900);
    // Never below nothing.
    service.usage.set_gauge(set(Change::LowerBy(5_000), None, "")).await.unwrap();
    assert_eq!(usage(&mut service, &acme, "storage").await.used, 0);
    service.usage.consume(ask(&acme, &[("storage", 1000)], "")).await.expect("all of it");
    // What is, is: also above the limit.
    service.usage.set_gauge(set(Change::Value(3000), Some(11), "")).await.unwrap();
    assert_eq!(usage(&mut service, &acme, "storage").await.percent, Some(300));
    let counter = v1::SetGaugeRequest { metric: "calls".to_owned(), ..set(Change::Value(1), None, "") };
    assert_eq!(wrong_fields(service.usage.set_gauge(counter).await), ["metric"]);
    let negative = set(Change::Value(-1), None, "");
    assert_eq!(wrong_fields(service.usage.set_gauge(negative).await), ["value"]);
}

async fn members_and_keys_have_limits_below_the_tenants(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let mut member = t.with_token(&t.member(&acme, "member").await.token);
    let all = member.usage.consume(ask(&acme, &[("calls", 10)], "")).await.unwrap().into_inner();
    let scopes: Vec<v1::UsageScope> = all.usage.iter().map(v1::Usage::scope).collect();
    assert_eq!(scopes, [v1::UsageScope::Tenant, v1::UsageScope::Member]);
    assert_eq!((all.usage[1].used, all.usage[1].limit), (10, Some(10)));
    let more = member.usage.consume(ask(&acme, &[("calls", 1)], "")).await;
    assert_refused(more, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    // What a refusal of theirs would have taken is still the tenant's.
    assert_eq!(usage(&mut service, &acme, "calls").await.used, 10);
    let mut other = t.with_token(&acme.owner.token);
    other.usage.consume(ask(&acme, &[("calls", 10)], "")).await.expect("a limit of their own");
    let create = v1::CreateApiKeyRequest {
        tenant: acme.id.clone(),
        display_name: unique("key"),
        permissions: vec!["usage.write".to_owned(), "usage.read".to_owned()],
        ..Default::default()
    };
    let key = other.auth.create_api_key(create).await.unwrap().into_inner().secret;
    let mut program = t.with_key(&key);
    program.usage.consume(ask(&acme, &[("calls", 5)], "")).await.unwrap();
    let more = program.usage.consume(ask(&acme, &[("calls", 1)], "")).await;
    assert_refused(more, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let check = v1::CheckQuotaRequest { tenant: acme.id.clone(), amounts: amounts(&[("calls", 1)]), details: None };
    let checked = program.usage.check_quota(check).await.unwrap().into_inner();
    assert!(!checked.allowed && checked.shortages[0].limit == 5, "{checked:?}");
    // The service consumes for the tenant as a whole.
    service.usage.consume(ask(&acme, &[("calls", 75)], "")).await.unwrap();
    let full = service.usage.consume(ask(&acme, &[("calls", 1)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn best_effort_takes_what_there_is(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let request =
        v1::ConsumeRequest { best_effort: true, ..ask(&acme, &[("ever", 8), ("daily", 4), ("storage", 1001)], "once") };
    let some = service.usage.consume(request.clone()).await.unwrap().into_inner();
    let short: Vec<&str> = some.shortages.iter().map(|short| short.metric.as_str()).collect();
    assert_eq!(short, ["ever", "storage"]);
    assert_eq!(usage(&mut service, &acme, "daily").await.used, 4);
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 0);
    assert_eq!(service.usage.consume(request).await.unwrap().into_inner(), some, "the first answer again");
    assert_eq!(usage(&mut service, &acme, "daily").await.used, 4);
    let none = v1::ConsumeRequest { best_effort: true, ..ask(&acme, &[("ever", 8), ("daily", 7)], "") };
    assert_refused(service.usage.consume(none).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn a_promise_is_kept(t: &Bed) {
    let (t, acme) = product(t).await;
    let service = service(&t).await;
    let calls = (0..300).map(|n| {
        let mut service = service.clone();
        let level = v1::AckLevel::Leased.into();
        let request = v1::ConsumeRequest { ack_level: level, ..ask(&acme, &[("tokens", 1)], &format!("p{n}")) };
        async move { service.usage.consume(request).await }
    });
    let answers: Vec<_> = futures::stream::iter(calls).buffered(30).collect().await;
    let admitted = answers.iter().filter(|answer| answer.is_ok()).count();
    // Up to the limit with its grace, and not one more.
    assert_eq!(admitted, 120);
    for refused in answers.into_iter().filter(Result::is_err) {
        assert_refused(refused, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    }
    let kept = "select count(*) from usage_event where tenant_id = $1 and verdict = 1";
    until("what was promised is written", || async {
        let rows: Vec<(i64,)> = t.rows(kept, &acme.id).await;
        rows[0].0 == 120
    })
    .await;
}

async fn days_begin_in_the_tenants_time_zone(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let settings = v1::UpdateSettingsRequest {
        tenant: acme.id.clone(),
        settings: Some(v1::Settings { time_zone: "Asia/Kathmandu".to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["time_zone".to_owned()] }),
        ..Default::default()
    };
    owner.tenants.update_settings(settings.clone()).await.unwrap();
    owner.usage.consume(ask(&acme, &[("daily", 1)], "")).await.unwrap();
    let day = usage(&mut owner, &acme, "daily").await;
    let start = day.period_start_time.unwrap().seconds;
    assert_eq!(start.rem_euclid(86_400), 86_400 - 20_700, "midnight at +05:45");
    // An open day is not redrawn; what comes after it begins where it ends.
    let moved = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings { time_zone: "America/New_York".to_owned(), ..Default::default() }),
        ..settings
    };
    owner.tenants.update_settings(moved).await.unwrap();
    let same = usage(&mut owner, &acme, "daily").await;
    assert_eq!((same.used, same.period_start_time, same.reset_time), (1, day.period_start_time, day.reset_time));
    // Whatever time it is now: right behind its end, which is in the middle of a day in New York.
    let left = day.reset_time.unwrap().seconds - t.clock.now().seconds();
    t.clock.advance(TimeDelta::seconds(left + 60));
    let mut owner = service(&t).await;
    owner.usage.consume(ask(&acme, &[("daily", 1)], "")).await.unwrap();
    let next = usage(&mut owner, &acme, "daily").await;
    assert_eq!((next.used, next.period_start_time), (1, day.reset_time));
    assert_ne!(next.reset_time.unwrap().seconds.rem_euclid(86_400), 86_400 - 20_700);
}

async fn quota_is_checked_without_being_used(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut viewer = t.with_token(&t.member(&acme, "viewer").await.token);
    let check =
        |list: &[(&str, i64)]| v1::CheckQuotaRequest { tenant: acme.id.clone(), amounts: amounts(list), details: None };
    let yes = viewer.usage.check_quota(check(&[("ever", 7), ("daily", 10)])).await.unwrap().into_inner();
    assert!(yes.allowed && yes.shortages.is_empty());
    let no = viewer.usage.check_quota(check(&[("ever", 8), ("daily", 10)])).await.unwrap().into_inner();
    assert!(!no.allowed);
    assert_eq!((no.shortages[0].metric.as_str(), no.shortages[0].amount, no.shortages[0].limit), ("ever", 8, 7));
    assert_eq!(usage(&mut viewer, &acme, "ever").await.used, 0);
    let mut service = service(&t).await;
    let id = request_id();
    for (user_id, api_key_id, reason) in
        [(id.clone(), String::new(), "MEMBER_NOT_FOUND"), (String::new(), id, "KEY_NOT_FOUND")]
    {
        let details = Some(v1::UsageDetails { user_id, api_key_id, ..Default::default() });
        let request = v1::CheckQuotaRequest { details, ..check(&[("ever", 1)]) };
        assert_refused(service.usage.check_quota(request).await, Code::NotFound, reason);
    }
}
