//! Secrets that come by mail or are shared with others: tokens of links, passwords that are set by them, what webhooks are
//! signed with, and what an identity provider is asked with.

use serde_json::json;
use tenantry::rpc::v1;
use tonic::Code;

use super::{Known, bearer};
use crate::dns::name_server;
use crate::guessing::mailed;
use crate::harness::{Headers, PASSWORD, request_id, unique};
use crate::oidc;
use crate::program::Program;

/// Somebody who is invited twice, joins, proves a new address and forgets the password.
pub(super) async fn links(server: &Program, known: &mut Known, owner: &str) {
    let (mut anybody, mut members) = (server.clients(Headers::default()), server.clients(bearer(owner)).members);
    let (email, second) = (format!("{}@example.com", unique("ida")), format!("{}@example.com", unique("ida2")));
    let invite = |email: &str, send_email| v1::InviteMemberRequest {
        request_id: request_id(),
        email: email.to_owned(),
        send_email,
        ..Default::default()
    };
    let asked = invite(&email, false);
    let invited = known.counted(members.invite_member(asked.clone()).await).unwrap();
    known.add("invitation token", &invited.token);
    known.counted(members.invite_member(asked).await).unwrap();
    let resend = v1::ResendInvitationRequest {
        request_id: request_id(),
        invitation_id: invited.invitation.unwrap().invitation_id,
        ..Default::default()
    };
    let token = known.counted(members.resend_invitation(resend).await).unwrap().token;
    known.add("second invitation token", &token);
    let preview = v1::PreviewInvitationRequest { token: token.clone() };
    known.counted(anybody.members.preview_invitation(preview).await).unwrap();
    let password = unique("password-of-ida");
    known.add("password of who is invited", &password);
    let accept = v1::AcceptInvitationRequest {
        request_id: request_id(),
        token,
        display_name: "Ida".to_owned(),
        password: password.clone(),
        ..Default::default()
    };
    let joined = known.counted(anybody.members.accept_invitation(accept.clone()).await).unwrap();
    known.counted(anybody.members.accept_invitation(accept.clone()).await).unwrap();
    let late = v1::AcceptInvitationRequest { request_id: request_id(), token: invited.token, ..accept };
    known.counted(anybody.members.accept_invitation(late).await).unwrap_err();
    let access = joined.access_token.unwrap().token;
    known.token("token of who was invited", &access);
    known.add("refresh token of who was invited", &joined.refresh_token.unwrap().token);

    let by_mail = format!("{}@example.com", unique("eli"));
    known.counted(members.invite_member(invite(&by_mail, true)).await).unwrap();
    let token = mailed(server, &by_mail, "token=").await;
    known.add("invitation token by mail", &token);
    let decline = v1::DeclineInvitationRequest { token, ..Default::default() };
    known.counted(anybody.members.decline_invitation(decline).await).unwrap();

    let mut own = server.clients(bearer(&access)).auth;
    let change = v1::ChangeEmailRequest { request_id: request_id(), new_email: second.clone(), password };
    known.counted(own.change_email(change).await).unwrap();
    let token = mailed(server, &second, "token=").await;
    known.add("token of a new address", &token);
    let verify = v1::VerifyEmailRequest { token };
    known.counted(anybody.auth.verify_email(verify.clone()).await).unwrap();
    known.counted(anybody.auth.verify_email(verify).await).unwrap_err();

    let forgot = v1::RequestPasswordResetRequest { email: second.clone() };
    known.counted(anybody.auth.request_password_reset(forgot).await).unwrap();
    let token = mailed(server, &second, "reset").await;
    known.add("reset token", &token);
    for (what, password) in [("weak new password", "password1".to_owned()), ("new password", unique("a-new-one"))] {
        known.add(what, &password);
        let reset = v1::ResetPasswordRequest { token: token.clone(), new_password: password };
        let wanted = if what == "new password" { None } else { Some(Code::InvalidArgument) };
        assert_eq!(known.counted(anybody.auth.reset_password(reset).await).err(), wanted, "{what}");
    }
    let invented = format!("tnl_{}", "Z".repeat(43));
    known.add("invented link", &invented);
    let reset = v1::ResetPasswordRequest { token: invented, new_password: PASSWORD.to_owned() };
    known.counted(anybody.auth.reset_password(reset).await).unwrap_err();
}

