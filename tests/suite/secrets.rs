//! Nothing secret is ever written anywhere in the clear: everything that the program says, counts and keeps, searched for
//! everything secret that was sent to it or received from it.

mod further;

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tenantry::rpc::v1;
use tenantry::rpc::v1::auth_service_client::AuthServiceClient;
use tenantry::time::{Clock as _, SystemClock};
use tonic::{Code, Response, Status};

use crate::cluster::{Cluster, Database};
use crate::dns::name_server;
use crate::harness::{Engine, Headers, Inner, request_id, unique};
use crate::mfa::code_of;
use crate::program::{Program, get, serve};
use crate::startup::{connect, run};

/// The secrets of a scenario, by what they are; and how many calls were made.
#[derive(Default)]
struct Known {
    secrets: BTreeMap<String, String>,
    calls: usize,
}

impl Known {
    fn add(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 8, "{what} is too short to search for");
        self.secrets.insert(what.to_owned(), secret.to_owned());
    }

    fn token(&mut self, what: &str, token: &str) {
        self.add(what, token);
        // A signature is as bad as the token: header and claims are guessed.
        self.add(&format!("signature of {what}"), token.rsplit('.').next().unwrap());
    }

    fn counted<T>(&mut self, answer: Result<Response<T>, Status>) -> Result<T, Code> {
        self.calls += 1;
        answer.map(Response::into_inner).map_err(|status| status.code())
    }

    /// What of it is in a text; in its own form, or escaped as in a URL.
    fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let found = self.secrets.iter().filter(|(_, secret)| text.contains(secret.as_str()));
        found.map(|(what, _)| format!("{what} is in {place}")).collect()
    }
}

fn bearer(token: &str) -> Headers {
    Headers::default().and("authorization", &format!("Bearer {token}"))
}

