//! Limits that are lowered while units are leased: with the answer every lease is back, and whatever comes after it is
//! decided by the new limit alone. And leases that somebody wanted back who is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use futures::future::join_all;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_limit_override_request::Value as Much;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Clients, Engine, Tenant, amounts, on_both_engines, until};

on_both_engines! {
    a_lower_limit_takes_back_every_lease
    what_was_not_promised_is_there_for_others_and_no_more
    whoever_goes_on_meanwhile_gets_nothing_above_it
    a_plan_lowers_two_metrics_of_which_everybody_takes_both
    a_waiter_who_is_gone_keeps_nobody_from_leasing
}

const PRODUCT: &str = r#"
default_plan = "large"
[metrics.calls]
unit = "calls"
[metrics.tokens]
unit = "tokens"
[plans.large.limits]
calls = 1000000
tokens = 1000000
[plans.small.limits]
calls = 2
tokens = 3
"#;

/// A server of the product with a tenant and a service's key; on PostgreSQL a second server beside it.
pub(crate) struct Scene {
    pub(crate) servers: Vec<Bed>,
    pub(crate) acme: Tenant,
    key: String,
}

impl Scene {
    pub(crate) async fn new(engine: Engine) -> Self {
        let first = Bed::of_product(engine, PRODUCT).await;
        let (acme, key) = (first.tenant("acme").await, first.service_key(&["usage.*"]).await);
        let mut servers = vec![first];
        if engine == Engine::Postgres {
            servers.push(servers[0].sibling(&[]).await);
        }
        Self { servers, acme, key }
    }

    pub(crate) fn first(&self) -> &Bed {
        &self.servers[0]
    }

    /// A service at each server.
    pub(crate) fn services(&self) -> Vec<Clients> {
        self.servers.iter().map(|server| server.with_key(&self.key)).collect()
    }

    pub(crate) fn ask(&self, list: &[(&str, i64)]) -> v1::ConsumeRequest {
        v1::ConsumeRequest { tenant: self.acme.id.clone(), amounts: amounts(list), ..Default::default() }
    }

    /// Asks so quickly, of every server, that all of them have leases. They have them for two seconds more.
    pub(crate) async fn heat(&self, metric: &str) {
        until("every server has a lease", async || {
            let calls = self.services().into_iter().flat_map(|service| vec![service; 40]).map(|mut service| {
                let request = self.ask(&[(metric, 1)]);
                async move { service.usage.consume(request).await.expect("there is room") }
            });
            join_all(calls).await;
            self.standing(metric).await.holders == i64::try_from(self.servers.len()).expect("a few")
        })
        .await;
    }

    /// Where a metric's account stands, in one look.
    pub(crate) async fn standing(&self, metric: &str) -> Standing {
        let all: Vec<Standing> = self.first().rows(STANDING, &self.acme.id).await;
        all.into_iter().find(|standing| standing.metric == metric).expect("an account")
    }

    pub(crate) async fn limit(&self, metric: &str, value: Much) {
        self.first().set_limit(&self.acme, metric, value).await;
    }

    pub(crate) async fn change_plan(&self, plan: &str) {
        let request = v1::ChangePlanRequest {
            tenant: self.acme.id.clone(),
            plan: plan.to_owned(),
            when: v1::EffectiveWhen::Now.into(),
            allow_exceeding: true,
            ..Default::default()
        };
        self.first().operator().tenants.change_plan(request).await.expect("another plan");
    }

    /// How many of these calls, all at once, were admitted; the others were told that there is no room.
    async fn admitted(&self, metric: &str, at_each: usize) -> usize {
        let calls = self.services().into_iter().flat_map(|service| vec![service; at_each]).map(|mut service| {
            let request = self.ask(&[(metric, 1)]);
            async move { admits(service.usage.consume(request).await) }
        });
        join_all(calls).await.into_iter().filter(|admitted| *admitted).count()
    }

    /// Stops the servers, the first one last: its books are proven.
    pub(crate) async fn stop(mut self) {
        while let Some(server) = self.servers.pop() {
            server.stop().await;
        }
    }
}

