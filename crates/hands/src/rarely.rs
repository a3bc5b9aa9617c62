//! What is done to a workspace again and again: by one at a time, and for no more than a share of the time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The share of the time.
const SHARE: u32 = 10;

/// Whether, and when, it is done next.
#[derive(Debug)]
pub(crate) struct Rarely(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Never again.
    Never,
    /// From then on.
    From(Instant),
    /// It is done, since then.
    Since(Instant),
}

impl Default for Rarely {
    fn default() -> Self {
        Self(Mutex::new(State::From(Instant::now())))
    }
}

impl Rarely {
    /// Whether it is time to do it. Who is told so does it.
    pub fn begin(&self) -> bool {
        self.begin_where(|from| from <= Instant::now())
    }

    /// The same before its time, unless somebody is about it.
    pub fn begin_early(&self) -> bool {
        self.begin_where(|_| true)
    }

    fn begin_where(&self, due: impl FnOnce(Instant) -> bool) -> bool {
        let mut state = self.state();
        let due = matches!(*state, State::From(at) if due(at));
        if due {
            *state = State::Since(Instant::now());
        }
        due
    }

    /// It begins only now: that it had to wait is not counted.
    pub fn begins(&self) {
        if let State::Since(began) = &mut *self.state() {
            *began = Instant::now();
        }
    }

    /// It was done, or could not be: what takes long is done less often, and nothing before `least` has passed.
    pub fn done(&self, least: Duration) {
        let mut state = self.state();
        if let State::Since(began) = *state {
            *state = State::From(Instant::now() + least.max(began.elapsed() * SHARE));
        }
    }

    /// It need not be done any more.
    pub fn never_again(&self) {
        *self.state() = State::Never;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_by_one_at_a_time_and_not_before_its_time() {
        let rarely = Rarely::default();
        assert!(rarely.begin());
        assert!(!rarely.begin() && !rarely.begin_early());
        rarely.done(Duration::from_secs(1_000));
        assert!(!rarely.begin());
        assert!(rarely.begin_early());
        rarely.done(Duration::ZERO);
        rarely.never_again();
        assert!(!rarely.begin() && !rarely.begin_early());
    }

    #[test]
    fn how_long_it_takes_says_when_it_is_done_next_and_how_long_it_has_waited_does_not() {
        let next = |rarely: &Rarely| match *rarely.state() {
            State::From(at) => at.saturating_duration_since(Instant::now()),
            other => panic!("{other:?}"),
        };
        let since = |rarely: &Rarely, ago| *rarely.state() = State::Since(Instant::now() - ago);
        let (rarely, long) = (Rarely::default(), Duration::from_secs(1_000));
        since(&rarely, long);
        rarely.done(Duration::ZERO);
        assert!(next(&rarely) > 9 * long);
        since(&rarely, long);
        rarely.begins();
        rarely.done(Duration::ZERO);
        assert!(next(&rarely) < long);
    }
}
