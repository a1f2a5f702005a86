//! Every point at which something may go wrong, each once on a real database: the server that comes by it first is killed,
//! stands still until all that it held has been taken from it, or loses its connections. Clients repeat what they got no
//! answer to at another server. Afterwards the books agree, every answer is what is stored, the limit holds, nothing is
//! leased, and what is left can be had to the last unit.
//!
//! The simulation (`tests/simulation`) goes by the same points in all orders; here it is PostgreSQL that locks, waits and
//! forgets. On SQLite there is one server: it is killed, and another one begins where it ended.
#![expect(clippy::disallowed_methods, reason = "tests fill databases with SQL of their own")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../simulation/points.rs"]
mod points;
mod rows;
mod server;
mod story;
mod trap;
mod wire;

use futures::StreamExt as _;
use futures::stream;

use points::{POINTS, Point};
use story::{Story, World};
use trap::Act;

/// Stories that are told at once.
const AT_ONCE: usize = 4;

async fn tell(world: World, cases: Vec<(Point, Act)>) {
    let world = &world;
    let told = stream::iter(cases).map(|(point, act)| async move {
        println!("{point:?} {act:?}: {}", Story::tell(world, point, act).await);
    });
    told.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Each point with each of these; or, while one is looked for, `TENANTRY_POINT` alone.
fn cases(acts: &[Act]) -> Vec<(Point, Act)> {
    let only = std::env::var("TENANTRY_POINT").ok();
    let all = POINTS.iter().flat_map(|point| acts.iter().map(|act| (*point, *act)));
    all.filter(|(point, act)| only.as_ref().is_none_or(|only| *only == format!("{point:?} {act:?}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_at_any_point_of_postgres() {
    tell(World::postgres(), cases(&[Act::Kill, Act::Stop, Act::Cut])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_at_any_point_of_sqlite() {
    tell(World::Sqlite, cases(&[Act::Kill])).await;
}
