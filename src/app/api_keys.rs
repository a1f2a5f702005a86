//! Keys of tenants and of their members: made, renamed, rotated, revoked. A secret is shown once, and again for ten minutes
//! to whoever repeats the call. Nobody makes a key that may do more than they may: a tenant's key is given permissions one by
//! one, each its maker's own at that moment; a member's key is compared with the member at every call.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::key_ends::schedule_letter;
use super::mutation::{Begun, Mutation, RequestKey, check_etag};
use crate::ctx::{Caller, TenantCtx};
use crate::decide::judge::permissions;
use crate::decide::tenant::Standing;
use crate::domain::api_key::ApiKey;
use crate::domain::id::ApiKeyId;
use crate::domain::membership::Membership;
use crate::domain::role::{Permissions, own_permissions};
use crate::domain::secret::{Key, KeyKind, Secret, sealed};
use crate::error::Error;
use crate::store::api_keys::Whose;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, api_keys};

/// How many keys a tenant may have of its own that are not revoked.
const MOST_OF_TENANT: i64 = 1000;

/// How many a member may have.
const MOST_OF_MEMBER: i64 = 100;

/// How surely somebody has proven who they are who has signed in with one factor.
const ONE_FACTOR: i64 = 1;

/// A key to be.
pub struct NewKey {
    /// What it is for.
    pub display_name: String,
    /// What it is wanted to do.
    pub permissions: Permissions,
    /// How long it is good for.
    pub ttl: Option<TimeDelta>,
}

/// A key with its secret, as it is shown, and kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
pub struct Shown {
    /// The key.
    pub key: ApiKey,
    /// Its whole text.
    #[serde(with = "sealed")]
    pub secret: Secret<String>,
}

