//! The connection of a tenant with its own identity provider: made, changed, shown, tried, ended. The secret comes in, is
//! sealed, and goes to nobody but the provider.

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::TenantCtx;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::TenantId;
use crate::domain::membership::Authority;
use crate::domain::secret::Secret;
use crate::domain::sso::{Ceiling, FEATURE, SsoConnection, Terms};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::outside::oidc::OidcError;
use crate::store::audit::Audit;
use crate::store::scoped::RunsIn;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{InTenant, Scope, Scoped, TenantTx, entitlements, sso};
use crate::time::Timestamp;

/// What a provider said when it was tried.
pub struct Tried {
    /// How many keys it publishes; none when it does not answer as a provider.
    pub keys: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl App {
    /// Shows the connection.
    ///
    /// # Errors
    /// `SsoNotConfigured`.
    pub async fn get_sso_connection(&self, t: &TenantCtx) -> Result<SsoConnection, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        sso::find(&mut tx).await?.map(|(connection, _)| connection).ok_or(Error::SsoNotConfigured)
    }

    /// Makes the connection, or changes all of it. A secret stays when none is given, for the client that it is of.
    ///
    /// # Errors
    /// `RankTooLow`, `FeatureNotInPlan`, `EtagMismatch`, `FieldsInvalid`.
    pub async fn set_sso_connection(
        &self,
        t: &TenantCtx,
        terms: Terms,
        secret: Option<Secret<String>>,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<SsoConnection, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        check_feature(&mut open.tx, &t.catalogue, &tenant, t.ctx.now).await?;
        check_roles(&terms, &own)?;
        let found = sso::find(&mut open.tx).await?;
        let (before, kept) = found.map_or((None, None), |(before, sealed)| (Some(before), sealed));
        check_etag(sent_etag, before.as_ref().map_or(0, |before| before.version))?;
        let same_client = before
            .as_ref()
            .filter(|before| before.terms.issuer == terms.issuer && before.terms.client_id == terms.client_id);
        let connection_id = same_client.map_or_else(|| t.ctx.new_id(), |before| before.connection_id);
        // Another provider is not sent the secret of the one before.
        let kept = kept.filter(|_| same_client.is_some());
        let changed = secret.is_some();
        let sealed = secret.map(|secret| self.seal_client_secret(tenant_id, &secret)).or(kept);
        let after = SsoConnection {
            connection_id,
            terms,
            ceiling: Ceiling { rank: own.rank, permissions: own.permissions },
            has_secret: sealed.is_some(),
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            updated_at: t.ctx.now,
        };
        sso::put(&mut open.tx, &after, sealed.as_deref()).await?;
        let noted = |connection: Option<&SsoConnection>| connection.map(note).unwrap_or_default();
        let audit = Audit::of(tenant_id.0).field("sso", noted(before.as_ref()), noted(Some(&after))).field(
            "sso.secret_changed",
            false,
            changed,
        );
        self.finish(open, &t.ctx, audit, after).await
    }

    /// Ends the connection; sessions that came through it open nothing any more.
    ///
    /// # Errors
    /// `SsoNotConfigured`.
    pub async fn delete_sso_connection(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<(), Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let before = sso::find(&mut open.tx).await?.map(|(before, _)| note(&before));
        sso::delete(&mut open.tx).await?;
        let audit = Audit::of(tenant_id.0).field("sso", before.unwrap_or_default(), serde_json::Value::Null);
        self.finish(open, &t.ctx, audit, ()).await
    }

    /// Asks a provider, or the connection's, what it publishes.
    ///
    /// # Errors
    /// `SsoNotConfigured` when neither is there, `Overloaded`; a provider that does not answer is an answer.
    pub async fn test_sso_connection(&self, t: &TenantCtx, issuer: Option<&str>) -> Result<Tried, Error> {
        let issuer = match issuer {
            Some(issuer) => issuer.to_owned(),
            None => self.get_sso_connection(t).await?.terms.issuer,
        };
        Ok(match self.oidc.look(t.tenant_id(), &issuer).await {
            Ok(keys) => Tried { keys: Some(keys), problem: String::new() },
            Err(OidcError::Unreachable(problem) | OidcError::Refused(problem)) => Tried { keys: None, problem },
            Err(OidcError::Busy) => return Err(Error::Overloaded),
        })
    }

    /// The connection of a tenant with its secret in the clear.
    pub(super) async fn open_sso_connection(
        &self,
        tx: &mut TenantTx,
    ) -> Result<(SsoConnection, Option<Secret<String>>), Error> {
        let tenant = tx.scope().0;
        let (connection, sealed) = sso::find(tx).await?.ok_or(Error::SsoNotConfigured)?;
        let Some(sealed) = sealed else { return Ok((connection, None)) };
        let secret = self.master.open_text(&[b"sso"], tenant.0.as_bytes(), &sealed);
        let secret = secret.ok_or_else(|| Error::internal("a client secret does not open under this master key"))?;
        Ok((connection, Some(secret)))
    }

    /// Seals a client secret for this tenant's row.
    fn seal_client_secret(&self, tenant: TenantId, secret: &Secret<String>) -> Vec<u8> {
        self.master.seal(&[b"sso"], tenant.0.as_bytes(), secret.expose().as_bytes())
    }
}

/// The roles that signing in may give: never the top one, and none above the caller's own.
fn check_roles(terms: &Terms, own: &Authority) -> Result<(), Error> {
    let given = || terms.group_roles.iter().map(|mapped| &mapped.role).chain([&terms.default_role]);
    let top = &own.roles.top().name;
    if given().any(|role| role == top) {
        return Err(Error::field("connection", format!("must give no role as high as {}", top.as_str())));
    }
    own.may_give(given())
}

/// Whether the tenant's plan includes single sign-on, where the catalogue sells it.
///
/// # Errors
/// `FeatureNotInPlan`.
pub(super) async fn check_feature<S: Scope>(
    tx: &mut Scoped<S>,
    catalogue: &Catalogue,
    tenant: &Tenant,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if !catalogue.definition.features.contains_key(FEATURE) {
        return Ok(());
    }
    let switches = entitlements::switches(tx).await?;
    let switches = switches.get(FEATURE).map_or(&[][..], Vec::as_slice);
    let enabled = catalogue.effective_feature(&tenant.subscription.of, FEATURE, switches, now).enabled;
    if enabled { Ok(()) } else { Err(Error::FeatureNotInPlan(FEATURE.to_owned())) }
}

/// The connection as the audit log keeps it.
fn note(connection: &SsoConnection) -> serde_json::Value {
    let terms = &connection.terms;
    serde_json::json!({
        "issuer": terms.issuer, "client_id": terms.client_id, "redirect_uris": terms.redirect_uris,
        "group_claim": terms.group_claim, "groups": terms.group_roles.len(),
        "default_role": terms.default_role.as_str(), "required": terms.required,
        "highest_rank": connection.ceiling.rank,
    })
}
