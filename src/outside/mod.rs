//! What the server asks of others: the DNS, to have mail sent, to take events, and identity providers. Traits, where a test
//! or another deployment may answer otherwise.

pub mod courier;
pub mod dns;
pub mod http;
pub mod mail_files;
pub mod networks;
pub mod oidc;
pub mod smtp;

use std::net::IpAddr;
use std::pin::Pin;

use crate::domain::name::Email;
use crate::time::Timestamp;

/// What a question will be answered with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// Answers questions to the DNS.
pub trait Resolver: Send + Sync {
    /// The texts of the TXT records at a name, as they are now. Bounded in number, length and time.
    ///
    /// # Errors
    /// That no answer came; that there are no records is an answer, an empty one.
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>>;

    /// The addresses that a name stands for now. Bounded in number and time.
    ///
    /// # Errors
    /// That no answer came, or that there are none.
    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<IpAddr>>;
}

/// No answer came, for this reason: nothing is known about the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DnsError(pub String);

/// A letter as it leaves.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The left side of its `Message-ID`, the same at each try: whoever gets it twice can tell.
    pub id: String,
    /// To whom.
    pub to: Email,
    /// One line.
    pub subject: String,
    /// As text.
    pub text: String,
    /// As HTML.
    pub html: String,
    /// When it was written.
    pub at: Timestamp,
}

/// What comes of a letter.
pub type Posted<'a> = Pin<Box<dyn Future<Output = Result<(), MailError>> + Send + 'a>>;

/// Sends letters.
pub trait Mailer: Send + Sync {
    /// Hands a letter on. Bounded in time.
    ///
    /// # Errors
    /// That nobody took it.
    fn send<'a>(&'a self, letter: &'a Letter) -> Posted<'a>;
}

/// Nobody took a letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct MailError {
    /// Whether the other side says that it never will.
    pub permanent: bool,
    /// What went wrong.
    pub problem: String,
}
