//! Requests to addresses that apps name: the world outside is reached, the platform's own surroundings are not.
//!
//! An app's maker writes the address, so it is as untrusted as the app. Names are looked up here, and a connection is made
//! to the addresses that were judged, so that a name which changes its mind between the two leads nowhere else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use kernel::{Code, Env, Error, Networks, Result, Secret, is_public};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde::de::DeserializeOwned;
use url::{Host, Url};

/// The values of an environment's secrets, for what is sent on its behalf.
pub trait SecretValues: Send + Sync + 'static {
    /// The value; none where there is no secret of that name.
    fn value<'a>(&'a self, env: &'a Env, name: &'a str) -> BoxFuture<'a, Result<Option<Secret>>>;
}

/// Where there are no secrets.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

impl SecretValues for NoSecrets {
    fn value<'a>(&'a self, _: &'a Env, _: &'a str) -> BoxFuture<'a, Result<Option<Secret>>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// How long one server has for one name.
const LOOK_UP: Duration = Duration::from_secs(2);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take, from the first byte sent to the last one read.
const ANSWER: Duration = Duration::from_secs(10);

/// How many bytes of an answer are read: taken apart, the worst is some seventy times as large.
const BYTES: usize = 128 << 10;

/// Sends requests to addresses that apps name. Clones share connections.
#[derive(Clone)]
pub struct Outbound {
    client: Client,
    private: Arc<Networks>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer. It names the host and nothing else of the address, which may hold what is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The address is none that may be asked.
    #[error("{0:?} is no https address")]
    Address(String),
    /// It leads to the platform's own surroundings.
    #[error("{0:?} is not a public address")]
    Private(String),
    /// Nobody is there.
    #[error("{0:?} cannot be reached")]
    Unreachable(String),
    /// It takes too long.
    #[error("{0:?} does not answer in time")]
    Slow(String),
    /// It says too much.
    #[error("{0:?} answers with more than 128 kB")]
    Large(String),
    /// It says something else.
    #[error("{0:?} answers with what is not understood")]
    Unclear(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Address(_) => Error::new(Code::InvalidInput, message),
            Failure::Private(_) => Error::new(Code::InvalidInput, message)
                .hint("the platform's operator lists networks of their own in outbound.private"),
            Failure::Unreachable(_) | Failure::Large(_) | Failure::Unclear(_) => {
                Error::new(Code::Unavailable, message).hint("try again in a moment")
            }
            Failure::Slow(_) => Error::new(Code::Timeout, message).hint("try again in a moment"),
        }
    }
}

impl Outbound {
    /// Reaches all public addresses, and those in `private`.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(private: Networks) -> Result<Self> {
        // Whoever came first has installed the same one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let private = Arc::new(private);
        let client = Client::builder()
            .dns_resolver(Arc::new(Judged::new(Arc::clone(&private))))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .user_agent("app-backend")
            .build()
            .map_err(Error::internal)?;
        Ok(Self { client, private })
    }

    /// Whether an address may be asked, as far as it can be told without looking its name up: it is HTTPS, or plain HTTP
    /// to an address that the operator has listed, and names nobody.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, url: &Url) -> Result<(), Failure> {
        let host = host(url);
        let listed = match url.host() {
            Some(Host::Domain("localhost")) => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if !url.username().is_empty() || url.password().is_some() || host.is_empty() {
            return Err(Failure::Address(host));
        }
        match (url.scheme(), listed) {
            ("http" | "https", Some(address)) if self.private.have(address) => Ok(()),
            ("https", Some(address)) if !is_public(address) => Err(Failure::Private(host)),
            ("https", _) => Ok(()),
            _ => Err(Failure::Address(host)),
        }
    }

    /// A request that is to be sent with [`Outbound::send`].
    ///
    /// # Errors
    /// As [`Outbound::judge`].
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, Failure> {
        self.judge(url)?;
        Ok(self.client.request(method, url.clone()))
    }

    /// Sends a request and reads the answer, whatever its status; no redirect is followed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let (client, request) = request.build_split();
        let request = request.map_err(|_| Failure::Address(String::new()))?;
        self.judge(request.url())?;
        let host = host(request.url());
        let failed = |error: &reqwest::Error| {
            if is_private(error) {
                Failure::Private(host.clone())
            } else if error.is_timeout() {
                Failure::Slow(host.clone())
            } else {
                Failure::Unreachable(host.clone())
            }
        };
        let mut response = client.execute(request).await.map_err(|error| failed(&error))?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + part.len() > BYTES {
                return Err(Failure::Large(host));
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer { status: response.status().as_u16(), body })
    }
}

impl Answer {
    /// Reads the body as JSON; none where it is something else.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The host of an address, with its port where that is not the scheme's own.
fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    url.host_str().map(|host| format!("{host}{port}")).unwrap_or_default()
}

/// Looks names up, and leaves out what is out of reach. It waits for servers without a thread: names that no server
/// answers for hold up nobody else.
struct Judged {
    private: Arc<Networks>,
    resolver: Arc<Option<TokioResolver>>,
}

impl Judged {
    fn new(private: Arc<Networks>) -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            (options.timeout, options.attempts) = (LOOK_UP, 2);
            builder.build()
        });
        if let Err(error) = &resolver {
            tracing::warn!(%error, "this machine's DNS settings cannot be used: nothing that apps name is reached");
        }
        Self { private, resolver: Arc::new(resolver.ok()) }
    }
}

/// A name leads to nothing but what is out of reach.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no public address")]
struct OutOfReach;

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let (private, resolver) = (Arc::clone(&self.private), Arc::clone(&self.resolver));
        Box::pin(async move {
            let found = match &*resolver {
                Some(resolver) => resolver.lookup_ip(name.as_str()).await?,
                None => return Err("this machine's DNS settings cannot be used".into()),
            };
            let judged: Vec<SocketAddr> = found
                .iter()
                .filter(|found| is_public(*found) || private.have(*found))
                .map(|found| SocketAddr::new(found, 0))
                .collect();
            if judged.is_empty() {
                return Err(OutOfReach.into());
            }
            Ok(Box::new(judged.into_iter()) as Addrs)
        })
    }
}

fn is_private(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<OutOfReach>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
