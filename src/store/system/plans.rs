//! Reads across tenants about the catalogue: whom a change of it would touch.

use super::super::Store;
use super::super::tx::{AcrossTenants, Statement, statements};
use super::{Seen, TenantIdRow, seen};
use crate::domain::catalogue::MEMBERS;
use crate::domain::entitlement::{FeatureSwitch, Source};
use crate::domain::id::TenantId;
use crate::domain::plan::{Limit, PlanRef};
use crate::domain::role::RoleName;
use crate::error::Error;
use crate::time::Timestamp;
use uuid::Uuid;

statements! {
    /// What an operator and the tenant itself have switched of a feature; a row in any case.
    FIND_SWITCHES: AcrossTenants = Statement::new(seen!(
        "o.enabled as own_enabled, o.expires_at as own_expires_at, s.enabled as tenant_enabled,
                s.expires_at as tenant_expires_at
         from (select cast(1 as bigint) as one) x
         left join feature_switch o on o.tenant_id = $1 and o.feature = $2 and o.source = 2
         left join feature_switch s on s.tenant_id = $1 and s.feature = $2 and s.source = 3"
    ));
    COUNT_TENANTS_OF_PLAN: AcrossTenants = Statement::new(
        "select count(*) as tenants
         from tenant
         where plan = $1 and deleted_at is null",
    );
    /// Tenants of a plan that use more of a metric than a limit, or than their own override, admits.
    LIST_OVER_LIMIT: AcrossTenants = Statement::new(
        "select q.tenant_id, q.used, o.limit_value
         from (
           select t.tenant_id, q.metric, q.committed + coalesce((
                    select cast(sum(l.settled) as bigint) from quota_lease l
                    where l.tenant_id = q.tenant_id and l.account_id = q.account_id), 0) as used
           from tenant t
           join quota_account q on q.tenant_id = t.tenant_id
           where t.plan = $1 and t.deleted_at is null and t.tenant_id > $2 and q.metric = $3 and q.scope = 2
             and q.period_start <= $4 and (q.period_end is null or q.period_end > $4)) q
         left join limit_override o on o.tenant_id = q.tenant_id and o.metric = q.metric
                                   and (o.expires_at is null or o.expires_at > $4)
         where (o.metric is null and q.used > $5) or q.used > o.limit_value + o.limit_value * $6 / 100
         order by q.tenant_id
         limit $7",
    );
    /// Tenants of a plan that hold more seats, by active members and pending invitations, than there are, or than their own
    /// override allows.
    LIST_OVER_SEATS: AcrossTenants = Statement::new(
        "select s.tenant_id, s.used, s.limit_value
         from (select t.tenant_id, o.metric, o.limit_value,
                      (select count(*) from membership m where m.tenant_id = t.tenant_id and m.status = 1)
                      + (select count(*) from invitation i
                         where i.tenant_id = t.tenant_id and i.status = 1 and i.expires_at > $4) as used
               from tenant t
               left join limit_override o on o.tenant_id = t.tenant_id and o.metric = $3
                                         and (o.expires_at is null or o.expires_at > $4)
               where t.plan = $1 and t.deleted_at is null and t.tenant_id > $2) s
         where (s.metric is null and s.used > $5) or s.used > s.limit_value
         order by s.tenant_id
         limit $6",
    );
    LIST_ROLES_IN_USE: AcrossTenants = Statement::new(
        "select m.role
         from membership m
         where m.status <> 3
           and not exists (select 1 from tenant_role o where o.tenant_id = m.tenant_id and o.name = m.role)
         union
         select f.role
         from membership_role f
         join membership m on m.tenant_id = f.tenant_id and m.membership_id = f.membership_id
         where m.status <> 3
           and not exists (select 1 from tenant_role o where o.tenant_id = f.tenant_id and o.name = f.role)
         union
         select name as role
         from tenant_role
         where name = $1",
    );
    LIST_BEHIND: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant
         where plan = $1 and plan_version < $2 and deleted_at is null
         order by tenant_id
         limit $3",
    );
}

