//! The keys that sign access tokens: published before they sign, rotated without breaking a token, withdrawn at once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Engine, Person, assert_refused, on_both_engines, request_id, until};
use crate::program::get;
use crate::refresh::refresh;

on_both_engines! {
    ;
    alone
    a_key_is_published_before_it_signs_and_known_after_it_has
    keys_are_rotated_by_the_clock
    a_withdrawn_key_is_refused_at_once_and_sessions_go_on
    tokens_name_whom_they_are_for
}

async fn keys(t: &Bed) -> Vec<v1::SigningKey> {
    let answer = t.operator().auth.list_signing_keys(v1::ListSigningKeysRequest {}).await;
    answer.expect("lists").into_inner().keys
}

/// The key in a state that there is one of.
async fn key_in(t: &Bed, state: v1::SigningKeyState) -> String {
    let all = keys(t).await;
    let mut found = all.iter().filter(|key| key.state() == state);
    let key = found.next().unwrap_or_else(|| panic!("none: {all:?}"));
    assert!(found.next().is_none(), "{all:?}");
    key.kid.clone()
}

async fn rotate(t: &Bed) {
    let request = v1::RotateSigningKeyRequest { request_id: request_id() };
    t.operator().auth.rotate_signing_key(request).await.expect("rotates");
}

async fn is_good(t: &Bed, token: &str) {
    t.with_token(token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("a good token");
}

fn kid(token: &str) -> String {
    decode_header(token).expect("a header").kid.expect("a key's name")
}

/// Verifies a token as somebody does who has the published keys alone.
fn verified_by(jwks: &str, token: &str, audience: &str) -> Value {
    let set: JwkSet = serde_json::from_str(jwks).expect("a key set");
    let key = set.find(&kid(token)).unwrap_or_else(|| panic!("{} is not in {jwks}", kid(token)));
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[audience]);
    validation.validate_exp = false;
    decode::<Value>(token, &DecodingKey::from_jwk(key).expect("a key"), &validation).expect("verifies").claims
}

