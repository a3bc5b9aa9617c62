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

/// Who knows the environments and their releases. Asked on every request, so an implementation answers from
/// memory; what it answers is what visitors see, so a switched release shows at once.
pub trait Apps: Send + Sync + 'static {
    /// The environment with that slug.
    fn find<'a>(&'a self, slug: &'a Slug) -> BoxFuture<'a, Result<Option<Env>>>;

    /// A release of the environment; `None` where there is none (yet).
    fn release<'a>(&'a self, env: &'a Env, which: Which) -> BoxFuture<'a, Result<Option<Arc<Served>>>>;
}
