//! Races: the rules that must hold however many calls are made at once.

use std::collections::BTreeMap;

use futures::future::join_all;
use prost_types::FieldMask;
use tenantry::entropy;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Engine, PASSWORD, Person, Tenant, amounts, on_both_engines, refusal, request_id, unique};

on_both_engines! {
    no_race_leaves_a_tenant_without_owner
    a_limit_is_met_exactly
    two_limits_are_never_exceeded
    one_person_joins_once
    one_address_and_one_slug_are_had_once
    one_etag_is_good_for_one_update
}

/// Servers that share the tenant: on PostgreSQL two, of which the second is the caller's to stop.
async fn servers(t: &Bed) -> Option<Bed> {
    if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None }
}

/// How many calls worked, and how many were refused for which reason.
fn tally<T: std::fmt::Debug>(answers: Vec<Result<Response<T>, Status>>) -> (usize, BTreeMap<String, usize>) {
    let (worked, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let mut reasons = BTreeMap::new();
    for answer in refused {
        *reasons.entry(refusal(answer).1).or_default() += 1;
    }
    (worked.len(), reasons)
}

/// Makes a call that takes the tenant an owner, perhaps the caller themselves.
async fn lose_an_owner(t: &Bed, caller: &Person, other: &Person, dice: u8) -> Option<(Code, String)> {
    let mut clients = t.with_token(&caller.token);
    let user_id = if dice & 0x80 == 0 { caller.id.clone() } else { other.id.clone() };
    let role = "admin".to_owned();
    let refused = |status: Status| refusal::<()>(Err(status));
    match dice % 5 {
        0 => clients
            .members
            .update_member_role(v1::UpdateMemberRoleRequest { user_id, roles: vec![role], ..Default::default() })
            .await
            .err(),
        1 => {
            let user_id = other.id.clone();
            clients.members.remove_member(v1::RemoveMemberRequest { user_id, ..Default::default() }).await.err()
        }
        2 => clients.members.suspend_member(v1::SuspendMemberRequest { user_id, ..Default::default() }).await.err(),
        3 => {
            let asked = v1::TransferOwnershipRequest { new_owner_id: other.id.clone(), ..Default::default() };
            clients.members.transfer_ownership(asked).await.err()
        }
        _ => clients.members.leave_tenant(v1::LeaveTenantRequest::default()).await.err(),
    }
    .map(refused)
}

async fn no_race_leaves_a_tenant_without_owner(t: &Bed) {
    let second = servers(t).await;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..4 {
        let acme = t.tenant("acme").await;
        let mut owners = vec![acme.owner.clone()];
        for _ in 0..4 {
            owners.push(t.member(&acme, "owner").await);
        }
        let calls = (0..50_usize).map(|i| {
            let server = if i % 2 == 0 { t } else { second.as_ref().unwrap_or(t) };
            let (caller, other) = (&owners[i % 5], &owners[(i + 1 + i / 5 % 4) % 5]);
            lose_an_owner(server, caller, other, entropy::bytes::<1>()[0])
        });
        for (code, reason) in join_all(calls).await.into_iter().flatten() {
            assert!(!matches!(code, Code::Internal | Code::Unknown), "{reason}");
            *reasons.entry(reason).or_default() += 1;
        }
        // Nobody in these calls could make an owner of a tenant that had none: if there is one now, there always was.
        assert!(active_owners(t, &acme).await >= 1);
        // Whoever is left tries to go as well, one after the other, so that the last one is refused each time.
        for owner in &owners {
            let left = t.with_token(&owner.token).members.leave_tenant(v1::LeaveTenantRequest::default()).await;
            if let Err(status) = left {
                *reasons.entry(refusal::<()>(Err(status)).1).or_default() += 1;
            }
        }
        assert_eq!(active_owners(t, &acme).await, 1);
    }
    assert!(reasons["LAST_OWNER"] >= 4, "{reasons:?}");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn active_owners(t: &Bed, tenant: &Tenant) -> i64 {
    let sql = "select count(*) from membership where tenant_id = $1 and role = 'owner' and status = 1";
    let rows: Vec<(i64,)> = t.rows(sql, &tenant.id).await;
    rows[0].0
}

async fn consume(t: &Bed, token: &str, list: &[(&str, i64)]) -> Result<Response<v1::ConsumeResponse>, Status> {
    let mut clients = t.with_token(token);
    // Repeated with its key while the database is too busy to answer: that is what the key is for.
    let asked = v1::ConsumeRequest { amounts: amounts(list), idempotency_key: request_id(), ..Default::default() };
    loop {
        match clients.usage.consume(asked.clone()).await {
            Err(status) if status.code() == Code::Unavailable => {}
            answer => return answer,
        }
    }
}

async fn used(t: &Bed, tenant: &Tenant) -> Vec<(String, i64)> {
    t.rows("select metric, committed from quota_account where tenant_id = $1 order by metric", &tenant.id).await
}

async fn a_limit_is_met_exactly(t: &Bed) {
    let acme = t.tenant("acme").await;
    let second = servers(t).await;
    let calls = (0..200).map(|i| {
        consume(if i % 2 == 0 { t } else { second.as_ref().unwrap_or(t) }, &acme.owner.token, &[("quizzes", 1)])
    });
    let (admitted, reasons) = tally(join_all(calls).await);
    assert_eq!((admitted, reasons), (100, BTreeMap::from([("QUOTA_EXCEEDED".to_owned(), 100)])));
    assert_eq!(used(t, &acme).await, [("quizzes".to_owned(), 100)]);
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn two_limits_are_never_exceeded(t: &Bed) {
    let acme = t.tenant("acme").await;
    let second = servers(t).await;
    let calls = (0..100_usize).map(|i| {
        let (quizzes, tokens) = ([1, 2, 3, 5, 8][i % 5], [40, 10, 30, 20][i % 4]);
        let (server, token) = (if i % 2 == 0 { t } else { second.as_ref().unwrap_or(t) }, &acme.owner.token);
        async move {
            // In either order: locks are taken in one.
            let list = [("quizzes", quizzes), ("tokens", tokens)];
            let turned = [list[1], list[0]];
            let answer = consume(server, token, if i % 3 == 0 { &turned } else { &list }).await;
            (answer, quizzes, tokens)
        }
    });
    let (mut quizzes, mut tokens) = (0, 0);
    for (answer, q, k) in join_all(calls).await {
        match answer {
            Ok(_) => (quizzes, tokens) = (quizzes + q, tokens + k),
            Err(status) => assert_eq!(refusal::<()>(Err(status)).1, "QUOTA_EXCEEDED"),
        }
    }
    assert!(quizzes <= 100 && tokens <= 1000);
    // Nothing was refused that would still fit.
    assert!(quizzes > 92 || tokens > 960, "{quizzes} {tokens}");
    assert_eq!(used(t, &acme).await, [("quizzes".to_owned(), quizzes), ("tokens".to_owned(), tokens)]);
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn one_person_joins_once(t: &Bed) {
    let (acme, bob) = (t.tenant("acme").await, t.person("bob").await);
    let calls = (0..20).map(|_| {
        let mut operator = t.operator();
        let asked = v1::AddMemberRequest { tenant: acme.id.clone(), email: bob.email.clone(), ..Default::default() };
        async move { operator.members.add_member(asked).await }
    });
    let (joined, reasons) = tally(join_all(calls).await);
    assert_eq!((joined, reasons), (1, BTreeMap::from([("ALREADY_MEMBER".to_owned(), 19)])));
    let rows: Vec<(i64,)> = t.rows("select status from membership where user_id = $1", &bob.id).await;
    assert_eq!(rows, [(1,)]);
}

async fn one_address_and_one_slug_are_had_once(t: &Bed) {
    let slug = unique("acme");
    let sign_up = |email: String, slug: Option<String>| {
        let mut anybody = t.anonymous();
        let asked = v1::SignUpRequest {
            email,
            password: PASSWORD.to_owned(),
            display_name: "Ann".to_owned(),
            tenant: slug.map(|slug| v1::NewTenant { display_name: slug.clone(), slug }),
            ..Default::default()
        };
        async move { anybody.auth.sign_up(asked).await }
    };
    let one = format!("{slug}@example.com");
    let (made, reasons) = tally(join_all((0..10).map(|_| sign_up(one.clone(), None))).await);
    assert_eq!((made, reasons), (1, BTreeMap::from([("EMAIL_TAKEN".to_owned(), 9)])));
    let calls = (0..10).map(|i| sign_up(format!("{slug}-{i}@example.com"), Some(slug.clone())));
    let (made, reasons) = tally(join_all(calls).await);
    assert_eq!((made, reasons), (1, BTreeMap::from([("SLUG_TAKEN".to_owned(), 9)])));
}

async fn one_etag_is_good_for_one_update(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let etag =
        owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap().etag;
    let calls = (0..20).map(|i| {
        let mut clients = t.with_token(&acme.owner.token);
        let asked = v1::UpdateTenantRequest {
            update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
            display_name: format!("Acme {i}"),
            etag: etag.clone(),
            ..Default::default()
        };
        async move { clients.tenants.update_tenant(asked).await }
    });
    let (changed, reasons) = tally(join_all(calls).await);
    assert_eq!((changed, reasons), (1, BTreeMap::from([("ETAG_MISMATCH".to_owned(), 19)])));
}
