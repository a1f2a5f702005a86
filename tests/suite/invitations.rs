//! Invitations: made, looked at, accepted, declined, sent again, taken back; the seats that they hold.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;

use crate::api_keys;
use crate::harness::{
    Bed, Clients, PASSWORD, assert_refused, on_both_engines, request_id, unique, until, wrong_fields,
};
use crate::links::{prove, token_of};
use crate::operator_keys;

on_both_engines! {
    a_new_person_accepts_and_is_signed_in
    whoever_has_an_account_signs_in_first
    an_acceptance_is_repeated_by_its_request_id
    a_pending_invitation_holds_a_seat
    one_who_is_added_holds_one_seat
    a_finished_invitation_blocks_no_new_one
    sent_again_only_the_newest_token_opens_it
    many_are_invited_and_answered_one_by_one
    an_invitation_stands_with_whoever_answers_for_it
    nobody_invites_above_themselves
    a_letter_brings_the_link
    nobody_is_sent_any_number_of_invitations
    a_token_that_was_handed_over_proves_no_address
    many_who_are_invited_again_by_the_same_request_are_answered_alike
    who_is_invited_again_by_the_same_request_is_sent_one_letter
    neither_support_nor_keys_make_owners
    a_closed_tenant_lets_nobody_in
    ones_own_invitations_are_listed
    a_role_that_people_are_invited_to_is_in_use
    a_token_of_any_other_kind_opens_nothing
    an_invitation_of_another_tenant_is_none;
    alone
    an_invitation_is_over_without_any_job
    where_accounts_begin_with_a_proof_a_token_that_was_handed_over_makes_none
    a_tenant_provisioned_by_invitation_begins_with_it
}

fn invite(email: &str, role: &str) -> v1::InviteMemberRequest {
    v1::InviteMemberRequest { email: email.to_owned(), roles: vec![role.to_owned()], ..Default::default() }
}

fn address(name: &str) -> String {
    format!("{}@example.com", unique(name))
}

async fn invited(clients: &mut Clients, email: &str, role: &str) -> (v1::Invitation, String) {
    let done = clients.members.invite_member(invite(email, role)).await.expect("invites").into_inner();
    (done.invitation.expect("an invitation"), done.token)
}

fn accept(token: &str) -> v1::AcceptInvitationRequest {
    v1::AcceptInvitationRequest { token: token.to_owned(), ..Default::default() }
}

fn accept_anew(token: &str) -> v1::AcceptInvitationRequest {
    v1::AcceptInvitationRequest { display_name: "Ann".to_owned(), password: PASSWORD.to_owned(), ..accept(token) }
}

fn decline(token: &str) -> v1::DeclineInvitationRequest {
    v1::DeclineInvitationRequest { token: token.to_owned(), ..Default::default() }
}

fn preview(token: &str) -> v1::PreviewInvitationRequest {
    v1::PreviewInvitationRequest { token: token.to_owned() }
}

fn resend(invitation: &v1::Invitation) -> v1::ResendInvitationRequest {
    v1::ResendInvitationRequest { invitation_id: invitation.invitation_id.clone(), ..Default::default() }
}

fn revoke(invitation: &v1::Invitation) -> v1::RevokeInvitationRequest {
    v1::RevokeInvitationRequest { invitation_id: invitation.invitation_id.clone(), ..Default::default() }
}

async fn listed(clients: &mut Clients, status: v1::InvitationStatus) -> Vec<v1::Invitation> {
    let request = v1::ListInvitationsRequest { status: status.into(), ..Default::default() };
    clients.members.list_invitations(request).await.expect("lists").into_inner().invitations
}

async fn a_new_person_accepts_and_is_signed_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let email = address("ann");
    let asked = v1::InviteMemberRequest { email: email.to_uppercase(), ..invite("", "manager") };
    let made = owner.members.invite_member(asked).await.unwrap().into_inner();
    let invitation = made.invitation.unwrap();
    assert_eq!((invitation.email.as_str(), invitation.status()), (email.as_str(), v1::InvitationStatus::Pending));
    assert_eq!((invitation.roles.join(" ").as_str(), &invitation.inviter_id), ("manager", &acme.owner.id));
    assert!(made.token.starts_with("tni_") && made.token.len() == 47);
    assert!(made.link.ends_with(&format!("/accept-invitation?token={}", made.token)), "{}", made.link);

    let mut anybody = t.anonymous();
    let shown = anybody.members.preview_invitation(preview(&made.token)).await.unwrap().into_inner();
    assert_eq!((shown.tenant_slug.as_str(), shown.email.as_str()), (acme.slug.as_str(), email.as_str()));
    assert_eq!((shown.inviter_display_name.as_str(), shown.sign_in_first), ("acme-owner", false));

    let joined = anybody.members.accept_invitation(accept_anew(&made.token)).await.unwrap().into_inner();
    let member = joined.member.unwrap();
    assert_eq!((member.roles.join(" ").as_str(), member.status()), ("manager", v1::MemberStatus::Active));
    assert_eq!(joined.tenant.unwrap().tenant_id, acme.id);
    let token = joined.access_token.unwrap();
    assert_eq!(token.tenant_id, acme.id);
    assert!(joined.refresh_token.unwrap().token.starts_with("tnr_"));
    let mut ann = t.with_token(&token.token);
    let me = ann.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.roles.join(" ").as_str(), me.tenant.unwrap().tenant_id), ("manager", acme.id.clone()));
    // It was hers alone, and once.
    for status in [v1::InvitationStatus::Accepted, v1::InvitationStatus::Unspecified] {
        let all = listed(&mut owner, status).await;
        assert_eq!((all.len(), &all[0].accepted_by), (1, &me.user.as_ref().unwrap().user_id));
    }
    assert!(listed(&mut owner, v1::InvitationStatus::Pending).await.is_empty());
    let again = anybody.members.preview_invitation(preview(&made.token)).await;
    assert_refused(again, Code::FailedPrecondition, "INVITATION_FINISHED");
    let again = anybody.members.accept_invitation(accept_anew(&made.token)).await;
    assert_refused(again, Code::FailedPrecondition, "INVITATION_FINISHED");
    // The password is hers from now on.
    let login = v1::LoginRequest { email, password: PASSWORD.to_owned(), ..Default::default() };
    anybody.auth.login(login).await.expect("signs in");
}

