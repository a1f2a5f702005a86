//! Metrics of kind rate: so many per minute and so many at once, decided in memory. Rates of tests are so low that nothing
//! comes back by itself while they run; where something is to come back, the clock is moved.

use std::time::Instant;

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    Bed, Clients, Engine, Tenant, amounts, assert_refused, on_both_engines, unique, until, wrong_fields,
};
use crate::metering::{service, usage};
use crate::program::{Program, get, serve};

on_both_engines! {
    a_burst_goes_through_and_then_as_much_as_comes_back
    more_than_the_burst_never_goes_through_and_says_so
    an_amount_that_is_none_is_a_wrong_field
    what_a_rate_refuses_is_counted_nowhere_and_what_a_counter_refuses_goes_through_no_rate
    a_repetition_goes_through_no_rate_again
    repetitions_at_once_go_through_once
    best_effort_decides_rates_and_counters_each_for_itself
    asking_charges_nothing
    a_decision_names_the_rate_and_how_long_to_wait
    other_methods_name_those_that_are_for_rates
    members_and_keys_have_rates_below_the_tenants
    grace_is_on_rate_and_burst_and_what_is_not_limited_has_none
    a_limit_that_changes_holds_at_once
    rates_alone_leave_no_rows
    decisions_are_in_the_metrics
}

const PRODUCT: &str = r#"
default_plan = "p"
[metrics.calls]
unit = "calls"
kind = "rate"
[metrics.pings]
unit = "pings"
kind = "rate"
[metrics.mails]
unit = "mails"
kind = "rate"
[metrics.soft]
unit = "calls"
kind = "rate"
[metrics.closed]
unit = "calls"
kind = "rate"
[metrics.free]
unit = "calls"
kind = "rate"
[metrics.even]
unit = "calls"
kind = "rate"
[metrics.probe]
unit = "calls"
kind = "rate"
[metrics.tokens]
unit = "tokens"
period = "lifetime"
[plans.p.limits]
calls = { limit = 1, burst = 3 }
pings = 2
mails = { limit = 2, burst = 6, per_member = 2, per_key = 1 }
soft = { limit = 1, burst = 5, soft_percent = 100 }
closed = 0
even = { limit = 1, burst = 12 }
probe = { limit = 1, burst = 12 }
tokens = 10
[plans.q.limits]
calls = { limit = 1, burst = 5 }
"#;

async fn product(t: &Bed) -> (Bed, Tenant) {
    let t = Bed::of_product(t.engine, PRODUCT).await;
    let acme = t.tenant("acme").await;
    (t, acme)
}

fn ask(tenant: &Tenant, list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    let (tenant, idempotency_key) = (tenant.id.clone(), key.to_owned());
    v1::ConsumeRequest { tenant, amounts: amounts(list), idempotency_key, ..Default::default() }
}

async fn consume(clients: &mut Clients, tenant: &Tenant, list: &[(&str, i64)]) -> Result<Vec<v1::Usage>, Status> {
    clients.usage.consume(ask(tenant, list, "")).await.map(|done| done.into_inner().usage)
}

async fn used(clients: &mut Clients, tenant: &Tenant, metric: &str) -> i64 {
    usage(clients, tenant, metric).await.used
}

async fn check(clients: &mut Clients, tenant: &Tenant, list: &[(&str, i64)]) -> v1::CheckQuotaResponse {
    let request = v1::CheckQuotaRequest { tenant: tenant.id.clone(), amounts: amounts(list), details: None };
    clients.usage.check_quota(request).await.unwrap().into_inner()
}

/// How long a refusal for a rate says to wait; it names these metrics.
#[track_caller]
fn wait<T: std::fmt::Debug>(refused: Result<T, Status>, metrics: &[&str]) -> TimeDelta {
    let status = refused.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    assert_eq!((status.code(), reason.as_str()), (Code::ResourceExhausted, "RATE_EXCEEDED"), "{status:?}");
    let named: Vec<&str> = details.quota_failure().unwrap().violations.iter().map(|v| v.subject.as_str()).collect();
    assert_eq!(named, metrics);
    let wait = TimeDelta::from_std(details.retry_info().unwrap().retry_delay.unwrap()).unwrap();
    assert!(wait > TimeDelta::zero());
    wait
}

