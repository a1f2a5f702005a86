//! The URL of a database, which holds a password and so is never shown whole. Not the connection: that is the store's.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use url::Url;

/// The URL of a PostgreSQL database. Reading it never fails, because the command line would print the text that it
/// could not read, password and all; `problem` says later what is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, password included: for the connection alone, never for a log.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is wrong with it, without its text; none when it can be used.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match Url::parse(&self.0) {
            Err(_) => Some("cannot be read as a URL; special characters in a password must be percent-encoded"),
            Ok(url) if !matches!(url.scheme(), "postgres" | "postgresql") => Some("must begin with postgres://"),
            Ok(_) => None,
        }
    }

    /// The same database with another user and the same password; none when this is no URL.
    pub(super) fn with_user(&self, user: &str) -> Option<Self> {
        let mut url = Url::parse(&self.0).ok()?;
        let others: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "user").collect();
        let named_in_query = others.len() < url.query_pairs().count();
        if named_in_query || url.set_username(user).is_err() {
            // The form with a socket directory, `postgres:///db?host=/run/postgresql&user=..`, has no place for a user.
            url.query_pairs_mut().clear().extend_pairs(others).append_pair("user", user);
        }
        Some(Self(url.into()))
    }
}

impl FromStr for DatabaseUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Display for DatabaseUrl {
    /// Host, port and database: enough to see which one it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(url) = Url::parse(&self.0) else { return f.write_str("(not a URL)") };
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn neither_display_nor_debug_shows_the_password() {
        for text in [
            "postgres://tenantry_app:hunter2@db.internal:5433/tenantry?password=hunter2",
            "postgres:///tenantry?user=tenantry_app&password=hunter2",
            "postgres://tenantry_app:hunter2@[broken",
            "hunter2",
        ] {
            let shown = format!("{} {:?}", url(text), url(text));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(url("postgres://u:p@db:5433/rows").to_string(), "postgres://db:5433/rows");
    }

    #[test]
    fn the_user_is_replaced_and_everything_else_kept() {
        let system = |text: &str| url(text).with_user("tenantry_system").unwrap().reveal().to_owned();
        assert_eq!(
            system("postgres://tenantry_app:p%40ss@db/rows?sslmode=require"),
            "postgres://tenantry_system:p%40ss@db/rows?sslmode=require"
        );
        assert_eq!(system("postgres://db/rows"), "postgres://tenantry_system@db/rows");
        assert_eq!(
            system("postgres:///rows?host=%2Frun%2Fpostgresql&user=tenantry_app"),
            "postgres:///rows?host=%2Frun%2Fpostgresql&user=tenantry_system"
        );
    }

    #[test]
    fn other_databases_are_refused() {
        assert_eq!(url("postgresql://db/rows").problem(), None);
        assert!(url("mysql://db/rows").problem().is_some());
        assert!(url("").problem().is_some());
    }
}
