//! How a command fails, and how that is told to people. What servers refuse with is in errors.proto.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::table::plain;
use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// A flag or environment variable cannot be read.
    #[error(transparent)]
    Usage(#[from] clap::Error),

    /// The configuration makes no sense as a whole.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// Log, traces or metrics cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),

    /// There is no operator key.
    #[error(
        "cannot read the operator key {path}\n  \
         A server writes it there when it first starts. Run this command where that file is, name another with\n  \
         --key-file, or set TENANTRY_OPERATOR_KEY."
    )]
    KeyMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// The operator key, wherever it came from, cannot be one.
    #[error("the operator key in {0} is empty or has characters that no key has")]
    KeyMalformed(String),

    /// A file for TLS cannot be read.
    #[error("{flag}: cannot read {path}")]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// The server's address makes no sense.
    #[error("--server {0}: an address such as http://127.0.0.1:50051 or https://tenants.example.com is wanted")]
    Server(String),

    /// There is no server, or not one that we can talk with.
    #[error(
        "cannot reach {server}\n  \
         Is it running? `tenantry` starts one on this machine; --server or TENANTRY_SERVER names another."
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// What went wrong.
        source: tonic::transport::Error,
    },

    /// The server answered, and said no.
    #[error("{}", refusal(.0))]
    Refused(#[from] Box<Status>),

    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),

    /// Nobody is there to confirm what destroys.
    #[error("this asks for a confirmation on a terminal, and there is none; in scripts say --yes")]
    Unconfirmed,

    /// Something else than what confirms was typed.
    #[error("nothing was done: that is not the {kind}, which is {word}")]
    NotConfirmed {
        /// What was wanted: the slug, the address.
        kind: &'static str,
        /// The word itself.
        word: String,
    },

    /// The result cannot be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),

    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CliError {
    /// What the shell is told: 2 when the command line is at fault, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Server(_) | Self::Argument(_) | Self::Unconfirmed => {
                ExitCode::from(2)
            }
            _ => ExitCode::from(1),
        }
    }

    /// The text for people: what happened, then the causes, one a line.
    #[must_use]
    pub fn report(&self) -> String {
        if let Self::Usage(error) = self {
            return error.to_string();
        }
        let mut text = format!("error: {self}\n");
        let mut cause = if matches!(self, Self::Refused(_)) { None } else { self.source() };
        let mut told = String::new();
        while let Some(error) = cause {
            let line = error.to_string();
            if line != told {
                let _ = writeln!(text, "  because: {line}");
            }
            told = line;
            cause = error.source();
        }
        text
    }
}

/// A refusal for people: the message, then on lines of their own the reason, the fields and when to try again.
fn refusal(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        message => plain(message).into_owned(),
    };
    if let Some(info) = details.error_info() {
        let _ = write!(text, "\n  reason: {}", plain(&info.reason));
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (name, value) in metadata {
            let _ = write!(text, "\n  {}: {}", plain(name), plain(value));
        }
    }
    for field in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        let _ = write!(text, "\n  field {}: {}", plain(&field.field), plain(&field.description));
    }
    for quota in details.quota_failure().iter().flat_map(|failure| &failure.violations) {
        let _ = write!(text, "\n  quota {}: {}", plain(&quota.subject), plain(&quota.description));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        let _ = write!(text, "\n  try again in {} s", delay.as_millis().div_ceil(1000));
    }
    text
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a server's answers, made by hand")]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_says_what_why_where_and_when() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("FIELDS_INVALID", "tenantry", HashMap::from([("request_id".to_owned(), "42".to_owned())]))
            .add_bad_request_violation("slug", "must have 3 to 63 characters")
            .set_retry_info(Some(Duration::from_millis(1200)));
        let status = Status::with_error_details(Code::InvalidArgument, "some fields are wrong\x1b[2J", details);
        assert_eq!(
            CliError::from(status).report(),
            "error: some fields are wrong\u{fffd}[2J\n  reason: FIELDS_INVALID\n  request_id: 42\n  \
             field slug: must have 3 to 63 characters\n  try again in 2 s\n"
        );
    }

    #[test]
    fn a_refusal_without_details_still_says_something() {
        assert_eq!(
            CliError::from(Status::with_error_details(Code::Aborted, "", ErrorDetails::new())).report(),
            "error: The operation was aborted\n"
        );
    }
}