/// Asserts that an amount never goes through: waiting is not offered.
#[track_caller]
fn never<T: std::fmt::Debug>(refused: Result<T, Status>) {
    let status = refused.unwrap_err();
    let details = status.get_error_details();
    assert!(details.retry_info().is_none(), "{details:?}");
    assert!(status.message().contains("ask for less at a time"), "{status:?}");
    assert_refused::<()>(Err(status), Code::ResourceExhausted, "BURST_EXCEEDED");
}

fn plain<T>(answer: Result<Response<T>, Status>) -> Result<T, Status> {
    answer.map(Response::into_inner)
}

async fn a_burst_goes_through_and_then_as_much_as_comes_back(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let blank = usage(&mut service, &acme, "calls").await;
    assert_eq!((blank.used, blank.limit, blank.burst, blank.remaining), (0, Some(1), Some(3), Some(3)));
    assert!(blank.reset_time.is_none() && blank.period_start_time.is_none());
    for n in 1..=3 {
        let view = consume(&mut service, &acme, &[("calls", 1)]).await.unwrap().remove(0);
        assert_eq!((view.used, view.remaining, view.scope()), (n, Some(3 - n), v1::UsageScope::Tenant));
    }
    let full = usage(&mut service, &acme, "calls").await;
    assert_eq!((full.used, full.percent, full.burst), (3, Some(100), Some(3)));
    assert!(full.reset_time.is_some() && full.period_start_time.is_none());
    let told = wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    assert!(told <= TimeDelta::seconds(60), "{told}");
    // Half of it is not enough, all of it is, and then the same again.
    t.clock.advance(told / 2);
    let rest = wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    assert!(rest <= told - told / 2, "{rest} of {told}");
    t.clock.advance(rest);
    consume(&mut service, &acme, &[("calls", 1)]).await.expect("as long as was said");
    wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    // For two, twice as long.
    let told = wait(consume(&mut service, &acme, &[("calls", 2)]).await, &["calls"]);
    assert!(told > TimeDelta::seconds(60) && told <= TimeDelta::seconds(120), "{told}");
    // An hour brings back all of the burst, and no more.
    t.clock.advance(TimeDelta::hours(1));
    consume(&mut service, &acme, &[("calls", 3)]).await.unwrap();
    wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    // Where the plan names no burst it is as much as a minute brings.
    assert_eq!(usage(&mut service, &acme, "pings").await.burst, Some(2));
    consume(&mut service, &acme, &[("pings", 2)]).await.unwrap();
    let told = wait(consume(&mut service, &acme, &[("pings", 1)]).await, &["pings"]);
    assert!(told <= TimeDelta::seconds(30), "{told}");
}

async fn more_than_the_burst_never_goes_through_and_says_so(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    never(consume(&mut service, &acme, &[("calls", 4)]).await);
    never(consume(&mut service, &acme, &[("calls", 1 << 53)]).await);
    never(consume(&mut service, &acme, &[("closed", 1)]).await);
    // One that may go through later does not make the other one.
    consume(&mut service, &acme, &[("calls", 3)]).await.unwrap();
    never(consume(&mut service, &acme, &[("calls", 1), ("pings", 3)]).await);
    let checked = check(&mut service, &acme, &[("calls", 1), ("pings", 3)]).await;
    assert!(!checked.allowed && checked.shortages.len() == 2, "{checked:?}");
    let [calls, pings] = &checked.shortages[..] else { unreachable!() };
    assert_eq!((calls.used, calls.limit, calls.amount), (3, 3, 1));
    assert!(calls.reset_time.is_some() && pings.reset_time.is_none(), "{checked:?}");
}

