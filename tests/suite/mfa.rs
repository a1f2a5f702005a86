//! The second step of sign-ins: set up, asked for, used once, taken away; and tenants that ask for it.

use chrono::TimeDelta;
use tenantry::domain::mfa::Authenticator;
use tenantry::domain::name::Email;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::harness::{
    Bed, Engine, PASSWORD, Person, Tenant, assert_refused, on_both_engines, request_id, wrong_fields,
};

on_both_engines! {
    an_authenticator_is_set_up_by_a_code_and_its_secret_is_shown_once
    setting_up_wants_a_person_who_has_just_signed_in
    a_sign_in_waits_for_the_second_step
    a_token_that_waits_is_no_other_token_and_no_other_token_waits
    ;
    alone
    a_code_works_once_also_at_the_same_time
    a_recovery_code_works_once_also_at_the_same_time
    a_sign_in_that_waits_is_finished_once_also_at_the_same_time
    a_sign_in_that_waits_ends_after_five_codes_and_after_five_minutes
    codes_are_counted_for_the_account_whatever_the_sign_in
    a_known_device_does_not_skip_the_second_step
    the_second_step_can_be_taken_away_with_a_code
    proving_oneself_again_gives_another_session_with_todays_assurance
    a_tenant_that_asks_for_it_is_closed_to_one_step
    the_catalogue_may_ask_for_it_in_all_tenants
    an_operator_takes_a_lost_one_away
    an_answer_with_recovery_codes_is_repeated_for_ten_minutes
    who_has_the_password_keeps_nobody_from_the_second_step
    guesses_at_a_password_are_counted_wherever_it_is_asked_for
    proving_oneself_again_ends_no_other_session
    an_authenticator_that_was_never_confirmed_is_none_to_take_away
    a_sign_in_of_two_steps_on_an_unknown_device_is_told_by_mail
}

/// Somebody's authenticator, and their recovery codes.
pub(crate) struct Device {
    totp: Authenticator,
    pub(crate) secret: String,
    pub(crate) uri: String,
    pub(crate) codes: Vec<String>,
}

impl Device {
    fn of(email: &str, secret: &str) -> Authenticator {
        let email = Email::parse(email).expect("an address");
        let secret = tenantry::domain::secret::Secret::new(secret.to_owned());
        Authenticator::from_base32(&secret, "tenantry", &email).expect("base32")
    }

    /// What it shows now.
    pub(crate) fn code(&self, t: &Bed) -> String {
        self.totp.code_at(t.clock.now()).expose().clone()
    }
}

/// What an authenticator shows whose secret a person has typed.
pub(crate) fn code_of(email: &str, secret: &str, now: tenantry::time::Timestamp) -> String {
    Device::of(email, secret).code_at(now).expose().clone()
}

/// Sets an authenticator up for somebody who has just signed in.
pub(crate) async fn enable(t: &Bed, person: &Person) -> Device {
    let mut clients = t.with_token(&person.token);
    let begun = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await;
    let begun = begun.expect("begins").into_inner();
    let totp = Device::of(&person.email, &begun.secret);
    let code = totp.code_at(t.clock.now()).expose().clone();
    let confirmed = clients.auth.confirm_totp(v1::ConfirmTotpRequest { code, ..Default::default() }).await;
    let codes = confirmed.expect("confirms").into_inner().recovery_codes;
    Device { totp, secret: begun.secret, uri: begun.otpauth_uri, codes }
}

fn login(person: &Person, tenant: &str) -> v1::LoginRequest {
    v1::LoginRequest {
        email: person.email.clone(),
        password: PASSWORD.to_owned(),
        tenant: tenant.to_owned(),
        ..Default::default()
    }
}

/// The first step: the token that waits.
async fn first_step(t: &Bed, person: &Person, tenant: &str) -> String {
    let done = t.anonymous().auth.login(login(person, tenant)).await.expect("the password is right").into_inner();
    assert!(done.access_token.is_none() && done.refresh_token.is_none() && done.device_token.is_empty());
    let challenge = done.mfa_challenge.expect("waits");
    assert!(challenge.token.starts_with("tnc_") && challenge.expire_time.is_some());
    challenge.token
}

#[expect(clippy::unnecessary_wraps, reason = "as requests hold it")]
fn totp(code: &str) -> Option<v1::MfaCode> {
    Some(v1::MfaCode { code: Some(v1::mfa_code::Code::Totp(code.to_owned())) })
}