/// An administrator who did not choose their password, and one who is asked to come.
pub(super) async fn provisioned(server: &Program, known: &mut Known) {
    let mut operator = server.operator().tenants;
    for invite_admin in [false, true] {
        let slug = unique("globex");
        let wish = v1::ProvisionTenantRequest {
            request_id: request_id(),
            display_name: "Globex".to_owned(),
            admin_email: format!("{slug}@example.com"),
            slug,
            invite_admin,
            skip_welcome_mail: true,
            ..Default::default()
        };
        let done = known.counted(operator.provision_tenant(wish.clone()).await).unwrap();
        known.counted(operator.provision_tenant(wish).await).unwrap();
        if invite_admin {
            known.add("administrator's invitation", &done.invitation_token);
        } else {
            known.add("administrator's password", &done.admin_password);
        }
    }
}

/// A webhook, whose secret is changed, and a sign-in through an identity provider.
pub(super) async fn shared_with_others(server: &Program, known: &mut Known, owner: &str) {
    let mut tenants = server.clients(bearer(owner)).tenants;
    let hook = v1::CreateWebhookRequest {
        request_id: request_id(),
        // Nobody listens there.
        url: "http://127.0.0.1:9/".to_owned(),
        ..Default::default()
    };
    let made = known.counted(tenants.create_webhook(hook.clone()).await).unwrap();
    known.counted(tenants.create_webhook(hook).await).unwrap();
    let webhook_id = made.webhook.unwrap().webhook_id;
    let rotate = v1::RotateWebhookSecretRequest { request_id: request_id(), webhook_id, ..Default::default() };
    let rotated = known.counted(tenants.rotate_webhook_secret(rotate).await).unwrap();
    for (what, secret) in [("webhook secret", &made.secret), ("second webhook secret", &rotated.secret)] {
        known.add(what, secret.strip_prefix("whsec_").unwrap());
    }

    let domain = format!("{}.example.org", unique("sso"));
    let add = v1::AddDomainRequest { domain: domain.clone(), ..Default::default() };
    let added = known.counted(tenants.add_domain(add).await).unwrap().domain.unwrap();
    name_server().publish(&added.txt_name, &[&added.txt_value]);
    let verify = v1::VerifyDomainRequest { domain: domain.clone(), ..Default::default() };
    known.counted(tenants.verify_domain(verify).await).unwrap();
    known.add("client secret", oidc::SECRET);
    let connect = v1::SetSsoConnectionRequest {
        request_id: request_id(),
        connection: Some(oidc::connection(oidc::providers(), "rs256")),
        client_secret: oidc::SECRET.to_owned(),
        ..Default::default()
    };
    known.counted(tenants.set_sso_connection(connect).await).unwrap();
    let shown = known.counted(tenants.get_tenant(v1::GetTenantRequest::default()).await).unwrap().tenant.unwrap();
    let mut auth = server.clients(Headers::default()).auth;
    let person = json!({ "sub": unique("ada"), "email": format!("ada@{domain}"), "email_verified": true });
    let asked = v1::BeginSsoRequest {
        tenant: shown.tenant_id,
        redirect_uri: oidc::REDIRECT.to_owned(),
        login_hint: oidc::hint(&person),
        ..Default::default()
    };
    let begun = known.counted(auth.begin_sso(asked).await).unwrap();
    known.add("binding token", &begun.binding_token);
    let complete = oidc::callback(&oidc::browse(&begun.authorization_url).await, &begun.binding_token);
    known.add("code of the provider", &complete.code);
    known.add("state", &complete.state);
    let done = known.counted(auth.complete_sso(complete.clone()).await).unwrap();
    known.token("token of a provider", &done.access_token.unwrap().token);
    known.add("refresh token of a provider", &done.refresh_token.unwrap().token);
    known.counted(auth.complete_sso(complete).await).unwrap_err();
}
