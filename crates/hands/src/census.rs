//! How many sandboxes there are, and how often one was made, for whoever runs the platform.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Hands;

/// The sandboxes of all environments, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Those whose processes run.
    pub awake: u64,
    /// Those that are being made.
    pub waking: u64,
    /// Those whose processes are stopped where they are.
    pub frozen: u64,
    /// Connections of visitors into them.
    pub visits: u64,
    /// How often one was made, since the start.
    pub made: u64,
    /// How often one could not be made, since the start.
    pub failed: u64,
    /// How often there was no place for one, since the start.
    pub without_place: u64,
}

/// What has become of sandboxes that were to be made.
#[derive(Default)]
pub(crate) struct Starts {
    made: AtomicU64,
    failed: AtomicU64,
    without_place: AtomicU64,
}

impl Starts {
    pub fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn without_place(&self) {
        self.without_place.fetch_add(1, Ordering::Relaxed);
    }
}

impl Hands {
    /// Counts them, and keeps nobody from anything.
    #[must_use]
    pub fn census(&self) -> Census {
        let Starts { made, failed, without_place } = &self.0.starts;
        let [made, failed, without_place] =
            [made, failed, without_place].map(|count| count.load(Ordering::Relaxed));
        let mut census = Census { made, failed, without_place, ..Census::default() };
        for slot in self.0.slots().values() {
            match slot.seen() {
                Some(awake) => {
                    let counted = if awake.is_stopped() { &mut census.frozen } else { &mut census.awake };
                    *counted += 1;
                    census.visits += awake.visits() as u64;
                }
                // It has its place before it is there.
                None if slot.tenant().is_some() => census.waking += 1,
                None => {}
            }
        }
        census
    }

    /// Whether sandboxes can be made here as far as that is seen without making one: the process that would is there, or can
    /// be started.
    #[must_use]
    pub fn can_begin(&self) -> bool {
        self.0.local.can_begin()
    }
}
