//! The port through which what an environment may have is asked for, where that is not as configured.

use futures::future::BoxFuture;
use kernel::EnvId;

/// What one environment may have, where that is not as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// The largest database, in bytes.
    pub database_bytes: Option<u64>,
    /// What its buckets' files may have together, in bytes.
    pub files_bytes: Option<u64>,
}

/// Who knows what environments may have. Asked often, so an implementation answers from memory.
pub trait Quotas: Send + Sync + 'static {
    /// Another number whenever an earlier answer may hold no more.
    fn version(&self) -> u64;

    /// What an environment may have; `None` where that is not known now.
    fn of(&self, env: EnvId) -> BoxFuture<'_, Option<Quota>>;
}
