//! How often routes are asked, counted in a table of fixed size.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use capabilities::routes::{By, LimitSpec};
use kernel::{Code, Error, LimitInfo, LimitScope, Result};

/// How many places there are for those whose hashes begin alike, and how many such lots.
const PLACES: usize = 8;
const LOTS: usize = 1 << 14;

/// Admits by the generic cell rate algorithm. However many ask, the table stays as large as it is: where a lot is full,
/// who has rested most is forgotten, so that a crowd drives out neither those who wait nor the app's memory.
pub(super) struct Limits {
    hasher: RandomState,
    began: Instant,
    /// Made when the first route with a limit is asked.
    lots: OnceLock<Mutex<Vec<[Cell; PLACES]>>>,
}

/// Who it is, by a hash that is never 0, and when they have rested, in microseconds since the beginning.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    who: u64,
    rested: u64,
}

impl Limits {
    pub fn new() -> Self {
        Self { hasher: RandomState::new(), began: Instant::now(), lots: OnceLock::new() }
    }

    /// Lets `who` pass once more, and says what is left.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn admit(&self, who: &impl Hash, limit: &LimitSpec) -> Result<LimitInfo> {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.admit_at(who, limit, now)
    }

    fn admit_at(&self, who: &impl Hash, limit: &LimitSpec, now: u64) -> Result<LimitInfo> {
        let hash = self.hasher.hash_one(who);
        let lot = usize::try_from(hash >> 32).unwrap_or_default() % LOTS;
        let who = hash | 1;
        let window = u64::from(limit.per.seconds()) * 1_000_000;
        let quota = u64::from(limit.requests.max(1));
        let every = (window / quota).max(1);
        let scope = match limit.by {
            By::Ip => LimitScope::Address,
            By::User => LimitScope::User,
            By::Route => LimitScope::Route,
        };
        let told = |left, until: u64| {
            LimitInfo::new(limit.by.as_str(), scope, quota, "requests")
                .window(limit.per.seconds().into())
                .left(left)
                .reset(until.div_ceil(1_000_000))
        };

        let lots = self.lots.get_or_init(|| Mutex::new(vec![[Cell::default(); PLACES]; LOTS]));
        let mut lots = lots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lot) = lots.get_mut(lot) else { return Err(Error::internal("there is no such lot")) };
        let known = lot.iter().position(|cell| cell.who == who);
        let place = known.or_else(|| (0..PLACES).min_by_key(|place| lot[*place].rested)).unwrap_or_default();
        let rested = known.map_or(now, |known| lot[known].rested.max(now));
        let ahead = rested - now;
        let most = every * (quota - 1);
        if ahead > most {
            let wait = ahead - most;
            return Err(Error::new(Code::RateLimited, "there were too many requests")
                .retry_after(Duration::from_micros(wait))
                .limit(told(0, wait))
                .hint("wait as long as Retry-After says, then go on slower"));
        }
        lot[place] = Cell { who, rested: rested + every };
        let ahead = ahead + every;
        Ok(told(quota.saturating_sub(ahead.div_ceil(every)), ahead))
    }
}

#[cfg(test)]
mod tests {
    use capabilities::routes::{By, Window};

    use super::*;

    const LIMIT: LimitSpec = LimitSpec { requests: 3, per: Window::Minute, by: By::Ip };

    fn at(limits: &Limits, who: u32, second: u64) -> Result<(u64, u64), u64> {
        let told = limits.admit_at(&who, &LIMIT, second * 1_000_000);
        told.map(|info| (info.left, info.reset_s.unwrap())).map_err(|e| e.retry_after_secs().unwrap())
    }

    #[test]
    fn so_many_pass_at_once_and_then_one_in_each_part_of_the_time() {
        let limits = Limits::new();
        let seen = [0, 0, 0, 0, 10, 20, 20, 39, 40].map(|second| at(&limits, 1, second));
        assert_eq!(
            seen,
            [
                Ok((2, 20)),
                Ok((1, 40)),
                Ok((0, 60)),
                Err(20),
                Err(10),
                Ok((0, 60)),
                Err(20),
                Err(1),
                Ok((0, 60))
            ]
        );
        assert_eq!(at(&limits, 2, 40), Ok((2, 20)), "another is counted for itself");
        assert_eq!(at(&limits, 1, 9_000), Ok((2, 20)), "who has rested begins anew");
    }

    #[test]
    fn a_million_others_take_no_more_room_and_set_nobody_free() {
        let limits = Limits::new();
        for _ in 0..3 {
            at(&limits, 0, 0).unwrap();
        }
        for who in 1..=1_000_000 {
            at(&limits, who, 0).unwrap();
        }
        assert_eq!(at(&limits, 0, 0), Err(20));
        assert_eq!(at(&limits, 1_000_001, 0), Ok((2, 20)), "newcomers still pass");
        let lots = limits.lots.get().unwrap().lock().unwrap();
        assert_eq!((lots.len(), lots.capacity(), size_of_val(&lots[0])), (LOTS, LOTS, 128));
    }
}
