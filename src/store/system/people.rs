//! Reads across tenants about people: their sign-ins, accounts and addresses, and what their tenants ask of them.

use super::super::Store;
use super::super::sessions::{SessionRow, ShownRow, session_columns};
use super::super::tx::{AcrossTenants, Statement, statements};
use super::{AccountRow, Seen, UserRow, account, seen, user};
use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::link::Purpose;
use crate::domain::membership::Membership;
use crate::domain::name::Email;
use crate::domain::session::{Session, ShownSession};
use crate::domain::settings::Security;
use crate::domain::user::{Account, User};
use crate::error::Error;
use crate::time::Timestamp;
use chrono::TimeDelta;
use uuid::Uuid;

statements! {
    FIND_SESSION: AcrossTenants = Statement::new(seen!(
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
    /// The strictest that any tenant of the person asks of passwords, where they have been: to make somebody a member gives
    /// no say over their account. $2 and $3 are what holds where a tenant has set nothing itself. Zero asks for nothing.
    FIND_PASSWORD_POLICY: AcrossTenants = Statement::new(
        "select min(nullif(coalesce(s.max_sign_in_attempts, $2), 0)) as attempts,
                min(nullif(coalesce(s.password_expiry_days, $3), 0)) as expiry_days
         from membership m
         join tenant t on t.tenant_id = m.tenant_id
         left join tenant_settings s on s.tenant_id = m.tenant_id
         where m.user_id = $1 and m.status = 1 and m.last_active_at is not null and t.status in (2, 3)",
    );
    FIND_LINK: AcrossTenants = Statement::new(
        "select user_id
         from mail_link
         where digest = $1 and purpose = $2 and expires_at > $3",
    );
    FIND_ACCOUNT: AcrossTenants = Statement::new(seen!(
        "user_id, email, display_name, status, session_epoch, default_tenant_id
         from user_account
         where user_id = $1"
    ));
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

#[derive(sqlx::FromRow)]
struct UserIdRow {
    user_id: Uuid,
}

impl Store {
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
    ) -> Result<Seen<(Session, Account)>, Error> {
        let args = [user.0.into(), session.0.into(), kid.into()];
        let seen: Seen<FoundSessionRow> = self.see(&FIND_SESSION, &args).await?;
        seen.try_map(|row| {
            let mut session = row.session.of(user);
            // A session in a person's place ends with the operator's key.
            session.revoked_at = session.revoked_at.or(row.key_revoked_at);
            session.absolute_expires_at =
                row.key_expires_at.unwrap_or(session.absolute_expires_at).min(session.absolute_expires_at);
            Ok((session, account(row.account)?))
        })
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
    pub async fn find_account_by_id(&self, user: UserId) -> Result<Seen<Account>, Error> {
        let seen: Seen<AccountRow> = self.see(&FIND_ACCOUNT, &[user.0.into()]).await?;
        seen.try_map(account)
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

    /// Whose accounts or sessions name a tenant; at most two hundred at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_who_remember(&self, tenant: TenantId) -> Result<Vec<UserId>, Error> {
        let rows: Vec<UserIdRow> = self.across_tenants().await?.all(&LIST_WHO_REMEMBER, &[tenant.0.into()]).await?;
        Ok(rows.into_iter().map(|row| UserId(row.user_id)).collect())
    }
}
