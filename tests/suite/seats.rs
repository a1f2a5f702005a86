//! Seats over time: many callers join, invite, accept, leave and come back at once, and the limit holds at every moment. A
//! refusal is right only if at some instant while it was under way all seats were held: seen from the recorded answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use tenantry::entropy;
use tenantry::rpc::v1;
use tonic::{Code, Status};

use crate::harness::{Bed, Engine, PASSWORD, Person, Tenant, on_both_engines, refusal, unique};

on_both_engines! {
    no_race_holds_more_seats_than_there_are
    the_last_seat_is_had_once_on_every_path
}

const SEATS: i64 = 10;

async fn limit(t: &Bed, tenant: &Tenant, seats: i64) {
    let limit = v1::SetLimitOverrideRequest {
        tenant: tenant.id.clone(),
        metric: "members".to_owned(),
        value: Some(v1::set_limit_override_request::Value::Limit(seats)),
        ..Default::default()
    };
    t.operator().tenants.set_limit_override(limit).await.expect("sets the seats");
}

/// What a call does to the seats: how many more or fewer are held after it.
type Effect = i64;

/// A call, by a clock that only counts: when it was sent, when its answer was there, and what it did.
#[derive(Debug)]
struct Event {
    sent: u64,
    answered: u64,
    what: &'static str,
    /// None when it was refused for want of seats.
    effect: Option<Effect>,
}

/// Whoever records.
#[derive(Clone, Default)]
struct Recorder(Arc<AtomicU64>);

