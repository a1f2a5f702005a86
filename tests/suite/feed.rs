//! The change feed: what is in it, that whoever has seen n has seen everything up to n, and that a slow or dead writer
//! stops nobody for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tenantry::domain::cursor::Cursor;
use tenantry::rpc::v1;
use tenantry::store::Store;
use tenantry::store::feed::{FeedRow, Poll};
use tokio::task::JoinSet;
use tonic::Code;
use uuid::Uuid;

use crate::cluster::{Cluster, Database};
use crate::harness::{Bed, Engine, PASSWORD, assert_refused, unique};
use crate::startup::{connect, run};

const START: Cursor = Cursor { seq: 0, nonce: 0 };

// Numbers of kinds, as rows have them.
const TENANT: i16 = 1;
const HOST: i16 = 2;
const MEMBERSHIP: i16 = 3;
const ACCOUNT: i16 = 4;
const PLATFORM_KEY: i16 = 6;
const SIGNING_KEYS: i16 = 7;
const CATALOGUE: i16 = 8;

async fn store(database: &Database) -> Store {
    Store::open_postgres(&database.app_url, &database.system_url, &database.meter_url, 4).await.unwrap()
}

/// One page; fails when the cursor is lost.
async fn page(store: &Store, after: Cursor) -> (Vec<FeedRow>, Cursor, bool) {
    match store.poll_feed(after).await.unwrap() {
        Poll::Page { rows, cursor, more } => (rows, cursor, more),
        other => panic!("{other:?}"),
    }
}

async fn lost(store: &Store, cursor: Cursor) -> Cursor {
    match store.poll_feed(cursor).await.unwrap() {
        Poll::CursorLost(head) => head,
        other => panic!("{other:?}"),
    }
}

/// The rows of a running server's database, past the server.
async fn rows_after(t: &Bed, seq: i64) -> Vec<FeedRow> {
    let rows =
        "select seq, ord, nonce, kind, tenant_id, key1, key2, key_hash from change where seq > $1 order by seq, ord";
    if let Some(database) = &t.database {
        let mut admin = connect(&database.admin_url).await;
        run(&mut admin, "set search_path = tenantry").await;
        return steps(sqlx::query_as(rows).bind(seq).fetch_all(&mut admin).await.unwrap());
    }
    let url = format!("sqlite://{}", t.dir.path().join("tenantry.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    steps(sqlx::query_as(rows).bind(seq).fetch_all(&mut conn).await.unwrap())
}

/// Without the next signing key, which a job makes at a time of its own; the first one came with the start.
fn steps(mut rows: Vec<FeedRow>) -> Vec<FeedRow> {
    rows.retain(|row| row.kind != SIGNING_KEYS || row.seq <= 2);
    rows
}

/// Follows the feed of a server step by step.
struct Watch<'t> {
    t: &'t Bed,
    seq: i64,
}

impl Watch<'_> {
    /// What the last step appended, in one transaction or not at all: kinds, whose and which.
    #[track_caller]
    fn step(&mut self, expected: &[(i16, Option<&str>, Option<&str>)]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let expected: Vec<_> = expected.iter().map(|(kind, tenant, key)| (*kind, id(*tenant), id(*key))).collect();
        async move {
            let rows = rows_after(self.t, self.seq).await;
            let seen: Vec<_> = rows.iter().map(|row| (row.kind, row.tenant_id, row.key1)).collect();
            assert_eq!(seen, expected, "{caller}");
            let orders: Vec<i64> = rows.iter().map(|row| i64::from(row.ord)).collect();
            assert_eq!(orders, (0..).take(rows.len()).collect::<Vec<i64>>(), "{caller}");
            assert!(rows.windows(2).all(|two| (two[0].seq, two[0].nonce) == (two[1].seq, two[1].nonce)), "{caller}");
            self.seq = rows.last().map_or(self.seq, |row| row.seq);
        }
    }
}