/// Sign-ups, sign-ins, keys, delegation, and everything that goes wrong with them.
async fn scenario(server: &Program, known: &mut Known) {
    let password = unique("a-password");
    known.add("password", &password);
    known.add("operator key", &server.operator_key());
    known.add("master key", std::fs::read_to_string(server.dir.join("master.key")).unwrap().trim());
    let mut auth = server.clients(Headers::default()).auth;
    let slug = unique("acme");
    let sign_up = v1::SignUpRequest {
        request_id: request_id(),
        email: format!("{slug}@example.com"),
        password: password.clone(),
        display_name: "Ada".to_owned(),
        tenant: Some(v1::NewTenant { display_name: "Acme".to_owned(), slug: slug.clone() }),
        ..Default::default()
    };
    let done = known.counted(auth.sign_up(sign_up.clone()).await).unwrap();
    let token = done.access_token.unwrap().token;
    known.token("first token", &token);
    known.add("first refresh token", &done.refresh_token.unwrap().token);
    let again = known.counted(auth.sign_up(sign_up.clone()).await).unwrap();
    known.token("token of a repetition", &again.access_token.unwrap().token);
    // Address and slug are taken: what PostgreSQL says of a conflict quotes the row.
    let conflict = v1::SignUpRequest { request_id: request_id(), ..sign_up.clone() };
    assert_eq!(known.counted(auth.sign_up(conflict.clone()).await).err(), Some(Code::AlreadyExists));
    let slug_taken =
        v1::SignUpRequest { email: format!("{}@example.com", unique("eve")), request_id: request_id(), ..conflict };
    assert_eq!(known.counted(auth.sign_up(slug_taken).await).err(), Some(Code::AlreadyExists));
    let weak = v1::SignUpRequest { password: "password".to_owned(), ..sign_up.clone() };
    assert_eq!(known.counted(auth.sign_up(weak).await).err(), Some(Code::InvalidArgument));

    sign_ins(&mut auth, known, (&sign_up.email, &password, &slug)).await;

    let mut operator = server.operator();
    let key = v1::CreateServiceKeyRequest {
        request_id: request_id(),
        display_name: "a service".to_owned(),
        permissions: vec!["usage.read".to_owned(), "usage.write".to_owned()],
        ..Default::default()
    };
    let key = known.counted(operator.auth.create_service_key(key).await).unwrap().secret;
    known.add("service key", &key);
    let consume = v1::ConsumeRequest {
        tenant: slug.clone(),
        amounts: vec![v1::Amount { metric: "tokens".to_owned(), amount: 1 }],
        idempotency_key: "once".to_owned(),
        ..Default::default()
    };
    let service = Headers::default().and("x-api-key", &key);
    known.counted(server.clients(service.clone()).usage.consume(consume.clone()).await).unwrap();
    let mut delegated = server.clients(service.clone().and("x-on-behalf-of", &token));
    known
        .counted(
            delegated
                .usage
                .consume(v1::ConsumeRequest { idempotency_key: "twice".to_owned(), ..consume.clone() })
                .await,
        )
        .unwrap();
    let question = v1::AuthorizeRequest { subject_token: token.clone(), tenant: slug.clone(), ..Default::default() };
    known.counted(server.clients(service.clone()).auth.authorize(question).await).unwrap();

    keys_of_the_tenant(server, known, &token).await;

    let forged = format!("{}.{}", token.rsplit_once('.').unwrap().0, "A".repeat(86));
    let bad = [
        ("forged token", bearer(&forged), forged.clone()),
        ("garbage token", bearer("garbage-that-is-no-token"), "garbage-that-is-no-token".to_owned()),
        ("invented key", Headers::default().and("x-api-key", "tns_an_invented_key"), "tns_an_invented_key".to_owned()),
        ("spoilt key", Headers::default().and("x-api-key", &format!("{key}x")), format!("{key}x")),
        ("forged delegation", service.and("x-on-behalf-of", &forged), forged),
        ("two credentials", bearer(&token).and("x-api-key", &key), token.clone()),
        (
            "unknown scheme",
            Headers::default().and("authorization", "Basic dXNlcjpzZWNyZXQ="),
            "dXNlcjpzZWNyZXQ=".to_owned(),
        ),
    ];
    for (what, headers, secret) in bad {
        known.add(what, &secret);
        let answer = server.clients(headers).usage.consume(consume.clone()).await;
        assert!(known.counted(answer).is_err(), "{what}");
    }
    let owner = server.clients(bearer(&token));
    known
        .counted(owner.clone().usage.consume(v1::ConsumeRequest { idempotency_key: String::new(), ..consume }).await)
        .unwrap();
    known.counted(owner.clone().members.leave_tenant(v1::LeaveTenantRequest::default()).await).unwrap_err();
    let switch = v1::SwitchTenantRequest { to_tenant: slug, request_id: request_id(), ..Default::default() };
    let switched = known.counted(owner.clone().auth.switch_tenant(switch).await).unwrap();
    known.token("token of a switch", &switched.access_token.unwrap().token);
    further::links(server, known, &token).await;
    further::provisioned(server, known).await;
    further::shared_with_others(server, known, &token).await;
    second_step(server, known, &token, (&sign_up.email, &password)).await;
}