impl App {
    /// Creates a key of the tenant's own.
    ///
    /// # Errors
    /// `KeyTooStrong`, `FieldsInvalid` when a permission is none or there are too many keys, `AnswerExpired`.
    pub async fn create_api_key(
        &self,
        t: &TenantCtx,
        new: NewKey,
        request: Option<RequestKey>,
    ) -> Result<Shown, Error> {
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), InTenant(t.tenant_id()), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (standing, _) = self.lock_standing(&mut open.tx, t).await?;
        let permissions = of_maker(&standing, &t.ctx.caller, &new.permissions)?;
        check_room(&mut open.tx, Whose::Tenants, MOST_OF_TENANT).await?;
        self.make(open, t, NewKey { permissions, ..new }, None).await
    }

    /// Creates a key of the calling member's own.
    ///
    /// # Errors
    /// `CallerKindRefused` for whoever is no member who has signed in themselves, `FieldsInvalid` when a permission is none or
    /// there are too many keys, `AnswerExpired`.
    pub async fn create_personal_key(
        &self,
        t: &TenantCtx,
        new: NewKey,
        request: Option<RequestKey>,
    ) -> Result<Shown, Error> {
        signed_in_member(t)?;
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), InTenant(t.tenant_id()), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (standing, _) = self.lock_standing(&mut open.tx, t).await?;
        let member = standing.member.as_ref().ok_or(Error::CallerKindRefused(t.ctx.caller.kind()))?;
        check_known(&standing, &new.permissions)?;
        check_room(&mut open.tx, Whose::Of(member.membership_id), MOST_OF_MEMBER).await?;
        self.make(open, t, new, Some(member)).await
    }

    async fn make(
        &self,
        mut open: Box<Mutation<InTenant>>,
        t: &TenantCtx,
        new: NewKey,
        member: Option<&Membership>,
    ) -> Result<Shown, Error> {
        let kind = if member.is_some() { KeyKind::Personal } else { KeyKind::Tenant };
        let text = Key::generate(kind);
        let key = ApiKey {
            tenant_id: t.tenant_id(),
            api_key_id: ApiKeyId(t.ctx.new_id()),
            kind,
            key_id: text.key_id.clone(),
            last4: text.last4(),
            user_id: member.map(|member| member.user_id),
            membership_id: member.map(|member| member.membership_id),
            display_name: new.display_name,
            permissions: new.permissions,
            aal: t.ctx.caller.person().map_or(ONE_FACTOR, |person| person.session.aal),
            created_by: t.ctx.caller.principal(),
            version: 1,
            created_at: t.ctx.now,
            updated_at: t.ctx.now,
            expires_at: new.ttl.map(|ttl| t.ctx.now.after(ttl)),
            revoked_at: None,
            last_used_at: None,
            old_ends_at: None,
        };
        api_keys::insert(&mut open.tx, &key, &text.digest()).await?;
        schedule_letter(&mut open.tx, &key).await?;
        let audit = Audit::of(key.api_key_id.0)
            .set("key_id", key.key_id.as_str())
            .set("display_name", key.display_name.as_str())
            .set("permissions", key.permissions.names())
            .set("expires_at", key.expires_at.map(|at| at.to_string()));
        self.finish_secret(open, &t.ctx, audit, Shown { key, secret: text.text }).await
    }

    /// Keys of the tenant that are not revoked, and, unless `own_only`, of its members, after one of them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_api_keys(&self, t: &TenantCtx, own_only: bool, span: (Uuid, i64)) -> Result<Vec<ApiKey>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        api_keys::list(&mut tx, if own_only { Whose::Tenants } else { Whose::All }, span).await
    }

    /// The calling member's own keys that are not revoked, after one of them.
    ///
    /// # Errors
    /// `CallerKindRefused` for whoever is no member.
    pub async fn list_personal_keys(&self, t: &TenantCtx, span: (Uuid, i64)) -> Result<Vec<ApiKey>, Error> {
        let member = t.member.as_ref().ok_or(Error::CallerKindRefused(t.ctx.caller.kind()))?;
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        api_keys::list(&mut tx, Whose::Of(member.membership_id), span).await
    }

    /// Gives a key of the tenant's own another name.
    ///
    /// # Errors
    /// `KeyNotFound`, `EtagMismatch`.
    pub async fn update_api_key(
        &self,
        t: &TenantCtx,
        id: ApiKeyId,
        (display_name, etag): (String, &str),
        request: Option<RequestKey>,
    ) -> Result<ApiKey, Error> {
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), InTenant(t.tenant_id()), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let mut key = find(&mut open.tx, id, Whose::Tenants).await?;
        check_etag(etag, key.version)?;
        let before = std::mem::replace(&mut key.display_name, display_name);
        api_keys::rename(&mut open.tx, &mut key, t.ctx.now).await?;
        let audit = Audit::of(id.0).field("display_name", before, key.display_name.as_str());
        self.finish(open, &t.ctx, audit, key).await
    }

    /// Gives a key a new secret: one of the tenant's own, or with `personal` one of the calling member's.
    ///
    /// # Errors
    /// `KeyNotFound`, `KeyTooStrong`, `WrongState` when it has ended, `CallerKindRefused`, `AnswerExpired`.
    pub async fn rotate_api_key(
        &self,
        t: &TenantCtx,
        id: ApiKeyId,
        (personal, overlap): (bool, TimeDelta),
        request: Option<RequestKey>,
    ) -> Result<Shown, Error> {
        if personal {
            signed_in_member(t)?;
        }
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), InTenant(t.tenant_id()), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (standing, _) = self.lock_standing(&mut open.tx, t).await?;
        let mut key = find(&mut open.tx, id, whose(&standing, &t.ctx.caller, personal)?).await?;
        if !key.is_live(t.ctx.now) {
            return Err(Error::WrongState { state: "over", wanted: "a key that has not ended" });
        }
        // Whoever rotates it holds it. A member's own key is no stronger than the member anyway.
        if let Some(beyond) = key.permissions.first_beyond(&permissions(&standing, &t.ctx.caller)).filter(|_| !personal)
        {
            return Err(Error::KeyTooStrong(beyond.to_owned()));
        }
        let text = Key::again(key.kind, &key.key_id);
        let before = std::mem::replace(&mut key.last4, text.last4());
        key.old_ends_at = Some(t.ctx.now.after(overlap));
        api_keys::rotate(&mut open.tx, &mut key, &text.digest(), t.ctx.now).await?;
        let audit = Audit::of(id.0)
            .field("last4", before, key.last4.as_str())
            .set("old_secret_ends_at", key.old_ends_at.map(|at| at.to_string()));
        self.finish_secret(open, &t.ctx, audit, Shown { key, secret: text.text }).await
    }

    /// Revokes a key, with all its secrets: any of the tenant's or its members', or with `personal` one of the calling
    /// member's.
    ///
    /// # Errors
    /// `KeyNotFound`, also when it is revoked already, `CallerKindRefused`.
    pub async fn revoke_api_key(
        &self,
        t: &TenantCtx,
        id: ApiKeyId,
        personal: bool,
        request: Option<RequestKey>,
    ) -> Result<(), Error> {
        if personal {
            signed_in_member(t)?;
        }
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), InTenant(t.tenant_id()), request).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        let (standing, _) = self.lock_standing(&mut open.tx, t).await?;
        let mine = if personal { whose(&standing, &t.ctx.caller, true)? } else { Whose::All };
        let mut key = find(&mut open.tx, id, mine).await?;
        if !api_keys::revoke(&mut open.tx, &mut key, t.ctx.now).await? {
            return Err(Error::KeyNotFound);
        }
        let audit = Audit::of(id.0).set("revoked", true).set("display_name", key.display_name.as_str());
        self.finish(open, &t.ctx, audit, ()).await
    }
}

