//! Invitations, from the side of the tenant: made, sent again, taken back. `invitations/accept.rs` is the side of the
//! person.
//!
//! Whoever invites answers for the invitation: when it is accepted, its roles must be ones that they still may give. Who
//! sends it again answers for it from then on.

mod accept;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub use accept::{Acceptance, MyInvitation, NewPerson, Previewed};

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use super::seats::{Seats, check_seats};
use super::throttle::{Attempted, MAIL_LIMITS, Origin};
use crate::ctx::TenantCtx;
use crate::domain::id::InvitationId;
use crate::domain::invitation::{HOLDS_DAYS, Invitation, InvitationStatus, InvitationToken};
use crate::domain::mail::{Message, Template};
use crate::domain::membership::{Authority, may_touch};
use crate::domain::name::Email;
use crate::domain::role::RoleNames;
use crate::domain::secret::{Secret, sealed};
use crate::domain::tenant::Tenant;
use crate::domain::user::Account;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{InTenant, Scope, Scoped, TenantTx, invitations, memberships, scoped::RunsIn, settings};

/// An invitation with what opens it. Part of an answer that is kept: sealed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invited {
    /// The invitation.
    pub invitation: Invitation,
    /// Its token; empty when it goes by mail.
    #[serde(with = "sealed")]
    pub token: Secret<String>,
}

/// Why one of many was not invited.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum NotInvited {
    /// They are a member.
    AlreadyMember,
    /// An invitation is pending.
    AlreadyInvited,
    /// The roles are above the caller's rank.
    RankTooLow,
    /// The roles allow what the caller may not do.
    PermissionMissing(String),
    /// One of the roles is gone.
    RoleGone(String),
    /// No seat is left.
    SeatsExhausted(i64),
    /// The address was sent enough for now; in so many seconds it can be sent more.
    TooManyAttempts(i64),
}

impl From<NotInvited> for Error {
    fn from(why: NotInvited) -> Self {
        match why {
            NotInvited::AlreadyMember => Self::AlreadyMember,
            NotInvited::AlreadyInvited => Self::AlreadyInvited,
            NotInvited::RankTooLow => Self::RankTooLow,
            NotInvited::PermissionMissing(permission) => Self::PermissionMissing(permission),
            NotInvited::RoleGone(problem) => Self::field("roles", problem),
            NotInvited::SeatsExhausted(seats) => Self::SeatsExhausted { seats },
            NotInvited::TooManyAttempts(seconds) => Self::TooManyAttempts { retry_after: TimeDelta::seconds(seconds) },
        }
    }
}

impl NotInvited {
    /// Why one was not invited; other errors are about the whole call.
    fn of(error: Error) -> Result<Self, Error> {
        Ok(match error {
            Error::AlreadyMember => Self::AlreadyMember,
            Error::AlreadyInvited => Self::AlreadyInvited,
            Error::RankTooLow => Self::RankTooLow,
            Error::PermissionMissing(permission) => Self::PermissionMissing(permission),
            Error::SeatsExhausted { seats } => Self::SeatsExhausted(seats),
            Error::TooManyAttempts { retry_after } => Self::TooManyAttempts(retry_after.num_seconds()),
            Error::FieldsInvalid(mut wrong) => Self::RoleGone(wrong.pop().map(|w| w.description).unwrap_or_default()),
            other => return Err(other),
        })
    }
}

/// What all invitations of a call have in common.
struct Invites<'t> {
    t: &'t TenantCtx,
    tenant: &'t Tenant,
    own: &'t Authority,
    /// How long they hold.
    holds: TimeDelta,
    /// Whether they go by mail.
    by_mail: bool,
}

