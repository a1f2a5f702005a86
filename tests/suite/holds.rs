//! What is set aside: reservations and slots.

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Tenant, amounts, assert_refused, on_both_engines, request_id, until, wrong_fields};
use crate::metering::{ask, product, service, usage};

on_both_engines! {
    a_reservation_is_committed_in_part_and_the_rest_comes_back
    what_is_set_aside_is_not_there_for_others_until_it_ends
    holds_are_for_those_who_opened_them
    holds_are_of_their_tenant_and_kind
    slots_are_held_by_heartbeats
    a_hundred_want_three_slots
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
    let nothing = v1::ReleaseReservationRequest { reservation_id: request_id(), tenant: acme.id.clone() };
    assert_refused(service.usage.release_reservation(nothing).await, Code::NotFound, "HOLD_NOT_FOUND");
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

pub(crate) fn slot(tenant: &Tenant, seconds: i64) -> v1::AcquireSlotRequest {
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
        slot_ids: vec![ids[1].clone(), ids[0].clone(), request_id()],
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
