//! The reads that cross tenants, all of them: who is behind a credential, whose a slug is, a person's tenants, operator
//! lists, names of members. On PostgreSQL they run as `tenantry_system`, which may read these columns and write nothing.

use std::collections::HashMap;

use chrono::TimeDelta;
use uuid::Uuid;

use super::Store;
use super::api_keys::{ApiKeyRow, api_key_columns};
use super::audit::{AuditFilter, AuditRow};
use super::invitations::{Found, InvitationRow, invitation_columns};
use super::jobs::JobKind;
use super::keys::{PlatformKeyRow, platform_key_columns};
use super::memberships::{MembershipRow, membership_columns, role_names};
use super::outbox::{Owner, Status, Written};
use super::roles::{OwnRoleRow, role_columns};
use super::sessions::{SessionRow, ShownRow, session_columns};
use super::tenants::{TenantRow, status_number, tenant_columns};
use super::tx::{AcrossTenants, Statement, statements};
use crate::ctx::PlatformKey;
use crate::domain::api_key::ApiKey;
use crate::domain::catalogue::MEMBERS;
use crate::domain::domain::DomainName;
use crate::domain::entitlement::LimitOverride;
use crate::domain::id::{ApiKeyId, SessionId, TenantId, UserId};
use crate::domain::invitation::Invitation;
use crate::domain::link::Purpose;
use crate::domain::mail::Template;
use crate::domain::membership::Membership;
use crate::domain::name::{Email, Slug};
use crate::domain::period::Period;
use crate::domain::plan::{Limit, PlanRef};
use crate::domain::role::{OwnRole, RoleName, RoleNames};
use crate::domain::secret::KeyKind;
use crate::domain::session::{Session, ShownSession};
use crate::domain::settings::Security;
use crate::domain::sso::SsoRule;
use crate::domain::tenant::{Tenant, TenantStatus};
use crate::domain::user::{Account, AccountStatus, User};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND_SESSION: AcrossTenants = Statement::new(concat!(
        "select ",
        session_columns!("s."),
        ", s.user_id, k.revoked_at as key_revoked_at, k.expires_at as key_expires_at,
                a.email, a.display_name, a.status, a.session_epoch, a.default_tenant_id
         from session s
         join user_account a on a.user_id = s.user_id
         left join platform_key k on k.platform_key_id = s.operator_key_id
         where s.user_id = $1 and s.session_id = $2
           and (cast($3 as text) is null
             or exists (select 1 from signing_key g where g.kid = $3 and g.state in ('current', 'next', 'retired')))",
    ));
    /// A person's live sign-ins that are at work in a tenant and not ended there; $3 is no session's id.
    LIST_SESSIONS_IN_TENANT: AcrossTenants = Statement::new(concat!(
        "select ",
        session_columns!("s."),
        ", s.refreshed_at, s.device_name, s.user_agent, s.source
         from session s
         join user_account a on a.user_id = s.user_id and a.session_epoch = s.epoch
         where s.user_id = $1 and s.active_tenant_id = $2 and s.session_id > $4 and s.kind = 1 and s.revoked_at is null
           and s.absolute_expires_at > $5 and coalesce(s.idle_expires_at, s.absolute_expires_at) > $5
           and not exists (
             select 1
             from session_end e
             where e.tenant_id = $2 and e.user_id = $1
               and (e.session_id = s.session_id or (e.session_id = $3 and e.ended_at >= s.created_at)))
         order by s.session_id
         limit $6",
    ));
    /// The shortest session that a tenant of the person asks for; $2 is what holds where a tenant has set none itself.
    FIND_STRICTEST_SESSION: AcrossTenants = Statement::new(
        "select min(coalesce(s.session_length_seconds, $2)) as seconds
         from membership m
         join tenant t on t.tenant_id = m.tenant_id
         left join tenant_settings s on s.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and t.status <> 6",
    );
    /// The strictest that any tenant of the person asks of passwords; $2 and $3 are what holds where a tenant has set
    /// nothing itself. Zero asks for nothing.
    FIND_PASSWORD_POLICY: AcrossTenants = Statement::new(
        "select min(nullif(coalesce(s.max_sign_in_attempts, $2), 0)) as attempts,
                min(nullif(coalesce(s.password_expiry_days, $3), 0)) as expiry_days
         from membership m
         join tenant t on t.tenant_id = m.tenant_id
         left join tenant_settings s on s.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and t.status <> 6",
    );
    FIND_LINK: AcrossTenants = Statement::new(
        "select user_id
         from mail_link
         where digest = $1 and purpose = $2 and expires_at > $3",
    );
    FIND_ACCOUNT: AcrossTenants = Statement::new(
        "select user_id, email, display_name, status, session_epoch, default_tenant_id
         from user_account
         where user_id = $1",
    );
    FIND_ACCOUNT_BY_EMAIL: AcrossTenants = Statement::new(
        "select user_id, email, display_name, status, session_epoch, default_tenant_id
         from user_account
         where email = $1",
    );
    FIND_USER: AcrossTenants = Statement::new(
        "select user_id, email, display_name
         from user_account
         where user_id = $1",
    );
    LIST_MEMBER_USERS: AcrossTenants = Statement::new(
        "select a.user_id, a.email, a.display_name
         from membership m
         join user_account a on a.user_id = m.user_id
         where m.tenant_id = $1 and m.status <> 3 and m.membership_id between $2 and $3",
    );
    FIND_PLATFORM_KEY: AcrossTenants = Statement::new(
        concat!("select ", platform_key_columns!(), ", digest, old_digest from platform_key where key_id = $1"),
    );
    /// With the person, when it is a member's and their stay goes on.
    FIND_API_KEY: AcrossTenants = Statement::new(concat!(
        "select ",
        api_key_columns!("k."),
        ", k.digest, k.old_digest, a.email, a.display_name as user_name,
                cast(case when o.confirmed_at is null then 0 else 1 end as bigint) as two_steps
         from api_key k
         left join membership m on m.tenant_id = k.tenant_id and m.membership_id = k.membership_id and m.status <> 3
         left join user_account a on a.user_id = m.user_id and a.status = 1
         left join totp o on o.user_id = a.user_id
         where k.key_id = $1",
    ));
    FIND_API_KEY_PLACE: AcrossTenants = Statement::new(
        "select tenant_id
         from api_key
         where api_key_id = $1",
    );
    /// With the version of the catalogue in force, so that no decision is made by an older one.
    FIND_TENANT: AcrossTenants = Statement::new(concat!(
        "select (select max(version) from catalogue) as catalogue_version, ",
        tenant_columns!(),
        " from tenant where tenant_id = $1",
    ));
    /// The same, with what decides on who may enter: what the tenant asks of sign-ins, its own identity provider, and whether
    /// it has ended a session for itself: $2 whose, $3 which, $4 no session's id, $5 when it began.
    FIND_GUARDED_TENANT: AcrossTenants = Statement::new(concat!(
        "select (select max(version) from catalogue) as catalogue_version,
                (select mfa_required from tenant_settings s where s.tenant_id = $1) as mfa_required,
                (select sign_in_methods from tenant_settings s where s.tenant_id = $1) as sign_in_methods,
                (select connection_id from sso_connection c where c.tenant_id = $1) as connection_id,
                (select required from sso_connection c where c.tenant_id = $1) as sso_required,
                (select count(*)
                 from session_end e
                 where e.tenant_id = $1 and e.user_id = $2
                   and (e.session_id = $3 or (e.session_id = $4 and e.ended_at >= $5))) as ends, ",
        tenant_columns!(),
        " from tenant where tenant_id = $1",
    ));
    FIND_SLUG: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant_slug
         where slug = $1 and (alias_until is null or alias_until > $2)",
    );
    /// Also while it is an alias that leads nowhere any more and has not been cleared away.
    FIND_SLUG_HOLDER: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant_slug
         where slug = $1",
    );
    FIND_IMPORTED_USER: AcrossTenants = Statement::new(
        "select user_id, email, external_id
         from user_account
         where external_id = $1",
    );
    FIND_EXTERNAL_ID_OF_EMAIL: AcrossTenants = Statement::new(
        "select user_id, email, external_id
         from user_account
         where email = $1",
    );
    FIND_IMPORTED_TENANT: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant_external_id
         where external_id = $1",
    );
    FIND_IMPORTED_PLACE: AcrossTenants = Statement::new(
        "select e.tenant_id, a.user_id, m.membership_id
         from tenant_external_id e
         join user_account a on a.external_id = $2
         left join membership m on m.tenant_id = e.tenant_id and m.user_id = a.user_id and m.status <> 3
         where e.external_id = $1",
    );
    FIND_DOMAIN_HOST: AcrossTenants = Statement::new(
        "select tenant_id
         from domain_host
         where domain = $1",
    );
    FIND_DOMAIN: AcrossTenants = Statement::new(
        "select tenant_id, domain
         from tenant_domain
         where domain_id = $1",
    );
    FIND_MEMBERSHIP: AcrossTenants = Statement::new(concat!(
        "select ",
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
    LIST_OWN_ROLES: AcrossTenants = Statement::new(concat!(
        "select ",
        role_columns!(),
        " from tenant_role
         where tenant_id = $1
         order by name",
    ));
    LIST_TENANTS: AcrossTenants = Statement::new(concat!(
        "select ",
        tenant_columns!(),
        " from tenant
         where tenant_id > $1
           and (($2 = 0 and status <> 6) or status = $2 or (status <> 6 and settle_at <= $7))
           and ($3 = '' or plan = $3 or settle_at <= $7)
           and ($4 = '' or (slug >= $4 and slug < $5))
           and (purge_at is null or purge_at > $7)
         order by tenant_id
         limit $6",
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
        "select q.tenant_id, q.metric, q.committed
         from membership m
         join quota_account q on q.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and m.tenant_id between $2 and $3 and q.period_start = $4",
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
    LIST_MISSING_JOBS: AcrossTenants = Statement::new(
        "select t.tenant_id, t.settle_at, t.purge_at
         from tenant t
         where (t.settle_at is not null and t.deleted_at is null
                and not exists (select 1 from job j where j.kind = 'tenant' and j.subject = t.tenant_id))
            or (t.purge_at is not null
                and not exists (select 1 from job j where j.kind = 'purge' and j.subject = t.tenant_id))
         limit 100",
    );
    /// A message by its id alone; ids are derived from their owners, so there is one.
    FIND_MESSAGE: AcrossTenants = Statement::new(
        "select tenant_id, cast(null as uuid) as user_id, message_id, template, recipient, payload, sealed, status,
                created_at
         from outbox
         where message_id = $1
         union all
         select cast(null as uuid), user_id, message_id, template, recipient, payload, sealed, status, created_at
         from personal_outbox
         where message_id = $1",
    );
    FIND_WEBHOOK_TENANT: AcrossTenants = Statement::new(
        "select tenant_id
         from webhook
         where webhook_id = $1",
    );
    /// As a tenant's log in audit.rs; nobody's tenant is in it.
    LIST_PLATFORM_AUDIT: AcrossTenants = Statement::new(
        "select event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id, changes, request_id, source
         from platform_audit
         where event_id < $1
           and ($2 = 0 or actor_id = $3)
           and (action = $4 or ($5 = 1 and substr(action, 1, length($4)) = $4))
           and ($6 = 0 or subject_id = $7)
           and at >= $8 and at < $9 and event_id >= $11
         order by event_id desc
         limit $10",
    );
    LIST_MISSING_MAIL: AcrossTenants = Statement::new(
        "select o.message_id
         from outbox o
         where o.status = 1 and not exists (select 1 from job j where j.kind = 'mail' and j.subject = o.message_id)
         union all
         select p.message_id
         from personal_outbox p
         where p.status = 1 and not exists (select 1 from job j where j.kind = 'mail' and j.subject = p.message_id)
         limit 100",
    );
    LIST_WHO_REMEMBER: AcrossTenants = Statement::new(
        "select user_id
         from user_account
         where default_tenant_id = $1
         union
         select user_id
         from session
         where active_tenant_id = $1 or bound_tenant_id = $1
         limit 200",
    );
    COUNT_TENANTS_OF_PLAN: AcrossTenants = Statement::new(
        "select count(*) as tenants
         from tenant
         where plan = $1 and deleted_at is null",
    );
    /// Tenants of a plan that use more of a metric than a limit, or than their own override, admits.
    LIST_OVER_LIMIT: AcrossTenants = Statement::new(
        "select t.tenant_id, q.committed as used, o.limit_value
         from tenant t
         join quota_account q on q.tenant_id = t.tenant_id
         left join limit_override o on o.tenant_id = t.tenant_id and o.metric = q.metric
                                   and (o.expires_at is null or o.expires_at > $5)
         where t.plan = $1 and t.deleted_at is null and t.tenant_id > $2 and q.metric = $3 and q.period_start = $4
           and ((o.metric is null and q.committed > $6) or q.committed > o.limit_value + o.limit_value * $7 / 100)
         order by t.tenant_id
         limit $8",
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
    LIST_LIMIT_OVERRIDES_OF_USER: AcrossTenants = Statement::new(
        "select o.tenant_id, o.metric, o.limit_value, o.expires_at
         from membership m
         join limit_override o on o.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and m.tenant_id between $2 and $3",
    );
    /// Whether the database answers.
    ONE: AcrossTenants = Statement::new("select cast(1 as bigint) as one");
}

#[derive(sqlx::FromRow)]
struct One {
    #[expect(dead_code, reason = "that there is a row is all that matters")]
    one: i64,
}

#[derive(sqlx::FromRow)]
struct FoundSessionRow {
    #[sqlx(flatten)]
    session: SessionRow,
    key_revoked_at: Option<Timestamp>,
    key_expires_at: Option<Timestamp>,
    #[sqlx(flatten)]
    account: AccountRow,
}

#[derive(sqlx::FromRow)]
struct StrictestRow {
    seconds: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct PasswordPolicyRow {
    attempts: Option<i64>,
    expiry_days: Option<i64>,
}

/// What tenants ask of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PasswordPolicy {
    /// Wrong ones in a row before sign-in is slowed.
    pub attempts: Option<usize>,
    /// How long one is good for.
    pub lifetime: Option<TimeDelta>,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    #[sqlx(flatten)]
    user: UserRow,
    status: i64,
    session_epoch: i64,
    default_tenant_id: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: Uuid,
    email: String,
    display_name: String,
}

#[derive(sqlx::FromRow)]
struct StoredPlatformKeyRow {
    digest: Vec<u8>,
    old_digest: Option<Vec<u8>>,
    #[sqlx(flatten)]
    key: PlatformKeyRow,
}

#[derive(sqlx::FromRow)]
struct StoredApiKeyRow {
    digest: Vec<u8>,
    old_digest: Option<Vec<u8>>,
    email: Option<String>,
    user_name: Option<String>,
    two_steps: i64,
    #[sqlx(flatten)]
    key: ApiKeyRow,
}

/// An account as an import looks at it.
#[derive(Debug, sqlx::FromRow)]
pub struct ImportedUserRow {
    /// The account.
    pub user_id: Uuid,
    /// Its address.
    pub email: String,
    /// The id that another system knows it by.
    pub external_id: Option<String>,
}

/// Where a membership is imported to.
#[derive(Debug, sqlx::FromRow)]
pub struct ImportedPlaceRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The membership, when it is there already.
    pub membership_id: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct TenantIdRow {
    tenant_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct DomainIdRow {
    tenant_id: Uuid,
    domain: String,
}

#[derive(sqlx::FromRow)]
struct UsedRow {
    tenant_id: Uuid,
    metric: String,
    committed: i64,
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

#[derive(sqlx::FromRow)]
struct UserIdRow {
    user_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct MissingJobRow {
    tenant_id: Uuid,
    settle_at: Option<Timestamp>,
    purge_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct MessageIdRow {
    message_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    tenant_id: Option<Uuid>,
    user_id: Option<Uuid>,
    message_id: Uuid,
    template: String,
    recipient: String,
    payload: String,
    sealed: Option<Vec<u8>>,
    status: i64,
    created_at: Timestamp,
}

impl TryFrom<MessageRow> for Written {
    type Error = Error;

    fn try_from(row: MessageRow) -> Result<Self, Error> {
        let wrong = || Error::internal("a message's row does not read");
        let owner = row.tenant_id.map(|id| Owner::Tenant(TenantId(id)));
        Ok(Self {
            message_id: row.message_id,
            owner: owner.or(row.user_id.map(|id| Owner::Person(UserId(id)))).ok_or_else(wrong)?,
            template: Template::parse(&row.template),
            recipient: Email::parse(&row.recipient).map_err(|_| wrong())?,
            payload: serde_json::from_str(&row.payload).map_err(|_| wrong())?,
            sealed: row.sealed,
            status: Status::of(row.status).ok_or_else(wrong)?,
            created_at: row.created_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct LimitRow {
    tenant_id: Uuid,
    metric: String,
    limit_value: Option<i64>,
    expires_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct VersionedTenantRow {
    catalogue_version: Option<i64>,
    #[sqlx(flatten)]
    tenant: TenantRow,
}

#[derive(sqlx::FromRow)]
struct GuardedTenantRow {
    mfa_required: Option<i64>,
    sign_in_methods: Option<String>,
    connection_id: Option<Uuid>,
    sso_required: Option<i64>,
    ends: i64,
    #[sqlx(flatten)]
    tenant: VersionedTenantRow,
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

/// A tenant with what decides on who may enter it.
pub struct GuardedTenant {
    /// The tenant, as it is written.
    pub tenant: Tenant,
    /// The version of the catalogue in force.
    pub catalogue_version: i64,
    /// Whether sign-ins must have had two steps, when the tenant says so itself.
    pub mfa_required: Option<bool>,
    /// In which ways they may be made, when the tenant says so itself.
    pub sign_in_methods: Option<Vec<String>>,
    /// Whether the tenant has ended the session for itself.
    pub session_ended: bool,
    /// What the tenant's own identity provider means for who enters; none without one.
    pub sso: Option<SsoRule>,
}

/// What a key's secret is compared with.
pub struct Digests {
    /// SHA-256 of its whole text.
    pub current: Vec<u8>,
    /// The same of the one before the last rotation, and until when that one is good.
    pub before: Option<(Vec<u8>, Timestamp)>,
}

/// A key of a service or operator, with its digests.
pub struct StoredKey {
    /// The key.
    pub key: PlatformKey,
    /// What its secret is compared with.
    pub digests: Digests,
}

/// A key of a tenant or of a member, with its digests.
pub struct StoredApiKey {
    /// The key.
    pub key: ApiKey,
    /// What its secret is compared with.
    pub digests: Digests,
    /// Whose it is, when it is a member's; none when their stay has ended or their account is switched off.
    pub member: Option<User>,
}

impl StoredApiKey {
    /// Whether it needs no member, or has one.
    #[must_use]
    pub fn has_its_member(&self) -> bool {
        self.key.kind == KeyKind::Tenant || self.member.is_some()
    }
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

/// What an operator's list is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    /// None is all but deleted ones.
    pub status: Option<TenantStatus>,
    /// Empty is every plan.
    pub plan: String,
    /// Empty is every slug.
    pub slug_prefix: String,
}

fn user(row: UserRow) -> Result<User, Error> {
    Ok(User {
        user_id: UserId(row.user_id),
        email: Email::parse(&row.email).map_err(|_| Error::internal("an account's row holds no address"))?,
        display_name: row.display_name,
    })
}

fn account(row: AccountRow) -> Result<Account, Error> {
    Ok(Account {
        status: match row.status {
            1 => AccountStatus::Active,
            3 => AccountStatus::Deleted,
            _ => AccountStatus::Disabled,
        },
        session_epoch: row.session_epoch,
        default_tenant: row.default_tenant_id.map(TenantId),
        user: user(row.user)?,
    })
}

impl Store {
    /// Whether the database answers; what readiness follows.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn ping(&self) -> Result<(), Error> {
        self.across_tenants().await?.all::<One>(&ONE, &[]).await.map(|_| ())
    }

    /// A session with its account. `kid` is the key that an access token of it was signed with: when that is no good any
    /// more, there is no session.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_session(
        &self,
        user: UserId,
        session: SessionId,
        kid: Option<&str>,
    ) -> Result<Option<(Session, Account)>, Error> {
        let args = [user.0.into(), session.0.into(), kid.into()];
        let row: Option<FoundSessionRow> = self.across_tenants().await?.optional(&FIND_SESSION, &args).await?;
        let Some(row) = row else { return Ok(None) };
        let mut session = row.session.of(user);
        // A session in a person's place ends with the operator's key.
        session.revoked_at = session.revoked_at.or(row.key_revoked_at);
        session.absolute_expires_at =
            row.key_expires_at.unwrap_or(session.absolute_expires_at).min(session.absolute_expires_at);
        Ok(Some((session, account(row.account)?)))
    }

    /// A person's live sign-ins that are at work in a tenant, after one of them, in the order in which they began. Of their
    /// others the tenant learns nothing.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_sessions_in(
        &self,
        tenant: TenantId,
        user: UserId,
        (after, limit): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<ShownSession>, Error> {
        let args = [user.0.into(), tenant.0.into(), Uuid::nil().into(), after.into(), now.into(), limit.into()];
        let rows: Vec<ShownRow> = self.across_tenants().await?.all(&LIST_SESSIONS_IN_TENANT, &args).await?;
        Ok(rows.into_iter().map(|row| row.of(user)).collect())
    }

    /// The shortest session that any tenant of a person asks for; `default` is what holds where a tenant has set none
    /// itself.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_strictest_session(
        &self,
        user: UserId,
        default: Option<TimeDelta>,
    ) -> Result<Option<TimeDelta>, Error> {
        let args = [user.0.into(), default.map(|length| length.num_seconds()).into()];
        let row: Option<StrictestRow> = self.across_tenants().await?.optional(&FIND_STRICTEST_SESSION, &args).await?;
        Ok(row.and_then(|row| row.seconds).map(TimeDelta::seconds))
    }

    /// The strictest that the tenants of a person ask of their password; `default` is what holds where a tenant has set
    /// nothing itself.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_password_policy(&self, user: UserId, default: &Security) -> Result<PasswordPolicy, Error> {
        let number = |n: Option<i32>| n.map(i64::from).into();
        let args = [user.0.into(), number(default.max_sign_in_attempts), number(default.password_expiry_days)];
        let row: Option<PasswordPolicyRow> =
            self.across_tenants().await?.optional(&FIND_PASSWORD_POLICY, &args).await?;
        Ok(row.map_or_else(PasswordPolicy::default, |row| PasswordPolicy {
            attempts: row.attempts.and_then(|n| usize::try_from(n).ok()),
            lifetime: row.expiry_days.map(TimeDelta::days),
        }))
    }

    /// Whose link this is, unless it is over.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_link(&self, purpose: Purpose, digest: &[u8], now: Timestamp) -> Result<Option<UserId>, Error> {
        let args = [digest.into(), purpose.number().into(), now.into()];
        let row: Option<UserIdRow> = self.across_tenants().await?.optional(&FIND_LINK, &args).await?;
        Ok(row.map(|row| UserId(row.user_id)))
    }

    /// An account by its id.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_account_by_id(&self, user: UserId) -> Result<Option<Account>, Error> {
        let row: Option<AccountRow> = self.across_tenants().await?.optional(&FIND_ACCOUNT, &[user.0.into()]).await?;
        row.map(account).transpose()
    }

    /// The account of an address.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_account(&self, email: &Email) -> Result<Option<Account>, Error> {
        let args = [email.as_str().into()];
        let row: Option<AccountRow> = self.across_tenants().await?.optional(&FIND_ACCOUNT_BY_EMAIL, &args).await?;
        row.map(account).transpose()
    }

    /// A person's name and address.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_user(&self, id: UserId) -> Result<Option<User>, Error> {
        let row: Option<UserRow> = self.across_tenants().await?.optional(&FIND_USER, &[id.0.into()]).await?;
        row.map(user).transpose()
    }

    /// Names and addresses of the members on a page that the tenant's own transaction just read, in no order.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_users_of(&self, tenant: TenantId, page: &[Membership]) -> Result<Vec<User>, Error> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(Vec::new()) };
        let args = [tenant.0.into(), first.membership_id.0.into(), last.membership_id.0.into()];
        let rows: Vec<UserRow> = self.across_tenants().await?.all(&LIST_MEMBER_USERS, &args).await?;
        rows.into_iter().map(user).collect()
    }

    /// A key by its public part.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_platform_key(&self, key_id: &str) -> Result<Option<StoredKey>, Error> {
        let row: Option<StoredPlatformKeyRow> =
            self.across_tenants().await?.optional(&FIND_PLATFORM_KEY, &[key_id.into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let key = PlatformKey::try_from(row.key)?;
        let digests = Digests { current: row.digest, before: row.old_digest.zip(key.old_ends_at) };
        Ok(Some(StoredKey { key, digests }))
    }

    /// A key of a tenant or of a member by its public part.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_api_key(&self, key_id: &str) -> Result<Option<StoredApiKey>, Error> {
        let row: Option<StoredApiKeyRow> =
            self.across_tenants().await?.optional(&FIND_API_KEY, &[key_id.into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let mut key = ApiKey::try_from(row.key)?;
        if row.two_steps == 0 {
            // Whoever gave the second step up has no more than one.
            key.aal = key.aal.min(1);
        }
        let digests = Digests { current: row.digest, before: row.old_digest.zip(key.old_ends_at) };
        let member = match (key.user_id, row.email, row.user_name) {
            (Some(UserId(user_id)), Some(email), Some(display_name)) => {
                Some(user(UserRow { user_id, email, display_name })?)
            }
            _ => None,
        };
        Ok(Some(StoredApiKey { key, digests, member }))
    }

    /// Whose key this is; for the job that looks at it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_api_key_place(&self, id: ApiKeyId) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_API_KEY_PLACE, &[id.0.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// A tenant by id, whatever its status and as it is written, with the version of the catalogue in force.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_tenant(&self, tenant: TenantId) -> Result<Option<(Tenant, i64)>, Error> {
        let row: Option<VersionedTenantRow> =
            self.across_tenants().await?.optional(&FIND_TENANT, &[tenant.0.into()]).await?;
        row.map(|row| Ok((row.tenant.try_into()?, row.catalogue_version.unwrap_or(0)))).transpose()
    }

    /// `find_tenant`, with what decides on who may enter, in the same look: for a session when there is one.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_guarded_tenant(
        &self,
        tenant: TenantId,
        session: Option<&Session>,
    ) -> Result<Option<GuardedTenant>, Error> {
        let nobody = (Uuid::nil(), Uuid::nil(), Timestamp::from_micros(0));
        let (user, session, began) = session.map_or(nobody, |s| (s.user_id.0, s.session_id.0, s.created_at));
        let args = [tenant.0.into(), user.into(), session.into(), Uuid::nil().into(), began.into()];
        let row: Option<GuardedTenantRow> = self.across_tenants().await?.optional(&FIND_GUARDED_TENANT, &args).await?;
        let guarded = |row: GuardedTenantRow| {
            let required = row.sso_required == Some(1);
            let methods = row.sign_in_methods.map(|list| serde_json::from_str(&list)).transpose();
            Ok(GuardedTenant {
                sso: row.connection_id.map(|connection_id| SsoRule { connection_id, required }),
                tenant: row.tenant.tenant.try_into()?,
                catalogue_version: row.tenant.catalogue_version.unwrap_or(0),
                mfa_required: row.mfa_required.map(|required| required == 1),
                sign_in_methods: methods.map_err(|_| Error::internal("a tenant's ways to sign in do not read"))?,
                session_ended: row.ends > 0,
            })
        };
        row.map(guarded).transpose()
    }

    /// To whom a slug leads, as its own or as an earlier one.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_slug(&self, slug: &Slug, now: Timestamp) -> Result<Option<TenantId>, Error> {
        let args = [slug.as_str().into(), now.into()];
        let row: Option<TenantIdRow> = self.across_tenants().await?.optional(&FIND_SLUG, &args).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// Whether nobody else can take a slug.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn is_slug_held(&self, slug: &Slug) -> Result<bool, Error> {
        let args = [slug.as_str().into()];
        let row: Option<TenantIdRow> = self.across_tenants().await?.optional(&FIND_SLUG_HOLDER, &args).await?;
        Ok(row.is_some())
    }

    /// The account that another system knows by this id.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_imported_user(&self, external_id: &str) -> Result<Option<ImportedUserRow>, Error> {
        self.across_tenants().await?.optional(&FIND_IMPORTED_USER, &[external_id.into()]).await
    }

    /// The account of an address, with the id that another system knows it by.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_external_id_of(&self, email: &Email) -> Result<Option<ImportedUserRow>, Error> {
        self.across_tenants().await?.optional(&FIND_EXTERNAL_ID_OF_EMAIL, &[email.as_str().into()]).await
    }

    /// The tenant that another system knows by this id.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_imported_tenant(&self, external_id: &str) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_IMPORTED_TENANT, &[external_id.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// The tenant and the person whom another system knows by these ids, with the membership between them; none unless both
    /// are there.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_imported_place(&self, tenant: &str, user: &str) -> Result<Option<ImportedPlaceRow>, Error> {
        self.across_tenants().await?.optional(&FIND_IMPORTED_PLACE, &[tenant.into(), user.into()]).await
    }

    /// Who has proven a domain.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_domain_host(&self, domain: &DomainName) -> Result<Option<TenantId>, Error> {
        let args = [domain.as_str().into()];
        let row: Option<TenantIdRow> = self.across_tenants().await?.optional(&FIND_DOMAIN_HOST, &args).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// Which domain of which tenant has this id; for the job that looks at it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_domain(&self, domain_id: Uuid) -> Result<Option<(TenantId, DomainName)>, Error> {
        let row: Option<DomainIdRow> = self.across_tenants().await?.optional(&FIND_DOMAIN, &[domain_id.into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let domain = DomainName::parse(&row.domain).map_err(Error::internal)?;
        Ok(Some((TenantId(row.tenant_id), domain)))
    }

    /// A user's membership in a tenant, unless removed.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_membership(&self, tenant: TenantId, user: UserId) -> Result<Option<Membership>, Error> {
        let args = [tenant.0.into(), user.0.into()];
        let row: Option<MembershipRow> = self.across_tenants().await?.optional(&FIND_MEMBERSHIP, &args).await?;
        row.map(Membership::try_from).transpose()
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

    /// The roles that a tenant has made for itself, by name.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_own_roles(&self, tenant: TenantId) -> Result<Vec<OwnRole>, Error> {
        let rows: Vec<OwnRoleRow> = self.across_tenants().await?.all(&LIST_OWN_ROLES, &[tenant.0.into()]).await?;
        rows.into_iter().map(OwnRole::try_from).collect()
    }

    /// All tenants after one of them, oldest first, for operators, as they are written. Of those that time has changed
    /// since, also ones that the filter may not mean any more, or not yet: it must be asked again of the settled ones.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_tenants(
        &self,
        filter: &TenantFilter,
        (after, limit): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<Tenant>, Error> {
        // Slugs are ASCII below '~', so the prefix and everything that begins with it sort before the prefix and '~'.
        let end = format!("{}~", filter.slug_prefix);
        let args = [
            after.into(),
            filter.status.map_or(0, status_number).into(),
            filter.plan.as_str().into(),
            filter.slug_prefix.as_str().into(),
            end.as_str().into(),
            limit.into(),
            now.into(),
        ];
        let rows: Vec<TenantRow> = self.across_tenants().await?.all(&LIST_TENANTS, &args).await?;
        rows.into_iter().map(Tenant::try_from).collect()
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

    /// How many tenants are on any version of a plan, deleted ones aside.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn count_tenants_of_plan(&self, plan: &str) -> Result<i64, Error> {
        let row: Option<TenantsRow> =
            self.across_tenants().await?.optional(&COUNT_TENANTS_OF_PLAN, &[plan.into()]).await?;
        Ok(row.map_or(0, |row| row.tenants))
    }

    /// A page of the tenants of a plan that use more of a counter in a period than a limit admits; overrides that hold at
    /// `now` come before the limit.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_over_limit(
        &self,
        plan: &str,
        (metric, limit, period): (&str, &Limit, Period),
        (after, size): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<Over>, Error> {
        let args = [
            plan.into(),
            after.into(),
            metric.into(),
            period.start.into(),
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

    /// Whose accounts or sessions name a tenant; at most two hundred at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_who_remember(&self, tenant: TenantId) -> Result<Vec<UserId>, Error> {
        let rows: Vec<UserIdRow> = self.across_tenants().await?.all(&LIST_WHO_REMEMBER, &[tenant.0.into()]).await?;
        Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
    }

    /// A message that was written down, whoever's it is.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; internal when its row does not read.
    pub async fn find_message(&self, id: Uuid) -> Result<Option<Written>, Error> {
        let row: Option<MessageRow> = self.across_tenants().await?.optional(&FIND_MESSAGE, &[id.into()]).await?;
        row.map(Written::try_from).transpose()
    }

    /// Whose a webhook is.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_webhook_tenant(&self, webhook: Uuid) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_WEBHOOK_TENANT, &[webhook.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// The platform's log before one of its rows, the newest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_platform_audit(
        &self,
        filter: &AuditFilter,
        before: Uuid,
        limit: i64,
    ) -> Result<Vec<AuditRow>, Error> {
        self.across_tenants().await?.all(&LIST_PLATFORM_AUDIT, &filter.before(before, limit)).await
    }

    /// Messages that wait and have no job to send them; at most a hundred at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_missing_mail(&self) -> Result<Vec<Uuid>, Error> {
        let rows: Vec<MessageIdRow> = self.across_tenants().await?.all(&LIST_MISSING_MAIL, &[]).await?;
        Ok(rows.into_iter().map(|row| row.message_id).collect())
    }

    /// Jobs of tenants that should be scheduled and are not; at most a hundred tenants' at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_missing_jobs(&self) -> Result<Vec<(JobKind, TenantId, Timestamp)>, Error> {
        let rows: Vec<MissingJobRow> = self.across_tenants().await?.all(&LIST_MISSING_JOBS, &[]).await?;
        let jobs = |row: MissingJobRow| {
            let tenant = TenantId(row.tenant_id);
            let purge = row.purge_at.map(|at| (JobKind::Purge, tenant, at));
            let settle = row.settle_at.filter(|_| row.purge_at.is_none()).map(|at| (JobKind::Tenant, tenant, at));
            [purge, settle].into_iter().flatten()
        };
        Ok(rows.into_iter().flat_map(jobs).collect())
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

    /// What a page of a person's tenants has used in a period, by tenant and metric.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_used_of(
        &self,
        user: UserId,
        page: &[MyTenant],
        period: Period,
    ) -> Result<HashMap<(TenantId, String), i64>, Error> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(HashMap::new()) };
        let args =
            [user.0.into(), first.tenant.tenant_id.0.into(), last.tenant.tenant_id.0.into(), period.start.into()];
        let rows: Vec<UsedRow> = self.across_tenants().await?.all(&LIST_USED_OF_USER, &args).await?;
        Ok(rows.into_iter().map(|row| ((TenantId(row.tenant_id), row.metric), row.committed)).collect())
    }
}

fn over(row: &OverRow) -> Over {
    Over { tenant_id: TenantId(row.tenant_id), used: row.used, own: row.limit_value }
}
