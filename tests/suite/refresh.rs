//! Refresh tokens: exchanged once, the same again for a moment, and the end of the session when a spent one comes back.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Engine, PASSWORD, Person, assert_refused, on_both_engines};

on_both_engines! {
    a_refresh_gives_the_next_tokens
    a_refreshed_token_names_the_tenant_that_was_switched_to
    callers_at_the_same_time_get_one_and_the_same_token
    ;
    alone
    a_lost_answer_can_be_asked_for_again
    a_lost_answer_can_be_had_late_as_long_as_the_successor_was_not_used
    a_thief_who_comes_late_ends_the_session
    a_token_whose_successor_was_used_ends_the_session
    a_victim_who_comes_late_ends_the_thiefs_session
    a_session_that_idles_is_over
    no_refresh_takes_a_session_beyond_its_length
    a_tenant_says_how_long_a_session_is_good_there_and_nowhere_else
    a_new_sign_in_ends_the_session_that_was_refreshed_least_recently
}

pub(crate) type Answer = Result<Response<v1::RefreshTokenResponse>, Status>;

pub(crate) async fn refresh(t: &Bed, token: &str) -> Answer {
    t.anonymous().auth.refresh_token(v1::RefreshTokenRequest { refresh_token: token.to_owned() }).await
}

/// The refresh token of an answer, whose access token has been tried.
pub(crate) async fn good(t: &Bed, answer: Answer) -> String {
    let tokens = answer.expect("refreshes").into_inner();
    let access = tokens.access_token.expect("a token").token;
    t.with_token(&access).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("a good token");
    tokens.refresh_token.expect("a refresh token").token
}

/// Refreshes with a token that must be good; its successor.
pub(crate) async fn next(t: &Bed, token: &str) -> String {
    good(t, refresh(t, token).await).await
}

