//! What comes in between: an administrator of PostgreSQL holds one of two up until the other has come, so that races which
//! are won by chance elsewhere are run in the order that hurts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::future::join_all;
use futures::join;
use sqlx::PgConnection;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_limit_override_request::Value as Much;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::cluster::Database;
use crate::harness::{Bed, Clients, Engine, amounts, assert_refused, until};
use crate::lowering::{Scene, admits};
use crate::processes::{House, books_agree, owner};
use crate::startup::run;

/// A door before changes of rows, which an administrator holds shut.
struct Door(PgConnection);

impl Door {
    /// Shuts it before what a trigger is for, such as `insert on quota_account for each row`.
    async fn shut_before(database: &Database, what: &str) -> Self {
        let mut admin = database.administrator().await;
        let door = "create function door() returns trigger language plpgsql as
                    'begin perform pg_advisory_xact_lock_shared(1); return new; end'";
        run(&mut admin, door).await;
        run(&mut admin, &format!("create trigger a_door before {what} execute function door()")).await;
        run(&mut admin, "select pg_advisory_lock(1)").await;
        Self(admin)
    }

    /// Holds a metric's account shut, as a transaction does that has locked it.
    async fn at_account(database: &Database, metric: &str) -> Self {
        let mut admin = database.administrator().await;
        run(&mut admin, "begin").await;
        run(&mut admin, &format!("select 1 from quota_account where metric = '{metric}' for update")).await;
        Self(admin)
    }

    /// Lets everybody through, from now on.
    async fn open(mut self) {
        run(&mut self.0, "commit; select pg_advisory_unlock_all()").await;
    }
}

/// How many of the servers' transactions wait for a lock: those of tenants and operators, those of commit lanes, and those
/// before a door.
async fn waiting(database: &Database) -> (i64, i64, i64) {
    let sql = "select count(*) filter (where usename <> 'tenantry_meter'), count(*) filter (where usename = 'tenantry_meter'),
                 count(*) filter (where wait_event = 'advisory')
               from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    sqlx::query_as(sql).fetch_one(&mut database.administrator().await).await.expect("a row")
}

/// Fails if PostgreSQL had to break a deadlock of servers that have stopped.
pub(crate) async fn nobody_was_in_a_deadlock(database: &Database) {
    // What they counted is added up when they go.
    until("all connections are closed", async || {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and usename like 'tenantry%'";
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&mut database.administrator().await).await.expect("a row");
        left == 0
    })
    .await;
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(sql).fetch_one(&mut database.administrator().await).await.expect("a row");
    assert_eq!(deadlocks, 0);
}

