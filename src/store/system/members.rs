//! Reads across tenants of who belongs where: memberships, invitations, and the tenants of a person.

use super::super::Store;
use super::super::invitations::{Found, InvitationRow, invitation_columns};
use super::super::memberships::{MembershipRow, membership_columns, role_names};
use super::super::tenants::{TenantRow, tenant_columns};
use super::super::tx::{AcrossTenants, Statement, statements};
use super::{Seen, TenantIdRow, UserRow, seen, user};
use crate::domain::entitlement::LimitOverride;
use crate::domain::id::{TenantId, UserId};
use crate::domain::invitation::Invitation;
use crate::domain::membership::Membership;
use crate::domain::name::Email;
use crate::domain::period::Period;
use crate::domain::role::{RoleName, RoleNames};
use crate::domain::tenant::Tenant;
use crate::domain::user::User;
use crate::error::Error;
use crate::time::Timestamp;
use std::collections::HashMap;
use uuid::Uuid;

statements! {
    FIND_MEMBERSHIP: AcrossTenants = Statement::new(seen!(
        membership_columns!(),
        " from membership m
         where m.tenant_id = $1 and m.user_id = $2 and m.status <> 3",
    ));
    FIND_INVITATION: AcrossTenants = Statement::new(concat!(
        "select tenant_id, ",
        invitation_columns!(""),
        " from invitation
         where digest = $1",
    ));
    LIST_INVITATIONS_OF_EMAIL: AcrossTenants = Statement::new(concat!(
        "select t.display_name as tenant_display_name, t.slug as tenant_slug, ",
        invitation_columns!("i."),
        " from invitation i
         join tenant t on t.tenant_id = i.tenant_id
         where i.email = $1 and i.invitation_id > $2 and i.status = 1 and i.expires_at > $4 and t.deleted_at is null
         order by i.invitation_id
         limit $3",
    ));
    LIST_TENANTS_OF_USER: AcrossTenants = Statement::new(concat!(
        "select ",
        tenant_columns!("t."),
        ", m.role as member_role, m.status as member_status,
                (select string_agg(r.role, ' ') from membership_role r
                 where r.tenant_id = m.tenant_id and r.membership_id = m.membership_id) as further_roles,
                (select count(*) from membership c where c.tenant_id = t.tenant_id and c.status <> 3) as member_count
         from membership m
         join tenant t on t.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status <> 3 and m.tenant_id > $2
           and ($3 = 0 or (m.status = 1 and (t.status in (2, 3) or (t.status <> 6 and t.settle_at <= $5))))
           and (t.purge_at is null or t.purge_at > $5)
         order by m.tenant_id
         limit $4",
    ));
    /// Tenants that a call of the user may go to when nothing names one: their own default first, then the server's.
    LIST_FALLBACKS: AcrossTenants = Statement::new(
        "select m.tenant_id
         from membership m
         join tenant t on t.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and t.status <> 6
         order by case m.tenant_id when $2 then 0 when $3 then 1 else 2 end, m.tenant_id
         limit 3",
    );
    LIST_USED_OF_USER: AcrossTenants = Statement::new(
        "select q.tenant_id, q.metric, q.period_start, q.period_end, q.committed + coalesce((
                  select cast(sum(l.settled) as bigint) from quota_lease l
                  where l.tenant_id = q.tenant_id and l.account_id = q.account_id), 0) as used
         from membership m
         join quota_account q on q.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and m.tenant_id between $2 and $3 and q.scope = 2
           and q.period_start <= $4 and (q.period_end is null or q.period_end > $4)",
    );
    /// Of the top role alone, which stands in the membership's own row.
    LIST_ACTIVE_IN_TOP: AcrossTenants = Statement::new(
        "select a.user_id, a.email, a.display_name
         from membership m
         join user_account a on a.user_id = m.user_id
         where m.tenant_id = $1 and m.role = $2 and m.status = 1
         order by m.membership_id
         limit 20",
    );
    LIST_LIMIT_OVERRIDES_OF_USER: AcrossTenants = Statement::new(
        "select o.tenant_id, o.metric, o.limit_value, o.expires_at
         from membership m
         join limit_override o on o.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and m.tenant_id between $2 and $3",
    );
}

#[derive(sqlx::FromRow)]
struct UsedRow {
    tenant_id: Uuid,
    metric: String,
    period_start: Timestamp,
    period_end: Option<Timestamp>,
    used: i64,
}

#[derive(sqlx::FromRow)]
struct LimitRow {
    tenant_id: Uuid,
    metric: String,
    limit_value: Option<i64>,
    expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct MyTenantRow {
    #[sqlx(flatten)]
    tenant: TenantRow,
    member_role: String,
    further_roles: Option<String>,
    member_status: i64,
    member_count: i64,
}

#[derive(sqlx::FromRow)]
struct FoundInvitationRow {
    tenant_id: Uuid,
    #[sqlx(flatten)]
    invitation: InvitationRow,
}

#[derive(sqlx::FromRow)]
struct MyInvitationRow {
    tenant_display_name: String,
    tenant_slug: String,
    #[sqlx(flatten)]
    invitation: InvitationRow,
}

/// One of a person's own invitations.
#[derive(Debug, Clone)]
pub struct MyInvitation {
    /// The invitation.
    pub invitation: Invitation,
    /// The name of the tenant.
    pub tenant_display_name: String,
    /// Its slug.
    pub tenant_slug: String,
}

/// A tenant with a person's place in it.
pub struct MyTenant {
    /// The tenant.
    pub tenant: Tenant,
    /// The person's roles.
    pub roles: RoleNames,
    /// Whether the person may act.
    pub active: bool,
    /// Members, suspended ones included.
    pub member_count: i64,
}

impl Store {
    /// A user's membership in a tenant, unless removed.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_membership(&self, tenant: TenantId, user: UserId) -> Result<Seen<Membership>, Error> {
        let args = [tenant.0.into(), user.0.into()];
        self.see::<MembershipRow>(&FIND_MEMBERSHIP, &args).await?.try_map(Membership::try_from)
    }

