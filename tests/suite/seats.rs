//! Seats over time: many callers join, invite, accept, leave and come back at once, by every way that there is, while the
//! plan changes under them, and the limit holds at every moment. A refusal is right only if at some instant while it was
//! under way all seats were held: seen from the recorded answers.

mod history;
mod lives;

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;

use crate::harness::{Bed, Engine, PASSWORD, Tenant, on_both_engines, request_id, unique};
use history::patiently;
use lives::{Going, Life, Place, Way};

on_both_engines! {
    no_race_holds_more_seats_than_there_are
    each_way_takes_a_seat_and_is_closed_when_there_is_none
    the_last_seat_is_had_once_on_every_path
}

const SEATS: i64 = 10;
const FEWER: i64 = 7;

const PLANS: &str = r#"
default_plan = "ten"
[plans.ten]
seats = 10
[plans.seven]
seats = 7
[plans.many]
"#;

async fn change_plan(t: &Bed, tenant: &Tenant, plan: &str) -> Result<v1::ChangePlanResponse, String> {
    let change = v1::ChangePlanRequest {
        tenant: tenant.id.clone(),
        request_id: request_id(),
        plan: plan.to_owned(),
        ..Default::default()
    };
    patiently(async || t.operator().tenants.change_plan(change.clone()).await).await
}

/// How many seats are held: by active members, and by invitations that had not been over when the tenant last changed.
async fn held(t: &Bed, tenant: &Tenant) -> i64 {
    let sql = "select (select count(*) from membership m where m.tenant_id = t.tenant_id and m.status = 1)
                 + (select count(*) from invitation i where i.tenant_id = t.tenant_id and i.status = 1
                      and i.expires_at > t.updated_at)
               from tenant t where t.tenant_id = $1";
    t.rows::<(i64,)>(sql, &tenant.id).await[0].0
}

/// A tenant with ten seats, and so many people who are to come, by all ways in turn.
async fn lives(t: &Bed, count: usize) -> (Place, Vec<Life>) {
    // What is made here is of last week, so that invitations are over. The identity provider's clock is not ours.
    t.clock.advance(TimeDelta::days(-8));
    let place = Place::new(t, "many").await;
    let mut lives = Vec::new();
    for way in Way::ALL.into_iter().cycle().take(count) {
        lives.push(place.life(t, way).await);
    }
    t.clock.advance(TimeDelta::days(8));
    for life in &mut lives {
        life.person = t.login(&life.person, "").await;
    }
    change_plan(t, &place.tenant, "ten").await.expect("one seat is held");
    (place, lives)
}

async fn no_race_holds_more_seats_than_there_are(t: &Bed) {
    let t = Bed::of_product(t.engine, PLANS).await;
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let (place, lives) = lives(&t, 100).await;
    let before = held(&t, &place.tenant).await;
    assert_eq!(before, 1);

    let over = AtomicBool::new(false);
    let plans = async {
        while !over.load(Ordering::SeqCst) {
            let fewer = change_plan(second.as_ref().unwrap_or(&t), &place.tenant, "seven");
            if place.recorder.limit(FEWER, fewer).await {
                place.recorder.limit(SEATS, change_plan(&t, &place.tenant, "ten")).await;
            }
        }
    };
    let watched = async {
        while !over.load(Ordering::SeqCst) {
            let held = held(&t, &place.tenant).await;
            assert!(held <= SEATS, "{held} seats are held");
        }
    };
    let all = lives.iter().enumerate().map(|(i, life)| {
        let server = if i % 2 == 0 { &t } else { second.as_ref().unwrap_or(&t) };
        life.live(server, &place, 6, Going::ALL[i / Way::ALL.len() % Going::ALL.len()])
    });
    let all = async {
        join_all(all).await;
        over.store(true, Ordering::SeqCst);
    };
    futures::join!(all, plans, watched);

    let history = place.recorder.history(before, SEATS);
    let tally = history.tally();
    println!("{:?}: {tally:?}", t.engine);
    assert_eq!(history.judge(), Ok(()), "{tally:?}");
    assert_eq!(held(&t, &place.tenant).await, before + history.held_more(), "{tally:?}");
    let refused: usize = tally.iter().filter(|(what, _)| **what != "plan").map(|(_, (_, refused))| refused).sum();
    assert!(refused > 0, "nobody was refused: {tally:?}");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn each_way_takes_a_seat_and_is_closed_when_there_is_none(t: &Bed) {
    let t = Bed::of_product(t.engine, PLANS).await;
    let (place, lives) = lives(&t, Way::ALL.len()).await;
    for (life, going) in lives.iter().zip(Going::ALL.into_iter().cycle()) {
        t.set_seats(&place.tenant, held(&t, &place.tenant).await).await;
        assert!(!life.live(&t, &place, 1, going).await, "{:?} finds a seat where there is none", life.way);
        t.set_seats(&place.tenant, held(&t, &place.tenant).await + 2).await;
        assert!(life.live(&t, &place, 1, going).await, "{:?} finds no seat", life.way);
    }
}

async fn the_last_seat_is_had_once_on_every_path(t: &Bed) {
    let acme = t.tenant("acme").await;
    t.set_seats(&acme, 2).await;
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
