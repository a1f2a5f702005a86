//! Passwords: changing them, how long they are good for, and how often somebody may guess.

use std::net::IpAddr;

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::api_keys;
use crate::harness::{
    Bed, Clients, Engine, Headers, PASSWORD, Person, Tenant, assert_refused, on_both_engines, refusal, request_id,
    unique, wrong_fields,
};

on_both_engines! {
    a_changed_password_ends_all_other_sessions
    who_changes_a_password_proves_to_be_there
    a_repeated_change_is_the_first_one
    wrong_passwords_are_slowed_in_their_network_alone
    addresses_without_an_account_are_slowed_alike
    a_known_device_comes_in_while_others_are_slowed
    of_guesses_at_once_no_more_are_made_than_may_be
    a_right_password_forgives_the_wrong_ones
    a_tenant_may_allow_fewer_guesses
    a_tenant_that_is_not_entered_with_a_password_opens_to_its_owners_only
    ;
    alone
    the_old_password_wants_a_recent_sign_in_when_it_is_not_given
    beyond_the_total_each_further_network_has_one_attempt_at_a_time
    a_password_expires_as_the_strictest_tenant_says
}

const OTHER: &str = "another passphrase entirely";

fn login(email: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() }
}

fn change(old: &str, new: &str) -> v1::ChangePasswordRequest {
    v1::ChangePasswordRequest { old_password: old.to_owned(), new_password: new.to_owned(), ..Default::default() }
}

/// Clients whose calls come from another address of this machine: each third number is a network of its own.
pub(crate) fn from_network(address: &str, third: u8) -> Clients {
    let source: IpAddr = format!("127.0.{third}.1").parse().expect("an address");
    let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address").local_address(Some(source));
    Clients::new(endpoint.connect_lazy(), Headers::default())
}

async fn try_from(t: &Bed, network: u8, email: &str, password: &str) -> Result<Response<v1::LoginResponse>, Status> {
    from_network(&t.address, network).auth.login(login(email, password)).await
}