#[expect(clippy::unnecessary_wraps, reason = "as requests hold it")]
fn recovery(code: &str) -> Option<v1::MfaCode> {
    Some(v1::MfaCode { code: Some(v1::mfa_code::Code::RecoveryCode(code.to_owned())) })
}

fn second_step(challenge: &str, code: Option<v1::MfaCode>) -> v1::CompleteMfaRequest {
    v1::CompleteMfaRequest { challenge_token: challenge.to_owned(), code, ..Default::default() }
}

/// Both steps.
async fn sign_in(t: &Bed, person: &Person, tenant: &str, code: &str) -> Person {
    let challenge = first_step(t, person, tenant).await;
    let done = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(code))).await.expect("signs in");
    Person { token: done.into_inner().access_token.expect("a token").token, ..person.clone() }
}

async fn status(t: &Bed, person: &Person) -> v1::GetMfaStatusResponse {
    t.with_token(&person.token).auth.get_mfa_status(v1::GetMfaStatusRequest {}).await.expect("tells").into_inner()
}

async fn an_authenticator_is_set_up_by_a_code_and_its_secret_is_shown_once(t: &Bed) {
    let ada = t.person("ada").await;
    let mut clients = t.with_token(&ada.token);
    assert!(!status(t, &ada).await.enabled);
    let early = clients.auth.confirm_totp(v1::ConfirmTotpRequest { code: "123456".to_owned(), ..Default::default() });
    assert_refused(early.await, Code::FailedPrecondition, "WRONG_STATE");
    let first = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await.unwrap();
    let first = first.into_inner();
    assert!(first.qr_png.starts_with(b"\x89PNG"));
    assert!(first.otpauth_uri.starts_with("otpauth://totp/") && first.otpauth_uri.contains(&first.secret));
    // Begun again: the first one is void.
    let device = enable(t, &ada).await;
    assert_ne!(first.secret, device.secret);
    assert_eq!(device.codes.len(), 10);
    assert!(device.codes.iter().all(|code| code.len() == 24));
    let now = status(t, &ada).await;
    assert_eq!((now.enabled, now.recovery_codes_left, now.session_aal), (true, 10, 1));
    let again = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await;
    assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
    let mail = t.mail_to(&ada.email, "second step").await;
    assert!(mail.contains("added"), "{mail}");
    assert!(!mail.contains(&device.codes[0]) && !mail.contains(&device.secret));
}

