//! Limits and features: what holds, where it comes from, and who changes it.

use chrono::TimeDelta;
use prost_types::Timestamp;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_feature_request::Value as Switch;
use tenantry::rpc::v1::set_limit_override_request::Value as Much;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::harness::{Bed, Engine, Tenant, amounts, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    an_override_holds_from_its_answer_on
    an_override_ends_by_the_clock_alone
    seats_have_a_limit_as_well
    limits_say_where_they_come_from
    limits_are_for_operators_and_their_fields_are_bounded
    features_come_from_plan_override_and_own_switch
    a_plan_that_no_longer_has_a_feature_ends_it
    features_are_switched_by_those_who_may
}

const PRODUCT: &str = r#"
default_plan = "free"
[metrics.quizzes]
unit = "quizzes"
[metrics.tokens]
unit = "tokens"
[metrics.storage]
kind = "gauge"
unit = "bytes"
[metrics.days]
unit = "things"
period = "day"
[features]
themes = "Themes of one's own"
exports = "Exports"
sso = "Single sign-on"
[plans.free]
seats = 2
features = ["themes"]
limits = { quizzes = { limit = 10, soft_percent = 50 }, storage = 1000, days = 5 }
[plans.pro]
features = ["themes", "exports"]
limits = { quizzes = 100 }
"#;

async fn product(t: &Bed) -> (Bed, Tenant) {
    let t = Bed::of_product(t.engine, PRODUCT).await;
    let acme = t.tenant("acme").await;
    (t, acme)
}

