//! HTTP calls to addresses that tenants name. Whose address it is is looked at where the connection is made, not before, so
//! that a name cannot stand for one address when it is checked and for another when it is called. Redirects are not
//! followed, answers not read beyond a bound, no proxy is used, and nothing of the answer but its status is told.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::Resolver;
use super::networks::{is_allowed, may_call, written_out};

/// How long a call may take, in all.
const IN_ALL: Duration = Duration::from_secs(15);

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// How much of an answer is read, so that the other side is not cut off at once; the rest is not waited for.
const READ: usize = 16 * 1024;

/// Makes the calls.
pub struct Courier {
    allowed: Vec<IpNet>,
    /// For https, to public and allowed addresses; and for http, to allowed ones alone. Or why there is none.
    https: Result<Client, String>,
    http: Result<Client, String>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// An answer with this status.
    Status(u16),
    /// None, for this reason.
    Nobody(String),
}

/// Names to addresses that may be called.
struct Checked {
    resolver: Arc<dyn Resolver>,
    allowed: Vec<IpNet>,
    /// Whether the operator's networks alone will do.
    only_allowed: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, allowed, only_allowed) = (self.resolver.clone(), self.allowed.clone(), self.only_allowed);
        Box::pin(async move {
            let found = resolver.addresses(name.as_str()).await?;
            let may = |address: &IpAddr| {
                if only_allowed { is_allowed(*address, &allowed) } else { may_call(*address, &allowed) }
            };
            let good: Vec<SocketAddr> = found.into_iter().filter(may).map(|ip| SocketAddr::new(ip, 0)).collect();
            if good.is_empty() {
                return Err(REFUSED.into());
            }
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

const REFUSED: &str = "the address is none that may be called";

impl Courier {
    /// Calls public addresses, and those of the networks that the operator allows.
    #[must_use]
    pub fn new(resolver: &Arc<dyn Resolver>, allowed: Vec<IpNet>) -> Self {
        let client = |only_allowed: bool| {
            let checked = Checked { resolver: resolver.clone(), allowed: allowed.clone(), only_allowed };
            Client::builder()
                .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .https_only(!only_allowed)
                .timeout(IN_ALL)
                .connect_timeout(CONNECTING)
                .pool_max_idle_per_host(0)
                .dns_resolver(Arc::new(checked))
                .build()
                .map_err(|e| format!("calls cannot be made: {e}"))
        };
        Self { https: client(false), http: client(true), allowed }
    }

    /// Whether http is allowed, to the operator's networks.
    #[must_use]
    pub fn takes_http(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Posts JSON with these headers.
    pub async fn post(&self, url: &str, headers: &[(&'static str, String)], body: String) -> Answered {
        match self.call(url, headers, body).await {
            Ok(status) => Answered::Status(status),
            Err(problem) => Answered::Nobody(problem),
        }
    }

    async fn call(&self, url: &str, headers: &[(&'static str, String)], body: String) -> Result<u16, String> {
        let url = Url::parse(url).map_err(|_| "the address cannot be read".to_owned())?;
        let https = url.scheme() == "https";
        let client = if https { &self.https } else { &self.http }.as_ref().map_err(Clone::clone)?;
        // An address that is written out is never looked up, so it is looked at here.
        let literal = written_out(&url);
        let may = |ip| if https { may_call(ip, &self.allowed) } else { is_allowed(ip, &self.allowed) };
        if literal.is_some_and(|ip| !may(ip)) {
            return Err(REFUSED.to_owned());
        }
        let mut request = client.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut answer = request.send().await.map_err(|e| told(&e))?;
        let status = answer.status().as_u16();
        let mut read = 0;
        while let Ok(Some(chunk)) = answer.chunk().await {
            read += chunk.len();
            if read > READ {
                break;
            }
        }
        Ok(status)
    }
}

/// What went wrong, without the address, which may hold what only its owner knows.
fn told(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = if error.is_connect() { "no connection" } else { "no answer" }.to_owned();
    let mut behind = std::error::Error::source(error);
    let mut last = None;
    while let Some(error) = behind {
        last = Some(error.to_string());
        behind = error.source();
    }
    if let Some(last) = last {
        let _ = write!(text, ": {}", last.chars().take(200).collect::<String>());
    }
    text
}
