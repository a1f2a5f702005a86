//! What the server asks of others: the DNS, by a trait, because a test or another deployment may answer otherwise; and
//! identity providers.

pub mod dns;
pub mod http;
pub mod oidc;

use std::pin::Pin;

/// What a question will be answered with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// Answers questions to the DNS.
pub trait Resolver: Send + Sync {
    /// The texts of the TXT records at a name, as they are now. Bounded in number, length and time.
    ///
    /// # Errors
    /// That no answer came; that there are no records is an answer, an empty one.
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>>;
}

/// No answer came, for this reason: nothing is known about the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DnsError(pub String);
