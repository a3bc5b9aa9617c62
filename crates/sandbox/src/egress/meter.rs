//! How much a sandbox takes of the network, counted over all of its connections.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::policy::Limits;
use super::refusal::Cut;

/// Counts bytes and requests of one sandbox.
pub(super) struct Meter(Mutex<Counts>);

struct Counts {
    limits: Limits,
    used: u64,
    bytes: Bucket,
    requests: Bucket,
}

/// Fills by `rate` a second up to `most`; below nothing is debt.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(most: f64, now: Instant) -> Self {
        Self { left: most, at: now }
    }

    fn fill(&mut self, rate: f64, most: f64, now: Instant) {
        self.left = most.min(self.left + now.saturating_duration_since(self.at).as_secs_f64() * rate);
        self.at = now;
    }
}

impl Meter {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self(Mutex::new(Counts {
            limits,
            used: 0,
            bytes: Bucket::full(limits.bytes_per_second as f64, now),
            requests: Bucket::full(f64::from(limits.requests_per_minute), now),
        }))
    }

    /// Other limits from here on; what was used stays used.
    pub(super) fn limit(&self, limits: Limits) {
        self.counts().limits = limits;
    }

    /// Bytes used in both directions.
    pub(super) fn used(&self) -> u64 {
        self.counts().used
    }

    /// Counts bytes that went or came, and says how long to wait before the next.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Result<Option<Duration>, Cut> {
        let mut counts = self.counts();
        counts.used = counts.used.saturating_add(bytes as u64);
        if counts.used > counts.limits.bytes {
            return Err(Cut::Spent);
        }
        let rate = (counts.limits.bytes_per_second as f64).max(1.0);
        counts.bytes.fill(rate, rate, now);
        counts.bytes.left -= bytes as f64;
        let debt = -counts.bytes.left;
        Ok((debt > 0.0).then(|| Duration::from_secs_f64(debt / rate)))
    }

    /// Whether bytes are left.
    pub(super) fn is_spent(&self) -> bool {
        let counts = self.counts();
        counts.used >= counts.limits.bytes
    }

    /// Counts a request; false where it is one too many.
    pub(super) fn request(&self, now: Instant) -> bool {
        let mut counts = self.counts();
        let most = f64::from(counts.limits.requests_per_minute);
        counts.requests.fill(most / 60.0, most, now);
        let allowed = counts.requests.left >= 1.0;
        if allowed {
            counts.requests.left -= 1.0;
        }
        allowed
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { bytes: 250, bytes_per_second: 100, requests_per_minute: 2, ..Limits::default() }
    }

    #[test]
    fn bytes_beyond_the_rate_are_waited_for_and_beyond_the_sum_refused() {
        let start = Instant::now();
        let meter = Meter::new(limits(), start);
        assert_eq!(meter.take(100, start), Ok(None));
        assert_eq!(meter.take(50, start), Ok(Some(Duration::from_millis(500))));
        let later = start + Duration::from_secs(10);
        assert_eq!(meter.take(100, later), Ok(None));
        assert!(meter.is_spent());
        assert_eq!(meter.take(1, later), Err(Cut::Spent));
        meter.limit(Limits { bytes: 1_000, ..limits() });
        assert_eq!((meter.take(1, later + Duration::from_secs(10)), meter.used()), (Ok(None), 252));
    }

    #[test]
    fn requests_beyond_the_rate_are_refused_until_time_has_passed() {
        let start = Instant::now();
        let meter = Meter::new(limits(), start);
        assert_eq!([meter.request(start), meter.request(start), meter.request(start)], [true, true, false]);
        let later = start + Duration::from_secs(30);
        assert_eq!([meter.request(later), meter.request(later)], [true, false]);
    }
}
