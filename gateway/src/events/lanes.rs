//! What is known of the lanes of one environment while it is looked after: which are being told, which rest, and until when.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use capabilities::events::{Lane, Settled};
use kernel::Timestamp;

/// How long a lane, or an environment, rests that was broken off, at first; each time twice as long, up to a minute.
const AGAIN: Duration = Duration::from_secs(1);

/// How long rests what was broken off so often in a row.
pub(super) fn rest(failures: u32) -> Duration {
    (AGAIN * (1 << failures.saturating_sub(1).min(6))).min(Duration::from_secs(60))
}

/// How long it is until then.
pub(super) fn until(due: Timestamp) -> Duration {
    let micros = due.as_micros().saturating_sub(Timestamp::now().as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// What a lane is remembered by from one time that it is told to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What has come of events, as far as that is not noted.
    pub settled: Vec<Settled>,
    /// How often in a row it was broken off.
    pub failures: u32,
    /// How many events have gone that nobody listens to any more.
    pub dropped: u64,
    rests: Option<Timestamp>,
    served: u64,
}

/// The lanes of one environment.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Those in which something waits, other than those that are being told.
    known: HashMap<Lane, Memory>,
    active: HashSet<Lane>,
    served: u64,
    /// When it was looked last whether more waits than may.
    pub trimmed: Option<Instant>,
}

impl Lanes {
    /// Those of `waiting` that are to be told now; whoever was not for the longest time is the first.
    pub fn ready(&mut self, waiting: Vec<Lane>) -> Vec<Lane> {
        let waiting: HashSet<Lane> = waiting.into_iter().filter(|it| !self.active.contains(it)).collect();
        self.known.retain(|lane, _| waiting.contains(lane));
        for lane in waiting {
            self.known.entry(lane).or_default();
        }
        let now = Timestamp::now();
        let ready = self.known.iter().filter(|(_, it)| it.rests.is_none_or(|until| until <= now));
        let mut ready: Vec<_> = ready.map(|(lane, it)| (it.served, lane.clone())).collect();
        ready.sort_by_key(|(served, _)| *served);
        ready.into_iter().map(|(_, lane)| lane).collect()
    }

    /// One is being told from here on.
    pub fn begin(&mut self, lane: &Lane) -> Memory {
        self.served += 1;
        self.active.insert(lane.clone());
        let memory = self.known.remove(lane).unwrap_or_default();
        Memory { served: self.served, ..memory }
    }

    /// It is not being told any more, and rests until then.
    pub fn end(&mut self, lane: Lane, memory: Memory, rests: Option<Timestamp>) {
        self.active.remove(&lane);
        self.known.insert(lane, Memory { rests, ..memory });
    }

    /// How many are being told.
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// How long it is until the next one is over with its rest; none where none rests.
    pub fn next(&self) -> Option<Duration> {
        let rests = self.known.values().filter_map(|it| it.rests.map(until));
        rests.filter(|left| !left.is_zero()).min()
    }

    /// How long it is until one of those is to be told that are not; none where there are none.
    pub fn rest(&self) -> Option<Duration> {
        let rests = |it: &Memory| it.rests.map_or(Duration::ZERO, until);
        self.known.values().map(rests).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(about: &str) -> Lane {
        Lane { function: "f".to_owned(), on: "rows".to_owned(), about: about.to_owned() }
    }

    fn later() -> Option<Timestamp> {
        Some(Timestamp::now().plus(Duration::from_secs(60)))
    }

    #[test]
    fn each_lane_has_its_turn_and_those_that_rest_hold_up_no_other() {
        let all = || vec![lane("a"), lane("b"), lane("c")];
        let mut lanes = Lanes::default();
        assert_eq!(lanes.rest(), None);
        assert_eq!(lanes.ready(all()).len(), 3);
        let (a, b) = (lanes.begin(&lane("a")), lanes.begin(&lane("b")));
        assert_eq!((lanes.ready(all()), lanes.active()), (vec![lane("c")], 2));
        lanes.end(lane("b"), b, None);
        lanes.end(lane("a"), a, None);
        assert_eq!(lanes.ready(all()), [lane("c"), lane("a"), lane("b")], "who was told last is the last");
        let a = lanes.begin(&lane("a"));
        lanes.end(lane("a"), Memory { failures: 3, ..a }, later());
        assert_eq!(lanes.ready(all()), [lane("c"), lane("b")]);
        assert_eq!(lanes.rest(), Some(Duration::ZERO));
        assert_eq!(lanes.ready(vec![lane("a")]), []);
        assert!(lanes.rest() > Some(Duration::from_secs(50)));
        // It remembers what it has to, as long as something waits in it.
        assert_eq!(lanes.begin(&lane("a")).failures, 3);
        lanes.end(lane("a"), Memory { failures: 3, ..Memory::default() }, None);
        assert_eq!((lanes.ready(Vec::new()), lanes.rest()), (vec![], None));
        assert_eq!(lanes.begin(&lane("a")).failures, 0);
    }

    #[test]
    fn what_is_broken_off_again_and_again_rests_for_longer_and_longer() {
        let seconds: Vec<_> = (0..9).map(|failures| rest(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
