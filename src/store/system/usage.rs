//! Reads across tenants of what they use.

use uuid::Uuid;

use super::super::Store;
use super::super::tx::{AcrossTenants, Statement, statements};
use crate::domain::id::TenantId;
use crate::domain::period::Period;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    LIST_TOP: AcrossTenants = Statement::new(
        "select a.tenant_id, t.slug, t.display_name, a.period_start, a.period_end, a.shown_limit,
                a.committed + coalesce((select cast(sum(l.settled) as bigint) from quota_lease l
                                        where l.tenant_id = a.tenant_id and l.account_id = a.account_id), 0) as used
         from quota_account a
         join tenant t on t.tenant_id = a.tenant_id
         where a.metric = $1 and a.scope = 2 and a.period_end > $2 and a.period_start <= $2 and t.deleted_at is null
         order by used desc, a.tenant_id
         limit $3",
    );
}

/// A tenant, and what it uses of a metric in its current period.
#[derive(Debug, Clone)]
pub struct TopTenant {
    /// Which.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// Its name.
    pub display_name: String,
    /// How much.
    pub used: i64,
    /// Of how much; none is unlimited.
    pub limit: Option<i64>,
    /// Its period; none when the metric has none.
    pub period: Option<Period>,
}

#[derive(sqlx::FromRow)]
struct TopRow {
    tenant_id: Uuid,
    slug: String,
    display_name: String,
    period_start: Timestamp,
    period_end: Timestamp,
    shown_limit: Option<i64>,
    used: i64,
}

impl Store {
    /// The tenants that use most of a metric in the periods that hold an instant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_top_tenants(&self, metric: &str, at: Timestamp, limit: i64) -> Result<Vec<TopTenant>, Error> {
        let rows: Vec<TopRow> =
            self.across_tenants().await?.all(&LIST_TOP, &[metric.into(), at.into(), limit.into()]).await?;
        let top = |row: TopRow| TopTenant {
            tenant: TenantId(row.tenant_id),
            slug: row.slug,
            display_name: row.display_name,
            used: row.used,
            limit: row.shown_limit,
            period: Some(Period { start: row.period_start, end: row.period_end }),
        };
        Ok(rows.into_iter().map(top).collect())
    }
}
