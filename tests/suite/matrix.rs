//! The security model on one page: every method, called as every kind of caller, against a golden file. Methods come
//! from the descriptors, so a new one is in the matrix without a line here. `UPDATE_GOLDEN=1` writes the file anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use chrono::TimeDelta;
use http::HeaderMap;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Engine, Person, Tenant};
use crate::raw::{self, headers};

/// What the letters in the table stand for; everything else is written out. Refusals of a rule come after the access
/// check, so what is refused for its fields was let in.
const MARKS: &[(&str, Code, &str)] = &[
    ("ok", Code::Ok, ""),
    ("in", Code::InvalidArgument, "FIELDS_INVALID"),
    ("cred", Code::Unauthenticated, "CREDENTIAL_MISSING"),
    ("bad", Code::Unauthenticated, "CREDENTIAL_INVALID"),
    ("over", Code::Unauthenticated, "TOKEN_EXPIRED"),
    ("kind", Code::PermissionDenied, "CALLER_KIND_REFUSED"),
    ("perm", Code::PermissionDenied, "PERMISSION_MISSING"),
    ("susp", Code::PermissionDenied, "MEMBER_SUSPENDED"),
    ("shut", Code::PermissionDenied, "TENANT_SUSPENDED"),
    ("gone", Code::PermissionDenied, "TENANT_DELETED"),
    ("none", Code::NotFound, "TENANT_NOT_FOUND"),
    ("conf", Code::InvalidArgument, "TENANT_CONFLICT"),
    ("meta", Code::InvalidArgument, "METADATA_MALFORMED"),
    ("miss", Code::InvalidArgument, "TENANT_MISSING"),
];

/// What each method said to each caller.
type Cells = BTreeMap<(String, &'static str), String>;

/// Somebody who calls every method.
struct Caller {
    mark: &'static str,
    words: &'static str,
    headers: HeaderMap,
    /// What the request says in its field `tenant`.
    tenant: String,
    /// What the request says in its field `subject_token`.
    subject: String,
}

impl Caller {
    fn new(mark: &'static str, words: &'static str, pairs: &[(&'static str, &str)]) -> Self {
        Self { mark, words, headers: headers(pairs), tenant: String::new(), subject: String::new() }
    }

    fn person(mark: &'static str, words: &'static str, person: &Person) -> Self {
        Self::new(mark, words, &[("authorization", &format!("Bearer {}", person.token))])
    }

    fn also(mut self, name: &'static str, value: &str) -> Self {
        self.headers.extend(headers(&[(name, value)]));
        self
    }

    fn naming(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }

    fn asking_about(mut self, token: &str) -> Self {
        token.clone_into(&mut self.subject);
        self
    }
}

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
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/matrix.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &page).expect("writes");
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    let (want, have): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), page.lines().collect());
    let mut diff = String::new();
    for i in 0..want.len().max(have.len()) {
        let (old, new) = (want.get(i).unwrap_or(&""), have.get(i).unwrap_or(&""));
        if old != new {
            let _ = writeln!(diff, "-{old}\n+{new}");
        }
    }
    assert!(diff.is_empty(), "who may call what has changed; UPDATE_GOLDEN=1 writes the page anew:\n{diff}");
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
    render(&columns, &cells)
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
    ]
}

