//! Migrations of PostgreSQL, and the list of policies that they leave.

#![expect(clippy::disallowed_methods, reason = "statements of store/")]

use sqlx::migrate::{Migrate, Migrator};
use sqlx::{Connection, PgConnection};

use super::{Report, SERVER_ROLES, SetupError, step};

/// `migrations/postgres`, compiled in.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The policies that reach the roles of the server, which are $1, each with the digest by which the start-up check knows it. Texts
/// depend on `search_path`, so this and the check both run under `pg_catalog` alone.
const PRESENT: &str = "
    select me.rolname::text as role, format('%I on %s', p.polname, p.polrelid::regclass) as name,
           md5(row(c.relname, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
                   pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text) as digest
    from pg_roles me
    cross join pg_policy p
    join pg_class c on c.oid = p.polrelid
    join pg_namespace n on n.oid = c.relnamespace
    where me.rolname = any ($1)
      and n.nspname = 'tenantry'
      and exists (select 1 from unnest(p.polroles) r(oid) where r.oid = 0 or pg_has_role(me.oid, r.oid, 'member'))
    order by 2, 1";

/// Records a policy as expected.
const RECORD: &str = "insert into tenantry.expected_policy (role, digest) values ($1, $2)";

#[derive(sqlx::FromRow)]
struct Policy {
    role: String,
    name: String,
    digest: String,
}

/// The newest migration that this binary knows.
#[must_use]
pub fn known_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Applies what is missing and records the policies, all under the lock that sqlx's migrator takes. The connection
/// stays `tenantry_owner` afterwards; close it.
pub(super) async fn apply(conn: &mut PgConnection) -> Result<Report, SetupError> {
    become_owner(conn).await?;
    refuse_missing_roles(conn).await?;
    conn.lock().await?;
    let known = known_version();
    let from = version(conn).await?;
    if from > known {
        return Err(SetupError::Newer { at: from, known });
    }
    refuse_changed(conn).await?;
    if from < known {
        // Until the new ones are recorded, nothing is: a run that is cut short in between can be repeated.
        forget_policies(conn).await.map_err(step("recording policies"))?;
    }
    MIGRATIONS.run_direct(None, &mut *conn, false).await?;
    let fresh = MIGRATIONS.iter().filter(|migration| migration.version > from);
    let migrations_applied: Vec<_> = fresh.map(|m| format!("{:04} {}", m.version, m.description)).collect();
    record_policies(conn).await.map_err(step("recording policies"))?;
    conn.unlock().await?;
    Ok(Report { migrations_applied, from, to: known, ..Report::default() })
}

/// Acts as the owner, in our schema.
async fn become_owner(conn: &mut PgConnection) -> Result<(), SetupError> {
    let (role, database, may): (String, String, bool) = sqlx::query_as(
        "select session_user::text, current_database()::text,
                coalesce((select pg_has_role(session_user, oid, 'member')
                          from pg_roles
                          where rolname = 'tenantry_owner'), false)",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(step("asking who we are"))?;
    if !may {
        return Err(SetupError::NotOwner { role });
    }
    sqlx::raw_sql("set role tenantry_owner; set search_path = tenantry")
        .execute(&mut *conn)
        .await
        .map_err(step("acting as tenantry_owner"))?;
    let schema: bool = sqlx::query_scalar("select exists (select 1 from pg_namespace where nspname = 'tenantry')")
        .fetch_one(&mut *conn)
        .await
        .map_err(step("looking for the schema"))?;
    if schema { Ok(()) } else { Err(SetupError::NoSchema { database }) }
}

/// Refuses a database that was set up before one of the server's roles was known: only an administrator creates roles, and
/// migrations grant to them.
async fn refuse_missing_roles(conn: &mut PgConnection) -> Result<(), SetupError> {
    let roles: Vec<String> = sqlx::query_scalar(
        "select r.name
         from unnest($1) with ordinality as r(name, place)
         left join pg_catalog.pg_roles o on o.rolname = r.name
         where o.oid is null
            or not has_database_privilege(o.oid, current_database(), 'connect')
            or not has_schema_privilege(o.oid, 'tenantry', 'usage')
         order by r.place",
    )
    .bind(SERVER_ROLES)
    .fetch_all(conn)
    .await
    .map_err(step("looking for the roles"))?;
    if roles.is_empty() { Ok(()) } else { Err(SetupError::RolesMissing { roles }) }
}

/// The newest migration in the database, 0 without any.
async fn version(conn: &mut PgConnection) -> Result<i64, SetupError> {
    let doing = "reading the migrations";
    let table: bool = sqlx::query_scalar("select to_regclass('tenantry._sqlx_migrations') is not null")
        .fetch_one(&mut *conn)
        .await
        .map_err(step(doing))?;
    if !table {
        return Ok(0);
    }
    sqlx::query_scalar("select coalesce(max(version), 0) from tenantry._sqlx_migrations")
        .fetch_one(conn)
        .await
        .map_err(step(doing))
}

/// Refuses policies other than those recorded last time, when any are: to record them now would bless a hole that
/// somebody made by hand, and no server would ever see it.
async fn refuse_changed(conn: &mut PgConnection) -> Result<(), SetupError> {
    let doing = "comparing policies";
    if !has_list(conn).await.map_err(step(doing))? {
        return Ok(());
    }
    let mut tx = conn.begin().await.map_err(step(doing))?;
    let present = present_policies(&mut tx).await.map_err(step(doing))?;
    let recorded: Vec<(String, String)> = sqlx::query_as("select role, digest from tenantry.expected_policy")
        .fetch_all(&mut *tx)
        .await
        .map_err(step(doing))?;
    tx.rollback().await.map_err(step(doing))?;
    if recorded.is_empty() {
        return Ok(());
    }
    let is = |policy: &Policy, (role, digest): &(String, String)| policy.role == *role && policy.digest == *digest;
    let strange = present.iter().filter(|policy| !recorded.iter().any(|known| is(policy, known)));
    let mut changed: Vec<String> = strange.map(|policy| policy.name.clone()).collect();
    changed.dedup();
    let gone = recorded.iter().filter(|known| !present.iter().any(|policy| is(policy, known))).count();
    if changed.is_empty() && gone == 0 { Ok(()) } else { Err(SetupError::PoliciesChanged { changed, gone }) }
}

/// Whether the first migration has made the list already.
async fn has_list(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass('tenantry.expected_policy') is not null").fetch_one(conn).await
}

async fn forget_policies(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    if has_list(conn).await? {
        sqlx::raw_sql("delete from tenantry.expected_policy").execute(conn).await?;
    }
    Ok(())
}

/// Leaves the transaction's `search_path` at `pg_catalog`.
async fn present_policies(tx: &mut PgConnection) -> Result<Vec<Policy>, sqlx::Error> {
    sqlx::raw_sql("set local search_path = pg_catalog").execute(&mut *tx).await?;
    sqlx::query_as(PRESENT).bind(SERVER_ROLES).fetch_all(tx).await
}

/// Replaces the list of expected policies at once.
async fn record_policies(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin().await?;
    let present = present_policies(&mut tx).await?;
    sqlx::raw_sql("delete from tenantry.expected_policy").execute(&mut *tx).await?;
    for policy in present {
        sqlx::query(RECORD).bind(policy.role).bind(policy.digest).execute(&mut *tx).await?;
    }
    sqlx::raw_sql("grant select on tenantry._sqlx_migrations to tenantry_app, tenantry_system")
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}