impl Recorder {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a call and notes what it did; refusals for another reason did nothing.
    async fn note<T: std::fmt::Debug>(
        &self,
        what: &'static str,
        effect: Effect,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> (Event, Option<T>) {
        let sent = self.tick();
        let answer = call.await;
        let answered = self.tick();
        match answer {
            Ok(done) => (Event { sent, answered, what, effect: Some(effect) }, Some(done.into_inner())),
            Err(status) => {
                let (code, reason) = refusal::<T>(Err(status));
                assert!(!matches!(code, Code::Internal | Code::Unknown | Code::Unavailable), "{what}: {code} {reason}");
                let effect = (reason != "SEATS_EXHAUSTED").then_some(0);
                (Event { sent, answered, what, effect }, None)
            }
        }
    }
}

/// Whether all seats may have been held at some instant while a call was under way. A call that worked took effect at some
/// instant between its sending and its answer, unknown which. So the most that can have been held at an instant counts all
/// takings that were sent by then, and only those givings-back that were answered by then. A refusal is wrong when even that
/// most stays below the limit all the while.
fn may_have_been_full(events: &[Event], refused: &Event, before: i64) -> bool {
    let instants = events.iter().flat_map(|event| [event.sent, event.answered]);
    let during = instants.filter(|at| (refused.sent..=refused.answered).contains(at));
    during.max_by_key(|at| most_held(events, *at, before)).is_some_and(|at| most_held(events, at, before) >= SEATS)
}

fn most_held(events: &[Event], at: u64, before: i64) -> i64 {
    let counted = |event: &&Event| match event.effect {
        Some(effect) if effect > 0 => event.sent <= at,
        Some(effect) if effect < 0 => event.answered < at,
        _ => false,
    };
    before + events.iter().filter(counted).filter_map(|event| event.effect).sum::<i64>()
}

/// The least that must have been held at an instant: never more than there are.
fn least_held(events: &[Event], at: u64, before: i64) -> i64 {
    let counted = |event: &&Event| match event.effect {
        Some(effect) if effect > 0 => event.answered < at,
        Some(effect) if effect < 0 => event.sent <= at,
        _ => false,
    };
    before + events.iter().filter(counted).filter_map(|event| event.effect).sum::<i64>()
}

async fn held(t: &Bed, tenant: &Tenant) -> i64 {
    let active = "select count(*) from membership where tenant_id = $1 and status = 1";
    let pending = "select count(*) from invitation where tenant_id = $1 and status = 1";
    let (active, pending): (Vec<(i64,)>, Vec<(i64,)>) =
        (t.rows(active, &tenant.id).await, t.rows(pending, &tenant.id).await);
    active[0].0 + pending[0].0
}

/// One life of somebody at a tenant that has too few seats: joins by one way and goes by another.
async fn life(server: &Bed, tenant: &Tenant, person: &Person, recorder: &Recorder, dice: u8) -> Vec<Event> {
    let mut operator = server.operator();
    let mut own = server.with_token(&person.token);
    let named = || tenant.id.clone();
    let mut events = Vec::new();
    let invite = v1::InviteMemberRequest { tenant: named(), email: person.email.clone(), ..Default::default() };
    let joined = match dice % 4 {
        0 => {
            let add = v1::AddMemberRequest { tenant: named(), email: person.email.clone(), ..Default::default() };
            let (event, done) = recorder.note("add", 1, operator.members.add_member(add)).await;
            events.push(event);
            done.is_some()
        }
        1 => {
            let items = vec![v1::InvitationItem { email: person.email.clone(), ..Default::default() }];
            let request = v1::BulkInviteRequest { tenant: named(), items, ..Default::default() };
            let sent = recorder.tick();
            let answer = operator.members.bulk_invite(request).await.expect("answers").into_inner();
            let result = &answer.results[0];
            let effect = (result.reason != "SEATS_EXHAUSTED").then_some(i64::from(result.reason.is_empty()));
            events.push(Event { sent, answered: recorder.tick(), what: "bulk", effect });
            let accept = v1::AcceptInvitationRequest { token: result.token.clone(), ..Default::default() };
            if result.token.is_empty() {
                false
            } else {
                let (event, done) = recorder.note("accept", 0, own.members.accept_invitation(accept)).await;
                events.push(event);
                done.is_some()
            }
        }
        _ => {
            let (event, done) = recorder.note("invite", 1, operator.members.invite_member(invite)).await;
            events.push(event);
            let Some(done) = done else { return events };
            let invitation_id = done.invitation.expect("an invitation").invitation_id;
            if dice & 0x40 == 0 {
                let accept = v1::AcceptInvitationRequest { token: done.token, ..Default::default() };
                let (event, done) = recorder.note("accept", 0, own.members.accept_invitation(accept)).await;
                events.push(event);
                done.is_some()
            } else if dice & 0x20 == 0 {
                let decline = v1::DeclineInvitationRequest { token: done.token, ..Default::default() };
                events.push(recorder.note("decline", -1, own.members.decline_invitation(decline)).await.0);
                false
            } else {
                let revoke = v1::RevokeInvitationRequest { tenant: named(), invitation_id, ..Default::default() };
                events.push(recorder.note("revoke", -1, operator.members.revoke_invitation(revoke)).await.0);
                false
            }
        }
    };
    if !joined {
        return events;
    }
    let user_id = person.id.clone();
    if dice & 0x10 != 0 {
        let suspend = v1::SuspendMemberRequest { tenant: named(), user_id: user_id.clone(), ..Default::default() };
        events.push(recorder.note("suspend", -1, operator.members.suspend_member(suspend)).await.0);
        let back = v1::ReactivateMemberRequest { tenant: named(), user_id: user_id.clone(), ..Default::default() };
        let (event, done) = recorder.note("reactivate", 1, operator.members.reactivate_member(back)).await;
        events.push(event);
        if done.is_none() {
            // Suspended, they hold none.
            return events;
        }
    }
    if dice & 0x08 != 0 {
        let remove = v1::RemoveMemberRequest { tenant: named(), user_id, ..Default::default() };
        events.push(recorder.note("remove", -1, operator.members.remove_member(remove)).await.0);
    }
    events
}

async fn no_race_holds_more_seats_than_there_are(t: &Bed) {
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let acme = t.tenant("acme").await;
    limit(t, &acme, SEATS).await;
    let mut people = Vec::new();
    for _ in 0..100 {
        people.push(t.person("p").await);
    }
    let recorder = Recorder::default();
    let before = held(t, &acme).await;
    let lives = people.iter().enumerate().map(|(i, person)| {
        let server = if i % 2 == 0 { t } else { second.as_ref().unwrap_or(t) };
        life(server, &acme, person, &recorder, entropy::bytes::<1>()[0])
    });
    let events: Vec<Event> = join_all(lives).await.into_iter().flatten().collect();
    let mut tally: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for event in &events {
        *tally.entry((event.what, event.effect.is_none())).or_default() += 1;
        assert!(least_held(&events, event.answered, before) <= SEATS, "{event:?}");
        if event.effect.is_none() {
            assert!(may_have_been_full(&events, event, before), "refused while there were seats: {event:?}");
        }
    }
    let refused: usize = tally.iter().filter(|((_, refused), _)| *refused).map(|(_, count)| count).sum();
    assert!(refused > 0, "nobody was refused: {tally:?}");
    let end = held(t, &acme).await;
    assert!(end <= SEATS, "{end} {tally:?}");
    assert_eq!(end, before + events.iter().filter_map(|event| event.effect).sum::<i64>(), "{tally:?}");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn the_last_seat_is_had_once_on_every_path(t: &Bed) {
    let acme = t.tenant("acme").await;
    limit(t, &acme, 2).await;
    for round in 0..4 {
        let mut people = Vec::new();
        for _ in 0..6 {
            people.push(t.person("p").await);
        }
        let suspended = t.person("s").await;
        if round == 0 {
            // One who comes back takes a seat as well.
            t.join(&acme, &suspended, "viewer").await;
            let suspend = v1::SuspendMemberRequest {
                tenant: acme.id.clone(),
                user_id: suspended.id.clone(),
                ..Default::default()
            };
            t.operator().members.suspend_member(suspend).await.unwrap();
        }
        let calls = people.iter().enumerate().map(|(i, person)| {
            let (mut operator, tenant, email) = (t.operator(), acme.id.clone(), person.email.clone());
            let user_id = suspended.id.clone();
            async move {
                match i % 3 {
                    0 => {
                        let add = v1::AddMemberRequest { tenant, email, ..Default::default() };
                        operator.members.add_member(add).await.is_ok()
                    }
                    1 if round == 0 => {
                        let back = v1::ReactivateMemberRequest { tenant, user_id, ..Default::default() };
                        operator.members.reactivate_member(back).await.is_ok()
                    }
                    _ => {
                        let invite = v1::InviteMemberRequest { tenant, email, ..Default::default() };
                        operator.members.invite_member(invite).await.is_ok()
                    }
                }
            }
        });
        let had = join_all(calls).await.into_iter().filter(|had| *had).count();
        assert_eq!((had, held(t, &acme).await), (1, 2), "round {round}");
        // Everybody but the owner goes again.
        for person in people.iter().chain([&suspended]) {
            let remove =
                v1::RemoveMemberRequest { tenant: acme.id.clone(), user_id: person.id.clone(), ..Default::default() };
            let _ = t.operator().members.remove_member(remove).await;
        }
        let list = v1::ListInvitationsRequest { tenant: acme.id.clone(), status: 1, ..Default::default() };
        for pending in t.operator().members.list_invitations(list).await.unwrap().into_inner().invitations {
            let revoke = v1::RevokeInvitationRequest {
                tenant: acme.id.clone(),
                invitation_id: pending.invitation_id,
                ..Default::default()
            };
            t.operator().members.revoke_invitation(revoke).await.unwrap();
        }
        assert_eq!(held(t, &acme).await, 1);
    }
    // A new person who is invited, and a sign-up of the same address: nothing is had twice.
    let email = format!("{}@example.com", unique("ann"));
    let invite = v1::InviteMemberRequest { tenant: acme.id.clone(), email: email.clone(), ..Default::default() };
    let token = t.operator().members.invite_member(invite).await.unwrap().into_inner().token;
    let accept = v1::AcceptInvitationRequest {
        token,
        display_name: "Ann".to_owned(),
        password: PASSWORD.to_owned(),
        ..Default::default()
    };
    let accepts = (0..10).map(|_| {
        let (mut anybody, accept) = (t.anonymous(), accept.clone());
        async move { anybody.members.accept_invitation(accept).await }
    });
    let joined = join_all(accepts).await.into_iter().flatten().count();
    assert_eq!((joined, held(t, &acme).await), (1, 2));
}
