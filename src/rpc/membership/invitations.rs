//! Invitations.

use tonic::Request;
use uuid::Uuid;

use crate::app::invitations::{Acceptance, Invited, NewPerson};
use crate::app::mutation::etag;
use crate::domain::id::InvitationId;
use crate::domain::invitation::{Invitation, InvitationStatus, InvitationToken};
use crate::domain::mail::Template;
use crate::domain::name::{Email, display_name};
use crate::domain::password;
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::auth::device;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::status::told;
use crate::rpc::{Services, convert, settings, v1};

/// The most people that one call invites.
const MOST: usize = 1000;

pub(super) async fn invite_member(
    s: &Services,
    request: Request<v1::InviteMemberRequest>,
) -> Result<v1::InviteMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let email = f.read("email", Email::parse(&m.email));
    let roles = f.roles("roles", &m.roles, &t.roles, t.roles.default());
    let (Some(key), Some(email), Some(roles)) = (key, email, roles) else { return Err(f.refuse()) };
    let invited = s.0.app.invite_member(&t, (email, roles), m.send_email, key).await?;
    let (token, link) = token_and_link(s, &invited);
    let invitation = Some(invitation(&invited.invitation, t.ctx.now));
    Ok(v1::InviteMemberResponse { invitation, token, link })
}

pub(super) async fn bulk_invite(
    s: &Services,
    request: Request<v1::BulkInviteRequest>,
) -> Result<v1::BulkInviteResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let count = (1..=MOST).contains(&m.items.len());
    let count = f.read("items", if count { Ok(()) } else { Err("must be 1 to 1000") });
    let (Some(key), Some(())) = (key, count) else { return Err(f.refuse()) };
    let people = m.items.iter().map(|item| {
        let mut f = Fields::default();
        let email = f.read("email", Email::parse(&item.email));
        let roles = f.roles("roles", &item.roles, &t.roles, t.roles.default());
        email.zip(roles).ok_or_else(|| f.refuse())
    });
    let results = s.0.app.bulk_invite(&t, people.collect(), m.send_email, key).await?;
    let results = m.items.into_iter().zip(results).map(|(item, result)| {
        let result = result.map_err(Error::from);
        match result {
            Ok(invited) => {
                let (token, link) = token_and_link(s, &invited);
                let invitation = Some(invitation(&invited.invitation, t.ctx.now));
                v1::InvitationResult { email: item.email, invitation, token, link, ..Default::default() }
            }
            Err(error) => {
                let (reason, message) = told(&error);
                v1::InvitationResult { email: item.email, reason, message, ..Default::default() }
            }
        }
    });
    Ok(v1::BulkInviteResponse { results: results.collect() })
}

pub(super) async fn preview_invitation(
    s: &Services,
    request: Request<v1::PreviewInvitationRequest>,
) -> Result<v1::PreviewInvitationResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let shown = s.0.app.preview_invitation(&ctx, &token(&m.token)?).await?;
    Ok(v1::PreviewInvitationResponse {
        tenant_display_name: shown.tenant.display_name,
        tenant_slug: shown.tenant.slug.as_str().to_owned(),
        branding: Some(settings::branding(&shown.branding)),
        inviter_display_name: shown.inviter.map(|user| user.display_name).unwrap_or_default(),
        email: shown.invitation.email.as_str().to_owned(),
        roles: shown.invitation.roles.texts(),
        expire_time: Some(convert::time(shown.invitation.expires_at)),
        sign_in_first: shown.has_account,
    })
}

pub(super) async fn accept_invitation(
    s: &Services,
    request: Request<v1::AcceptInvitationRequest>,
) -> Result<v1::AcceptInvitationResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let secret = std::mem::take(&mut m.password);
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let device = device(&mut f, m.device.as_ref());
    // Who is signed in has both.
    let new = if ctx.caller.person().is_some() || (secret.is_empty() && m.display_name.is_empty()) {
        Some(None)
    } else {
        let name = f.read("display_name", display_name(&m.display_name));
        let password = f.read("password", password::check(&secret, &[&m.display_name]));
        name.zip(password).map(|(name, ())| Some(name))
    };
    let (Some(key), Some(new), Some(device)) = (key, new, device) else { return Err(f.refuse()) };
    let (password, remember) = (Secret::new(secret), m.remember_me);
    let new = new.map(|display_name| NewPerson { display_name, password, remember, device });
    let acceptance = Acceptance { token: token(&m.token)?, new };
    let (member, tenant, tokens) = s.0.app.accept_invitation(&ctx, acceptance, key).await?;
    Ok(v1::AcceptInvitationResponse {
        member: Some(convert::member(&member)),
        tenant: Some(convert::tenant(&tenant, ctx.now)),
        access_token: tokens.as_ref().map(|tokens| convert::access_token(&tokens.session, &tokens.access)),
        refresh_token: tokens.as_ref().map(convert::refresh_token),
    })
}

pub(super) async fn decline_invitation(
    s: &Services,
    request: Request<v1::DeclineInvitationRequest>,
) -> Result<v1::DeclineInvitationResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    s.0.app.decline_invitation(&ctx, &token(&m.token)?, key).await?;
    Ok(v1::DeclineInvitationResponse {})
}