    /// The invitation that a token opens, by the token's digest.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_invitation(&self, digest: &[u8; 32]) -> Result<Option<Found>, Error> {
        let args = [digest.as_slice().into()];
        let row: Option<FoundInvitationRow> = self.across_tenants().await?.optional(&FIND_INVITATION, &args).await?;
        let found = |row: FoundInvitationRow| {
            Ok(Found { tenant_id: TenantId(row.tenant_id), invitation: row.invitation.try_into()? })
        };
        row.map(found).transpose()
    }

    /// Pending invitations of an address in all tenants, after one of them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_invitations_of(
        &self,
        email: &Email,
        (after, limit): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<MyInvitation>, Error> {
        let args = [email.as_str().into(), after.into(), limit.into(), now.into()];
        let rows: Vec<MyInvitationRow> = self.across_tenants().await?.all(&LIST_INVITATIONS_OF_EMAIL, &args).await?;
        let mine = |row: MyInvitationRow| {
            let (tenant_display_name, tenant_slug) = (row.tenant_display_name, row.tenant_slug);
            Ok(MyInvitation { invitation: row.invitation.try_into()?, tenant_display_name, tenant_slug })
        };
        rows.into_iter().map(mine).collect()
    }

    /// A person's tenants after one of them, oldest first, as they are written; `active_only` as in `list_tenants`.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_tenants_of(
        &self,
        user: UserId,
        active_only: bool,
        (after, limit): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<MyTenant>, Error> {
        let args = [user.0.into(), after.into(), i64::from(active_only).into(), limit.into(), now.into()];
        let rows: Vec<MyTenantRow> = self.across_tenants().await?.all(&LIST_TENANTS_OF_USER, &args).await?;
        let mine = |row: MyTenantRow| {
            Ok(MyTenant {
                tenant: row.tenant.try_into()?,
                roles: role_names(&row.member_role, row.further_roles.as_deref()),
                active: row.member_status == 1,
                member_count: row.member_count,
            })
        };
        rows.into_iter().map(mine).collect()
    }

    /// Tenants that a call of the user may go to when nothing names one; at most three.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_fallbacks(
        &self,
        user: UserId,
        own: Option<TenantId>,
        server: Option<TenantId>,
    ) -> Result<Vec<TenantId>, Error> {
        let args = [user.0.into(), own.map(|t| t.0).into(), server.map(|t| t.0).into()];
        let rows: Vec<TenantIdRow> = self.across_tenants().await?.all(&LIST_FALLBACKS, &args).await?;
        Ok(rows.into_iter().map(|row| TenantId(row.tenant_id)).collect())
    }

    /// Who acts in the top role of a tenant; the first twenty.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_active_in_top(&self, tenant: TenantId, role: &RoleName) -> Result<Vec<User>, Error> {
        let args = [tenant.0.into(), role.as_str().into()];
        let rows: Vec<UserRow> = self.across_tenants().await?.all(&LIST_ACTIVE_IN_TOP, &args).await?;
        rows.into_iter().map(user).collect()
    }

    /// Overrides of limits of a page of a person's tenants, by tenant and metric; also those that are over.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_limit_overrides_of(
        &self,
        user: UserId,
        page: &[MyTenant],
    ) -> Result<HashMap<(TenantId, String), LimitOverride>, Error> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(HashMap::new()) };
        let args = [user.0.into(), first.tenant.tenant_id.0.into(), last.tenant.tenant_id.0.into()];
        let rows: Vec<LimitRow> = self.across_tenants().await?.all(&LIST_LIMIT_OVERRIDES_OF_USER, &args).await?;
        let own = |row: &LimitRow| LimitOverride { limit: row.limit_value, expires_at: row.expires_at };
        Ok(rows.into_iter().map(|row| ((TenantId(row.tenant_id), row.metric.clone()), own(&row))).collect())
    }

    /// What a page of a person's tenants has used in the periods that hold an instant, by tenant and metric.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_used_of(
        &self,
        user: UserId,
        page: &[MyTenant],
        now: Timestamp,
    ) -> Result<HashMap<(TenantId, String), (Period, i64)>, Error> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(HashMap::new()) };
        let args = [user.0.into(), first.tenant.tenant_id.0.into(), last.tenant.tenant_id.0.into(), now.into()];
        let rows: Vec<UsedRow> = self.across_tenants().await?.all(&LIST_USED_OF_USER, &args).await?;
        let period = |row: &UsedRow| Period {
            start: row.period_start,
            end: row.period_end.unwrap_or_else(|| Period::month_of(row.period_start).end),
        };
        Ok(rows
            .into_iter()
            .map(|row| ((TenantId(row.tenant_id), row.metric.clone()), (period(&row), row.used)))
            .collect())
    }
}