impl App {
    /// Invites somebody.
    ///
    /// # Errors
    /// `AlreadyMember`, `AlreadyInvited`, `RankTooLow`, `PermissionMissing`, `SeatsExhausted`, `RateExceeded`,
    /// `TooManyAttempts` when the address was sent much mail lately.
    pub async fn invite_member(
        &self,
        t: &TenantCtx,
        (email, roles): (Email, RoleNames),
        by_mail: bool,
        key: Option<RequestKey>,
    ) -> Result<Invited, Error> {
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let account = self.store.find_account(&email).await?;
        if by_mail {
            self.take_invitation_mail(t, &email).await?;
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        let holds = holds(&mut open.tx, t).await?;
        let wish = Invites { t, tenant: &tenant, own: &own, holds, by_mail };
        let invited = self.invite(&mut open.tx, &wish, (email, roles), account.as_ref()).await?;
        check_seats(&mut open.tx, &t.catalogue, &tenant, t.ctx.now).await?;
        let invitation = &invited.invitation;
        let audit = Audit::of(invitation.invitation_id.0)
            .set("email", invitation.email.as_str())
            .set("roles", invitation.roles.texts())
            .set("expires_at", invitation.expires_at.to_string())
            .set("send_email", by_mail);
        self.finish_secret(open, &t.ctx, audit, invited).await
    }

    /// Invites many, all of those who can be: each is answered by itself.
    ///
    /// # Errors
    /// `RateExceeded`; what is wrong with one is its answer.
    pub async fn bulk_invite(
        &self,
        t: &TenantCtx,
        people: Vec<(Email, RoleNames)>,
        by_mail: bool,
        key: Option<RequestKey>,
    ) -> Result<Vec<Result<Invited, NotInvited>>, Error> {
        let tenant_id = t.tenant_id();
        let mut accounts = Vec::with_capacity(people.len());
        for (email, _) in &people {
            let account = self.store.find_account(email).await?;
            let mail = if by_mail { self.take_invitation_mail(t, email).await } else { Ok(()) };
            accounts.push((account, mail.map_err(NotInvited::of)));
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        let holds = holds(&mut open.tx, t).await?;
        let wish = Invites { t, tenant: &tenant, own: &own, holds, by_mail };
        let mut seats = Seats::count(&mut open.tx, &t.catalogue, &tenant, t.ctx.now).await?;
        let mut results = Vec::with_capacity(people.len());
        for (person, (account, mail)) in people.into_iter().zip(accounts) {
            if let Err(why) = mail {
                results.push(Err(why?));
                continue;
            }
            let result = match seats.left() {
                // Refused for what is wrong with it rather than for the seats, where it would be in any case.
                Err(full) => match invitations::find_pending(&mut open.tx, &person.0).await? {
                    Some(pending) if pending.status(t.ctx.now) == InvitationStatus::Pending => {
                        Err(Error::AlreadyInvited)
                    }
                    _ => Err(full),
                },
                Ok(()) => self.invite(&mut open.tx, &wish, person, account.as_ref()).await,
            };
            results.push(match result {
                Ok(invited) => {
                    seats.take();
                    Ok(invited)
                }
                Err(error) => Err(NotInvited::of(error)?),
            });
        }
        let invited: Vec<&Invitation> = results.iter().flatten().map(|invited| &invited.invitation).collect();
        let audit = Audit::of(tenant_id.0)
            .set("invited", invited.len())
            .set("refused", results.len() - invited.len())
            .set("emails", invited.iter().map(|invitation| invitation.email.as_str()).collect::<Vec<_>>())
            .set("send_email", by_mail);
        self.finish_secret(open, &t.ctx, audit, results).await
    }

    /// Counts a letter to an address, before it is written: whoever may invite could otherwise have anybody sent any number,
    /// in our name.
    async fn take_invitation_mail(&self, t: &TenantCtx, email: &Email) -> Result<(), Error> {
        let to = (email, Origin::Network(t.ctx.source));
        self.take_attempt(Attempted::Mail, to, MAIL_LIMITS, t.ctx.now).await.map(|_| ())
    }

    /// Makes one invitation, and the letter that tells of it. Whether there is a seat for it is the caller's to ask.
    async fn invite(
        &self,
        tx: &mut TenantTx,
        invites: &Invites<'_>,
        (email, roles): (Email, RoleNames),
        account: Option<&Account>,
    ) -> Result<Invited, Error> {
        let Invites { t, own, holds, by_mail, .. } = *invites;
        own.may_give(roles.iter())?;
        if let Some(account) = account {
            match memberships::get(tx, account.user.user_id).await {
                Ok(_) => return Err(Error::AlreadyMember),
                Err(Error::MemberNotFound) => {}
                Err(other) => return Err(other),
            }
        }
        let token = InvitationToken::generate();
        let now = t.ctx.now;
        let invitation = Invitation {
            invitation_id: InvitationId(t.ctx.new_id()),
            email,
            roles,
            written: InvitationStatus::Pending,
            inviter: t.user_id(),
            opens_tenant: false,
            accepted_by: None,
            version: 1,
            created_at: now,
            updated_at: now,
            sent_at: now,
            expires_at: now.after(holds),
        };
        invitations::insert(tx, &invitation, &token.digest()).await?;
        let token = self.hand_over(tx, (t, invites.tenant), &invitation, token, by_mail).await?;
        Ok(Invited { invitation, token })
    }

    /// Sends a token by mail, or gives it back.
    async fn hand_over(
        &self,
        tx: &mut TenantTx,
        (t, tenant): (&TenantCtx, &Tenant),
        invitation: &Invitation,
        token: InvitationToken,
        by_mail: bool,
    ) -> Result<Secret<String>, Error> {
        let token = token.into_text();
        if !by_mail {
            return Ok(token);
        }
        let inviter = t.ctx.caller.person().map_or(tenant.display_name.as_str(), |p| p.user.display_name.as_str());
        self.post_invitation(tx, (tenant, inviter), invitation, token, t.ctx.now).await?;
        Ok(Secret::new(String::new()))
    }

    /// Writes the letter of an invitation down.
    pub(super) async fn post_invitation<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        (tenant, inviter): (&Tenant, &str),
        invitation: &Invitation,
        token: Secret<String>,
        now: crate::time::Timestamp,
    ) -> Result<(), Error> {
        let message = Message {
            template: Template::Invitation,
            recipient: invitation.email.clone(),
            payload: json!({
                "tenant": tenant.display_name,
                "inviter": inviter,
                "role": invitation.roles.to_string(),
                "expires_at": invitation.expires_at.to_string(),
            }),
            secret: Some(token),
            // Each token is a letter of its own.
            about: format!("{} {}", invitation.invitation_id, invitation.sent_at.micros()),
        };
        self.post(tx, message, now).await.map(|_| ())
    }

    /// Makes a new token the one that opens an invitation, and its time begin anew. The caller answers for it from now on.
    ///
    /// # Errors
    /// `InvitationNotFound`, `InvitationFinished`, `AlreadyInvited` when another one is pending meanwhile, `RankTooLow`,
    /// `PermissionMissing`, `SeatsExhausted`, `TooManyAttempts`.
    pub async fn resend_invitation(
        &self,
        t: &TenantCtx,
        id: InvitationId,
        by_mail: bool,
        key: Option<RequestKey>,
    ) -> Result<Invited, Error> {
        let (tenant_id, now) = (t.tenant_id(), t.ctx.now);
        if by_mail {
            let seen = invitations::get(&mut self.store.read(InTenant(tenant_id)).await?, id).await?;
            self.take_invitation_mail(t, &seen.email).await?;
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        let before = invitations::get(&mut open.tx, id).await?;
        match before.status(now) {
            InvitationStatus::Pending | InvitationStatus::Expired => {}
            finished => return Err(Error::InvitationFinished(finished.as_str())),
        }
        own.may_give(before.roles.iter())?;
        let other = invitations::find_pending(&mut open.tx, &before.email).await?;
        if other.is_some_and(|other| other.invitation_id != id) {
            return Err(Error::AlreadyInvited);
        }
        let mut after = Invitation {
            written: InvitationStatus::Pending,
            inviter: t.user_id(),
            sent_at: now,
            expires_at: now.after(holds(&mut open.tx, t).await?),
            ..before.clone()
        };
        invitations::update(&mut open.tx, &mut after, now).await?;
        let token = InvitationToken::generate();
        invitations::set_digest(&mut open.tx, id, &token.digest()).await?;
        check_seats(&mut open.tx, &t.catalogue, &tenant, now).await?;
        let token = self.hand_over(&mut open.tx, (t, &tenant), &after, token, by_mail).await?;
        let audit = Audit::of(id.0)
            .field("expires_at", before.expires_at.to_string(), after.expires_at.to_string())
            .set("send_email", by_mail);
        self.finish_secret(open, &t.ctx, audit, Invited { invitation: after, token }).await
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    /// `InvitationNotFound`, `InvitationFinished`, `RankTooLow`, `EtagMismatch`.
    pub async fn revoke_invitation(
        &self,
        t: &TenantCtx,
        id: InvitationId,
        etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Invitation, Error> {
        let (tenant_id, now) = (t.tenant_id(), t.ctx.now);
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, own) = self.lock_tenant(&mut open.tx, t).await?;
        let mut invitation = invitations::get(&mut open.tx, id).await?;
        check_etag(etag, invitation.version)?;
        may_touch(own.rank, own.roles.rank_of(&invitation.roles))?;
        match invitation.status(now) {
            InvitationStatus::Pending => {}
            finished => return Err(Error::InvitationFinished(finished.as_str())),
        }
        invitation.written = InvitationStatus::Revoked;
        invitations::update(&mut open.tx, &mut invitation, now).await?;
        let audit = Audit::of(id.0).field("status", "pending", "revoked");
        self.finish(open, &t.ctx, audit, invitation).await
    }

    /// Invitations after one of them, in the order in which they were made.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_invitations(
        &self,
        t: &TenantCtx,
        status: Option<InvitationStatus>,
        page: (Uuid, i64),
    ) -> Result<Vec<Invitation>, Error> {
        invitations::list(&mut self.store.read(InTenant(t.tenant_id())).await?, page, status, t.ctx.now).await
    }
}

/// How long invitations of a tenant hold.
async fn holds(tx: &mut TenantTx, t: &TenantCtx) -> Result<TimeDelta, Error> {
    let (own, _) = settings::find(tx).await?;
    let days = own.over(&t.catalogue.definition.settings).invitations.expiry_days;
    Ok(TimeDelta::days(days.unwrap_or(HOLDS_DAYS).into()))
}

/// Finishes the invitation of an address whose person has joined by another way: they hold one seat, not two.
///
/// # Errors
/// `DatabaseUnavailable`.
pub(super) async fn finish_pending<S: Scope>(
    tx: &mut Scoped<S>,
    (email, user): (&Email, crate::domain::id::UserId),
    now: crate::time::Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Some(mut invitation) = invitations::find_pending(tx, email).await? else { return Ok(()) };
    invitation.written = InvitationStatus::Accepted;
    invitation.accepted_by = Some(user);
    invitations::update(tx, &mut invitation, now).await
}
