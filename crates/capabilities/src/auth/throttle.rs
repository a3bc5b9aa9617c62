//! How often something may be done, each counted for itself.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::{Code, Error, LimitInfo, LimitScope, Result};

use super::limits::Rate;

/// Admits by the generic cell rate algorithm. What was admitted can be given back, so that a right password does not
/// count as a wrong one, and many guesses at the same moment still do.
pub(crate) struct Throttle<K> {
    name: &'static str,
    scope: LimitScope,
    rate: Rate,
    most: usize,
    cells: Mutex<Cells<K>>,
}

struct Cells<K> {
    /// When each one has rested; those in the past say nothing.
    rested: HashMap<K, Instant>,
    /// How many there may be before the past is forgotten.
    tidy_at: usize,
}

impl<K: Eq + Hash> Cells<K> {
    /// Forgets those who have the least to wait. A crowd of names that nobody has heard of holds up nobody else, and does
    /// not make it forget whom it holds up for long.
    fn drop_a_quarter(&mut self) {
        let mut times: Vec<Instant> = self.rested.values().copied().collect();
        let quarter = times.len() / 4;
        let (_, limit, _) = times.select_nth_unstable(quarter);
        let limit = *limit;
        let mut left = quarter + 1;
        self.rested.retain(|_, rested| {
            let goes = *rested <= limit && left > 0;
            left -= usize::from(goes);
            !goes
        });
    }
}

/// So few are never worth a walk.
const FEW: usize = 1_024;

impl<K: Eq + Hash> Throttle<K> {
    pub fn new(name: &'static str, scope: LimitScope, rate: Rate, most: usize) -> Self {
        let cells = Cells { rested: HashMap::new(), tidy_at: FEW };
        Self { name, scope, rate, most, cells: Mutex::new(cells) }
    }

    /// Lets `who` pass, once.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn admit(&self, who: K) -> Result<()> {
        self.admit_at(who, Instant::now())
    }

    fn admit_at(&self, who: K, now: Instant) -> Result<()> {
        let mut cells = self.cells();
        if cells.rested.len() >= cells.tidy_at.min(self.most) {
            cells.rested.retain(|_, rested| *rested > now);
            cells.tidy_at = (cells.rested.len() * 2).max(FEW);
        }
        let rested = cells.rested.get(&who).copied();
        if rested.is_none() && cells.rested.len() >= self.most {
            cells.drop_a_quarter();
        }
        let rested = rested.unwrap_or(now).max(now);
        let ahead = rested.saturating_duration_since(now);
        let most = self.rate.every.saturating_mul(self.rate.burst.get() - 1);
        if ahead > most {
            return Err(self.refusal(ahead.saturating_sub(most)));
        }
        cells.rested.insert(who, rested + self.rate.every);
        Ok(())
    }

    /// Undoes one [`Throttle::admit`].
    pub fn give_back(&self, who: &K) {
        if let Some(rested) = self.cells().rested.get_mut(who)
            && let Some(earlier) = rested.checked_sub(self.rate.every)
        {
            *rested = earlier;
        }
    }

    fn cells(&self) -> MutexGuard<'_, Cells<K>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, wait: Duration) -> Error {
        let wait = wait.max(Duration::from_millis(1));
        let window = self.rate.every.saturating_mul(self.rate.burst.get());
        let info = LimitInfo::new(self.name, self.scope, self.rate.burst.get().into(), "attempts")
            .window(seconds(window))
            .reset(seconds(wait));
        Error::new(Code::RateLimited, "there were too many attempts")
            .retry_after(wait)
            .limit(info)
            .hint("wait as long as Retry-After says, then try once more")
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000) as u64
}

/// Who is behind a network address: one of IPv4, or the /64 of IPv6, which one subscriber has as a whole
/// (RFC 6177).
#[must_use]
pub fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn throttle(burst: u32, most: usize) -> Throttle<u32> {
        let rate = Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(30) };
        Throttle::new("test", LimitScope::Address, rate, most)
    }

    fn waits(refused: Result<()>) -> Option<u64> {
        refused.err().map(|error| error.retry_after_secs().unwrap())
    }

    #[test]
    fn after_the_burst_one_passes_in_each_interval() {
        let (throttle, start) = (throttle(3, 10), Instant::now());
        let at = |seconds| waits(throttle.admit_at(1, start + Duration::from_secs(seconds)));
        assert_eq!([at(0), at(0), at(0), at(0), at(10)], [None, None, None, Some(30), Some(20)]);
        assert_eq!([at(30), at(30), at(59), at(61)], [None, Some(30), Some(1), None]);
        // Rest is not saved up beyond the burst.
        assert_eq!([at(9000), at(9000), at(9000), at(9000)], [None, None, None, Some(30)]);
        assert_eq!(waits(throttle.admit_at(2, start)), None, "another is counted for itself");
    }

    #[test]
    fn what_is_given_back_does_not_count() {
        let (throttle, start) = (throttle(2, 10), Instant::now());
        for _ in 0..100 {
            throttle.admit_at(1, start).unwrap();
            throttle.give_back(&1);
        }
        throttle.admit_at(1, start).unwrap();
        throttle.admit_at(1, start).unwrap();
        assert_eq!(waits(throttle.admit_at(1, start)), Some(30));
    }

    #[test]
    fn it_keeps_no_more_in_mind_than_it_may_and_forgets_who_has_rested() {
        let (throttle, start) = (throttle(1, 100), Instant::now());
        let passed = (0..200).filter(|who| throttle.admit_at(*who, start).is_ok()).count();
        assert_eq!(passed, 200, "a crowd holds up nobody");
        assert!(throttle.cells().rested.len() <= 100);
        let later = start + Duration::from_secs(31);
        for who in 500..550 {
            assert_eq!(waits(throttle.admit_at(who, later)), None);
        }
        let left = throttle.cells().rested.len();
        assert!(left <= 50, "{left} are kept in mind, and those before have rested");
    }

    #[test]
    fn a_crowd_does_not_free_who_is_held_up() {
        let (throttle, start) = (throttle(3, 100), Instant::now());
        for _ in 0..3 {
            throttle.admit_at(1_000, start).unwrap();
        }
        for who in 0..500 {
            throttle.admit_at(who, start).unwrap();
        }
        assert_eq!(waits(throttle.admit_at(1_000, start)), Some(30));
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one() {
        let of = |text: &str| network(Some(text.parse().unwrap())).unwrap().to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(network(None), None);
    }
}
