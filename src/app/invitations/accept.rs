//! Invitations, from the side of the person: looked at, accepted, declined. Whoever has the token was sent it, or got it from
//! one who was; it says nothing of the tenant but what an invitation shows, and only the invited address joins by it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use crate::app::members::Member;
use crate::app::mutation::{Begun, RequestKey};
use crate::app::passwords::Comparison;
use crate::app::seats::check_seats;
use crate::app::sessions::{Opened, SignIn, Tokens};
use crate::app::sign_up::SignUpMode;
use crate::app::tenants::new_membership;
use crate::ctx::{Ctx, SignedIn, rank_of_key};
use crate::decide::roles::together;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::{UserId, derived};
use crate::domain::invitation::{Invitation, InvitationStatus, InvitationToken};
use crate::domain::membership::{Authority, MemberStatus, Membership};
use crate::domain::role::Roles;
use crate::domain::secret::Secret;
use crate::domain::session::{Device, Proof};
use crate::domain::settings::Branding;
use crate::domain::tenant::Tenant;
use crate::domain::user::{FIRST_EPOCH, User};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::invitations::{self, Found};
pub use crate::store::system::MyInvitation;
use crate::store::{
    AsUser, InTenant, InTenantAsUser, Scoped, accounts, api_keys, memberships, roles as own_roles, sessions, settings,
    users,
};
use crate::time::Timestamp;

/// What the person who is invited is shown.
pub struct Previewed {
    /// The invitation.
    pub invitation: Invitation,
    /// The tenant.
    pub tenant: Tenant,
    /// How it looks.
    pub branding: Branding,
    /// Who invites; none for services and operators.
    pub inviter: Option<User>,
    /// Whether the address has an account.
    pub has_account: bool,
}

/// An acceptance.
pub struct Acceptance {
    /// What opens the invitation.
    pub token: InvitationToken,
    /// Who they will be; for people without an account.
    pub new: Option<NewPerson>,
}

/// Somebody who has no account yet.
pub struct NewPerson {
    /// The name that people see.
    pub display_name: String,
    /// Their password, which has passed the rules.
    pub password: Secret<String>,
    /// Whether the sign-in is to outlast the day.
    pub remember: bool,
    /// Where they are.
    pub device: Device,
}

/// Somebody who has joined. Part of an answer that is kept: sealed.
#[derive(Serialize, Deserialize)]
struct Joined {
    member: Member,
    tenant: Tenant,
    opened: Option<Opened>,
}

/// What an invitation has made of somebody.
struct Admitted {
    tenant: Tenant,
    membership: Membership,
    audit: Audit,
    /// Whether its token went by mail.
    mailed: bool,
}

impl App {
    /// Shows an invitation to whoever has its token.
    ///
    /// # Errors
    /// `InvitationNotFound`, `InvitationFinished`.
    pub async fn preview_invitation(&self, ctx: &Ctx, token: &InvitationToken) -> Result<Previewed, Error> {
        let Found { tenant_id, invitation } = self.pending(ctx, token).await?;
        let (tenant, catalogue) =
            self.plane.find_settled(tenant_id, ctx.now).await?.ok_or(Error::InvitationNotFound)?;
        if tenant.deleted_at.is_some() {
            return Err(Error::InvitationNotFound);
        }
        let mut tx = self.store.read(InTenant(tenant_id)).await?;
        let (own, _) = settings::find(&mut tx).await?;
        drop(tx);
        let branding = own.over(&catalogue.definition.settings).branding;
        let inviter = match invitation.inviter {
            Some(user) => self.store.find_user(user).await?,
            None => None,
        };
        let has_account = self.store.find_account(&invitation.email).await?.is_some();
        Ok(Previewed { invitation, tenant, branding, inviter, has_account })
    }

    /// Makes the person a member: the one who is signed in, or a new one.
    ///
    /// # Errors
    /// `InvitationNotFound`, `InvitationFinished`, `InvitationVoid`, `InvitationForAnother` for who is signed in with another
    /// address, `EmailTaken` for who is not signed in and has an account, `SignUpFirst`, `FieldsInvalid` for a new person without name and
    /// password, `SeatsExhausted`, `WrongState` when the tenant is closed.
    pub async fn accept_invitation(
        &self,
        ctx: &Ctx,
        acceptance: Acceptance,
        key: Option<RequestKey>,
    ) -> Result<(Member, Tenant, Option<Tokens>), Error> {
        let Acceptance { token, new } = acceptance;
        let joined = match ctx.caller.person() {
            Some(person) => self.accept_as(ctx, &token, person, key).await?,
            None => self.accept_anew(ctx, &token, new, key).await?,
        };
        let tokens = joined.opened.map(|opened| self.tokens(opened, ctx.now)).transpose()?;
        Ok((joined.member, joined.tenant, tokens))
    }

