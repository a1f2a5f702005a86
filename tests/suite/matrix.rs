//! The security model on one page: every method, called as every kind of caller, against a golden file. Methods come
//! from the descriptors, so a new one is in the matrix without a line here. `UPDATE_GOLDEN=1` writes the file anew.

use chrono::TimeDelta;
use tenantry::rpc::v1;

use crate::api_keys::{create, personal};
use crate::golden::{Caller, Cells, compare, fill, render};
use crate::harness::{Bed, Engine, Person, Tenant};
use crate::operator_keys::operator_key;
use crate::{impersonation, oidc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_call_what_is_as_the_golden_page_says_on_sqlite() {
    check(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_call_what_is_as_the_golden_page_says_on_postgres() {
    check(Engine::Postgres).await;
}

async fn check(engine: Engine) {
    let page = page(&Bed::private(engine, &[]).await).await;
    compare("matrix.golden", &page, "who may call what");
}

/// The page, from a server of its own, whose clock it moves.
async fn page(t: &Bed) -> String {
    let home = t.tenant("home").await;
    let viewer = t.member(&home, "viewer").await;
    let (closed, deleted) = (t.tenant("closed").await, t.tenant("deleted").await);
    let mut columns = people(t, &home, &viewer, [&closed, &deleted]).await;
    columns.extend(keys(t, &home, &viewer, [&closed, &deleted]).await);
    let fleeting = fleeting_key(t).await;

    let fields = [("request_id", "not-a-uuid"), ("to_tenant", &home.id), ("user_id", &viewer.id), ("slug", &home.slug)];
    let mut cells = Cells::new();
    for caller in &columns {
        fill(&mut cells, t, caller, &fields).await;
    }
    // Last, for now everybody's token is over.
    t.clock.advance(TimeDelta::minutes(6));
    let late = [
        Caller::person("late", "the owner, with an access token that is over", &home.owner),
        Caller::new("keyen", "a service whose key has ended", &[("x-api-key", &fleeting)]).naming(&home.id),
    ];
    for caller in &late {
        fill(&mut cells, t, caller, &fields).await;
    }
    columns.extend(late);
    let about = "Who may call what. Made by matrix.rs, which calls every method as every caller; do not edit.";
    render(about, &columns, &cells)
}

/// Everybody who is somebody by an access token, and those who are nobody.
async fn people(t: &Bed, home: &Tenant, viewer: &Person, [closed, deleted]: [&Tenant; 2]) -> Vec<Caller> {
    let elsewhere = t.tenant("elsewhere").await;
    let stranger = t.person("stranger").await;
    let suspended = t.member(home, "owner").await;
    let removed = t.member(home, "owner").await;
    let revoked = t.member(home, "owner").await;
    let mut operator = t.operator();
    let request =
        v1::SuspendMemberRequest { tenant: home.id.clone(), user_id: suspended.id.clone(), ..Default::default() };
    operator.members.suspend_member(request).await.expect("suspends");
    let request =
        v1::RemoveMemberRequest { tenant: home.id.clone(), user_id: removed.id.clone(), ..Default::default() };
    operator.members.remove_member(request).await.expect("removes");
    let request =
        v1::SuspendTenantRequest { tenant: closed.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(request).await.expect("suspends");
    let request = v1::DeleteTenantRequest { tenant: deleted.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(request).await.expect("deletes");
    t.revoke_sessions(&revoked).await;

    let bound = bound(t, home).await;
    let (in_place, _) = impersonation::in_place(t, home, &home.owner.id).await;

    let own = |mark, words, person: &Person| Caller::person(mark, words, person);
    vec![
        Caller::new("anon", "no credential", &[("x-tenant-id", &home.id)]).naming(&home.id),
        Caller::new("junk", "a credential that is none", &[("authorization", "Bearer eyJmooh")]),
        own("str-h", "signed in, no member of anything, names the tenant in x-tenant-id", &stranger)
            .also("x-tenant-id", &home.id),
        own("str-r", "the same, names the tenant in the request", &stranger).naming(&home.id),
        own("for-h", "owner of another tenant, names this one in x-tenant-id", &elsewhere.owner)
            .also("x-tenant-id", &home.id),
        own("for-r", "the same, names this one in the request", &elsewhere.owner).naming(&home.id),
        own("view", "viewer", viewer),
        own("membr", "member", &t.member(home, "member").await),
        own("mangr", "manager", &t.member(home, "manager").await),
        own("admin", "admin", &t.member(home, "admin").await),
        own("owner", "owner", &home.owner),
        own("suspd", "owner, membership suspended", &suspended),
        own("remvd", "owner until removed", &removed),
        own("shut", "owner of a suspended tenant", &closed.owner),
        own("delet", "owner of a deleted tenant", &deleted.owner),
        own("revok", "owner, session revoked", &revoked),
        bound.also("x-tenant-id", &home.id),
        Caller::new("inper", "an operator in the owner's place", &[("authorization", &format!("Bearer {in_place}"))]),
    ]
}

/// An owner here who came in through the provider of another tenant, in which they are a member too.
async fn bound(t: &Bed, home: &Tenant) -> Caller {
    let (other, domain) = oidc::connected(t, "provider").await;
    let somebody = oidc::somebody(&domain);
    let done = oidc::sign_in(t, &other.id, &somebody).await.expect("signs in").into_inner();
    let user = done.user.expect("a user");
    let token = done.access_token.expect("a token").token;
    let refresh = done.refresh_token.expect("a token").token;
    let person = Person { id: user.user_id, email: user.email, token, refresh };
    t.join(home, &person, "owner").await;
    Caller::person("bound", "owner, by a session of another tenant's identity provider", &person)
}

/// Everybody who is somebody by a key. They name the tenant in the request.
async fn keys(t: &Bed, home: &Tenant, viewer: &Person, [closed, deleted]: [&Tenant; 2]) -> Vec<Caller> {
    let all = t.service_key(&["*"]).await;
    let narrow = t.service_key(&["members.read"]).await;
    let key = |mark, words, key: &str| Caller::new(mark, words, &[("x-api-key", key)]).naming(&home.id);
    let stranger = t.tenant("other").await.owner;
    let narrow_own = personal(t, &home.owner, &["members.read"]).await.secret;
    vec![
        key("svc-*", "a service that may do everything", &all).asking_about(&viewer.token),
        key("svc-m", "a service that may do members.read", &narrow).asking_about(&viewer.token),
        key("*/vw", "the first service in the viewer's name", &all).also("x-on-behalf-of", &viewer.token),
        key("m/own", "the second service in the owner's name", &narrow).also("x-on-behalf-of", &home.owner.token),
        key("*/for", "the first service in the name of another tenant's owner", &all)
            .also("x-on-behalf-of", &stranger.token),
        key("*/bad", "the first service with a forwarded token that is none", &all).also("x-on-behalf-of", "eyJmooh"),
        key(
            "key-*",
            "a key of the tenant that may do what its owner may",
            &create(t, &home.owner, &["*"]).await.secret,
        ),
        key(
            "key-m",
            "a key of the tenant that may do members.read",
            &create(t, &home.owner, &["members.read"]).await.secret,
        ),
        key("own-*", "a key of the owner's own that may do everything", &personal(t, &home.owner, &["*"]).await.secret),
        key("vw-*", "a key of the viewer's own that may do everything", &personal(t, viewer, &["*"]).await.secret),
        key("own-m", "a key of the owner's own that may do members.read", &narrow_own),
        key("key-f", "a key of another tenant, names this one", &create(t, &stranger, &["*"]).await.secret),
        key("key-r", "a key of the tenant that is revoked", &revoked_key(t, home).await),
        key("oper", "an operator", &t.operator_key),
        key("op-rd", "an operator, to look", &operator_key(t, v1::OperatorScope::Read).await),
        key("op-sp", "an operator, for support", &operator_key(t, v1::OperatorScope::Support).await),
        key("op-su", "an operator, names a suspended tenant", &t.operator_key).naming(&closed.id),
        key("op-de", "an operator, names a deleted tenant", &t.operator_key).naming(&deleted.id),
        key("op/ow", "an operator in the owner's name", &t.operator_key).also("x-on-behalf-of", &home.owner.token),
    ]
}

/// A key of the tenant that is revoked.
async fn revoked_key(t: &Bed, home: &Tenant) -> String {
    let made = create(t, &home.owner, &["*"]).await;
    let revoke = v1::RevokeApiKeyRequest { api_key_id: made.key.expect("a key").api_key_id, ..Default::default() };
    t.with_token(&home.owner.token).auth.revoke_api_key(revoke).await.expect("revokes");
    made.secret
}

/// A service's key that ends in a minute.
async fn fleeting_key(t: &Bed) -> String {
    let request = v1::CreateServiceKeyRequest {
        display_name: "for a minute".to_owned(),
        permissions: vec!["*".to_owned()],
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    t.operator().auth.create_service_key(request).await.expect("a key").into_inner().secret
}