/// Whether a call was admitted. If not, the quota was used up, and nothing else was the matter.
pub(crate) fn admits(answer: Result<tonic::Response<v1::ConsumeResponse>, tonic::Status>) -> bool {
    let Err(told) = answer else { return true };
    let reason = told.get_details_error_info().map(|info| info.reason);
    assert_eq!((told.code(), reason.as_deref()), (Code::ResourceExhausted, Some("QUOTA_EXCEEDED")), "{told:?}");
    false
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Standing {
    metric: String,
    /// What is used, folded or not.
    pub(crate) used: i64,
    pub(crate) leased: i64,
    /// Leases that are open.
    pub(crate) open: i64,
    /// Servers that have some of those.
    pub(crate) holders: i64,
    pub(crate) limit_value: i64,
}

const STANDING: &str = "
    select a.metric, a.leased, a.limit_value,
      cast(a.committed + coalesce((select sum(l.settled) from quota_lease l
                                   where l.tenant_id = a.tenant_id and l.account_id = a.account_id), 0) as bigint) as used,
      (select count(*) from quota_lease l
       where l.tenant_id = a.tenant_id and l.account_id = a.account_id and (l.epoch <> 0 or l.granted > 0)) as open,
      (select count(distinct w.process_id) from quota_lease l join quota_writer w on w.writer_id = l.writer_id
       where l.tenant_id = a.tenant_id and l.account_id = a.account_id and l.granted > 0) as holders
    from quota_account a
    where a.tenant_id = $1";

async fn a_lower_limit_takes_back_every_lease(t: &Bed) {
    let scene = Scene::new(t.engine).await;
    scene.heat("calls").await;
    let before = scene.standing("calls").await;
    // One more than is used, and less than is used and leased.
    assert!(before.leased > 1, "{before:?}");
    scene.limit("calls", Much::Limit(before.used + 1)).await;
    let after = scene.standing("calls").await;
    assert_eq!((after.used, after.leased, after.open), (before.used, 0, 0), "{after:?}");
    assert_eq!(scene.admitted("calls", 20).await, 1);
    assert_eq!(scene.standing("calls").await.used, before.used + 1);
    // By a plan, the same.
    scene.limit("calls", Much::Remove(true)).await;
    scene.heat("calls").await;
    let before = scene.standing("calls").await;
    scene.change_plan("small").await;
    let after = scene.standing("calls").await;
    assert_eq!((after.used, after.leased, after.open), (before.used, 0, 0), "{after:?}");
    assert_eq!(scene.admitted("calls", 20).await, 0);
    assert_eq!(scene.standing("calls").await.used, before.used);
    scene.stop().await;
}

async fn what_was_not_promised_is_there_for_others_and_no_more(t: &Bed) {
    let scene = Scene::new(t.engine).await;
    let promised = AtomicI64::new(0);
    until("units are leased for promises, and what was promised is written", async || {
        for mut service in scene.services() {
            let level = v1::AckLevel::Leased.into();
            let request = v1::ConsumeRequest { ack_level: level, ..scene.ask(&[("calls", 1)]) };
            service.usage.consume(request).await.expect("there is room");
            promised.fetch_add(1, Ordering::SeqCst);
        }
        let standing = scene.standing("calls").await;
        standing.leased > 2 && standing.used == promised.load(Ordering::SeqCst)
    })
    .await;
    let promised = promised.into_inner();
    scene.limit("calls", Much::Limit(promised + 1)).await;
    let after = scene.standing("calls").await;
    assert_eq!((after.used, after.leased, after.open), (promised, 0, 0), "{after:?}");
    // What could have been promised is forfeited until the servers that had it have told how much was.
    let admitted = AtomicUsize::new(0);
    until("the unit that nobody was promised is there", async || {
        let more = scene.admitted("calls", 20).await;
        admitted.fetch_add(more, Ordering::SeqCst) + more > 0
    })
    .await;
    let admitted = admitted.into_inner() + scene.admitted("calls", 20).await;
    assert_eq!((admitted, scene.standing("calls").await.used), (1, promised + 1));
    scene.stop().await;
}

/// Callers who go on until they are told to stop.
struct Callers {
    tasks: JoinSet<()>,
    answered: Arc<AtomicUsize>,
    admitted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Callers {
    /// Sixteen at each server, so that accounts are hot on a slow machine too. Every call takes one of each metric.
    fn start(scene: &Scene, metrics: &[&str]) -> Self {
        let list: Vec<(&str, i64)> = metrics.iter().map(|metric| (*metric, 1)).collect();
        let request = scene.ask(&list);
        let mut all = Self {
            tasks: JoinSet::new(),
            answered: Arc::default(),
            admitted: Arc::default(),
            stopping: Arc::default(),
        };
        for mut service in scene.services().into_iter().flat_map(|service| vec![service; 16]) {
            let (answered, admitted, stopping) = (all.answered.clone(), all.admitted.clone(), all.stopping.clone());
            let request = request.clone();
            all.tasks.spawn(async move {
                while !stopping.load(Ordering::SeqCst) {
                    if admits(service.usage.consume(request.clone()).await) {
                        admitted.fetch_add(1, Ordering::SeqCst);
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        all
    }

    /// Waits until so many more calls were answered.
    async fn go_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        until("calls are answered", async || self.answered.load(Ordering::SeqCst) >= goal).await;
    }

    /// How many calls were admitted.
    async fn stop(self) -> i64 {
        self.stopping.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
        i64::try_from(self.admitted.load(Ordering::SeqCst)).expect("a few")
    }
}

async fn whoever_goes_on_meanwhile_gets_nothing_above_it(t: &Bed) {
    let scene = Scene::new(t.engine).await;
    let callers = Callers::start(&scene, &["calls"]);
    callers.go_on(1).await;
    for _ in 0..5 {
        until("units are leased", async || scene.standing("calls").await.leased > 0).await;
        scene.limit("calls", Much::Limit(1)).await;
        let with_the_answer = scene.standing("calls").await;
        assert_eq!((with_the_answer.leased, with_the_answer.open), (0, 0), "{with_the_answer:?}");
        callers.go_on(200).await;
        let later = scene.standing("calls").await;
        assert_eq!((later.used, later.open), (with_the_answer.used, 0), "{later:?}");
        scene.limit("calls", Much::Remove(true)).await;
    }
    let admitted = callers.stop().await;
    assert_eq!(scene.standing("calls").await.used, admitted);
    scene.stop().await;
}

async fn a_plan_lowers_two_metrics_of_which_everybody_takes_both(t: &Bed) {
    let scene = Scene::new(t.engine).await;
    let callers = Callers::start(&scene, &["calls", "tokens"]);
    callers.go_on(1).await;
    for _ in 0..8 {
        until("units of both are leased", async || {
            scene.standing("calls").await.leased > 0 && scene.standing("tokens").await.leased > 0
        })
        .await;
        scene.change_plan("small").await;
        for metric in ["calls", "tokens"] {
            let after = scene.standing(metric).await;
            assert_eq!((after.leased, after.open), (0, 0), "{after:?}");
        }
        callers.go_on(20).await;
        scene.change_plan("large").await;
    }
    let admitted = callers.stop().await;
    for metric in ["calls", "tokens"] {
        assert_eq!(scene.standing(metric).await.used, admitted, "{metric}");
    }
    let database = scene.first().database.clone();
    scene.stop().await;
    if let Some(database) = database {
        crate::held_up::nobody_was_in_a_deadlock(&database).await;
    }
}

async fn a_waiter_who_is_gone_keeps_nobody_from_leasing(t: &Bed) {
    let scene = Scene::new(t.engine).await;
    let mut service = scene.services().remove(0);
    service.usage.consume(scene.ask(&[("calls", 1)])).await.expect("opens the account");
    // As a server leaves it that dies while one of its callers waits for units.
    let wanted = "update quota_account set recall_need = 5 where tenant_id = $1";
    scene.first().execute_unseen(wanted, &scene.acme.id).await;
    scene.heat("calls").await;
    let wanted = "select recall_need from quota_account where tenant_id = $1";
    assert_eq!(scene.first().rows::<(i64,)>(wanted, &scene.acme.id).await, [(0,)]);
    scene.stop().await;
}
