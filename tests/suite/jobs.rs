//! Jobs: what time brings is so at once, written down once, and told once, whichever servers are at it and whatever dies.

use std::collections::HashMap;

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;

use crate::cluster::Cluster;
use crate::harness::{Bed, assert_refused, on_both_engines, unique, until};
use crate::program::{Program, get, serve};
use crate::startup::connect;

on_both_engines! {
    a_trial_that_ended_while_no_server_ran_is_over_before_the_first_request
    owners_are_told_of_the_end_of_a_trial_once_a_notice
    what_failed_is_tried_again
}

/// Plans whose trials end into a suspension or a smaller plan.
pub(crate) const TRIALS: &str = r#"
default_plan = "free"
notice_days = [7, 1]
[metrics.quizzes]
unit = "quizzes"
[plans.free.limits]
quizzes = 10
[plans.pro]
currency = "EUR"
price = { month = 1900 }
trial = { days = 14, then = "suspend" }
grace_days = 5
limits = { quizzes = 100 }
[plans.team]
currency = "EUR"
price = { month = 900 }
trial = { days = 14, then = { downgrade = "free" } }
limits = { quizzes = 50 }
"#;

/// A tenant on a plan, with its owner.
pub(crate) async fn tenant_on(t: &Bed, plan: &str) -> crate::harness::Tenant {
    let person = t.person("owner").await;
    let slug = unique(plan);
    let request = v1::CreateTenantRequest {
        display_name: slug.clone(),
        slug: slug.clone(),
        plan: plan.to_owned(),
        ..Default::default()
    };
    let created = t.with_token(&person.token).tenants.create_tenant(request).await.unwrap().into_inner();
    let id = created.tenant.unwrap().tenant_id;
    let owner = t.login(&person, &id).await;
    crate::harness::Tenant { id, slug, owner }
}

/// How often each message of a tenant's outbox is there, by template.
async fn messages(t: &Bed, tenant: &str) -> HashMap<String, i64> {
    let sql = "select template, count(*) from outbox where tenant_id = $1 group by template";
    t.rows::<(String, i64)>(sql, tenant).await.into_iter().collect()
}

/// How often the server itself wrote into a tenant's log.
async fn settled(t: &Bed, tenant: &str) -> usize {
    t.audit(tenant).await.iter().filter(|row| row.action == "System/SettleTenant" && row.actor_kind == 5).count()
}

async fn a_trial_that_ended_while_no_server_ran_is_over_before_the_first_request(t: &Bed) {
    let t = Bed::of_product(t.engine, TRIALS).await;
    let (pro, team) = (tenant_on(&t, "pro").await, tenant_on(&t, "team").await);
    let usage = v1::GetUsageRequest::default();
    let mut clients = t.with_token(&pro.owner.token);
    clients.usage.get_usage(usage.clone()).await.expect("on trial");

    let t = t.restart_after(TimeDelta::days(15)).await;
    // Asked at once, before any job can have come round; the token is over as well, so the operator asks.
    let get = |tenant: &str| v1::GetTenantRequest { tenant: tenant.to_owned() };
    let mut operator = t.operator();
    let ended = operator.tenants.get_tenant(get(&pro.id)).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((ended.status(), ended.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::TrialEnded));
    let smaller = operator.tenants.get_tenant(get(&team.id)).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((smaller.status(), smaller.plan.as_str()), (v1::TenantStatus::Active, "free"));
    let owner = t.login(&pro.owner, &pro.id).await;
    let refused = t.with_token(&owner.token).usage.get_usage(usage).await;
    assert_refused(refused, Code::PermissionDenied, "TENANT_SUSPENDED");
    // A list by status agrees, whether or not the job has been at the rows.
    let list = v1::ListTenantsRequest { status: v1::TenantStatus::Suspended.into(), ..Default::default() };
    let listed = operator.tenants.list_tenants(list).await.unwrap().into_inner().tenants;
    assert_eq!(listed.iter().map(|t| &t.tenant_id).collect::<Vec<_>>(), [&pro.id]);
    t.run_jobs().await;
    until("both are written down", async || settled(&t, &pro.id).await == 1 && settled(&t, &team.id).await == 1).await;
}

async fn owners_are_told_of_the_end_of_a_trial_once_a_notice(t: &Bed) {
    let t = Bed::of_product(t.engine, TRIALS).await;
    let acme = tenant_on(&t, "pro").await;
    t.run_jobs().await;
    assert_eq!(messages(&t, &acme.id).await, HashMap::new());
    t.clock.advance(TimeDelta::days(8));
    until("seven days before", async || {
        t.run_jobs().await;
        messages(&t, &acme.id).await.get("trial_ending") == Some(&1)
    })
    .await;
    t.clock.advance(TimeDelta::days(3));
    t.run_jobs().await;
    assert_eq!(messages(&t, &acme.id).await["trial_ending"], 1, "nothing new in between");
    t.clock.advance(TimeDelta::days(2) + TimeDelta::hours(1));
    until("one day before", async || {
        t.run_jobs().await;
        messages(&t, &acme.id).await["trial_ending"] == 2
    })
    .await;
    t.clock.advance(TimeDelta::days(30));
    t.run_jobs().await;
    assert_eq!(messages(&t, &acme.id).await["trial_ending"], 2, "after the end there is nothing to tell");
}