/// Refuses whoever is not a member that has signed in: neither keys nor services get at the keys of people.
fn signed_in_member(t: &TenantCtx) -> Result<(), Error> {
    match (&t.ctx.caller, &t.member) {
        (Caller::User(_), Some(_)) => Ok(()),
        _ => Err(Error::CallerKindRefused(t.ctx.caller.kind())),
    }
}

fn whose(standing: &Standing, caller: &Caller, personal: bool) -> Result<Whose, Error> {
    match &standing.member {
        _ if !personal => Ok(Whose::Tenants),
        Some(member) => Ok(Whose::Of(member.membership_id)),
        None => Err(Error::CallerKindRefused(caller.kind())),
    }
}

/// A key that is not revoked, if it is one of those that are meant: others look as if there were none.
async fn find(tx: &mut TenantTx, id: ApiKeyId, whose: Whose) -> Result<ApiKey, Error> {
    let key = api_keys::get(tx, id).await?;
    let meant = match whose {
        Whose::All => true,
        Whose::Tenants => key.kind == KeyKind::Tenant,
        Whose::Of(stay) => key.membership_id == Some(stay),
    };
    if meant && key.revoked_at.is_none() { Ok(key) } else { Err(Error::KeyNotFound) }
}

/// Refuses one more key than there may be. Asked under the tenant's lock.
async fn check_room(tx: &mut TenantTx, whose: Whose, most: i64) -> Result<(), Error> {
    if api_keys::count(tx, whose).await? < most {
        return Ok(());
    }
    Err(Error::field(
        "display_name",
        format!("would be one key more than the {most} that there may be; revoke another first"),
    ))
}

/// The permissions that members can have in this product.
fn known<'s>(standing: &'s Standing) -> impl Iterator<Item = &'s str> {
    let own = own_permissions().map(|name| -> &'s str { name });
    own.chain(standing.catalogue.definition.permissions.keys().map(String::as_str))
}

/// Refuses permissions and patterns that no member could have.
fn check_known(standing: &Standing, wanted: &Permissions) -> Result<(), Error> {
    for name in wanted.names() {
        let one = Permissions::any_of(&[name.as_str()]);
        if !known(standing).any(|permission| one.contains(permission)) {
            return Err(Error::field("permissions", format!("hold {name:?}, which no member can have")));
        }
    }
    Ok(())
}

/// The wanted permissions, one by one: what a pattern stands for of the maker's own; a single one must be theirs.
fn of_maker(standing: &Standing, caller: &Caller, wanted: &Permissions) -> Result<Permissions, Error> {
    check_known(standing, wanted)?;
    let held = permissions(standing, caller);
    let names = wanted.names();
    let mut given = Vec::new();
    for name in &names {
        if !name.ends_with('*') {
            if !held.contains(name) {
                return Err(Error::KeyTooStrong(name.clone()));
            }
            given.push(name.as_str());
            continue;
        }
        let pattern = Permissions::any_of(&[name.as_str()]);
        let before = given.len();
        given.extend(known(standing).filter(|permission| pattern.contains(permission) && held.contains(permission)));
        if given.len() == before {
            return Err(Error::KeyTooStrong(name.clone()));
        }
    }
    Ok(Permissions::all().expand(given))
}
