//! Whether a sandbox is full of processes, so that nothing more can be begun in it.

use sandbox::runner::{Isolation, Limiting, Runner as _};

use crate::{Hand, Hands};

impl Hands {
    /// What to do about a sandbox that has about as many processes and threads as it may, which no command can tell by
    /// itself: the next one would not begin. None where it has room.
    pub async fn advice(&self, hand: &Hand) -> Option<String> {
        let inner = &self.0;
        let most = inner.limits.each.pids;
        // One that has ended is told by the next call.
        let there = match (hand.limiting(), hand.isolation()) {
            (Limiting::Enforced, Isolation::Namespaces) => inner.local.usage(hand.sandbox()).await.ok()?.pids,
            // Nobody counts them on the host, or what is counted there is another kernel's.
            _ => hand.stats().await.ok()?.processes,
        };
        let crowded = there.saturating_mul(16) >= most.saturating_mul(15);
        crowded.then(|| {
            format!(
                "the sandbox has {there} of at most {most} processes and threads, so that commands fail to begin more; \
                 `kill -9 -1` ends all that runs in it"
            )
        })
    }
}
