//! How many processes there are, and how often functions were started and have answered, for whoever runs the platform.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::host::{Asking, Called};
use crate::supervisor::{Functions, Outcome, Reply};

/// The functions and services of all environments, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Processes that there are or are being started.
    pub processes: u64,
    /// How often one was started, since the start of the platform.
    pub started: u64,
    /// How long that has taken in all.
    pub starting: Duration,
    /// How often one could not be started.
    pub failed: u64,
    /// What has become of requests.
    pub answers: Answers,
}

/// Requests to functions and services, by what has become of them, since the start of the platform.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// They were answered.
    pub answered: u64,
    /// The function has thrown.
    pub threw: u64,
    /// The function has no handler for them.
    pub refused: u64,
    /// Nothing has answered: no process, or not in time, or not as it should.
    pub failed: u64,
}

/// Counts while it goes on.
#[derive(Default)]
pub(crate) struct Counts {
    started: AtomicU64,
    starting_us: AtomicU64,
    not_started: AtomicU64,
    answered: AtomicU64,
    threw: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// A process was to be started, which has taken so long.
    pub fn start<T>(&self, begun: &Result<T>, took: Duration) {
        if begun.is_err() {
            self.not_started.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.started.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.starting_us.fetch_add(took, Ordering::Relaxed);
    }

    /// A request has come to this.
    pub fn asked(&self, outcome: &Result<Reply>) {
        let count = match outcome.as_ref().map(|reply| reply.outcome) {
            Ok(None) => &self.answered,
            Ok(Some(Outcome::Threw)) => &self.threw,
            Ok(Some(Outcome::Refused)) => &self.refused,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Functions {
    /// Asks a function. A process is started where none has room; the answer is there when it begins.
    ///
    /// # Errors
    /// [`Error::Failed`] and the like where it does not start, [`Error::Busy`], [`Error::Crashes`], [`Error::Late`];
    /// [`Error::Gone`] where its process ends meanwhile.
    pub async fn ask(&self, called: &Called, asking: Asking) -> Result<Reply> {
        let outcome = self.asked(called, asking).await;
        self.0.counts.asked(&outcome);
        outcome
    }

    /// Processes that there are or are being started, of all environments.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.0.rooms.taken()
    }

    /// Counts them.
    #[must_use]
    pub fn census(&self) -> Census {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.0.counts;
        Census {
            processes: self.processes() as u64,
            started: now(&counts.started),
            starting: Duration::from_micros(now(&counts.starting_us)),
            failed: now(&counts.not_started),
            answers: Answers {
                answered: now(&counts.answered),
                threw: now(&counts.threw),
                refused: now(&counts.refused),
                failed: now(&counts.failed),
            },
        }
    }
}