/// Sixty at once, of whom those who come too late are refused.
async fn sixty(scene: &Scene, service: &Clients, list: &[(&str, i64)]) {
    let calls = (0..60).map(|_| {
        let (mut service, request) = (service.clone(), scene.ask(list));
        async move { admits(service.usage.consume(request).await) }
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_granted_in_between_is_taken_back_as_well() {
    let scene = Scene::new(Engine::Postgres).await;
    let database = scene.first().database.clone().expect("PostgreSQL");
    let mut service = scene.services().remove(0);
    service.usage.consume(scene.ask(&[("calls", 1)])).await.expect("opens the account");
    // A lane has locked the account, and nobody sees the lease yet that it grants itself.
    let granted = "update on quota_account for each row when (new.leased > old.leased)";
    let door = Door::shut_before(&database, granted).await;
    let lower = async {
        until("a lease is being granted", async || waiting(&database).await.2 > 0).await;
        let let_through = async {
            until("the limit is being lowered", async || waiting(&database).await.0 > 0).await;
            door.open().await;
        };
        join!(scene.limit("calls", Much::Limit(1)), let_through);
        scene.standing("calls").await
    };
    let (after, ()) = join!(lower, sixty(&scene, &service, &[("calls", 1)]));
    assert_eq!((after.leased, after.open), (0, 0), "{after:?}");
    assert_eq!(scene.standing("calls").await.used, after.used);
    scene.stop().await;
    nobody_was_in_a_deadlock(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_and_a_consumer_of_two_metrics_do_not_wait_for_each_other() {
    let scene = Scene::new(Engine::Postgres).await;
    let database = scene.first().database.clone().expect("PostgreSQL");
    let service = scene.services().remove(0);
    scene.heat("calls").await;
    // Leased are units of the other metric alone, in both lanes.
    until("calls are not leased", async || scene.standing("calls").await.open == 0).await;
    scene.heat("tokens").await;
    let door = Door::at_account(&database, "calls").await;
    let consume = async {
        until("the plan is being changed", async || waiting(&database).await.0 > 0).await;
        let let_through = async {
            until("both lanes wait", async || waiting(&database).await.1 > 1).await;
            door.open().await;
        };
        join!(sixty(&scene, &service, &[("calls", 1), ("tokens", 1)]), let_through);
    };
    join!(scene.change_plan("small"), consume);
    for metric in ["calls", "tokens"] {
        let after = scene.standing(metric).await;
        assert_eq!((after.leased, after.open), (0, 0), "{after:?}");
    }
    scene.stop().await;
    nobody_was_in_a_deadlock(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_opened_while_the_plan_changes_has_the_new_limit() {
    let scene = Scene::new(Engine::Postgres).await;
    let database = scene.first().database.clone().expect("PostgreSQL");
    let mut service = scene.services().remove(0);
    let door = Door::shut_before(&database, "insert on quota_account for each row").await;
    let changed = AtomicBool::new(false);
    let change = async {
        until("an account is being opened", async || waiting(&database).await.2 > 0).await;
        let let_through = async {
            let is_held_up = async || waiting(&database).await.0 > 1 || changed.load(Ordering::SeqCst);
            until("the plan is being changed, or has been", is_held_up).await;
            door.open().await;
        };
        let change = async {
            scene.change_plan("small").await;
            changed.store(true, Ordering::SeqCst);
        };
        join!(change, let_through);
    };
    let (opened, ()) = join!(service.usage.consume(scene.ask(&[("calls", 1)])), change);
    opened.expect("there is room");
    assert_eq!(scene.standing("calls").await.limit_value, 2);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_while_the_month_ends_counts_in_the_month_in_which_it_came() {
    let t = Bed::private(Engine::Postgres, &[]).await;
    let database = t.database.clone().expect("PostgreSQL");
    let acme = t.tenant("acme").await;
    let service = t.with_key(&t.service_key(&["usage.*"]).await);
    let consume = async |amount: i64| {
        let amounts = amounts(&[("quizzes", amount)]);
        let request = v1::ConsumeRequest { tenant: acme.id.clone(), amounts, ..Default::default() };
        service.clone().usage.consume(request).await.expect("there is room").into_inner().usage.remove(0)
    };
    let month = consume(1).await;
    let (start, end) = (month.period_start_time.expect("a start"), month.reset_time.expect("an end"));
    let door = Door::at_account(&database, "quizzes").await;
    let month_ends = async {
        until("it waits", async || waiting(&database).await.1 > 0).await;
        t.clock.advance(TimeDelta::seconds(end.seconds - start.seconds));
        let next = consume(100).await;
        door.open().await;
        next
    };
    let (late, next) = join!(consume(40), month_ends);
    assert_eq!((late.used, late.reset_time), (41, Some(end)));
    assert_eq!((next.used, next.period_start_time), (100, Some(end)));
    let used = "select committed from quota_account where tenant_id = $1 order by period_start";
    assert_eq!(t.rows::<(i64,)>(used, &acme.id).await, [(41,), (100,)]);
}

fn tokens(amount: i64, key: &str) -> v1::ConsumeRequest {
    let (amounts, idempotency_key) = (amounts(&[("tokens", amount)]), key.to_owned());
    v1::ConsumeRequest { amounts, idempotency_key, ..Default::default() }
}

const USED: &str = "select cast((select sum(committed) from quota_account)
                                + (select coalesce(sum(settled), 0) from quota_lease) as bigint)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_in_a_transaction_holds_up_nobody_for_long() {
    let house = House::new(Engine::Postgres).await;
    let (one, two) = (house.start(), house.start());
    let owner = owner(&one).await;
    let mut here = one.clients(owner.clone()).usage;
    here.consume(tokens(1, "first")).await.expect("there is room");
    let door = Door::at_account(house.database(), "tokens").await;
    let held = tokio::spawn({
        let mut here = here.clone();
        async move { here.consume(tokens(1, "held")).await }
    });
    until("its lane waits for the account", async || waiting(house.database()).await.1 > 0).await;
    one.signal("STOP");
    // Now its lane has the account, and nobody there goes on.
    door.open().await;
    let begun = Instant::now();
    two.clients(owner.clone()).usage.consume(tokens(1, "other")).await.expect("is admitted");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    one.signal("CONT");
    // Whatever that caller hears, the same key tells how it was.
    let _ = held.await.expect("no panic");
    until("it is answered", async || here.clone().consume(tokens(1, "held")).await.is_ok()).await;
    here.consume(tokens(1, "held")).await.expect("once more");
    assert_eq!(house.count("select count(*) from usage_event where verdict = 1").await, 3);
    assert_eq!(house.count(USED).await, 3);
    books_agree(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_are_out_of_reach_are_neither_refused_nor_lost() {
    let house = House::new(Engine::Postgres).await;
    let (one, two) = (house.start(), house.start());
    let owner = owner(&one).await;
    let here = one.clients(owner.clone()).usage;
    let leased = "select cast(coalesce(sum(leased), 0) as bigint) from quota_account";
    until("units are leased", async || {
        let calls = vec![here.clone(); 40].into_iter().map(|mut here| async move { here.consume(tokens(1, "")).await });
        assert!(join_all(calls).await.iter().all(Result::is_ok), "there is room");
        house.count(leased).await > 0
    })
    .await;
    one.signal("STOP");
    // Whoever would take back what it has leased passes over rows that are locked.
    let mut admin = house.administrator().await;
    run(&mut admin, "begin; select 1 from quota_lease for update").await;
    assert!(house.count(leased).await > 0, "it was quick enough to return them");
    let all = tokens(1_000_000 - house.count(USED).await, "all");
    let mut there = two.clients(owner.clone()).usage;
    let told = there.consume(all.clone()).await.expect_err("not all of it is in reach");
    let retry = told.get_details_retry_info().and_then(|retry| retry.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{told:?}");
    assert_refused::<v1::ConsumeResponse>(Err(told), Code::Unavailable, "QUOTA_CONTENDED");
    assert_eq!(house.count("select count(*) from usage_event where key = 'all'").await, 0);
    run(&mut admin, "commit").await;
    until("they are taken back", async || there.clone().consume(all.clone()).await.is_ok()).await;
    assert_eq!(house.count(USED).await, 1_000_000);
    one.signal("CONT");
    until("it knows that there are none", async || {
        let told = here.clone().consume(tokens(1, "")).await.expect_err("there is nothing left");
        told.code() == Code::ResourceExhausted
    })
    .await;
    assert_eq!(house.count(USED).await, 1_000_000);
    books_agree(&two).await;
}