fn id(text: Option<&str>) -> Option<Uuid> {
    text.map(|text| text.parse().unwrap())
}

macro_rules! on_private_beds {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Bed::private(super::Engine::Sqlite, &[]).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Bed::private(super::Engine::Postgres, &[]).await).await;
            })*
        }
    };
}

on_private_beds! {
    every_mutation_tells_its_changes_and_nothing_else_does
}

#[expect(clippy::too_many_lines, reason = "one list of everything that can be done, in the order in which it can")]
async fn every_mutation_tells_its_changes_and_nothing_else_does(t: Bed) {
    let first: Vec<i16> = rows_after(&t, 0).await.iter().map(|row| row.kind).collect();
    assert_eq!(first, [CATALOGUE, SIGNING_KEYS, PLATFORM_KEY], "what the first start made");
    let mut watch = Watch { t: &t, seq: rows_after(&t, 0).await[2].seq };

    let ada = t.person("ada").await;
    watch.step(&[(ACCOUNT, None, Some(&ada.id))]).await;
    let acme = t.tenant("acme").await;
    let (tenant, owner) = (Some(acme.id.as_str()), Some(acme.owner.id.as_str()));
    let created = [(ACCOUNT, None, owner), (TENANT, tenant, None), (HOST, tenant, None), (MEMBERSHIP, tenant, owner)];
    watch.step(&created).await;
    let ada_in = t.login(&ada, "").await;
    watch.step(&[]).await;

    let mut own = t.with_token(&acme.owner.token);
    let member = [(MEMBERSHIP, tenant, Some(ada.id.as_str()))];
    t.join(&acme, &ada, "member").await;
    let joined = rows_after(&t, watch.seq).await;
    assert!(joined.iter().any(|row| row.kind == MEMBERSHIP && row.key1 == id(Some(&ada.id))), "{joined:?}");
    watch.seq = joined.last().unwrap().seq;
    let user_id = || ada.id.clone();
    let role =
        v1::UpdateMemberRoleRequest { user_id: user_id(), roles: vec!["admin".to_owned()], ..Default::default() };
    own.members.update_member_role(role.clone()).await.unwrap();
    watch.step(&member).await;
    own.members.suspend_member(v1::SuspendMemberRequest { user_id: user_id(), ..Default::default() }).await.unwrap();
    watch.step(&member).await;
    own.members
        .reactivate_member(v1::ReactivateMemberRequest { user_id: user_id(), ..Default::default() })
        .await
        .unwrap();
    watch.step(&member).await;
    let transfer = v1::TransferOwnershipRequest {
        new_owner_id: user_id(),
        own_roles: vec!["admin".to_owned()],
        ..Default::default()
    };
    own.members.transfer_ownership(transfer).await.unwrap();
    let both = rows_after(&t, watch.seq).await;
    assert!(both.iter().all(|row| row.kind == MEMBERSHIP) && both.len() == 2, "{both:?}");
    watch.seq = both[0].seq;
    let mut ada_own = t.with_token(&t.login(&ada, &acme.id).await.token);
    watch.step(&[]).await;
    let back = v1::TransferOwnershipRequest {
        new_owner_id: acme.owner.id.clone(),
        own_roles: vec!["member".to_owned()],
        ..Default::default()
    };
    ada_own.members.transfer_ownership(back).await.unwrap();
    watch.seq = rows_after(&t, watch.seq).await[0].seq;
    ada_own.members.leave_tenant(v1::LeaveTenantRequest::default()).await.unwrap();
    watch.step(&member).await;
    t.join(&acme, &ada, "viewer").await;
    watch.seq = rows_after(&t, watch.seq).await[0].seq;
    own.members.remove_member(v1::RemoveMemberRequest { user_id: user_id(), ..Default::default() }).await.unwrap();
    watch.step(&member).await;

    let whole = [(TENANT, tenant, None)];
    let mask = Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] });
    let update = v1::UpdateTenantRequest { update_mask: mask, display_name: "New".to_owned(), ..Default::default() };
    own.tenants.update_tenant(update).await.unwrap();
    watch.step(&whole).await;
    own.tenants
        .suspend_tenant(v1::SuspendTenantRequest { reason: "away".to_owned(), ..Default::default() })
        .await
        .unwrap();
    watch.step(&whole).await;
    own.tenants.activate_tenant(v1::ActivateTenantRequest::default()).await.unwrap();
    watch.step(&whole).await;
    let slug = unique("second");
    let second = v1::CreateTenantRequest { slug, display_name: "Second".to_owned(), ..Default::default() };
    let second = own.tenants.create_tenant(second).await.unwrap().into_inner().tenant.unwrap().tenant_id;
    let two = Some(second.as_str());
    watch.step(&[(TENANT, two, None), (HOST, two, None), (MEMBERSHIP, two, owner)]).await;
    let key = v1::CreateServiceKeyRequest {
        display_name: "x".to_owned(),
        permissions: vec!["usage.read".to_owned()],
        ..Default::default()
    };
    t.operator().auth.create_service_key(key).await.unwrap();
    let made = rows_after(&t, watch.seq).await;
    assert_eq!(made.iter().map(|row| (row.kind, row.key_hash.is_some())).collect::<Vec<_>>(), [(PLATFORM_KEY, true)]);
    watch.seq = made[0].seq;

    // Nobody may have cached any of this.
    let wrong = v1::LoginRequest { email: ada.email.clone(), password: format!("{PASSWORD}!"), ..Default::default() };
    assert_refused(t.anonymous().auth.login(wrong).await, Code::Unauthenticated, "PASSWORD_WRONG");
    let consume = v1::ConsumeRequest {
        amounts: vec![v1::Amount { metric: "tokens".to_owned(), amount: 1 }],
        idempotency_key: "one".to_owned(),
        ..Default::default()
    };
    own.usage.consume(consume).await.unwrap();
    own.members.list_members(v1::ListMembersRequest::default()).await.unwrap();
    own.members.update_member_role(role).await.unwrap_err();
    t.with_token(&ada_in.token).tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap();
    watch.step(&[]).await;

    own.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.unwrap();
    watch.step(&whole).await;
    own.tenants.undelete_tenant(v1::UndeleteTenantRequest::default()).await.unwrap();
    watch.step(&whole).await;
    own.auth.switch_tenant(v1::SwitchTenantRequest { to_tenant: second, ..Default::default() }).await.unwrap();
    let switched = rows_after(&t, watch.seq).await;
    assert_eq!(switched, [], "a session's tenant is read with every call");

    // What a follower is told is the same, row by row.
    let all = rows_after(&t, 0).await;
    let (dir, database) = (t.dir.clone(), t.database.clone());
    t.stop().await;
    let store = match &database {
        Some(database) => store(database).await,
        None => Store::open_sqlite(dir.path()).await.unwrap(),
    };
    let (told, cursor, more) = page(&store, START).await;
    assert_eq!((steps(told), more), (all.clone(), false));
    let last = all.last().unwrap();
    assert_eq!(cursor, Cursor { seq: last.seq, nonce: last.nonce });
    assert_eq!(page(&store, cursor).await, (Vec::new(), cursor, false));
    losing_the_cursor(&store, &all, cursor).await;
}