pub(super) async fn resend_invitation(
    s: &Services,
    request: Request<v1::ResendInvitationRequest>,
) -> Result<v1::ResendInvitationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, invitation_id(&mut f, &m.invitation_id)) else { return Err(f.refuse()) };
    let invited = s.0.app.resend_invitation(&t, id, m.send_email, key).await?;
    let (token, link) = token_and_link(s, &invited);
    let invitation = Some(invitation(&invited.invitation, t.ctx.now));
    Ok(v1::ResendInvitationResponse { invitation, token, link })
}

pub(super) async fn revoke_invitation(
    s: &Services,
    request: Request<v1::RevokeInvitationRequest>,
) -> Result<v1::RevokeInvitationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, invitation_id(&mut f, &m.invitation_id)) else { return Err(f.refuse()) };
    let revoked = s.0.app.revoke_invitation(&t, id, &m.etag, key).await?;
    Ok(v1::RevokeInvitationResponse { invitation: Some(invitation(&revoked, t.ctx.now)) })
}

pub(super) async fn list_invitations(
    s: &Services,
    request: Request<v1::ListInvitationsRequest>,
) -> Result<v1::ListInvitationsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let status = match v1::InvitationStatus::try_from(m.status) {
        Ok(v1::InvitationStatus::Unspecified) => None,
        Ok(v1::InvitationStatus::Pending) => Some(InvitationStatus::Pending),
        Ok(v1::InvitationStatus::Accepted) => Some(InvitationStatus::Accepted),
        Ok(v1::InvitationStatus::Declined) => Some(InvitationStatus::Declined),
        Ok(v1::InvitationStatus::Revoked) => Some(InvitationStatus::Revoked),
        Ok(v1::InvitationStatus::Expired) => Some(InvitationStatus::Expired),
        Err(_) => return Err(Error::field("status", "must be a status that there is")),
    };
    let filter = v1::ListInvitationsRequest { status: m.status, ..Default::default() };
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut found = s.0.app.list_invitations(&t, status, page.span()).await?;
    let next_page_token = page.cut(master, &mut found, |invitation| invitation.invitation_id.0);
    let invitations = found.iter().map(|found| invitation(found, t.ctx.now)).collect();
    Ok(v1::ListInvitationsResponse { invitations, next_page_token })
}

pub(super) async fn list_my_invitations(
    s: &Services,
    request: Request<v1::ListMyInvitationsRequest>,
) -> Result<v1::ListMyInvitationsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let master = &s.0.app.master;
    let filter = v1::ListMyInvitationsRequest::default();
    let page = Page::read(master, &ctx, None, (m.page_size, &m.page_token), &filter)?;
    let mut mine = s.0.app.list_my_invitations(&ctx, page.span()).await?;
    let next_page_token = page.cut(master, &mut mine, |mine| mine.invitation.invitation_id.0);
    let invitations = mine.into_iter().map(|mine| v1::MyInvitation {
        invitation: Some(invitation(&mine.invitation, ctx.now)),
        tenant_display_name: mine.tenant_display_name,
        tenant_slug: mine.tenant_slug,
    });
    Ok(v1::ListMyInvitationsResponse { invitations: invitations.collect(), next_page_token })
}

/// A token; what was never one of ours is answered like one that is none any more.
fn token(text: &str) -> Result<InvitationToken, Error> {
    if text.is_empty() {
        return Err(Error::field("token", "must be the token of the invitation's link"));
    }
    InvitationToken::parse(text).ok_or(Error::InvitationNotFound)
}

fn invitation_id(f: &mut Fields, text: &str) -> Option<InvitationId> {
    let id = Uuid::try_parse(text).map(InvitationId);
    f.read("invitation_id", id.map_err(|_| "must be an invitation's id, a UUID"))
}

/// A token with the link that it makes; both empty when it went by mail.
fn token_and_link(s: &Services, invited: &Invited) -> (String, String) {
    if invited.token.expose().is_empty() {
        return (String::new(), String::new());
    }
    let link = s.0.app.letters.link(Template::Invitation, Some(&invited.token));
    (invited.token.expose().clone(), link)
}

fn invitation(invitation: &Invitation, now: crate::time::Timestamp) -> v1::Invitation {
    let status = match invitation.status(now) {
        InvitationStatus::Pending => v1::InvitationStatus::Pending,
        InvitationStatus::Accepted => v1::InvitationStatus::Accepted,
        InvitationStatus::Declined => v1::InvitationStatus::Declined,
        InvitationStatus::Revoked => v1::InvitationStatus::Revoked,
        InvitationStatus::Expired => v1::InvitationStatus::Expired,
    };
    let text = |user: Option<crate::domain::id::UserId>| user.map(|user| user.to_string()).unwrap_or_default();
    v1::Invitation {
        invitation_id: invitation.invitation_id.to_string(),
        email: invitation.email.as_str().to_owned(),
        roles: invitation.roles.texts(),
        status: status.into(),
        inviter_id: text(invitation.inviter),
        create_time: Some(convert::time(invitation.created_at)),
        update_time: Some(convert::time(invitation.updated_at)),
        expire_time: Some(convert::time(invitation.expires_at)),
        accepted_by: text(invitation.accepted_by),
        etag: etag(invitation.version),
    }
}
