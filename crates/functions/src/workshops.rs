//! Who builds when: functions and services of all environments have the machine's places in common, and no environment has more
//! than one of them.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::{Code, EnvId, Error, Result, WorkspaceId};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::supervisor::Inner;

/// How long a build waits for those of other environments.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// Builds of one environment that may wait for each other.
const WAITING: usize = 16;

/// Environments whose packages are kept for their next build.
const WORKSHOPS: usize = 20;

/// Where an environment's functions are built.
#[derive(Debug, Default)]
pub(crate) struct Workshop {
    /// Its workspace, made with the first build. Who builds has it.
    place: Mutex<Option<WorkspaceId>>,
}

/// Workshops by environment, and when each was used last; and the places of all that build. Functions and services have them
/// in common, and an environment has one at a time.
pub(crate) struct Workshops {
    all: std::sync::Mutex<HashMap<EnvId, (Arc<Workshop>, Instant)>>,
    places: Semaphore,
    longest: Duration,
}

impl Workshops {
    /// Where so many build at once, and nobody waits longer for others.
    pub fn new(at_once: usize, longest: Duration) -> Self {
        Self { all: std::sync::Mutex::default(), places: Semaphore::new(at_once), longest }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EnvId, (Arc<Workshop>, Instant)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workshop of an environment, and those that have to go for it.
    ///
    /// # Errors
    /// `unavailable` where many wait for it.
    pub fn of(&self, env: EnvId) -> Result<(Arc<Workshop>, Vec<Arc<Workshop>>)> {
        let mut all = self.lock();
        let now = Instant::now();
        let (workshop, used) = all.entry(env).or_insert_with(|| (Arc::default(), now));
        *used = now;
        let workshop = Arc::clone(workshop);
        // Each that builds or waits has one.
        if Arc::strong_count(&workshop) > WAITING + 2 {
            return Err(Error::new(Code::Unavailable, "many functions of this environment wait to be built")
                .retry_after(Duration::from_secs(5))
                .hint("deploy fewer of them at once"));
        }
        let mut surplus = Vec::new();
        while all.len() > WORKSHOPS {
            // One in which somebody builds stays: with another one beside it its environment would have two places.
            let idle = all.iter().filter(|(_, (workshop, _))| Arc::strong_count(workshop) == 1);
            let Some(oldest) = idle.min_by_key(|(_, (_, used))| *used).map(|(env, _)| *env) else { break };
            surplus.extend(all.remove(&oldest).map(|(workshop, _)| workshop));
        }
        Ok((workshop, surplus))
    }

    /// A place to build in this workshop, when it is its turn: who comes first has it first.
    ///
    /// # Errors
    /// `unavailable` where those of other environments take too long.
    pub async fn turn<'a>(
        &'a self,
        workshop: &'a Workshop,
    ) -> Result<(tokio::sync::MutexGuard<'a, Option<WorkspaceId>>, SemaphorePermit<'a>)> {
        let place = workshop.place.lock().await;
        let turn = timeout(self.longest, self.places.acquire()).await.map_err(|_| {
            let message = "what other environments build takes all places of this machine";
            Error::new(Code::Unavailable, message)
                .retry_after(Duration::from_secs(60))
                .hint("deploy it again in some minutes; nothing has changed")
        })?;
        Ok((place, turn.map_err(Error::internal)?))
    }
}

impl Inner {
    /// Removes what was kept for the next build of an environment.
    pub async fn forget_workshop(&self, env: EnvId) {
        let workshop = self.workshops.lock().remove(&env);
        if let Some((workshop, _)) = workshop {
            self.close_workshop(&workshop).await;
        }
    }

    pub async fn close_workshop(&self, workshop: &Workshop) {
        if let Some(id) = workshop.place.lock().await.take() {
            self.remove_workspace(id).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_environment_has_one_place_and_others_have_their_turn() {
        let workshops = Workshops::new(2, Duration::from_millis(20));
        let env = EnvId::new();
        let (own, _) = workshops.of(env).unwrap();
        let first = workshops.turn(&own).await.unwrap();
        // However much it wants to build, the other place is a neighbour's.
        let waits: Vec<_> = (0..WAITING).map(|_| workshops.of(env).unwrap().0).collect();
        let mut waiting = Box::pin(workshops.turn(&waits[0]));
        assert!(waiting.as_mut().now_or_never().is_none());
        let (others, _) = workshops.of(EnvId::new()).unwrap();
        let second = workshops.turn(&others).await.unwrap();
        let refused = workshops.of(env).unwrap_err();
        assert_eq!(refused.message(), "many functions of this environment wait to be built");
        // A third environment waits for a while, and is told why it was in vain.
        let (third, _) = workshops.of(EnvId::new()).unwrap();
        let refused = workshops.turn(&third).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unavailable, "what other environments build takes all places of this machine")
        );
        drop(second);
        drop(workshops.turn(&third).await.unwrap());
        drop(first);
        drop(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_workshop_in_which_somebody_builds_is_the_environments_for_as_long() {
        let workshops = Workshops::new(2, LONGEST);
        let env = EnvId::new();
        let (own, _) = workshops.of(env).unwrap();
        let mut gone = 0;
        for _ in 0..2 * WORKSHOPS {
            gone += workshops.of(EnvId::new()).unwrap().1.len();
        }
        assert!(gone >= WORKSHOPS);
        assert!(Arc::ptr_eq(&own, &workshops.of(env).unwrap().0), "it would have two places");
        drop(own);
        for _ in 0..2 * WORKSHOPS {
            drop(workshops.of(EnvId::new()).unwrap());
        }
        assert!(!workshops.lock().contains_key(&env));
    }
}
