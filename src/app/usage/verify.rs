//! Whether the books agree: what accounts and roll-ups say, beside what events, leases and holds add up to. Nothing is mended
//! here; what does not agree is a fault of ours, and is told with everything that finds it.

use uuid::Uuid;

use crate::app::App;
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::domain::quota::Scope;
use crate::error::Error;
use crate::store::quota::QuotaRows;
use crate::store::quota::proof::{AccountSums, RollupSums};
use crate::time::Timestamp;

/// What ought to hold; the manual of each is in the proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Leased is what was granted.
    Leased,
    /// Forfeited is what leases left behind.
    Forfeited,
    /// Reserved is what is held.
    Reserved,
    /// Counted is what was charged.
    Counted,
    /// Nothing is settled beyond its grant.
    Settled,
    /// Whatever is charged is on an account.
    Account,
    /// Roll-ups have the events that there are.
    RollupEvents,
    /// Roll-ups have their amounts.
    RollupAmount,
}

/// Something that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What ought to hold.
    pub rule: Rule,
    /// Of which account; none for roll-ups.
    pub account: Option<Uuid>,
    /// Of which metric; empty when there is no such account.
    pub metric: String,
    /// Whose account.
    pub scope: Option<Scope>,
    /// The person or key; nil for the tenant.
    pub scope_id: Uuid,
    /// When the period or the quarter of an hour began.
    pub time: Option<Timestamp>,
    /// What the account or roll-up says.
    pub told: i64,
    /// What its rows add up to.
    pub summed: i64,
}

/// A tenant whose books were looked at.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Which.
    pub tenant: TenantId,
    /// How many accounts.
    pub accounts: i64,
    /// How many events.
    pub events: i64,
    /// What does not agree.
    pub findings: Vec<Finding>,
}

/// Which tenants are still to be looked at.
#[derive(Debug, Clone, Copy)]
pub enum ToVerify {
    /// This one.
    One(TenantId),
    /// All after this one.
    After(TenantId),
    /// None.
    Nobody,
}

impl App {
    /// Begins to look at the books of a tenant, or of all.
    ///
    /// # Errors
    /// `TenantNotFound`.
    pub async fn begin_verify(&self, name: Option<&TenantName>) -> Result<ToVerify, Error> {
        let Some(name) = name else { return Ok(ToVerify::After(TenantId(Uuid::nil()))) };
        let found = self.plane.look_at_rows().find(name, self.clock.now()).await?.ok_or(Error::TenantNotFound)?;
        // An id is taken as it is.
        self.store.find_tenant(found).await?.map(|_| ToVerify::One(found)).ok_or(Error::TenantNotFound)
    }

    /// Looks at the books of the next tenant; none when there is none.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn verify_next(&self, left: &mut ToVerify) -> Result<Option<Verified>, Error> {
        let rows = QuotaRows(self.store.clone());
        loop {
            let tenant = match *left {
                ToVerify::One(tenant) => Some(tenant),
                ToVerify::After(tenant) => rows.next_tenant(tenant).await?,
                ToVerify::Nobody => None,
            };
            let Some(tenant) = tenant else { return Ok(None) };
            *left = if matches!(left, ToVerify::One(_)) { ToVerify::Nobody } else { ToVerify::After(tenant) };
            // A purge takes one table after the other.
            if self.store.find_tenant(tenant).await?.is_some_and(|(found, _)| found.is_purged(self.clock.now())) {
                continue;
            }
            let _turn = self.quota.verifying.acquire().await;
            let sums = rows.sums(tenant).await?;
            let findings =
                sums.wrong_accounts.iter().flat_map(of_account).chain(sums.wrong_rollups.iter().flat_map(of_rollup));
            let findings = findings.collect();
            return Ok(Some(Verified { tenant, accounts: sums.accounts, events: sums.events, findings }));
        }
    }
}

/// A finding for each pair of sums that differ.
fn of_account(sums: &AccountSums) -> Vec<Finding> {
    let finding = |rule, told, summed| Finding {
        rule,
        account: Some(sums.account_id),
        metric: sums.metric.clone().unwrap_or_default(),
        scope: sums.scope.map(Scope::of),
        scope_id: sums.scope_id.unwrap_or_default(),
        time: sums.period_start,
        told,
        summed,
    };
    if sums.metric.is_none() {
        return vec![finding(Rule::Account, 0, sums.charged + sums.granted + sums.held)];
    }
    [
        (Rule::Leased, sums.leased, sums.granted),
        (Rule::Forfeited, sums.forfeited, sums.lost),
        (Rule::Reserved, sums.reserved, sums.held),
        (Rule::Counted, sums.counted, sums.charged),
        (Rule::Settled, sums.beyond, 0),
    ]
    .into_iter()
    .filter(|(_, told, summed)| told != summed)
    .map(|(rule, told, summed)| finding(rule, told, summed))
    .collect()
}

fn of_rollup(sums: &RollupSums) -> Vec<Finding> {
    [(Rule::RollupEvents, sums.events, sums.kept_events), (Rule::RollupAmount, sums.amount, sums.kept_amount)]
        .into_iter()
        .filter(|(_, told, summed)| told != summed)
        .map(|(rule, told, summed)| Finding {
            rule,
            account: None,
            metric: sums.metric.clone(),
            scope: Some(Scope::Tenant),
            scope_id: Uuid::nil(),
            time: Some(sums.bucket),
            told,
            summed,
        })
        .collect()
}
