//! What domains and certificates need of the rest of the platform.

use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{Env, Result, Timestamp};
use zeroize::Zeroizing;

/// Seals keys with the platform's master key, and is told when a domain's environment has changed.
pub trait Seal: Send + Sync + 'static {
    /// Seals `value` for `place`.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    fn seal(&self, place: &str, value: &[u8]) -> Result<String>;

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// `internal` where it was changed or moved.
    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>>;

    /// What memory says of the domain counts no longer.
    fn domain_changed(&self, domain: &str);
}

/// Whose a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The platform's own.
    Platform,
    /// The address of an environment below the domain of apps.
    App(Env),
    /// A preview of one of an environment's releases.
    Preview(Env),
    /// A domain that is proven for an environment.
    Domain(Env),
}

impl Owner {
    /// The environment, where it is one's.
    #[must_use]
    pub const fn env(&self) -> Option<&Env> {
        match self {
            Owner::Platform => None,
            Owner::App(env) | Owner::Preview(env) | Owner::Domain(env) => Some(env),
        }
    }
}

/// Who knows the hosts. Asked in every handshake, so an implementation answers from memory.
pub trait Owners: Send + Sync + 'static {
    /// Whose `host` is, in lower case and without a port; `None` where it is nobody's.
    fn owner<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Owner>>>;
}

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