async fn setting_up_wants_a_person_who_has_just_signed_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let key = crate::api_keys::personal(t, &acme.owner, &["*"]).await.secret;
    for mut clients in [t.with_key(&key), t.operator(), t.with_key(&t.service_key(&["*"]).await)] {
        let begun = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await;
        assert_refused(begun, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
    let stale = crate::bad_tokens::signed_in_minutes_ago(t, &acme.owner, 11).await;
    let mut clients = t.with_token(&stale);
    let begun = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await;
    assert_refused(begun, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
    let disabled = clients.auth.disable_mfa(v1::DisableMfaRequest { code: totp("123456"), ..Default::default() }).await;
    assert_refused(disabled, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
}

async fn a_sign_in_waits_for_the_second_step(t: &Bed) {
    let acme = t.tenant("acme").await;
    let device = enable(t, &acme.owner).await;
    let challenge = first_step(t, &acme.owner, &acme.id).await;
    let mut auth = t.anonymous().auth;
    for wrong in ["000000", "12345", "abcdef", ""] {
        let code = if wrong == device.code(t) { "999999" } else { wrong };
        let done = auth.complete_mfa(second_step(&challenge, totp(code))).await;
        assert_refused(done, Code::Unauthenticated, "MFA_CODE_WRONG");
    }
    assert_eq!(wrong_fields(auth.complete_mfa(second_step(&challenge, None)).await), ["code"]);
    let done = auth.complete_mfa(second_step(&challenge, recovery(&device.codes[0].to_lowercase()))).await.unwrap();
    let done = done.into_inner();
    assert_eq!(done.user.unwrap().user_id, acme.owner.id);
    let token = done.access_token.unwrap();
    assert_eq!(token.tenant_id, acme.id);
    let ada = Person { token: token.token, ..acme.owner.clone() };
    let now = status(t, &ada).await;
    assert_eq!((now.session_aal, now.recovery_codes_left), (2, 9));
    // It is refreshed as what it is.
    let refresh = v1::RefreshTokenRequest { refresh_token: done.refresh_token.unwrap().token };
    let token = auth.refresh_token(refresh).await.unwrap().into_inner().access_token.unwrap().token;
    assert_eq!(status(t, &Person { token, ..ada }).await.session_aal, 2);
    // A wrong password says what it always says.
    let wrong = v1::LoginRequest { password: "not the password".to_owned(), ..login(&acme.owner, "") };
    assert_refused(auth.login(wrong).await, Code::Unauthenticated, "PASSWORD_WRONG");
}

async fn a_token_that_waits_is_no_other_token_and_no_other_token_waits(t: &Bed) {
    let acme = t.tenant("acme").await;
    let device = enable(t, &acme.owner).await;
    let challenge = first_step(t, &acme.owner, "").await;
    let key = crate::api_keys::create(t, &acme.owner, &["tenant.read"]).await.secret;
    for mut clients in [t.with_token(&challenge), t.with_key(&challenge)] {
        let asked = clients.auth.who_am_i(v1::WhoAmIRequest {}).await;
        assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    let mut auth = t.anonymous().auth;
    let refresh = v1::RefreshTokenRequest { refresh_token: challenge.clone() };
    assert_refused(auth.refresh_token(refresh).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let fresh = t.person("fresh").await;
    let other = t.anonymous().auth.login(login(&fresh, "")).await.unwrap().into_inner();
    let (refresh, known) = (other.refresh_token.unwrap().token, other.device_token);
    let short = &challenge[..challenge.len() - 1];
    let long = format!("{challenge}0");
    for token in [&acme.owner.token, &key, &refresh, &known, &t.operator_key, short, long.as_str(), "", "tnc_"] {
        let done = auth.complete_mfa(second_step(token, totp(&device.code(t)))).await;
        assert_refused(done, Code::Unauthenticated, "MFA_CHALLENGE_INVALID");
    }
}

/// Attack 43.
async fn a_code_works_once_also_at_the_same_time(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    // The code of the confirmation is spent.
    let challenge = first_step(&t, &ada, "").await;
    let spent = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(&device.code(&t)))).await;
    assert_refused(spent, Code::Unauthenticated, "MFA_CODE_WRONG");
    for round in 0..3 {
        t.clock.advance(TimeDelta::seconds(31));
        let code = device.code(&t);
        let one = first_step(&t, &ada, "").await;
        let other = first_step(&t, &ada, "").await;
        // The same code for two sign-ins, and twice for one of them; on two servers where there can be two.
        let sibling = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
        let second = sibling.as_ref().unwrap_or(&t);
        let (mut a, mut b, mut c) = (t.anonymous().auth, second.anonymous().auth, second.anonymous().auth);
        let (a, b, c) = tokio::join!(
            a.complete_mfa(second_step(&one, totp(&code))),
            b.complete_mfa(second_step(&other, totp(&code))),
            c.complete_mfa(second_step(&one, totp(&code))),
        );
        let answers = [a, b, c];
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "round {round}: {answers:?}");
        for refused in answers.into_iter().filter(Result::is_err) {
            let reason = crate::harness::refusal(refused).1;
            assert!(["MFA_CODE_WRONG", "MFA_CHALLENGE_INVALID"].contains(&reason.as_str()), "{reason}");
        }
    }
}

async fn a_recovery_code_works_once_also_at_the_same_time(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    let mut challenges = Vec::new();
    for _ in 0..4 {
        challenges.push(first_step(&t, &ada, "").await);
    }
    let tries = challenges.iter().map(|challenge| {
        let mut auth = t.anonymous().auth;
        let request = second_step(challenge, recovery(&device.codes[3]));
        async move { auth.complete_mfa(request).await }
    });
    let answers = futures::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    let challenge = first_step(&t, &ada, "").await;
    let late = t.anonymous().auth.complete_mfa(second_step(&challenge, recovery(&device.codes[3]))).await;
    assert_refused(late, Code::Unauthenticated, "MFA_CODE_WRONG");
    t.anonymous().auth.complete_mfa(second_step(&challenge, recovery(&device.codes[4]))).await.expect("another works");
}

/// Each code is good, and none was used: it is the sign-in that there is only one of.
async fn a_sign_in_that_waits_is_finished_once_also_at_the_same_time(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    for round in 0..2 {
        let challenge = first_step(&t, &ada, "").await;
        let tries = device.codes[round * 5..][..4].iter().map(|code| {
            let (mut auth, request) = (t.anonymous().auth, second_step(&challenge, recovery(code)));
            async move { auth.complete_mfa(request).await }
        });
        let answers = futures::future::join_all(tries).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        for refused in answers.into_iter().filter(Result::is_err) {
            assert_refused(refused, Code::Unauthenticated, "MFA_CHALLENGE_INVALID");
        }
    }
    // What came to nothing spent nothing.
    assert_eq!(status(&t, &ada).await.recovery_codes_left, 8);
}

async fn a_sign_in_that_waits_ends_after_five_codes_and_after_five_minutes(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    t.clock.advance(TimeDelta::seconds(31));
    let challenge = first_step(&t, &ada, "").await;
    let wrong = if device.code(&t) == "000000" { "000001" } else { "000000" };
    // Side by side: none is looked at without being counted.
    let tries = (0..8).map(|_| {
        let mut auth = t.anonymous().auth;
        let request = second_step(&challenge, totp(wrong));
        async move { auth.complete_mfa(request).await }
    });
    let answers = futures::future::join_all(tries).await;
    let reasons: Vec<String> = answers.into_iter().map(|answer| crate::harness::refusal(answer).1).collect();
    assert_eq!(reasons.iter().filter(|reason| *reason == "MFA_CODE_WRONG").count(), 5, "{reasons:?}");
    assert_eq!(reasons.iter().filter(|reason| *reason == "MFA_CHALLENGE_INVALID").count(), 3, "{reasons:?}");
    let right = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(&device.code(&t)))).await;
    assert_refused(right, Code::Unauthenticated, "MFA_CHALLENGE_INVALID");
    let challenge = first_step(&t, &ada, "").await;
    t.clock.advance(TimeDelta::minutes(5));
    let late = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(&device.code(&t)))).await;
    assert_refused(late, Code::Unauthenticated, "MFA_CHALLENGE_INVALID");
    sign_in(&t, &ada, "", &device.code(&t)).await;
}