/// A cursor that is not in the history is never answered with rows.
async fn losing_the_cursor(store: &Store, all: &[FeedRow], head: Cursor) {
    assert_eq!(lost(store, Cursor { nonce: head.nonce.wrapping_add(1), ..head }).await, head, "another history");
    assert_eq!(lost(store, Cursor { seq: head.seq + 1000, nonce: 0 }).await, head, "from the future");
    assert_eq!(lost(store, Cursor { nonce: 1, ..START }).await, head);
    let middle = &all[all.len() / 2];
    let cursor = Cursor { seq: middle.seq, nonce: middle.nonce };
    let after = all.iter().filter(|row| row.seq > middle.seq).cloned().collect::<Vec<_>>();
    assert_eq!(page(store, cursor).await.0, after);
}

/// Appends `count` rows in one transaction that has begun, as the application does; each names `key`.
fn append(key: Uuid, count: usize) -> String {
    let list = |item: &str| vec![item; count].join(",");
    format!(
        "select feed_append(7, now(), array[{}]::smallint[], array[{nulls}]::uuid[], array[{}]::uuid[], \
         array[{nulls}]::uuid[], array[{nulls}]::bytea[])",
        list("4"),
        list(&format!("'{key}'")),
        nulls = list("null"),
    )
}

async fn number(conn: &mut PgConnection, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await.unwrap()
}

