//! Headers that are wrong or contradict each other, and hosts.

use http::{HeaderMap, HeaderValue};
use tenantry::rpc::v1;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Engine, Tenant, on_both_engines, request_id, unique};
use crate::raw::{self, Seen, headers};

on_both_engines! {
    one_credential_is_sent_once
    metadata_that_cannot_be_read_is_refused
    a_tenant_that_contradicts_the_token_is_refused_whatever_it_is
    a_tenant_that_contradicts_another_source_is_refused
    an_unknown_path_is_no_method_for_anybody
    a_timeout_is_written_as_grpc_writes_it
    a_subdomain_names_its_tenant
    a_forwarded_host_from_anybody_counts_for_nothing
}

const GET_TENANT: &str = "/tenantry.v1.TenantService/GetTenant";
const WHO_AM_I: &str = "/tenantry.v1.AuthService/WhoAmI";

type Answer = Result<Response<Vec<u8>>, Status>;

fn told(answer: &Answer) -> (Code, String) {
    raw::told(answer)
}

/// A connection whose `:authority` is this host.
fn channel_to(t: &Bed, host: &str) -> Channel {
    let endpoint = Endpoint::from_shared(t.address.clone()).expect("an address");
    endpoint.origin(format!("http://{host}").parse().expect("an origin")).connect_lazy()
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

fn and(mut map: HeaderMap, name: &'static str, value: &str) -> HeaderMap {
    map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
    map
}

async fn one_credential_is_sent_once(t: &Bed) {
    let (channel, tenant) = (t.channel(), t.tenant("creds").await);
    let (token, key) = (format!("Bearer {}", tenant.owner.token), t.operator_key.as_str());
    let ambiguous = [
        headers(&[("authorization", &token), ("x-api-key", key)]),
        headers(&[("authorization", &token), ("authorization", &token)]),
        headers(&[("x-api-key", key), ("x-api-key", key)]),
        headers(&[("authorization", "Bearer x"), ("authorization", &token)]),
        headers(&[("x-api-key", &format!("{key},{key}"))]),
    ];
    for map in &ambiguous {
        for path in [WHO_AM_I, GET_TENANT] {
            let wanted = (Code::InvalidArgument, "CREDENTIAL_AMBIGUOUS".to_owned());
            assert_eq!(told(&raw::call(&channel, path, map, b"").await), wanted, "{path} {map:?}");
        }
    }
    // Public methods do not look at credentials.
    let open = raw::call(&channel, "/tenantry.v1.TenantService/CheckSlug", &ambiguous[0], b"").await;
    assert_eq!(told(&open).0, Code::Ok);
    for bad in ["Bearer", &tenant.owner.token, "Basic YTpi", "", "Bearer a, Bearer b"] {
        let answer = raw::call(&channel, WHO_AM_I, &headers(&[("authorization", bad)]), b"").await;
        assert_eq!(told(&answer), (Code::InvalidArgument, "METADATA_MALFORMED".to_owned()), "{bad:?}");
    }
    for good in ["bearer", "BEARER"] {
        let map = headers(&[("authorization", &format!("{good} {}", tenant.owner.token))]);
        assert_eq!(told(&raw::call(&channel, WHO_AM_I, &map, b"").await).0, Code::Ok);
    }
}

async fn metadata_that_cannot_be_read_is_refused(t: &Bed) {
    let (channel, tenant) = (t.channel(), t.tenant("meta").await);
    let wanted = (Code::InvalidArgument, "METADATA_MALFORMED".to_owned());
    let owner = bearer(&tenant.owner.token);
    for byte in 0x80..=0xff_u8 {
        let value = HeaderValue::from_bytes(&[b'a', byte, b'b']).expect("a value");
        for name in ["x-tenant-id", "x-on-behalf-of", "grpc-timeout"] {
            let mut map = owner.clone();
            map.insert(name, value.clone());
            assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await), wanted, "{name} {byte:#x}");
        }
    }
    let mut map = HeaderMap::new();
    map.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff").expect("a value"));
    assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await), wanted);

    let (id, slug) = (tenant.id.as_str(), tenant.slug.as_str());
    let twice = and(and(owner.clone(), "x-tenant-id", id), "x-tenant-id", id);
    assert_eq!(told(&raw::call(&channel, GET_TENANT, &twice, b"").await), wanted);
    for bad in [&format!("{id},{id}"), &format!("{slug}, x"), "", " ", "..", "xn--abc", "UPPER", "12345", "a_b", "\t"] {
        let map = and(owner.clone(), "x-tenant-id", bad);
        assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await), wanted, "{bad:?}");
    }
    for good in [id, slug] {
        let map = and(owner.clone(), "x-tenant-id", good);
        assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await).0, Code::Ok, "{good}");
    }
}