async fn codes_are_counted_for_the_account_whatever_the_sign_in(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    t.clock.advance(TimeDelta::seconds(31));
    let wrong = if device.code(&t) == "000000" { "000001" } else { "000000" };
    for _ in 0..30 {
        let challenge = first_step(&t, &ada, "").await;
        let done = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(wrong))).await;
        assert_refused(done, Code::Unauthenticated, "MFA_CODE_WRONG");
    }
    let challenge = first_step(&t, &ada, "").await;
    let right = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(&device.code(&t)))).await;
    assert_refused(right, Code::ResourceExhausted, "RATE_EXCEEDED");
    t.clock.advance(TimeDelta::minutes(61));
    sign_in(&t, &ada, "", &device.code(&t)).await;
}

async fn a_known_device_does_not_skip_the_second_step(t: Bed) {
    let ada = t.person("ada").await;
    let before = t.anonymous().auth.login(login(&ada, "")).await.unwrap().into_inner().device_token;
    let device = enable(&t, &ada).await;
    t.clock.advance(TimeDelta::seconds(31));
    let known = v1::LoginRequest { device_token: before.clone(), ..login(&ada, "") };
    let done = t.anonymous().auth.login(known).await.unwrap().into_inner();
    assert!(done.access_token.is_none());
    let challenge = done.mfa_challenge.unwrap().token;
    let request =
        v1::CompleteMfaRequest { device_token: before.clone(), ..second_step(&challenge, totp(&device.code(&t))) };
    let done = t.anonymous().auth.complete_mfa(request).await.unwrap().into_inner();
    assert_eq!(done.device_token, before, "the device keeps its token");
}

async fn the_second_step_can_be_taken_away_with_a_code(t: Bed) {
    let ada = t.person("ada").await;
    let device = enable(&t, &ada).await;
    let mut clients = t.with_token(&ada.token);
    let none = clients.auth.disable_mfa(v1::DisableMfaRequest::default()).await;
    assert_eq!(wrong_fields(none), ["code"]);
    let wrong = clients.auth.disable_mfa(v1::DisableMfaRequest { code: totp("000000"), ..Default::default() }).await;
    assert_refused(wrong, Code::Unauthenticated, "MFA_CODE_WRONG");
    let renew = v1::RegenerateRecoveryCodesRequest { code: recovery(&device.codes[0]), ..Default::default() };
    let codes = clients.auth.regenerate_recovery_codes(renew).await.unwrap().into_inner().recovery_codes;
    assert_eq!(codes.len(), 10);
    assert!(codes.iter().all(|code| !device.codes.contains(code)));
    t.clock.advance(TimeDelta::seconds(31));
    let two = sign_in(&t, &ada, "", &device.code(&t)).await;
    assert_eq!(status(&t, &two).await.session_aal, 2);
    let mut clients = t.with_token(&two.token);
    let old = v1::DisableMfaRequest { code: recovery(&device.codes[1]), ..Default::default() };
    assert_refused(clients.auth.disable_mfa(old).await, Code::Unauthenticated, "MFA_CODE_WRONG");
    let disable = v1::DisableMfaRequest { code: recovery(&codes[0]), ..Default::default() };
    clients.auth.disable_mfa(disable.clone()).await.expect("disables");
    let now = status(&t, &two).await;
    assert_eq!((now.enabled, now.recovery_codes_left, now.session_aal), (false, 0, 1));
    assert_refused(clients.auth.disable_mfa(disable).await, Code::FailedPrecondition, "WRONG_STATE");
    let done = t.anonymous().auth.login(login(&ada, "")).await.unwrap().into_inner();
    assert!(done.access_token.is_some() && done.mfa_challenge.is_none());
    assert!(t.mail_to(&ada.email, "removed").await.contains("second step"));
}

