//! Whether a configuration makes sense as a whole, found out before anything is opened. What a single flag looks like
//! is clap's to check.

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use super::{DatabaseUrl, Serve};

/// The smallest limit on messages with which the API can be used: the longest request in the contract fits.
const LEAST_MESSAGE_BYTES: usize = 16 << 10;

/// What is wrong with a configuration, and what to do about it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// One flag needs another.
    #[error("{given} is set without {missing}: {why}")]
    Alone {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
        /// Why it is needed.
        why: &'static str,
    },

    /// A file cannot be read.
    #[error("{flag}: cannot read {path}")]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// A database URL cannot be used. Its text is not shown, since it may hold a password.
    #[error("{flag} {problem}")]
    Database {
        /// The flag.
        flag: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// Mail cannot be sent this way. The text of the flag is not shown, since it may hold a password.
    #[error("--mail {0}")]
    Mail(&'static str),

    /// A number is too small.
    #[error("{flag} must be at least {least}")]
    TooSmall {
        /// The flag.
        flag: &'static str,
        /// The smallest number accepted.
        least: usize,
    },

    /// Both ports are the same.
    #[error("--listen and --http-listen are both {0}: gRPC and HTTP need a port each")]
    SamePort(std::net::SocketAddr),

    /// A text that must not be empty is.
    #[error("{0} must not be empty")]
    Empty(&'static str),

    /// The log filter cannot be read.
    #[error("--log: {0}; try info or info,tenantry=debug")]
    Log(#[from] tracing_subscriber::filter::ParseError),
}

impl Serve {
    /// Checks what clap cannot: flags that belong together, files that must be there, numbers that make no sense.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_tls()?;
        self.check_databases()?;
        self.check_mail()?;
        self.check_limits()?;
        if self.listen == self.http_listen && self.listen.port() != 0 {
            return Err(ConfigError::SamePort(self.listen));
        }
        for (flag, text) in [("--issuer", &self.issuer), ("--audience", &self.audience)] {
            if text.trim().is_empty() {
                return Err(ConfigError::Empty(flag));
            }
        }
        readable("--catalogue", self.catalogue.as_deref())?;
        EnvFilter::try_new(&self.log)?;
        Ok(())
    }

    /// Certificate and key go together, and client certificates need both.
    fn check_tls(&self) -> Result<(), ConfigError> {
        let alone = |given, missing, why| Err(ConfigError::Alone { given, missing, why });
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => return alone("--tls-cert", "--tls-key", "TLS needs the certificate's private key"),
            (None, Some(_), _) => return alone("--tls-key", "--tls-cert", "TLS needs the key's certificate"),
            (None, None, Some(_)) => {
                let why = "client certificates can only be asked for over TLS";
                return alone("--tls-client-ca", "--tls-cert and --tls-key", why);
            }
            _ => {}
        }
        readable("--tls-cert", self.tls_cert.as_deref())?;
        readable("--tls-key", self.tls_key.as_deref())?;
        readable("--tls-client-ca", self.tls_client_ca.as_deref())
    }

    /// Database URLs are such, and the others do not come without the first.
    fn check_databases(&self) -> Result<(), ConfigError> {
        let others =
            [("--system-database-url", &self.system_database_url), ("--meter-database-url", &self.meter_database_url)];
        let without = others.iter().find(|(_, url)| url.is_some() && self.database_url.is_none());
        if let Some(&(given, _)) = without {
            let why = "it is another way into the same database";
            return Err(ConfigError::Alone { given, missing: "--database-url", why });
        }
        for (flag, url) in [("--database-url", &self.database_url)].into_iter().chain(others) {
            if let Some(problem) = url.as_ref().and_then(DatabaseUrl::problem) {
                return Err(ConfigError::Database { flag, problem });
            }
        }
        Ok(())
    }

    /// Mail that really leaves needs links that lead somewhere.
    fn check_mail(&self) -> Result<(), ConfigError> {
        let server = self.mail.server().map_err(ConfigError::Mail)?;
        let alone = |given, missing, why| Err(ConfigError::Alone { given, missing, why });
        match server {
            Some(_) if self.public_url.is_none() => {
                return alone("--mail", "--public-url", "links in mail lead to the product's pages");
            }
            None if self.mail_ca.is_some() => {
                return alone("--mail-ca", "--mail", "it is for the certificate of a mail server");
            }
            _ => {}
        }
        readable("--mail-ca", self.mail_ca.as_deref())
    }

    /// A server limited to nothing would start and refuse everything.
    fn check_limits(&self) -> Result<(), ConfigError> {
        let limits = [
            ("--max-message-bytes", self.max_message_bytes, LEAST_MESSAGE_BYTES),
            ("--max-concurrent-requests", self.max_concurrent_requests, 1),
            ("--max-deadline", usize::from(!self.max_deadline.is_zero()), 1),
            ("--max-staleness", usize::from(!self.max_staleness.is_zero()), 1),
            ("--memory-entries", self.memory_entries, 100),
            ("--max-connection-age", usize::from(!self.max_connection_age.is_zero()), 1),
            ("--argon2-permits", self.argon2_permits, 1),
            ("--sign-in-window", usize::from(!self.sign_in_window.is_zero()), 1),
            ("--sign-in-attempts-total", self.sign_in_attempts_total.into(), self.sign_in_attempts.into()),
            ("--database-connections", usize::try_from(self.database_connections).unwrap_or(usize::MAX), 1),
        ];
        match limits.into_iter().find(|(_, value, least)| value < least) {
            Some((flag, _, least)) => Err(ConfigError::TooSmall { flag, least }),
            None => Ok(()),
        }
    }
}

/// Whether the file, when one is named, can be opened.
fn readable(flag: &'static str, path: Option<&Path>) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    File::open(path).map(drop).map_err(|source| ConfigError::File { flag, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(args: &[&str]) -> Result<(), String> {
        let words = ["tenantry"].iter().chain(args).copied();
        Serve::from_args(words).unwrap().check().map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(checked(&[]), Ok(()));
    }

    #[test]
    fn flags_that_need_each_other_are_told_apart() {
        for (args, wanted) in [
            (&["--tls-cert", "Cargo.toml"][..], "--tls-cert is set without --tls-key"),
            (&["--tls-key", "Cargo.toml"], "--tls-key is set without --tls-cert"),
            (&["--tls-client-ca", "Cargo.toml"], "--tls-client-ca is set without --tls-cert and --tls-key"),
            (&["--system-database-url", "postgres://db/t"], "--system-database-url is set without --database-url"),
            (&["--meter-database-url", "postgres://db/t"], "--meter-database-url is set without --database-url"),
        ] {
            let problem = checked(args).unwrap_err();
            assert!(problem.starts_with(wanted), "{problem}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_that_says_so() {
        for (args, wanted) in [
            (&["--catalogue", "/nowhere/plans.toml"][..], "--catalogue: cannot read /nowhere/plans.toml"),
            (&["--max-concurrent-requests", "0"], "--max-concurrent-requests must be at least 1"),
            (&["--max-message-bytes", "100"], "--max-message-bytes must be at least 16384"),
            (&["--max-deadline", "0"], "--max-deadline must be at least 1"),
            (&["--listen", "127.0.0.1:9464"], "--listen and --http-listen are both"),
            (&["--audience", " "], "--audience must not be empty"),
            (&["--mail", "mail.example.com"], "--mail must be file or a URL"),
            (&["--mail", "smtps://mail.example.com"], "--mail is set without --public-url"),
            (&["--mail-ca", "Cargo.toml"], "--mail-ca is set without --mail"),
            (&["--log", "tenantry=loud"], "--log:"),
        ] {
            let problem = checked(args).unwrap_err();
            assert!(problem.starts_with(wanted), "{problem}");
        }
    }

    #[test]
    fn a_bad_database_url_is_refused_without_being_shown() {
        for (flag, before) in
            [("--database-url", &[][..]), ("--meter-database-url", &["--database-url", "postgres://db/t"])]
        {
            let problem = checked(&[before, &[flag, "mysql://root:hunter2@db/t"]].concat()).unwrap_err();
            assert_eq!(problem, format!("{flag} must begin with postgres://"));
        }
    }

    #[test]
    fn the_configuration_can_be_logged() {
        let args = ["tenantry", "--database-url", "postgres://tenantry_app:hunter2@db/t"];
        let config = Serve::from_args(args).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.system_url().unwrap().reveal(), "postgres://tenantry_system:hunter2@db/t");
        assert_eq!(config.meter_url().unwrap().reveal(), "postgres://tenantry_meter:hunter2@db/t");
    }

    #[test]
    fn proxies_are_single_addresses_or_ranges() {
        let config =
            Serve::from_args(["tenantry", "--trusted-proxies", "10.0.0.0/8, 192.0.2.7,2001:db8::/32"]).unwrap();
        let networks: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
        assert!(Serve::from_args(["tenantry", "--trusted-proxies", "everybody"]).is_err());
    }

    #[test]
    fn api_hosts_are_names_in_their_plain_form() {
        let parsed = |text: &str| Serve::from_args(["tenantry", "--api-hosts", text]).map(|c| c.api_hosts);
        assert_eq!(parsed("tenantry, GRPC.Example.org").unwrap(), ["tenantry", "grpc.example.org"]);
        for text in ["https://example.com", "example.com:443", "a,,b", ""] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_base_domain_has_neither_scheme_nor_port() {
        let parsed = |text: &str| Serve::from_args(["tenantry", "--base-domain", text]).map(|c| c.base_domain);
        assert_eq!(parsed("App.Example.com").unwrap().as_deref(), Some("app.example.com"));
        for text in ["https://example.com", "example.com:443", ".example.com", ""] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
