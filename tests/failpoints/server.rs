//! Servers: the engine on the product's rows, each on a thread of its own, which is to it what a process is.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tenantry::app::usage::accounts::{hear, recall_fenced};
use tenantry::decide::quota::timer::SystemTimer;
use tenantry::decide::quota::{Engine, Item, Outcome, Settings, Timer as _};
use tenantry::domain::id::TenantId;
use tenantry::store::quota::accounts::{self, LimitWish, Owner};
use tenantry::store::quota::{QuotaRows, Rows as _};
use tenantry::store::{InTenant, OpenError, Store};
use tenantry::time::{Clock as _, SystemClock};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};

use crate::cluster::Database;
use crate::points::Point;
use crate::rows::TrapRows;
use crate::trap::Trap;
use crate::wire::Wire;

/// Spans as in production, ten times shorter.
const SETTINGS: Settings = Settings {
    lanes: 1,
    batch: 500,
    queue: 1_000,
    // Every account is worth a lease.
    hot_rate: 0,
    beat: 50_000,
    ttl: 300_000,
    promise_window: 100_000,
    // Leases stay out until somebody wants them.
    idle_return: 60_000_000,
    look: 25_000,
    recall_rest: 10_000,
    forget: 60_000_000,
};

/// How long a client waits for a server.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a directory may be locked by a server that was ended.
const TO_BE_FREE: Duration = Duration::from_secs(10);

/// Where the rows are.
#[derive(Clone)]
pub(crate) enum Place {
    Postgres(Database),
    Sqlite(PathBuf),
}

/// What lives as long as the thread.
struct Inner {
    engine: Arc<Engine<TrapRows, SystemTimer>>,
    timer: SystemTimer,
    rows: TrapRows,
}

/// A server that serves.
pub(crate) struct Server {
    inner: Arc<Inner>,
    runtime: Handle,
    ends: Arc<Notify>,
}

impl Place {
    async fn open(&self, wire: Option<&Wire>) -> Store {
        match self {
            Self::Postgres(database) => {
                let port = wire.expect("PostgreSQL is reached by a wire").port;
                let through = |url: &str| with_port(url, port);
                let (app, system, meter) = (&database.app_url, &database.system_url, &database.meter_url);
                let opened = Store::open_postgres(&through(app), &through(system), &through(meter), 2).await;
                opened.expect("opens")
            }
            Self::Sqlite(directory) => {
                // The connections of the one before end a moment after it.
                let opened = async {
                    loop {
                        match Store::open_sqlite(directory).await {
                            Err(OpenError::Locked(_)) => tokio::task::yield_now().await,
                            opened => break opened.expect("opens"),
                        }
                    }
                };
                tokio::time::timeout(TO_BE_FREE, opened).await.expect("the directory is left by the one before")
            }
        }
    }
}

/// An address with another port.
fn with_port(url: &str, port: u16) -> String {
    let at = url.rfind('@').expect("a host") + 1;
    let end = at + url[at..].find('/').expect("a database");
    format!("{}127.0.0.1:{port}{}", &url[..at], &url[end..])
}