async fn jwks(t: &Bed) -> String {
    // The first thing that a job does is to make the next key.
    t.run_jobs().await;
    let (code, body) = get(&t.http, "/.well-known/jwks.json").await;
    assert_eq!(code, 200);
    let by_rpc = t.anonymous().auth.get_jwks(v1::GetJwksRequest {}).await.expect("shows").into_inner().keys;
    let by_http: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(by_http["keys"].as_array().expect("keys").len(), by_rpc.len());
    for (one, other) in by_http["keys"].as_array().unwrap().iter().zip(&by_rpc) {
        assert_eq!((one["kid"].as_str(), one["x"].as_str()), (Some(other.kid.as_str()), Some(other.x.as_str())));
        assert_eq!(
            (other.kty.as_str(), other.crv.as_str(), other.alg.as_str(), other.r#use.as_str()),
            ("OKP", "Ed25519", "EdDSA", "sig")
        );
    }
    body
}

async fn a_key_is_published_before_it_signs_and_known_after_it_has(t: Bed) {
    t.run_jobs().await;
    let acme = t.tenant("acme").await;
    let (first, second) = (key_in(&t, v1::SigningKeyState::Current).await, key_in(&t, v1::SigningKeyState::Next).await);
    assert_eq!(kid(&acme.owner.token), first);
    let published = jwks(&t).await;
    assert!(published.contains(&first) && published.contains(&second), "{published}");
    let claims = verified_by(&published, &acme.owner.token, "tenantry");
    assert_eq!(claims["sub"], acme.owner.id.as_str());

    t.clock.advance(TimeDelta::minutes(58));
    let refused = t.operator().auth.rotate_signing_key(v1::RotateSigningKeyRequest::default()).await;
    assert_refused(refused, Code::FailedPrecondition, "SIGNING_KEY_TOO_NEW");
    let old = t.login(&acme.owner, "").await;
    t.clock.advance(TimeDelta::minutes(3));
    rotate(&t).await;
    // Whoever asked for the keys before the rotation can verify what the new one signs.
    let new = t.login(&acme.owner, "").await;
    assert_eq!(kid(&new.token), second);
    verified_by(&published, &new.token, "tenantry");
    for token in [&old.token, &new.token] {
        is_good(&t, token).await;
    }
    let refused = t.operator().auth.rotate_signing_key(v1::RotateSigningKeyRequest::default()).await;
    assert_refused(refused, Code::FailedPrecondition, "SIGNING_KEY_TOO_NEW");

    t.clock.advance(TimeDelta::minutes(74));
    t.run_jobs().await;
    assert_eq!(key_in(&t, v1::SigningKeyState::Retired).await, first);
    t.clock.advance(TimeDelta::minutes(2));
    until("the retired key is gone", async || {
        t.run_jobs().await;
        keys(&t).await.iter().any(|key| key.state() == v1::SigningKeyState::Gone && key.kid == first)
    })
    .await;
    assert!(!jwks(&t).await.contains(&first));
    let bytes: Vec<(Vec<u8>,)> =
        t.rows("select sealed from signing_key where state = 'gone' and $1 is not null", &acme.id).await;
    assert_eq!(bytes, [(Vec::new(),)], "the private half is wiped");
}

async fn keys_are_rotated_by_the_clock(t: Bed) {
    t.run_jobs().await;
    let (first, second) = (key_in(&t, v1::SigningKeyState::Current).await, key_in(&t, v1::SigningKeyState::Next).await);
    t.clock.advance(TimeDelta::days(29));
    t.run_jobs().await;
    assert_eq!(key_in(&t, v1::SigningKeyState::Current).await, first);
    t.clock.advance(TimeDelta::days(1));
    until("the next key signs", async || {
        t.run_jobs().await;
        keys(&t).await.iter().any(|key| key.state() == v1::SigningKeyState::Current && key.kid == second)
    })
    .await;
    let acme = t.tenant("acme").await;
    assert_eq!(kid(&acme.owner.token), second);
    // Also over a restart.
    let t = t.restart().await;
    is_good(&t, &acme.owner.token).await;
    assert_eq!(kid(&t.login(&acme.owner, "").await.token), second);
}

fn revoke(kid: &str) -> v1::RevokeSigningKeyRequest {
    v1::RevokeSigningKeyRequest { kid: kid.to_owned(), request_id: request_id() }
}

async fn a_withdrawn_key_is_refused_at_once_and_sessions_go_on(t: Bed) {
    t.run_jobs().await;
    let acme = t.tenant("acme").await;
    let (first, second) = (key_in(&t, v1::SigningKeyState::Current).await, key_in(&t, v1::SigningKeyState::Next).await);
    for absent in ["0123456789abcdef", "../../x"] {
        let refused = t.operator().auth.revoke_signing_key(revoke(absent)).await;
        assert_refused(refused, Code::NotFound, "SIGNING_KEY_NOT_FOUND");
    }
    t.operator().auth.revoke_signing_key(revoke(&first)).await.expect("withdraws");
    let refused = t.with_token(&acme.owner.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::Unauthenticated, "CREDENTIAL_INVALID");
    assert!(!jwks(&t).await.contains(&first));
    let fresh = refresh(&t, &acme.owner.refresh).await.expect("refreshes").into_inner().access_token.unwrap().token;
    assert_eq!(kid(&fresh), second);
    is_good(&t, &fresh).await;
    let again = t.operator().auth.revoke_signing_key(revoke(&first)).await;
    assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
    // A next one may be withdrawn as well; there is another at once.
    let next = key_in(&t, v1::SigningKeyState::Next).await;
    t.operator().auth.revoke_signing_key(revoke(&next)).await.expect("withdraws");
    assert_ne!(key_in(&t, v1::SigningKeyState::Next).await, next);
    is_good(&t, &fresh).await;
}

async fn tokens_name_whom_they_are_for(t: Bed) {
    let acme = t.tenant("acme").await;
    let aud = |token: &str| {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&payload).unwrap()["aud"].clone()
    };
    assert_eq!(aud(&acme.owner.token), "tenantry");
    let flags = ["--extra-audiences=billing,reports", "--tenant-audience=https://{tenant_id}.api.example.com"];
    let t = Bed::private(t.engine, &flags).await;
    let acme = t.tenant("acme").await;
    let of_tenant = format!("https://{}.api.example.com", acme.id);
    assert_eq!(aud(&acme.owner.token), serde_json::json!(["tenantry", "billing", "reports", of_tenant]));
    is_good(&t, &acme.owner.token).await;
    let published = jwks(&t).await;
    for audience in ["billing", "reports", &of_tenant] {
        verified_by(&published, &acme.owner.token, audience);
    }
    let alone = t.person("alone").await;
    assert_eq!(aud(&alone.token), serde_json::json!(["tenantry", "billing", "reports"]));
}

