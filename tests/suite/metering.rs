//! Metrics of all kinds and what is done to them besides consuming: reservations, slots, gauges, refunds, records; limits of
//! members and keys; periods in the tenant's time.

use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::future::join_all;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_gauge_request::Change;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::harness::{Bed, Clients, Tenant, amounts, assert_refused, on_both_engines, unique, until, wrong_fields};
use crate::rows::connect_sqlite;
use crate::startup::run;

on_both_engines! {
    all_kinds_of_metrics_are_counted
    a_reservation_is_committed_in_part_and_the_rest_comes_back
    what_is_set_aside_is_not_there_for_others_until_it_ends
    holds_are_for_those_who_opened_them
    holds_are_of_their_tenant_and_kind
    a_key_stands_for_all_that_was_asked
    what_was_forfeited_without_need_comes_back
    slots_are_held_by_heartbeats
    a_hundred_want_three_slots
    a_refund_gives_back_what_its_event_took_and_no_more
    a_gauge_takes_the_newest_of_its_source
    records_are_counted_above_the_limit_and_once
    a_wrong_event_stops_no_other
    what_cannot_be_written_stops_no_other
    a_stream_of_events_is_recorded
    a_stream_ends_with_the_right_to_it
    a_stream_is_answered_before_its_deadline
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

async fn product(t: &Bed) -> (Bed, Tenant) {
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

fn ask(tenant: &Tenant, list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    let (tenant, idempotency_key) = (tenant.id.clone(), key.to_owned());
    v1::ConsumeRequest { tenant, amounts: amounts(list), idempotency_key, ..Default::default() }
}

fn reserve(tenant: &Tenant, list: &[(&str, i64)], seconds: i64, key: &str) -> v1::ReserveRequest {
    v1::ReserveRequest {
        tenant: tenant.id.clone(),
        amounts: amounts(list),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        idempotency_key: key.to_owned(),
        ..Default::default()
    }
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

async fn a_reservation_is_committed_in_part_and_the_rest_comes_back(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let held = service.usage.reserve(reserve(&acme, &[("tokens", 80)], 60, "r")).await.unwrap().into_inner();
    let id = held.reservation.clone().unwrap().reservation_id;
    assert_eq!((held.usage[0].used, held.usage[0].reserved, held.usage[0].remaining), (0, 80, Some(20)));
    // Repeated, it is the same one.
    let again = service.usage.reserve(reserve(&acme, &[("tokens", 80)], 60, "r")).await.unwrap().into_inner();
    assert_eq!(again.reservation, held.reservation);
    let commit = |list: &[(&str, i64)]| v1::CommitReservationRequest {
        tenant: acme.id.clone(),
        reservation_id: id.clone(),
        amounts: amounts(list),
    };
    let beyond = service.usage.commit_reservation(commit(&[("tokens", 81)])).await;
    assert_refused(beyond, Code::FailedPrecondition, "BEYOND_AMOUNT");
    let done = service.usage.commit_reservation(commit(&[("tokens", 30)])).await.unwrap().into_inner();
    assert_eq!(done.reservation.as_ref().unwrap().state(), v1::HoldState::Committed);
    assert_eq!((done.usage[0].used, done.usage[0].reserved), (30, 0));
    let same = service.usage.commit_reservation(commit(&[("tokens", 30)])).await.unwrap().into_inner();
    assert_eq!(same.reservation, done.reservation);
    let other = service.usage.commit_reservation(commit(&[("tokens", 31)])).await;
    assert_refused(other, Code::FailedPrecondition, "HOLD_CLOSED");
    let release = v1::ReleaseReservationRequest { tenant: acme.id.clone(), reservation_id: id.clone() };
    assert_refused(service.usage.release_reservation(release).await, Code::FailedPrecondition, "HOLD_CLOSED");
    let tokens = usage(&mut service, &acme, "tokens").await;
    assert_eq!((tokens.used, tokens.reserved), (30, 0));
    let nothing = v1::ReleaseReservationRequest { reservation_id: unique_id(), tenant: acme.id.clone() };
    assert_refused(service.usage.release_reservation(nothing).await, Code::NotFound, "HOLD_NOT_FOUND");
}

fn unique_id() -> String {
    crate::harness::request_id()
}

async fn what_is_set_aside_is_not_there_for_others_until_it_ends(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let held = service.usage.reserve(reserve(&acme, &[("ever", 5)], 60, "")).await.unwrap().into_inner();
    let id = held.reservation.unwrap().reservation_id;
    let full = service.usage.consume(ask(&acme, &[("ever", 3)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let longer = v1::ExtendReservationRequest {
        tenant: acme.id.clone(),
        reservation_id: id.clone(),
        ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
    };
    service.usage.extend_reservation(longer.clone()).await.unwrap();
    t.clock.advance(TimeDelta::seconds(120));
    let full = service.usage.consume(ask(&acme, &[("ever", 3)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    t.clock.advance(TimeDelta::seconds(600));
    until("the reservation has expired", || {
        let mut service = service.clone();
        let request = ask(&acme, &[("ever", 7)], "");
        async move { service.usage.consume(request).await.is_ok() }
    })
    .await;
    assert_refused(service.usage.extend_reservation(longer).await, Code::FailedPrecondition, "HOLD_CLOSED");
}

async fn holds_are_for_those_who_opened_them(t: &Bed) {
    let (t, acme) = product(t).await;
    let (one, two) = (t.member(&acme, "member").await, t.member(&acme, "member").await);
    let (mut one, mut two) = (t.with_token(&one.token), t.with_token(&two.token));
    let held = one.usage.reserve(reserve(&acme, &[("tokens", 5)], 60, "")).await.unwrap().into_inner();
    let id = held.reservation.unwrap().reservation_id;
    let commit = v1::CommitReservationRequest { tenant: acme.id.clone(), reservation_id: id.clone(), amounts: vec![] };
    let release = v1::ReleaseReservationRequest { tenant: acme.id.clone(), reservation_id: id.clone() };
    assert_refused(two.usage.commit_reservation(commit.clone()).await, Code::NotFound, "HOLD_NOT_FOUND");
    assert_refused(two.usage.release_reservation(release.clone()).await, Code::NotFound, "HOLD_NOT_FOUND");
    // Nor in another tenant, whoever asks there.
    let other = t.tenant("other").await;
    let mut stranger = t.with_token(&other.owner.token);
    let theirs = v1::CommitReservationRequest { tenant: other.id.clone(), ..commit.clone() };
    assert_refused(stranger.usage.commit_reservation(theirs).await, Code::NotFound, "HOLD_NOT_FOUND");
    one.usage.commit_reservation(commit.clone()).await.expect("theirs");
    // What was committed is not told to others either.
    assert_refused(two.usage.commit_reservation(commit).await, Code::NotFound, "HOLD_NOT_FOUND");
}

async fn holds_are_of_their_tenant_and_kind(t: &Bed) {
    let (t, acme) = product(t).await;
    let globex = t.tenant("globex").await;
    let mut service = service(&t).await;
    let slot_id = service.usage.acquire_slot(slot(&acme, 60)).await.unwrap().into_inner().slot.unwrap().slot_id;
    let held = service.usage.reserve(reserve(&acme, &[("tokens", 5)], 60, "")).await.unwrap().into_inner();
    let reservation_id = held.reservation.unwrap().reservation_id;
    // In one batch with the tenant that has it, another names the slot: it finds nothing.
    let extend = |tenant: &Tenant, id: &str| v1::HeartbeatSlotsRequest {
        tenant: tenant.id.clone(),
        slot_ids: vec![id.to_owned(); 50],
        ..Default::default()
    };
    let release =
        |tenant: &Tenant, id: &str| v1::ReleaseSlotRequest { tenant: tenant.id.clone(), slot_id: id.to_owned() };
    let raced = (0..20).map(|_| {
        let (mut own, mut other) = (service.clone(), service.clone());
        let (extend, release) = (extend(&acme, &slot_id), release(&globex, &slot_id));
        async move { tokio::join!(own.usage.heartbeat_slots(extend), other.usage.release_slot(release)) }
    });
    for (own, other) in join_all(raced).await {
        let results = own.unwrap().into_inner().results;
        assert!(results.iter().all(|result| result.reason.is_empty()), "{results:?}");
        assert_refused(other, Code::NotFound, "HOLD_NOT_FOUND");
    }
    // Nor is a slot a reservation, or the other way round.
    let commit = |id: &str| v1::CommitReservationRequest {
        tenant: acme.id.clone(),
        reservation_id: id.to_owned(),
        amounts: Vec::new(),
    };
    let committed = service.usage.commit_reservation(commit(&slot_id)).await;
    assert_refused(committed, Code::NotFound, "HOLD_NOT_FOUND");
    let request = v1::ReleaseReservationRequest { tenant: acme.id.clone(), reservation_id: slot_id.clone() };
    assert_refused(service.usage.release_reservation(request).await, Code::NotFound, "HOLD_NOT_FOUND");
    let other = service.usage.release_slot(release(&acme, &reservation_id)).await;
    assert_refused(other, Code::NotFound, "HOLD_NOT_FOUND");
    let beat = service.usage.heartbeat_slots(extend(&acme, &reservation_id)).await.unwrap().into_inner().results;
    assert!(beat.iter().all(|result| result.reason == "HOLD_NOT_FOUND"), "{beat:?}");
    let sessions = usage(&mut service, &acme, "sessions").await;
    assert_eq!((sessions.used, sessions.reserved), (0, 1));
    // Who did not open it does not learn that it was committed.
    service.usage.commit_reservation(commit(&reservation_id)).await.unwrap();
    let mut owner = t.with_token(&acme.owner.token);
    for list in [&[][..], &[("tokens", 1)]] {
        let request = v1::CommitReservationRequest { amounts: amounts(list), ..commit(&reservation_id) };
        assert_refused(owner.usage.commit_reservation(request).await, Code::NotFound, "HOLD_NOT_FOUND");
    }
    service.usage.release_slot(release(&acme, &slot_id)).await.expect("is there all the time");
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
    let set = |value: i64| v1::SetGaugeRequest {
        tenant: acme.id.clone(),
        metric: "storage".to_owned(),
        change: Some(Change::Value(value)),
        ..Default::default()
    };
    let promised = v1::ConsumeRequest { ack_level: v1::AckLevel::Leased.into(), ..ask(&acme, &[("storage", 1)], "") };
    let forfeited = "select cast(sum(forfeited) as bigint) from quota_account where tenant_id = $1";
    let mut most = 0;
    for _ in 0..10 {
        for _ in 0..10 {
            service.usage.consume(promised.clone()).await.unwrap();
        }
        service.usage.set_gauge(set(10)).await.unwrap();
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

fn slot(tenant: &Tenant, seconds: i64) -> v1::AcquireSlotRequest {
    v1::AcquireSlotRequest {
        tenant: tenant.id.clone(),
        metric: "sessions".to_owned(),
        holder: "a game".to_owned(),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

async fn slots_are_held_by_heartbeats(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let taken = service.usage.acquire_slot(slot(&acme, 60)).await.unwrap().into_inner().slot.unwrap();
        assert_eq!((taken.metric.as_str(), taken.holder.as_str()), ("sessions", "a game"));
        ids.push(taken.slot_id);
    }
    assert_refused(service.usage.acquire_slot(slot(&acme, 60)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    assert_eq!(usage(&mut service, &acme, "sessions").await.reserved, 3);
    let release = v1::ReleaseSlotRequest { tenant: acme.id.clone(), slot_id: ids[0].clone() };
    service.usage.release_slot(release.clone()).await.unwrap();
    service.usage.release_slot(release).await.expect("a repetition changes nothing");
    service.usage.acquire_slot(slot(&acme, 3600)).await.expect("one is free");
    // Two of them live on, one does not.
    t.clock.advance(TimeDelta::seconds(40));
    let beat = v1::HeartbeatSlotsRequest {
        tenant: acme.id.clone(),
        slot_ids: vec![ids[1].clone(), ids[0].clone(), unique_id()],
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    };
    let results = service.usage.heartbeat_slots(beat).await.unwrap().into_inner().results;
    let reasons: Vec<&str> = results.iter().map(|result| result.reason.as_str()).collect();
    assert_eq!(reasons, ["", "HOLD_CLOSED", "HOLD_NOT_FOUND"]);
    assert!(results[0].expire_time.is_some());
    t.clock.advance(TimeDelta::seconds(30));
    until("the dead holder's slot is free", || {
        let (mut service, request) = (service.clone(), slot(&acme, 60));
        async move { service.usage.acquire_slot(request).await.is_ok() }
    })
    .await;
    assert_refused(service.usage.acquire_slot(slot(&acme, 60)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let no = v1::AcquireSlotRequest { metric: "calls".to_owned(), ..slot(&acme, 60) };
    assert_eq!(wrong_fields(service.usage.acquire_slot(no).await), ["metric"]);
}

async fn a_hundred_want_three_slots(t: &Bed) {
    let (t, acme) = product(t).await;
    let service = service(&t).await;
    let hundred = (0..100).map(|_| {
        let (mut service, request) = (service.clone(), slot(&acme, 600));
        async move { service.usage.acquire_slot(request).await.is_ok() }
    });
    let taken = join_all(hundred).await.into_iter().filter(|taken| *taken).count();
    assert_eq!(taken, 3);
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

fn event(list: &[(&str, i64)], key: &str) -> v1::UsageEvent {
    v1::UsageEvent { amounts: amounts(list), idempotency_key: key.to_owned(), ..Default::default() }
}

async fn records_are_counted_above_the_limit_and_once(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let events: Vec<_> = (0..20).map(|n| event(&[("ever", 1), ("tokens", 2)], &format!("e{n}"))).collect();
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request.clone()).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.reason.is_empty() && !result.already_recorded), "{results:?}");
    let again = service.usage.record_usage(request).await.unwrap().into_inner().results;
    assert!(again.iter().all(|result| result.already_recorded), "{again:?}");
    let ever = usage(&mut service, &acme, "ever").await;
    assert_eq!((ever.used, ever.limit, ever.remaining), (20, Some(7), Some(0)));
    assert_eq!(usage(&mut service, &acme, "tokens").await.used, 40);
    let full = service.usage.consume(ask(&acme, &[("ever", 1)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn a_wrong_event_stops_no_other(t: &Bed) {
    let (t, acme) = product(t).await;
    let other = t.tenant("other").await;
    let mut service = service(&t).await;
    let at = |delta: TimeDelta| {
        use tenantry::time::Clock as _;
        let micros = t.clock.now().after(delta).micros();
        Some(prost_types::Timestamp { seconds: micros / 1_000_000, nanos: 0 })
    };
    let of = |details: v1::UsageDetails| v1::UsageEvent { details: Some(details), ..event(&[("ever", 1)], "") };
    let many = (0..21).map(|n| (n.to_string(), String::new())).collect();
    let long = [("k".to_owned(), "v".repeat(257))].into();
    let events = vec![
        event(&[("ever", 1)], ""),
        event(&[("ever", -1)], ""),
        event(&[("ever", i64::MAX)], ""),
        event(&[("nonsense", 1)], ""),
        v1::UsageEvent { event_time: at(TimeDelta::days(-91)), ..event(&[("ever", 1)], "") },
        v1::UsageEvent { event_time: at(TimeDelta::minutes(11)), ..event(&[("ever", 1)], "") },
        of(v1::UsageDetails { attributes: many, ..Default::default() }),
        of(v1::UsageDetails { attributes: long, ..Default::default() }),
        of(v1::UsageDetails { user_id: other.owner.id.clone(), ..Default::default() }),
        of(v1::UsageDetails { api_key_id: unique_id(), ..Default::default() }),
        of(v1::UsageDetails { endpoint: "x".repeat(129), ..Default::default() }),
        of(v1::UsageDetails { status_code: 1000, ..Default::default() }),
        event(&[("ever", 1)], "tenantry:mine"),
        event(&[], ""),
        of(v1::UsageDetails { user_id: acme.owner.id.clone(), endpoint: "/a\u{7f}".to_owned(), ..Default::default() }),
        of(v1::UsageDetails {
            user_id: acme.owner.id.clone(),
            endpoint: "/quizzes/{id}".to_owned(),
            method: "POST".to_owned(),
            status_code: 201,
            latency: Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 }),
            attributes: [("model".to_owned(), "größte 🦀".to_owned())].into(),
            ..Default::default()
        }),
    ];
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    let reasons: Vec<&str> = results.iter().map(|result| result.reason.as_str()).collect();
    let wrong = "FIELDS_INVALID";
    assert_eq!(
        reasons,
        [
            "",
            wrong,
            wrong,
            "METRIC_UNKNOWN",
            wrong,
            wrong,
            wrong,
            wrong,
            "MEMBER_NOT_FOUND",
            "KEY_NOT_FOUND",
            wrong,
            wrong,
            wrong,
            wrong,
            wrong,
            "",
        ]
    );
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 2);
    let kept = "select endpoint, method, status, latency_us, attributes from usage_event
                where tenant_id = $1 and endpoint <> ''";
    let rows: Vec<(String, String, i64, i64, String)> = t.rows(kept, &acme.id).await;
    let kept = ("/quizzes/{id}".to_owned(), "POST".to_owned(), 201, 5000, r#"{"model":"größte 🦀"}"#.to_owned());
    assert_eq!(rows, [kept]);
    // Members speak for themselves.
    let mut member = t.with_token(&t.member(&acme, "member").await.token);
    let as_owner = of(v1::UsageDetails { user_id: acme.owner.id.clone(), ..Default::default() });
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events: vec![as_owner] };
    let results = member.usage.record_usage(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].reason, wrong);
}

/// Has the database not take events of this endpoint.
async fn forbid_poison(t: &Bed) {
    if let Some(database) = &t.database {
        let mut admin = database.administrator().await;
        let never = "create function never() returns trigger language plpgsql as
                     'begin raise exception ''poison'' using errcode = ''22000''; end'";
        run(&mut admin, never).await;
        let trigger = "create trigger never before insert on usage_event for each row when (new.endpoint = '/poison')
                       execute function never()";
        run(&mut admin, trigger).await;
        return;
    }
    let trigger = "create trigger never before insert on usage_event when new.endpoint = '/poison'
                   begin select raise(abort, 'poison'); end";
    sqlx::raw_sql(trigger).execute(&mut connect_sqlite(t.dir.path(), false).await).await.unwrap();
}

async fn what_cannot_be_written_stops_no_other(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let largest = 1_i64 << 53;
    // One short of what an account of no limit holds together with the largest amount.
    let mut events = vec![event(&[("storms", largest)], ""); 511];
    events.push(event(&[("storms", 1)], ""));
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.reason.is_empty()), "{results:?}");
    let sums = "select committed, leased from quota_account where tenant_id = $1 and metric = 'storms'";
    let all = 511 * largest + 1;
    until("all of it is in the account", async || t.rows::<(i64, i64)>(sums, &acme.id).await == [(all, 0)]).await;
    forbid_poison(&t).await;
    let mut events: Vec<_> = (0..500).map(|n| event(&[("storms", 1), ("ever", 1)], &format!("e{n}"))).collect();
    let of = |endpoint: &str| Some(v1::UsageDetails { endpoint: endpoint.to_owned(), ..Default::default() });
    events[7].details = of("/a\0b");
    events[100].amounts = amounts(&[("ever", 1), ("storms", largest)]);
    for n in [250, 251, 499] {
        events[n].details = of("/poison");
    }
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    let refused: Vec<(usize, &str)> = results
        .iter()
        .map(|result| result.reason.as_str())
        .enumerate()
        .filter(|(_, reason)| !reason.is_empty())
        .collect();
    let (wrong, poison) = ("FIELDS_INVALID", "INTERNAL");
    assert_eq!(refused, [(7, wrong), (100, wrong), (250, poison), (251, poison), (499, poison)]);
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 495);
    assert_eq!(usage(&mut service, &acme, "storms").await.used, all + 495);
    let kept: Vec<(i64,)> = t.rows("select count(*) from usage_event where tenant_id = $1", &acme.id).await;
    assert_eq!(kept, [(512 + 495,)]);
}

async fn a_stream_of_events_is_recorded(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let events: Vec<v1::StreamUsageRequest> = (0..1500)
        .map(|n| {
            let amount = if n % 100 == 7 { -1 } else { 1 };
            v1::StreamUsageRequest { event: Some(event(&[("calls", amount)], &format!("s{n}"))), ..Default::default() }
        })
        .collect();
    let told = owner.usage.stream_usage(tokio_stream::iter(events)).await.unwrap().into_inner();
    assert_eq!((told.recorded, told.refused), (1485, 15));
    let indices: Vec<i64> = told.refusals.iter().map(|refusal| refusal.index).collect();
    assert_eq!(indices, (0..15).map(|n| n * 100 + 7).collect::<Vec<i64>>());
    assert_eq!(usage(&mut owner, &acme, "calls").await.used, 1485);
    // A viewer may not, nor anybody from elsewhere.
    let mut viewer = t.with_token(&t.member(&acme, "viewer").await.token);
    let one = vec![v1::StreamUsageRequest { event: Some(event(&[("calls", 1)], "")), ..Default::default() }];
    let refused = viewer.usage.stream_usage(tokio_stream::iter(one)).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_stream_ends_with_the_right_to_it(t: &Bed) {
    let (t, acme) = product(t).await;
    let bob = t.member(&acme, "member").await;
    let mut member = t.with_token(&bob.token);
    let (send, events) = tokio::sync::mpsc::channel(1);
    let one = || v1::StreamUsageRequest { tenant: acme.id.clone(), event: Some(event(&[("tokens", 1)], "")) };
    send.send(one()).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(events);
    let call = tokio::spawn(async move { member.usage.stream_usage(stream).await });
    let mut service = service(&t).await;
    until("the first is recorded", || {
        let mut service = service.clone();
        let acme = &acme;
        async move { usage(&mut service, acme, "tokens").await.used == 1 }
    })
    .await;
    let remove = v1::RemoveMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.unwrap();
    until("no more are taken", || async { send.send(one()).await.is_err() }).await;
    assert_refused(call.await.unwrap(), Code::NotFound, "TENANT_NOT_FOUND");
    let used = usage(&mut service, &acme, "tokens").await.used;
    assert_eq!(usage(&mut service, &acme, "tokens").await.used, used);
}

async fn a_stream_is_answered_before_its_deadline(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let three =
        (0..3).map(|_| v1::StreamUsageRequest { event: Some(event(&[("tokens", 1)], "")), ..Default::default() });
    let endless = tokio_stream::iter(three).chain(futures::stream::pending());
    let mut request = tonic::Request::new(endless);
    request.set_timeout(std::time::Duration::from_secs(4));
    let told = owner.usage.stream_usage(request).await.expect("what was recorded is told").into_inner();
    assert_eq!((told.recorded, told.refused), (3, 0));
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
    let id = unique_id();
    for (user_id, api_key_id, reason) in
        [(id.clone(), String::new(), "MEMBER_NOT_FOUND"), (String::new(), id, "KEY_NOT_FOUND")]
    {
        let details = Some(v1::UsageDetails { user_id, api_key_id, ..Default::default() });
        let request = v1::CheckQuotaRequest { details, ..check(&[("ever", 1)]) };
        assert_refused(service.usage.check_quota(request).await, Code::NotFound, reason);
    }
}
