//! Retention: events go after their time, their keys with them; sums and limits stay, and the books go on agreeing.

use chrono::TimeDelta;
use tenantry::rpc::v1;

use crate::harness::{Bed, Tenant, amounts, on_both_engines};

on_both_engines! {
    events_go_after_their_time_and_sums_stay
    a_tenant_keeps_its_events_as_long_as_it_says
    many_events_go_in_batches
}

const SHORT: &str = r#"
default_plan = "free"
[metrics.quizzes]
unit = "quizzes"
period = "lifetime"
[plans.free]
usage_retention_days = 10
limits = { quizzes = 100000 }
"#;

async fn consume(t: &Bed, tenant: &Tenant, amount: i64, key: &str) -> v1::Usage {
    let request = v1::ConsumeRequest {
        tenant: tenant.id.clone(),
        amounts: amounts(&[("quizzes", amount)]),
        idempotency_key: key.to_owned(),
        ..Default::default()
    };
    t.operator().usage.consume(request).await.unwrap().into_inner().usage.remove(0)
}

async fn events(t: &Bed, tenant: &Tenant) -> Vec<String> {
    let request = v1::ListUsageEventsRequest { tenant: tenant.id.clone(), oldest_first: true, ..Default::default() };
    let all = t.operator().usage.list_usage_events(request).await.unwrap().into_inner().events;
    all.into_iter().map(|event| event.event_key).collect()
}

async fn total(t: &Bed, tenant: &Tenant) -> (i64, i64) {
    let request = v1::QueryUsageRequest {
        tenant: tenant.id.clone(),
        start_time: Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 }),
        granularity: v1::UsageGranularity::Month.into(),
        ..Default::default()
    };
    let total = t.operator().usage.query_usage(request).await.unwrap().into_inner().totals.remove(0);
    (total.events, total.amount)
}

async fn findings(t: &Bed, tenant: &Tenant) -> Vec<v1::UsageFinding> {
    let request = v1::VerifyUsageRequest { tenant: tenant.id.clone() };
    let mut stream = t.operator().usage.verify_usage(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a tenant").findings
}

async fn events_go_after_their_time_and_sums_stay(shared: &Bed) {
    let t = Bed::of_product(shared.engine, SHORT).await;
    let acme = t.tenant("acme").await;
    consume(&t, &acme, 5, "old").await;
    t.clock.advance(TimeDelta::days(8));
    consume(&t, &acme, 7, "new").await;
    t.run_jobs().await;
    assert_eq!(events(&t, &acme).await, ["old", "new"]);
    t.clock.advance(TimeDelta::days(3));
    t.run_jobs().await;
    assert_eq!(events(&t, &acme).await, ["new"]);
    assert_eq!((total(&t, &acme).await, findings(&t, &acme).await), ((2, 12), vec![]));
    // What is kept is still the same key; what was forgotten counts again.
    assert_eq!(consume(&t, &acme, 7, "new").await.used, 12);
    assert_eq!(consume(&t, &acme, 5, "old").await.used, 17);
    assert_eq!((total(&t, &acme).await, findings(&t, &acme).await), ((3, 17), vec![]));
    // What was archived is part of the proof.
    t.execute("update quota_account set archived = archived + 1 where tenant_id = $1", &acme.id).await;
    assert_eq!(findings(&t, &acme).await[0].rule(), v1::UsageRule::Counted);
    t.execute("update quota_account set archived = archived - 1 where tenant_id = $1", &acme.id).await;
}

async fn a_tenant_keeps_its_events_as_long_as_it_says(shared: &Bed) {
    let t = Bed::of_product(shared.engine, SHORT).await;
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let compliance = v1::Compliance { retention_days: Some(30), ..Default::default() };
    let request = v1::UpdateSettingsRequest {
        tenant: acme.id.clone(),
        settings: Some(v1::Settings { compliance: Some(compliance), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["compliance.retention_days".to_owned()] }),
        ..Default::default()
    };
    t.operator().tenants.update_settings(request).await.unwrap();
    for tenant in [&acme, &globex] {
        consume(&t, tenant, 1, "first").await;
    }
    t.clock.advance(TimeDelta::days(20));
    t.run_jobs().await;
    assert_eq!((events(&t, &acme).await.len(), events(&t, &globex).await.len()), (1, 0));
    t.clock.advance(TimeDelta::days(11));
    t.run_jobs().await;
    assert_eq!(events(&t, &acme).await.len(), 0);
}

async fn many_events_go_in_batches(shared: &Bed) {
    let t = Bed::of_product(shared.engine, SHORT).await;
    let acme = t.tenant("acme").await;
    consume(&t, &acme, 3, "first").await;
    // As if it had been consumed so often.
    let copies = [
        "insert into usage_event
         with recursive n (i) as (select 1 union all select i + 1 from n where i < 6000)
         select e.tenant_id, 'copy ' || n.i, e.payload_hash, e.verdict, e.charges, e.answer, e.decided_at, e.kind, e.ack,
                e.event_at, e.member_id, e.api_key_id, e.endpoint, e.method, e.status, e.latency_us, e.attributes, e.subject
         from usage_event e, n
         where e.tenant_id = $1",
        "insert into usage_event
         select e.tenant_id, 'copy ' || n, e.payload_hash, e.verdict, e.charges, e.answer, e.decided_at, e.kind, e.ack,
                e.event_at, e.member_id, e.api_key_id, e.endpoint, e.method, e.status, e.latency_us, e.attributes, e.subject
         from usage_event e, generate_series(1, 6000) n
         where e.tenant_id = $1",
    ];
    t.execute(copies[usize::from(t.database.is_some())], &acme.id).await;
    t.execute("update quota_account set committed = committed + 18000 where tenant_id = $1", &acme.id).await;
    t.execute("update usage_rollup set events = 6001, amount = 18003 where tenant_id = $1", &acme.id).await;
    assert_eq!(findings(&t, &acme).await, []);
    t.clock.advance(TimeDelta::days(12));
    t.run_jobs().await;
    let left: Vec<(i64,)> = t.rows("select count(*) from usage_event where tenant_id = $1", &acme.id).await;
    assert_eq!((left[0].0, findings(&t, &acme).await), (0, vec![]));
    let archived: Vec<(i64,)> = t.rows("select archived from quota_account where tenant_id = $1", &acme.id).await;
    assert_eq!(archived, [(18_003,)]);
}
