//! From a host's name to a connection, by way of addresses that were judged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{Error, Result, is_public};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::HTTP_1_1;
use super::policy::{Policy, Target};
use super::refusal::{Cut, Refusal};
use super::wire::Wire;

/// How many of a name's addresses are tried.
const TRIED: usize = 4;

/// Looks names up, for sandboxes, which cannot.
pub trait Names: Send + Sync {
    /// The addresses of a name, the best first.
    ///
    /// # Errors
    /// Where nobody knows it.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// Asks whomever this machine asks.
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) })
    }
}

/// The world as all sandboxes of a platform find it: who knows names, and whose certificates count.
pub struct Outside {
    names: Arc<dyn Names>,
    tls: TlsConnector,
}

impl Outside {
    /// The world of this machine.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn of_this_machine() -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // Without any, no host is trusted; nothing else is wrong with this machine.
        let found = rustls_native_certs::load_native_certs();
        let (_, unreadable) = roots.add_parsable_certificates(found.certs);
        if roots.is_empty() || unreadable > 0 || !found.errors.is_empty() {
            tracing::warn!(trusted = roots.len(), unreadable, errors = ?found.errors, "certificates of this machine");
        }
        Self::new(Arc::new(SystemNames), roots)
    }

    /// One where `names` knows names, and `roots` are trusted.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(names: Arc<dyn Names>, roots: RootCertStore) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self { names, tls: Arc::new(tls).into() })
    }

    pub(super) fn names(&self) -> &dyn Names {
        self.names.as_ref()
    }

    /// Shakes hands with the place over a connection to it.
    pub(super) async fn secure(
        &self,
        policy: &Policy,
        target: &Target,
        wire: Wire,
    ) -> Result<TlsStream<Wire>, Refusal> {
        let name = ServerName::try_from(target.host()).map_err(|_| Refusal::Untrusted(target.clone()))?;
        let shaken = timeout(policy.limits.connect, self.tls.connect(name, wire)).await;
        shaken.map_err(|_| Refusal::Slow(target.clone()))?.map_err(|error| {
            let cause = error.get_ref();
            if let Some(cut) = cause.and_then(|cause| cause.downcast_ref::<Cut>()) {
                return Refusal::Cut(target.clone(), *cut);
            }
            match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(_)) => Refusal::Untrusted(target.clone()),
                _ => Refusal::Broken(target.clone()),
            }
        })
    }
}

/// Connects to the place. Its name is looked up once, and what is dialled is an address that was judged.
pub(super) async fn dial(names: &dyn Names, policy: &Policy, target: &Target) -> Result<TcpStream, Refusal> {
    let end = Instant::now() + policy.limits.connect;
    let judged =
        timeout_at(end, judged(names, policy, target)).await.map_err(|_| Refusal::Slow(target.clone()))??;
    let mut slow = false;
    for (tried, address) in judged.iter().take(TRIED).enumerate() {
        // One that swallows all it is sent leaves time for the next.
        let left = end.saturating_duration_since(Instant::now());
        let rest = u32::try_from(judged.len().min(TRIED) - tried).unwrap_or(1);
        match timeout_at(Instant::now() + left / rest, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it answers of a few bytes wait for one another; where it cannot be set they do.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Ok(Err(_)) => {}
            Err(_) => slow = true,
        }
    }
    Err(if slow { Refusal::Slow(target.clone()) } else { Refusal::Unreachable(target.clone()) })
}

/// Whether there is an address of the place that may be dialled.
pub(super) async fn check(names: &dyn Names, policy: &Policy, target: &Target) -> Result<(), Refusal> {
    let judged = timeout(policy.limits.connect, judged(names, policy, target)).await;
    judged.map_err(|_| Refusal::Slow(target.clone()))?.map(drop)
}

