//! Single sign-on, with providers that are slow, large or wordy, and ones that remember people for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use futures::future::{join, join_all};
use serde_json::{Value, json};
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tokio::net::TcpListener;
use tonic::{Code, Response};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Tenant, assert_refused, on_both_engines, refusal, runtime, unique, until};
use crate::oidc::{
    self, begin, begin_with, browse, callback, complete, connect, connected, connection, crooked, proven, providers,
    sign_in, somebody, with,
};

on_both_engines! {
    a_test_of_a_provider_leaves_nothing_behind
    a_provider_that_says_too_much_is_not_listened_to
    what_a_provider_says_is_told_in_brief
    a_sign_in_is_as_recent_as_the_one_at_the_provider
    ;
    alone
    a_provider_that_does_not_answer_costs_others_nothing
}

/// A provider that takes calls and never answers.
struct Silent {
    issuer: String,
    calls: Arc<AtomicUsize>,
}

impl Silent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let listen = async move {
            let mut held = Vec::new();
            while let Ok((call, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                held.push(call);
            }
        };
        runtime().spawn(listen);
        Self { issuer, calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn a_provider_that_does_not_answer_costs_others_nothing(t: Bed) {
    let silent = Silent::start().await;
    let acme = t.tenant("acme").await;
    connect(&t, &acme, connection(&silent.issuer, "us")).await;
    let (globex, domain) = connected(&t, "globex").await;
    let begun = async || begin(&t, &acme.id, &json!({ "sub": "x" })).await.map(|_| Response::new(()));
    // While many wait for it, people come in elsewhere.
    let elsewhere = async {
        until("it is asked", async || silent.calls() > 0).await;
        sign_in(&t, &globex.id, &somebody(&domain)).await.expect("signs in");
    };
    let (many, ()) = join(join_all((0..24).map(|_| begun())), elsewhere).await;
    let many: Vec<_> = many.into_iter().map(refusal).collect();
    let told = |code: Code, reason: &str| many.iter().filter(|told| **told == (code, reason.to_owned())).count();
    let (waited, refused) =
        (told(Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE"), told(Code::ResourceExhausted, "OVERLOADED"));
    assert!(waited + refused == 24 && waited >= 1 && refused >= 1, "{many:?}");
    assert_eq!(silent.calls(), 1, "one asks for all of them");
    assert_refused(begun().await, Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE");
    assert_eq!(silent.calls(), 1, "what came of it is remembered");
    t.clock.advance(TimeDelta::seconds(11));
    assert_refused(begun().await, Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE");
    assert_eq!(silent.calls(), 2, "for a while");
}

async fn test(t: &Bed, tenant: &Tenant, issuer: &str) -> v1::TestSsoConnectionResponse {
    let request = v1::TestSsoConnectionRequest { issuer: issuer.to_owned(), ..Default::default() };
    t.with_token(&tenant.owner.token).tenants.test_sso_connection(request).await.expect("an answer").into_inner()
}

async fn a_test_of_a_provider_leaves_nothing_behind(t: &Bed) {
    let acme = t.tenant("acme").await;
    let issuer = crooked();
    let asked = async || -> usize {
        let answer = reqwest::get(format!("{issuer}/asked")).await.expect("an answer");
        answer.text().await.expect("a text").parse().expect("a number")
    };
    assert!(test(t, &acme, &issuer).await.reachable);
    connect(t, &acme, connection(&issuer, "us")).await;
    for _ in 0..2 {
        begin(t, &acme.id, &json!({ "sub": "x" })).await.expect("begins");
        assert_eq!(asked().await, 2, "a sign-in remembers, a test does not");
    }
    assert!(test(t, &acme, "").await.reachable);
    assert_eq!(asked().await, 3, "nor does it look at what is remembered");
}

async fn a_provider_that_says_too_much_is_not_listened_to(t: &Bed) {
    let acme = t.tenant("acme").await;
    for (name, problem) in [("large", "too large"), ("many", "more than 50 keys")] {
        let issuer = format!("{}/crooked/{}", providers(), unique(name));
        let tried = test(t, &acme, &issuer).await;
        assert!(!tried.reachable && tried.problem.contains(problem), "{tried:?}");
        connect(t, &acme, connection(&issuer, "us")).await;
        begin(t, &acme.id, &json!({ "sub": "x" })).await.map(|_| ()).expect_err("no sign-in either");
    }
}

async fn what_a_provider_says_is_told_in_brief(t: &Bed) {
    let acme = t.tenant("acme").await;
    connect(t, &acme, connection(&crooked(), "us")).await;
    let status = sign_in(t, &acme.id, &json!({ "sub": "x", "wrong": "wordy" })).await.expect_err("a refusal");
    let told = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!((status.code(), told.reason.as_str()), (Code::Unauthenticated, "SSO_REFUSED"));
    for text in [status.message(), &told.metadata["problem"]] {
        assert!(text.contains("??<b>?xxx") && text.len() < 400, "{text}");
        assert!(text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{text}");
    }
}

async fn a_sign_in_is_as_recent_as_the_one_at_the_provider(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    connect(t, &acme, v1::SsoConnection { default_role: "admin".to_owned(), ..connection(&crooked(), "us") }).await;
    let now = t.clock.now().seconds();
    // Who has proven themselves again has done so in the future, by the provider's clock.
    let ada = with(&somebody(&domain), json!({ "auth_time": now - 3600, "auth_time_again": now + 86400 }));
    let end = v1::DeleteSsoConnectionRequest::default();
    let token = oidc::token(t, &acme.id, &ada).await;
    let told = t.with_token(&token).tenants.delete_sso_connection(end.clone()).await;
    assert_refused(told, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
    let begun = begin_with(t, &acme.id, &ada, true).await.expect("begins");
    let done = complete(t, callback(&browse(&begun.url).await, &begun.binding)).await.expect("signs in").into_inner();
    let token = done.access_token.expect("a token").token;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert!(claims["auth_time"].as_i64() <= claims["iat"].as_i64(), "never later than now: {claims}");
    t.with_token(&token).tenants.delete_sso_connection(end).await.expect("just signed in");
}
