//! mercura: sales quotes, sold by seat.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;

use super::{billed, days_pass, seen, subscription};
use crate::harness::{Bed, Clients, PASSWORD, Person, assert_refused, on_both_engines, unique};
use crate::links::token_of;
use crate::refresh::{next, refresh, spent};

on_both_engines! {
    an_organisation_lives_from_sign_up_over_trial_and_debt_to_its_end
    sessions_survive_a_restart_and_end_when_told
    a_password_is_changed_and_forgotten
}

async fn an_organisation_lives_from_sign_up_over_trial_and_debt_to_its_end(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("mercura.toml")).await;
    // Sign-up creates the organisation with its owner and returns a token, in one call.
    let slug = unique("acme");
    let sign_up = v1::SignUpRequest {
        email: format!("{slug}@example.com"),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: Some(v1::NewTenant { display_name: "Acme".to_owned(), slug: slug.clone() }),
        ..Default::default()
    };
    let done = t.anonymous().auth.sign_up(sign_up).await.unwrap().into_inner();
    let tenant = done.tenant.unwrap();
    assert_eq!((tenant.status(), tenant.plan.as_str()), (v1::TenantStatus::Trial, "trial"));
    let owner = crate::harness::Person {
        id: done.user.unwrap().user_id,
        email: format!("{slug}@example.com"),
        token: done.access_token.unwrap().token,
        refresh: done.refresh_token.unwrap().token,
    };
    let acme = crate::harness::Tenant { id: tenant.tenant_id, slug, owner };

    // Seats are enforced: three on trial.
    t.member(&acme, "sales_rep").await;
    t.member(&acme, "viewer").await;
    let dan = t.person("dan").await;
    let add =
        v1::AddMemberRequest { email: dan.email.clone(), roles: vec!["manager".to_owned()], ..Default::default() };
    let full = t.with_token(&acme.owner.token).members.add_member(add.clone()).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");

    // The trial ends by itself; choosing a plan does not open it, paying does.
    days_pass(t, 15).await;
    let over = seen(t, &acme.id).await;
    assert_eq!((over.status(), over.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::TrialEnded));
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let plan = |plan: &str| v1::ChangePlanRequest { plan: plan.to_owned(), ..Default::default() };
    as_owner.tenants.change_plan(plan("team")).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Suspended);
    assert!(billed(t, &acme.id, v1::BillingEventKind::Paid).await.applied);
    let open = seen(t, &acme.id).await;
    assert_eq!((open.status(), open.plan.as_str()), (v1::TenantStatus::Active, "team"));
    as_owner.members.add_member(add).await.expect("ten seats now");
    // Invite by e-mail with a role; a link with a token; a preview; accepted with name and password, which creates the account
    // and returns a token; listed, sent again, revoked.
    invitations(t, &mut as_owner).await;
    let linked = subscription(t, &acme.id).await;
    assert_eq!(linked.provider_ids.as_ref().unwrap().customer, "cus_1");
    assert_eq!((linked.price, linked.currency.as_str(), linked.cycle()), (4900, "EUR", v1::BillingCycle::Month));

    // Past due leaves the tenant as it is until grace ends.
    days_pass(t, 31).await;
    assert_eq!(subscription(t, &acme.id).await.status(), v1::SubscriptionStatus::PastDue);
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
    days_pass(t, 7).await;
    let closed = seen(t, &acme.id).await;
    assert_eq!((closed.status(), closed.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::Billing));
    billed(t, &acme.id, v1::BillingEventKind::Paid).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);

    // Cancelled at the period's end: active until then.
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let cancel = v1::CancelSubscriptionRequest { when: v1::EffectiveWhen::PeriodEnd.into(), ..Default::default() };
    as_owner.tenants.cancel_subscription(cancel).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
    days_pass(t, 32).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Cancelled);
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let closed = as_owner.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(closed, Code::PermissionDenied, "TENANT_CANCELLED");
    as_owner.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.expect("comes back");
    billed(t, &acme.id, v1::BillingEventKind::Paid).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
}