fn set(tenant: &Tenant, metric: &str, value: Much) -> v1::SetLimitOverrideRequest {
    v1::SetLimitOverrideRequest {
        tenant: tenant.id.clone(),
        request_id: request_id(),
        metric: metric.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

async fn override_limit(t: &Bed, request: v1::SetLimitOverrideRequest) -> v1::Limit {
    t.operator().tenants.set_limit_override(request).await.unwrap().into_inner().limit.unwrap()
}

async fn limits(t: &Bed, tenant: &Tenant) -> Vec<v1::Limit> {
    let request = v1::ListLimitsRequest { tenant: tenant.id.clone() };
    t.operator().tenants.list_limits(request).await.unwrap().into_inner().limits
}

async fn limit(t: &Bed, tenant: &Tenant, metric: &str) -> v1::Limit {
    limits(t, tenant).await.into_iter().find(|limit| limit.metric == metric).unwrap()
}

/// Whether so much can be consumed.
async fn consumes(t: &Bed, tenant: &Tenant, metric: &str, amount: i64) -> bool {
    let request =
        v1::ConsumeRequest { tenant: tenant.id.clone(), amounts: amounts(&[(metric, amount)]), ..Default::default() };
    t.operator().usage.consume(request).await.is_ok()
}

#[expect(clippy::unnecessary_wraps, reason = "what a field of the contract takes")]
fn ahead(t: &Bed, by: TimeDelta) -> Option<Timestamp> {
    Some(Timestamp { seconds: t.clock.now().after(by).seconds(), nanos: 0 })
}

async fn an_override_holds_from_its_answer_on(t: &Bed) {
    let (t, acme) = product(t).await;
    assert!(!consumes(&t, &acme, "quizzes", 16).await && consumes(&t, &acme, "quizzes", 15).await);
    let set_to = override_limit(&t, set(&acme, "quizzes", Much::Limit(40))).await;
    assert_eq!((set_to.limit, set_to.used, set_to.remaining), (Some(40), Some(15), Some(25)));
    assert_eq!(
        (set_to.source(), set_to.plan_limit, set_to.soft_percent),
        (v1::EntitlementSource::Override, Some(10), 50)
    );
    assert!(consumes(&t, &acme, "quizzes", 45).await && !consumes(&t, &acme, "quizzes", 1).await);
    if t.engine == Engine::Postgres {
        let second = t.sibling(&[]).await;
        override_limit(&t, set(&acme, "quizzes", Much::Limit(50))).await;
        assert!(consumes(&second, &acme, "quizzes", 15).await && !consumes(&second, &acme, "quizzes", 1).await);
        second.stop().await;
    }
    let unlimited = override_limit(&t, set(&acme, "quizzes", Much::Unlimited(true))).await;
    assert_eq!((unlimited.limit, unlimited.remaining), (None, None));
    assert!(consumes(&t, &acme, "quizzes", 1_000_000).await);
    override_limit(&t, set(&acme, "quizzes", Much::Limit(0))).await;
    assert!(!consumes(&t, &acme, "quizzes", 1).await);
    let back = override_limit(&t, set(&acme, "quizzes", Much::Remove(true))).await;
    assert_eq!((back.limit, back.remaining, back.source()), (Some(10), Some(0), v1::EntitlementSource::Plan));
    // Repeated with its id it is answered and not done again.
    let once = set(&acme, "tokens", Much::Limit(7));
    override_limit(&t, once.clone()).await;
    override_limit(&t, set(&acme, "tokens", Much::Limit(9))).await;
    assert_eq!(override_limit(&t, once).await.limit, Some(7));
    assert_eq!(limit(&t, &acme, "tokens").await.limit, Some(9));
    let rows = t.audit(&acme.id).await;
    let set: Vec<_> = rows.iter().filter(|row| row.action == "TenantService/SetLimitOverride").collect();
    assert!(set.len() >= 6 && set[0].changes.contains(r#""limit":{"after":40,"before":10}"#), "{set:?}");
}

async fn an_override_ends_by_the_clock_alone(t: &Bed) {
    let (t, acme) = product(t).await;
    assert!(consumes(&t, &acme, "quizzes", 1).await, "its account is open before the override comes");
    let request = v1::SetLimitOverrideRequest {
        expire_time: ahead(&t, TimeDelta::minutes(3)),
        reason: "a trial of more".to_owned(),
        ..set(&acme, "quizzes", Much::Limit(100))
    };
    let held = override_limit(&t, request.clone()).await;
    assert_eq!(held.expire_time, request.expire_time);
    assert!(consumes(&t, &acme, "quizzes", 20).await);
    t.clock.advance(TimeDelta::minutes(4));
    assert!(!consumes(&t, &acme, "quizzes", 1).await);
    let over = limit(&t, &acme, "quizzes").await;
    assert_eq!((over.limit, over.source(), over.expire_time), (Some(10), v1::EntitlementSource::Plan, None));
    let late = v1::SetLimitOverrideRequest { request_id: request_id(), ..request };
    assert_eq!(wrong_fields(t.operator().tenants.set_limit_override(late).await), ["expire_time"]);
}

async fn seats_have_a_limit_as_well(t: &Bed) {
    let (t, acme) = product(t).await;
    let seats = limit(&t, &acme, "members").await;
    assert_eq!(
        (seats.kind(), seats.limit, seats.used, seats.remaining),
        (v1::MetricKind::Gauge, Some(2), Some(1), Some(1))
    );
    t.member(&acme, "member").await;
    let third = t.person("third").await;
    let add = |email: &str| v1::AddMemberRequest {
        tenant: acme.id.clone(),
        email: email.to_owned(),
        roles: vec!["member".to_owned()],
        ..Default::default()
    };
    let full = t.operator().members.add_member(add(&third.email)).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    override_limit(&t, set(&acme, "members", Much::Limit(3))).await;
    t.operator().members.add_member(add(&third.email)).await.expect("there is a seat");
    let fourth = t.person("fourth").await;
    let full = t.operator().members.add_member(add(&fourth.email)).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    override_limit(&t, set(&acme, "members", Much::Unlimited(true))).await;
    t.operator().members.add_member(add(&fourth.email)).await.expect("there is no limit");
}

async fn limits_say_where_they_come_from(t: &Bed) {
    let (t, acme) = product(t).await;
    assert!(consumes(&t, &acme, "quizzes", 4).await);
    let member = t.member(&acme, "viewer").await;
    let request = v1::ListLimitsRequest::default();
    let limits = t.with_token(&member.token).tenants.list_limits(request).await.unwrap().into_inner().limits;
    let names: Vec<&str> = limits.iter().map(|limit| limit.metric.as_str()).collect();
    assert_eq!(names, ["days", "members", "quizzes", "storage", "tokens"]);
    assert!(limits.iter().all(|limit| limit.source() == v1::EntitlementSource::Plan));
    let quizzes = &limits[2];
    assert_eq!((quizzes.limit, quizzes.used, quizzes.remaining), (Some(10), Some(4), Some(6)));
    assert!(quizzes.reset_time.is_some());
    // What is held rather than counted never begins anew.
    for (index, limit, resets) in [(0, 5, true), (3, 1000, false)] {
        let shown = &limits[index];
        assert_eq!((shown.limit, shown.used, shown.remaining), (Some(limit), Some(0), Some(limit)));
        assert_eq!(shown.reset_time.is_some(), resets);
    }
    assert_eq!(limits[3].kind(), v1::MetricKind::Gauge);
    assert_eq!((limits[4].limit, limits[4].used, limits[4].remaining), (None, Some(0), None));
}

async fn limits_are_for_operators_and_their_fields_are_bounded(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let by_owner = owner.tenants.set_limit_override(set(&acme, "quizzes", Much::Limit(99))).await;
    assert_refused(by_owner, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let mut service = t.with_key(&t.service_key(&["*"]).await);
    let by_service = service.tenants.set_limit_override(set(&acme, "quizzes", Much::Limit(99))).await;
    assert_refused(by_service, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let mut operator = t.operator();
    let unknown = operator.tenants.set_limit_override(set(&acme, "nothing", Much::Limit(1))).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
    let base = set(&acme, "quizzes", Much::Limit(1));
    for (request, fields) in [
        (set(&acme, "quizzes", Much::Limit(-1)), &["limit"][..]),
        (set(&acme, "quizzes", Much::Limit((1 << 53) + 1)), &["limit"]),
        (set(&acme, "quizzes", Much::Unlimited(false)), &["unlimited"]),
        (set(&acme, "quizzes", Much::Remove(false)), &["remove"]),
        (v1::SetLimitOverrideRequest { value: None, ..base.clone() }, &["limit"]),
        (
            v1::SetLimitOverrideRequest { metric: "No Name".to_owned(), reason: "x".repeat(201), ..base.clone() },
            &["metric", "reason"],
        ),
        (
            v1::SetLimitOverrideRequest { expire_time: ahead(&t, TimeDelta::days(4000)), ..base.clone() },
            &["expire_time"],
        ),
        (v1::SetLimitOverrideRequest { expire_time: ahead(&t, TimeDelta::zero()), ..base.clone() }, &["expire_time"]),
        (
            v1::SetLimitOverrideRequest {
                expire_time: ahead(&t, TimeDelta::days(1)),
                ..set(&acme, "quizzes", Much::Remove(true))
            },
            &["expire_time"],
        ),
    ] {
        assert_eq!(wrong_fields(operator.tenants.set_limit_override(request).await), fields);
    }
}

fn switch(feature: &str, value: Switch) -> v1::SetFeatureRequest {
    v1::SetFeatureRequest { feature: feature.to_owned(), value: Some(value), ..Default::default() }
}

fn by_override(tenant: &Tenant, feature: &str, value: Switch) -> v1::SetFeatureRequest {
    v1::SetFeatureRequest { tenant: tenant.id.clone(), r#override: true, ..switch(feature, value) }
}

/// Every feature: whether it is on, what says so, and whether the plan has it.
async fn features(t: &Bed, tenant: &Tenant) -> Vec<(String, bool, v1::EntitlementSource, bool)> {
    let request = v1::ListFeaturesRequest { tenant: tenant.id.clone() };
    let listed = t.operator().tenants.list_features(request).await.unwrap().into_inner().features;
    listed.into_iter().map(|f| (f.feature.clone(), f.enabled, f.source(), f.in_plan)).collect()
}

async fn features_come_from_plan_override_and_own_switch(t: &Bed) {
    use v1::EntitlementSource::{Override, Plan, Tenant};
    let (t, acme) = product(t).await;
    let (mut owner, mut operator) = (t.with_token(&acme.owner.token).tenants, t.operator().tenants);
    let is = |list: [(bool, v1::EntitlementSource, bool); 3]| {
        let named = ["exports", "sso", "themes"].into_iter().zip(list);
        named.map(|(name, (on, by, plan))| (name.to_owned(), on, by, plan)).collect::<Vec<_>>()
    };
    assert_eq!(features(&t, &acme).await, is([(false, Plan, false), (false, Plan, false), (true, Plan, true)]));
    let off = owner.set_feature(switch("themes", Switch::Enabled(false))).await.unwrap().into_inner().feature.unwrap();
    assert_eq!((off.enabled, off.source(), off.description.as_str()), (false, Tenant, "Themes of one's own"));
    let expires = ahead(&t, TimeDelta::minutes(2));
    let sso = v1::SetFeatureRequest { expire_time: expires, ..by_override(&acme, "sso", Switch::Enabled(true)) };
    let on = operator.set_feature(sso).await.unwrap().into_inner().feature.unwrap();
    assert_eq!((on.enabled, on.source(), on.expire_time), (true, Override, expires));
    operator.set_feature(by_override(&acme, "themes", Switch::Enabled(true))).await.unwrap();
    assert_eq!(features(&t, &acme).await, is([(false, Plan, false), (true, Override, false), (true, Override, true)]));
    // The tenant's own switch is still there when the override goes.
    operator.set_feature(by_override(&acme, "themes", Switch::Remove(true))).await.unwrap();
    t.clock.advance(TimeDelta::minutes(3));
    assert_eq!(features(&t, &acme).await, is([(false, Plan, false), (false, Plan, false), (false, Tenant, true)]));
    owner.set_feature(switch("themes", Switch::Remove(true))).await.unwrap();
    assert_eq!(features(&t, &acme).await[2], ("themes".to_owned(), true, Plan, true));
    let actions = t.audit(&acme.id).await.into_iter().filter(|row| row.action == "TenantService/SetFeature").count();
    assert_eq!(actions, 5);
}

async fn a_plan_that_no_longer_has_a_feature_ends_it(t: &Bed) {
    use v1::EntitlementSource::{Plan, Tenant};
    let (t, acme) = product(t).await;
    let change = |plan: &str| v1::ChangePlanRequest {
        tenant: acme.id.clone(),
        plan: plan.to_owned(),
        when: v1::EffectiveWhen::Now.into(),
        allow_exceeding: true,
        ..Default::default()
    };
    t.operator().tenants.change_plan(change("pro")).await.unwrap();
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.set_feature(switch("exports", Switch::Enabled(true))).await.unwrap();
    assert_eq!(features(&t, &acme).await[0], ("exports".to_owned(), true, Tenant, true));
    t.operator().tenants.change_plan(change("free")).await.unwrap();
    assert_eq!(features(&t, &acme).await[0], ("exports".to_owned(), false, Plan, false));
    let again = owner.set_feature(switch("exports", Switch::Enabled(true))).await;
    assert_refused(again, Code::FailedPrecondition, "FEATURE_NOT_IN_PLAN");
    t.operator().tenants.change_plan(change("pro")).await.unwrap();
    assert_eq!(features(&t, &acme).await[0], ("exports".to_owned(), true, Tenant, true));
}

async fn features_are_switched_by_those_who_may(t: &Bed) {
    let (t, acme) = product(t).await;
    let member = t.member(&acme, "member").await;
    let refused = t.with_token(&member.token).tenants.set_feature(switch("themes", Switch::Enabled(false))).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let unknown = owner.set_feature(switch("nothing", Switch::Enabled(true))).await;
    assert_refused(unknown, Code::InvalidArgument, "FEATURE_UNKNOWN");
    let beyond = owner.set_feature(switch("sso", Switch::Enabled(true))).await;
    assert_refused(beyond, Code::FailedPrecondition, "FEATURE_NOT_IN_PLAN");
    let mut service = t.with_key(&t.service_key(&["*"]).await).tenants;
    for (clients, tenant) in [(&mut owner, ""), (&mut service, acme.id.as_str())] {
        let base = v1::SetFeatureRequest { tenant: tenant.to_owned(), ..switch("themes", Switch::Enabled(true)) };
        let forced = v1::SetFeatureRequest { r#override: true, ..base.clone() };
        assert_eq!(wrong_fields(clients.set_feature(forced).await), ["override"]);
        let timed = v1::SetFeatureRequest { expire_time: ahead(&t, TimeDelta::days(1)), ..base.clone() };
        assert_eq!(wrong_fields(clients.set_feature(timed).await), ["expire_time"]);
        let neither = v1::SetFeatureRequest { value: None, ..base.clone() };
        assert_eq!(wrong_fields(clients.set_feature(neither).await), ["enabled"]);
        let named = v1::SetFeatureRequest { feature: "No Name".to_owned(), ..base };
        assert_eq!(wrong_fields(clients.set_feature(named).await), ["feature"]);
    }
    let late = v1::SetFeatureRequest {
        expire_time: ahead(&t, TimeDelta::zero()),
        ..by_override(&acme, "sso", Switch::Enabled(true))
    };
    assert_eq!(wrong_fields(t.operator().tenants.set_feature(late).await), ["expire_time"]);
}