pub(crate) fn spent(answer: Answer) {
    assert_refused(answer, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

/// Nothing of the session works any more.
async fn all_is_over(t: &Bed, person: &Person, tokens: &[&str]) {
    let who = t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(who, Code::Unauthenticated, "CREDENTIAL_INVALID");
    for token in tokens {
        spent(refresh(t, token).await);
    }
}

/// Past the window in which the successor is given again.
fn later(t: &Bed) {
    t.clock.advance(TimeDelta::seconds(11));
}

async fn a_refresh_gives_the_next_tokens(t: &Bed) {
    let acme = t.tenant("acme").await;
    let answer = refresh(t, &acme.owner.refresh).await.expect("refreshes").into_inner();
    let access = answer.access_token.expect("a token");
    assert_eq!((access.tenant_id.as_str(), access.expires_in.unwrap().seconds), (acme.id.as_str(), 300));
    let token = answer.refresh_token.expect("a refresh token");
    assert!(token.token.starts_with("tnr_") && token.token != acme.owner.refresh);
    assert!(token.idle_expire_time.unwrap().seconds < token.expire_time.unwrap().seconds);
    // The old access token lives out its minutes.
    t.with_token(&acme.owner.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("still good");
    let mut token = token.token;
    for _ in 0..5 {
        token = next(t, &token).await;
    }
}

async fn a_refreshed_token_names_the_tenant_that_was_switched_to(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    let switch = v1::SwitchTenantRequest { to_tenant: globex.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).auth.switch_tenant(switch).await.expect("switches");
    let answer = refresh(t, &acme.owner.refresh).await.expect("refreshes").into_inner();
    assert_eq!(answer.access_token.expect("a token").tenant_id, globex.id);
}

async fn callers_at_the_same_time_get_one_and_the_same_token(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut token = acme.owner.refresh.clone();
    for _ in 0..20 {
        let calls = (0..100).map(|_| {
            let (mut clients, refresh_token) = (t.anonymous(), token.clone());
            async move { clients.auth.refresh_token(v1::RefreshTokenRequest { refresh_token }).await }
        });
        let answers = futures::future::join_all(calls).await;
        let given: BTreeSet<String> = answers
            .into_iter()
            .map(|answer| answer.expect("refreshes").into_inner().refresh_token.expect("a refresh token").token)
            .collect();
        assert_eq!(given.len(), 1, "{} tokens", given.len());
        token = given.into_iter().next().unwrap();
    }
    let last = next(t, &token).await;
    // The one before was spent, and so was its successor.
    let after = next(t, &last).await;
    spent(refresh(t, &token).await);
    all_is_over(t, &acme.owner, &[&last, &after]).await;
}

async fn a_lost_answer_can_be_asked_for_again(t: Bed) {
    let ann = t.person("ann").await;
    let lost = next(&t, &ann.refresh).await;
    assert_eq!(next(&t, &ann.refresh).await, lost);
    next(&t, &lost).await;
}

async fn a_lost_answer_can_be_had_late_as_long_as_the_successor_was_not_used(t: Bed) {
    let ann = t.person("ann").await;
    let lost = next(&t, &ann.refresh).await;
    later(&t);
    let replaced = next(&t, &ann.refresh).await;
    assert_ne!(replaced, lost);
    // Within the window of the replacement it is given again.
    assert_eq!(next(&t, &ann.refresh).await, replaced);
    let after = next(&t, &replaced).await;
    // The one that was lost is void: whoever shows it has not got it from us lately.
    spent(refresh(&t, &lost).await);
    all_is_over(&t, &ann, &[&replaced, &after]).await;
}

async fn a_thief_who_comes_late_ends_the_session(t: Bed) {
    // The victim goes from a to b; the answer arrives. The thief shows a, late, and gets c; the victim shows b.
    let ann = t.person("ann").await;
    let b = next(&t, &ann.refresh).await;
    later(&t);
    let c = next(&t, &ann.refresh).await;
    spent(refresh(&t, &b).await);
    all_is_over(&t, &ann, &[&c, &b, &ann.refresh]).await;
}

async fn a_token_whose_successor_was_used_ends_the_session(t: Bed) {
    let ann = t.person("ann").await;
    let b = next(&t, &ann.refresh).await;
    let c = next(&t, &b).await;
    // At once: the window is that of c alone.
    spent(refresh(&t, &ann.refresh).await);
    all_is_over(&t, &ann, &[&c, &b, &ann.refresh]).await;
}

async fn a_victim_who_comes_late_ends_the_thiefs_session(t: Bed) {
    // The thief was first and went on; the victim still has a.
    let ann = t.person("ann").await;
    let stolen = next(&t, &ann.refresh).await;
    let thief = next(&t, &stolen).await;
    later(&t);
    spent(refresh(&t, &ann.refresh).await);
    all_is_over(&t, &ann, &[&thief, &stolen]).await;
    let rows: Vec<(String, i64)> = t
        .rows("select cast(changes as text), actor_kind from platform_audit where action = 'AuthService/RefreshToken' and $1 is not null", &ann.id)
        .await;
    let [(changes, 1)] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(changes.contains("reuse") && changes.contains(&ann.id), "{changes}");
    let mail = t.last_mail_to(&ann.email).await;
    assert!(mail.contains("signed one of your devices out") && mail.contains("127.0.0.1"), "{mail}");
}

async fn a_session_that_idles_is_over(t: Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    let bob = remembered(&t, &bob).await;
    t.clock.advance(TimeDelta::hours(11));
    let kept = next(&t, &ann.refresh).await;
    t.clock.advance(TimeDelta::hours(12));
    spent(refresh(&t, &kept).await);
    // Whoever asked to be remembered is.
    t.clock.advance(TimeDelta::days(28));
    let token = next(&t, &bob).await;
    t.clock.advance(TimeDelta::days(30));
    spent(refresh(&t, &token).await);
}

async fn no_refresh_takes_a_session_beyond_its_length(t: Bed) {
    let ann = t.person("ann").await;
    let mut token = ann.refresh.clone();
    for _ in 0..15 {
        t.clock.advance(TimeDelta::hours(11));
        token = next(&t, &token).await;
    }
    // 165 of 168 hours are over.
    t.clock.advance(TimeDelta::minutes(178));
    let answer = refresh(&t, &token).await.expect("refreshes").into_inner();
    assert!(answer.access_token.unwrap().expires_in.unwrap().seconds <= 120);
    t.clock.advance(TimeDelta::seconds(121));
    spent(refresh(&t, &answer.refresh_token.unwrap().token).await);
}

async fn a_tenant_says_how_long_a_session_is_good_there_and_nowhere_else(t: Bed) {
    let (lax, strict) = (t.tenant("lax").await, t.tenant("strict").await);
    let ann = t.member(&lax, "member").await;
    t.join(&strict, &ann, "viewer").await;
    let hour = v1::SecurityPolicy {
        session_length: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..Default::default()
    };
    let settings = v1::Settings { security: Some(hour), ..Default::default() };
    let update = v1::UpdateSettingsRequest {
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths: vec!["security.session_length".to_owned()] }),
        ..Default::default()
    };
    t.with_token(&strict.owner.token).tenants.update_settings(update).await.expect("sets");
    let ann = t.login(&ann, &strict.id).await;
    let look = async |token: &str| t.with_token(token).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    look(&ann.token).await.expect("is in");
    t.clock.advance(TimeDelta::minutes(59));
    let again = refresh(&t, &ann.refresh).await.expect("refreshes").into_inner();
    let token = again.access_token.unwrap().token;
    look(&token).await.expect("is in");
    t.clock.advance(TimeDelta::seconds(61));
    assert_refused(look(&token).await, Code::PermissionDenied, "SESSION_ENDED");
    // Elsewhere the session goes on, and back into this one with a new sign-in only.
    let again = refresh(&t, &again.refresh_token.unwrap().token).await.expect("refreshes").into_inner();
    let token = again.access_token.unwrap().token;
    let switch = |to: &str| v1::SwitchTenantRequest { to_tenant: to.to_owned(), ..Default::default() };
    let there = t.with_token(&token).auth.switch_tenant(switch(&lax.id)).await.expect("goes away").into_inner();
    let there = there.access_token.unwrap().token;
    look(&there).await.expect("is in");
    let back = t.with_token(&there).auth.switch_tenant(switch(&strict.id)).await;
    assert_refused(back, Code::PermissionDenied, "SESSION_ENDED");
    let prove = v1::ReauthenticateRequest { password: PASSWORD.to_owned(), ..Default::default() };
    let proven = t.with_token(&token).auth.reauthenticate(prove).await.expect("also from there").into_inner();
    let token = proven.access_token.unwrap().token;
    t.with_token(&token).auth.switch_tenant(switch(&strict.id)).await.expect("is in again");
}

async fn a_new_sign_in_ends_the_session_that_was_refreshed_least_recently(t: Bed) {
    let t = Bed::private(t.engine, &["--max-sessions=3"]).await;
    let ann = t.person("ann").await;
    let (second, third) = (t.login(&ann, "").await, t.login(&ann, "").await);
    t.clock.advance(TimeDelta::seconds(20));
    let first = next(&t, &ann.refresh).await;
    let fourth = t.login(&ann, "").await;
    all_is_over(&t, &second, &[&second.refresh]).await;
    for token in [&first, &third.refresh, &fourth.refresh] {
        next(&t, token).await;
    }
}

/// Signs somebody in who asks to be remembered; the refresh token.
async fn remembered(t: &Bed, person: &Person) -> String {
    let asked = v1::LoginRequest {
        email: person.email.clone(),
        password: PASSWORD.to_owned(),
        remember_me: true,
        ..Default::default()
    };
    let done = t.anonymous().auth.login(asked).await.expect("signs in").into_inner();
    done.refresh_token.expect("a refresh token").token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_two_servers_get_one_and_the_same_token() {
    let t = Bed::private(Engine::Postgres, &[]).await;
    let other = t.sibling(&[]).await;
    let ann = t.person("ann").await;
    let mut token = ann.refresh.clone();
    for _ in 0..20 {
        let calls = (0..100).map(|i| {
            let mut clients = if i % 2 == 0 { t.anonymous() } else { other.anonymous() };
            let refresh_token = token.clone();
            async move { clients.auth.refresh_token(v1::RefreshTokenRequest { refresh_token }).await }
        });
        let answers = futures::future::join_all(calls).await;
        let given: BTreeSet<String> = answers
            .into_iter()
            .map(|answer| answer.expect("refreshes").into_inner().refresh_token.expect("a refresh token").token)
            .collect();
        assert_eq!(given.len(), 1, "{} tokens", given.len());
        token = given.into_iter().next().unwrap();
    }
    next(&other, &token).await;
}