/// Keys of a tenant, of a member and of an operator, made, shown again, rotated and used.
async fn keys_of_the_tenant(server: &Program, known: &mut Known, token: &str) {
    let mut owner = server.clients(bearer(token)).auth;
    let wish = v1::CreateApiKeyRequest {
        request_id: request_id(),
        display_name: "nightly import".to_owned(),
        permissions: vec!["tenant.read".to_owned()],
        ..Default::default()
    };
    let made = known.counted(owner.create_api_key(wish.clone()).await).unwrap();
    known.add("API key", &made.secret);
    known.counted(owner.create_api_key(wish).await).unwrap();
    let rotate = v1::RotateApiKeyRequest {
        request_id: request_id(),
        api_key_id: made.key.unwrap().api_key_id,
        ..Default::default()
    };
    let rotated = known.counted(owner.rotate_api_key(rotate).await).unwrap().secret;
    known.add("rotated API key", &rotated);
    let wish = v1::CreatePersonalKeyRequest {
        request_id: request_id(),
        display_name: "mine".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let mine = known.counted(owner.create_personal_key(wish).await).unwrap().secret;
    known.add("personal key", &mine);
    for key in [&made.secret, &rotated, &mine] {
        let mut program = server.clients(Headers::default().and("x-api-key", key)).auth;
        known.counted(program.who_am_i(v1::WhoAmIRequest {}).await).unwrap();
        // The secret part alone is as bad.
        known.add(&format!("secret part of {}", &key[..16]), key.split('_').nth(2).unwrap());
    }
    let wish = v1::CreateOperatorKeyRequest {
        request_id: request_id(),
        display_name: "support".to_owned(),
        scope: v1::OperatorScope::Support.into(),
        ..Default::default()
    };
    let key = known.counted(server.operator().auth.create_operator_key(wish).await).unwrap().secret;
    known.add("second operator key", &key);
    let spoilt = format!("{mine}x");
    known.add("spoilt personal key", &spoilt);
    let mut program = server.clients(Headers::default().and("x-api-key", &spoilt)).auth;
    known.counted(program.who_am_i(v1::WhoAmIRequest {}).await).unwrap_err();
}

/// Sign-ins that work and one that does not, and what comes after them.
async fn sign_ins(auth: &mut AuthServiceClient<Inner>, known: &mut Known, (email, password, slug): (&str, &str, &str)) {
    let login = |password: &str, device_token: &str| v1::LoginRequest {
        email: email.to_owned(),
        password: password.to_owned(),
        device_token: device_token.to_owned(),
        tenant: slug.to_owned(),
        ..Default::default()
    };
    let signed_in = known.counted(auth.login(login(password, "")).await).unwrap();
    known.add("device token", &signed_in.device_token);
    known.token("token of a sign-in", &signed_in.access_token.unwrap().token);
    let again = known.counted(auth.login(login(password, &signed_in.device_token)).await).unwrap();
    known.token("token of a known device", &again.access_token.unwrap().token);
    refreshes(auth, known, &signed_in.refresh_token.unwrap().token, &again.refresh_token.unwrap().token).await;
    let wrong = unique("wrong-password");
    known.add("wrong password", &wrong);
    known.add("invented device token", "an-invented-device-token");
    assert_eq!(
        known.counted(auth.login(login(&wrong, "an-invented-device-token")).await).err(),
        Some(Code::Unauthenticated)
    );
}

/// A refresh, its repetition, and a token that comes back after it was spent.
async fn refreshes(auth: &mut AuthServiceClient<Inner>, known: &mut Known, token: &str, spent: &str) {
    let asked = |token: &str| v1::RefreshTokenRequest { refresh_token: token.to_owned() };
    known.add("refresh token of a sign-in", token);
    known.add("refresh token that is spent", spent);
    let done = known.counted(auth.refresh_token(asked(token)).await).unwrap();
    known.token("token of a refresh", &done.access_token.unwrap().token);
    known.add("second refresh token", &done.refresh_token.unwrap().token);
    let again = known.counted(auth.refresh_token(asked(token)).await).unwrap();
    known.token("token of a repeated refresh", &again.access_token.unwrap().token);
    let mut token = spent.to_owned();
    for turn in 0..2 {
        token = known.counted(auth.refresh_token(asked(&token)).await).unwrap().refresh_token.unwrap().token;
        known.add(&format!("refresh token {turn} of the first sign-in"), &token);
    }
    known.counted(auth.refresh_token(asked(spent)).await).unwrap_err();
}

/// A second step, set up and asked for: the authenticator's secret in all its forms, recovery codes, the token that waits.
async fn second_step(server: &Program, known: &mut Known, token: &str, (email, password): (&str, &str)) {
    let mut owner = server.clients(bearer(token)).auth;
    let wish = v1::BeginTotpEnrollmentRequest { request_id: request_id() };
    let begun = known.counted(owner.begin_totp_enrollment(wish.clone()).await).unwrap();
    known.counted(owner.begin_totp_enrollment(wish).await).unwrap();
    known.add("authenticator secret", &begun.secret);
    known.add("authenticator URI", &begun.otpauth_uri);
    let code = code_of(email, &begun.secret, SystemClock.now());
    let confirm = v1::ConfirmTotpRequest { request_id: request_id(), code };
    let codes = known.counted(owner.confirm_totp(confirm).await).unwrap().recovery_codes;
    for (i, code) in codes.iter().enumerate() {
        known.add(&format!("recovery code {i}"), code);
    }
    let login = v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() };
    let mut anonymous = server.clients(Headers::default()).auth;
    let challenge = known.counted(anonymous.login(login).await).unwrap().mfa_challenge.unwrap().token;
    known.add("token that waits", &challenge);
    let recovery = |code: &str| v1::CompleteMfaRequest {
        challenge_token: challenge.clone(),
        code: Some(v1::MfaCode { code: Some(v1::mfa_code::Code::RecoveryCode(code.to_owned())) }),
        ..Default::default()
    };
    let wrong = "QWERTYUIOPASDFGHJKLZXCVB";
    known.add("invented recovery code", wrong);
    known.counted(anonymous.complete_mfa(recovery(wrong)).await).unwrap_err();
    let done = known.counted(anonymous.complete_mfa(recovery(&codes[0])).await).unwrap();
    known.token("token of two steps", &done.access_token.unwrap().token);
    known.add("refresh token of two steps", &done.refresh_token.unwrap().token);
    known.add("device token of two steps", &done.device_token);
}

