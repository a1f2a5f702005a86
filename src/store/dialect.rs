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

/// Sums roll-ups over spans of time: `$2` to `$6` say what is grouped by, `$7` whether `$10` narrows the metrics, `$8` is
/// no id.
macro_rules! sum_usage {
    ($metrics:literal, $spans:literal) => {
        concat!(
            "select s.span, r.metric,
                    case when $2 = 1 then r.member_id else $8 end as member_id,
                    case when $3 = 1 then r.api_key_id else $8 end as api_key_id,
                    case when $4 = 1 then r.endpoint else '' end as endpoint,
                    case when $5 = 1 then r.method else '' end as method,
                    case when $6 = 1 then r.status else 0 end as status,
                    cast(sum(r.events) as bigint) as events, cast(sum(r.amount) as bigint) as amount
             from usage_rollup r
             join ",
            $spans,
            " on r.bucket >= s.start_at and r.bucket < s.end_at
             where r.tenant_id = $1 and ($7 = 0 or r.metric ",
            $metrics,
            ")
             group by 1, 2, 3, 4, 5, 6, 7
             order by 1, 2, 3, 4, 5, 6, 7
             limit $9"
        )
    };
}

macro_rules! lock_old_events {
    ($lock:literal) => {
        concat!(
            "select key, verdict, kind, charges
             from usage_event
             where tenant_id = $1 and coalesce(event_at, decided_at) < $2 and decided_at < $2
             order by coalesce(event_at, decided_at), key
             limit $3",
            $lock
        )
    };
}

/// Deletes old holds, with the lock that is PostgreSQL's.
macro_rules! delete_old_holds {
    ($lock:literal) => {
        concat!(
            "delete from quota_hold
             where tenant_id = $1 and hold_id in (
               select h.hold_id from quota_hold h where h.tenant_id = $1 and h.state <> 1 and h.ended_at < $2 limit $3",
            $lock,
            ")",
        )
    };
}

statements! {
    /// What was used over spans, by group.
    pub(super) SUM_USAGE: OfTenant = Statement::each(
        sum_usage!(
            "= any ($10::text[])",
            "unnest($11::bigint[], $12::timestamptz[], $13::timestamptz[]) as s (span, start_at, end_at)"
        ),
        sum_usage!(
            "in (select value ->> 0 from json_each($10))",
            "(select value ->> 0 as span, value ->> 1 as start_at, value ->> 2 as end_at from json_each($11)) s"
        ),
    );

    /// Reads events that are to be forgotten and keeps them from changing; those that somebody has locked are passed over.
    pub(super) LOCK_OLD_EVENTS: OfTenant =
        Statement::each(lock_old_events!(" for update skip locked"), lock_old_events!(""));

    /// Deletes holds that ended before an instant. In no order of locks: those that somebody has locked are passed over.
    pub(super) DELETE_OLD_HOLDS: OfTenant =
        Statement::each(delete_old_holds!(" for update skip locked"), delete_old_holds!(""));

    /// Deletes events by their keys.
    pub(super) DELETE_EVENTS: OfTenant = Statement::each(
        "delete from usage_event where tenant_id = $1 and key = any ($2::text[])",
        "delete from usage_event where tenant_id = $1 and key in (select value ->> 0 from json_each($2))",
    );

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
        claim_jobs!("in ('tenant', 'purge', 'domain', 'slug_alias', 'migrate_plan', 'signing_keys', 'link', 'api_key', 'quota_notice', 'usage_retention', 'usage_report')", " for update skip locked"),
        claim_jobs!("in ('tenant', 'purge', 'domain', 'slug_alias', 'migrate_plan', 'signing_keys', 'link', 'api_key', 'quota_notice', 'usage_retention', 'usage_report')", ""),
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