/// Who has waited for the keys while another server inserted one must see that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawals_at_the_same_time_leave_a_key_that_signs() {
    let one = Bed::private(Engine::Postgres, &[]).await;
    let other = one.sibling(&[]).await;
    one.run_jobs().await;
    let acme = one.tenant("acme").await;
    for round in 0..3 {
        let current = key_in(&one, v1::SigningKeyState::Current).await;
        let next = key_in(&one, v1::SigningKeyState::Next).await;
        // Both wait at the lock of somebody else, and have looked by then.
        let mut admin = one.database.as_ref().expect("on PostgreSQL").administrator().await;
        let mut held = sqlx::Connection::begin(&mut admin).await.expect("begins");
        sqlx::query("select kid from signing_key for update").fetch_all(&mut *held).await.expect("locks");
        let (mut a, mut b) = (one.operator().auth, other.operator().auth);
        let (first, second, ()) = tokio::join!(
            a.revoke_signing_key(revoke(&current)),
            b.revoke_signing_key(revoke(&next)),
            async {
                let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
                until("both wait", async || {
                    let mut admin = one.database.as_ref().expect("on PostgreSQL").administrator().await;
                    sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut admin).await.expect("counts") >= 2
                })
                .await;
                held.rollback().await.expect("lets go");
            }
        );
        first.expect("withdraws");
        second.expect("withdraws");
        // One each, and neither of those.
        for state in [v1::SigningKeyState::Current, v1::SigningKeyState::Next] {
            let kid = key_in(&one, state).await;
            assert!(kid != current && kid != next, "round {round}");
        }
        // A server signs with it as soon as it has read the keys anew.
        until("a token is good", async || {
            let person = one.login(&acme.owner, "").await;
            one.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok()
        })
        .await;
    }
}

/// Two servers whose clocks are half a minute off, one ahead and one behind.
async fn two_servers() -> [Bed; 2] {
    let ahead = Bed::private(Engine::Postgres, &[]).await;
    let behind = ahead.sibling(&[]).await;
    ahead.clock.advance(TimeDelta::seconds(30));
    behind.clock.advance(TimeDelta::seconds(-30));
    [ahead, behind]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_breaks_by_a_rotation_although_clocks_differ() {
    let servers = two_servers().await;
    let [ahead, behind] = &servers;
    ahead.run_jobs().await;
    let acme = ahead.tenant("acme").await;
    for turn in 0..6 {
        let mut before = Vec::new();
        for server in &servers {
            server.clock.advance(TimeDelta::minutes(62));
            before.push(server.login(&acme.owner, "").await);
        }
        everybody_takes(&servers, &before).await;
        rotate(if turn % 2 == 0 { ahead } else { behind }).await;
        let mut after = Vec::new();
        for server in &servers {
            after.push(server.login(&acme.owner, "").await);
        }
        everybody_takes(&servers, &after).await;
        // Minutes later, the tokens of before are as good as they would be without.
        for server in &servers {
            server.clock.advance(TimeDelta::seconds(180));
        }
        everybody_takes(&servers, &[before, after].concat()).await;
        // The hour that passes now is one of the servers' clocks; they read the keys anew by seconds of the machine's.
        let current = key_in(ahead, v1::SigningKeyState::Current).await;
        for server in &servers {
            let signs = async || kid(&server.login(&acme.owner, "").await.token) == current;
            until("the server signs with the new key", signs).await;
        }
    }
}

async fn everybody_takes(servers: &[Bed; 2], people: &[Person]) {
    for server in servers {
        for person in people {
            is_good(server, &person.token).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_withdrawn_on_one_server_is_refused_by_the_other() {
    let servers = two_servers().await;
    let [ahead, behind] = &servers;
    ahead.run_jobs().await;
    let acme = ahead.tenant("acme").await;
    is_good(behind, &acme.owner.token).await;
    let first = key_in(ahead, v1::SigningKeyState::Current).await;
    ahead.operator().auth.revoke_signing_key(revoke(&first)).await.expect("withdraws");
    until("the other server has heard of it", async || {
        let refused = behind.with_token(&acme.owner.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
        refused.is_err_and(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    // The other one signs with the new key as soon as it has read the keys anew; until then its tokens are refused.
    until("the other server has read the keys anew", async || {
        let person = behind.login(&acme.owner, "").await;
        ahead.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok()
    })
    .await;
}