async fn a_tenant_that_contradicts_the_token_is_refused_whatever_it_is(t: &Bed) {
    let (own, joined, foreign) = (t.tenant("own").await, t.tenant("joined").await, t.tenant("foreign").await);
    let (closed, deleted) = (t.tenant("closed").await, t.tenant("deleted").await);
    t.join(&joined, &own.owner, "owner").await;
    let mut operator = t.operator();
    let request =
        v1::SuspendTenantRequest { tenant: closed.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(request).await.expect("suspends");
    let request = v1::DeleteTenantRequest { tenant: deleted.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(request).await.expect("deletes");

    let owner = bearer(&own.owner.token);
    let mut names = vec![request_id(), unique("absent")];
    names.extend([&joined, &foreign, &closed, &deleted].into_iter().flat_map(|t| [t.id.clone(), t.slug.clone()]));
    for method in raw::methods_of_members() {
        let mut answers = Vec::new();
        for name in &names {
            let map = and(owner.clone(), "x-tenant-id", name);
            answers.push(raw::call(&t.channel(), &raw::path(&method), &map, b"").await);
            let body = raw::request(&method, &[("tenant", name)]);
            answers.push(raw::call(&t.channel(), &raw::path(&method), &owner, &body).await);
        }
        assert_eq!(told(&answers[0]), (Code::InvalidArgument, "TENANT_CONFLICT".to_owned()));
        let mut seen = answers.into_iter().map(Seen::from);
        let first = seen.next().expect("an answer");
        for other in seen {
            assert_eq!(other, first, "{}", method.full_name());
        }
    }
    let hosts = [&joined.slug, &foreign.slug, &closed.slug, &deleted.slug, &unique("absent"), &"a.b".to_owned()];
    for slug in hosts {
        let channel = channel_to(t, &format!("{slug}.tenantry.test"));
        let answer = raw::call(&channel, GET_TENANT, &owner, b"").await;
        assert_eq!(told(&answer), (Code::InvalidArgument, "TENANT_CONFLICT".to_owned()), "{slug}");
    }
}

async fn a_tenant_that_contradicts_another_source_is_refused(t: &Bed) {
    let (one, two) = (t.tenant("one").await, t.tenant("two").await);
    let wanted = (Code::InvalidArgument, "TENANT_CONFLICT".to_owned());
    let get = |tenant: &Tenant| raw::request(&method("GetTenant"), &[("tenant", &tenant.id)]);
    let nobody = t.person("nobody").await;
    let service = headers(&[("x-api-key", &t.service_key(&["*"]).await)]);
    for caller in [&headers(&[("x-api-key", &t.operator_key)]), &service] {
        let map = and(caller.clone(), "x-tenant-id", &one.id);
        assert_eq!(told(&raw::call(&t.channel(), GET_TENANT, &map, &get(&two)).await), wanted);
        assert_eq!(told(&raw::call(&t.channel(), GET_TENANT, &map, &get(&one)).await).0, Code::Ok);
        let channel = channel_to(t, &format!("{}.tenantry.test", one.slug));
        assert_eq!(told(&raw::call(&channel, GET_TENANT, caller, &get(&two)).await), wanted);
    }
    let channel = channel_to(t, &format!("{}.tenantry.test", one.slug));
    let map = and(bearer(&nobody.token), "x-tenant-id", &two.slug);
    assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await), wanted);
}

fn method(name: &str) -> prost_reflect::MethodDescriptor {
    raw::methods().into_iter().find(|method| method.name() == name).expect("a method")
}

async fn an_unknown_path_is_no_method_for_anybody(t: &Bed) {
    let channel = t.channel();
    let key = ("x-api-key", t.operator_key.as_str());
    let callers = [headers(&[]), headers(&[("authorization", "rubbish")]), headers(&[key, key]), headers(&[key])];
    let paths = [
        "/tenantry.v1.TenantService/Nothing",
        "/tenantry.v1.Nothing/GetTenant",
        "/tenantry.v1.TenantService/getTenant",
        "/tenantry.v1.TenantService/GetTenant/",
        "//tenantry.v1.TenantService/GetTenant",
        "/tenantry.v1.TenantService/../TenantService/GetTenant",
        "/tenantry.v1.TenantService/GetTenan%74",
        "/",
    ];
    let mut first: Option<Seen> = None;
    for path in paths {
        for caller in &callers {
            let answer = raw::call(&channel, path, caller, b"").await;
            assert_eq!(told(&answer), (Code::Unimplemented, "METHOD_UNKNOWN".to_owned()), "{path}");
            let seen = Seen::from(answer);
            assert_eq!(*first.get_or_insert_with(|| seen.clone()), seen, "{path}");
        }
    }
}

async fn a_timeout_is_written_as_grpc_writes_it(t: &Bed) {
    let (channel, tenant) = (t.channel(), t.tenant("timeout").await);
    for bad in ["", "1", "S", "x", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "0x1S", "99999999999999999999H"] {
        let map = and(bearer(&tenant.owner.token), "grpc-timeout", bad);
        let answer = raw::call(&channel, GET_TENANT, &map, b"").await;
        assert_eq!(told(&answer), (Code::InvalidArgument, "METADATA_MALFORMED".to_owned()), "{bad:?}");
    }
    for good in ["10S", "99999999H", "10000m"] {
        let map = and(bearer(&tenant.owner.token), "grpc-timeout", good);
        assert_eq!(told(&raw::call(&channel, GET_TENANT, &map, b"").await).0, Code::Ok, "{good}");
    }
}

