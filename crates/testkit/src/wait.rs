//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);

/// Asks `condition` again and again until it gives a value, at most for `limit`; `None` when it never did.
pub fn eventually<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_waited_for_and_one_that_never_does_ends() {
        let mut asked = 0;
        let third = eventually(Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(third, Some(3));
        assert_eq!(eventually(Duration::from_millis(10), || None::<()>), None);
    }
}
