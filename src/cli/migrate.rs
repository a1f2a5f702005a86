//! `tenantry migrate`: sets up and migrates PostgreSQL. SQLite needs no command; the server migrates it when it starts.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::store::setup::{self, Bootstrap, Report, SetupError};

/// Prepare PostgreSQL for tenantry, or bring it up to date.
///
/// The first time, with an administrator's address: creates the roles, the database and the
/// tables, and prints the three addresses that the server needs:
///
///   tenantry migrate --admin-url postgres://postgres:secret@localhost/postgres
///
/// After an upgrade, as the role that may migrate and nothing else (it says so when the new version
/// needs an administrator once more):
///
///   tenantry migrate --url postgres://tenantry_migrate:secret@localhost/tenantry
///
/// May be repeated, and run from several places at once. Servers of the version before go on
/// working meanwhile.
#[derive(clap::Args)]
#[expect(clippy::doc_markdown, rustdoc::bare_urls, reason = "the comments are --help, read at a terminal")]
#[command(verbatim_doc_comment)]
pub(super) struct Migrate {
    /// Address of an administrator (superuser, or createrole and createdb). Creates roles, database and tables.
    #[arg(long, env = "TENANTRY_ADMIN_URL", hide_env_values = true, value_name = "URL")]
    admin_url: Option<String>,

    /// Address of the role tenantry_migrate, database included. Applies migrations only.
    #[arg(long, env = "TENANTRY_MIGRATE_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,

    /// Name of the database to create, with --admin-url or --print.
    #[arg(long, default_value = "tenantry", value_name = "NAME")]
    database: String,

    /// Password for the roles tenantry_migrate, tenantry_app, tenantry_system and tenantry_meter when they are created;
    /// roles that exist keep theirs. Without it one is generated and printed once.
    #[arg(long, env = "TENANTRY_ROLE_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    role_password: Option<String>,

    /// Print the SQL for an administrator to paste into psql, and do nothing. Afterwards run this command with --url.
    #[arg(long)]
    print: bool,
}

/// Why `tenantry migrate` failed; its text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateError {
    /// Nothing says which database.
    #[error(
        "which database? --admin-url creates one, --url migrates one that exists, --print shows what an administrator has to run"
    )]
    NoAddress,
    /// Both ways at once.
    #[error(
        "--admin-url and --url are two ways to do it: give one (look at TENANTRY_ADMIN_URL and TENANTRY_MIGRATE_URL too)"
    )]
    TwoAddresses,
    /// The machine gave no random bytes.
    #[error("the operating system gave no random bytes for a password")]
    NoEntropy,
    /// The database refused.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Standard output is closed.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl Migrate {
    /// Does it, and prints what was done and what to run next.
    ///
    /// # Errors
    /// [`MigrateError`]; a repetition goes on where this one stopped.
    pub(super) async fn run(self) -> Result<(), MigrateError> {
        if self.print {
            let wish = Bootstrap { database: self.database, password: self.role_password };
            return Ok(say(&setup::bootstrap_sql(&wish)?)?);
        }
        match (self.admin_url, self.url) {
            (Some(admin_url), None) => bootstrap(&admin_url, self.database, self.role_password).await,
            (None, Some(url)) => Ok(say(&summary(&setup::migrate(&url).await?))?),
            (None, None) => Err(MigrateError::NoAddress),
            (Some(_), Some(_)) => Err(MigrateError::TwoAddresses),
        }
    }
}

async fn bootstrap(admin_url: &str, database: String, password: Option<String>) -> Result<(), MigrateError> {
    let password = password.map_or_else(generate_password, Ok)?;
    let wish = Bootstrap { database, password: Some(password) };
    let report = setup::bootstrap(admin_url, &wish).await?;
    Ok(say(&format!("{}{}", summary(&report), next(admin_url, &wish, &report)?))?)
}

/// What was done, a line each.
fn summary(report: &Report) -> String {
    let mut lines = String::new();
    if !report.roles_created.is_empty() {
        let _ = writeln!(lines, "roles created: {}", report.roles_created.join(", "));
    }
    if report.database_created {
        lines += "database created\n";
    }
    for migration in &report.migrations_applied {
        let _ = writeln!(lines, "migration {migration}");
    }
    if report.migrations_applied.is_empty() {
        lines + &format!("up to date at migration {}\n", report.to)
    } else {
        lines + &format!("now at migration {} (was {})\n", report.to, report.from)
    }
}

/// What to run next. A password shows only for roles that were created with it now: we do not know the others'.
fn next(admin_url: &str, wish: &Bootstrap, report: &Report) -> Result<String, SetupError> {
    let created = |role: &str| report.roles_created.iter().any(|name| name == role);
    let address = |role: &str| {
        let password = wish.password.as_deref().filter(|_| created(role)).unwrap_or("...");
        setup::url_for(admin_url, &wish.database, role, password)
    };
    let note = match setup::LOGIN_ROLES.iter().filter(|role| created(role)).count() {
        0 => "put the roles' password in the place of the dots",
        n if n == setup::LOGIN_ROLES.len() => "keep them, passwords are not shown again",
        _ => "put the older roles' password in the place of the dots, and keep the new one, which is not shown again",
    };
    Ok(format!(
        "\nThe server needs these three; {note}:\n\n  \
           export TENANTRY_DATABASE_URL={app}\n  \
           export TENANTRY_SYSTEM_DATABASE_URL={system}\n  \
           export TENANTRY_METER_DATABASE_URL={meter}\n  \
           tenantry serve\n\n\
         After an upgrade:\n\n  \
           tenantry migrate --url {migrate}\n",
        app = quoted(&address("tenantry_app")?),
        system = quoted(&address("tenantry_system")?),
        meter = quoted(&address("tenantry_meter")?),
        migrate = quoted(&address("tenantry_migrate")?),
    ))
}

/// Pastes into a shell as it is; addresses with several parameters hold an ampersand.
fn quoted(address: &str) -> String {
    if address.contains(['&', '?']) { format!("'{address}'") } else { address.to_owned() }
}

/// 192 random bits, in characters that need no escaping anywhere.
fn generate_password() -> Result<String, MigrateError> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| MigrateError::NoEntropy)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn say(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_shows_for_roles_that_are_new_and_dots_for_the_others() {
        let wish = Bootstrap { database: "rows".to_owned(), password: Some("new".to_owned()) };
        let told = |created: &[&str]| {
            let roles_created = created.iter().map(|&role| role.to_owned()).collect();
            let report = Report { roles_created, ..Report::default() };
            next("postgres://postgres:secret@db/postgres", &wish, &report).unwrap()
        };
        for (created, app, meter, note) in [
            (&setup::LOGIN_ROLES[..], "new", "new", "keep them, "),
            (
                &["tenantry_meter"],
                "...",
                "new",
                "put the older roles' password in the place of the dots, and keep the new one",
            ),
            (&[], "...", "...", "put the roles' password "),
        ] {
            let text = told(created);
            assert!(
                text.contains(&format!("TENANTRY_DATABASE_URL=postgres://tenantry_app:{app}@db:5432/rows\n")),
                "{text}"
            );
            let third = format!("TENANTRY_METER_DATABASE_URL=postgres://tenantry_meter:{meter}@db:5432/rows\n");
            assert!(text.contains(&third) && text.contains(note), "{text}");
        }
    }
}