/// What a caller is told who asks for a tenant at a host.
async fn at_host(t: &Bed, host: &str, caller: &HeaderMap) -> (Code, String) {
    told(&raw::call(&channel_to(t, host), GET_TENANT, caller, b"").await)
}

async fn a_subdomain_names_its_tenant(t: &Bed) {
    let tenant = t.tenant("host").await;
    let person = t.person("guest").await;
    t.join(&tenant, &person, "viewer").await;
    let ok = (Code::Ok, String::new());
    let absent = (Code::NotFound, "TENANT_NOT_FOUND".to_owned());
    for caller in [bearer(&tenant.owner.token), bearer(&person.token)] {
        let slug = &tenant.slug;
        let upper = slug.to_uppercase();
        for host in [
            format!("{slug}.tenantry.test"),
            format!("{slug}.tenantry.test:8443"),
            format!("{upper}.TENANTRY.test"),
            format!("{slug}.tenantry.test."),
            "tenantry.test".to_owned(),
            "localhost".to_owned(),
            "[::1]:50051".to_owned(),
        ] {
            assert_eq!(at_host(t, &host, &caller).await, ok, "{host}");
        }
    }
    // Another domain is a tenant's that has proven it, so nobody's here; a server's own are named by `--api-hosts`.
    let elsewhere = ["a.b.tenantry.test", "example.com", "eviltenantry.test"].map(ToOwned::to_owned);
    for host in elsewhere.into_iter().chain([format!("{}.tenantry.test", unique("absent"))]) {
        assert_eq!(at_host(t, &host, &bearer(&person.token)).await, absent, "{host}");
    }
}

async fn a_forwarded_host_from_anybody_counts_for_nothing(t: &Bed) {
    let (tenant, other) = (t.tenant("host").await, t.tenant("other").await);
    for value in [format!("{}.tenantry.test", other.slug), "a, b".to_owned(), "\u{e9}".to_owned()] {
        let map = and(bearer(&tenant.owner.token), "x-forwarded-host", &value);
        assert_eq!(told(&raw::call(&t.channel(), GET_TENANT, &map, b"").await).0, Code::Ok, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_says_which_host_was_meant() {
    let t = Bed::private(Engine::Sqlite, &["--trusted-proxies=127.0.0.1"]).await;
    let tenant = t.tenant("host").await;
    let person = t.person("guest").await;
    let stranger = t.person("stranger").await;
    t.join(&tenant, &person, "viewer").await;
    let at = async |person: &str, hosts: &[&str]| {
        let mut map = bearer(person);
        for host in hosts {
            map = and(map, "x-forwarded-host", host);
        }
        // `:authority` names nobody, and would be refused.
        told(&raw::call(&channel_to(&t, "absent-one.tenantry.test"), GET_TENANT, &map, b"").await)
    };
    let own = format!("{}.tenantry.test", tenant.slug);
    let malformed = (Code::InvalidArgument, "METADATA_MALFORMED".to_owned());
    let absent = (Code::NotFound, "TENANT_NOT_FOUND".to_owned());
    assert_eq!(at(&person.token, &[&own]).await, (Code::Ok, String::new()));
    assert_eq!(at(&stranger.token, &[&own]).await, absent);
    assert_eq!(at(&person.token, &[]).await, absent);
    assert_eq!(at(&person.token, &["absent-two.tenantry.test"]).await, absent);
    assert_eq!(at(&person.token, &[&own, &own]).await, malformed);
    assert_eq!(at(&person.token, &[&format!("{own}, {own}")]).await, malformed);
    assert_eq!(at(&person.token, &["user@host"]).await, malformed);
    assert_eq!(at(&tenant.owner.token, &["absent-two.tenantry.test"]).await.1, "TENANT_CONFLICT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_subdomain_is_never_the_default_tenant() {
    let t = Bed::private(Engine::Sqlite, &["--default-tenant=the-default"]).await;
    let first = t.tenant("first").await;
    let person = t.person("guest").await;
    let mut operator = t.operator();
    for slug in ["the-default", "the-second"] {
        let request = v1::CreateTenantRequest {
            display_name: slug.to_owned(),
            slug: slug.to_owned(),
            owner_email: first.owner.email.clone(),
            ..Default::default()
        };
        let made = operator.tenants.create_tenant(request).await.expect("creates").into_inner();
        let tenant = made.tenant.expect("a tenant");
        let request =
            v1::AddMemberRequest { tenant: tenant.tenant_id, email: person.email.clone(), ..Default::default() };
        operator.members.add_member(request).await.expect("joins");
    }
    let guest = bearer(&person.token);
    assert_eq!(at_host(&t, "tenantry.test", &guest).await, (Code::Ok, String::new()), "the default tenant");
    for host in ["absent-one.tenantry.test", "a.b.tenantry.test", "xn--x.tenantry.test"] {
        assert_eq!(at_host(&t, host, &guest).await, (Code::NotFound, "TENANT_NOT_FOUND".to_owned()), "{host}");
    }
}
