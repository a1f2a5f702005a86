//! What opens by a link in a mail: a forgotten password, the proof of an address, another address, an account.

use chrono::TimeDelta;
use futures::future::join;
use tenantry::rpc::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    Bed, Engine, PASSWORD, Person, assert_refused, on_both_engines, request_id, unique, wrong_fields,
};

on_both_engines! {
    a_forgotten_password_is_set_by_a_link_once
    letters_to_people_are_in_their_language
    a_newer_link_voids_the_older_one
    no_mail_goes_to_an_address_without_an_account
    an_address_is_proven_by_a_link
    another_address_counts_when_its_link_comes_back
    an_address_of_somebody_else_does_not_show
    what_is_no_token_opens_nothing
    a_reset_that_races_sign_ins_leaves_no_session_of_the_old_password
    mail_is_not_sent_as_often_as_somebody_likes
    ;
    alone
    links_end_by_themselves
    an_account_waits_for_its_link
    a_slug_that_was_taken_meanwhile_can_be_another
}

const OTHER: &str = "another passphrase entirely";

/// The token of a mail's link.
pub(crate) fn token_of(mail: &str) -> String {
    let (_, rest) = mail.split_once("token=").unwrap_or_else(|| panic!("no link in {mail}"));
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn login(email: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() }
}

async fn forgot(t: &Bed, email: &str) -> Result<(), Status> {
    let request = v1::RequestPasswordResetRequest { email: email.to_owned() };
    t.anonymous().auth.request_password_reset(request).await.map(drop)
}

async fn reset(t: &Bed, token: &str, new: &str) -> Result<tonic::Response<v1::ResetPasswordResponse>, Status> {
    let request = v1::ResetPasswordRequest { token: token.to_owned(), new_password: new.to_owned() };
    t.anonymous().auth.reset_password(request).await
}

async fn verify(t: &Bed, token: &str) -> Result<tonic::Response<v1::VerifyEmailResponse>, Status> {
    t.anonymous().auth.verify_email(v1::VerifyEmailRequest { token: token.to_owned() }).await
}

async fn is_in(t: &Bed, token: &str) -> bool {
    t.with_token(token).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok()
}

async fn account(t: &Bed, person: &Person) -> v1::Account {
    let told = t.with_token(&person.token).auth.get_account(v1::GetAccountRequest {}).await.expect("an account");
    told.into_inner().account.expect("an account")
}

async fn letters_to_people_are_in_their_language(t: &Bed) {
    let ann = t.person("ann").await;
    let german = v1::UpdateAccountRequest {
        locale: "de-CH".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["locale".to_owned()] }),
        ..Default::default()
    };
    t.with_token(&ann.token).auth.update_account(german).await.expect("changes");
    forgot(t, &ann.email).await.unwrap();
    assert!(t.last_mail_to(&ann.email).await.contains("Passwort"));
}

