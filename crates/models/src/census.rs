//! How often models were asked and what that has used, for whoever runs the platform.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Models, Spent};

/// Calls to models of all environments since the start, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Calls whose use the provider has said.
    pub said: u64,
    /// Calls whose use nobody has said, so that all that was set aside counts.
    pub estimated: u64,
    /// Calls that the provider has refused, or never had.
    pub unused: u64,
    /// Calls that a budget had no room for.
    pub refused: u64,
    /// Tokens that were sent.
    pub prompt: u64,
    /// Those of them that the provider had seen before.
    pub cached: u64,
    /// Tokens that came back.
    pub completion: u64,
    /// What was charged, in millionths of the operator's currency.
    pub micro: u64,
}

/// Counts while it goes on.
#[derive(Default)]
pub(crate) struct Counts {
    said: AtomicU64,
    estimated: AtomicU64,
    unused: AtomicU64,
    refused: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    completion: AtomicU64,
    micro: AtomicU64,
}

impl Counts {
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn unused(&self) {
        self.unused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn used(&self, spent: &Spent) {
        let calls = if spent.said { &self.said } else { &self.estimated };
        let used = [
            (calls, 1),
            (&self.prompt, spent.tokens.prompt),
            (&self.cached, spent.tokens.cached),
            (&self.completion, spent.tokens.completion),
            (&self.micro, spent.micro.unwrap_or_default()),
        ];
        for (count, more) in used {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }
}

impl Models {
    /// Counts what was asked.
    #[must_use]
    pub fn census(&self) -> Census {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.purse.counts;
        Census {
            said: now(&counts.said),
            estimated: now(&counts.estimated),
            unused: now(&counts.unused),
            refused: now(&counts.refused),
            prompt: now(&counts.prompt),
            cached: now(&counts.cached),
            completion: now(&counts.completion),
            micro: now(&counts.micro),
        }
    }
}
