//! What is told of each connection: where to, how much, how it ended. Nothing of what was in it.

use std::time::Duration;

use kernel::Timestamp;

use super::policy::Target;
use super::refusal::{Cut, Refusal};

/// One connection that ended, or one request that never became one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it began.
    pub at: Timestamp,
    /// Where it went or would have gone; none where that could not be read.
    pub target: Option<Target>,
    /// What came of it.
    pub outcome: Outcome,
    /// Bytes that went out.
    pub up: u64,
    /// Bytes that came in.
    pub down: u64,
    /// How long it lasted.
    pub took: Duration,
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was allowed and ended by itself.
    Allowed,
    /// It was allowed and cut.
    Cut(Cut),
    /// It was refused.
    Refused(Refusal),
}

/// Takes events of one sandbox. It must not block.
pub trait Journal: Send + Sync {
    /// Takes one.
    fn told(&self, event: Event);
}
