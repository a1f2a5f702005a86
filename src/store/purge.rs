//! Statements that remove everything of a tenant, table by table, in bounded batches. A new table of a tenant belongs into
//! `TABLES`: a test compares it with the tables that there are.

use super::scoped::{Scoped, TenantTx};
use super::tx::{OfPlatform, OfTenant, OfUser, Statement, statements};
use super::{feed::Change, scoped::AsUser};
use crate::domain::id::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::Error;

statements! {
    DELETE_USAGE_EVENT: OfTenant = Statement::new(
        "delete from usage_event
         where tenant_id = $1 and key in (select key from usage_event where tenant_id = $1 limit $2)",
    );
    DELETE_AUDIT_EVENT: OfTenant = Statement::new(
        "delete from audit_event
         where tenant_id = $1 and event_id in (select event_id from audit_event where tenant_id = $1 limit $2)",
    );
    DELETE_QUOTA_LEASE: OfTenant = Statement::new(
        "delete from quota_lease
         where tenant_id = $1 and (account_id, writer_id, class) in (select account_id, writer_id, class from quota_lease where tenant_id = $1 limit $2)",
    );
    DELETE_QUOTA_HOLD: OfTenant = Statement::new(
        "delete from quota_hold
         where tenant_id = $1 and hold_id in (select hold_id from quota_hold where tenant_id = $1 limit $2)",
    );
    DELETE_QUOTA_ACCOUNT: OfTenant = Statement::new(
        "delete from quota_account
         where tenant_id = $1 and account_id in (select account_id from quota_account where tenant_id = $1 limit $2)",
    );
    DELETE_QUOTA_THRESHOLD: OfTenant = Statement::new(
        "delete from quota_threshold
         where tenant_id = $1 and metric in (select metric from quota_threshold where tenant_id = $1 limit $2)",
    );
    DELETE_QUOTA_NOTICE: OfTenant = Statement::new(
        "delete from quota_notice
         where tenant_id = $1 and notice_id in (select notice_id from quota_notice where tenant_id = $1 limit $2)",
    );
    DELETE_USAGE_ROLLUP: OfTenant = Statement::new(
        "delete from usage_rollup
         where tenant_id = $1 and (bucket, metric, member_id, api_key_id, endpoint, method, status, shard) in (
           select bucket, metric, member_id, api_key_id, endpoint, method, status, shard
           from usage_rollup
           where tenant_id = $1
           limit $2)",
    );
    DELETE_USAGE_HORIZON: OfTenant = Statement::new(
        "delete from usage_horizon
         where tenant_id = $1 and $2 > 0",
    );
    DELETE_OUTBOX: OfTenant = Statement::new(
        "delete from outbox
         where tenant_id = $1 and message_id in (select message_id from outbox where tenant_id = $1 limit $2)",
    );
    DELETE_BILLING_EVENT: OfTenant = Statement::new(
        "delete from billing_event
         where tenant_id = $1 and (provider, event_id) in (select provider, event_id from billing_event where tenant_id = $1 limit $2)",
    );
    DELETE_MEMBERSHIP_ROLE: OfTenant = Statement::new(
        "delete from membership_role
         where tenant_id = $1 and (membership_id, role) in (select membership_id, role from membership_role where tenant_id = $1 limit $2)",
    );
    DELETE_INVITATION: OfTenant = Statement::new(
        "delete from invitation
         where tenant_id = $1 and invitation_id in (select invitation_id from invitation where tenant_id = $1 limit $2)",
    );
    DELETE_TENANT_ROLE: OfTenant = Statement::new(
        "delete from tenant_role
         where tenant_id = $1 and name in (select name from tenant_role where tenant_id = $1 limit $2)",
    );
    DELETE_MEMBERSHIP: OfTenant = Statement::new(
        "delete from membership
         where tenant_id = $1 and membership_id in (select membership_id from membership where tenant_id = $1 limit $2)",
    );
    DELETE_API_KEY: OfTenant = Statement::new(
        "delete from api_key
         where tenant_id = $1 and api_key_id in (select api_key_id from api_key where tenant_id = $1 limit $2)",
    );
    DELETE_LIMIT_OVERRIDE: OfTenant = Statement::new(
        "delete from limit_override
         where tenant_id = $1 and metric in (select metric from limit_override where tenant_id = $1 limit $2)",
    );
    DELETE_FEATURE_SWITCH: OfTenant = Statement::new(
        "delete from feature_switch
         where tenant_id = $1 and (feature, source) in (select feature, source from feature_switch where tenant_id = $1 limit $2)",
    );
    DELETE_INTEGRATION: OfTenant = Statement::new(
        "delete from integration
         where tenant_id = $1 and name in (select name from integration where tenant_id = $1 limit $2)",
    );
    DELETE_TENANT_DOMAIN: OfTenant = Statement::new(
        "delete from tenant_domain
         where tenant_id = $1 and domain in (select domain from tenant_domain where tenant_id = $1 limit $2)",
    );
    DELETE_DOMAIN_HOST: OfTenant = Statement::new(
        "delete from domain_host
         where tenant_id = $1 and domain in (select domain from domain_host where tenant_id = $1 limit $2)",
    );
    DELETE_SESSION_END: OfTenant = Statement::new(
        "delete from session_end
         where tenant_id = $1 and (user_id, session_id) in (select user_id, session_id from session_end where tenant_id = $1 limit $2)",
    );
    COUNT_SESSION_END: OfTenant = Statement::new("select count(*) as rows from session_end where tenant_id = $1");
    DELETE_WEBHOOK: OfTenant = Statement::new(
        "delete from webhook
         where tenant_id = $1 and webhook_id in (select webhook_id from webhook where tenant_id = $1 limit $2)",
    );
    DELETE_WEBHOOK_DELIVERY: OfTenant = Statement::new(
        "delete from webhook_delivery
         where tenant_id = $1 and delivery_id in (select delivery_id from webhook_delivery where tenant_id = $1 limit $2)",
    );
    COUNT_WEBHOOK: OfTenant = Statement::new("select count(*) as rows from webhook where tenant_id = $1");
    COUNT_WEBHOOK_DELIVERY: OfTenant = Statement::new("select count(*) as rows from webhook_delivery where tenant_id = $1");
    DELETE_TENANT_SETTINGS: OfTenant = Statement::new(
        "delete from tenant_settings
         where tenant_id = $1 and $2 > 0",
    );
    DELETE_SSO_STATE: OfTenant = Statement::new(
        "delete from sso_state
         where tenant_id = $1 and digest in (select digest from sso_state where tenant_id = $1 limit $2)",
    );
    DELETE_SSO_IDENTITY: OfTenant = Statement::new(
        "delete from sso_identity
         where tenant_id = $1 and (issuer, subject) in (select issuer, subject from sso_identity where tenant_id = $1 limit $2)",
    );
    DELETE_SSO_CONNECTION: OfTenant = Statement::new(
        "delete from sso_connection
         where tenant_id = $1 and $2 > 0",
    );
    DELETE_IMPERSONATION: OfTenant = Statement::new(
        "delete from impersonation
         where tenant_id = $1 and impersonation_id in (select impersonation_id from impersonation where tenant_id = $1 limit $2)",
    );
    COUNT_SSO_STATE: OfTenant = Statement::new("select count(*) as rows from sso_state where tenant_id = $1");
    COUNT_SSO_IDENTITY: OfTenant = Statement::new("select count(*) as rows from sso_identity where tenant_id = $1");
    COUNT_SSO_CONNECTION: OfTenant = Statement::new("select count(*) as rows from sso_connection where tenant_id = $1");
    COUNT_IMPERSONATION: OfTenant = Statement::new("select count(*) as rows from impersonation where tenant_id = $1");
    COUNT_USAGE_EVENT: OfTenant = Statement::new("select count(*) as rows from usage_event where tenant_id = $1");
    COUNT_AUDIT_EVENT: OfTenant = Statement::new("select count(*) as rows from audit_event where tenant_id = $1");
    COUNT_QUOTA_LEASE: OfTenant = Statement::new("select count(*) as rows from quota_lease where tenant_id = $1");
    COUNT_QUOTA_HOLD: OfTenant = Statement::new("select count(*) as rows from quota_hold where tenant_id = $1");
    COUNT_QUOTA_ACCOUNT: OfTenant = Statement::new("select count(*) as rows from quota_account where tenant_id = $1");
    COUNT_QUOTA_THRESHOLD: OfTenant = Statement::new("select count(*) as rows from quota_threshold where tenant_id = $1");
    COUNT_QUOTA_NOTICE: OfTenant = Statement::new("select count(*) as rows from quota_notice where tenant_id = $1");
    COUNT_USAGE_ROLLUP: OfTenant = Statement::new("select count(*) as rows from usage_rollup where tenant_id = $1");
    COUNT_USAGE_HORIZON: OfTenant = Statement::new("select count(*) as rows from usage_horizon where tenant_id = $1");
    COUNT_OUTBOX: OfTenant = Statement::new("select count(*) as rows from outbox where tenant_id = $1");
    COUNT_BILLING_EVENT: OfTenant = Statement::new("select count(*) as rows from billing_event where tenant_id = $1");
    COUNT_MEMBERSHIP_ROLE: OfTenant = Statement::new("select count(*) as rows from membership_role where tenant_id = $1");
    COUNT_INVITATION: OfTenant = Statement::new("select count(*) as rows from invitation where tenant_id = $1");
    COUNT_TENANT_ROLE: OfTenant = Statement::new("select count(*) as rows from tenant_role where tenant_id = $1");
    COUNT_MEMBERSHIP: OfTenant = Statement::new("select count(*) as rows from membership where tenant_id = $1");
    COUNT_API_KEY: OfTenant = Statement::new("select count(*) as rows from api_key where tenant_id = $1");
    COUNT_LIMIT_OVERRIDE: OfTenant = Statement::new("select count(*) as rows from limit_override where tenant_id = $1");
    COUNT_FEATURE_SWITCH: OfTenant = Statement::new("select count(*) as rows from feature_switch where tenant_id = $1");
    COUNT_INTEGRATION: OfTenant = Statement::new("select count(*) as rows from integration where tenant_id = $1");
    COUNT_TENANT_DOMAIN: OfTenant = Statement::new("select count(*) as rows from tenant_domain where tenant_id = $1");
    COUNT_DOMAIN_HOST: OfTenant = Statement::new("select count(*) as rows from domain_host where tenant_id = $1");
    COUNT_TENANT_SETTINGS: OfTenant = Statement::new("select count(*) as rows from tenant_settings where tenant_id = $1");
    DELETE_IDEMPOTENCY: OfTenant = Statement::new(
        "delete from idempotency
         where tenant_id = $1 and (caller_kind, caller_id, method, request_hash) in (
           select caller_kind, caller_id, method, request_hash
           from idempotency
           where tenant_id = $1
           limit $2)",
    );
    COUNT_IDEMPOTENCY: OfTenant = Statement::new("select count(*) as rows from idempotency where tenant_id = $1");
    DELETE_SLUGS: OfTenant = Statement::new(
        "delete from tenant_slug
         where tenant_id = $1",
    );
    DELETE_EXTERNAL_ID: OfTenant = Statement::new(
        "delete from tenant_external_id
         where tenant_id = $1",
    );
    DELETE_TENANT: OfTenant = Statement::new(
        "delete from tenant
         where tenant_id = $1",
    );
    FORGET_DEFAULT: OfUser = Statement::new(
        "update user_account
         set default_tenant_id = null
         where user_id = $1 and default_tenant_id = $2",
    );
    /// Sessions that open this tenant only have nothing left to open.
    DELETE_BOUND: OfUser = Statement::new(
        "delete from session
         where user_id = $1 and bound_tenant_id = $2",
    );
    FORGET_ACTIVE: OfUser = Statement::new(
        "update session
         set active_tenant_id = null
         where user_id = $1 and active_tenant_id = $2",
    );
    DELETE_RATES: OfPlatform = Statement::new(
        "delete from rpc_rate
         where subject = $1",
    );
    DELETE_JOBS: OfPlatform = Statement::new(
        "delete from job
         where subject = $1 and kind <> 'purge'",
    );
}