async fn an_amount_that_is_none_is_a_wrong_field(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    for bad in [0, -1, i64::MIN, (1 << 53) + 1, i64::MAX] {
        let asked = ask(&acme, &[("calls", 1), ("pings", bad)], "");
        assert_eq!(wrong_fields(service.usage.consume(asked).await), ["amounts[1].amount"]);
    }
    assert_eq!((used(&mut service, &acme, "calls").await, used(&mut service, &acme, "pings").await), (0, 0));
}

async fn what_a_rate_refuses_is_counted_nowhere_and_what_a_counter_refuses_goes_through_no_rate(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let both = consume(&mut service, &acme, &[("calls", 1), ("tokens", 1)]).await.unwrap();
    assert_eq!(
        both.iter().map(|view| (view.metric.as_str(), view.used)).collect::<Vec<_>>(),
        [("calls", 1), ("tokens", 1)]
    );
    for key in ["", "counter"] {
        let short = service.usage.consume(ask(&acme, &[("calls", 2), ("tokens", 10)], key)).await;
        assert_refused(short, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(used(&mut service, &acme, "calls").await, 1, "given back");
    }
    never(consume(&mut service, &acme, &[("calls", 4), ("tokens", 1)]).await);
    // Of two rates, both or none.
    consume(&mut service, &acme, &[("calls", 2)]).await.unwrap();
    wait(consume(&mut service, &acme, &[("calls", 1), ("pings", 1)]).await, &["calls"]);
    assert_eq!(used(&mut service, &acme, "pings").await, 0);
    let asked = ask(&acme, &[("calls", 1), ("tokens", 1)], "rate");
    let told = wait(plain(service.usage.consume(asked.clone()).await), &["calls"]);
    assert_eq!(used(&mut service, &acme, "tokens").await, 1);
    let rows: Vec<(i64,)> =
        t.rows("select count(*) from usage_event where tenant_id = $1 and key = 'rate'", &acme.id).await;
    assert_eq!(rows, [(0,)], "a refusal that passes is not remembered");
    // So the same key goes through when its time has come.
    t.clock.advance(told);
    service.usage.consume(asked).await.expect("the same key");
    assert_eq!(used(&mut service, &acme, "tokens").await, 2);
}

async fn a_repetition_goes_through_no_rate_again(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let asked = ask(&acme, &[("calls", 2), ("tokens", 3)], "once");
    let first = service.usage.consume(asked.clone()).await.unwrap().into_inner();
    let again = service.usage.consume(asked.clone()).await.unwrap().into_inner();
    let view = |usage: &[v1::Usage]| usage.iter().map(|u| (u.metric.clone(), u.used)).collect::<Vec<_>>();
    // There is no room for two more, and none is needed.
    assert_eq!((view(&first.usage), again.ack_level), (view(&again.usage), first.ack_level));
    assert!(again.shortages.is_empty(), "{again:?}");
    assert_eq!(used(&mut service, &acme, "calls").await, 2);
    t.clock.advance(TimeDelta::hours(1));
    // Where there is room, it is given back.
    service.usage.consume(asked.clone()).await.unwrap();
    assert_eq!((used(&mut service, &acme, "calls").await, used(&mut service, &acme, "tokens").await), (0, 3));
    // Another payload takes nothing either, whether or not there is room.
    let other = ask(&acme, &[("calls", 3), ("tokens", 3)], "once");
    for _ in 0..2 {
        assert_refused(service.usage.consume(other.clone()).await, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(used(&mut service, &acme, "tokens").await, 3);
        let free = 3 - used(&mut service, &acme, "calls").await;
        assert!(free == 3 || free == 0);
        if free > 0 {
            consume(&mut service, &acme, &[("calls", free)]).await.unwrap();
        }
    }
    // A refusal that was remembered is repeated, through no rate.
    t.clock.advance(TimeDelta::hours(1));
    for _ in 0..2 {
        let asked = ask(&acme, &[("calls", 2), ("tokens", 100)], "refused");
        assert_refused(service.usage.consume(asked).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
        assert_eq!(used(&mut service, &acme, "calls").await, 0);
    }
    // Of rates alone there is nothing to repeat.
    for n in 1..=3 {
        service.usage.consume(ask(&acme, &[("calls", 1)], "alone")).await.unwrap();
        assert_eq!(used(&mut service, &acme, "calls").await, n);
    }
}

async fn repetitions_at_once_go_through_once(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let calls = (0..20).map(|_| {
        let (mut service, asked) = (service.clone(), ask(&acme, &[("calls", 1), ("tokens", 1)], "raced"));
        async move { plain(service.usage.consume(asked).await) }
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().any(Result::is_ok));
    for refused in answers.into_iter().filter(Result::is_err) {
        wait(refused, &["calls"]);
    }
    // What came back while it was under way is not given back: a part of a unit, which is back soon.
    t.clock.advance(TimeDelta::seconds(15));
    assert_eq!((used(&mut service, &acme, "calls").await, used(&mut service, &acme, "tokens").await), (1, 1));
}

async fn best_effort_decides_rates_and_counters_each_for_itself(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let asked = |list: &[(&str, i64)]| v1::ConsumeRequest { best_effort: true, ..ask(&acme, list, "") };
    let short = |done: &v1::ConsumeResponse| done.shortages.iter().map(|s| s.metric.clone()).collect::<Vec<_>>();
    let some = service.usage.consume(asked(&[("calls", 4), ("tokens", 5)])).await.unwrap().into_inner();
    assert_eq!(short(&some), ["calls"]);
    let some = service.usage.consume(asked(&[("calls", 1), ("tokens", 6)])).await.unwrap().into_inner();
    assert_eq!(short(&some), ["tokens"]);
    let some = service.usage.consume(asked(&[("calls", 1), ("closed", 1), ("pings", 2)])).await.unwrap().into_inner();
    assert_eq!(short(&some), ["closed"]);
    let left = [("calls", 2), ("pings", 2), ("tokens", 5), ("closed", 0)];
    for (metric, amount) in left {
        assert_eq!(used(&mut service, &acme, metric).await, amount, "{metric}");
    }
    let none = service.usage.consume(asked(&[("pings", 1), ("tokens", 6)])).await;
    assert_refused(none, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    wait(plain(service.usage.consume(asked(&[("calls", 2), ("pings", 1)])).await), &["calls", "pings"]);
    assert_eq!(used(&mut service, &acme, "calls").await, 2);
}

async fn asking_charges_nothing(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    for _ in 0..5 {
        let yes = check(&mut service, &acme, &[("calls", 3), ("tokens", 10)]).await;
        assert!(yes.allowed && yes.shortages.is_empty(), "{yes:?}");
        assert_eq!(yes.usage.iter().map(|view| view.used).collect::<Vec<_>>(), [0, 0]);
    }
    consume(&mut service, &acme, &[("calls", 2)]).await.unwrap();
    for _ in 0..5 {
        let no = check(&mut service, &acme, &[("calls", 2), ("tokens", 1)]).await;
        assert_eq!((no.allowed, no.shortages[0].metric.as_str(), no.shortages[0].used), (false, "calls", 2));
    }
    consume(&mut service, &acme, &[("calls", 1)]).await.expect("nothing was charged by asking");
}

async fn a_decision_names_the_rate_and_how_long_to_wait(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let question = |amount: i64, level: v1::AckLevel| v1::AuthorizeRequest {
        subject_token: acme.owner.token.clone(),
        amounts: amounts(&[("calls", amount), ("tokens", 1)]),
        ack_level: level.into(),
        ..Default::default()
    };
    let yes = service.auth.authorize(question(3, v1::AckLevel::Durable)).await.unwrap().into_inner();
    assert!(yes.allowed && yes.usage[0].used == 3, "{yes:?}");
    for level in [v1::AckLevel::Durable, v1::AckLevel::CheckOnly] {
        let no = service.auth.authorize(question(1, level)).await.unwrap().into_inner();
        let reason = &no.reasons[0];
        assert_eq!((no.allowed, reason.reason.as_str(), reason.subject.as_str()), (false, "RATE_EXCEEDED", "calls"));
        let delay = reason.retry_delay.as_ref().unwrap();
        assert!((0..=60).contains(&delay.seconds) && reason.remedy() == v1::Remedy::UpgradeOrWait, "{no:?}");
        assert_eq!(no.usage.iter().map(|view| view.used).collect::<Vec<_>>(), [3, 1]);
    }
    let never = service.auth.authorize(question(4, v1::AckLevel::Durable)).await.unwrap().into_inner();
    assert_eq!((never.reasons[0].reason.as_str(), never.reasons[0].retry_delay), ("BURST_EXCEEDED", None));
}

/// What is told of the wrong field `field`.
#[track_caller]
fn told<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, field: &str) {
    let status = answer.unwrap_err();
    assert!(status.message().contains("Consume and CheckQuota are for those"), "{}", status.message());
    assert_eq!(wrong_fields::<T>(Err(status)), [field]);
}

async fn other_methods_name_those_that_are_for_rates(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let (tenant, list) = (acme.id.clone(), amounts(&[("calls", 1)]));
    let reserve = v1::ReserveRequest { tenant: tenant.clone(), amounts: list.clone(), ..Default::default() };
    told(service.usage.reserve(reserve).await, "amounts");
    let held = v1::ReserveRequest { amounts: amounts(&[("tokens", 1)]), tenant: tenant.clone(), ..Default::default() };
    let held = service.usage.reserve(held).await.unwrap().into_inner().reservation.unwrap().reservation_id;
    let commit = v1::CommitReservationRequest { tenant: tenant.clone(), reservation_id: held, amounts: list.clone() };
    told(service.usage.commit_reservation(commit).await, "amounts");
    let slot = v1::AcquireSlotRequest {
        tenant: tenant.clone(),
        metric: "calls".to_owned(),
        holder: "a holder".to_owned(),
        ..Default::default()
    };
    told(service.usage.acquire_slot(slot).await, "metric");
    let set = v1::SetGaugeRequest {
        tenant: tenant.clone(),
        metric: "calls".to_owned(),
        change: Some(v1::set_gauge_request::Change::Value(1)),
        ..Default::default()
    };
    told(service.usage.set_gauge(set).await, "metric");
    service.usage.consume(ask(&acme, &[("calls", 1), ("tokens", 1)], "both")).await.unwrap();
    let refund = v1::RefundRequest { tenant: tenant.clone(), event_key: "both".to_owned(), ..Default::default() };
    told(service.usage.refund(v1::RefundRequest { amounts: list.clone(), ..refund.clone() }).await, "amounts");
    // What was counted is given back, the rate comes back by itself.
    service.usage.refund(refund).await.unwrap();
    assert_eq!((used(&mut service, &acme, "tokens").await, used(&mut service, &acme, "calls").await), (0, 1));
    let event = |list| v1::UsageEvent { amounts: list, ..Default::default() };
    let events = vec![event(list), event(amounts(&[("tokens", 1)]))];
    let recorded = v1::RecordUsageRequest { tenant: tenant.clone(), events: events.clone() };
    let results = service.usage.record_usage(recorded).await.unwrap().into_inner().results;
    assert_eq!(results.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), ["FIELDS_INVALID", ""]);
    assert!(results[0].message.contains("Consume and CheckQuota are for those"), "{results:?}");
    let message = |event| v1::StreamUsageRequest { tenant: tenant.clone(), event: Some(event) };
    let events: Vec<_> = events.into_iter().map(message).collect();
    let streamed = service.usage.stream_usage(tokio_stream::iter(events)).await.unwrap().into_inner();
    assert_eq!((streamed.recorded, streamed.refused), (1, 1));
    let top = v1::TopTenantsRequest { metric: "calls".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(t.operator().usage.top_tenants(top).await), ["metric"]);
    assert_eq!(used(&mut service, &acme, "calls").await, 1);
}

async fn members_and_keys_have_rates_below_the_tenants(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut member = t.with_token(&t.member(&acme, "member").await.token);
    let both = consume(&mut member, &acme, &[("mails", 2)]).await.unwrap();
    let seen: Vec<_> = both.iter().map(|view| (view.scope(), view.used, view.limit, view.burst)).collect();
    assert_eq!(seen, [(v1::UsageScope::Tenant, 2, Some(2), Some(6)), (v1::UsageScope::Member, 2, Some(2), Some(2))]);
    let told = wait(consume(&mut member, &acme, &[("mails", 1)]).await, &["mails"]);
    assert!(told <= TimeDelta::seconds(30), "{told}");
    never(consume(&mut member, &acme, &[("mails", 3)]).await);
    let mut owner = t.with_token(&acme.owner.token);
    assert_eq!(
        used(&mut owner, &acme, "mails").await,
        2,
        "what the member's refuses goes through the tenant's neither"
    );
    let create = v1::CreateApiKeyRequest {
        tenant: acme.id.clone(),
        display_name: unique("key"),
        permissions: vec!["usage.write".to_owned(), "usage.read".to_owned()],
        ..Default::default()
    };
    let key = owner.auth.create_api_key(create).await.unwrap().into_inner().secret;
    let mut program = t.with_key(&key);
    consume(&mut program, &acme, &[("mails", 1)]).await.unwrap();
    wait(consume(&mut program, &acme, &[("mails", 1)]).await, &["mails"]);
    assert!(!check(&mut program, &acme, &[("mails", 1)]).await.allowed);
    // Somebody else has a rate of their own; a service has the tenant's alone, of which one is left.
    consume(&mut owner, &acme, &[("mails", 2)]).await.unwrap();
    let mut service = service(&t).await;
    consume(&mut service, &acme, &[("mails", 1)]).await.unwrap();
    wait(consume(&mut service, &acme, &[("mails", 1)]).await, &["mails"]);
    let other = t.tenant("other").await;
    consume(&mut service, &other, &[("mails", 6)]).await.expect("another tenant's");
}

async fn grace_is_on_rate_and_burst_and_what_is_not_limited_has_none(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    never(consume(&mut service, &acme, &[("soft", 11)]).await);
    let view = consume(&mut service, &acme, &[("soft", 10)]).await.unwrap().remove(0);
    assert_eq!((view.used, view.limit, view.burst), (10, Some(1), Some(5)));
    assert_eq!((view.remaining, view.percent), (Some(0), Some(200)));
    let told = wait(consume(&mut service, &acme, &[("soft", 1)]).await, &["soft"]);
    assert!(told <= TimeDelta::seconds(30), "two a minute: {told}");
    for _ in 0..3 {
        let view = consume(&mut service, &acme, &[("free", 1 << 53)]).await.unwrap().remove(0);
        assert_eq!((view.limit, view.burst, view.remaining, view.used), (None, None, None, 0));
    }
}

async fn a_limit_that_changes_holds_at_once(t: &Bed) {
    use v1::set_limit_override_request::Value;
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    consume(&mut service, &acme, &[("pings", 2)]).await.unwrap();
    wait(consume(&mut service, &acme, &[("pings", 1)]).await, &["pings"]);
    // More is there at once; what was used stays used. The burst goes with the rate where the plan names none.
    t.set_limit(&acme, "pings", Value::Limit(600)).await;
    let view = consume(&mut service, &acme, &[("pings", 598)]).await.unwrap().remove(0);
    assert_eq!((view.limit, view.burst, view.source()), (Some(600), Some(600), v1::EntitlementSource::Override));
    // Less keeps nobody waiting for what was used of more: all of the lower burst is used.
    t.set_limit(&acme, "pings", Value::Limit(4)).await;
    let told = wait(consume(&mut service, &acme, &[("pings", 1)]).await, &["pings"]);
    assert!(told <= TimeDelta::seconds(15), "{told}");
    assert_eq!(used(&mut service, &acme, "pings").await, 4);
    t.clock.advance(told);
    consume(&mut service, &acme, &[("pings", 1)]).await.unwrap();
    t.set_limit(&acme, "pings", Value::Limit(0)).await;
    never(consume(&mut service, &acme, &[("pings", 1)]).await);
    t.set_limit(&acme, "pings", Value::Unlimited(true)).await;
    consume(&mut service, &acme, &[("pings", 1_000_000)]).await.unwrap();
    t.set_limit(&acme, "pings", Value::Remove(true)).await;
    let limits = t.operator().tenants.list_limits(v1::ListLimitsRequest { tenant: acme.id.clone() }).await.unwrap();
    let limits = limits.into_inner().limits.into_iter().map(|limit| (limit.metric, (limit.limit, limit.burst)));
    let limits: std::collections::HashMap<_, _> = limits.collect();
    assert_eq!((limits["pings"], limits["calls"]), ((Some(2), Some(2)), (Some(1), Some(3))));
    assert_eq!((limits["free"], limits["tokens"]), ((None, None), (Some(10), None)));
    // An override changes the rate and leaves the plan's burst.
    t.set_limit(&acme, "calls", Value::Limit(2)).await;
    consume(&mut service, &acme, &[("calls", 3)]).await.unwrap();
    let told = wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    assert!(told <= TimeDelta::seconds(30), "{told}");
    // So does another plan, at once.
    t.set_limit(&acme, "calls", Value::Remove(true)).await;
    let change = v1::ChangePlanRequest { tenant: acme.id.clone(), plan: "q".to_owned(), ..Default::default() };
    t.operator().tenants.change_plan(change).await.unwrap();
    let view = consume(&mut service, &acme, &[("calls", 2)]).await.unwrap().remove(0);
    assert_eq!((view.limit, view.burst, view.used), (Some(1), Some(5), 5));
}

async fn rates_alone_leave_no_rows(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    service.usage.consume(ask(&acme, &[("calls", 1), ("pings", 1)], "key")).await.unwrap();
    let leased = v1::ConsumeRequest { ack_level: v1::AckLevel::Leased.into(), ..ask(&acme, &[("calls", 1)], "") };
    assert_eq!(service.usage.consume(leased).await.unwrap().into_inner().ack_level(), v1::AckLevel::Durable);
    never(consume(&mut service, &acme, &[("calls", 9)]).await);
    for sql in [
        "select count(*) from usage_event where tenant_id = $1",
        "select count(*) from quota_account where tenant_id = $1",
        "select count(*) from usage_rollup where tenant_id = $1",
    ] {
        let rows: Vec<(i64,)> = t.rows(sql, &acme.id).await;
        assert_eq!(rows, [(0,)], "{sql}");
    }
}

async fn decisions_are_in_the_metrics(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    consume(&mut service, &acme, &[("calls", 3)]).await.unwrap();
    wait(consume(&mut service, &acme, &[("calls", 1)]).await, &["calls"]);
    let (_, text) = get(&t.http, "/metrics").await;
    for line in
        ["tenantry_rate_decisions_total{outcome=\"admitted\"} ", "tenantry_rate_decisions_total{outcome=\"refused\"} "]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("tenantry_rate_entries "), "{text}");
}

/// On SQLite whoever else is written down is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_sqlite_has_all_of_a_rate() {
    let t = Bed::of_product(Engine::Sqlite, PRODUCT).await;
    let acme = t.tenant("acme").await;
    let other = "insert into quota_writer (writer_id, process_id, batch_no, beat) values ($1, $1, 0, 0)";
    t.execute(other, &uuid::Uuid::new_v4().to_string()).await;
    let t = t.restart().await;
    let mut service = service(&t).await;
    assert_eq!(consume(&mut service, &acme, &[("probe", 1)]).await.unwrap()[0].used, 1);
}

/// Waits until a server has all of each rate, or less: what is left of a burst of 12 of which 1 or 2 are used.
async fn until_it_has(clients: &mut Clients, tenant: &Tenant, all: bool) {
    let clients = std::sync::Arc::new(tokio::sync::Mutex::new(clients.clone()));
    until("the shares are shared out", || async {
        check(&mut *clients.lock().await, tenant, &[("probe", 8)]).await.allowed == all
    })
    .await;
}

/// Takes one by one what goes through; how many.
async fn drain(clients: &mut Clients, tenant: &Tenant, metric: &str) -> i64 {
    let mut taken = 0;
    loop {
        match consume(clients, tenant, &[(metric, 1)]).await {
            Ok(_) => taken += 1,
            refused => {
                wait(refused, &[metric]);
                return taken;
            }
        }
    }
}

/// At most the burst and what came back: 1 a minute.
#[track_caller]
fn within(taken: i64, burst: i64, begun: Instant) {
    let back = i64::try_from(begun.elapsed().as_secs() / 60 + 1).unwrap();
    assert!(taken >= burst, "{taken} of {burst}");
    assert!(taken <= burst + back, "{taken} of {burst} and {back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_rate_and_the_one_that_is_left_has_all_of_it() {
    let t = Bed::of_product(Engine::Postgres, PRODUCT).await;
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let key = t.service_key(&["usage.read", "usage.write"]).await;
    let mut here = t.with_key(&key);
    consume(&mut here, &acme, &[("probe", 1)]).await.unwrap();
    until_it_has(&mut here, &acme, true).await;

    // A process of its own, which can be killed.
    let data = t.dir.path().join("other");
    std::fs::create_dir(&data).unwrap();
    for file in ["master.key", "operator.key"] {
        std::fs::copy(t.dir.path().join(file), data.join(file)).unwrap();
    }
    let command = serve(&data, t.database.as_deref());
    std::fs::write(data.with_extension("toml"), PRODUCT).unwrap();
    let other = Program::start(&data, command);
    let mut there = other.clients(crate::harness::Headers::default().and("x-api-key", &key));
    until_it_has(&mut here, &acme, false).await;
    // From its first answer on it has no more than its half.
    assert_eq!(consume(&mut there, &acme, &[("probe", 1)]).await.unwrap()[0].used, 2);

    let begun = Instant::now();
    let mut clients = [here.clone(), there.clone()];
    let [first, second] = &mut clients;
    let (first, second) = tokio::join!(drain(first, &acme, "even"), drain(second, &acme, "even"));
    within(first, 6, begun);
    within(second, 6, begun);
    within(first + second, 12, begun);
    // A larger amount than its share goes through where nothing is used, and is waited for.
    consume(&mut there, &globex, &[("even", 12)]).await.expect("all of the burst");
    let told = wait(consume(&mut there, &globex, &[("even", 1)]).await, &["even"]);
    assert!(told > TimeDelta::minutes(12), "{told}");

    // An override that is set at one of them is soon known to the other.
    consume(&mut here, &acme, &[("pings", 1)]).await.unwrap();
    other.operator().set_limit(&acme, "pings", v1::set_limit_override_request::Value::Limit(100)).await;
    let asked = ask(&acme, &[("pings", 40)], "");
    until("the override holds here", || {
        let (mut here, asked) = (here.clone(), asked.clone());
        async move { here.usage.consume(asked).await.is_ok() }
    })
    .await;

    other.kill();
    until_it_has(&mut here, &acme, true).await;
    let initech = t.tenant("initech").await;
    let begun = Instant::now();
    within(drain(&mut here, &initech, "even").await, 12, begun);
    // Of what both had used up together nothing is there because one of them is gone.
    let begun = Instant::now();
    let more = drain(&mut here, &acme, "even").await;
    assert!(more <= 1 + i64::try_from(begun.elapsed().as_secs() / 60).unwrap(), "{more}");
}