#[derive(sqlx::FromRow)]
struct SwitchesRow {
    own_enabled: Option<i64>,
    own_expires_at: Option<Timestamp>,
    tenant_enabled: Option<i64>,
    tenant_expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct RoleRow {
    role: String,
}

#[derive(sqlx::FromRow)]
struct TenantsRow {
    tenants: i64,
}

#[derive(sqlx::FromRow)]
struct OverRow {
    tenant_id: Uuid,
    used: i64,
    limit_value: Option<i64>,
}

/// A tenant that uses more than a limit, or its own override, admits.
pub struct Over {
    /// Which.
    pub tenant_id: TenantId,
    /// What it uses.
    pub used: i64,
    /// The limit of its override, where one holds.
    pub own: Option<i64>,
}

fn over(row: &OverRow) -> Over {
    Over { tenant_id: TenantId(row.tenant_id), used: row.used, own: row.limit_value }
}

impl Store {
    /// The switches of a tenant's feature, also those that are over.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_switches(&self, tenant: TenantId, feature: &str) -> Result<Seen<Vec<FeatureSwitch>>, Error> {
        let seen: Seen<SwitchesRow> = self.see(&FIND_SWITCHES, &[tenant.0.into(), feature.into()]).await?;
        seen.try_map(|row| {
            let switch = |source, enabled: Option<i64>, expires_at| {
                enabled.map(|enabled| FeatureSwitch { source, enabled: enabled != 0, expires_at })
            };
            let own = switch(Source::Override, row.own_enabled, row.own_expires_at);
            Ok(own.into_iter().chain(switch(Source::Tenant, row.tenant_enabled, row.tenant_expires_at)).collect())
        })
    }

    /// How many tenants are on any version of a plan, deleted ones aside.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn count_tenants_of_plan(&self, plan: &str) -> Result<i64, Error> {
        let row: Option<TenantsRow> =
            self.across_tenants().await?.optional(&COUNT_TENANTS_OF_PLAN, &[plan.into()]).await?;
        Ok(row.map_or(0, |row| row.tenants))
    }

    /// A page of the tenants of a plan that use more of a counter in its period than a limit admits; overrides that hold at
    /// `now` come before the limit.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_over_limit(
        &self,
        plan: &str,
        (metric, limit): (&str, &Limit),
        (after, size): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<Over>, Error> {
        let args = [
            plan.into(),
            after.into(),
            metric.into(),
            now.into(),
            limit.admits().into(),
            i64::from(limit.soft_percent).into(),
            size.into(),
        ];
        let rows: Vec<OverRow> = self.across_tenants().await?.all(&LIST_OVER_LIMIT, &args).await?;
        Ok(rows.iter().map(over).collect())
    }

    /// A page of the tenants of a plan that have more active members than `seats`; overrides as in `list_over_limit`.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_over_seats(
        &self,
        plan: &str,
        seats: i64,
        (after, size): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<Over>, Error> {
        let args = [plan.into(), after.into(), MEMBERS.into(), now.into(), seats.into(), size.into()];
        let rows: Vec<OverRow> = self.across_tenants().await?.all(&LIST_OVER_SEATS, &args).await?;
        Ok(rows.iter().map(over).collect())
    }

    /// The names of the catalogue's roles that members have, of tenants of any status, sorted; and `top`, when a tenant has
    /// made itself a role of this name.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_roles_in_use(&self, top: &RoleName) -> Result<Vec<String>, Error> {
        let rows: Vec<RoleRow> = self.across_tenants().await?.all(&LIST_ROLES_IN_USE, &[top.as_str().into()]).await?;
        let mut roles: Vec<String> = rows.into_iter().map(|row| row.role).collect();
        roles.sort();
        Ok(roles)
    }

    /// Some of the tenants that are on an older version of a plan, deleted ones aside.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_behind(&self, of: &PlanRef, limit: i64) -> Result<Vec<TenantId>, Error> {
        let args = [of.plan.as_str().into(), of.version.into(), limit.into()];
        let rows: Vec<TenantIdRow> = self.across_tenants().await?.all(&LIST_BEHIND, &args).await?;
        Ok(rows.into_iter().map(|row| TenantId(row.tenant_id)).collect())
    }
}
