//! Decisions are made from memory, and what was taken away is gone from it: with the answer at the server that took it, within
//! the bound at every other, whether or not anybody hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;
use tenantry::rpc::v1;
use tonic::{Code, Status};

use crate::cluster::{Cluster, Stop};
use crate::harness::{Bed, Clients, Engine, Person, Tenant, on_both_engines, until};

on_both_engines! {
    who_is_let_in_and_out_again_is_in_and_out_with_each_answer
    ;
    alone
    what_memory_holds_is_asked_of_no_row
}

async fn enters(clients: &mut Clients, tenant: &Tenant) -> Result<(), Status> {
    let asked = v1::GetSettingsRequest { tenant: tenant.id.clone() };
    clients.tenants.get_settings(asked).await.map(drop)
}

fn is_suspended(told: &Result<(), Status>) -> bool {
    told.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied)
}

async fn suspend(by: &mut Clients, tenant: &Tenant, member: &Person) {
    let (tenant, user_id) = (tenant.id.clone(), member.id.clone());
    let request = v1::SuspendMemberRequest { tenant, user_id, ..Default::default() };
    by.members.suspend_member(request).await.expect("suspends");
}

async fn reactivate(by: &mut Clients, tenant: &Tenant, member: &Person) {
    let (tenant, user_id) = (tenant.id.clone(), member.id.clone());
    let request = v1::ReactivateMemberRequest { tenant, user_id, ..Default::default() };
    by.members.reactivate_member(request).await.expect("reactivates");
}

/// Many readers fill memory all the while, so that some of them are in the middle of it at each change.
async fn who_is_let_in_and_out_again_is_in_and_out_with_each_answer(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "manager").await;
    let mut owner = t.with_token(&acme.owner.token);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (mut clients, acme, over) = (t.with_token(&bob.token), acme.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let told = enters(&mut clients, &acme).await;
                    assert!(told.is_ok() || is_suspended(&told), "{told:?}");
                }
            })
        })
        .collect();
    let mut clients = t.with_token(&bob.token);
    for round in 0..40 {
        suspend(&mut owner, &acme, &bob).await;
        let told = enters(&mut clients, &acme).await;
        assert!(is_suspended(&told), "round {round}: {told:?}");
        reactivate(&mut owner, &acme, &bob).await;
        let told = enters(&mut clients, &acme).await;
        assert!(told.is_ok(), "round {round}: {told:?}");
    }
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("no reader saw anything else");
    }
}

/// A row that is changed behind the feed's back shows that no row is asked; then the history is made another one, and what
/// was of the old one is forgotten.
async fn what_memory_holds_is_asked_of_no_row(t: Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "manager").await;
    let mut clients = t.with_token(&bob.token);
    until("memory is fresh and filled", async || {
        enters(&mut t.with_token(&bob.token), &acme).await.expect("enters");
        t.staleness().is_some()
    })
    .await;
    enters(&mut clients, &acme).await.expect("enters");
    t.execute_unseen("update membership set status = 2 where user_id = $1", &bob.id).await;
    enters(&mut clients, &acme).await.expect("nobody said that anything has changed");
    t.execute_unseen("update change set nonce = -1 - nonce where $1 is not null", &bob.id).await;
    until("another history is noticed", async || is_suspended(&enters(&mut t.with_token(&bob.token), &acme).await))
        .await;
}

/// How long after an answer that suspends a member another server still let them in, by when the request was sent.
async fn let_in_for(one: &Bed, other: &Bed, acme: &Tenant, bob: &Person) -> Duration {
    let mut owner = one.with_token(&acme.owner.token);
    let mut clients = other.with_token(&bob.token);
    until("they enter", async || enters(&mut other.with_token(&bob.token), acme).await.is_ok()).await;
    suspend(&mut owner, acme, bob).await;
    let answered = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let sent = answered.elapsed();
        let told = enters(&mut clients, acme).await;
        if told.is_ok() {
            last = sent;
        } else {
            assert!(is_suspended(&told), "{told:?}");
            break;
        }
        assert!(sent < Duration::from_secs(20), "still let in");
    }
    reactivate(&mut owner, acme, bob).await;
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_lets_nobody_in_beyond_the_bound_even_when_nobody_hears_of_changes() {
    let bound = Duration::from_secs(2);
    let one = Bed::private(Engine::Postgres, &["--max-staleness=2"]).await;
    let other = one.sibling(&["--max-staleness=2"]).await;
    let acme = one.tenant("acme").await;
    let bob = one.member(&acme, "manager").await;
    let heard = let_in_for(&one, &other, &acme, &bob).await;
    // From here on, commits are told to nobody.
    let database = one.database.as_ref().expect("on PostgreSQL");
    let mut admin = database.administrator().await;
    let append: String = sqlx::query_scalar("select pg_get_functiondef('tenantry.feed_append'::regproc)")
        .fetch_one(&mut admin)
        .await
        .expect("the function");
    assert!(append.contains("'tenantry_feed'"), "{append}");
    let mute = append.replace("'tenantry_feed'", "'nobody'");
    sqlx::raw_sql(AssertSqlSafe(mute)).execute(&mut admin).await.expect("replaces it");
    let mut unheard = Duration::ZERO;
    for _ in 0..3 {
        unheard = unheard.max(let_in_for(&one, &other, &acme, &bob).await);
    }
    assert!(heard < bound && unheard < bound, "{heard:?} and {unheard:?} beyond {bound:?}");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_decisions_go_on_until_the_bound_and_are_then_neither_yes_nor_no() {
    let bound = Duration::from_secs(5);
    let cluster = Cluster::private();
    let server = Bed::on_cluster(&cluster, &["--max-staleness=5"]).await;
    let acme = server.tenant("acme").await;
    let mut clients = server.with_token(&acme.owner.token);
    let asked = v1::AuthorizeRequest { permissions: vec!["tenant.read".to_owned()], ..Default::default() };
    until("they may", async || {
        let decision = clients.clone().auth.authorize(asked.clone()).await;
        decision.is_ok_and(|decision| decision.into_inner().allowed)
    })
    .await;
    tokio::task::block_in_place(|| cluster.stop(Stop::Immediate));
    let gone = Instant::now();
    let mut decided = 0;
    loop {
        let sent = gone.elapsed();
        match clients.auth.authorize(asked.clone()).await {
            Ok(decision) => {
                assert!(decision.into_inner().allowed, "a no from what could not be confirmed");
                assert!(sent < bound, "decided {sent:?} after the database was gone");
                decided += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                break;
            }
        }
    }
    assert!(decided > 0, "nothing was decided from memory");
    tokio::task::block_in_place(|| cluster.start_again());
    until("decided again", async || clients.clone().auth.authorize(asked.clone()).await.is_ok()).await;
}