/// Every table whose rows are a tenant's, but those that go with the tenant itself: how a batch goes, and how many there
/// are.
const TABLES: &[(&str, &Statement<OfTenant>, &Statement<OfTenant>)] = &[
    ("usage_event", &DELETE_USAGE_EVENT, &COUNT_USAGE_EVENT),
    ("audit_event", &DELETE_AUDIT_EVENT, &COUNT_AUDIT_EVENT),
    ("usage_rollup", &DELETE_USAGE_ROLLUP, &COUNT_USAGE_ROLLUP),
    ("quota_lease", &DELETE_QUOTA_LEASE, &COUNT_QUOTA_LEASE),
    ("quota_hold", &DELETE_QUOTA_HOLD, &COUNT_QUOTA_HOLD),
    ("quota_account", &DELETE_QUOTA_ACCOUNT, &COUNT_QUOTA_ACCOUNT),
    ("quota_threshold", &DELETE_QUOTA_THRESHOLD, &COUNT_QUOTA_THRESHOLD),
    ("quota_notice", &DELETE_QUOTA_NOTICE, &COUNT_QUOTA_NOTICE),
    ("usage_horizon", &DELETE_USAGE_HORIZON, &COUNT_USAGE_HORIZON),
    ("outbox", &DELETE_OUTBOX, &COUNT_OUTBOX),
    ("webhook", &DELETE_WEBHOOK, &COUNT_WEBHOOK),
    ("webhook_delivery", &DELETE_WEBHOOK_DELIVERY, &COUNT_WEBHOOK_DELIVERY),
    ("billing_event", &DELETE_BILLING_EVENT, &COUNT_BILLING_EVENT),
    ("membership_role", &DELETE_MEMBERSHIP_ROLE, &COUNT_MEMBERSHIP_ROLE),
    ("tenant_role", &DELETE_TENANT_ROLE, &COUNT_TENANT_ROLE),
    ("session_end", &DELETE_SESSION_END, &COUNT_SESSION_END),
    ("invitation", &DELETE_INVITATION, &COUNT_INVITATION),
    ("membership", &DELETE_MEMBERSHIP, &COUNT_MEMBERSHIP),
    ("api_key", &DELETE_API_KEY, &COUNT_API_KEY),
    ("limit_override", &DELETE_LIMIT_OVERRIDE, &COUNT_LIMIT_OVERRIDE),
    ("feature_switch", &DELETE_FEATURE_SWITCH, &COUNT_FEATURE_SWITCH),
    ("integration", &DELETE_INTEGRATION, &COUNT_INTEGRATION),
    ("tenant_domain", &DELETE_TENANT_DOMAIN, &COUNT_TENANT_DOMAIN),
    ("domain_host", &DELETE_DOMAIN_HOST, &COUNT_DOMAIN_HOST),
    ("sso_state", &DELETE_SSO_STATE, &COUNT_SSO_STATE),
    ("sso_identity", &DELETE_SSO_IDENTITY, &COUNT_SSO_IDENTITY),
    ("sso_connection", &DELETE_SSO_CONNECTION, &COUNT_SSO_CONNECTION),
    ("impersonation", &DELETE_IMPERSONATION, &COUNT_IMPERSONATION),
    ("tenant_settings", &DELETE_TENANT_SETTINGS, &COUNT_TENANT_SETTINGS),
    ("idempotency", &DELETE_IDEMPOTENCY, &COUNT_IDEMPOTENCY),
];

