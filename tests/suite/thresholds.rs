//! Thresholds: set and shown, and told once a period, also when fifty callers race over one.

use futures::future::join_all;
use tenantry::rpc::v1;
use tenantry::rpc::v1::set_limit_override_request::Value as Much;
use tonic::Code;

use crate::harness::{
    Bed, Clients, Engine, Tenant, amounts, assert_refused, on_both_engines, request_id, until, wrong_fields,
};
use crate::metering::{product, service, set_storage};

on_both_engines! {
    thresholds_are_shown_and_set
    wrong_thresholds_are_refused
    ;
    alone
    whoever_reaches_a_threshold_is_told_once
    fifty_callers_reach_a_threshold_once
    other_thresholds_hold_for_the_open_period
    what_was_told_is_not_told_again_for_other_thresholds
    a_new_period_is_told_of_again
    a_gauge_that_is_set_reaches_its_thresholds
    a_higher_limit_can_be_reached_as_well
}

fn ask(tenant: &Tenant, amount: i64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { tenant: tenant.id.clone(), amounts: amounts(&[("quizzes", amount)]), ..Default::default() }
}

fn set(tenant: &Tenant, percents: &[i32]) -> v1::SetThresholdsRequest {
    v1::SetThresholdsRequest {
        tenant: tenant.id.clone(),
        metric: "quizzes".to_owned(),
        percents: percents.to_vec(),
        ..Default::default()
    }
}

async fn shown(clients: &mut Clients) -> v1::Thresholds {
    let all = clients.usage.get_thresholds(v1::GetThresholdsRequest::default()).await.unwrap().into_inner();
    all.thresholds.into_iter().find(|of| of.metric == "quizzes").expect("quizzes")
}

