//! OpenID providers on loopback: a certified one, and crooked ones; and a browser that lets itself be sent to them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tenantry::rpc::v1;
use tonic::{Response, Status};
use url::Url;

use crate::dns::name_server;
use crate::harness::{Bed, Tenant, unique};

/// Where providers send browsers back to.
pub(crate) const REDIRECT: &str = "https://app.example.com/callback";

/// What the certified provider knows its clients by.
pub(crate) const SECRET: &str = "a secret of the client, for the tests";

/// The providers' address. They are started when first asked for, and end with the tests.
pub(crate) fn providers() -> &'static str {
    static RUNNING: OnceLock<(String, Child)> = OnceLock::new();
    let (address, _) = RUNNING.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/node");
        assert!(dir.join("node_modules/oidc-provider").exists(), "run `npm ci` in tests/node first");
        // Its input is held open, and closes when the tests are over, however they end.
        let mut child = Command::new("node")
            .arg("oidc.mjs")
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut address).expect("an address");
        (address.trim().to_owned(), child)
    });
    address
}

/// A crooked provider of a test's own.
pub(crate) fn crooked() -> String {
    format!("{}/crooked/{}", providers(), unique("p"))
}

/// A connection with a provider on loopback, by its client `rs256` or `es256`.
pub(crate) fn connection(issuer: &str, client: &str) -> v1::SsoConnection {
    v1::SsoConnection {
        issuer: issuer.to_owned(),
        client_id: client.to_owned(),
        redirect_uris: vec![REDIRECT.to_owned()],
        default_role: "viewer".to_owned(),
        ..Default::default()
    }
}

/// Connects a tenant, by the operator.
pub(crate) async fn connect(t: &Bed, tenant: &Tenant, connection: v1::SsoConnection) -> v1::SsoConnection {
    let request = v1::SetSsoConnectionRequest {
        tenant: tenant.id.clone(),
        connection: Some(connection),
        client_secret: SECRET.to_owned(),
        ..Default::default()
    };
    let done = t.operator().tenants.set_sso_connection(request).await.expect("connects");
    done.into_inner().connection.expect("a connection")
}

/// A tenant with a proven domain, connected with the certified provider; and the domain.
pub(crate) async fn connected(t: &Bed, name: &str) -> (Tenant, String) {
    let tenant = t.tenant(name).await;
    let domain = proven(t, &tenant).await;
    connect(t, &tenant, connection(providers(), "rs256")).await;
    (tenant, domain)
}

/// Proves a domain of its own for a tenant.
pub(crate) async fn proven(t: &Bed, tenant: &Tenant) -> String {
    let domain = format!("{}.example.org", unique("sso"));
    let mut owner = t.with_token(&tenant.owner.token).tenants;
    let add = v1::AddDomainRequest { domain: domain.clone(), ..Default::default() };
    let added = owner.add_domain(add).await.expect("adds").into_inner().domain.expect("a domain");
    name_server().publish(&added.txt_name, &[&added.txt_value]);
    let verify = v1::VerifyDomainRequest { domain: domain.clone(), ..Default::default() };
    owner.verify_domain(verify).await.expect("is proven");
    domain
}

/// Somebody whom the provider knows, with a verified address.
pub(crate) fn somebody(domain: &str) -> Value {
    let name = unique("ada");
    json!({ "sub": name, "email": format!("{name}@{domain}"), "email_verified": true, "name": "Ada Lovelace" })
}

/// The same person, with other claims as well.
pub(crate) fn with(person: &Value, further: Value) -> Value {
    let mut person = person.clone();
    let Value::Object(further) = further else { panic!("claims are an object") };
    person.as_object_mut().expect("claims").extend(further);
    person
}

/// A sign-in that has begun.
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) binding: String,
}

/// How the providers of the tests are told who signs in.
pub(crate) fn hint(person: &Value) -> String {
    URL_SAFE_NO_PAD.encode(person.to_string())
}

pub(crate) async fn begin(t: &Bed, tenant: &str, person: &Value) -> Result<Begun, Status> {
    begin_with(t, tenant, person, false).await
}

/// `begin`, and with `prove_again` the person has to prove anew who they are.
pub(crate) async fn begin_with(t: &Bed, tenant: &str, person: &Value, prove_again: bool) -> Result<Begun, Status> {
    let request = v1::BeginSsoRequest {
        tenant: tenant.to_owned(),
        redirect_uri: REDIRECT.to_owned(),
        login_hint: hint(person),
        prove_again,
    };
    let begun = t.anonymous().auth.begin_sso(request).await?.into_inner();
    Ok(Begun { url: begun.authorization_url, binding: begun.binding_token })
}

/// Follows redirects as a browser does, cookies and all, until the provider sends it back; what it is sent back with.
pub(crate) async fn browse(url: &str) -> BTreeMap<String, String> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let (mut url, mut cookies) = (Url::parse(url).unwrap(), BTreeMap::new());
    for _ in 0..10 {
        if url.as_str().starts_with(REDIRECT) {
            return url.query_pairs().into_owned().collect();
        }
        let jar: Vec<String> =
            cookies.iter().map(|(name, value): (&String, &String)| format!("{name}={value}")).collect();
        let answer = client.get(url.clone()).header("cookie", jar.join("; ")).send().await.expect("an answer");
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        let Some(location) = location else { panic!("no redirect: {}", answer.text().await.unwrap()) };
        url = url.join(&location).unwrap();
    }
    panic!("too many redirects")
}

/// What the browser was sent back with, as a request.
pub(crate) fn callback(back: &BTreeMap<String, String>, binding: &str) -> v1::CompleteSsoRequest {
    let said = |name: &str| back.get(name).cloned().unwrap_or_default();
    assert!(back.contains_key("code"), "{back:?}");
    v1::CompleteSsoRequest {
        code: said("code"),
        state: said("state"),
        iss: said("iss"),
        binding_token: binding.to_owned(),
        ..Default::default()
    }
}

pub(crate) async fn complete(
    t: &Bed,
    request: v1::CompleteSsoRequest,
) -> Result<Response<v1::CompleteSsoResponse>, Status> {
    t.anonymous().auth.complete_sso(request).await
}

/// A whole sign-in.
pub(crate) async fn sign_in(
    t: &Bed,
    tenant: &str,
    person: &Value,
) -> Result<Response<v1::CompleteSsoResponse>, Status> {
    let begun = begin(t, tenant, person).await?;
    complete(t, callback(&browse(&begun.url).await, &begun.binding)).await
}

/// The access token of a sign-in that works.
pub(crate) async fn token(t: &Bed, tenant: &str, person: &Value) -> String {
    let done = sign_in(t, tenant, person).await.expect("signs in").into_inner();
    done.access_token.expect("a token").token
}
