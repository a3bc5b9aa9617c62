//! The port through which the edge learns what to serve.

use std::sync::Arc;

use capabilities::releases::Served;
use futures::future::BoxFuture;
use kernel::{Env, Result, Slug};

/// Which release of an environment is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is live.
    Live,
    /// The one with this number, for its preview.
    Number(u64),
}

/// An environment at a domain of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtDomain {
    /// The environment.
    pub env: Env,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: bool,
}

/// A request that is under way: whatever counts it.
#[derive(Default)]
pub struct Admitted(
    #[expect(dead_code, reason = "it counts until it is dropped")] Option<Box<dyn Send + Sync>>,
);

impl Admitted {
    /// One that `counted` counts until it is dropped.
    #[must_use]
    pub fn of(counted: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(counted)))
    }
}

/// Who knows the environments and their releases. Asked on every request, so an implementation answers from
/// memory; what it answers is what visitors see, so a switched release shows at once.
pub trait Apps: Send + Sync + 'static {
    /// The environment with that slug.
    fn find<'a>(&'a self, slug: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>>;

    /// The environment that a domain is proven for.
    fn at_domain<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, Result<Option<AtDomain>>>;

    /// Counts a request for the environment's app as one that is under way, for as long as what comes back is there.
    ///
    /// # Errors
    /// `rate_limited` with the limit and when the next one passes.
    fn admit(&self, _env: &Env) -> Result<Admitted> {
        Ok(Admitted::default())
    }

    /// A release of the environment; `None` where there is none (yet).
    fn release<'a>(&'a self, env: &'a Env, which: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>>;
}
