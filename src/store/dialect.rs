//! The statements that the two engines spell differently, side by side. On SQLite the write transaction is the lock, so
//! what is `for update` on PostgreSQL is a plain read there.

use super::quota::account_columns;
use super::tenants::tenant_columns;
use super::tx::{OfPlatform, OfTenant, OfUser, Statement, statements};

/// Leases jobs of these kinds, with this lock.
macro_rules! claim_jobs {
    ($kinds:literal, $lock:literal) => {
        concat!(
            "update job
             set lease = $1, leased_until = $2, attempts = attempts + 1
             where (kind, subject) in (
               select kind, subject
               from job
               where due_at <= $3 and (leased_until is null or leased_until <= $3) and kind ",
            $kinds,
            "
               order by due_at
               limit $4",
            $lock,
            ")
             returning kind, subject, attempts",
        )
    };
}

statements! {
    /// Reads the tenant and keeps everybody else from changing it or its members until the transaction ends. Not `for
    /// update`: that would wait for, and stop, every insert that refers to the tenant.
    pub(super) LOCK_TENANT: OfTenant = Statement::each(
        concat!("select ", tenant_columns!(), " from tenant where tenant_id = $1 for no key update"),
        concat!("select ", tenant_columns!(), " from tenant where tenant_id = $1"),
    );

    /// Reads the tenant and keeps its plan and limits from changing until the transaction ends; others may do the same.
    pub(super) SHARE_TENANT: OfTenant = Statement::each(
        concat!("select ", tenant_columns!(), " from tenant where tenant_id = $1 for share"),
        concat!("select ", tenant_columns!(), " from tenant where tenant_id = $1"),
    );

    /// Reads an account and keeps it from changing.
    pub(super) LOCK_QUOTA_ACCOUNT: OfTenant = Statement::each(
        concat!(
            "select ", account_columns!(),
            " from quota_account a where a.tenant_id = $1 and a.account_id = $2 for update of a",
        ),
        concat!("select ", account_columns!(), " from quota_account a where a.tenant_id = $1 and a.account_id = $2"),
    );

    /// Reads the open leases of an account and keeps them from changing.
    pub(super) LOCK_ACCOUNT_LEASES: OfTenant = Statement::each(
        "select account_id, writer_id, class, epoch, granted, settled, forfeited
         from quota_lease
         where tenant_id = $1 and account_id = $2 and epoch <> 0
         order by tenant_id, account_id, writer_id, class for update",
        "select account_id, writer_id, class, epoch, granted, settled, forfeited
         from quota_lease
         where tenant_id = $1 and account_id = $2 and epoch <> 0",
    );

    /// Gives jobs that are due to a lease. Several servers claim side by side: what one has locked the others pass over. Kinds
    /// that only a newer server knows are left to it.
    pub(super) CLAIM_JOBS: OfPlatform = Statement::each(
        claim_jobs!("in ('tenant', 'purge', 'domain', 'slug_alias', 'migrate_plan', 'signing_keys', 'link', 'api_key')", " for update skip locked"),
        claim_jobs!("in ('tenant', 'purge', 'domain', 'slug_alias', 'migrate_plan', 'signing_keys', 'link', 'api_key')", ""),
    );

    /// `CLAIM_JOBS` for one kind.
    pub(super) CLAIM_JOBS_OF: OfPlatform =
        Statement::each(claim_jobs!("= $5", " for update skip locked"), claim_jobs!("= $5", ""));

    /// Reads the counted calls of one method and subject and keeps them from changing.
    pub(super) LOCK_RATE: OfPlatform = Statement::each(
        "select hits from rpc_rate where method = $1 and subject = $2 for update",
        "select hits from rpc_rate where method = $1 and subject = $2",
    );

    /// Held until the end of the transaction by whoever is about to revoke an operator's key: two of them do not pass each
    /// other. In the order in which uses of keys are written.
    pub(super) LOCK_OPERATOR_KEYS: OfPlatform = Statement::each(
        "select platform_key_id from platform_key where kind = 4 and revoked_at is null
         order by platform_key_id for update",
        "select platform_key_id from platform_key where kind = 4 and revoked_at is null order by platform_key_id",
    );

    /// Reads counted attempts and keeps them from changing.
    pub(super) LOCK_ATTEMPT: OfPlatform = Statement::each(
        "select hits from attempt where subject = $1 for update",
        "select hits from attempt where subject = $1",
    );

    /// Reads the account and keeps its epoch and its number of sessions from changing.
    pub(super) LOCK_ACCOUNT: OfUser = Statement::each(
        "select status, session_epoch from user_account where user_id = $1 for no key update",
        "select status, session_epoch from user_account where user_id = $1",
    );

    /// Reads the refresh tokens of a session and keeps them from changing.
    pub(super) LOCK_REFRESH: OfUser = Statement::each(
        "select refresh_gen, refresh_cur, refresh_prev, refresh_sealed, refreshed_at, revoked_at
         from session
         where user_id = $1 and session_id = $2 for update",
        "select refresh_gen, refresh_cur, refresh_prev, refresh_sealed, refreshed_at, revoked_at
         from session
         where user_id = $1 and session_id = $2",
    );

    /// Keeps the signing keys from changing. Reads none of them: whoever has waited here for another transaction does not see
    /// the rows that it inserted, but the next statement does.
    pub(super) LOCK_SIGNING_KEYS: OfPlatform = Statement::each(
        "select kid from signing_key order by created_at, kid for update",
        "select kid from signing_key order by created_at, kid",
    );
}