/// Every row of every table, as text.
async fn rows(database: &Database) -> String {
    let mut admin = connect(&database.admin_url).await;
    run(&mut admin, "set search_path = tenantry").await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'tenantry'::regnamespace and relkind = 'r'",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert!(tables.len() > 10);
    let mut text = String::new();
    for table in tables {
        // Bytes as they are, where they are text.
        let sql = format!("select encode(convert_to(t::text, 'UTF8'), 'escape') from {table} t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut admin).await.unwrap();
        text += &rows.concat();
    }
    text
}

async fn nothing_secret_is_written_anywhere(engine: Engine) {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let database = match engine {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Cluster::shared().fresh_database().await),
    };
    let mut command = serve(&data, database.as_ref());
    command.env("TENANTRY_LOG", "trace").env("TENANTRY_LOG_FORMAT", "json");
    command.env("TENANTRY_WEBHOOK_ALLOW", "127.0.0.1").env("TENANTRY_ALLOW_PRIVATE_ADDRESSES", "true");
    command.env("TENANTRY_DNS_SERVER", name_server().address.to_string());
    let server = Program::start(&data, command);
    let mut known = Known::default();
    if let Some(database) = &database {
        let password = database.app_url.split_once("tenantry_app:").unwrap().1.split('@').next().unwrap();
        known.add("database password in the URL", password);
        known.add(
            "database password",
            &password
                .replace("%20", " ")
                .replace("%3A", ":")
                .replace("%27", "'")
                .replace("%26", "&")
                .replace("%24", "$"),
        );
    }
    scenario(&server, &mut known).await;

    let mut found = known.found_in("the metrics", get(&server.http, "/metrics").await.1.as_bytes());
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0));
    found.extend(known.found_in("the log", log.as_bytes()));
    if let Some(database) = &database {
        let rows = rows(database).await;
        assert!(rows.contains("SignUp") && rows.contains("argon2id"), "the rows were not read");
        found.extend(known.found_in("the rows", rows.as_bytes()));
    } else {
        for file in ["tenantry.db", "tenantry.db-wal"] {
            let bytes = std::fs::read(data.join(file)).unwrap_or_default();
            found.extend(known.found_in(file, &bytes));
        }
        let rows = std::fs::read(data.join("tenantry.db")).unwrap();
        assert!(String::from_utf8_lossy(&rows).contains("argon2id"), "the rows were not read");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(log.contains("\"level\":\"TRACE\""), "the log was not verbose");
    every_request_is_one_line(&log, known.calls);
}

/// One line a request, which says which, by whom and for whom.
fn every_request_is_one_line(log: &str, calls: usize) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answered: Vec<Value> = lines.filter(|line| line["message"] == "answered").collect();
    assert_eq!(answered.len(), calls);
    let mut in_tenants = 0;
    for line in &answered {
        let span = &line["spans"][0];
        let has = |field: &str| span[field].as_str().is_some_and(|text| !text.is_empty());
        assert!(has("request_id") && has("method") && has("caller"), "{line}");
        assert!(line["code"].is_string() && line["millis"].is_number(), "{line}");
        let caller = span["caller"].as_str().unwrap();
        assert_eq!(caller == "anonymous", !has("caller_id"), "{line}");
        if span["method"] == "UsageService/Consume" && line["code"] == "Ok" {
            in_tenants += 1;
            assert!(has("tenant") && ["user", "service", "delegated"].contains(&caller), "{line}");
        }
    }
    assert_eq!(in_tenants, 3);
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_secret_is_written_anywhere() {
        super::nothing_secret_is_written_anywhere(super::Engine::Sqlite).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_secret_is_written_anywhere() {
        super::nothing_secret_is_written_anywhere(super::Engine::Postgres).await;
    }
}
