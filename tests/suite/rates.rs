//! Rates: how often a method may be called with success, in any window of its length.

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Engine, Person, assert_refused, on_both_engines, request_id, unique};

on_both_engines! {
    the_sixth_tenant_within_an_hour_is_refused
    what_creates_nothing_does_not_count
    unknown_addresses_count_and_known_members_do_not
    operators_are_under_no_rate
    parallel_calls_are_counted_one_by_one
    ;
    alone
    no_hour_ever_holds_more_than_five
    calls_of_long_ago_are_not_kept
}

async fn create(t: &Bed, person: &Person) -> Result<v1::Tenant, Status> {
    let slug = unique("acme");
    let asked = v1::CreateTenantRequest { display_name: slug.clone(), slug, ..Default::default() };
    let done = t.with_token(&person.token).tenants.create_tenant(asked).await?;
    Ok(done.into_inner().tenant.unwrap())
}

/// Asserts a refusal for the rate; how many seconds it says to wait.
#[track_caller]
fn wait_of(status: &Status) -> u64 {
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(details.error_info().unwrap().reason, "RATE_EXCEEDED");
    details.retry_info().unwrap().retry_delay.unwrap().as_secs()
}

async fn the_sixth_tenant_within_an_hour_is_refused(t: &Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    for _ in 0..5 {
        create(t, &ann).await.unwrap();
    }
    let wait = wait_of(&create(t, &ann).await.unwrap_err());
    assert!((3500..=3600).contains(&wait), "{wait}");
    create(t, &bob).await.expect("somebody else is not concerned");
}

async fn what_creates_nothing_does_not_count(t: &Bed) {
    let (acme, ann) = (t.tenant("acme").await, t.person("ann").await);
    let mut clients = t.with_token(&ann.token);
    let ask = |slug: &str| v1::CreateTenantRequest {
        request_id: request_id(),
        display_name: "Acme".to_owned(),
        slug: slug.to_owned(),
        ..Default::default()
    };
    for _ in 0..6 {
        let taken = clients.tenants.create_tenant(ask(&acme.slug)).await;
        assert_refused(taken, Code::AlreadyExists, "SLUG_TAKEN");
        let bad = clients.tenants.create_tenant(ask("a")).await;
        assert_refused(bad, Code::InvalidArgument, "FIELDS_INVALID");
    }
    let first = ask(&unique("acme"));
    for _ in 0..6 {
        clients.tenants.create_tenant(first.clone()).await.expect("a repetition");
    }
    for _ in 0..4 {
        create(t, &ann).await.unwrap();
    }
    wait_of(&create(t, &ann).await.unwrap_err());
    // Also now a repetition gets its answer.
    clients.tenants.create_tenant(first).await.expect("a repetition");
}

async fn unknown_addresses_count_and_known_members_do_not(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    let add = |email: String| v1::AddMemberRequest { email, ..Default::default() };
    for _ in 0..11 {
        let known = owner.members.add_member(add(bob.email.clone())).await;
        assert_refused(known, Code::AlreadyExists, "ALREADY_MEMBER");
    }
    for _ in 0..9 {
        let unknown = owner.members.add_member(add(format!("{}@example.com", unique("nobody")))).await;
        assert_refused(unknown, Code::NotFound, "USER_UNKNOWN");
    }
    let cleo = t.person("cleo").await;
    owner.members.add_member(add(cleo.email)).await.expect("the tenth");
    let known = t.person("dan").await.email;
    // Full: now nobody tells whether an address has an account.
    for email in [known, format!("{}@example.com", unique("nobody"))] {
        wait_of(&owner.members.add_member(add(email)).await.unwrap_err());
    }
}

async fn operators_are_under_no_rate(t: &Bed) {
    let ann = t.person("ann").await;
    for _ in 0..7 {
        let slug = unique("acme");
        let asked = v1::CreateTenantRequest {
            display_name: slug.clone(),
            slug,
            owner_email: ann.email.clone(),
            ..Default::default()
        };
        t.operator().tenants.create_tenant(asked).await.expect("creates");
    }
}

async fn parallel_calls_are_counted_one_by_one(t: &Bed) {
    let ann = t.person("ann").await;
    // On PostgreSQL half of the calls go to a second server.
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let calls = (0..30).map(|i| create(if i % 2 == 0 { t } else { second.as_ref().unwrap_or(t) }, &ann));
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    for refused in answers.into_iter().filter_map(Result::err) {
        wait_of(&refused);
    }
    let mine = t.with_token(&ann.token).tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap();
    assert_eq!(mine.into_inner().tenants.len(), 5);
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn no_hour_ever_holds_more_than_five(t: Bed) {
    let mut ann = t.person("ann").await;
    // One at 0:00, four at 0:30.
    create(&t, &ann).await.unwrap();
    t.clock.advance(TimeDelta::minutes(30));
    ann = t.login(&ann, "").await;
    for _ in 0..4 {
        create(&t, &ann).await.unwrap();
    }
    // At 0:59 the hour is full. The clock runs on by itself, so the tests keep half a minute away from the edge.
    t.clock.advance(TimeDelta::minutes(29));
    ann = t.login(&ann, "").await;
    let wait = wait_of(&create(&t, &ann).await.unwrap_err());
    assert!((1..=60).contains(&wait), "{wait}");
    // At 1:00 the first has left: one more fits, and no second.
    t.clock.advance(TimeDelta::seconds(61));
    create(&t, &ann).await.expect("one more fits");
    let wait = wait_of(&create(&t, &ann).await.unwrap_err());
    assert!((1700..=1800).contains(&wait), "{wait}");
    // At 1:31 the four have left as well.
    t.clock.advance(TimeDelta::minutes(31));
    ann = t.login(&ann, "").await;
    for _ in 0..4 {
        create(&t, &ann).await.unwrap();
    }
    wait_of(&create(&t, &ann).await.unwrap_err());
}

async fn calls_of_long_ago_are_not_kept(t: Bed) {
    create(&t, &t.person("ann").await).await.unwrap();
    let counted = async |t: &Bed| -> i64 {
        let rows: Vec<(i64,)> = t.rows("select count(*) from rpc_rate where $1 is not null", &request_id()).await;
        rows[0].0
    };
    assert!(counted(&t).await > 0);
    let t = t.restart_after(TimeDelta::days(30)).await;
    create(&t, &t.person("bob").await).await.unwrap();
    // Ann's is over by now, and Bob's not.
    let t = t.restart_after(TimeDelta::days(2)).await;
    crate::harness::until("the old row is gone", async || counted(&t).await == 1).await;
}
