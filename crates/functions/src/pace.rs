//! How fast something may come that costs the platform what it does not cost whoever makes it.

use std::time::{Duration, Instant};

/// A bucket of tokens that fills at a steady pace.
#[derive(Debug)]
pub(crate) struct Pace {
    tokens: f64,
    most: f64,
    per_second: f64,
    at: Instant,
}

impl Pace {
    /// That many a second, and for a moment `burst` more.
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { tokens: burst, most: burst, per_second, at: Instant::now() }
    }

    /// Takes tokens, and says how long to wait until they are there.
    pub fn take(&mut self, tokens: f64) -> Duration {
        self.take_at(Instant::now(), tokens)
    }

    fn take_at(&mut self, now: Instant, tokens: f64) -> Duration {
        let came = (now - self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.tokens = (self.tokens + came).min(self.most) - tokens;
        if self.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / self.per_second)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_faster_waits() {
        let mut pace = Pace::new(10.0, 5.0);
        let now = pace.at;
        assert_eq!(pace.take_at(now, 5.0), Duration::ZERO);
        assert_eq!(pace.take_at(now, 1.0), Duration::from_millis(100));
        assert_eq!(pace.take_at(now, 1.0), Duration::from_millis(200));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.take_at(later, 5.0), Duration::ZERO, "no more gathers than the burst");
        assert!(pace.take_at(later, 0.1) > Duration::ZERO);
    }
}