#[derive(sqlx::FromRow)]
struct Count {
    rows: i64,
}

/// The names of the tables, in the order in which they are emptied.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, ..)| *name)
}

/// Removes up to `limit` rows of the tenant from one table; how many went.
///
/// # Errors
/// `DatabaseUnavailable`; internal for a table that is not in the list.
pub async fn delete_some(tx: &mut TenantTx, table: &str, limit: i64) -> Result<u64, Error> {
    let known = TABLES.iter().find(|(name, ..)| *name == table);
    let (_, delete, _) = known.ok_or_else(|| Error::internal("no such table to purge"))?;
    tx.execute(delete, &[limit.into()]).await
}

/// How many rows of the tenant a table has.
///
/// # Errors
/// `DatabaseUnavailable`; internal for a table that is not in the list.
pub async fn count(tx: &mut TenantTx, table: &str) -> Result<i64, Error> {
    let known = TABLES.iter().find(|(name, ..)| *name == table);
    let (_, _, count) = known.ok_or_else(|| Error::internal("no such table to purge"))?;
    let row: Option<Count> = tx.optional(count, &[]).await?;
    Ok(row.map_or(0, |row| row.rows))
}

/// Removes the tenant itself with what names it, after everything else. From then on its slug and external id are free.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_tenant(tx: &mut TenantTx, tenant: &Tenant) -> Result<(), Error> {
    for statement in [&DELETE_SLUGS, &DELETE_EXTERNAL_ID, &DELETE_TENANT] {
        tx.execute(statement, &[]).await?;
    }
    let id = tenant.tenant_id;
    tx.execute(&DELETE_RATES, &[format!("tenant:{id}").as_str().into()]).await?;
    tx.execute(&DELETE_JOBS, &[id.0.into()]).await?;
    tx.changed(Change::Tenant(id));
    tx.changed(Change::Host(id, tenant.slug.as_str().to_owned()));
    Ok(())
}

/// Lets a person's account and sessions forget the tenant.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget(tx: &mut Scoped<AsUser>, tenant: TenantId) -> Result<(), Error> {
    let forgotten = tx.execute(&FORGET_DEFAULT, &[tenant.0.into()]).await?;
    let ended = tx.execute(&DELETE_BOUND, &[tenant.0.into()]).await?;
    if forgotten + ended > 0 {
        let AsUser(user) = *tx.scope();
        tx.changed(Change::Account(user));
    }
    tx.execute(&FORGET_ACTIVE, &[tenant.0.into()]).await.map(|_| ())
}
