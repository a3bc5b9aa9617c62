//! How fast somebody reads: who is given something and does not take it is behind, and not for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far behind a reader may be.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a reader takes at least, in bytes a second, who is not to fall behind.
const LEAST: u64 = 1_024;

/// How far behind one reader is.
#[derive(Debug, Default, Clone, Copy)]
pub struct Pace {
    /// Before what it is waited for now.
    behind: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// From now on the reader is waited for.
    pub fn waits(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The reader has taken so many bytes. Having been quick before is no excuse.
    pub fn takes(&mut self, bytes: usize, now: Instant) {
        let due = Duration::from_millis((bytes as u64).saturating_mul(1_000) / LEAST);
        self.behind = self.at(now).saturating_sub(due);
        self.since = None;
    }

    /// How long it is waited for still; nothing for who is lost.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        PATIENCE.saturating_sub(self.at(now))
    }

    fn at(&self, now: Instant) -> Duration {
        self.behind + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Who reads the answers of one connection.
#[derive(Default)]
pub(super) struct Readers {
    next: AtomicU64,
    paces: Mutex<HashMap<u64, Pace>>,
}

impl Readers {
    fn paces(&self) -> MutexGuard<'_, HashMap<u64, Pace>> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of them is lost.
    pub fn are_behind(&self) -> bool {
        let now = Instant::now();
        self.paces().values().any(|pace| pace.left(now).is_zero())
    }
}

/// Who reads one answer.
pub(super) struct Reader {
    readers: Arc<Readers>,
    number: u64,
    /// What it was given last, in bytes.
    given: usize,
}

impl Reader {
    pub fn new(readers: Arc<Readers>) -> Self {
        let number = readers.next.fetch_add(1, Ordering::Relaxed);
        Self { readers, number, given: 0 }
    }

    /// It comes for more.
    pub fn comes(&mut self) {
        let given = std::mem::take(&mut self.given);
        if given > 0
            && let Some(pace) = self.readers.paces().get_mut(&self.number)
        {
            pace.takes(given, Instant::now());
        }
    }

    /// It is given so many bytes.
    pub fn gets(&mut self, bytes: usize) {
        self.given = bytes;
        self.readers.paces().entry(self.number).or_default().waits(Instant::now());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.paces().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_is_waited_for_however_slowly_and_who_does_not_is_not() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        // 2 kB a second, for an hour.
        let mut slow = Pace::default();
        for n in 0..225 {
            slow.waits(at(n * 16));
            assert!(!slow.left(at(n * 16 + 16)).is_zero());
            slow.takes(32 << 10, at(n * 16 + 16));
        }
        // Who has been quick is not waited for longer, and what lies idle between is not its fault.
        slow.waits(at(10_000));
        assert_eq!(slow.left(at(10_029)), Duration::from_secs(1));
        assert!(slow.left(at(10_030)).is_zero());
        // Nor is who takes a little each time, just before it would be lost.
        let mut drip = Pace::default();
        drip.waits(at(0));
        drip.takes(10, at(20));
        drip.waits(at(20));
        assert!(!drip.left(at(29)).is_zero() && drip.left(at(31)).is_zero());
    }
}
