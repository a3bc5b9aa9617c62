//! How fast one environment may log, so that it neither fills the disk's time nor pushes out what matters.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Level;

/// How many entries each part of an environment's log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// In a second; ten times as many at once. Warnings and errors have as many of their own, so that a crowd of usual
    /// requests does not hide them.
    pub per_second: NonZeroU32,
}

/// How many seconds' entries may come at once.
const BURST: u32 = 10;

impl Default for Pace {
    fn default() -> Self {
        Self { per_second: NonZeroU32::MIN.saturating_add(199) }
    }
}

/// What one part of a log has taken, and what it has refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paced {
    /// When it has rested, from what is usual and from what is not.
    usual: Instant,
    failing: Instant,
    pub dropped: u64,
    /// When the log was told of it last.
    told: Option<Instant>,
}

/// How often a log says at most that it has dropped something.
const TOLD: Duration = Duration::from_secs(1);

impl Paced {
    pub fn new(now: Instant) -> Self {
        Self { usual: now, failing: now, dropped: 0, told: None }
    }

    /// Whether one more passes (generic cell rate algorithm).
    pub fn admits(&mut self, level: Level, pace: Pace, now: Instant) -> bool {
        let every = Duration::from_secs(1) / pace.per_second.get();
        let rested = if level >= Level::Warn { &mut self.failing } else { &mut self.usual };
        let from = (*rested).max(now);
        let most = Duration::from_secs(1).saturating_mul(BURST).saturating_sub(every);
        let passes = from.saturating_duration_since(now) <= most;
        if passes {
            *rested = from + every;
        }
        passes
    }

    /// How many were dropped since it was told last, where it is time to tell.
    pub fn tell(&mut self, now: Instant, haste: Haste) -> Option<u64> {
        let due =
            haste == Haste::Now || self.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD);
        if self.dropped == 0 || !due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }

    /// Whether there is nothing to be kept in mind of it.
    pub fn has_rested(&self, now: Instant) -> bool {
        let past = |told: Instant| now.saturating_duration_since(told) >= TOLD;
        self.usual <= now && self.failing <= now && self.dropped == 0 && self.told.is_none_or(past)
    }
}

/// Whether what is to be told waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    Now,
    InTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_usual_entries_leaves_room_for_failures() {
        let (pace, start) = (Pace { per_second: NonZeroU32::new(2).unwrap() }, Instant::now());
        let mut paced = Paced::new(start);
        let mut passed = |level, second| {
            let now = start + Duration::from_secs(second);
            (0..100).filter(|_| paced.admits(level, pace, now)).count()
        };
        assert_eq!([passed(Level::Info, 0), passed(Level::Debug, 0), passed(Level::Info, 1)], [20, 0, 2]);
        assert_eq!([passed(Level::Error, 1), passed(Level::Warn, 1), passed(Level::Warn, 2)], [20, 0, 2]);
        assert_eq!(passed(Level::Info, 1_000), 20, "rest is not saved up");
    }

    #[test]
    fn what_was_dropped_is_told_once_a_second_and_at_once_where_somebody_reads() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut paced = Paced::new(start);
        let mut told = |dropped: u64, millis, haste| {
            paced.dropped += dropped;
            (paced.tell(at(millis), haste), paced.has_rested(at(millis)))
        };
        assert_eq!(told(0, 0, Haste::Now), (None, true));
        assert_eq!(told(3, 1, Haste::InTime), (Some(3), false));
        assert_eq!(told(2, 500, Haste::InTime), (None, false));
        assert_eq!(told(1, 600, Haste::Now), (Some(3), false));
        assert_eq!(told(1, 1_700, Haste::InTime), (Some(1), false));
        assert_eq!(told(0, 2_701, Haste::InTime), (None, true));
    }
}
