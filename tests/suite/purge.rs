//! Purging: nothing of the tenant is left in any table, and nobody else notices.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Connection as _};
use tenantry::rpc::v1;
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Bed, Engine, amounts, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    a_purge_leaves_nothing_in_any_table
    only_a_deleted_tenant_is_purged_and_only_by_its_slug
    ;
    alone
    a_tenant_whose_time_has_come_is_purged_by_itself
    a_large_purge_is_not_noticed_by_others
}

fn purge(tenant: &str, slug: &str) -> v1::PurgeTenantRequest {
    v1::PurgeTenantRequest { tenant: tenant.to_owned(), confirm_slug: slug.to_owned(), ..Default::default() }
}

/// What may stay: ids in the feed until it is compacted, the platform's log of the purge, the operator's kept answers.
const STAY: [&str; 3] = ["change", "platform_audit", "idempotency"];

/// Every row of every table in which the id stands in any column, by table: the database's own catalogue says which
/// tables and columns there are.
async fn traces(t: &Bed, id: &str) -> Vec<(String, i64)> {
    let uuid: Uuid = id.parse().unwrap();
    let mut found = Vec::new();
    if let Some(database) = &t.database {
        let mut conn = database.administrator().await;
        let columns: Vec<(String, String, String)> = sqlx::query_as(
            "select c.relname::text, quote_ident(a.attname), a.atttypid::regtype::text
             from pg_class c
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = 'tenantry'::regnamespace and c.relkind in ('r', 'p')",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        assert!(columns.len() > 100);
        for (table, column, kind) in columns {
            let holds = match kind.as_str() {
                "uuid" => format!("{column} = '{uuid}'"),
                "text" => format!("position('{uuid}' in {column}) > 0"),
                _ => continue,
            };
            let sql = format!("select count(*) from tenantry.{table} where {holds}");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
            if rows > 0 {
                found.push((table, rows));
            }
        }
    } else {
        let file = t.dir.path().join("tenantry.db");
        let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let tables: Vec<(String,)> =
            sqlx::query_as("select name from sqlite_schema where type = 'table'").fetch_all(&mut conn).await.unwrap();
        for (table,) in tables {
            let columns: Vec<(String, String)> = sqlx::query_as("select name, type from pragma_table_info($1)")
                .bind(&table)
                .fetch_all(&mut conn)
                .await
                .unwrap();
            for (column, kind) in columns {
                let holds = match kind.as_str() {
                    "BLOB" => format!("\"{column}\" = x'{}'", uuid.as_simple()),
                    "TEXT" => format!("instr(\"{column}\", '{uuid}') > 0"),
                    _ => continue,
                };
                let sql = format!("select count(*) from {table} where {holds}");
                let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
                if rows > 0 {
                    found.push((table.clone(), rows));
                }
            }
        }
    }
    found.retain(|(table, _)| !STAY.contains(&table.as_str()));
    found
}

/// A tenant with something in many tables.
async fn full_tenant(t: &Bed) -> crate::harness::Tenant {
    let acme = t.tenant("acme").await;
    t.member(&acme, "admin").await;
    let mut owner = t.with_token(&acme.owner.token);
    for n in 0..3 {
        let consume = v1::ConsumeRequest {
            amounts: amounts(&[("quizzes", 1), ("tokens", 2)]),
            idempotency_key: format!("key {n}"),
            ..Default::default()
        };
        owner.usage.consume(consume).await.unwrap();
    }
    let update =
        v1::UpdateTenantRequest { request_id: request_id(), display_name: "Acme Ltd".to_owned(), ..Default::default() };
    owner.tenants.update_tenant(update).await.unwrap();
    let settings = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings { locale: "de-DE".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    owner.tenants.update_settings(settings).await.unwrap();
    let integration =
        v1::SetIntegrationRequest { name: "crm".to_owned(), secret: "hush".to_owned(), ..Default::default() };
    owner.tenants.set_integration(integration).await.unwrap();
    let domain = v1::AddDomainRequest { domain: format!("{}.example.org", acme.slug), ..Default::default() };
    owner.tenants.add_domain(domain).await.unwrap();
    let billing = v1::RecordBillingEventRequest {
        tenant: acme.id.clone(),
        provider: "stripe".to_owned(),
        event_id: "evt_1".to_owned(),
        kind: v1::BillingEventKind::Paid.into(),
        ..Default::default()
    };
    let domain = crate::oidc::proven(t, &acme).await;
    let provider = crate::oidc::connection(crate::oidc::providers(), "rs256");
    crate::oidc::connect(t, &acme, provider).await;
    crate::oidc::sign_in(t, &acme.id, &crate::oidc::somebody(&domain)).await.unwrap();
    crate::impersonation::in_place(t, &acme, &acme.owner.id).await;
    let mut operator = t.operator();
    operator.tenants.record_billing_event(billing).await.unwrap();
    t.set_limit(&acme, "quizzes", v1::set_limit_override_request::Value::Limit(500)).await;
    t.spoils(&acme.id);
    for row in OF_THE_LANES {
        t.execute(row, &acme.id).await;
    }
    acme
}

/// Rows as the commit lanes leave them, several of each, behind the server's back.
const OF_THE_LANES: [&str; 6] = [
    "insert into quota_lease (tenant_id, account_id, writer_id, class, epoch, granted, settled)
     select tenant_id, tenant_id, tenant_id, class, 1, 5, 3
     from (select 0 as class union all select 1) c, tenant
     where tenant_id = $1",
    "insert into quota_hold (tenant_id, hold_id, kind, key, state, charges, opened_by, expires_at, created_at)
     select tenant_id, user_id, 1, 'key', 1, '{}', tenant_id, joined_at, joined_at
     from membership
     where tenant_id = $1",
    "insert into usage_rollup
     select tenant_id, created_at, 'quizzes', tenant_id, tenant_id, '', '', 0, shard, 1, 1
     from (select 0 as shard union all select 1) s, tenant
     where tenant_id = $1",
    "insert into usage_horizon
     select tenant_id, created_at
     from tenant
     where tenant_id = $1",
    "insert into quota_threshold
     select tenant_id, metric, '[80]'
     from (select 'quizzes' as metric union all select 'tokens') m, tenant
     where tenant_id = $1",
    "insert into quota_notice
     select tenant_id, user_id, tenant_id, 'quizzes', 80, 80, 100, joined_at, joined_at, null
     from membership
     where tenant_id = $1",
];

async fn delete(t: &Bed, tenant: &str) {
    let delete = v1::DeleteTenantRequest { tenant: tenant.to_owned(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
}

async fn a_purge_leaves_nothing_in_any_table(t: &Bed) {
    let acme = full_tenant(t).await;
    let other = full_tenant(t).await;
    t.join(&other, &acme.owner, "member").await;
    let others_before = traces(t, &other.id).await;
    delete(t, &acme.id).await;
    let mut operator = t.operator();
    let count = v1::PurgeTenantRequest { validate_only: true, ..purge(&acme.id, &acme.slug) };
    let counted = operator.tenants.purge_tenant(count).await.unwrap().into_inner();
    assert!(!counted.finished && counted.tables.iter().any(|t| t.table == "usage_event" && t.rows == 3));
    assert!(traces(t, &acme.id).await.len() > 10, "{:?}", traces(t, &acme.id).await);

    let request = v1::PurgeTenantRequest { request_id: request_id(), ..purge(&acme.id, &acme.slug) };
    let done = operator.tenants.purge_tenant(request.clone()).await.unwrap().into_inner();
    assert!(done.finished, "{done:?}");
    for (table, rows) in
        [("membership", 3), ("quota_lease", 2), ("quota_hold", 3), ("usage_rollup", 4), ("quota_account", 2)]
    {
        assert!(done.tables.iter().any(|t| t.table == table && t.rows == rows), "{table}: {done:?}");
    }
    assert_eq!(traces(t, &acme.id).await, Vec::new());
    assert_eq!(traces(t, &other.id).await, others_before, "nothing of anybody else");
    assert_eq!(operator.tenants.purge_tenant(request).await.unwrap().into_inner(), done, "the first answer again");
    // The slug is free, and the owner goes on elsewhere.
    let slug = v1::CheckSlugRequest { slug: acme.slug.clone() };
    assert!(t.anonymous().tenants.check_slug(slug).await.unwrap().into_inner().available);
    t.login(&acme.owner, &other.id).await;
    let get = v1::GetTenantRequest { tenant: acme.id.clone() };
    assert_refused(operator.tenants.get_tenant(get).await, Code::NotFound, "TENANT_NOT_FOUND");
}

async fn only_a_deleted_tenant_is_purged_and_only_by_its_slug(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut operator = t.operator();
    let early = operator.tenants.purge_tenant(purge(&acme.id, &acme.slug)).await;
    assert_refused(early, Code::FailedPrecondition, "WRONG_STATE");
    delete(t, &acme.id).await;
    assert_eq!(wrong_fields(operator.tenants.purge_tenant(purge(&acme.id, "another")).await), ["confirm_slug"]);
    let owner = t.with_token(&acme.owner.token).tenants.purge_tenant(purge(&acme.id, &acme.slug)).await;
    assert_refused(owner, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let nobody = operator.tenants.purge_tenant(purge(&Uuid::new_v4().to_string(), "nobody")).await;
    assert_refused(nobody, Code::NotFound, "TENANT_NOT_FOUND");
    let undelete = v1::UndeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.tenants.undelete_tenant(undelete).await.expect("nothing was lost");
}

async fn a_tenant_whose_time_has_come_is_purged_by_itself(t: Bed) {
    let (acme, other) = (full_tenant(&t).await, t.tenant("other").await);
    delete(&t, &acme.id).await;
    delete(&t, &other.id).await;
    let undelete = v1::UndeleteTenantRequest { tenant: other.id.clone(), ..Default::default() };
    t.operator().tenants.undelete_tenant(undelete).await.unwrap();
    t.clock.advance(TimeDelta::days(29));
    t.run_jobs().await;
    assert!(traces(&t, &acme.id).await.len() > 10);
    // A job that comes too early, as one of a server whose clock was wrong, waits until the time has come.
    let early = "update job set due_at = (select created_at from tenant where tenant_id = $1) where subject = $1";
    t.execute(early, &acme.id).await;
    t.run_jobs().await;
    assert!(traces(&t, &acme.id).await.len() > 10);
    t.clock.advance(TimeDelta::days(1) + TimeDelta::minutes(1));
    crate::harness::until("it is gone", async || {
        t.run_jobs().await;
        traces(&t, &acme.id).await.is_empty()
    })
    .await;
    let get = v1::GetTenantRequest { tenant: other.id.clone() };
    t.operator().tenants.get_tenant(get).await.expect("the undeleted one stays");
}

/// Rows of the purged tenant.
const ROWS: i64 = 100_000;

async fn a_large_purge_is_not_noticed_by_others(t: Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    fill(&t, &acme.id).await;
    delete(&t, &acme.id).await;
    let before = latencies(&t, &other, Duration::from_secs(3)).await;
    let mut operator = t.operator();
    let purging = async {
        let began = Instant::now();
        let mut rows = 0;
        loop {
            let done = operator.tenants.purge_tenant(purge(&acme.id, &acme.slug)).await.unwrap().into_inner();
            rows += done.tables.iter().map(|table| table.rows).sum::<i64>();
            if done.finished {
                return (rows, began.elapsed());
            }
        }
    };
    let other_calls = latencies(&t, &other, Duration::from_secs(3));
    let ((rows, took), during) = tokio::join!(purging, other_calls);
    assert!(rows >= ROWS, "{rows}");
    assert_eq!(traces(&t, &acme.id).await, Vec::new());
    let p99 = |all: &[Duration]| all[all.len() * 99 / 100];
    println!(
        "{:?}: {rows} rows purged in {took:?}; calls of another tenant, p99 before {:?}, during {:?} ({} and {} calls)",
        t.engine,
        p99(&before),
        p99(&during),
        before.len(),
        during.len()
    );
}

/// How long calls of another tenant take, sorted: one that reads and one that writes, by turns.
async fn latencies(t: &Bed, tenant: &crate::harness::Tenant, span: Duration) -> Vec<Duration> {
    let mut clients = t.with_token(&tenant.owner.token);
    let (end, mut all) = (Instant::now() + span, Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        clients.usage.get_usage(v1::GetUsageRequest::default()).await.unwrap();
        all.push(began.elapsed());
        let began = Instant::now();
        let update = v1::UpdateTenantRequest { display_name: format!("{}", all.len()), ..Default::default() };
        clients.tenants.update_tenant(update).await.unwrap();
        all.push(began.elapsed());
    }
    all.sort();
    all
}

/// Puts many events into a tenant, behind the server's back.
async fn fill(t: &Bed, id: &str) {
    let uuid: Uuid = id.parse().unwrap();
    if let Some(database) = &t.database {
        let sql = format!(
            "insert into tenantry.usage_event (tenant_id, key, payload_hash, verdict, charges, answer, decided_at)
             select '{uuid}', 'key ' || n, '', 1, '{{}}', '', now() from generate_series(1, {ROWS}) n"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut database.administrator().await).await.unwrap();
        return;
    }
    assert_eq!(t.engine, Engine::Sqlite);
    let file = t.dir.path().join("tenantry.db");
    let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let sql = format!(
        "with recursive n (n) as (select 1 union all select n + 1 from n where n < {ROWS})
         insert into usage_event (tenant_id, key, payload_hash, verdict, charges, answer, decided_at)
         select x'{}', 'key ' || n, x'', 1, '{{}}', '', 0 from n",
        uuid.as_simple()
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
}