impl Server {
    /// Starts one; returns when it serves.
    pub(crate) async fn start(place: &Place, slot: usize, wire: Option<Arc<Wire>>, trap: &Arc<Trap>) -> Arc<Self> {
        let (tell, told) = oneshot::channel();
        let (place, trap, ends) = (place.clone(), trap.clone(), Arc::new(Notify::new()));
        let until = ends.clone();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let store = Arc::new(place.open(wire.as_deref()).await);
                let rows = TrapRows { rows: QuotaRows(store), slot, wire, trap, writers: Arc::default() };
                let timer = SystemTimer::new(Arc::new(SystemClock));
                let inner = Arc::new(Inner::start(rows, timer).await);
                let _ = tell.send((inner, Handle::current()));
                until.notified().await;
            });
        });
        let (inner, runtime) = told.await.expect("it serves");
        Arc::new(Self { inner, runtime, ends })
    }

    /// Asks; none when no answer came back.
    pub(crate) async fn ask(&self, mut item: Item) -> Option<Outcome> {
        let inner = self.inner.clone();
        let answer = self.runtime.spawn(async move {
            item.deadline = inner.timer.now() + 700_000;
            let deadline = item.deadline;
            let mut answer = inner.engine.begin(item);
            if inner.rows.pass(Point::ArriveHeld).await {
                return None;
            }
            let outcome = tokio::select! {
                told = &mut answer => told.ok()?,
                () = inner.timer.sleep_until(deadline + 250_000) => return None,
            };
            let is_promise = matches!(&outcome, Outcome::Admitted(told) if told.promised);
            let cut = inner.rows.pass(if is_promise { Point::PromiseAnswered } else { Point::AckHalf }).await;
            (!cut).then_some(outcome)
        });
        // A server that stands still answers later, when nobody waits any more.
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?
    }

    /// Gives a tenant's metric another limit, as an operator does at this server; whether it is known to have happened.
    pub(crate) async fn limit(&self, tenant: TenantId, metric: &'static str, limit: i64) -> bool {
        let inner = self.inner.clone();
        let done = self.runtime.spawn(async move {
            let store = &inner.rows.rows.0;
            let mut tx = store.write(InTenant(tenant)).await.ok()?;
            let account = accounts::find_last(&mut tx, metric, Owner::TENANT).await.ok()??;
            let wish = LimitWish {
                admits: Some(limit),
                shown: Some(limit),
                until: None,
                by_override: true,
                thresholds: Vec::new(),
            };
            accounts::set_limits(&mut tx, vec![(account, wish)]).await.ok()?;
            inner.rows.pass(Point::LowerRowsLocked).await;
            tx.commit_unaudited(SystemClock.now()).await.ok()
        });
        matches!(tokio::time::timeout(PATIENCE, done).await, Ok(Ok(Some(()))))
    }

    /// Looks at the product's rows; none when the server does not get to it.
    pub(crate) async fn look<T, F>(&self, look: impl FnOnce(QuotaRows) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = Option<T>> + Send + 'static,
    {
        let seen = self.runtime.spawn(look(self.inner.rows.rows.clone()));
        tokio::time::timeout(PATIENCE, seen).await.ok()?.ok()?
    }

    /// Whether none of its lanes is entered any more, as another server sees it.
    pub(crate) async fn is_buried(&self, by: &Self) -> bool {
        let writers = by.look(async |rows| rows.writers().await.ok()).await;
        let own = self.inner.rows.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.is_some_and(|rows| !rows.iter().any(|row| own.contains(&row.writer)))
    }

    /// Stops it as operators do.
    pub(crate) async fn stop(&self) {
        let inner = self.inner.clone();
        self.runtime.spawn(async move { inner.engine.stop().await }).await.expect("it stops");
        self.end();
    }

    /// Ends it, with everything that is under way.
    pub(crate) fn end(&self) {
        self.ends.notify_one();
    }
}

impl Inner {
    /// Sets an engine going, as the product does.
    async fn start(rows: TrapRows, timer: SystemTimer) -> Self {
        let engine = Engine::new(rows.clone(), timer.clone(), SETTINGS);
        engine.open().await.expect("enters");
        for lane in 0..SETTINGS.lanes {
            let engine = engine.clone();
            tokio::spawn(async move { engine.run_lane(lane).await });
        }
        let (waiting, keeper, hearing) = (engine.clone(), engine.clone(), engine.clone());
        tokio::spawn(async move { waiting.run_waiting().await });
        tokio::spawn(async move { keeper.run_keeper().await });
        let (fencing, own) = (engine.clone(), rows.rows.clone());
        tokio::spawn(async move { recall_fenced(&own, &fencing).await });
        let of_others = rows.rows.clone();
        tokio::spawn(async move { hear(&of_others, &hearing).await });
        Self { engine, timer, rows }
    }
}