async fn a_forgotten_password_is_set_by_a_link_once(t: &Bed) {
    let ann = t.person("ann").await;
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    forgot(t, &ann.email.to_uppercase()).await.unwrap();
    let token = token_of(&t.last_mail_to(&ann.email).await);
    assert_eq!(wrong_fields(reset(t, &token, "Password1").await), ["new_password"]);
    assert!(is_in(t, &ann.token).await);
    reset(t, &token, OTHER).await.expect("is set");
    for t in [Some(t), second.as_ref()].into_iter().flatten() {
        assert!(!is_in(t, &ann.token).await, "all sessions end");
        let refresh = v1::RefreshTokenRequest { refresh_token: ann.refresh.clone() };
        let over = t.anonymous().auth.refresh_token(refresh).await;
        assert_refused(over, Code::Unauthenticated, "CREDENTIAL_INVALID");
        let old = t.anonymous().auth.login(login(&ann.email, PASSWORD)).await;
        assert_refused(old, Code::Unauthenticated, "PASSWORD_WRONG");
    }
    let done = t.anonymous().auth.login(login(&ann.email, OTHER)).await.expect("signs in").into_inner();
    let ann = Person { token: done.access_token.unwrap().token, ..ann };
    assert!(account(t, &ann).await.email_verified, "whoever set it has read the mail");
    assert_refused(reset(t, &token, "a third passphrase").await, Code::NotFound, "LINK_INVALID");
    let told = t.mail_to(&ann.email, "Your password was changed").await;
    assert!(!told.contains("token="));
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn a_newer_link_voids_the_older_one(t: &Bed) {
    let ann = t.person("ann").await;
    forgot(t, &ann.email).await.unwrap();
    let older = token_of(&t.last_mail_to(&ann.email).await);
    forgot(t, &ann.email).await.unwrap();
    let mut newer = older.clone();
    crate::harness::until("the second mail", async || {
        t.run_jobs().await;
        t.mails_to(&ann.email).len() == 2
    })
    .await;
    for mail in t.mails_to(&ann.email) {
        if token_of(&mail) != older {
            newer = token_of(&mail);
        }
    }
    assert_refused(reset(t, &older, OTHER).await, Code::NotFound, "LINK_INVALID");
    reset(t, &newer, OTHER).await.expect("the newer one is good");
    // A password that was changed voids it as well.
    let ann = {
        let done = t.anonymous().auth.login(login(&ann.email, OTHER)).await.unwrap().into_inner();
        Person { token: done.access_token.unwrap().token, ..ann }
    };
    forgot(t, &ann.email).await.unwrap();
    let seen = t.mails_to(&ann.email).len();
    crate::harness::until("the third mail", async || {
        t.run_jobs().await;
        t.mails_to(&ann.email).iter().filter(|mail| mail.contains("token=")).count() == 3
    })
    .await;
    assert!(t.mails_to(&ann.email).len() > seen.saturating_sub(1));
    let tokens: Vec<_> = t.mails_to(&ann.email).iter().filter(|m| m.contains("token=")).map(|m| token_of(m)).collect();
    let last = tokens.iter().find(|token| **token != older && **token != newer).unwrap().clone();
    let change = v1::ChangePasswordRequest {
        old_password: OTHER.to_owned(),
        new_password: "a third passphrase".to_owned(),
        ..Default::default()
    };
    t.with_token(&ann.token).auth.change_password(change).await.unwrap();
    assert_refused(reset(t, &last, "a fourth passphrase").await, Code::NotFound, "LINK_INVALID");
}

async fn no_mail_goes_to_an_address_without_an_account(t: &Bed) {
    let (ann, nobody) = (t.person("ann").await, format!("{}@example.com", unique("nobody")));
    forgot(t, &nobody).await.unwrap();
    forgot(t, &ann.email).await.unwrap();
    t.last_mail_to(&ann.email).await;
    assert!(t.mails_to(&nobody).is_empty());
    let disable = v1::DisableAccountRequest { user_id: ann.id.clone(), ..Default::default() };
    t.operator().auth.disable_account(disable).await.unwrap();
    let token = token_of(&t.last_mail_to(&ann.email).await);
    assert_refused(reset(t, &token, OTHER).await, Code::NotFound, "LINK_INVALID");
}

async fn an_address_is_proven_by_a_link(t: &Bed) {
    let ann = t.person("ann").await;
    assert!(!account(t, &ann).await.email_verified);
    let ask = v1::RequestEmailVerificationRequest { request_id: request_id() };
    let mut as_ann = t.with_token(&ann.token);
    as_ann.auth.request_email_verification(ask.clone()).await.unwrap();
    as_ann.auth.request_email_verification(ask).await.expect("the same answer again");
    let token = token_of(&t.last_mail_to(&ann.email).await);
    assert_eq!(t.mails_to(&ann.email).len(), 1);
    assert_refused(reset(t, &token, OTHER).await, Code::NotFound, "LINK_INVALID");
    let done = verify(t, &token).await.expect("is proven").into_inner();
    assert_eq!(done.user.unwrap().user_id, ann.id);
    assert!(account(t, &ann).await.email_verified && is_in(t, &ann.token).await);
    assert_refused(verify(t, &token).await, Code::NotFound, "LINK_INVALID");
    let again = v1::RequestEmailVerificationRequest::default();
    let proven = as_ann.auth.request_email_verification(again).await;
    assert_refused(proven, Code::FailedPrecondition, "WRONG_STATE");
}

fn move_to(email: &str, password: &str) -> v1::ChangeEmailRequest {
    v1::ChangeEmailRequest { new_email: email.to_owned(), password: password.to_owned(), ..Default::default() }
}

async fn another_address_counts_when_its_link_comes_back(t: &Bed) {
    let ann = t.person("ann").await;
    let (elsewhere, here) = (t.login(&ann, "").await, t.login(&ann, "").await);
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let new = format!("{}@example.com", unique("new"));
    let mut as_ann = t.with_token(&here.token);
    let wrong = as_ann.auth.change_email(move_to(&new, "not her password")).await;
    assert_refused(wrong, Code::Unauthenticated, "PASSWORD_WRONG");
    assert_eq!(wrong_fields(as_ann.auth.change_email(move_to(&ann.email, PASSWORD)).await), ["new_email"]);
    as_ann.auth.change_email(move_to(&new, PASSWORD)).await.unwrap();
    let token = token_of(&t.last_mail_to(&new).await);
    let warned = t.last_mail_to(&ann.email).await;
    assert!(!warned.contains("token=") && warned.contains(&new), "{warned}");
    // Until the link comes back it is the old one.
    assert_eq!(account(t, &here).await.user.unwrap().email, ann.email);
    t.login(&ann, "").await;
    assert_eq!(verify(t, &token).await.expect("is the account's").into_inner().user.unwrap().email, new);
    for bed in [Some(t), second.as_ref()].into_iter().flatten() {
        assert!(is_in(bed, &here.token).await, "the session that asked goes on");
        assert!(!is_in(bed, &ann.token).await && !is_in(bed, &elsewhere.token).await);
    }
    let told = account(t, &here).await;
    assert!(told.email_verified && told.user.unwrap().email == new);
    let old = t.anonymous().auth.login(login(&ann.email, PASSWORD)).await;
    assert_refused(old, Code::Unauthenticated, "PASSWORD_WRONG");
    t.anonymous().auth.login(login(&new, PASSWORD)).await.expect("signs in with the new one");
    for address in [&ann.email, &new] {
        t.mail_to(address, "Your e-mail address was changed").await;
    }
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn an_address_of_somebody_else_does_not_show(t: &Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    let mut as_ann = t.with_token(&ann.token);
    let free = as_ann.auth.change_email(move_to(&format!("{}@example.com", unique("free")), PASSWORD)).await.unwrap();
    let held = as_ann.auth.change_email(move_to(&bob.email, PASSWORD)).await.unwrap();
    assert_eq!(free.get_ref(), held.get_ref());
    let keys = |r: &tonic::Response<v1::ChangeEmailResponse>| {
        r.metadata().keys().map(|key| format!("{key:?}")).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(keys(&free), keys(&held));
    let letter = t.last_mail_to(&bob.email).await;
    assert!(letter.contains("have an account") && !letter.contains("token="), "{letter}");
    // An address that was taken after the link was sent.
    let late = format!("{}@example.com", unique("late"));
    as_ann.auth.change_email(move_to(&late, PASSWORD)).await.unwrap();
    let token = token_of(&t.last_mail_to(&late).await);
    let sign_up = v1::SignUpRequest {
        email: late.clone(),
        password: PASSWORD.to_owned(),
        display_name: "Late".to_owned(),
        ..Default::default()
    };
    t.anonymous().auth.sign_up(sign_up).await.unwrap();
    assert_refused(verify(t, &token).await, Code::AlreadyExists, "EMAIL_TAKEN");
    assert_eq!(account(t, &ann).await.user.unwrap().email, ann.email);
}

async fn what_is_no_token_opens_nothing(t: &Bed) {
    let ann = t.person("ann").await;
    forgot(t, &ann.email).await.unwrap();
    let token = token_of(&t.last_mail_to(&ann.email).await);
    let cut = &token[..token.len() - 1];
    let flipped = format!("{cut}{}", if token.ends_with('x') { 'y' } else { 'x' });
    let long = format!("{token}x");
    for junk in ["", "tnl_", "x", cut, &flipped, &long, &token.to_uppercase(), &ann.token, &ann.refresh, "tnl_\u{e9}"] {
        assert_refused(reset(t, junk, OTHER).await, Code::NotFound, "LINK_INVALID");
        assert_refused(verify(t, junk).await, Code::NotFound, "LINK_INVALID");
        let confirm = v1::ConfirmSignUpRequest { token: junk.to_owned(), ..Default::default() };
        assert_refused(t.anonymous().auth.confirm_sign_up(confirm).await, Code::NotFound, "LINK_INVALID");
    }
    assert_refused(verify(t, &token).await, Code::NotFound, "LINK_INVALID");
    reset(t, &token, OTHER).await.expect("it is still good for what it is");
}

/// Whatever comes first, nobody who knew the old password is in afterwards.
async fn a_reset_that_races_sign_ins_leaves_no_session_of_the_old_password(t: &Bed) {
    for round in 0..6 {
        let ann = t.person("ann").await;
        forgot(t, &ann.email).await.unwrap();
        let token = token_of(&t.last_mail_to(&ann.email).await);
        let sign_ins = futures::future::join_all((0..6).map(|n| {
            let (mut auth, email) = (t.anonymous().auth, ann.email.clone());
            async move {
                tokio::time::sleep(std::time::Duration::from_micros(700 * (n + round))).await;
                auth.login(login(&email, PASSWORD)).await
            }
        }));
        let (done, answers) = join(reset(t, &token, OTHER), sign_ins).await;
        done.expect("is set");
        for done in answers.into_iter().flatten() {
            let done = done.into_inner();
            assert!(!is_in(t, &done.access_token.unwrap().token).await);
            let refresh = v1::RefreshTokenRequest { refresh_token: done.refresh_token.unwrap().token };
            let over = t.anonymous().auth.refresh_token(refresh).await;
            assert_refused(over, Code::Unauthenticated, "CREDENTIAL_INVALID");
        }
    }
}

async fn mail_is_not_sent_as_often_as_somebody_likes(t: &Bed) {
    let (ann, nobody) = (t.person("ann").await, format!("{}@example.com", unique("nobody")));
    for email in [&ann.email, &nobody] {
        for _ in 0..5 {
            forgot(t, email).await.unwrap();
        }
        let refused = forgot(t, email).await.unwrap_err();
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_ATTEMPTS");
        assert!(details.retry_info().is_some());
    }
    // Guessing is counted by itself.
    t.login(&ann, "").await;
}

async fn links_end_by_themselves(t: Bed) {
    let ann = t.person("ann").await;
    forgot(&t, &ann.email).await.unwrap();
    let token = token_of(&t.last_mail_to(&ann.email).await);
    t.clock.advance(TimeDelta::minutes(61));
    assert_refused(reset(&t, &token, OTHER).await, Code::NotFound, "LINK_INVALID");
    let links = "select purpose from mail_link where user_id = $1";
    assert_eq!(t.rows::<(i64,)>(links, &ann.id).await.len(), 1);
    t.run_jobs().await;
    crate::harness::until("it is cleared away", async || t.rows::<(i64,)>(links, &ann.id).await.is_empty()).await;
    t.login(&ann, "").await;
}

fn sign_up(email: &str, slug: Option<&str>) -> v1::SignUpRequest {
    v1::SignUpRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ann".to_owned(),
        tenant: slug.map(|slug| v1::NewTenant { display_name: "Acme".to_owned(), slug: slug.to_owned() }),
        ..Default::default()
    }
}

async fn an_account_waits_for_its_link(t: Bed) {
    let t = confirming(t).await;
    let (email, slug) = (format!("{}@example.com", unique("ann")), unique("acme"));
    let asked = v1::SignUpRequest { request_id: request_id(), ..sign_up(&email, Some(&slug)) };
    for _ in 0..2 {
        let done = t.anonymous().auth.sign_up(asked.clone()).await.expect("a letter is sent").into_inner();
        assert!(done.confirmation_sent && done.user.is_none() && done.tenant.is_none() && done.access_token.is_none());
    }
    let early = t.anonymous().auth.login(login(&email, PASSWORD)).await;
    assert_refused(early, Code::Unauthenticated, "PASSWORD_WRONG");
    let token = token_of(&t.last_mail_to(&email).await);
    assert_eq!(t.mails_to(&email).len(), 1);
    let confirm = v1::ConfirmSignUpRequest { token: token.clone(), remember_me: true, ..Default::default() };
    let done = t.anonymous().auth.confirm_sign_up(confirm.clone()).await.expect("signs up").into_inner();
    assert_eq!(
        (done.user.as_ref().unwrap().email.as_str(), done.tenant.as_ref().unwrap().slug.as_str()),
        (email.as_str(), slug.as_str())
    );
    let ann = Person {
        id: done.user.unwrap().user_id,
        email: email.clone(),
        token: done.access_token.unwrap().token,
        refresh: done.refresh_token.unwrap().token,
    };
    assert!(account(&t, &ann).await.email_verified);
    t.anonymous().auth.login(login(&email, PASSWORD)).await.expect("the password is the one of the sign-up");
    assert_refused(t.anonymous().auth.confirm_sign_up(confirm).await, Code::NotFound, "LINK_INVALID");
    // The address has an account now: the answer is the same, the letter is another.
    let again = t.anonymous().auth.sign_up(sign_up(&email, None)).await.expect("a letter is sent").into_inner();
    assert!(again.confirmation_sent && again.user.is_none());
    let letter = t.mail_to(&email, "have an account").await;
    assert!(!letter.contains("token="));
    // Of two who asked for one address the first link counts.
    let twice = format!("{}@example.com", unique("twice"));
    for _ in 0..2 {
        t.anonymous().auth.sign_up(sign_up(&twice, None)).await.unwrap();
    }
    crate::harness::until("both letters", async || {
        t.run_jobs().await;
        t.mails_to(&twice).len() == 2
    })
    .await;
    let tokens: Vec<_> = t.mails_to(&twice).iter().map(|mail| token_of(mail)).collect();
    let confirm = |token: &String| v1::ConfirmSignUpRequest { token: token.clone(), ..Default::default() };
    t.anonymous().auth.confirm_sign_up(confirm(&tokens[0])).await.expect("signs up");
    let late = t.anonymous().auth.confirm_sign_up(confirm(&tokens[1])).await;
    assert_refused(late, Code::AlreadyExists, "EMAIL_TAKEN");
}

async fn a_slug_that_was_taken_meanwhile_can_be_another(t: Bed) {
    let t = confirming(t).await;
    let slug = unique("acme");
    let mut tokens = Vec::new();
    for name in ["ann", "bob"] {
        let email = format!("{}@example.com", unique(name));
        t.anonymous().auth.sign_up(sign_up(&email, Some(&slug))).await.unwrap();
        tokens.push(token_of(&t.last_mail_to(&email).await));
    }
    let confirm = |n: usize, slug: &str| v1::ConfirmSignUpRequest {
        token: tokens[n].clone(),
        slug: slug.to_owned(),
        ..Default::default()
    };
    t.anonymous().auth.confirm_sign_up(confirm(0, "")).await.expect("signs up");
    let taken = t.anonymous().auth.confirm_sign_up(confirm(1, "")).await;
    assert_refused(taken, Code::AlreadyExists, "SLUG_TAKEN");
    let other = unique("other");
    let done = t.anonymous().auth.confirm_sign_up(confirm(1, &other)).await.expect("signs up").into_inner();
    assert_eq!(done.tenant.unwrap().slug, other);
    let again = t.anonymous().auth.sign_up(sign_up(&format!("{}@example.com", unique("cleo")), Some(&slug))).await;
    assert_refused(again, Code::AlreadyExists, "SLUG_TAKEN");
}

/// The same with sign-up in two steps.
async fn confirming(t: Bed) -> Bed {
    let engine = t.engine;
    drop(t);
    Bed::private(engine, &["--sign-up=confirm"]).await
}
