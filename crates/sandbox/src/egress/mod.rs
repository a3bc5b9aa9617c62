//! A sandbox's one way out: a proxy on a socket that only this sandbox reaches.
//!
//! Programs inside send HTTP requests with absolute addresses, or `CONNECT host:port` for all else. Every host is judged by
//! the sandbox's policy, names are looked up here and nowhere else, what they lead to is judged too, and exactly that
//! address is dialled. A redirect is the program's next request, and judged like any other.
//!
//! A tunnel carries what is sealed in it unread, but for the name that its first message names. Only a tunnel to a host that
//! a secret is for is opened here, under an authority that this one sandbox trusts, and sealed anew.

mod authority;
mod journal;
mod mask;
mod meter;
mod outside;
mod policy;
mod proxy;
mod refusal;
mod secrets;
mod tunnel;
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kernel::Result;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use journal::{Event, Journal, Outcome};
pub use outside::{Names, Outside, SystemNames};
pub use policy::{Limits, Pattern, Policy, Target, Unreadable};
pub use refusal::{Cut, Refusal};
pub use secrets::{Bound, Places, Unbindable, placeholder};

use authority::Authority;
use meter::Meter;
use wire::{Open, Rules, Wire};

/// Variables that name programs a file of certificates to trust. In a sandbox each names one with those of the host and
/// [`Egress::authority_pem`].
pub const TRUST_VARIABLES: [&str; 8] = [
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "npm_config_cafile",
];

/// The way out of one sandbox. Clones are the same way.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

struct Shared {
    outside: Arc<Outside>,
    authority: Authority,
    policy: RwLock<Arc<Policy>>,
    meter: Arc<Meter>,
    open: Arc<Open>,
    journal: Arc<dyn Journal>,
    clients: AtomicUsize,
    left: Notify,
}

impl Egress {
    /// A way out under `policy`; what happens on it is told to `journal`.
    ///
    /// # Errors
    /// `internal` where its authority cannot be made.
    pub fn new(outside: Arc<Outside>, policy: Policy, journal: Arc<dyn Journal>) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            outside,
            authority: Authority::new()?,
            meter: Arc::new(Meter::new(policy.limits, Instant::now())),
            policy: RwLock::new(Arc::new(policy)),
            open: Arc::default(),
            journal,
            clients: AtomicUsize::new(0),
            left: Notify::new(),
        })))
    }

    /// The certificate that has to be trusted in the sandbox, in PEM, so that secrets go to their hosts.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        self.0.authority.pem()
    }

    /// Serves whoever connects, until the future is dropped, and with it every connection.
    pub async fn serve(&self, listener: UnixListener) {
        let mut clients = JoinSet::new();
        loop {
            while clients.try_join_next().is_some() {}
            let shared = &self.0;
            let left = shared.left.notified();
            if shared.clients.load(Ordering::Acquire) >= shared.policy().limits.connections.max(1) {
                left.await;
                continue;
            }
            match listener.accept().await {
                Ok((stream, _)) => {
                    let client = Client::new(Arc::clone(shared));
                    clients.spawn(async move { proxy::serve(client, stream).await });
                }
                // No descriptors are left: one that ends gives its own back.
                Err(error) => {
                    tracing::warn!(%error, "a sandbox's connection was not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Another policy from here on. Connections that it does not allow are cut.
    pub fn update(&self, policy: Policy) {
        let policy = Arc::new(policy);
        self.0.meter.limit(policy.limits);
        *self.0.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
        self.0.open.judge(&policy);
        self.0.left.notify_waiters();
    }

    /// Bytes that the sandbox has used, in both directions.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.meter.used()
    }
}

impl Shared {
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn dial(&self, target: &Target) -> Result<Wire, Refusal> {
        let policy = self.policy();
        if self.meter.is_spent() {
            return Err(Refusal::Spent);
        }
        let stream = outside::dial(self.outside.names(), &policy, target).await?;
        let rules = Rules {
            open: Arc::clone(&self.open),
            meter: Arc::clone(&self.meter),
            journal: Arc::clone(&self.journal),
            idle: policy.limits.idle,
        };
        let wire = Wire::new(stream, target.clone(), rules);
        // The policy may have changed before the connection was one that a change reaches.
        if self.policy().allows(target) { Ok(wire) } else { Err(Refusal::NotAllowed(target.clone())) }
    }
}

/// One of the sandbox's connections, counted while it is there.
struct Client(Arc<Shared>);

impl Client {
    fn new(shared: Arc<Shared>) -> Self {
        shared.clients.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