fn random(below: u16) -> u16 {
    u16::from_be_bytes(tenantry::entropy::bytes()) % below
}

/// A transaction that was committed: which, its number, and when the append began and the commit had returned.
type Committed = (Uuid, i64, Instant, Instant);

async fn writer(url: String) -> Vec<Committed> {
    let mut conn = connect(&url).await;
    let mut done = Vec::new();
    for _ in 0..40 {
        let key = Uuid::new_v4();
        run(&mut conn, "begin; insert into rpc_rate values (gen_random_uuid()::text, '', '', now())").await;
        // Delays are the race itself, not a wait for something.
        tokio::time::sleep(Duration::from_micros(u64::from(random(2000)))).await;
        let begun = Instant::now();
        let seq = number(&mut conn, append(key, 1 + usize::from(random(3)))).await;
        tokio::time::sleep(Duration::from_micros(u64::from(random(1500)))).await;
        if random(10) == 0 {
            run(&mut conn, "rollback").await;
            continue;
        }
        run(&mut conn, "commit").await;
        done.push((key, seq, begun, Instant::now()));
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_misses_nothing_of_eight_writers() {
    let database = Cluster::shared().fresh_database().await;
    let store = Arc::new(store(&database).await);
    let written = Arc::new(AtomicBool::new(false));
    let following = tokio::spawn({
        let (store, written) = (store.clone(), written.clone());
        async move {
            let (mut cursor, mut seen) = (START, Vec::new());
            loop {
                let last = written.load(Ordering::SeqCst);
                let (rows, next, more) = page(&store, cursor).await;
                seen.extend(rows);
                cursor = next;
                if last && !more {
                    return seen;
                }
            }
        }
    });
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        writers.spawn(writer(database.app_url.clone()));
    }
    let mut committed = writers.join_all().await.concat();
    written.store(true, Ordering::SeqCst);
    let seen = following.await.unwrap();

    committed.sort_by_key(|(_, seq, ..)| *seq);
    let mut told: Vec<(Uuid, i64)> = seen.iter().map(|row| (row.key1.unwrap(), row.seq)).collect();
    told.dedup();
    let made: Vec<(Uuid, i64)> = committed.iter().map(|(key, seq, ..)| (*key, *seq)).collect();
    let missed = made.iter().filter(|one| !told.contains(one)).count();
    assert_eq!(missed, 0, "of {}", made.len());
    assert!(told == made, "every commit, once, in the order of its number, and no aborted one");
    // The order of numbers is the order of commits: who began after another's commit had returned comes later.
    let mut latest_begin = committed[0].2;
    for (.., begun, returned) in &committed {
        assert!(*returned > latest_begin, "a later number was committed before an earlier one began");
        latest_begin = latest_begin.max(*begun);
    }
}

#[tokio::test]
async fn a_writer_that_stops_before_it_appends_disturbs_nobody() {
    let database = Cluster::shared().fresh_database().await;
    let store = store(&database).await;
    let mut stopped = connect(&database.app_url).await;
    run(&mut stopped, "begin; insert into rpc_rate values ('x', 'y', '', now())").await;
    let mut other = connect(&database.app_url).await;
    let (key, begun) = (Uuid::new_v4(), Instant::now());
    run(&mut other, &format!("begin; {}; commit", append(key, 1))).await;
    let (rows, cursor, _) = page(&store, START).await;
    assert_eq!(rows.last().unwrap().key1, Some(key));
    // A writer that waited would wait for the whole lock timeout.
    assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    // Nor is it too late for the one that stopped.
    let key = Uuid::new_v4();
    run(&mut stopped, &format!("{}; commit", append(key, 1))).await;
    assert_eq!(page(&store, cursor).await.0[0].key1, Some(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_stops_after_it_appended_is_thrown_out() {
    let t = Bed::private(Engine::Postgres, &[]).await;
    let database = t.database.clone().unwrap();
    let mut stopped = connect(&database.app_url).await;
    // As every connection of the server's pools has it.
    run(&mut stopped, "set idle_in_transaction_session_timeout = '1s'").await;
    let key = Uuid::new_v4();
    run(&mut stopped, "begin; insert into rpc_rate values ('x', 'thrown out', '', now())").await;
    run(&mut stopped, &append(key, 1)).await;
    let begun = Instant::now();
    let ada = t.person("ada").await;
    let waited = begun.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    assert!(sqlx::raw_sql("commit").execute(&mut stopped).await.is_err());
    let (rows, ..) = page(&store(&database).await, START).await;
    assert!(!rows.iter().any(|row| row.key1 == Some(key)), "its changes are gone");
    assert!(rows.iter().any(|row| row.key1 == id(Some(&ada.id))));
    let mut admin = connect(&database.admin_url).await;
    let kept = "select count(*) from tenantry.rpc_rate where subject = 'thrown out'".to_owned();
    assert_eq!(number(&mut admin, kept).await, 0, "and its work");
}

/// Rows of the transactions in the test of pages.
const SIZES: [usize; 6] = [900, 900, 900, 1000, 100, 100];

#[tokio::test]
async fn pages_hold_whole_transactions() {
    let database = Cluster::shared().fresh_database().await;
    let postgres = store(&database).await;
    let mut app = connect(&database.app_url).await;
    for count in SIZES {
        run(&mut app, &format!("begin; {}; commit", append(Uuid::new_v4(), count))).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Store::open_sqlite(dir.path()).await.unwrap();
    let url = format!("sqlite://{}", dir.path().join("tenantry.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    for (seq, count) in (1..).zip(SIZES) {
        let sql = format!(
            "with recursive n(ord) as (select 0 union all select ord + 1 from n where ord + 1 < {count})
             insert into change (seq, ord, nonce, at, kind) select {seq}, ord, 7, 0, 4 from n"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    for store in [&postgres, &sqlite] {
        let (mut cursor, mut pages, mut all) = (START, Vec::new(), Vec::new());
        loop {
            let (rows, next, more) = page(store, cursor).await;
            pages.push(rows.len());
            all.extend(rows);
            cursor = next;
            if !more {
                break;
            }
        }
        // The third transaction would be cut; the next page is exactly full.
        assert_eq!(pages, [1800, 2000, 100]);
        assert!(all.windows(2).all(|two| (two[0].seq, two[0].ord) < (two[1].seq, two[1].ord)));
        assert_eq!(all.len(), 3900);
    }
    run(&mut connect(&database.admin_url).await, "delete from tenantry.change where seq <= 3").await;
    sqlx::raw_sql("delete from change where seq <= 3").execute(&mut conn).await.unwrap();
    for store in [&postgres, &sqlite] {
        assert_eq!(lost(store, Cursor { seq: 2, nonce: 7 }).await.seq, 6, "compacted away");
        assert_eq!(page(store, Cursor { seq: 4, nonce: 7 }).await.0.len(), 200);
    }
}