/// How long a refused caller is told to wait, in seconds.
#[track_caller]
fn wait<T: std::fmt::Debug>(refused: Result<T, Status>) -> u64 {
    let status = refused.expect_err("a refusal");
    let details = status.get_error_details();
    let told = (status.code(), details.error_info().expect("a reason").reason.as_str());
    assert_eq!(told, (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
    details.retry_info().expect("RetryInfo").retry_delay.expect("a delay").as_secs()
}

async fn guess(t: &Bed, network: u8, email: &str, times: usize) {
    for _ in 0..times {
        let wrong = try_from(t, network, email, "not the password").await;
        assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    }
}

async fn is_in(t: &Bed, person: &Person) -> bool {
    let told = t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    if told.is_err() {
        assert_refused(told, Code::Unauthenticated, "CREDENTIAL_INVALID");
        return false;
    }
    true
}

/// Changes security settings of a tenant.
async fn secure(t: &Bed, tenant: &Tenant, security: v1::SecurityPolicy) {
    let settings = Some(v1::Settings { security: Some(security), ..Default::default() });
    let owner = t.login(&tenant.owner, &tenant.id).await;
    let update = v1::UpdateSettingsRequest { settings, ..Default::default() };
    t.with_token(&owner.token).tenants.update_settings(update).await.expect("is set");
}

async fn a_changed_password_ends_all_other_sessions(t: &Bed) {
    let ann = t.person("ann").await;
    let (elsewhere, here) = (t.login(&ann, "").await, t.login(&ann, "").await);
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    if let Some(second) = &second {
        assert!(is_in(second, &elsewhere).await);
    }
    t.with_token(&here.token).auth.change_password(change(PASSWORD, OTHER)).await.expect("is changed");
    for t in [Some(t), second.as_ref()].into_iter().flatten() {
        assert!(is_in(t, &here).await, "the session that changed it goes on");
        for other in [&ann, &elsewhere] {
            assert!(!is_in(t, other).await);
            let refresh = v1::RefreshTokenRequest { refresh_token: other.refresh.clone() };
            let refused = t.anonymous().auth.refresh_token(refresh).await;
            assert_refused(refused, Code::Unauthenticated, "CREDENTIAL_INVALID");
        }
        assert_refused(
            t.anonymous().auth.login(login(&ann.email, PASSWORD)).await,
            Code::Unauthenticated,
            "PASSWORD_WRONG",
        );
        t.anonymous().auth.login(login(&ann.email, OTHER)).await.expect("signs in");
    }
    let refresh = v1::RefreshTokenRequest { refresh_token: here.refresh.clone() };
    t.anonymous().auth.refresh_token(refresh).await.expect("it is refreshed, too");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn who_changes_a_password_proves_to_be_there(t: &Bed) {
    let ann = t.person("ann").await;
    let mut as_ann = t.with_token(&ann.token);
    let wrong = as_ann.auth.change_password(change("not her password", OTHER)).await;
    assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    let weak = as_ann.auth.change_password(change(PASSWORD, "Liverpool1")).await;
    assert_eq!(wrong_fields(weak), ["new_password"]);
    let same = as_ann.auth.change_password(change(PASSWORD, PASSWORD)).await;
    assert_eq!(wrong_fields(same), ["new_password"]);
    assert_refused(
        t.anonymous().auth.change_password(change(PASSWORD, OTHER)).await,
        Code::Unauthenticated,
        "CREDENTIAL_MISSING",
    );
    // A stolen token is no place to guess from.
    for _ in 0..9 {
        as_ann.auth.change_password(change("not her password", OTHER)).await.unwrap_err();
    }
    wait(as_ann.auth.change_password(change(PASSWORD, OTHER)).await);
    t.anonymous().auth.login(login(&ann.email, OTHER)).await.expect_err("it is the old one");
    // Within ten minutes of the sign-in it goes without.
    as_ann.auth.change_password(change("", OTHER)).await.expect("is changed");
}

async fn the_old_password_wants_a_recent_sign_in_when_it_is_not_given(t: Bed) {
    let ann = t.person("ann").await;
    t.clock.advance(TimeDelta::minutes(11));
    let refresh = v1::RefreshTokenRequest { refresh_token: ann.refresh };
    let token = t.anonymous().auth.refresh_token(refresh).await.unwrap().into_inner().access_token.unwrap().token;
    let mut as_ann = t.with_token(&token);
    let late = as_ann.auth.change_password(change("", OTHER)).await;
    assert_refused(late, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
    as_ann.auth.change_password(change(PASSWORD, OTHER)).await.expect("with the old one it goes");
}

async fn a_repeated_change_is_the_first_one(t: &Bed) {
    let ann = t.person("ann").await;
    let asked = v1::ChangePasswordRequest { request_id: request_id(), ..change(PASSWORD, OTHER) };
    let mut as_ann = t.with_token(&ann.token);
    as_ann.auth.change_password(asked.clone()).await.expect("is changed");
    as_ann.auth.change_password(asked).await.expect("the first answer again");
    // Of two at once with the same proof one changes it.
    let (mut one, mut two) = (t.with_token(&ann.token), t.with_token(&ann.token));
    let both = join_all([
        one.auth.change_password(change(OTHER, "a third passphrase")),
        two.auth.change_password(change(OTHER, "a fourth passphrase")),
    ]);
    assert!(both.await.into_iter().flatten().count() >= 1);
    assert!(is_in(t, &ann).await);
}

async fn wrong_passwords_are_slowed_in_their_network_alone(t: &Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    guess(t, 21, &ann.email, 10).await;
    for password in ["not the password", PASSWORD] {
        let seconds = wait(try_from(t, 21, &ann.email, password).await);
        assert!((800..=900).contains(&seconds), "{seconds}");
    }
    try_from(t, 22, &ann.email, PASSWORD).await.expect("from elsewhere she comes in");
    try_from(t, 21, &bob.email, PASSWORD).await.expect("somebody else is not concerned");
}

async fn addresses_without_an_account_are_slowed_alike(t: &Bed) {
    let (ann, nobody) = (t.person("ann").await, format!("{}@example.com", unique("nobody")));
    let mut messages = Vec::new();
    for (n, email) in [&ann.email, &nobody].into_iter().enumerate() {
        let network = 31 + u8::try_from(n).unwrap();
        guess(t, network, email, 10).await;
        let refused = try_from(t, network, email, "not the password").await.unwrap_err();
        let wait = wait::<()>(Err(refused.clone()));
        assert!((800..=900).contains(&wait));
        messages.push(refused.message().to_owned());
    }
    assert_eq!(messages[0], messages[1]);
}

async fn a_known_device_comes_in_while_others_are_slowed(t: &Bed) {
    let ann = t.person("ann").await;
    let device_token = try_from(t, 41, &ann.email, PASSWORD).await.unwrap().into_inner().device_token;
    guess(t, 41, &ann.email, 10).await;
    wait(try_from(t, 41, &ann.email, PASSWORD).await);
    let known = v1::LoginRequest { device_token: device_token.clone(), ..login(&ann.email, PASSWORD) };
    from_network(&t.address, 41).auth.login(known).await.expect("the device is known");
    // It has a counter of its own, too.
    let wrong = v1::LoginRequest { device_token, ..login(&ann.email, "not the password") };
    for _ in 0..10 {
        from_network(&t.address, 41).auth.login(wrong.clone()).await.unwrap_err();
    }
    wait(from_network(&t.address, 41).auth.login(wrong).await);
}

async fn of_guesses_at_once_no_more_are_made_than_may_be(t: &Bed) {
    let ann = t.person("ann").await;
    // On PostgreSQL half of them go to a second server.
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let guesses = (0..40).map(|n| {
        let bed = if n % 2 == 0 { t } else { second.as_ref().unwrap_or(t) };
        try_from(bed, 51, &ann.email, "not the password")
    });
    let told: Vec<_> = join_all(guesses).await.into_iter().map(refusal).collect();
    let made = told.iter().filter(|(_, reason)| reason == "PASSWORD_WRONG").count();
    assert!((1..=10).contains(&made), "{made}");
    let others = ["PASSWORD_WRONG", "TOO_MANY_ATTEMPTS", "OVERLOADED", "DATABASE_UNAVAILABLE"];
    assert!(told.iter().all(|(_, reason)| others.contains(&reason.as_str())), "{told:?}");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn a_right_password_forgives_the_wrong_ones(t: &Bed) {
    let ann = t.person("ann").await;
    for _ in 0..3 {
        guess(t, 61, &ann.email, 9).await;
        try_from(t, 61, &ann.email, PASSWORD).await.expect("signs in");
    }
}

async fn beyond_the_total_each_further_network_has_one_attempt_at_a_time(t: Bed) {
    let t = {
        let engine = t.engine;
        drop(t);
        Bed::private(engine, &["--sign-in-attempts=3", "--sign-in-attempts-total=6"]).await
    };
    let ann = t.person("ann").await;
    for network in [71, 72] {
        guess(&t, network, &ann.email, 3).await;
    }
    // Full: a new network has one attempt, and the next one half a minute later.
    guess(&t, 73, &ann.email, 1).await;
    let seconds = wait(try_from(&t, 73, &ann.email, PASSWORD).await);
    assert!((1..=30).contains(&seconds), "{seconds}");
    try_from(&t, 74, &ann.email, PASSWORD).await.expect("her first from here");
    t.clock.advance(TimeDelta::seconds(31));
    try_from(&t, 73, &ann.email, PASSWORD).await.expect("after the wait");
    wait(try_from(&t, 71, &ann.email, PASSWORD).await);
    // After the window everything is as before.
    t.clock.advance(TimeDelta::minutes(15));
    guess(&t, 71, &ann.email, 3).await;
}

async fn a_tenant_may_allow_fewer_guesses(t: &Bed) {
    let (acme, lax) = (t.tenant("acme").await, t.tenant("lax").await);
    secure(t, &acme, v1::SecurityPolicy { max_sign_in_attempts: Some(3), ..Default::default() }).await;
    secure(t, &lax, v1::SecurityPolicy { max_sign_in_attempts: Some(90), ..Default::default() }).await;
    let ann = t.member(&acme, "viewer").await;
    t.join(&lax, &ann, "viewer").await;
    // Whoever has never been there is under no rule of the tenant's.
    guess(t, 80, &ann.email, 4).await;
    try_from(t, 80, &ann.email, PASSWORD).await.expect("signs in");
    assert!(is_in(t, &ann).await);
    t.run_jobs().await;
    guess(t, 81, &ann.email, 3).await;
    // Beyond, the right password is as wrong as any, until the server's own bound: that of addresses without an account.
    let nobody = format!("{}@example.com", unique("nobody"));
    for (email, password) in [(&ann.email, PASSWORD), (&nobody, "not the password")] {
        let refused = try_from(t, 81, email, password).await;
        assert_refused(refused, Code::Unauthenticated, "PASSWORD_WRONG");
    }
    guess(t, 81, &ann.email, 6).await;
    guess(t, 81, &nobody, 9).await;
    for email in [&ann.email, &nobody] {
        wait(try_from(t, 81, email, PASSWORD).await);
    }
    try_from(t, 82, &ann.email, PASSWORD).await.expect("from another network");
    // A tenant cannot allow more than the server does.
    let bob = t.member(&lax, "viewer").await;
    guess(t, 81, &bob.email, 10).await;
    wait(try_from(t, 81, &bob.email, PASSWORD).await);
}

async fn a_password_expires_as_the_strictest_tenant_says(t: Bed) {
    let (acme, lax) = (t.tenant("acme").await, t.tenant("lax").await);
    secure(&t, &acme, v1::SecurityPolicy { password_expiry_days: Some(30), ..Default::default() }).await;
    let ann = t.member(&acme, "viewer").await;
    t.join(&lax, &ann, "viewer").await;
    assert!(is_in(&t, &ann).await);
    t.run_jobs().await;
    let stranger = t.person("stranger").await;
    t.join(&acme, &stranger, "viewer").await;
    t.clock.advance(TimeDelta::days(31));
    let signed_in = t.anonymous().auth.login(login(&stranger.email, PASSWORD)).await;
    signed_in.expect("whoever has never been there is under no rule of the tenant's");
    let over = t.anonymous().auth.login(login(&ann.email, PASSWORD)).await;
    assert_refused(over, Code::FailedPrecondition, "PASSWORD_EXPIRED");
    // Only those who know it are told.
    let wrong = t.anonymous().auth.login(login(&ann.email, "not her password")).await;
    assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    t.login(&lax.owner, &lax.id).await;
    let renewed = |new: &str| v1::LoginRequest { new_password: new.to_owned(), ..login(&ann.email, PASSWORD) };
    for weak in [PASSWORD, "Password1"] {
        assert_eq!(wrong_fields(t.anonymous().auth.login(renewed(weak)).await), ["new_password"]);
    }
    let done = t.anonymous().auth.login(renewed(OTHER)).await.expect("signs in with a new one").into_inner();
    assert!(is_in(&t, &Person { token: done.access_token.unwrap().token, ..ann.clone() }).await);
    assert_refused(
        t.anonymous().auth.login(login(&ann.email, PASSWORD)).await,
        Code::Unauthenticated,
        "PASSWORD_WRONG",
    );
    t.anonymous().auth.login(login(&ann.email, OTHER)).await.expect("from now on it is the new one");
}

async fn a_tenant_that_is_not_entered_with_a_password_opens_to_its_owners_only(t: &Bed) {
    let (acme, open) = (t.tenant("acme").await, t.tenant("open").await);
    let ann = t.person("ann").await;
    t.join(&acme, &ann, "admin").await;
    t.join(&open, &ann, "viewer").await;
    let before = t.login(&ann, &acme.id).await;
    let key = api_keys::create(t, &acme.owner, &["tenant.read"]).await.secret;
    let methods = vec!["oidc".to_owned()];
    secure(t, &acme, v1::SecurityPolicy { sign_in_methods: methods, ..Default::default() }).await;
    let after = t.login(&ann, &acme.id).await;
    let get = v1::GetTenantRequest::default;
    for token in [&before.token, &after.token] {
        let refused = t.with_token(token).tenants.get_tenant(get()).await;
        assert_refused(refused, Code::PermissionDenied, "SIGN_IN_METHOD_REFUSED");
    }
    let refused = t.with_key(&key).tenants.get_tenant(get()).await;
    assert_refused(refused, Code::PermissionDenied, "SIGN_IN_METHOD_REFUSED");
    let elsewhere = t.login(&ann, &open.id).await;
    t.with_token(&elsewhere.token).tenants.get_tenant(get()).await.expect("the other one is entered with a password");
    let to_acme = v1::SwitchTenantRequest { to_tenant: acme.id.clone(), ..Default::default() };
    let switched = t.with_token(&elsewhere.token).auth.switch_tenant(to_acme).await;
    assert_refused(switched, Code::PermissionDenied, "SIGN_IN_METHOD_REFUSED");
    let owner = t.login(&acme.owner, &acme.id).await;
    t.with_token(&owner.token).tenants.get_tenant(get()).await.expect("owners come in");
}