async fn proving_oneself_again_gives_another_session_with_todays_assurance(t: Bed) {
    let acme = t.tenant("acme").await;
    let device = enable(&t, &acme.owner).await;
    let ada = acme.owner.clone();
    t.clock.advance(TimeDelta::seconds(31));
    let mut clients = t.with_token(&ada.token);
    let ask = |password: &str, code: Option<v1::MfaCode>| v1::ReauthenticateRequest {
        password: password.to_owned(),
        code,
        ..Default::default()
    };
    let wrong = clients.auth.reauthenticate(ask("not the password", totp(&device.code(&t)))).await;
    assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    let one_step = clients.auth.reauthenticate(ask(PASSWORD, None)).await;
    assert_refused(one_step, Code::Unauthenticated, "MFA_CODE_WRONG");
    let done = clients.auth.reauthenticate(ask(PASSWORD, totp(&device.code(&t)))).await.unwrap().into_inner();
    let token = done.access_token.unwrap();
    assert_eq!(token.tenant_id, acme.id);
    let again = Person { token: token.token, ..ada.clone() };
    assert_eq!(status(&t, &again).await.session_aal, 2);
    let old = clients.auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(old, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let spent = t.with_token(&again.token).auth.reauthenticate(ask(PASSWORD, totp(&device.code(&t)))).await;
    assert_refused(spent, Code::Unauthenticated, "MFA_CODE_WRONG");
}

pub(crate) fn require(tenant: &Tenant, required: bool) -> v1::UpdateSettingsRequest {
    let security = v1::SecurityPolicy { mfa_required: Some(required), ..Default::default() };
    v1::UpdateSettingsRequest {
        tenant: tenant.id.clone(),
        settings: Some(v1::Settings { security: Some(security), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["security.mfa_required".to_owned()] }),
        ..Default::default()
    }
}

async fn a_tenant_that_asks_for_it_is_closed_to_one_step(t: Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let device = enable(&t, &acme.owner).await;
    let bob = t.member(&acme, "viewer").await;
    t.join(&other, &bob, "viewer").await;
    let key = crate::api_keys::personal(&t, &bob, &["*"]).await.secret;
    let program = crate::api_keys::create(&t, &acme.owner, &["members.read"]).await.secret;
    t.clock.advance(TimeDelta::seconds(31));
    let ada = sign_in(&t, &acme.owner, &acme.id, &device.code(&t)).await;
    t.with_token(&ada.token).tenants.update_settings(require(&acme, true)).await.expect("asks for it");

    let list = v1::ListMembersRequest::default();
    let bob = t.login(&bob, &acme.id).await;
    for mut clients in [t.with_token(&bob.token), t.with_key(&key)] {
        let listed = clients.members.list_members(list.clone()).await;
        assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
        clients.auth.who_am_i(v1::WhoAmIRequest {}).await.expect("may know who they are");
    }
    // The owner's own one-step session as well, and a service in its name; programs of the tenant have no second step.
    let listed = t.with_token(&acme.owner.token).members.list_members(list.clone()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    let headers = crate::harness::Headers::default()
        .and("x-api-key", &t.service_key(&["*"]).await)
        .and("x-on-behalf-of", &bob.token);
    let listed = crate::harness::Clients::new(t.channel(), headers).members.list_members(list.clone()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    t.with_key(&program).members.list_members(list.clone()).await.expect("a program may");
    t.with_token(&ada.token).members.list_members(list.clone()).await.expect("two steps may");

    // Authorize says the same, and who could change it.
    let question = v1::AuthorizeRequest { subject_token: bob.token.clone(), ..Default::default() };
    let mut service = t.with_key(&t.service_key(&["usage.read"]).await);
    let decision = service.auth.authorize(question).await.unwrap().into_inner();
    assert_eq!((decision.allowed, decision.reasons[0].reason.as_str()), (false, "MFA_REQUIRED"));
    assert_eq!(decision.reasons[0].remedy(), v1::Remedy::SignIn);

    // Neither a refresh nor a switch lifts it; switching away goes.
    let mut clients = t.with_token(&bob.token);
    let switch = |to: &Tenant| v1::SwitchTenantRequest {
        to_tenant: to.id.clone(),
        request_id: request_id(),
        ..Default::default()
    };
    let away = clients.auth.switch_tenant(switch(&other)).await.expect("goes away").into_inner();
    let mut elsewhere = t.with_token(&away.access_token.unwrap().token);
    elsewhere.members.list_members(list.clone()).await.expect("works there");
    let back = elsewhere.auth.switch_tenant(switch(&acme)).await;
    assert_refused(back, Code::PermissionDenied, "MFA_REQUIRED");
    let signed_in = t.anonymous().auth.login(login(&bob, &acme.id)).await.unwrap().into_inner();
    let refresh = v1::RefreshTokenRequest { refresh_token: signed_in.refresh_token.unwrap().token };
    let token = t.anonymous().auth.refresh_token(refresh).await.unwrap().into_inner().access_token.unwrap().token;
    let listed = t.with_token(&token).members.list_members(list.clone()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");

    // Bob sets one up, and is in; the key that he made with one step stays out, a new one is let in.
    let bob = Person { token, ..bob };
    let bobs = enable(&t, &bob).await;
    let listed = t.with_token(&bob.token).members.list_members(list.clone()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    t.clock.advance(TimeDelta::seconds(31));
    let bob = sign_in(&t, &bob, &acme.id, &bobs.code(&t)).await;
    t.with_token(&bob.token).members.list_members(list.clone()).await.expect("is in");
    let listed = t.with_key(&key).members.list_members(list.clone()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    let key = crate::api_keys::personal(&t, &bob, &["*"]).await.secret;
    t.with_key(&key).members.list_members(list.clone()).await.expect("is in");
    // Without it, neither the session nor the key goes on.
    let disable = v1::DisableMfaRequest { code: recovery(&bobs.codes[0]), ..Default::default() };
    t.with_token(&bob.token).auth.disable_mfa(disable).await.expect("disables");
    for mut clients in [t.with_token(&bob.token), t.with_key(&key)] {
        let listed = clients.members.list_members(list.clone()).await;
        assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    }
    // What the tenant takes back is open again.
    t.with_token(&ada.token).tenants.update_settings(require(&acme, false)).await.expect("takes it back");
    t.with_token(&bob.token).members.list_members(list).await.expect("is in");
}

async fn the_catalogue_may_ask_for_it_in_all_tenants(t: Bed) {
    let product = format!("{}\n[settings.security]\nmfa_required = true\n", crate::harness::CATALOGUE);
    let strict = Bed::of_product(t.engine, &product).await;
    let acme = strict.tenant("acme").await;
    let mut owner = strict.with_token(&acme.owner.token);
    let listed = owner.members.list_members(v1::ListMembersRequest::default()).await;
    assert_refused(listed, Code::PermissionDenied, "MFA_REQUIRED");
    let device = enable(&strict, &acme.owner).await;
    strict.clock.advance(TimeDelta::seconds(31));
    let ada = sign_in(&strict, &acme.owner, &acme.id, &device.code(&strict)).await;
    let mut owner = strict.with_token(&ada.token);
    owner.members.list_members(v1::ListMembersRequest::default()).await.expect("is in");
    owner.tenants.update_settings(require(&acme, false)).await.expect("asks for less");
    let mut one_step = strict.with_token(&acme.owner.token);
    one_step.members.list_members(v1::ListMembersRequest::default()).await.expect("is in with one step");
}

async fn an_operator_takes_a_lost_one_away(t: Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let device = enable(&t, &acme.owner).await;
    t.clock.advance(TimeDelta::seconds(31));
    let ada = sign_in(&t, &acme.owner, &acme.id, &device.code(&t)).await;
    let reset = |tenant: &Tenant| v1::ResetMfaRequest {
        tenant: tenant.id.clone(),
        user_id: acme.owner.id.clone(),
        request_id: request_id(),
    };
    let refused = t.with_token(&ada.token).auth.reset_mfa(reset(&acme)).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let looker = crate::operator_keys::operator_key(&t, v1::OperatorScope::Read).await;
    let refused = t.with_key(&looker).auth.reset_mfa(reset(&acme)).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
    assert_refused(t.operator().auth.reset_mfa(reset(&other)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    let helper = crate::operator_keys::operator_key(&t, v1::OperatorScope::Support).await;
    t.with_key(&helper).auth.reset_mfa(reset(&acme)).await.expect("support may");
    let asked = t.with_token(&ada.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let done = t.anonymous().auth.login(login(&acme.owner, "")).await.unwrap().into_inner();
    assert!(done.access_token.is_some());
    assert_refused(t.operator().auth.reset_mfa(reset(&acme)).await, Code::FailedPrecondition, "WRONG_STATE");
    let rows = t.audit(&acme.id).await;
    let row = rows.iter().find(|row| row.action == "AuthService/ResetMfa").expect("a row");
    assert_eq!((row.actor_kind, row.subject_id.unwrap().to_string()), (4, acme.owner.id.clone()));
    assert!(t.mail_to(&acme.owner.email, "removed").await.contains("second step"));
}

async fn an_answer_with_recovery_codes_is_repeated_for_ten_minutes(t: Bed) {
    let ada = t.person("ada").await;
    let mut clients = t.with_token(&ada.token);
    let wish = v1::BeginTotpEnrollmentRequest { request_id: request_id() };
    let begun = clients.auth.begin_totp_enrollment(wish.clone()).await.unwrap().into_inner();
    assert_eq!(clients.auth.begin_totp_enrollment(wish).await.unwrap().into_inner(), begun);
    let code = code_of(&ada.email, &begun.secret, t.clock.now());
    let confirm = v1::ConfirmTotpRequest { request_id: request_id(), code };
    let codes = clients.auth.confirm_totp(confirm.clone()).await.unwrap().into_inner();
    assert_eq!(clients.auth.confirm_totp(confirm.clone()).await.unwrap().into_inner(), codes);
    assert_eq!(status(&t, &ada).await.recovery_codes_left, 10);
    t.clock.advance(TimeDelta::seconds(290));
    let device = Device {
        totp: Device::of(&ada.email, &begun.secret),
        secret: begun.secret,
        uri: begun.otpauth_uri,
        codes: codes.recovery_codes,
    };
    t.clock.advance(TimeDelta::minutes(6));
    let ada = sign_in(&t, &ada, "", &device.code(&t)).await;
    let late = t.with_token(&ada.token).auth.confirm_totp(confirm).await;
    assert_refused(late, Code::FailedPrecondition, "ANSWER_EXPIRED");
    assert!(device.uri.contains(&device.secret) && device.codes.len() == 10);
}

async fn who_has_the_password_keeps_nobody_from_the_second_step(t: Bed) {
    let ada = t.person("ada").await;
    let known = t.anonymous().auth.login(login(&ada, "")).await.unwrap().into_inner().device_token;
    let device = enable(&t, &ada).await;
    t.clock.advance(TimeDelta::seconds(31));
    let wrong = if device.code(&t) == "000000" { "000001" } else { "000000" };
    for _ in 0..30 {
        let challenge = first_step(&t, &ada, "").await;
        let done = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(wrong))).await;
        assert_refused(done, Code::Unauthenticated, "MFA_CODE_WRONG");
    }
    let challenge = first_step(&t, &ada, "").await;
    let guess = t.anonymous().auth.complete_mfa(second_step(&challenge, totp(wrong))).await;
    assert_refused(guess, Code::ResourceExhausted, "RATE_EXCEEDED");
    // She comes in with a recovery code anywhere, on her own device, and where she has signed in already.
    let challenge = first_step(&t, &ada, "").await;
    t.anonymous().auth.complete_mfa(second_step(&challenge, recovery(&device.codes[0]))).await.expect("by recovery");
    let renew = v1::RegenerateRecoveryCodesRequest { code: totp(&device.code(&t)), ..Default::default() };
    t.with_token(&ada.token).auth.regenerate_recovery_codes(renew).await.expect("where she has signed in");
    t.clock.advance(TimeDelta::seconds(31));
    let first = v1::LoginRequest { device_token: known.clone(), ..login(&ada, "") };
    let challenge = t.anonymous().auth.login(first).await.unwrap().into_inner().mfa_challenge.unwrap().token;
    let second = v1::CompleteMfaRequest { device_token: known, ..second_step(&challenge, totp(&device.code(&t))) };
    t.anonymous().auth.complete_mfa(second).await.expect("on her own device");
}

async fn guesses_at_a_password_are_counted_wherever_it_is_asked_for(t: Bed) {
    let ada = t.person("ada").await;
    let mut clients = t.with_token(&ada.token);
    let ask = |password: &str| v1::ReauthenticateRequest { password: password.to_owned(), ..Default::default() };
    for _ in 0..10 {
        let wrong = clients.auth.reauthenticate(ask("not the password")).await;
        assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    }
    let right = clients.auth.reauthenticate(ask(PASSWORD)).await;
    assert_refused(right, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
}

async fn proving_oneself_again_ends_no_other_session(t: Bed) {
    let t = Bed::private(t.engine, &["--max-sessions=2"]).await;
    let ada = t.person("ada").await;
    let here = t.login(&ada, "").await;
    let ask = v1::ReauthenticateRequest { password: PASSWORD.to_owned(), ..Default::default() };
    t.with_token(&here.token).auth.reauthenticate(ask).await.expect("proves it");
    t.with_token(&ada.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("the other session goes on");
}

async fn an_authenticator_that_was_never_confirmed_is_none_to_take_away(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut clients = t.with_token(&acme.owner.token);
    let begun = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await.unwrap();
    let reset =
        v1::ResetMfaRequest { tenant: acme.id.clone(), user_id: acme.owner.id.clone(), request_id: request_id() };
    assert_refused(t.operator().auth.reset_mfa(reset).await, Code::FailedPrecondition, "WRONG_STATE");
    let code = code_of(&acme.owner.email, &begun.into_inner().secret, t.clock.now());
    let confirmed = clients.auth.confirm_totp(v1::ConfirmTotpRequest { code, ..Default::default() }).await;
    confirmed.expect("it is still being set up, and the session goes on");
}

async fn a_sign_in_of_two_steps_on_an_unknown_device_is_told_by_mail(t: Bed) {
    let ada = t.person("ada").await;
    t.login(&ada, "").await;
    let device = enable(&t, &ada).await;
    t.clock.advance(TimeDelta::seconds(31));
    let phone = v1::Device { display_name: "a phone".to_owned(), ..Default::default() };
    let first = v1::LoginRequest { device: Some(phone), ..login(&ada, "") };
    let challenge = t.anonymous().auth.login(first).await.unwrap().into_inner().mfa_challenge.unwrap().token;
    let second = second_step(&challenge, totp(&device.code(&t)));
    let done = t.anonymous().auth.complete_mfa(second).await.expect("signs in").into_inner();
    let mail = t.mail_to(&ada.email, "A new sign-in").await;
    assert!(mail.contains("a phone"), "{mail}");
    // The same device again is no news.
    t.clock.advance(TimeDelta::seconds(31));
    let challenge = first_step(&t, &ada, "").await;
    let second =
        v1::CompleteMfaRequest { device_token: done.device_token, ..second_step(&challenge, totp(&device.code(&t))) };
    t.anonymous().auth.complete_mfa(second).await.expect("signs in");
    t.run_jobs().await;
    assert_eq!(t.mails_to(&ada.email).iter().filter(|mail| mail.contains("A new sign-in")).count(), 1);
}

/// Another enrolment begins between the look at the code and the confirmation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_authenticator_whose_code_was_sent_is_put_into_use() {
    let t = Bed::private(Engine::Postgres, &[]).await;
    let ada = t.person("ada").await;
    let mut clients = t.with_token(&ada.token);
    let begun = clients.auth.begin_totp_enrollment(v1::BeginTotpEnrollmentRequest::default()).await.unwrap();
    let code = code_of(&ada.email, &begun.into_inner().secret, t.clock.now());
    let mut admin = t.database.as_ref().expect("on PostgreSQL").administrator().await;
    let mut other = sqlx::Connection::begin(&mut admin).await.expect("begins");
    let replace = sqlx::query("update totp set sealed = sealed || sealed").execute(&mut *other).await;
    assert_eq!(replace.expect("replaces").rows_affected(), 1);
    let (confirmed, ()) =
        tokio::join!(clients.auth.confirm_totp(v1::ConfirmTotpRequest { code, ..Default::default() }), async {
            waits(&t).await;
            other.commit().await.expect("replaces");
        });
    assert_refused(confirmed, Code::Unauthenticated, "MFA_CODE_WRONG");
    assert!(!status(&t, &ada).await.enabled);
}

/// Waits until somebody waits for a lock of somebody else.
async fn waits(t: &Bed) {
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock' and $1 is not null";
    crate::harness::until("somebody waits", async || {
        let rows: Vec<(i64,)> = t.rows(waiting, &request_id()).await;
        rows[0].0 > 0
    })
    .await;
}
