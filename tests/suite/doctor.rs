//! The books: everything that can be wrong in them is found, and what is right is not.

use tenantry::rpc::v1;
use tonic::Code;

use crate::commands::{command, json, refused, text};
use crate::harness::{Bed, Tenant, amounts, assert_refused, on_both_engines};
use crate::program::output;

on_both_engines! {
    whatever_is_broken_in_the_books_is_found
    the_doctor_speaks_to_people_and_scripts
    only_operators_look_at_the_books
    ;
    alone
    all_tenants_are_looked_at_but_those_that_are_purged
}

async fn used(t: &Bed, name: &str) -> Tenant {
    let acme = t.tenant(name).await;
    let mut owner = t.with_token(&acme.owner.token);
    for n in 1..=3 {
        let request = v1::ConsumeRequest {
            amounts: amounts(&[("quizzes", n), ("tokens", 10)]),
            idempotency_key: format!("key {n}"),
            ..Default::default()
        };
        owner.usage.consume(request).await.unwrap();
    }
    acme
}

async fn verify(t: &Bed, tenant: &str) -> Vec<v1::VerifyUsageResponse> {
    let request = v1::VerifyUsageRequest { tenant: tenant.to_owned() };
    let mut stream = t.operator().usage.verify_usage(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(found) = stream.message().await.unwrap() {
        all.push(found);
    }
    all
}

/// Breaks rows, gives what is found, and puts them right again.
async fn broken(t: &Bed, tenant: &Tenant, [how, undo]: [&'static str; 2]) -> Vec<(v1::UsageRule, String, i64)> {
    t.execute(how, &tenant.id).await;
    let found = verify(t, &tenant.slug).await.remove(0).findings;
    t.execute(undo, &tenant.id).await;
    assert_eq!(verify(t, &tenant.id).await[0].findings, [], "after {undo}");
    found.into_iter().map(|f| (f.rule(), f.metric, f.told - f.summed)).collect()
}

async fn whatever_is_broken_in_the_books_is_found(t: &Bed) {
    use v1::UsageRule::{Account, Counted, Forfeited, Leased, Reserved, RollupAmount, RollupEvents};
    let acme = used(t, "acme").await;
    let sound = verify(t, &acme.id).await.remove(0);
    assert_eq!((sound.tenant_id, sound.accounts, sound.events), (acme.id.clone(), 2, 3));
    assert_eq!(sound.findings, []);
    let quizzes = "quizzes".to_owned();
    for (rows, rule, off) in [
        (
            [
                "update quota_account set leased = leased + 5 where tenant_id = $1 and metric = 'quizzes'",
                "update quota_account set leased = leased - 5 where tenant_id = $1 and metric = 'quizzes'",
            ],
            Leased,
            5,
        ),
        (
            [
                "update quota_account set forfeited = forfeited + 1 where tenant_id = $1 and metric = 'quizzes'",
                "update quota_account set forfeited = forfeited - 1 where tenant_id = $1 and metric = 'quizzes'",
            ],
            Forfeited,
            1,
        ),
        (
            [
                "update quota_account set reserved = reserved + 2 where tenant_id = $1 and metric = 'quizzes'",
                "update quota_account set reserved = reserved - 2 where tenant_id = $1 and metric = 'quizzes'",
            ],
            Reserved,
            2,
        ),
        (
            [
                "update quota_account set committed = committed - 3 where tenant_id = $1 and metric = 'quizzes'",
                "update quota_account set committed = committed + 3 where tenant_id = $1 and metric = 'quizzes'",
            ],
            Counted,
            -3,
        ),
        (
            [
                "update usage_rollup set amount = amount + 7 where tenant_id = $1 and metric = 'quizzes'",
                "update usage_rollup set amount = amount - 7 where tenant_id = $1 and metric = 'quizzes'",
            ],
            RollupAmount,
            7,
        ),
        (
            [
                "update usage_rollup set events = events - 1 where tenant_id = $1 and metric = 'quizzes'",
                "update usage_rollup set events = events + 1 where tenant_id = $1 and metric = 'quizzes'",
            ],
            RollupEvents,
            -1,
        ),
    ] {
        assert_eq!(broken(t, &acme, rows).await, [(rule, quizzes.clone(), off)]);
    }
    // Filed under another endpoint, the sums of the quarter are what they were, and those by endpoint are not.
    let moved = [
        "update usage_rollup set endpoint = '/elsewhere' where tenant_id = $1 and metric = 'quizzes'",
        "update usage_rollup set endpoint = '' where tenant_id = $1 and metric = 'quizzes'",
    ];
    assert_eq!(broken(t, &acme, moved).await.len(), 4);
    let lost = [
        "update usage_event set verdict = 2 where tenant_id = $1 and key = 'key 2'",
        "update usage_event set verdict = 1 where tenant_id = $1 and key = 'key 2'",
    ];
    let found = broken(t, &acme, lost).await;
    for wrong in [(Counted, 2), (RollupEvents, 1), (RollupAmount, 2)] {
        assert!(found.contains(&(wrong.0, quizzes.clone(), wrong.1)), "{found:?}");
    }
    let orphaned = [
        "insert into quota_lease (tenant_id, account_id, writer_id, class, epoch, granted, settled)
         select tenant_id, tenant_id, tenant_id, 0, 1, 9, 0
         from tenant
         where tenant_id = $1",
        "delete from quota_lease where tenant_id = $1 and account_id = tenant_id",
    ];
    assert_eq!(broken(t, &acme, orphaned).await, [(Account, String::new(), -9)]);
}

async fn the_doctor_speaks_to_people_and_scripts(t: &Bed) {
    let acme = used(t, "acme").await;
    let told = text(t, &["doctor", "usage", &acme.slug]);
    assert_eq!(told.trim_end(), "1 tenants, 2 accounts, 3 events: all of it agrees");
    assert_eq!(json(t, &["doctor", "usage", &acme.slug])["events"], 3);
    t.execute(
        "update quota_account set committed = committed + 4 where tenant_id = $1 and metric = 'tokens'",
        &acme.id,
    )
    .await;
    let (code, told, error) = output(command(t, &["doctor", "usage", &acme.slug]));
    assert!(code == 1 && error.contains("1 sums do not agree"), "{error}");
    assert!(
        told.contains("counted") && told.contains("tokens") && told.contains("34") && told.contains("30"),
        "{told}"
    );
    t.execute(
        "update quota_account set committed = committed - 4 where tenant_id = $1 and metric = 'tokens'",
        &acme.id,
    )
    .await;
    refused(t, &["doctor", "usage", "nobody-at-all"], "TENANT_NOT_FOUND");
}

async fn only_operators_look_at_the_books(t: &Bed) {
    let acme = t.tenant("acme").await;
    let request = v1::VerifyUsageRequest { tenant: acme.id.clone() };
    let refused = t.with_token(&acme.owner.token).usage.verify_usage(request).await;
    assert_refused(refused.map(|r| r.map(drop)), Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let request = v1::VerifyUsageRequest { tenant: "No Slug".to_owned() };
    let refused = t.operator().usage.verify_usage(request).await;
    assert_refused(refused.map(|r| r.map(drop)), Code::InvalidArgument, "FIELDS_INVALID");
}

async fn all_tenants_are_looked_at_but_those_that_are_purged(t: Bed) {
    let (acme, globex) = (used(&t, "acme").await, used(&t, "globex").await);
    let mut looked: Vec<String> = verify(&t, "").await.into_iter().map(|found| found.tenant_id).collect();
    looked.sort();
    let mut both = vec![acme.id.clone(), globex.id.clone()];
    both.sort();
    assert_eq!(looked, both);
    // As a purge leaves it half-way.
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
    t.execute("update tenant set purge_at = deleted_at where tenant_id = $1", &acme.id).await;
    t.execute("delete from usage_event where tenant_id = $1", &acme.id).await;
    let looked: Vec<String> = verify(&t, "").await.into_iter().map(|found| found.tenant_id).collect();
    assert_eq!(looked, [globex.id]);
}
