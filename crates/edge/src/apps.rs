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

/// Who knows the environments and their releases. Asked on every request, so an implementation answers from
/// memory; what it answers is what visitors see, so a switched release shows at once.
pub trait Apps: Send + Sync + 'static {
    /// The environment with that slug.
    fn find<'a>(&'a self, slug: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>>;

    /// The environment that a domain is proven for.
    fn at_domain<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, Result<Option<AtDomain>>>;

    /// A release of the environment; `None` where there is none (yet).
    fn release<'a>(&'a self, env: &'a Env, which: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>>;
}
