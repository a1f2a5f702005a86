//! What happens around a point, and how things must stand afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::future::join_all;
use futures::join;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tenantry::decide::quota::{Action, Item, NamedHold, NewHold, Outcome};
use tenantry::domain::id::TenantId;
use tenantry::domain::quota::{AccountKey, AccountRow, Charge, Details, EventKey, HoldKind, Scope, Standing};
use tenantry::store::quota::QuotaRows;
use tenantry::store::quota::accounts::{self, Owner};
use tenantry::store::{InTenant, Store};
use tenantry::time::{Clock as _, SystemClock};
use tokio::net::lookup_host;
use tokio::time::timeout;
use uuid::Uuid;

use crate::cluster::{Cluster, Database};
use crate::points::Point;
use crate::server::{Place, Server};
use crate::trap::{Act, Trap};
use crate::wire::Wire;

/// What the account has to give at first, and what it is lowered to.
const LIMITS: [i64; 2] = [120, 100];

const METRIC: &str = "calls";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where stories take place.
pub(crate) enum World {
    Postgres { cluster: Box<Cluster>, spare: Mutex<Vec<Database>> },
    Sqlite,
}

/// One story, with its servers.
pub(crate) struct Story {
    place: Place,
    wires: Vec<Option<Arc<Wire>>>,
    servers: Vec<Mutex<Option<Arc<Server>>>>,
    trap: Arc<Trap>,
    account: AccountKey,
    /// What was asked under which key, and answered.
    answers: Mutex<HashMap<String, (Item, Outcome)>>,
}

/// What a story came to.
pub(crate) struct Told {
    row: AccountRow,
    took: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.row;
        let (used, forfeited, limit) = (row.used(), row.forfeited, row.limit);
        write!(f, "used {used} and forfeited {forfeited} of {limit} in {:.1?}", self.took)
    }
}

impl World {
    pub(crate) fn postgres() -> Self {
        Self::Postgres { cluster: Box::new(Cluster::start()), spare: Mutex::default() }
    }

    async fn place(&self, directory: &TempDir) -> Place {
        let Self::Postgres { cluster, spare } = self else { return Place::Sqlite(directory.path().to_owned()) };
        let database = locked(spare).pop();
        Place::Postgres(match database {
            Some(database) => database,
            None => cluster.fresh_database().await,
        })
    }

