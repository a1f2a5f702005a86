//! Migrations of PostgreSQL, and the list of policies that they leave.

#![expect(clippy::disallowed_methods, reason = "statements of store/")]

use sqlx::migrate::{Migrate, Migrator};
use sqlx::{Connection, PgConnection};

use super::{Report, SetupError, step};

/// `migrations/postgres`, compiled in.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Every policy and the digest by which the start-up check knows it. The text depends on `search_path`, so this one and
/// the check's both run under `pg_catalog` alone.
const POLICIES: &str = "
    select format('%I on %s', p.polname, p.polrelid::regclass) as name,
           md5(concat_ws('|', c.relname, p.polname, p.polcmd, p.polpermissive,
                         pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))) as digest
    from pg_policy p
    join pg_class c on c.oid = p.polrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'tenantry'
      and not exists (select 1 from tenantry.expected_policy e
                      where e.digest = md5(concat_ws('|', c.relname, p.polname, p.polcmd, p.polpermissive,
                                                     pg_get_expr(p.polqual, p.polrelid),
                                                     pg_get_expr(p.polwithcheck, p.polrelid))))
    order by 1";

/// Records what reaches each of the two roles of the server.
const RECORD: &str = "
    insert into tenantry.expected_policy (role, digest)
    select me.rolname,
           md5(concat_ws('|', c.relname, p.polname, p.polcmd, p.polpermissive,
                         pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)))
    from pg_roles me
    cross join pg_policy p
    join pg_class c on c.oid = p.polrelid
    join pg_namespace n on n.oid = c.relnamespace
    where me.rolname in ('tenantry_app', 'tenantry_system')
      and n.nspname = 'tenantry'
      and exists (select 1 from unnest(p.polroles) r(oid) where r.oid = 0 or pg_has_role(me.oid, r.oid, 'member'))";

/// The newest migration that this binary knows.
#[must_use]
pub fn known_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Applies what is missing and records the policies, all under the lock that sqlx's migrator takes. The connection
/// stays `tenantry_owner` afterwards; close it.
pub(super) async fn apply(conn: &mut PgConnection) -> Result<Report, SetupError> {
    become_owner(conn).await?;
    conn.lock().await?;
    let known = known_version();
    let from = version(conn).await?;
    if from > known {
        return Err(SetupError::Newer { at: from, known });
    }
    MIGRATIONS.run_direct(None, &mut *conn, false).await?;
    let fresh = MIGRATIONS.iter().filter(|migration| migration.version > from);
    let migrations_applied: Vec<_> = fresh.map(|m| format!("{:04} {}", m.version, m.description)).collect();
    let changed = record_policies(conn).await.map_err(step("recording policies"))?;
    conn.unlock().await?;
    let policies_changed = if migrations_applied.is_empty() { changed } else { Vec::new() };
    Ok(Report { migrations_applied, from, to: known, policies_changed, ..Report::default() })
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

/// Replaces the list of expected policies at once; returns the names of those that were not in the old one.
async fn record_policies(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql("set local search_path = pg_catalog").execute(&mut *tx).await?;
    let changed: Vec<(String, String)> = sqlx::query_as(POLICIES).fetch_all(&mut *tx).await?;
    sqlx::raw_sql("delete from tenantry.expected_policy").execute(&mut *tx).await?;
    sqlx::query(RECORD).execute(&mut *tx).await?;
    sqlx::raw_sql("grant select on tenantry._sqlx_migrations to tenantry_app, tenantry_system")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(changed.into_iter().map(|(name, _)| name).collect())
}
