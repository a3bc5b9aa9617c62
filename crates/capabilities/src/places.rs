//! Room for what waits: a share for each environment, so that none takes the room of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::EnvId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many places for each environment, and a bound on all of them.
pub(crate) struct Places {
    each: usize,
    all: Arc<Semaphore>,
    own: Mutex<HashMap<EnvId, Arc<Semaphore>>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

/// So few are never worth a walk.
const FEW: usize = 64;

impl Places {
    /// `each` is far below `all`.
    pub fn new(all: usize, each: usize) -> Self {
        Self { each, all: Arc::new(Semaphore::new(all)), own: Mutex::default() }
    }

    /// A place for something of `env`; none where it has its share, or there is no room at all. Does not wait.
    pub fn take(&self, env: EnvId) -> Option<Place> {
        let own = {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            if own.len() >= FEW {
                // Whoever has a place holds the share too.
                own.retain(|_, share| Arc::strong_count(share) > 1);
            }
            Arc::clone(own.entry(env).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let own = own.try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _all: all, _own: own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_share_and_what_is_dropped_is_free_again() {
        let places = Places::new(5, 2);
        let take = |env, n: usize| (0..n).filter_map(|_| places.take(env)).collect::<Vec<_>>();
        let (one, two, three) = (EnvId::new(), EnvId::new(), EnvId::new());
        let of_one = take(one, 9);
        assert_eq!((of_one.len(), take(two, 9).len()), (2, 2), "a full share is nobody else's");
        let of_two = take(two, 9);
        let of_three = take(three, 9);
        assert_eq!((of_two.len(), of_three.len()), (2, 1), "all together are bounded");
        drop(of_one);
        assert_eq!(take(one, 9).len(), 2);
        assert_eq!(take(three, 9).len(), 1);
    }

    #[test]
    fn shares_that_nobody_uses_are_forgotten_and_others_are_not() {
        let places = Places::new(1_000, 1);
        let kept = EnvId::new();
        let _place = places.take(kept).unwrap();
        for _ in 0..200 {
            assert!(places.take(EnvId::new()).is_some());
        }
        assert!(places.own.lock().unwrap().len() <= FEW);
        assert!(places.take(kept).is_none());
    }
}
