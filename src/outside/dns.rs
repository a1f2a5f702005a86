//! The DNS, by way of the system's name servers or one that the operator named. Nothing is remembered here: a look shows
//! what the name server says now.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Answered, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver as Hickory, TokioResolver};

use super::{Answer, DnsError, Resolver};

/// How long a look may take, in all.
const IN_ALL: Duration = Duration::from_secs(3);

/// How long one name server is waited for; there is time for a second try.
const ONE_TRY: Duration = Duration::from_millis(1400);

/// How many records are looked at, and how long a text may be.
const MAX_RECORDS: usize = 256;
const MAX_TEXT: usize = 1024;

/// A resolver over UDP and TCP.
pub struct Dns {
    /// Or why there is none: a server whose tenants have no domains of their own runs without.
    hickory: Result<TokioResolver, String>,
}

impl Dns {
    /// Asks this name server, or those of `/etc/resolv.conf`.
    #[must_use]
    pub fn new(server: Option<SocketAddr>) -> Self {
        let builder = match server {
            Some(server) => Ok(Hickory::builder_with_config(only(server), TokioRuntimeProvider::default())),
            None => TokioResolver::builder_tokio(),
        };
        let hickory = builder.and_then(|mut builder| {
            fit(builder.options_mut());
            builder.build()
        });
        Self { hickory: hickory.map_err(|error| format!("no name server is known ({error}); --dns-server names one")) }
    }
}

/// One name server, and no search list.
fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}

/// Sees what is there now, or gives up soon.
fn fit(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.positive_max_ttl = Some(Duration::ZERO);
    options.negative_max_ttl = Some(Duration::ZERO);
    options.timeout = ONE_TRY;
    options.attempts = 1;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    // Answers that somebody forged must guess this as well.
    options.case_randomization = true;
}

impl Resolver for Dns {
    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.look(name))
    }

    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let hickory = self.hickory.as_ref().map_err(|problem| DnsError(problem.clone()))?;
            let found =
                tokio::time::timeout(IN_ALL, hickory.lookup_ip(format!("{}.", name.trim_end_matches('.')))).await;
            let found = found.map_err(|_| DnsError("the name server does not answer in time".to_owned()))?;
            let found = found.map_err(|_| DnsError("the name stands for no address".to_owned()))?;
            Ok(found.iter().take(MAX_RECORDS).collect())
        })
    }
}

impl Dns {
    async fn look(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let hickory = self.hickory.as_ref().map_err(|problem| DnsError(problem.clone()))?;
        // With the final dot, so that no search list is tried.
        let looked = tokio::time::timeout(IN_ALL, hickory.txt_lookup(format!("{name}."))).await;
        match looked.map_err(|_| DnsError("the name server does not answer in time".to_owned()))? {
            Ok(found) => {
                let texts = found.answers().iter().filter_map(|record| match &record.data {
                    RData::TXT(txt) => Some(txt.txt_data.concat()),
                    _ => None,
                });
                let bounded = texts.take(MAX_RECORDS).filter(|text| text.len() <= MAX_TEXT);
                Ok(bounded.map(|text| String::from_utf8_lossy(&text).into_owned()).collect())
            }
            Err(NetError::Dns(Answered::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                Ok(Vec::new())
            }
            Err(NetError::Dns(Answered::ResponseCode(code))) => {
                Err(DnsError(format!("the name server answers with an error ({code})")))
            }
            Err(NetError::Timeout) => Err(DnsError("the name server does not answer in time".to_owned())),
            Err(error) => {
                tracing::debug!(%error, name, "a look into the DNS failed");
                Err(DnsError("the name server cannot be asked".to_owned()))
            }
        }
    }
}