async fn whoever_has_an_account_signs_in_first(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let (bob, eve) = (t.person("bob").await, t.person("eve").await);
    let (_, token) = invited(&mut owner, &bob.email, "viewer").await;
    let mut anybody = t.anonymous();
    assert!(anybody.members.preview_invitation(preview(&token)).await.unwrap().into_inner().sign_in_first);
    let anew = anybody.members.accept_invitation(accept_anew(&token)).await;
    assert_refused(anew, Code::AlreadyExists, "EMAIL_TAKEN");
    let other = t.with_token(&eve.token).members.accept_invitation(accept(&token)).await;
    assert_refused(other, Code::PermissionDenied, "INVITATION_FOR_ANOTHER");
    let bad = t.with_token("eyJnothing").members.accept_invitation(accept(&token)).await;
    assert_refused(bad, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let operator = t.operator().members.accept_invitation(accept(&token)).await;
    assert_refused(operator, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let mut own = t.with_token(&bob.token);
    let joined = own.members.accept_invitation(accept(&token)).await.unwrap().into_inner();
    assert!(joined.access_token.is_none() && joined.refresh_token.is_none());
    let member = joined.member.unwrap();
    // Again, the same and no more.
    let again = own.members.accept_invitation(accept(&token)).await.unwrap().into_inner();
    assert_eq!(again.member.unwrap(), member);
    let rows: Vec<(i64,)> = t.rows("select count(*) from membership where user_id = $1", &bob.id).await;
    assert_eq!(rows[0].0, 1);
    // But one who was removed since does not come back by it.
    let remove = v1::RemoveMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    owner.members.remove_member(remove).await.unwrap();
    let back = own.members.accept_invitation(accept(&token)).await;
    assert_refused(back, Code::FailedPrecondition, "INVITATION_FINISHED");
    // A new person says who they are.
    let (_, token) = invited(&mut owner, &address("new"), "viewer").await;
    assert_eq!(wrong_fields(anybody.members.accept_invitation(accept(&token)).await), ["display_name"]);
    let short = v1::AcceptInvitationRequest { password: "short".to_owned(), ..accept_anew(&token) };
    assert_eq!(wrong_fields(anybody.members.accept_invitation(short).await), ["password"]);
}

async fn an_acceptance_is_repeated_by_its_request_id(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let request = v1::InviteMemberRequest { request_id: request_id(), ..invite(&address("ann"), "viewer") };
    let made = owner.members.invite_member(request.clone()).await.unwrap().into_inner();
    assert_eq!(owner.members.invite_member(request).await.unwrap().into_inner(), made, "the same token");
    let accepted = v1::AcceptInvitationRequest { request_id: request_id(), ..accept_anew(&made.token) };
    let mut anybody = t.anonymous();
    let first = anybody.members.accept_invitation(accepted.clone()).await.unwrap().into_inner();
    let again = anybody.members.accept_invitation(accepted.clone()).await.unwrap().into_inner();
    assert_eq!((again.member, again.refresh_token), (first.member, first.refresh_token));
    let other = v1::AcceptInvitationRequest { password: "another horse battery".to_owned(), ..accepted };
    assert_refused(anybody.members.accept_invitation(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

async fn a_pending_invitation_holds_a_seat(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    t.set_seats(&acme, 2).await;
    let (invitation, token) = invited(&mut owner, &address("ann"), "viewer").await;
    let full = owner.members.invite_member(invite(&address("bob"), "viewer")).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    let cleo = t.person("cleo").await;
    let add = v1::AddMemberRequest { email: cleo.email.clone(), ..Default::default() };
    let full = owner.members.add_member(add.clone()).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    let limits = owner.tenants.list_limits(v1::ListLimitsRequest::default()).await.unwrap().into_inner().limits;
    assert_eq!(limits.iter().find(|limit| limit.metric == "members").unwrap().used, Some(2));
    // To accept takes no other seat; to revoke and to decline give one back.
    t.anonymous().members.accept_invitation(accept_anew(&token)).await.expect("has a seat");
    let gone = owner.members.revoke_invitation(revoke(&invitation)).await;
    assert_refused(gone, Code::FailedPrecondition, "INVITATION_FINISHED");
    t.set_seats(&acme, 3).await;
    let (invitation, _) = invited(&mut owner, &address("dan"), "viewer").await;
    owner.members.revoke_invitation(revoke(&invitation)).await.unwrap();
    let (_, token) = invited(&mut owner, &address("eve"), "viewer").await;
    t.anonymous().members.decline_invitation(decline(&token)).await.unwrap();
    owner.members.add_member(add).await.expect("a seat is free");
    // Seats that were taken away meanwhile are missed when somebody accepts, and when one is sent again.
    t.set_seats(&acme, 4).await;
    let (invitation, token) = invited(&mut owner, &address("fay"), "viewer").await;
    t.set_seats(&acme, 3).await;
    let late = t.anonymous().members.accept_invitation(accept_anew(&token)).await;
    assert_refused(late, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    let late = owner.members.resend_invitation(resend(&invitation)).await;
    assert_refused(late, Code::ResourceExhausted, "SEATS_EXHAUSTED");
}

async fn one_who_is_added_holds_one_seat(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    t.set_seats(&acme, 2).await;
    let bob = t.person("bob").await;
    let (_, token) = invited(&mut owner, &bob.email, "viewer").await;
    t.join(&acme, &bob, "manager").await;
    let accepted = listed(&mut owner, v1::InvitationStatus::Accepted).await;
    assert_eq!(accepted[0].accepted_by, bob.id);
    // The invitation changes nothing of what he is now.
    let done = t.with_token(&bob.token).members.accept_invitation(accept(&token)).await.unwrap().into_inner();
    assert_eq!(done.member.unwrap().roles, ["manager"]);
    let again = owner.members.invite_member(invite(&bob.email, "viewer")).await;
    assert_refused(again, Code::AlreadyExists, "ALREADY_MEMBER");
}

async fn a_finished_invitation_blocks_no_new_one(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let email = address("ann");
    let (first, token) = invited(&mut owner, &email, "viewer").await;
    let twice = owner.members.invite_member(invite(&email, "member")).await;
    assert_refused(twice, Code::AlreadyExists, "ALREADY_INVITED");
    let stale = v1::RevokeInvitationRequest { etag: "\"v9\"".to_owned(), ..revoke(&first) };
    assert_refused(owner.members.revoke_invitation(stale).await, Code::Aborted, "ETAG_MISMATCH");
    let revoked = owner.members.revoke_invitation(revoke(&first)).await.unwrap().into_inner().invitation.unwrap();
    assert_eq!(revoked.status(), v1::InvitationStatus::Revoked);
    let told = t.anonymous().members.preview_invitation(preview(&token)).await;
    assert_refused(told, Code::FailedPrecondition, "INVITATION_FINISHED");
    assert_refused(
        owner.members.resend_invitation(resend(&first)).await,
        Code::FailedPrecondition,
        "INVITATION_FINISHED",
    );
    let (_, token) = invited(&mut owner, &email, "viewer").await;
    for _ in 0..2 {
        t.anonymous().members.decline_invitation(decline(&token)).await.expect("declined again, nothing changes");
    }
    let (_, token) = invited(&mut owner, &email, "viewer").await;
    let ann = t.anonymous().members.accept_invitation(accept_anew(&token)).await.unwrap().into_inner();
    let gone = t.anonymous().members.decline_invitation(decline(&token)).await;
    assert_refused(gone, Code::FailedPrecondition, "INVITATION_FINISHED");
    let user_id = ann.member.unwrap().user.unwrap().user_id;
    owner.members.remove_member(v1::RemoveMemberRequest { user_id, ..Default::default() }).await.unwrap();
    let (_, token) = invited(&mut owner, &email, "viewer").await;
    let back = t.with_token(&ann.access_token.unwrap().token).members.accept_invitation(accept(&token)).await;
    assert_eq!(back.unwrap().into_inner().member.unwrap().roles, ["viewer"]);
}

async fn sent_again_only_the_newest_token_opens_it(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let (invitation, first) = invited(&mut owner, &address("ann"), "viewer").await;
    let again = owner.members.resend_invitation(resend(&invitation)).await.unwrap().into_inner();
    assert_ne!(again.token, first);
    assert_ne!(again.invitation.as_ref().unwrap().etag, invitation.etag);
    let mut anybody = t.anonymous();
    for told in [
        anybody.members.preview_invitation(preview(&first)).await.map(drop),
        anybody.members.accept_invitation(accept_anew(&first)).await.map(drop),
        anybody.members.decline_invitation(decline(&first)).await.map(drop),
    ] {
        assert_refused(told.map(tonic::Response::new), Code::NotFound, "INVITATION_NOT_FOUND");
    }
    anybody.members.accept_invitation(accept_anew(&again.token)).await.expect("the newest one");
}

async fn many_are_invited_and_answered_one_by_one(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut admin = t.with_token(&t.member(&acme, "admin").await.token);
    t.set_seats(&acme, 5).await;
    let emails: Vec<String> = (0..5).map(|i| address(&format!("p{i}"))).collect();
    let item = |email: &str, role: &str| v1::InvitationItem {
        email: email.to_owned(),
        roles: Some(role.to_owned()).into_iter().filter(|role| !role.is_empty()).collect(),
    };
    let items = vec![
        item(&emails[0], ""),
        item("nonsense", "viewer"),
        item(&emails[1], "owner"),
        item(&emails[1], "king"),
        item(&emails[0], "viewer"),
        item(&acme.owner.email, "viewer"),
        item(&emails[2], "viewer"),
        item(&emails[3], "viewer"),
        item(&emails[4], "viewer"),
        item(&emails[0], "viewer"),
    ];
    let request = v1::BulkInviteRequest { request_id: request_id(), items, ..Default::default() };
    let answer = admin.members.bulk_invite(request.clone()).await.unwrap().into_inner();
    let reasons: Vec<&str> = answer.results.iter().map(|result| result.reason.as_str()).collect();
    let expected = [
        "",
        "FIELDS_INVALID",
        "RANK_TOO_LOW",
        "FIELDS_INVALID",
        "ALREADY_INVITED",
        "ALREADY_MEMBER",
        "",
        "",
        "SEATS_EXHAUSTED",
        "ALREADY_INVITED",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(answer.results[0].invitation.as_ref().unwrap().roles, ["member"], "the default");
    assert_eq!(admin.members.bulk_invite(request).await.unwrap().into_inner(), answer, "the same answer again");
    assert_eq!(listed(&mut admin, v1::InvitationStatus::Pending).await.len(), 3);
    for result in answer.results.iter().filter(|result| result.reason.is_empty()) {
        t.anonymous().members.accept_invitation(accept_anew(&result.token)).await.expect("joins");
    }
    for items in [Vec::new(), vec![item("a@example.com", ""); 1001]] {
        let wrong = v1::BulkInviteRequest { items, ..Default::default() };
        assert_eq!(wrong_fields(admin.members.bulk_invite(wrong).await), ["items"]);
    }
    // A thousand at once, and page by page.
    let globex = t.tenant("globex").await;
    let mut owner = t.with_token(&globex.owner.token);
    let run = unique("bulk");
    let items = (0..1000).map(|i| item(&format!("{run}-{i}@example.com"), "viewer")).collect();
    let request = v1::BulkInviteRequest { items, send_email: true, ..Default::default() };
    let answer = owner.members.bulk_invite(request).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.reason.is_empty() && result.token.is_empty()));
    let mut seen = 0;
    let mut page = v1::ListInvitationsRequest { page_size: 400, ..Default::default() };
    loop {
        let got = owner.members.list_invitations(page.clone()).await.unwrap().into_inner();
        seen += got.invitations.len();
        page.page_token = got.next_page_token;
        if page.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 1000);
}

async fn an_invitation_stands_with_whoever_answers_for_it(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let role = |user: &str, role: &str| v1::UpdateMemberRoleRequest {
        user_id: user.to_owned(),
        roles: vec![role.to_owned()],
        ..Default::default()
    };
    for fate in ["demoted", "may not invite", "suspended", "removed"] {
        let admin = t.member(&acme, "admin").await;
        let (invitation, token) = invited(&mut t.with_token(&admin.token), &address("ann"), "admin").await;
        let user_id = admin.id.clone();
        match fate {
            "demoted" => drop(owner.members.update_member_role(role(&user_id, "manager")).await.unwrap()),
            "may not invite" => drop(owner.members.update_member_role(role(&user_id, "viewer")).await.unwrap()),
            "suspended" => {
                let suspend = v1::SuspendMemberRequest { user_id, ..Default::default() };
                owner.members.suspend_member(suspend).await.unwrap();
            }
            _ => {
                let remove = v1::RemoveMemberRequest { user_id, ..Default::default() };
                owner.members.remove_member(remove).await.unwrap();
            }
        }
        let void = t.anonymous().members.accept_invitation(accept_anew(&token)).await;
        assert_refused(void, Code::FailedPrecondition, "INVITATION_VOID");
        // Sent again by somebody who may, it stands.
        let again = owner.members.resend_invitation(resend(&invitation)).await.unwrap().into_inner();
        assert_eq!(again.invitation.unwrap().inviter_id, acme.owner.id);
        let joined = t.anonymous().members.accept_invitation(accept_anew(&again.token)).await.expect(fate);
        assert_eq!(joined.into_inner().member.unwrap().roles, ["admin"]);
    }
    // A key of the tenant's answers for what it does, for as long as it is good.
    let key = api_keys::create(t, &acme.owner, &["*"]).await;
    let by_key = v1::InviteMemberRequest { ..invite(&address("kim"), "viewer") };
    let (first, second) = (by_key.clone(), v1::InviteMemberRequest { email: address("lee"), ..by_key });
    let mut program = t.with_key(&key.secret).members;
    let first = program.invite_member(first).await.expect("invites").into_inner();
    let second = program.invite_member(second).await.expect("invites").into_inner();
    t.anonymous().members.accept_invitation(accept_anew(&first.token)).await.expect("stands");
    let revoke = v1::RevokeApiKeyRequest { api_key_id: key.key.unwrap().api_key_id, ..Default::default() };
    owner.auth.revoke_api_key(revoke).await.expect("revokes");
    let void = t.anonymous().members.accept_invitation(accept_anew(&second.token)).await;
    assert_refused(void, Code::FailedPrecondition, "INVITATION_VOID");
    // Services and operators answer by their keys alone.
    let asked = v1::InviteMemberRequest { tenant: acme.id.clone(), ..invite(&address("bob"), "owner") };
    let made = t.operator().members.invite_member(asked).await.unwrap().into_inner();
    assert!(made.invitation.unwrap().inviter_id.is_empty());
    t.anonymous().members.accept_invitation(accept_anew(&made.token)).await.expect("joins as an owner");
}

async fn nobody_invites_above_themselves(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let mut manager = t.with_token(&t.member(&acme, "manager").await.token);
    let above = manager.members.invite_member(invite(&address("ann"), "admin")).await;
    assert_refused(above, Code::PermissionDenied, "RANK_TOO_LOW");
    let (of_owner, _) = invited(&mut owner, &address("bob"), "admin").await;
    for told in [
        manager.members.resend_invitation(resend(&of_owner)).await.map(drop),
        manager.members.revoke_invitation(revoke(&of_owner)).await.map(drop),
    ] {
        assert_refused(told.map(tonic::Response::new), Code::PermissionDenied, "RANK_TOO_LOW");
    }
    let member =
        t.with_token(&t.member(&acme, "member").await.token).members.invite_member(invite("a@b.cd", "viewer")).await;
    assert_refused(member, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_eq!(wrong_fields(manager.members.invite_member(invite("nobody", "king")).await), ["email", "roles"]);
}

async fn a_letter_brings_the_link(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let email = address("ann");
    let asked = v1::InviteMemberRequest { send_email: true, ..invite(&email, "viewer") };
    let made = owner.members.invite_member(asked).await.unwrap().into_inner();
    assert!(made.token.is_empty() && made.link.is_empty(), "it is hers alone");
    let token = |mail: &str| {
        let at = mail.find("tni_").expect("a token");
        mail[at..].chars().take(47).collect::<String>()
    };
    let first = t.last_mail_to(&email).await;
    assert!(first.contains("acme-owner") && first.contains(&acme.slug), "{first}");
    let first = token(&first);
    t.anonymous().members.preview_invitation(preview(&first)).await.expect("opens");
    let again = v1::ResendInvitationRequest { send_email: true, ..resend(&made.invitation.unwrap()) };
    owner.members.resend_invitation(again).await.unwrap();
    until("a second letter arrives", async || token(&t.last_mail_to(&email).await) != first).await;
    let second = token(&t.last_mail_to(&email).await);
    t.anonymous().members.accept_invitation(accept_anew(&second)).await.expect("joins");
}

async fn a_token_that_was_handed_over_proves_no_address(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    for by_mail in [false, true] {
        let email = address("ann");
        let asked = v1::InviteMemberRequest { send_email: by_mail, ..invite(&email, "viewer") };
        let mut token = owner.members.invite_member(asked).await.unwrap().into_inner().token;
        if by_mail {
            token = token_of(&t.last_mail_to(&email).await);
        }
        let done = t.anonymous().members.accept_invitation(accept_anew(&token)).await.unwrap().into_inner();
        let mut ann = t.with_token(&done.access_token.unwrap().token);
        let account = ann.auth.get_account(v1::GetAccountRequest {}).await.unwrap().into_inner().account.unwrap();
        assert_eq!(account.email_verified, by_mail);
    }
}

async fn where_accounts_begin_with_a_proof_a_token_that_was_handed_over_makes_none(t: Bed) {
    let t = Bed::private(t.engine, &["--sign-up=confirm"]).await;
    let slug = unique("acme");
    let create = v1::ProvisionTenantRequest {
        display_name: "Acme".to_owned(),
        slug: slug.clone(),
        admin_email: address("admin"),
        ..Default::default()
    };
    t.operator().tenants.provision_tenant(create).await.expect("is made");
    let email = address("ann");
    let asked = v1::InviteMemberRequest { tenant: slug, ..invite(&email, "viewer") };
    let invited = t.operator().members.invite_member(asked).await.unwrap().into_inner();
    let refused = t.anonymous().members.accept_invitation(accept_anew(&invited.token)).await;
    assert_refused(refused, Code::FailedPrecondition, "SIGN_UP_FIRST");
    let sign_up = v1::SignUpRequest {
        email: email.clone(),
        password: PASSWORD.to_owned(),
        display_name: "Ann".to_owned(),
        ..Default::default()
    };
    t.anonymous().auth.sign_up(sign_up).await.expect("asks");
    let confirm = v1::ConfirmSignUpRequest { token: token_of(&t.last_mail_to(&email).await), ..Default::default() };
    let done = t.anonymous().auth.confirm_sign_up(confirm).await.expect("signs up").into_inner();
    let mut ann = t.with_token(&done.access_token.unwrap().token);
    ann.members.accept_invitation(accept(&invited.token)).await.expect("joins");
}

async fn many_who_are_invited_again_by_the_same_request_are_answered_alike(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let role = |name: &str| v1::CreateRoleRequest { name: name.to_owned(), rank: 15, ..Default::default() };
    owner.members.create_role(role("temp")).await.unwrap();
    let item = |email: String, role: &str| v1::InvitationItem { email, roles: vec![role.to_owned()] };
    let request = v1::BulkInviteRequest {
        request_id: request_id(),
        items: vec![item("nobody".to_owned(), "viewer"), item(address("aa"), "temp"), item(address("bb"), "viewer")],
        ..Default::default()
    };
    let first = owner.members.bulk_invite(request.clone()).await.unwrap().into_inner();
    let delete =
        v1::DeleteRoleRequest { name: "temp".to_owned(), replacement: "viewer".to_owned(), ..Default::default() };
    owner.members.delete_role(delete).await.unwrap();
    let again = owner.members.bulk_invite(request).await.unwrap().into_inner();
    assert_eq!(again, first, "each is answered as itself, also what can be read no more");
    assert_eq!(first.results[0].reason, "FIELDS_INVALID");
    for result in &first.results[1..] {
        assert_eq!(result.email, result.invitation.as_ref().unwrap().email);
    }
}

async fn who_is_invited_again_by_the_same_request_is_sent_one_letter(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let email = address("ann");
    let asked = v1::InviteMemberRequest { request_id: request_id(), send_email: true, ..invite(&email, "viewer") };
    let first = owner.members.invite_member(asked.clone()).await.unwrap().into_inner();
    for _ in 0..6 {
        assert_eq!(owner.members.invite_member(asked.clone()).await.expect("the first answer").into_inner(), first);
    }
    t.last_mail_to(&email).await;
    assert_eq!(t.mails_to(&email).len(), 1);
}

async fn neither_support_nor_keys_make_owners(t: &Bed) {
    let acme = t.tenant("acme").await;
    let helper = operator_keys::operator_key(t, v1::OperatorScope::Support).await;
    let key = api_keys::create(t, &acme.owner, &["*"]).await.secret;
    let personal = api_keys::personal(t, &acme.owner, &["*"]).await.secret;
    for key in [helper, key, personal] {
        let mut clients = t.with_key(&key).members;
        let invite = |role: &str| v1::InviteMemberRequest { tenant: acme.id.clone(), ..invite(&address("ann"), role) };
        assert_refused(clients.invite_member(invite("owner")).await, Code::PermissionDenied, "RANK_TOO_LOW");
        clients.invite_member(invite("admin")).await.expect("below the top");
        let add = v1::AddMemberRequest {
            tenant: acme.id.clone(),
            email: t.person("eve").await.email,
            roles: vec!["owner".to_owned()],
            ..Default::default()
        };
        assert_refused(clients.add_member(add).await, Code::PermissionDenied, "RANK_TOO_LOW");
    }
}

async fn nobody_is_sent_any_number_of_invitations(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut owner = t.with_token(&acme.owner.token);
    let email = address("ann");
    let by_mail = |email: &str| v1::InviteMemberRequest { send_email: true, ..invite(email, "viewer") };
    let first = owner.members.invite_member(by_mail(&email)).await.expect("invites").into_inner().invitation.unwrap();
    let again = v1::ResendInvitationRequest { send_email: true, ..resend(&first) };
    for _ in 0..4 {
        owner.members.resend_invitation(again.clone()).await.expect("sends again");
    }
    assert_refused(owner.members.resend_invitation(again).await, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    // Another tenant does not get round it, nor do many at once; without mail it goes on.
    let mut other = t.with_token(&globex.owner.token);
    let refused = other.members.invite_member(by_mail(&email)).await;
    assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS");
    let bulk = v1::BulkInviteRequest {
        items: [&email, &address("bob")]
            .map(|email| v1::InvitationItem { email: email.clone(), ..Default::default() })
            .to_vec(),
        send_email: true,
        ..Default::default()
    };
    let results = other.members.bulk_invite(bulk).await.expect("answers").into_inner().results;
    let reasons: Vec<_> = results.iter().map(|result| result.reason.as_str()).collect();
    assert_eq!(reasons, ["TOO_MANY_ATTEMPTS", ""]);
    owner.members.resend_invitation(resend(&first)).await.expect("hands the link over");
}

async fn a_closed_tenant_lets_nobody_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let (_, token) = invited(&mut owner, &address("ann"), "viewer").await;
    let suspend = v1::SuspendTenantRequest { reason: "closed".to_owned(), ..Default::default() };
    owner.tenants.suspend_tenant(suspend).await.unwrap();
    let closed = t.anonymous().members.accept_invitation(accept_anew(&token)).await;
    assert_refused(closed, Code::FailedPrecondition, "WRONG_STATE");
    owner.tenants.activate_tenant(v1::ActivateTenantRequest::default()).await.unwrap();
    let flags = |on| v1::SetTenantFlagsRequest { tenant: acme.id.clone(), maintenance: Some(on), ..Default::default() };
    t.operator().tenants.set_tenant_flags(flags(true)).await.unwrap();
    let closed = t.anonymous().members.accept_invitation(accept_anew(&token)).await;
    assert_refused(closed, Code::Unavailable, "TENANT_IN_MAINTENANCE");
    t.operator().tenants.set_tenant_flags(flags(false)).await.unwrap();
    owner.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.unwrap();
    for told in [
        t.anonymous().members.accept_invitation(accept_anew(&token)).await.map(drop),
        t.anonymous().members.preview_invitation(preview(&token)).await.map(drop),
        t.anonymous().members.decline_invitation(decline(&token)).await.map(drop),
    ] {
        assert_refused(told.map(tonic::Response::new), Code::NotFound, "INVITATION_NOT_FOUND");
    }
    owner.tenants.undelete_tenant(v1::UndeleteTenantRequest::default()).await.unwrap();
    t.anonymous().members.accept_invitation(accept_anew(&token)).await.expect("open again");
}

async fn ones_own_invitations_are_listed(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let bob = t.person("bob").await;
    let mut own = t.with_token(&bob.token);
    let mine = async |clients: &mut Clients| {
        let request = v1::ListMyInvitationsRequest::default();
        clients.members.list_my_invitations(request).await.unwrap().into_inner().invitations
    };
    assert!(mine(&mut own).await.is_empty());
    let unproven = t.person("eve").await;
    invited(&mut t.with_token(&acme.owner.token), &unproven.email, "viewer").await;
    assert!(mine(&mut t.with_token(&unproven.token)).await.is_empty(), "it may be anybody who says that it is theirs");
    prove(t, &bob).await;
    let mut tokens = Vec::new();
    for tenant in [&acme, &globex] {
        tokens.push(invited(&mut t.with_token(&tenant.owner.token), &bob.email, "viewer").await.1);
    }
    let listed = mine(&mut own).await;
    assert_eq!(listed.iter().map(|i| i.tenant_slug.as_str()).collect::<Vec<_>>(), [acme.slug.as_str(), &globex.slug]);
    assert!(mine(&mut t.with_token(&acme.owner.token)).await.is_empty(), "nobody else's");
    own.members.accept_invitation(accept(&tokens[0])).await.unwrap();
    own.members.decline_invitation(decline(&tokens[1])).await.unwrap();
    assert!(mine(&mut own).await.is_empty());
}

async fn a_role_that_people_are_invited_to_is_in_use(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let role = v1::CreateRoleRequest { name: "host".to_owned(), rank: 25, ..Default::default() };
    owner.members.create_role(role).await.unwrap();
    let (_, token) = invited(&mut owner, &address("ann"), "host").await;
    let delete = v1::DeleteRoleRequest { name: "host".to_owned(), ..Default::default() };
    let used = owner.members.delete_role(delete.clone()).await;
    assert_refused(used, Code::FailedPrecondition, "ROLE_IN_USE");
    owner.members.delete_role(v1::DeleteRoleRequest { replacement: "viewer".to_owned(), ..delete }).await.unwrap();
    let joined = t.anonymous().members.accept_invitation(accept_anew(&token)).await.unwrap().into_inner();
    assert_eq!(joined.member.unwrap().roles, ["viewer"]);
}

async fn a_token_of_any_other_kind_opens_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (_, token) = invited(&mut t.with_token(&acme.owner.token), &address("ann"), "viewer").await;
    let key = t.service_key(&["members.invite"]).await;
    let others = [
        token[..46].to_owned(),
        format!("{token}0"),
        token.replace("tni_", "tnr_"),
        token.to_uppercase(),
        format!("tni_{}", "0".repeat(43)),
        acme.owner.token.clone(),
        key,
    ];
    for other in others {
        let told = t.anonymous().members.preview_invitation(preview(&other)).await;
        assert_refused(told, Code::NotFound, "INVITATION_NOT_FOUND");
        let told = t.anonymous().members.accept_invitation(accept_anew(&other)).await;
        assert_refused(told, Code::NotFound, "INVITATION_NOT_FOUND");
        let told = t.anonymous().members.decline_invitation(decline(&other)).await;
        assert_refused(told, Code::NotFound, "INVITATION_NOT_FOUND");
    }
    // Nor does it open anything else.
    let told = t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(told, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

async fn an_invitation_of_another_tenant_is_none(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let (invitation, _) = invited(&mut t.with_token(&globex.owner.token), &address("ann"), "viewer").await;
    let mut owner = t.with_token(&acme.owner.token);
    for told in [
        owner.members.resend_invitation(resend(&invitation)).await.map(drop),
        owner.members.revoke_invitation(revoke(&invitation)).await.map(drop),
    ] {
        assert_refused(told.map(tonic::Response::new), Code::NotFound, "INVITATION_NOT_FOUND");
    }
    assert!(listed(&mut owner, v1::InvitationStatus::Unspecified).await.is_empty());
}

async fn an_invitation_is_over_without_any_job(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    t.set_seats(&acme, 2).await;
    let email = address("ann");
    let (first, token) = invited(&mut owner, &email, "viewer").await;
    let days = |invitation: &v1::Invitation| {
        let span = invitation.expire_time.unwrap().seconds - invitation.create_time.unwrap().seconds;
        span / (24 * 60 * 60)
    };
    assert_eq!(days(&first), 7);
    t.clock.advance(TimeDelta::days(7));
    let owner_again = t.login(&acme.owner, &acme.id).await;
    let mut owner = t.with_token(&owner_again.token);
    for told in [
        t.anonymous().members.preview_invitation(preview(&token)).await.map(drop),
        t.anonymous().members.accept_invitation(accept_anew(&token)).await.map(drop),
        t.anonymous().members.decline_invitation(decline(&token)).await.map(drop),
        owner.members.revoke_invitation(revoke(&first)).await.map(drop),
    ] {
        assert_refused(told.map(tonic::Response::new), Code::FailedPrecondition, "INVITATION_FINISHED");
    }
    assert!(listed(&mut owner, v1::InvitationStatus::Pending).await.is_empty());
    assert_eq!(listed(&mut owner, v1::InvitationStatus::Expired).await.len(), 1);
    // Its seat is free, its address as well.
    let expiry = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings {
            invitations: Some(v1::InvitationPolicy { expiry_days: Some(2) }),
            ..Default::default()
        }),
        ..Default::default()
    };
    owner.tenants.update_settings(expiry).await.unwrap();
    let (second, _) = invited(&mut owner, &email, "viewer").await;
    assert_eq!(days(&second), 2);
    assert_eq!(listed(&mut owner, v1::InvitationStatus::Expired).await.len(), 1);
    let other = owner.members.resend_invitation(resend(&first)).await;
    assert_refused(other, Code::AlreadyExists, "ALREADY_INVITED");
    t.clock.advance(TimeDelta::days(2));
    let mut owner = t.with_token(&t.login(&acme.owner, &acme.id).await.token);
    let again = owner.members.resend_invitation(resend(&second)).await.unwrap().into_inner();
    t.anonymous().members.accept_invitation(accept_anew(&again.token)).await.expect("its time began anew");
}

async fn a_tenant_provisioned_by_invitation_begins_with_it(t: Bed) {
    let (slug, email) = (unique("acme"), address("admin"));
    let wish = v1::ProvisionTenantRequest {
        request_id: request_id(),
        display_name: "Acme".to_owned(),
        slug: slug.clone(),
        admin_email: email.clone(),
        invite_admin: true,
        skip_welcome_mail: true,
        ..Default::default()
    };
    let mut operator = t.operator();
    let tried = v1::ProvisionTenantRequest { validate_only: true, request_id: String::new(), ..wish.clone() };
    let tried = operator.tenants.provision_tenant(tried).await.unwrap().into_inner();
    assert_eq!(tried.steps.last().unwrap().step, "invitation");
    let done = operator.tenants.provision_tenant(wish.clone()).await.unwrap().into_inner();
    let steps = |done: &v1::ProvisionTenantResponse| done.steps.iter().map(|s| s.step.clone()).collect::<Vec<_>>();
    assert_eq!(steps(&done), ["validate", "tenant", "settings", "features", "verified", "invitation"]);
    assert_eq!(steps(&tried), steps(&done));
    assert!(done.admin_password.is_empty() && done.admin.as_ref().unwrap().user_id.is_empty());
    let tenant = done.tenant.clone().unwrap();
    assert_eq!(tenant.status(), v1::TenantStatus::Pending);
    assert!(done.invitation_link.ends_with(&done.invitation_token));
    // Repeated, with and without its id, it makes nothing twice.
    assert_eq!(operator.tenants.provision_tenant(wish.clone()).await.unwrap().into_inner(), done);
    let again = v1::ProvisionTenantRequest { request_id: String::new(), ..wish.clone() };
    let again = operator.tenants.provision_tenant(again).await.unwrap().into_inner();
    assert_eq!(again.tenant.unwrap().tenant_id, tenant.tenant_id);
    assert!(again.invitation_token.is_empty());
    let other = v1::ProvisionTenantRequest { request_id: String::new(), admin_email: address("other"), ..wish.clone() };
    assert_refused(operator.tenants.provision_tenant(other).await, Code::AlreadyExists, "SLUG_TAKEN");
    let both = v1::ProvisionTenantRequest { pending: true, ..wish.clone() };
    assert_eq!(wrong_fields(operator.tenants.provision_tenant(both).await), ["pending"]);
    // A link that was lost, or is over, is made anew by the operator.
    t.clock.advance(TimeDelta::days(8));
    let gone = t.anonymous().members.accept_invitation(accept_anew(&done.invitation_token)).await;
    assert_refused(gone, Code::FailedPrecondition, "INVITATION_FINISHED");
    let list = v1::ListInvitationsRequest { tenant: tenant.tenant_id.clone(), ..Default::default() };
    let listed = operator.members.list_invitations(list).await.unwrap().into_inner().invitations;
    let resend = v1::ResendInvitationRequest { tenant: tenant.tenant_id.clone(), ..resend(&listed[0]) };
    let sent = operator.members.resend_invitation(resend).await.unwrap().into_inner();
    let joined = t.anonymous().members.accept_invitation(accept_anew(&sent.token)).await.unwrap().into_inner();
    assert_eq!(joined.tenant.unwrap().status(), v1::TenantStatus::Active);
    assert_eq!(joined.member.unwrap().roles, ["owner"]);
    let mut owner = t.with_token(&joined.access_token.unwrap().token);
    owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("it has begun");
    // An administrator who does not want it, or was the wrong one, blocks nothing.
    let wrong = v1::ProvisionTenantRequest { request_id: String::new(), slug: unique("typo"), ..wish.clone() };
    let wrong = v1::ProvisionTenantRequest { admin_email: address("typo"), ..wrong };
    let token = operator.tenants.provision_tenant(wrong.clone()).await.unwrap().into_inner().invitation_token;
    t.anonymous().members.decline_invitation(decline(&token)).await.expect("declines");
    let right = v1::ProvisionTenantRequest { admin_email: address("right"), ..wrong };
    let token = operator.tenants.provision_tenant(right).await.expect("goes on").into_inner().invitation_token;
    t.anonymous().members.accept_invitation(accept_anew(&token)).await.expect("begins");
    // By mail, it is the same letter as any invitation's.
    let email = address("mailed");
    let mailed = v1::ProvisionTenantRequest {
        request_id: String::new(),
        slug: unique("mailed"),
        admin_email: email.clone(),
        skip_welcome_mail: false,
        ..wish
    };
    let done = operator.tenants.provision_tenant(mailed).await.unwrap().into_inner();
    assert!(done.invitation_token.is_empty());
    assert!(t.last_mail_to(&email).await.contains("tni_"));
}
