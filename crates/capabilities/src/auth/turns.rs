//! Whose turn it is to do costly work: a few at once, and the crowd of one environment stands before nobody of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{EnvId, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns at costly work. Each environment has a queue of its own, and only as many of it stand in the common one as can have a turn.
pub struct Turns {
    at_once: usize,
    common: Arc<Semaphore>,
    own: Mutex<HashMap<EnvId, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub struct Turn {
    _common: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

/// So few queues are never worth a walk.
const FEW: usize = 64;

impl Turns {
    /// Turns of which `at_once`, and one where that is none, are taken at a time.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self { at_once, common: Arc::new(Semaphore::new(at_once)), own: Mutex::default() }
    }

    /// Waits for a turn of `env` that counts for `size` of those that are under way at once.
    ///
    /// # Errors
    /// None today.
    pub async fn take(&self, env: EnvId, size: usize) -> Result<Turn> {
        let size = size.clamp(1, self.at_once) as u32;
        let own = self.own(env).acquire_many_owned(size).await.map_err(Error::internal)?;
        let common = Arc::clone(&self.common).acquire_many_owned(size).await.map_err(Error::internal)?;
        Ok(Turn { _common: common, _own: own })
    }

    fn own(&self, env: EnvId) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() >= FEW {
            // Who waits and who has a turn holds the queue too.
            own.retain(|_, queue| Arc::strong_count(queue) > 1);
        }
        Arc::clone(own.entry(env).or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_crowd_of_one_environment_holds_up_no_other() {
        let (turns, order) = (Arc::new(Turns::new(2)), Arc::new(Mutex::new(Vec::new())));
        let (crowded, other) = (EnvId::new(), EnvId::new());
        let first = [turns.take(crowded, 1).await.unwrap(), turns.take(crowded, 1).await.unwrap()];
        let mut asking = Vec::new();
        for env in [crowded; 50].into_iter().chain([other]) {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            asking.push(tokio::spawn(async move {
                let _turn = turns.take(env, 1).await.unwrap();
                order.lock().unwrap().push(env);
                tokio::task::yield_now().await;
            }));
            tokio::task::yield_now().await;
        }
        assert!(order.lock().unwrap().is_empty(), "two at once");
        drop(first);
        futures::future::join_all(asking).await;
        let order = order.lock().unwrap();
        let at = order.iter().position(|env| *env == other).unwrap();
        assert!(order.len() == 51 && at <= 2, "{at}");
    }

    #[tokio::test]
    async fn empty_queues_are_forgotten() {
        let turns = Turns::new(1);
        let held = turns.take(EnvId::new(), 1).await.unwrap();
        for _ in 0..200 {
            let waiting = turns.take(EnvId::new(), 1);
            assert!(futures::FutureExt::now_or_never(waiting).is_none(), "one at once");
        }
        assert!(turns.own.lock().unwrap().len() <= FEW);
        drop(held);
        turns.take(EnvId::new(), 1).await.unwrap();
    }
}
