//! Custom domains: added, proven, looked at again, removed. The DNS is asked outside of any transaction; what it said is
//! written only when the domain is still the one that was asked about.

use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::domain::{Domain, DomainName, DomainStatus, MAX_DOMAINS, Sight};
use crate::domain::id::TenantId;
use crate::error::Error;
use crate::outside::DnsError;
use crate::store::audit::Audit;
use crate::store::jobs::{self, JobKind};
use crate::store::{InTenant, TenantTx, domains, tenants};
use crate::time::Timestamp;

/// The method of audit rows about what a look by the server itself found.
const RECHECK: &str = "System/RecheckDomain";

/// What is wrong with a domain whose record is there, when another tenant was faster.
const TAKEN: &str = "another tenant has proven this domain";

impl App {
    /// Adds a domain to the tenant; one that it has already comes back as it is.
    ///
    /// # Errors
    /// `DomainTaken`, `FieldsInvalid` when there are too many.
    pub async fn add_domain(&self, t: &TenantCtx, name: DomainName, key: Option<RequestKey>) -> Result<Domain, Error> {
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let holder = self.store.find_domain_host(&name).await?.found;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        if let Some(domain) = domains::find(&mut open.tx, &name).await? {
            return self.finish(open, &t.ctx, Audit::of(domain.domain_id), domain).await;
        }
        if holder.is_some_and(|holder| holder != tenant_id) {
            return Err(Error::DomainTaken);
        }
        if domains::list(&mut open.tx).await?.len() >= MAX_DOMAINS {
            return Err(Error::field("domain", format!("is one too many: {MAX_DOMAINS} are allowed; remove another")));
        }
        let domain = Domain::new(name, t.ctx.new_id(), t.ctx.now);
        domains::insert(&mut open.tx, &domain).await?;
        schedule(&mut open.tx, &domain).await?;
        let audit = Audit::of(domain.domain_id).set("domain", domain.domain.as_str());
        self.finish(open, &t.ctx, audit, domain).await
    }

