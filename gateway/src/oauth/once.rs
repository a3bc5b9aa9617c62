//! What is good once: remembered until it would not be good any more, in a table of bounded size.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kernel::Timestamp;

/// As many are remembered.
const MOST: usize = 16_384;

/// What was used, and until when it would be good, in seconds.
#[derive(Default)]
pub struct Once(Mutex<HashMap<String, i64>>);

impl Once {
    /// Whether this is used for the first time. From then on it is not.
    pub fn is_first(&self, what: &str, until: i64) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MOST {
            let now = Timestamp::now().as_secs();
            used.retain(|_, until| *until > now);
            let first = used.iter().min_by_key(|(_, until)| **until).map(|(what, _)| what.clone());
            if let Some(first) = first.filter(|_| used.len() >= MOST) {
                used.remove(&first);
            }
        }
        used.insert(what.to_owned(), until).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_used_and_the_table_stays_small() {
        let (once, now) = (Once::default(), Timestamp::now().as_secs());
        assert!(once.is_first("a", now + 60));
        assert!(!once.is_first("a", now + 60));
        for n in 0..MOST {
            assert!(once.is_first(&n.to_string(), now - 1), "{n}");
        }
        assert!(once.0.lock().unwrap().len() <= MOST);
        assert!(!once.is_first("a", now + 60), "those go first that are over");
    }
}