    async fn accept_as(
        &self,
        ctx: &Ctx,
        token: &InvitationToken,
        person: &SignedIn,
        key: Option<RequestKey>,
    ) -> Result<Joined, Error> {
        let Found { tenant_id, invitation } = self.found(token).await?;
        if invitation.email != person.user.email {
            return Err(Error::InvitationForAnother);
        }
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let scope = InTenantAsUser(tenant_id, person.user.user_id);
        let mut open = match self.begin(ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        // An account that is being deleted joins nothing any more.
        sessions::lock_account(&mut open.tx).await?.ok_or(Error::CredentialInvalid)?;
        let Admitted { tenant, membership, audit, .. } = self.admit(&mut open.tx, ctx, &catalogue, token).await?;
        users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
        let member = Member { membership, user: person.user.clone() };
        self.finish(open, ctx, audit, Joined { member, tenant, opened: None }).await
    }

    async fn accept_anew(
        &self,
        ctx: &Ctx,
        token: &InvitationToken,
        new: Option<NewPerson>,
        key: Option<RequestKey>,
    ) -> Result<Joined, Error> {
        // Asked before the hash is paid for.
        self.look_at_rate(ctx, None).await?;
        let Found { tenant_id, invitation } = self.found(token).await?;
        let user_id = UserId(self.account_of_invitation(&invitation));
        // The account that a repetition speaks of is no obstacle to it.
        let account = self.store.find_account(&invitation.email).await?;
        if account.is_some_and(|account| account.user.user_id != user_id) {
            return Err(Error::EmailTaken);
        }
        let Some(new) = new else {
            return Err(Error::field("display_name", "must be said, with a password, by new people"));
        };
        if key.is_none() {
            open(&invitation, ctx)?;
        }
        // Where accounts begin with a proof of the address, so does this one.
        if !invitation.mailed && self.sign_up_mode == SignUpMode::Confirm {
            return Err(Error::SignUpFirst);
        }
        let user = User { user_id, email: invitation.email.clone(), display_name: new.display_name };
        // Before the transaction, which may not stay open for as long as a hash takes. A repetition pays for it again.
        let password_hash = self.passwords.hash(new.password.clone(), false).await?;
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let scope = InTenantAsUser(tenant_id, user_id);
        let mut open = match self.begin::<Joined, _>(ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return self.prove_acceptance(first, new.password).await,
            Begun::Open(open) => open,
        };
        // First what the invitation says of itself: an account that it has made already is no other fault.
        let Admitted { tenant, membership, audit, mailed } = self.admit(&mut open.tx, ctx, &catalogue, token).await?;
        users::insert(&mut open.tx, &user, &password_hash, ctx.now).await?;
        // A token that was handed over says nothing of whose mail it is: anybody could have asked for it.
        if mailed {
            accounts::set_verified(&mut open.tx, ctx.now).await?;
        }
        users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
        let sign_in = SignIn {
            user_id,
            proof: Proof::password(FIRST_EPOCH),
            tenant: Some(tenant_id),
            bound_tenant: None,
            connection: None,
            remember: new.remember,
            terms: self.sessions.terms(new.remember),
            device: new.device,
        };
        let opened = self.open_session(&mut open.tx, ctx, sign_in).await?;
        let audit = audit.set("email", user.email.as_str());
        let member = Member { membership, user };
        self.finish_secret(open, ctx, audit, Joined { member, tenant, opened: Some(opened) }).await
    }

    /// Passwords are no part of what a repetition is compared by, and its answer is a sign-in: so the password must be the
    /// account's.
    async fn prove_acceptance(&self, first: Joined, password: Secret<String>) -> Result<Joined, Error> {
        let mut tx = self.store.read(AsUser(first.member.user.user_id)).await?;
        let stored = users::find_sign_in(&mut tx).await?.map(|row| row.password_hash);
        drop(tx);
        match self.passwords.compare(password, stored, false).await? {
            Comparison::Wrong => Err(Error::RequestIdReused),
            Comparison::Right | Comparison::RightButOld(_) => Ok(first),
        }
    }

    /// Makes the user of the transaction a member by an invitation, under the tenant's lock. Who has accepted it already, or
    /// has joined by another way, stays what they are.
    async fn admit(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        catalogue: &Catalogue,
        token: &InvitationToken,
    ) -> Result<Admitted, Error> {
        let InTenantAsUser(_, user_id) = *tx.scope();
        let tenant = self.lock_settled(tx, ctx, catalogue).await?;
        if tenant.deleted_at.is_some() {
            return Err(Error::InvitationNotFound);
        }
        let mut invitation = invitations::find_by_digest(tx, &token.digest()).await?;
        let there = match memberships::get(tx, user_id).await {
            Ok(member) => Some(member),
            Err(Error::MemberNotFound) => None,
            Err(other) => return Err(other),
        };
        let audit = Audit::of(user_id.0).set("invitation_id", invitation.invitation_id.to_string());
        if let (Some(member), InvitationStatus::Accepted) = (&there, invitation.written)
            && invitation.accepted_by == Some(user_id)
        {
            return Ok(Admitted { tenant, membership: member.clone(), audit, mailed: invitation.mailed });
        }
        open(&invitation, ctx)?;
        tenant.may_be_joined(ctx.now, invitation.opens_tenant)?;
        let roles = together(catalogue, &own_roles::list(tx).await?);
        self.still_stands(tx, (&invitation, ctx.now), &roles).await?;
        let (membership, audit) = if let Some(member) = there {
            (member, audit)
        } else {
            let member = new_membership(ctx, user_id, invitation.roles.clone());
            memberships::insert(tx, &member, &roles.top().name).await?;
            let audit = audit.set("roles", member.roles.texts()).set("status", "active");
            (member, audit)
        };
        invitation.written = InvitationStatus::Accepted;
        invitation.accepted_by = Some(user_id);
        invitations::update(tx, &mut invitation, ctx.now).await?;
        check_seats(tx, catalogue, &tenant, ctx.now).await?;
        let mut after = tenant.clone();
        if invitation.opens_tenant && tenant.pending {
            after.pending = false;
            let opened = self.write_tenant(tx, ctx, catalogue, (&tenant, &mut after)).await?;
            tx.note(&ctx.as_system("System/OpenTenant"), opened).await?;
        }
        Ok(Admitted { tenant: after, membership, audit, mailed: invitation.mailed })
    }

    /// Whether the invitation may still be what it was: its roles are there, and whoever answers for it may still give them.
    pub(in crate::app) async fn still_stands(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        (invitation, now): (&Invitation, Timestamp),
        roles: &std::sync::Arc<Roles>,
    ) -> Result<(), Error> {
        roles.parse_all(&invitation.roles.texts()).map_err(|_| Error::InvitationVoid)?;
        let (rank, permissions) = if let Some(inviter) = invitation.inviter {
            match memberships::get(tx, inviter).await {
                Ok(member) if member.status == MemberStatus::Active => {
                    (Some(roles.rank_of(&member.roles)), roles.permissions_of(&member.roles))
                }
                Ok(_) | Err(Error::MemberNotFound) => return Err(Error::InvitationVoid),
                Err(other) => return Err(other),
            }
        } else if let Some(key) = invitation.inviter_key {
            let key = api_keys::get(tx, key).await?;
            if !key.is_live(now) {
                return Err(Error::InvitationVoid);
            }
            (rank_of_key(&key.permissions, roles), key.permissions)
        } else {
            return Ok(());
        };
        let authority = Authority { rank, permissions, roles: roles.clone() };
        let may = authority.permissions.contains(INVITE) && authority.may_give(invitation.roles.iter()).is_ok();
        if may { Ok(()) } else { Err(Error::InvitationVoid) }
    }

    /// Declines an invitation; one that is declined stays so.
    ///
    /// # Errors
    /// `InvitationNotFound`, `InvitationFinished`.
    pub async fn decline_invitation(
        &self,
        ctx: &Ctx,
        token: &InvitationToken,
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let Found { tenant_id, .. } = self.found(token).await?;
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let mut open = match self.begin(ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        let tenant = self.lock_settled(&mut open.tx, ctx, &catalogue).await?;
        if tenant.deleted_at.is_some() {
            return Err(Error::InvitationNotFound);
        }
        let mut invitation = invitations::find_by_digest(&mut open.tx, &token.digest()).await?;
        if invitation.written == InvitationStatus::Declined {
            return Ok(());
        }
        self::open(&invitation, ctx)?;
        invitation.written = InvitationStatus::Declined;
        invitations::update(&mut open.tx, &mut invitation, ctx.now).await?;
        let audit = Audit::of(invitation.invitation_id.0).field("status", "pending", "declined");
        self.finish(open, ctx, audit, ()).await
    }

    /// The pending invitations of the person's address, oldest first, in tenants that are there.
    ///
    /// # Errors
    /// `CallerKindRefused` without a person.
    pub async fn list_my_invitations(&self, ctx: &Ctx, page: (Uuid, i64)) -> Result<Vec<MyInvitation>, Error> {
        let person = ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))?;
        // Whose address this is has to be proven first: what others are invited to is nobody else's business.
        if self.get_account(person).await?.email_verified_at.is_none() {
            return Ok(Vec::new());
        }
        self.store.list_invitations_of(&person.user.email, page, ctx.now).await
    }

    /// The invitation that a token opens, whatever its status.
    async fn found(&self, token: &InvitationToken) -> Result<Found, Error> {
        self.store.find_invitation(&token.digest()).await?.ok_or(Error::InvitationNotFound)
    }

    /// The invitation that a token opens, if it can be accepted.
    async fn pending(&self, ctx: &Ctx, token: &InvitationToken) -> Result<Found, Error> {
        let found = self.found(token).await?;
        open(&found.invitation, ctx)?;
        Ok(found)
    }

    /// The id of the account that an invitation makes. Derived, so that a repetition speaks of the same account before
    /// anybody is signed in.
    fn account_of_invitation(&self, invitation: &Invitation) -> Uuid {
        derived(&self.master.mac("invitation", &[invitation.invitation_id.0.as_bytes()]))
    }
}

/// What an inviter must still be allowed to do.
const INVITE: &str = "members.invite";

/// Whether an invitation can be accepted.
fn open(invitation: &Invitation, ctx: &Ctx) -> Result<(), Error> {
    match invitation.status(ctx.now) {
        InvitationStatus::Pending => Ok(()),
        finished => Err(Error::InvitationFinished(finished.as_str())),
    }
}