    /// The tenant's domains, by name.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_domains(&self, t: &TenantCtx) -> Result<Vec<Domain>, Error> {
        domains::list(&mut self.store.read(InTenant(t.tenant_id())).await?).await
    }

    /// Looks into the DNS for the record that proves a domain, and makes the domain the tenant's when it is there.
    ///
    /// # Errors
    /// `DomainNotFound`, `DomainNotVerified`, `DomainTaken`, `DnsUnavailable`.
    pub async fn verify_domain(
        &self,
        t: &TenantCtx,
        name: &DomainName,
        key: Option<RequestKey>,
    ) -> Result<Domain, Error> {
        let (tenant_id, now) = (t.tenant_id(), t.ctx.now);
        // Only to see whether there is something to look for, or an answer already: it ends without a trace.
        let asked = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(mut open) => {
                self.lock_tenant(&mut open.tx, t).await?;
                domains::find(&mut open.tx, name).await?.ok_or(Error::DomainNotFound)?
            }
        };
        let sight = self.look(&asked).await;
        if sight == Sight::Shown {
            let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
                Begun::Done(first) => return Ok(first),
                Begun::Open(open) => open,
            };
            self.lock_tenant(&mut open.tx, t).await?;
            let before = still(&mut open.tx, &asked).await?.ok_or(Error::DomainNotFound)?;
            let after = take_in(&mut open.tx, &before, &sight, now).await?;
            if after.status == DomainStatus::Verified {
                return self.finish(open, &t.ctx, difference(&before, &after), after).await;
            }
        }
        self.note_look(&t.ctx, tenant_id, &asked, &sight).await?;
        let error = match sight {
            Sight::Shown => Error::DomainTaken,
            Sight::Missing(problem) => Error::DomainNotVerified(problem),
            Sight::Unknown(problem) => Error::DnsUnavailable(problem),
        };
        self.refuse_counted(&t.ctx, Some(tenant_id), error).await
    }

    /// Removes a domain: it leads nowhere any more.
    ///
    /// # Errors
    /// `DomainNotFound`.
    pub async fn remove_domain(&self, t: &TenantCtx, name: &DomainName, key: Option<RequestKey>) -> Result<(), Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let domain = domains::find(&mut open.tx, name).await?.ok_or(Error::DomainNotFound)?;
        domains::delete(&mut open.tx, name).await?;
        let audit = Audit::of(domain.domain_id).field("domain", name.as_str(), None::<String>).field(
            "status",
            domain.status.as_str(),
            None::<String>,
        );
        self.finish(open, &t.ctx, audit, ()).await
    }

    /// Looks at a domain again, when its time has come; one that is gone needs no look. Says when to look next, if at all.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn recheck_domain(&self, ctx: &Ctx, domain_id: Uuid) -> Result<Option<Timestamp>, Error> {
        let Some((tenant_id, name)) = self.store.find_domain(domain_id).await? else { return Ok(None) };
        let asked = domains::find(&mut self.store.read(InTenant(tenant_id)).await?, &name).await?;
        let Some(asked) = asked.filter(|domain| domain.domain_id == domain_id) else { return Ok(None) };
        match asked.next_check_at {
            None => return Ok(None),
            // Somebody has looked since it was decided to.
            Some(at) if at > ctx.now => return Ok(Some(at)),
            Some(_) => {}
        }
        let sight = self.look(&asked).await;
        self.note_look(ctx, tenant_id, &asked, &sight).await
    }

    /// What the DNS says about a domain now.
    async fn look(&self, domain: &Domain) -> Sight {
        match self.resolver.txt(&domain.domain.txt_name()).await {
            Ok(texts) => Sight::of(&texts, &domain.domain, &domain.token),
            Err(DnsError(problem)) => Sight::Unknown(problem),
        }
    }

    /// Writes what a look found that is nobody's mutation; when to look next.
    async fn note_look(
        &self,
        ctx: &Ctx,
        tenant_id: TenantId,
        asked: &Domain,
        sight: &Sight,
    ) -> Result<Option<Timestamp>, Error> {
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        match tenants::lock(&mut tx).await {
            Err(Error::TenantNotFound) => return Ok(None),
            locked => locked?,
        };
        let Some(before) = still(&mut tx, asked).await? else { return Ok(None) };
        let after = take_in(&mut tx, &before, sight, ctx.now).await?;
        if after.status == before.status {
            tx.commit_unaudited(ctx.now).await?;
        } else {
            tx.commit(&ctx.as_system(RECHECK), difference(&before, &after)).await?;
        }
        Ok(after.next_check_at)
    }
}

/// The domain that was asked about, if it is still there: removed and added again, it is another one.
async fn still(tx: &mut TenantTx, asked: &Domain) -> Result<Option<Domain>, Error> {
    let found = domains::find(tx, &asked.domain).await?;
    Ok(found.filter(|domain| domain.domain_id == asked.domain_id && domain.token == asked.token))
}

/// Writes what a look found: the domain, whose it is, and when to look next. A record that is there makes it the tenant's
/// only when it is no other's.
async fn take_in(tx: &mut TenantTx, before: &Domain, sight: &Sight, now: Timestamp) -> Result<Domain, Error> {
    let mut after = before.clone();
    after.seen(sight, now);
    match (before.status, after.status) {
        (DomainStatus::Pending | DomainStatus::Lapsed, DomainStatus::Verified)
            if !domains::claim_host(tx, &before.domain).await? =>
        {
            after = before.clone();
            after.seen(&Sight::Missing(TAKEN.to_owned()), now);
        }
        (DomainStatus::Verified, DomainStatus::Lapsed) => domains::release_host(tx, &before.domain).await?,
        _ => {}
    }
    domains::update(tx, &after).await?;
    schedule(tx, &after).await?;
    Ok(after)
}

/// What the audit log says of a look.
fn difference(before: &Domain, after: &Domain) -> Audit {
    Audit::of(after.domain_id)
        .field("status", before.status.as_str(), after.status.as_str())
        .set("domain", after.domain.as_str())
}

/// Has the server look again when the time comes.
async fn schedule(tx: &mut TenantTx, domain: &Domain) -> Result<(), Error> {
    jobs::schedule(tx, JobKind::Domain, domain.domain_id, domain.next_check_at).await
}
