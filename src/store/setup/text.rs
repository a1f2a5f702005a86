//! The statements of a bootstrap: the same text is sent by us and pasted into psql by a DBA. Not migrations.
//!
//! Every block may be repeated. Blocks after the first run as `tenantry_owner`, so that a DBA without superuser, who is
//! made a member of that role, owns nothing and needs nothing more.

use std::fmt::Write as _;

use super::{Bootstrap, LOGIN_ROLES, SERVER_ROLES, SetupError};

/// Attributes of a role that must never see more than its policies show.
const POWERLESS: &str = "noinherit nosuperuser nobypassrls nocreaterole nocreatedb noreplication";

/// Stands in the printed SQL where a password belongs.
const PLACEHOLDER: &str = "<password>";

/// Refuses names that we would have to escape in psql's `\c`, in URLs or in `alter role`.
pub(super) fn check_database_name(name: &str) -> Result<(), SetupError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && (1..=63).contains(&name.len()) {
        return Ok(());
    }
    Err(SetupError::DatabaseName(name.to_owned()))
}

/// What [`super::bootstrap`] does before migrating, as text for psql. Contains the password when there is one, and
/// otherwise a placeholder.
///
/// # Errors
/// [`SetupError::DatabaseName`].
pub fn bootstrap_sql(wish: &Bootstrap) -> Result<String, SetupError> {
    check_database_name(&wish.database)?;
    let database = &wish.database;
    let password = wish.password.as_deref().unwrap_or(PLACEHOLDER);
    Ok(format!(
        "-- Roles, database and schema of tenantry, for PostgreSQL 15 and later. Run in psql as a superuser, or as a role\n\
         -- with createrole and createdb. May be repeated; existing roles and passwords stay as they are.\n\
         \\set ON_ERROR_STOP on\n\
         select pg_advisory_lock(7261, 2);\n\n\
         {roles}\n\
         select $sql${create}$sql$\n\
         where not exists (select from pg_database where datname = '{database}')\n\
         \\gexec\n\n\
         \\c \"{database}\"\n\n\
         {grants}\n\
         -- Then, from anywhere:\n\
         --   tenantry migrate --url postgres://tenantry_migrate:...@HOST:PORT/{database}\n",
        roles = roles_sql(Some(password)),
        create = create_database_sql(database),
        grants = database_sql(database),
    ))
}

/// Creates the roles that are missing.
pub(super) fn roles_sql(password: Option<&str>) -> String {
    let mut sql = create_role("tenantry_owner", &format!("nologin {POWERLESS}"));
    let secret = password.map_or_else(String::new, |password| format!(" password {}", literal(password)));
    sql += &create_role("tenantry_migrate", &format!("login noinherit in role tenantry_owner{secret}"));
    for role in SERVER_ROLES {
        sql += &create_role(role, &format!("login {POWERLESS}{secret}"));
    }
    // A DBA without superuser must be a member of the role that is to own the database.
    sql += "do $do$ begin\n  \
              if not (select rolsuper from pg_roles where rolname = current_user) then\n    \
                execute format('grant tenantry_owner to %I', current_user);\n  \
              end if;\n\
            end $do$;\n";
    sql
}

fn create_role(name: &str, attributes: &str) -> String {
    // A tag that is in no literal: a password may hold dollars, and then it would end the block.
    let mut tag = String::from("do");
    while attributes.contains(&format!("${tag}$")) {
        tag.push('_');
    }
    format!(
        "do ${tag}$ begin\n  \
           if not exists (select from pg_roles where rolname = '{name}') then\n    \
             create role {name} {attributes};\n  \
           end if;\n\
         end ${tag}$;\n"
    )
}

/// From template0, so that nothing that somebody put into template1 comes along.
pub(super) fn create_database_sql(database: &str) -> String {
    format!("create database \"{database}\" owner tenantry_owner template template0 encoding 'UTF8'")
}

/// Grants and settings, run in the new database. Nothing of it is copied with a template, so it is always run.
pub(super) fn database_sql(database: &str) -> String {
    let mut sql = format!(
        "set role tenantry_owner;\n\
         revoke all on database \"{database}\" from public;\n\
         grant connect on database \"{database}\" to {login};\n\
         do $do$ begin\n  \
           if not exists (select from pg_namespace where nspname = 'tenantry') then\n    \
             create schema tenantry authorization tenantry_owner;\n  \
           end if;\n\
         end $do$;\n\
         grant usage on schema tenantry to {server};\n\
         reset role;\n\
         -- tenantry_owner inherits nothing, not even what an owner of the database may do in public.\n\
         do $do$ begin\n  \
           if not (select rolsuper from pg_roles where rolname = session_user) then\n    \
             set role pg_database_owner;\n  \
           end if;\n  \
           if exists (select from pg_namespace where nspname = 'public') then\n    \
             revoke all on schema public from public;\n  \
           end if;\n\
         end $do$;\n\
         reset role;\n",
        login = LOGIN_ROLES.join(", "),
        server = SERVER_ROLES.join(", "),
    );
    for role in LOGIN_ROLES {
        let _ = writeln!(sql, "alter role {role} in database \"{database}\" set search_path = tenantry;");
    }
    sql
}

/// A string literal, right under both settings of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_end_its_literal_or_its_block() {
        let sql = roles_sql(Some(r"a'b\c$do$; drop"));
        assert!(sql.contains(r"password E'a''b\\c$do$; drop';"), "{sql}");
        assert!(sql.contains("do $do_$ begin"), "{sql}");
    }

    #[test]
    fn a_database_name_with_a_quote_is_refused() {
        for name in ["", "a\"b", "a b", "a'", &"x".repeat(64)] {
            assert!(check_database_name(name).is_err(), "{name:?}");
        }
        assert!(check_database_name("tenantry-prod_2").is_ok());
    }

    #[test]
    fn the_printed_sql_has_a_placeholder_for_the_password() {
        let sql = bootstrap_sql(&Bootstrap { database: "tenantry".to_owned(), password: None }).unwrap();
        assert!(sql.contains("password E'<password>'") && sql.contains("\n\\c \"tenantry\"\n"), "{sql}");
    }
}