/// Everybody who is somebody by a key. They name the tenant in the request.
async fn keys(t: &Bed, home: &Tenant, viewer: &Person, [closed, deleted]: [&Tenant; 2]) -> Vec<Caller> {
    let all = t.service_key(&["*"]).await;
    let narrow = t.service_key(&["members.read"]).await;
    let key = |mark, words, key: &str| Caller::new(mark, words, &[("x-api-key", key)]).naming(&home.id);
    let stranger = t.tenant("other").await.owner;
    vec![
        key("svc-*", "a service that may do everything", &all).asking_about(&viewer.token),
        key("svc-m", "a service that may do members.read", &narrow).asking_about(&viewer.token),
        key("*/vw", "the first service in the viewer's name", &all).also("x-on-behalf-of", &viewer.token),
        key("m/own", "the second service in the owner's name", &narrow).also("x-on-behalf-of", &home.owner.token),
        key("*/for", "the first service in the name of another tenant's owner", &all)
            .also("x-on-behalf-of", &stranger.token),
        key("*/bad", "the first service with a forwarded token that is none", &all).also("x-on-behalf-of", "eyJmooh"),
        key("oper", "an operator", &t.operator_key),
        key("op-su", "an operator, names a suspended tenant", &t.operator_key).naming(&closed.id),
        key("op-de", "an operator, names a deleted tenant", &t.operator_key).naming(&deleted.id),
        key("op/ow", "an operator in the owner's name", &t.operator_key).also("x-on-behalf-of", &home.owner.token),
    ]
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

/// Calls everything as one caller.
async fn fill(cells: &mut Cells, t: &Bed, caller: &Caller, fields: &[(&str, &str)]) {
    let channel = t.channel();
    let fields = [fields, &[("tenant", &caller.tenant), ("subject_token", &caller.subject)]].concat();
    for method in raw::methods() {
        let body = raw::request(&method, &fields);
        let answer = raw::call(&channel, &raw::path(&method), &caller.headers, &body).await;
        cells.insert((method.full_name().to_owned(), caller.mark), cell(&method, &answer));
    }
}

/// A decision that says no is an answer; its first reason is shown after an equals sign.
fn cell(method: &MethodDescriptor, answer: &Result<Response<Vec<u8>>, Status>) -> String {
    if let Ok(response) = answer
        && let Some(allowed) = method.output().get_field_by_name("allowed")
    {
        let message = DynamicMessage::decode(method.output(), response.get_ref().as_slice()).expect("an answer");
        if message.get_field(&allowed).as_bool() != Some(true) {
            let reasons = message.get_field_by_name("reasons").expect("reasons").into_owned();
            let first = reasons
                .as_list()
                .and_then(|list| list.first())
                .and_then(|reason| reason.as_message()?.get_field_by_name("reason")?.as_str().map(ToOwned::to_owned));
            let reason = first.expect("a reason");
            let known = MARKS.iter().find(|(_, _, named)| *named == reason);
            return format!("={}", known.map_or(reason.as_str(), |(mark, ..)| mark));
        }
    }
    let (code, reason) = raw::told(answer);
    let known = MARKS.iter().find(|(_, c, r)| (*c, *r) == (code, reason.as_str()));
    known.map_or_else(|| format!("{code:?}/{reason}"), |(mark, ..)| (*mark).to_owned())
}

fn render(columns: &[Caller], cells: &Cells) -> String {
    let mut page = String::from(
        "Who may call what. Made by matrix.rs, which calls every method as every caller; do not edit.\n\n\
         Whatever would change something is sent with a request_id that is none, so that `in` is as far as it gets.\n\n",
    );
    for (mark, code, reason) in MARKS {
        let _ = writeln!(page, "  {mark:<7} {}", format!("{code:?} {reason}").trim_end());
    }
    let _ = writeln!(page, "  =...    Ok, with a decision that says no, and why\n\nCallers:\n");
    for caller in columns {
        let _ = writeln!(page, "  {:<7} {}", caller.mark, caller.words);
    }
    let mut service = String::new();
    for method in raw::methods() {
        let of = method.parent_service().name().to_owned();
        if of != service {
            let heads: Vec<_> = columns.iter().map(|caller| format!("{:<5}", caller.mark)).collect();
            let _ = writeln!(page, "\n{of:<18} {}", heads.join(" ").trim_end());
            service = of;
        }
        let row: Vec<_> =
            columns.iter().map(|c| format!("{:<5}", cells[&(method.full_name().to_owned(), c.mark)])).collect();
        let _ = writeln!(page, "{:<18} {}", method.name(), row.join(" ").trim_end());
    }
    page
}