    fn is_over(&self, place: Place) {
        if let (Self::Postgres { spare, .. }, Place::Postgres(database)) = (self, place) {
            locked(spare).push(database);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a tenant and its account.
async fn enter(place: &Place, account: AccountKey) {
    let now = SystemClock.now();
    let tenant = "insert into tenant (tenant_id, slug, display_name, status, plan, version, created_at, updated_at)
                  values ($1, $2, 'Acme', 3, 'free', 1, $3, $3)";
    let row =
        "insert into quota_account (tenant_id, account_id, metric, period_start, period_end, limit_value, shown_limit,
                 committed, scope, scope_id)
               values ($1, $2, $3, $4, $5, $6, $6, 0, 2, $7)";
    let (id, slug) = (account.tenant.0, format!("t{}", account.tenant.0.simple()));
    let (start, end) = (now.after(TimeDelta::days(-1)), now.after(TimeDelta::days(1)));
    match place {
        Place::Postgres(database) => {
            let mut conn = database.administrator().await;
            let entered = sqlx::query(tenant).bind(id).bind(slug).bind(now).execute(&mut conn).await;
            entered.expect("a tenant");
            let row = sqlx::query(row).bind(id).bind(account.account).bind(METRIC).bind(start).bind(end);
            row.bind(LIMITS[0]).bind(Uuid::nil()).execute(&mut conn).await.expect("an account");
        }
        Place::Sqlite(directory) => {
            // Makes the tables.
            Store::open_sqlite(directory).await.expect("opens").close().await;
            let file = SqliteConnectOptions::new().filename(directory.join("tenantry.db"));
            let mut conn = SqliteConnection::connect_with(&file).await.expect("opens");
            let entered = sqlx::query(tenant).bind(id).bind(slug).bind(now).execute(&mut conn).await;
            entered.expect("a tenant");
            let row = sqlx::query(row).bind(id).bind(account.account).bind(METRIC).bind(start).bind(end);
            row.bind(LIMITS[0]).bind(Uuid::nil()).execute(&mut conn).await.expect("an account");
            conn.close().await.expect("closes");
        }
    }
}

impl Story {
    /// Tells it.
    pub(crate) async fn tell(world: &World, point: Point, act: Act) -> Told {
        let began = Instant::now();
        let directory = tempfile::tempdir().expect("a directory");
        let place = world.place(&directory).await;
        let tenant = TenantId(Uuid::new_v4());
        let account = AccountKey { scope: Scope::Tenant, tenant, account: Uuid::new_v4() };
        enter(&place, account).await;
        let wires = match &place {
            Place::Postgres(database) => {
                let options: PgConnectOptions = database.app_url.parse().expect("an address");
                let address = lookup_host((options.get_host(), options.get_port())).await.expect("a host").next();
                let address = address.expect("an address");
                vec![Some(Arc::new(Wire::to(address).await)), Some(Arc::new(Wire::to(address).await))]
            }
            Place::Sqlite(_) => vec![None],
        };
        let servers = wires.iter().map(|_| Mutex::new(None)).collect();
        let trap = Arc::new(Trap::new(point, act));
        let answers = Mutex::default();
        let story = Self { place, wires, servers, trap, account, answers };
        story.had_units_and_died().await;
        // What is left of it is found before all others serve.
        story.trap.set();
        for slot in 0..story.servers.len() {
            story.start(slot).await;
        }
        join!(story.meets_its_fate(), story.goes_on());
        story.is_told_the_same_again().await;
        until("reservations have ended", async || story.row().await.reserved == 0).await;
        for slot in 0..story.servers.len() {
            story.stop(slot).await;
        }
        let row = story.ends_well().await;
        world.is_over(story.place);
        Told { row, took: began.elapsed() }
    }

    async fn start(&self, slot: usize) {
        let server = Server::start(&self.place, slot, self.wires[slot].clone(), &self.trap).await;
        *locked(&self.servers[slot]) = Some(server);
    }

    /// Stops a server as operators do.
    async fn stop(&self, slot: usize) {
        let server = locked(&self.servers[slot]).take();
        server.expect("it serves").stop().await;
    }

    /// Ends a server as `kill -9` does.
    async fn kill(&self, slot: usize) {
        let server = locked(&self.servers[slot]).take();
        server.expect("it serves").end();
        if let Some(wire) = &self.wires[slot] {
            wire.cut().await;
        }
    }

    /// A server from before, of which leases are left.
    async fn had_units_and_died(&self) {
        self.start(0).await;
        self.consume(0, "before", 1).await;
        for number in 0..3 {
            self.promise(0, &format!("promised before {number}")).await;
        }
        self.kill(0).await;
    }

    /// What becomes of the server in the trap.
    async fn meets_its_fate(&self) {
        let caught = timeout(PATIENCE, self.trap.caught()).await;
        let slot = caught.unwrap_or_else(|_| panic!("nobody comes by {:?}", self.trap.point));
        match self.trap.act {
            Act::Kill => {
                self.kill(slot).await;
                self.start(slot).await;
            }
            Act::Stop => {
                let stopped = locked(&self.servers[slot]).clone().expect("it stands still");
                let other = locked(&self.servers[1 - slot]).clone().expect("it goes on");
                until("what it held has been taken from it", async || stopped.is_buried(&other).await).await;
                self.trap.open();
            }
            Act::Cut => {}
        }
    }

    /// What clients and an operator do.
    async fn goes_on(&self) {
        let other = self.servers.len() - 1;
        join_all((0..6).map(|number| async move {
            self.consume(if number % 2 == 0 { 0 } else { other }, &format!("call {number}"), 1).await
        }))
        .await;
        for number in 0..4 {
            self.promise(0, &format!("promised {number}")).await;
        }
        self.reserve(0, "short", 3, TimeDelta::milliseconds(100)).await;
        let hold = self.reserve(other, "long", 2, TimeDelta::hours(1)).await;
        self.told(0, "commit", Action::Commit { hold, amounts: vec![(METRIC.into(), 1)] }, None).await;
        self.told(other, "refund", Action::Refund { of: "call 0".into(), amounts: Vec::new() }, None).await;
        until("what the dead server had is taken back", async || self.row().await.forfeited > 0).await;
        for attempt in 0.. {
            if self.server(attempt).await.limit(self.account.tenant, METRIC, LIMITS[1]).await {
                break;
            }
            assert!(attempt < 100, "the limit can be lowered");
        }
        // Much is wanted at one server of what is leased at the other.
        let (mut row, mut number) = (self.row().await, 0);
        while row.leased == 0 {
            assert!(number < 50, "an account that is asked of is leased: {row:?}");
            self.consume(0, &format!("more {number}"), 1).await;
            (row, number) = (self.row().await, number + 1);
        }
        self.consume(other, "much", row.available() + row.leased / 2).await;
        self.consume(0, "too much", LIMITS[0]).await;
    }

    /// Every server tells of every request what was told before.
    async fn is_told_the_same_again(&self) {
        let asked: Vec<(Item, Outcome)> = locked(&self.answers).values().cloned().collect();
        for slot in 0..self.servers.len() {
            for (item, before) in &asked {
                let again = self.asked(slot, item.clone()).await;
                let is_lost =
                    self.trap.act == Act::Kill && is_promise(before) || item.key.key.starts_with("promised before");
                if !is_lost {
                    assert_eq!(charged(&again), charged(before), "{}: {before:?}, then {again:?}", item.key.key);
                    // A promise is made before anybody knows that it is one again.
                    let is_known = matches!(&again, Outcome::Admitted(told) if told.is_repetition || told.promised);
                    assert!(is_known || matches!(again, Outcome::Refused(_)), "{}: {again:?}", item.key.key);
                }
            }
        }
    }

    /// All servers have stopped: how the rows stand, seen by one that comes after them.
    async fn ends_well(&self) -> AccountRow {
        self.start(0).await;
        let row = self.row().await;
        assert_eq!(row.leased, 0, "{row:?}");
        self.books_agree().await;
        for (item, told) in locked(&self.answers).values() {
            let Outcome::Refused(_) = told else { continue };
            // At that time both reservations may have been open.
            let asked: i64 = item.charges.iter().map(|charge| charge.amount).sum();
            assert!(row.reachable() - 5 < asked, "{} was refused while there was room: {row:?}", item.key.key);
        }
        if row.reachable() > 0 {
            let rest = self.consume(0, "the rest", row.reachable()).await;
            assert!(matches!(rest, Outcome::Admitted(_)), "{row:?} {rest:?}");
        }
        let beyond = self.consume(0, "one more", 1).await;
        assert!(matches!(beyond, Outcome::Refused(_)), "{row:?} {beyond:?}");
        self.books_agree().await;
        let row = self.row().await;
        assert_eq!((row.used() + row.forfeited, row.reserved), (LIMITS[1], 0), "{row:?}");
        self.stop(0).await;
        row
    }

    async fn books_agree(&self) {
        let tenant = self.account.tenant;
        let looked = self.look(move |rows| async move { rows.sums(tenant).await.ok() }).await;
        assert!(looked.wrong_accounts.is_empty() && looked.wrong_rollups.is_empty(), "{looked:?}");
    }

    // ---- what is asked -------------------------------------------------------------------------------------------

    async fn consume(&self, slot: usize, key: &str, amount: i64) -> Outcome {
        self.told(slot, key, Action::Consume { best_effort: false }, Some((amount, false))).await
    }

    /// Consumes one, and takes a promise for an answer.
    async fn promise(&self, slot: usize, key: &str) -> Outcome {
        self.told(slot, key, Action::Consume { best_effort: false }, Some((1, true))).await
    }

    async fn reserve(&self, slot: usize, key: &str, amount: i64, span: TimeDelta) -> NamedHold {
        let (id, opened_by, kind) = (Uuid::new_v4(), Uuid::nil(), HoldKind::Reservation);
        let expires_at = SystemClock.now().after(span);
        let hold = NewHold { hold: id, kind, holder: "job".into(), opened_by, expires_at };
        self.told(slot, key, Action::Reserve(hold), Some((amount, false))).await;
        NamedHold { id, kind, opened_by: None }
    }

    async fn told(&self, slot: usize, key: &str, action: Action, charge: Option<(i64, bool)>) -> Outcome {
        let now = SystemClock.now();
        let charges = charge.map(|(amount, _)| Charge {
            metric: METRIC.into(),
            account: self.account,
            amount,
            refunded: 0,
            standing: Standing::default(),
        });
        let item = Item {
            key: EventKey { tenant: self.account.tenant, key: key.into() },
            is_keyed: true,
            payload_hash: [7; 32],
            action,
            charges: charges.into_iter().collect(),
            leased: charge.is_some_and(|(_, leased)| leased),
            at: now,
            event_at: now,
            details: Arc::new(Details::default()),
            deadline: 0,
        };
        let told = self.asked(slot, item.clone()).await;
        let is_decided = matches!(told, Outcome::Admitted(_) | Outcome::Refused(_));
        assert!(is_decided, "{key}: {told:?}");
        locked(&self.answers).insert(key.to_owned(), (item, told.clone()));
        told
    }

    /// Asks a server, and the next one if it does not answer or does not know, until one does.
    async fn asked(&self, slot: usize, item: Item) -> Outcome {
        let until = Instant::now() + PATIENCE;
        for attempt in slot.. {
            match self.server(attempt).await.ask(item.clone()).await {
                None | Some(Outcome::Contended | Outcome::Away(_) | Outcome::Overloaded) => {
                    assert!(Instant::now() < until, "{} is not answered", item.key.key);
                }
                Some(outcome) => return outcome,
            }
        }
        unreachable!("there is always another attempt")
    }

    /// A server that serves; the one in the slot of this number, or the next.
    async fn server(&self, number: usize) -> Arc<Server> {
        let mut found = None;
        until("a server serves", async || {
            let slots = (0..self.servers.len()).map(|other| (number + other) % self.servers.len());
            found = slots.into_iter().find_map(|slot| locked(&self.servers[slot]).clone());
            found.is_some()
        })
        .await;
        found.expect("it was found")
    }

    /// Looks at the rows, by whichever server can.
    async fn look<T: Send + 'static, F>(&self, look: impl Fn(QuotaRows) -> F) -> T
    where
        F: Future<Output = Option<T>> + Send + 'static,
    {
        for attempt in 0..100 {
            if let Some(seen) = self.server(attempt).await.look(&look).await {
                return seen;
            }
        }
        panic!("the rows can be looked at")
    }

    async fn row(&self) -> AccountRow {
        let tenant = self.account.tenant;
        self.look(move |rows| async move {
            let mut tx = rows.0.read(InTenant(tenant)).await.ok()?;
            Some(accounts::find_last(&mut tx, METRIC, Owner::TENANT).await.ok()??.row)
        })
        .await
    }
}

/// Waits for something, looking again and again.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_promise(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Admitted(told) if told.promised)
}

/// What was charged; none for a refusal.
fn charged(outcome: &Outcome) -> Option<Vec<i64>> {
    let Outcome::Admitted(told) = outcome else { return None };
    Some(told.charges.iter().map(|charge| charge.amount).collect())
}