async fn what_failed_is_tried_again(t: &Bed) {
    let t = Bed::of_product(t.engine, TRIALS).await;
    let acme = tenant_on(&t, "pro").await;
    // A row that does not read makes the job fail.
    t.execute("update tenant set subscription_status = 99 where tenant_id = $1", &acme.id).await;
    t.clock.advance(TimeDelta::days(8));
    let attempts = "select attempts, last_error from job where subject = $1 and last_error is not null";
    until("it has failed", async || {
        t.run_jobs().await;
        let rows: Vec<(i64, String)> = t.rows(attempts, &acme.id).await;
        rows.iter().any(|(attempts, error)| *attempts >= 1 && !error.is_empty())
    })
    .await;
    let (_, metrics) = get(&t.http, "/metrics").await;
    assert!(metrics.contains("tenantry_jobs_total{kind=\"tenant\",outcome=\"failed\"}"), "{metrics}");
    t.execute("update tenant set subscription_status = 1 where tenant_id = $1", &acme.id).await;
    until("it works in the end", async || {
        t.clock.advance(TimeDelta::minutes(2));
        t.run_jobs().await;
        messages(&t, &acme.id).await.get("trial_ending") == Some(&1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_do_each_job_once() {
    let t = Bed::of_product(crate::harness::Engine::Postgres, TRIALS).await;
    let other = t.sibling(&[]).await;
    let mut tenants = Vec::new();
    for _ in 0..30 {
        tenants.push(tenant_on(&t, "pro").await.id);
    }
    // Past the last notice, and then past the end: both servers see it at the same moment.
    for (days, told) in [(TimeDelta::hours(13 * 24 + 1), 1), (TimeDelta::days(2), 1)] {
        t.clock.advance(days);
        other.clock.advance(days);
        tokio::join!(t.run_jobs(), other.run_jobs(), t.run_jobs(), other.run_jobs());
        until("nothing is due any more", async || {
            let due: Vec<(i64,)> =
                t.rows("select count(*) from job where due_at < now() and subject <> $1", &tenants[0]).await;
            t.run_jobs().await;
            due[0].0 == 0
        })
        .await;
        for tenant in &tenants {
            assert_eq!(messages(&t, tenant).await.get("trial_ending"), Some(&told), "{tenant}");
        }
    }
    for tenant in &tenants {
        until("each is written down", async || settled(&t, tenant).await > 0).await;
        assert_eq!(settled(&t, tenant).await, 1, "{tenant}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_server_that_is_killed_are_done_once_by_the_next() {
    let database = Cluster::shared().fresh_database().await;
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let start = || Program::start(&data, serve(&data, Some(&database)));
    let server = start();
    let mut operator = server.operator();
    let mut tenants = Vec::new();
    for n in 0..40 {
        let request = v1::ProvisionTenantRequest {
            display_name: format!("Trial {n}"),
            slug: unique("trial"),
            admin_email: format!("{}@example.com", unique("admin")),
            trial: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            skip_welcome_mail: true,
            ..Default::default()
        };
        let done = operator.tenants.provision_tenant(request).await.unwrap().into_inner();
        tenants.push(done.tenant.unwrap().tenant_id);
    }
    let mut admin = connect(&database.admin_url).await;
    let count = "select count(*) from tenantry.audit_event where action = 'System/SettleTenant'";
    // Killed as soon as some are done.
    loop {
        let done: i64 = sqlx::query_scalar(count).fetch_one(&mut admin).await.unwrap();
        if done > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.kill();
    let _second = start();
    until("all are settled", async || {
        // The leases of the killed server end by themselves; here they are cut short.
        sqlx::query("update tenantry.job set leased_until = now() where leased_until > now()")
            .execute(&mut connect(&database.admin_url).await)
            .await
            .unwrap();
        let mut admin = connect(&database.admin_url).await;
        let done: i64 = sqlx::query_scalar(count).fetch_one(&mut admin).await.unwrap();
        done == 40
    })
    .await;
    let twice: Vec<(i64,)> = sqlx::query_as(
        "select count(*) from tenantry.audit_event where action = 'System/SettleTenant' group by tenant_id having count(*) > 1",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert!(twice.is_empty() && tenants.len() == 40, "{twice:?}");
}
