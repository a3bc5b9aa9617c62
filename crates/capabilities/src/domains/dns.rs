//! Looking names up, past every cache of this program.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use kernel::{Code, Error, Result};

/// How long one server has for one answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// How many records of one kind are looked at.
const MOST: usize = 50;

/// A resolver.
pub struct Dns(TokioResolver);

/// No server answered, which says nothing of the name.
#[derive(Debug, thiserror::Error)]
#[error("DNS does not answer for {name}")]
pub struct Unanswered {
    name: String,
    #[source]
    source: NetError,
}

/// Where a name leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leads {
    /// The names that it stands for, in order.
    pub aliases: Vec<String>,
    /// Its addresses, in order.
    pub addresses: Vec<IpAddr>,
}

impl Dns {
    /// A resolver that asks `servers`, or those of this machine where there are none.
    ///
    /// # Errors
    /// `invalid_input` where this machine's configuration cannot be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self> {
        let unusable = |error: NetError| {
            Error::new(Code::InvalidInput, format!("this machine's DNS settings cannot be used: {error}"))
                .hint("set domains.dns to the address of a DNS server")
        };
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(unusable)?
        } else {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.to_vec())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        settle(builder.options_mut());
        builder.build().map(Self).map_err(unusable)
    }

    /// The TXT records at `name` itself; what another name says that it stands for proves nothing of this one.
    ///
    /// # Errors
    /// Where no server answers.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, Unanswered> {
        let (asked, lookup) = self.ask(name, RecordType::TXT).await?;
        let records = lookup.iter().flat_map(|lookup| lookup.answers());
        let texts = records.filter(|record| record.name == asked).filter_map(|record| match &record.data {
            RData::TXT(text) => {
                let bytes: Vec<u8> = text.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        });
        Ok(texts.take(MOST).collect())
    }

    /// Where `name` leads.
    ///
    /// # Errors
    /// Where no server answers.
    pub async fn leads(&self, name: &str) -> Result<Leads, Unanswered> {
        // The alias by itself too: one that leads to no address is no answer to the other questions.
        let (alias, four, six) = futures::join!(
            self.ask(name, RecordType::CNAME),
            self.ask(name, RecordType::A),
            self.ask(name, RecordType::AAAA)
        );
        let mut found = Leads::default();
        for lookup in [alias?.1, four?.1, six?.1].into_iter().flatten() {
            for record in lookup.answers().iter().take(MOST) {
                match &record.data {
                    RData::A(address) => found.addresses.push(IpAddr::V4(address.0)),
                    RData::AAAA(address) => found.addresses.push(IpAddr::V6(address.0)),
                    RData::CNAME(target) => {
                        let target = target.0.to_utf8().trim_end_matches('.').to_ascii_lowercase();
                        if !found.aliases.contains(&target) {
                            found.aliases.push(target);
                        }
                    }
                    _ => {}
                }
            }
        }
        found.addresses.sort();
        found.addresses.dedup();
        Ok(found)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<(Name, Option<Lookup>), Unanswered> {
        let unanswered = |source: NetError| Unanswered { name: name.to_owned(), source };
        // With the dot of the root: this machine's search domains are nobody's proof.
        let asked = Name::from_ascii(format!("{name}.")).map_err(|error| unanswered(error.into()))?;
        match self.0.lookup(asked.clone(), kind).await {
            Ok(lookup) => Ok((asked, Some(lookup))),
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok((asked, None)),
            Err(error) => Err(unanswered(error)),
        }
    }
}

fn settle(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.timeout = PATIENCE;
    options.attempts = ATTEMPTS;
    options.use_hosts_file = ResolveHosts::Never;
}