async fn sessions_survive_a_restart_and_end_when_told(t: &Bed) {
    let t = Bed::of_product(t.engine, include_str!("mercura.toml")).await;
    let acme = t.tenant("acme").await;
    // "Remember me" on the laptop; the phone is for the day.
    let laptop = v1::LoginRequest {
        email: acme.owner.email.clone(),
        password: PASSWORD.to_owned(),
        remember_me: true,
        device: Some(v1::Device { display_name: "laptop".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let laptop = t.anonymous().auth.login(laptop).await.unwrap().into_inner().refresh_token.unwrap().token;
    let phone = t.login(&acme.owner, "").await.refresh;
    let t = t.restart_after(TimeDelta::hours(10)).await;
    let phone = next(&t, &phone).await;
    let t = t.restart_after(TimeDelta::days(20)).await;
    spent(refresh(&t, &phone).await);
    next(&t, &laptop).await;
    // The list shows the laptop and the sign-in of today; one is ended, then all.
    let owner = t.login(&acme.owner, "").await;
    let mut as_owner = t.with_token(&owner.token);
    let listed = as_owner.auth.list_sessions(v1::ListSessionsRequest::default()).await.unwrap().into_inner().sessions;
    assert_eq!(listed.iter().map(|session| session.current).collect::<Vec<_>>(), [false, true]);
    assert_eq!(listed[0].device.as_ref().unwrap().display_name, "laptop");
    let one = v1::RevokeSessionRequest { session_id: listed[0].session_id.clone(), ..Default::default() };
    as_owner.auth.revoke_session(one).await.unwrap();
    spent(refresh(&t, &laptop).await);
    as_owner.auth.revoke_all_sessions(v1::RevokeAllSessionsRequest::default()).await.unwrap();
    spent(refresh(&t, &owner.refresh).await);
}

async fn a_password_is_changed_and_forgotten(t: &Bed) {
    const SECOND: &str = "another passphrase entirely";
    const THIRD: &str = "yet a third passphrase";
    let t = &Bed::of_product(t.engine, include_str!("mercura.toml")).await;
    let acme = t.tenant("acme").await;
    let rep = t.member(&acme, "sales_rep").await;
    let is_in = async |person: &Person| t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok();
    let sign_in = async |password: &str| {
        let asked = v1::LoginRequest {
            email: rep.email.clone(),
            password: password.to_owned(),
            remember_me: true,
            ..Default::default()
        };
        let done = t.anonymous().auth.login(asked).await.expect("signs in").into_inner();
        Person {
            token: done.access_token.expect("a token").token,
            refresh: done.refresh_token.expect("a refresh token").token,
            ..rep.clone()
        }
    };
    // Changing the password ends all other sessions.
    let (desk, phone) = (sign_in(PASSWORD).await, sign_in(PASSWORD).await);
    let change = v1::ChangePasswordRequest {
        old_password: PASSWORD.to_owned(),
        new_password: SECOND.to_owned(),
        ..Default::default()
    };
    t.with_token(&desk.token).auth.change_password(change).await.expect("is changed");
    assert!(is_in(&desk).await && !is_in(&phone).await && !is_in(&rep).await);

    // Forgotten: whether an address exists is not told, and a reset ends all sessions.
    let forgot = |email: &str| v1::RequestPasswordResetRequest { email: email.to_owned() };
    let nobody = format!("{}@example.com", unique("nobody"));
    let unknown = t.anonymous().auth.request_password_reset(forgot(&nobody)).await.expect("an answer").into_inner();
    let known = t.anonymous().auth.request_password_reset(forgot(&rep.email)).await.expect("an answer").into_inner();
    assert_eq!(unknown, known);
    let token = token_of(&t.mail_to(&rep.email, "token=").await);
    assert!(t.mails_to(&nobody).is_empty());
    let reset = v1::ResetPasswordRequest { token, new_password: THIRD.to_owned() };
    t.anonymous().auth.reset_password(reset).await.expect("is set");
    assert!(!is_in(&desk).await);
    assert!(is_in(&sign_in(THIRD).await).await);
}

async fn invitations(t: &Bed, owner: &mut Clients) {
    let invite = |name: &str| v1::InviteMemberRequest {
        email: format!("{}@example.com", unique(name)),
        roles: vec!["sales_rep".to_owned()],
        ..Default::default()
    };
    let letter = v1::InviteMemberRequest { send_email: true, ..invite("gil") };
    owner.members.invite_member(letter.clone()).await.unwrap();
    let mail = t.last_mail_to(&letter.email).await;
    assert!(mail.contains("/accept-invitation?token=tni_"), "{mail}");
    let made = owner.members.invite_member(invite("hal")).await.unwrap().into_inner();
    let shown = v1::PreviewInvitationRequest { token: made.token.clone() };
    let shown = t.anonymous().members.preview_invitation(shown).await.unwrap().into_inner();
    assert_eq!((shown.tenant_display_name.as_str(), shown.roles), ("Acme", vec!["sales_rep".to_owned()]));
    let accept = v1::AcceptInvitationRequest {
        token: made.token,
        display_name: "Hal".to_owned(),
        password: PASSWORD.to_owned(),
        ..Default::default()
    };
    let joined = t.anonymous().members.accept_invitation(accept).await.unwrap().into_inner();
    assert!(!joined.access_token.unwrap().token.is_empty());
    let pending = v1::ListInvitationsRequest { status: v1::InvitationStatus::Pending.into(), ..Default::default() };
    let listed = owner.members.list_invitations(pending.clone()).await.unwrap().into_inner().invitations;
    assert_eq!(listed.iter().map(|invitation| &invitation.email).collect::<Vec<_>>(), [&letter.email]);
    let invitation_id = listed[0].invitation_id.clone();
    let again = v1::ResendInvitationRequest { invitation_id: invitation_id.clone(), ..Default::default() };
    assert!(!owner.members.resend_invitation(again).await.unwrap().into_inner().link.is_empty());
    let revoke = v1::RevokeInvitationRequest { invitation_id, ..Default::default() };
    owner.members.revoke_invitation(revoke).await.unwrap();
    assert!(owner.members.list_invitations(pending).await.unwrap().into_inner().invitations.is_empty());
}