/// The addresses that may be dialled for a place that the policy allows.
async fn judged(names: &dyn Names, policy: &Policy, target: &Target) -> Result<Vec<SocketAddr>, Refusal> {
    if !policy.allows(target) {
        return Err(Refusal::NotAllowed(target.clone()));
    }
    let found = match target.address() {
        Some(address) => vec![address],
        None => names.addresses(&target.host()).await.map_err(|_| Refusal::Unknown(target.clone()))?,
    };
    if found.is_empty() {
        return Err(Refusal::Unknown(target.clone()));
    }
    let vouched = policy.vouches_for(target);
    let judged: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| vouched || is_public(*address))
        .map(|address| SocketAddr::new(address, target.port()))
        .collect();
    if judged.is_empty() { Err(Refusal::Private(target.clone())) } else { Ok(judged) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Says something else every time it is asked.
    struct Fickle(Mutex<Vec<Vec<&'static str>>>);

    impl Names for Fickle {
        fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let answer = self.0.lock().unwrap().pop().unwrap_or_default();
            Box::pin(async move { Ok(answer.iter().map(|address| address.parse().unwrap()).collect()) })
        }
    }

    fn policy(allow: &[&str], origins: &[&str]) -> Policy {
        Policy {
            allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
            origins: origins.iter().map(|text| text.parse().unwrap()).collect(),
            ..Policy::default()
        }
    }

    async fn check(names: &Fickle, policy: &Policy, target: &str) -> Result<Vec<String>, Refusal> {
        let target = target.parse().unwrap();
        Ok(judged(names, policy, &target).await?.iter().map(ToString::to_string).collect())
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_only_public_addresses_of_it_are_left() {
        let policy = policy(&["a.test"], &[]);
        let names =
            Fickle(Mutex::new(vec![vec!["127.0.0.1"], vec!["10.0.0.1", "8.8.8.8", "::1", "8.8.4.4"]]));
        let first = check(&names, &policy, "a.test:443").await;
        assert_eq!(first, Ok(vec!["8.8.8.8:443".to_owned(), "8.8.4.4:443".to_owned()]));
        // The name has changed its mind.
        let second = check(&names, &policy, "a.test:443").await;
        assert_eq!(second, Err(Refusal::Private("a.test:443".parse().unwrap())));
        let third = check(&names, &policy, "a.test:443").await;
        assert_eq!(third, Err(Refusal::Unknown("a.test:443".parse().unwrap())));
    }

    #[tokio::test]
    async fn no_writing_of_an_address_leads_to_a_private_one() {
        let policy = policy(&["*", "*:8080"], &["10.0.0.1:8080"]);
        let names = Fickle(Mutex::default());
        for private in [
            "127.0.0.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "0177.0.0.1:80",
            "127.1:80",
            "0:80",
            "169.254.169.254:80",
            "0xa9fea9fe:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:7f00:1]:80",
            "[64:ff9b::a00:1]:80",
            "[2002:7f00:1::]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[ff02::1]:80",
            "224.0.0.1:80",
            "10.0.0.1:80",
            "10.0.0.2:8080",
        ] {
            let target: Target = private.parse().unwrap();
            assert_eq!(check(&names, &policy, private).await, Err(Refusal::Private(target)), "{private}");
        }
        assert_eq!(check(&names, &policy, "8.8.8.8:80").await, Ok(vec!["8.8.8.8:80".to_owned()]));
        assert_eq!(check(&names, &policy, "10.0.0.1:8080").await, Ok(vec!["10.0.0.1:8080".to_owned()]));
    }

    #[tokio::test]
    async fn a_name_that_is_not_allowed_is_not_even_looked_up() {
        let names = Fickle(Mutex::new(vec![vec!["8.8.8.8"]]));
        let refused = check(&names, &policy(&["a.test"], &["b.test:443"]), "b.test:443").await;
        assert_eq!(refused, Err(Refusal::NotAllowed("b.test:443".parse().unwrap())));
        assert_eq!(names.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn this_machine_knows_itself() {
        let found = SystemNames.addresses("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
