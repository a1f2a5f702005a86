//! HTTP calls to addresses that somebody else has chosen: the identity provider of a tenant. What they could be turned
//! against is guarded here: no private network is reached, no redirect is followed, nobody is waited for or listened to
//! without bound.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::networks::{is_public, written_out};

/// How long a call may take, in all.
const IN_ALL: Duration = Duration::from_secs(5);

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(3);

/// The largest answer that is listened to, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Which addresses may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public ones, over https.
    Public,
    /// Private ones as well, and those of this machine over plain http too: for development, and for networks in which
    /// providers are inside.
    Private,
}

impl Reach {
    /// Whether a URL may be called, as far as it tells by itself: what its name leads to is looked at when it is called.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub fn check(self, url: &Url) -> Result<(), &'static str> {
        url.host().ok_or("must name a host")?;
        let literal = written_out(url);
        let local = literal.is_some_and(|ip| ip.is_loopback()) || url.host_str() == Some("localhost");
        match url.scheme() {
            "https" => {}
            "http" if local && self == Self::Private => {}
            _ => return Err("must be an https address"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must be without user and password");
        }
        if literal.is_some_and(|ip| !self.allows(ip)) {
            return Err("must be a public address");
        }
        Ok(())
    }

    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Private => !ip.is_multicast() && !ip.is_unspecified(),
            Self::Public => is_public(ip),
        }
    }
}

/// Looks names up, and leaves out what may not be connected to. The connection is made to what was looked at here, so a
/// name that leads elsewhere a moment later gains nothing.
struct Guarded(Reach);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name leads to no address that may be called".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// A call that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address may not be called.
    #[error("the address {0}")]
    Address(&'static str),
    /// No answer came.
    #[error("no answer came: {0}")]
    Unanswered(String),
    /// The answer is larger than anybody needs.
    #[error("the answer is too large")]
    TooLarge,
}

/// Makes calls.
pub struct Http {
    client: reqwest::Client,
    reach: Reach,
}

impl Http {
    /// Makes calls to what may be reached.
    ///
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(reach: Reach) -> Result<Self, HttpError> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment would look names up by itself.
            .no_proxy()
            .dns_resolver(std::sync::Arc::new(Guarded(reach)))
            .connect_timeout(CONNECT)
            .timeout(IN_ALL)
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { client: client.map_err(|error| unanswered(&error))?, reach })
    }

    /// What may be reached.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// Makes a call.
    ///
    /// # Errors
    /// That nothing came of it; an answer that says no is an answer.
    pub async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(|error| unanswered(&error))?;
        self.reach.check(request.url()).map_err(HttpError::Address)?;
        let mut response = self.client.execute(request).await.map_err(|error| unanswered(&error))?;
        let mut answer = http::Response::builder().status(response.status());
        if let Some(kind) = response.headers().get(http::header::CONTENT_TYPE) {
            answer = answer.header(http::header::CONTENT_TYPE, kind);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        answer.body(body).map_err(|_| HttpError::Unanswered("it is no HTTP".to_owned()))
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// What kept an answer from coming, without the URL, which may hold a secret.
fn unanswered(error: &reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        "it takes too long"
    } else if error.is_connect() {
        "there is no connection to it"
    } else {
        "the call failed"
    };
    HttpError::Unanswered(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, url: &str) -> Result<(), &'static str> {
        reach.check(&Url::parse(url).unwrap())
    }

    #[test]
    fn only_public_addresses_over_https_are_called() {
        for good in ["https://idp.example.com", "https://8.8.8.8:8443/x", "https://[2606:4700::1111]/"] {
            assert_eq!(check(Reach::Public, good), Ok(()), "{good}");
        }
        for bad in [
            "http://idp.example.com",
            "ftp://idp.example.com",
            "https://user@idp.example.com",
            "https://10.0.0.1",
            "https://127.0.0.1",
            "https://169.254.169.254/latest",
            "https://192.168.1.1",
            "https://172.31.0.1",
            "https://100.64.0.1",
            "https://0.0.0.0",
            "https://255.255.255.255",
            "https://[::1]",
            "https://[::ffff:10.0.0.1]",
            "https://[fd00::1]",
            "https://[fe80::1]",
            "https://[64:ff9b::a00:1]",
            "https://[2002:a00:1::]",
            "https://0x7f.1/",
            "https://2130706433/",
        ] {
            assert!(check(Reach::Public, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_called_when_that_is_wanted_and_without_tls_on_this_machine_only() {
        for good in ["http://127.0.0.1:4000", "http://localhost:4000", "https://10.0.0.1", "https://idp.internal"] {
            assert_eq!(check(Reach::Private, good), Ok(()), "{good}");
        }
        for bad in ["http://10.0.0.1", "http://idp.internal", "https://0.0.0.0", "https://224.0.0.1"] {
            assert!(check(Reach::Private, bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_called() {
        let http = Http::new(Reach::Public).unwrap();
        let request = http::Request::get("https://localhost:1/").body(Vec::new()).unwrap();
        assert!(matches!(http.send(request).await, Err(HttpError::Unanswered(_))));
        let looked = Guarded(Reach::Public).resolve("localhost".parse().unwrap()).await;
        assert!(looked.is_err(), "the name is looked up and nothing of it is left");
    }
}
