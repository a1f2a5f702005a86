//! Does row level security work, whatever the catalogue says? Tries what must not be possible and undoes it.
#![expect(clippy::disallowed_methods, reason = "statements of store/")]

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Finding, GuardError, verdict};

/// A table of a tenant or of a person, and what the connected role may do with it.
#[derive(sqlx::FromRow)]
struct Table {
    /// Schema and name, quoted.
    name: String,
    /// `tenant_id`, or else `user_id`.
    owner: String,
    /// A column that may be read, quoted.
    readable: Option<String>,
    insertable: bool,
}

const TABLES: &str = "
    select format('%I.%I', n.nspname, c.relname) as name,
           min(a.attname::text) filter (where a.attname in ('tenant_id', 'user_id')) as owner,
           min(quote_ident(a.attname)) filter (where has_column_privilege(c.oid, a.attnum, 'select')) as readable,
           coalesce(bool_or(has_column_privilege(c.oid, a.attnum, 'insert'))
                    filter (where a.attname in ('tenant_id', 'user_id')), false) as insertable
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where n.nspname = 'tenantry' and c.relkind in ('r', 'p')
    group by n.nspname, c.relname
    having bool_or(a.attname in ('tenant_id', 'user_id'))
    order by 1";

/// As the application role: without a tenant and a person set, and with ones that nobody has, no row of a tenant or a
/// person may show, and none may be written for another. Rolls back and leaves the connection as it was.
///
/// # Errors
/// [`GuardError::Unsafe`] with every table that shows or takes rows, [`GuardError::Database`].
pub async fn probe(conn: &mut PgConnection) -> Result<(), GuardError> {
    let tables: Vec<Table> = sqlx::query_as(TABLES).fetch_all(&mut *conn).await?;
    let mut findings = Vec::new();
    let mut tx = conn.begin().await?;
    for (who, setting) in [("nobody", ""), ("a stranger", BIND_STRANGER)] {
        sqlx::raw_sql(setting).execute(&mut *tx).await?;
        for name in visible(&mut tx, &tables).await? {
            findings.push(finding("shows rows", format!("{name} shows rows to {who}"), &name));
        }
        for table in tables.iter().filter(|table| table.insertable) {
            if takes_foreign_row(&mut tx, table).await? {
                findings.push(finding(
                    "takes rows",
                    format!("{} takes rows of another from {who}", table.name),
                    &table.name,
                ));
            }
        }
    }
    tx.rollback().await?;
    verdict(findings)
}

/// Binds ids that nobody has. Literals, as everywhere: `set_config()` does not reach the workers of a sharded database.
const BIND_STRANGER: &str = r#"do $do$ begin
  execute format('set local tenantry.tenant = %L', gen_random_uuid());
  execute format('set local tenantry."user" = %L', gen_random_uuid());
end $do$"#;

fn finding(kind: &str, message: String, table: &str) -> Finding {
    let mend = format!("-- create the policies of {table} again as migrations/postgres writes them");
    Finding { kind: kind.to_owned(), message, mend }
}

/// Names of the tables that show at least one row now.
async fn visible(conn: &mut PgConnection, tables: &[Table]) -> Result<Vec<String>, sqlx::Error> {
    let looks: Vec<_> = tables
        .iter()
        .filter_map(|table| table.readable.as_ref().map(|column| (&table.name, column)))
        .map(|(name, column)| format!("select '{name}' where exists (select {column} from {name})"))
        .collect();
    if looks.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(AssertSqlSafe(looks.join("\nunion all\n"))).persistent(false).fetch_all(conn).await
}

/// Whether the policies let a row of somebody else in. They are asked before any other constraint, so a row with one
/// column will do: refused by a policy it is `insufficient_privilege`, and anything else means that it got past.
async fn takes_foreign_row(conn: &mut PgConnection, table: &Table) -> Result<bool, sqlx::Error> {
    let mut savepoint = conn.begin().await?;
    let insert = format!("insert into {} ({}) values (gen_random_uuid())", table.name, table.owner);
    let outcome = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut *savepoint).await;
    savepoint.rollback().await?;
    match outcome {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) => Ok(error.code().as_deref() != Some("42501")),
        Err(error) => Err(error),
    }
}