async fn thresholds_are_shown_and_set(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let first = shown(&mut owner).await;
    assert_eq!((first.percents, first.is_default), (vec![80, 100], true));
    let request = v1::SetThresholdsRequest { request_id: request_id(), ..set(&acme, &[1, 50, 1000]) };
    let done = owner.usage.set_thresholds(request.clone()).await.unwrap().into_inner();
    let now = done.thresholds.clone().unwrap();
    assert_eq!((now.percents, now.is_default), (vec![1, 50, 1000], false));
    owner.usage.set_thresholds(set(&acme, &[])).await.unwrap();
    assert_eq!(owner.usage.set_thresholds(request).await.unwrap().into_inner(), done, "the first answer again");
    assert_eq!(shown(&mut owner).await.percents, Vec::<i32>::new());
    let audit = t.audit(&acme.id).await;
    let row = audit.iter().rfind(|row| row.action == "UsageService/SetThresholds").expect("a row");
    assert!(row.changes.contains(r#""before":[1,50,1000]"#), "{}", row.changes);
}

async fn wrong_thresholds_are_refused(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut owner = t.with_token(&acme.owner.token);
    for wrong in [&[0][..], &[-1], &[1001], &[80, 80], &[100, 80], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]] {
        assert_eq!(wrong_fields(owner.usage.set_thresholds(set(&acme, wrong)).await), ["percents"], "{wrong:?}");
    }
    for (metric, field) in [("members", "metric"), ("", "metric"), ("No!", "metric")] {
        let request = v1::SetThresholdsRequest { metric: metric.to_owned(), ..set(&acme, &[50]) };
        assert_eq!(wrong_fields(owner.usage.set_thresholds(request).await), [field], "{metric}");
    }
    let request = v1::SetThresholdsRequest { metric: "unicorns".to_owned(), ..set(&acme, &[50]) };
    assert_refused(owner.usage.set_thresholds(request).await, Code::InvalidArgument, "METRIC_UNKNOWN");
    let manager = t.member(&acme, "manager").await;
    let refused = t.with_token(&manager.token).usage.set_thresholds(set(&acme, &[50])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let refused = t.with_token(&globex.owner.token).usage.set_thresholds(set(&acme, &[50])).await;
    assert_refused(refused, Code::InvalidArgument, "TENANT_CONFLICT");
    assert_eq!(shown(&mut owner).await.percents, [80, 100]);
}

/// The percents that a tenant was told of: by mail to an owner, in its log, and in the change feed.
async fn told(t: &Bed, tenant: &Tenant) -> (Vec<String>, Vec<String>, i64) {
    t.run_jobs().await;
    let subject = |mail: &String| {
        let line = mail.lines().find(|line| line.starts_with("Subject:") && line.contains("has used"))?;
        Some(line.split("has used ").nth(1)?.split(' ').next()?.to_owned())
    };
    let mut mails: Vec<String> = t.mails_to(&tenant.owner.email).iter().filter_map(subject).collect();
    mails.sort();
    let audit = t.audit(&tenant.id).await;
    let rows = audit.iter().filter(|row| row.action == "System/ReachQuota").map(|row| row.changes.clone());
    let feed: Vec<(i64,)> = t.rows("select count(*) from change where kind = 60 and tenant_id = $1", &tenant.id).await;
    (mails, rows.collect(), feed[0].0)
}

/// The same, once these percents have come by mail: what a lease has settled is folded in within a second.
async fn until_told(t: &Bed, tenant: &Tenant, percents: &[&str]) -> (Vec<String>, Vec<String>, i64) {
    until("owners are told", async || told(t, tenant).await.0 == percents).await;
    told(t, tenant).await
}

async fn whoever_reaches_a_threshold_is_told_once(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&acme, 79)).await.unwrap();
    assert_eq!(told(&t, &acme).await, (vec![], vec![], 0));
    owner.usage.consume(ask(&acme, 1)).await.unwrap();
    let (_, rows, feed) = until_told(&t, &acme, &["80"]).await;
    assert_eq!(feed, 1);
    assert!(rows.len() == 1 && rows[0].contains(r#""metric":{"after":"quizzes""#), "{rows:?}");
    owner.usage.consume(ask(&acme, 19)).await.unwrap();
    assert_eq!(told(&t, &acme).await.0, ["80"]);
    owner.usage.consume(ask(&acme, 1)).await.unwrap();
    let (_, rows, feed) = until_told(&t, &acme, &["100", "80"]).await;
    assert_eq!((rows.len(), feed), (2, 2));
}

async fn fifty_callers_reach_a_threshold_once(t: Bed) {
    let acme = t.tenant("acme").await;
    let beside = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let key = t.service_key(&["usage.*"]).await;
    let calls = (0..50).map(|n| {
        let server = beside.as_ref().filter(|_| n % 2 == 1).unwrap_or(&t);
        let mut clients = server.with_key(&key);
        let acme = &acme;
        async move { clients.usage.consume(ask(acme, 2)).await }
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "there was room for all of it");
    for server in beside.iter().chain([&t]) {
        server.run_jobs().await;
    }
    let (_, rows, feed) = until_told(&t, &acme, &["100", "80"]).await;
    assert_eq!((rows.len(), feed), (2, 2));
}

async fn other_thresholds_hold_for_the_open_period(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&acme, 40)).await.unwrap();
    owner.usage.set_thresholds(set(&acme, &[30, 45])).await.unwrap();
    owner.usage.consume(ask(&acme, 1)).await.unwrap();
    until_told(&t, &acme, &["30"]).await;
    owner.usage.set_thresholds(set(&acme, &[])).await.unwrap();
    owner.usage.consume(ask(&acme, 59)).await.unwrap();
    assert_eq!(told(&t, &acme).await.0, ["30"], "nobody wants to know");
}

async fn what_was_told_is_not_told_again_for_other_thresholds(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&acme, 85)).await.unwrap();
    until_told(&t, &acme, &["80"]).await;
    for percents in [&[100][..], &[75, 80, 100]] {
        owner.usage.set_thresholds(set(&acme, percents)).await.unwrap();
    }
    owner.usage.consume(ask(&acme, 15)).await.unwrap();
    until_told(&t, &acme, &["100", "80"]).await;
}

async fn a_new_period_is_told_of_again(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["usage.*"]).await;
    let mut service = t.with_key(&key);
    service.usage.consume(ask(&acme, 80)).await.unwrap();
    until_told(&t, &acme, &["80"]).await;
    t.clock.advance(chrono::TimeDelta::days(31));
    service.usage.consume(ask(&acme, 85)).await.unwrap();
    until_told(&t, &acme, &["80", "80"]).await;
}

async fn a_gauge_that_is_set_reaches_its_thresholds(t: Bed) {
    let (t, acme) = product(&t).await;
    let mut service = service(&t).await;
    let set = |value| set_storage(&acme, value);
    service.usage.set_gauge(set(790)).await.unwrap();
    service.usage.set_gauge(set(850)).await.unwrap();
    service.usage.set_gauge(set(900)).await.unwrap();
    until_told(&t, &acme, &["80"]).await;
    service.usage.set_gauge(set(3000)).await.unwrap();
    until_told(&t, &acme, &["100", "80"]).await;
}

async fn a_higher_limit_can_be_reached_as_well(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&acme, 100)).await.unwrap();
    until_told(&t, &acme, &["100", "80"]).await;
    t.set_limit(&acme, "quizzes", Much::Limit(1000)).await;
    owner.usage.consume(ask(&acme, 699)).await.unwrap();
    assert_eq!(told(&t, &acme).await.0, ["100", "80"], "of the new limit 79 percent are used");
    owner.usage.consume(ask(&acme, 1)).await.unwrap();
    until_told(&t, &acme, &["100", "80", "80"]).await;
}
