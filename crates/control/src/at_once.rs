//! How many of one kind are under way at once, for each who is counted.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::{Code, Error, LimitInfo, LimitScope, Result};
use tokio::sync::oneshot;

/// How long one waits for a place.
const PATIENCE: Duration = Duration::from_secs(2);
/// Those who wait for one that there is; more are refused at once.
const WAITING: usize = 4;

/// Counts what is under way. Who comes when all places are taken waits in line for a moment.
pub(crate) struct AtOnce<K: Copy + Eq + Hash>(Arc<Inner<K>>);

struct Inner<K> {
    scope: LimitScope,
    name: &'static str,
    unit: &'static str,
    counts: Mutex<HashMap<K, Count>>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Count {
    underway: u64,
    /// What was allowed when somebody came last.
    most: u64,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// A place, given back when this goes.
pub(crate) struct Ticket<K: Copy + Eq + Hash> {
    counts: Arc<Inner<K>>,
    of: K,
}

impl<K: Copy + Eq + Hash> AtOnce<K> {
    pub fn new(scope: LimitScope, name: &'static str, unit: &'static str) -> Self {
        Self(Arc::new(Inner { scope, name, unit, counts: Mutex::default(), refused: AtomicU64::new(0) }))
    }

    /// How many are under way.
    pub fn count(&self, of: K) -> u64 {
        self.0.lock().get(&of).map_or(0, |count| count.underway)
    }

    /// How many did not get a place.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// A place, where one of `most` is free.
    pub fn take_now(&self, of: K, most: u64) -> Result<Ticket<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(of).or_default();
        count.most = most;
        if count.underway < most {
            count.underway += 1;
            return Ok(self.ticket(of));
        }
        drop(counts);
        Err(self.full(most))
    }

    /// A place of `most`, waited for in line.
    pub async fn take(&self, of: K, most: u64) -> Result<Ticket<K>> {
        let turn = {
            let mut counts = self.0.lock();
            let count = counts.entry(of).or_default();
            count.most = most;
            if count.underway < most && count.waiting.is_empty() {
                count.underway += 1;
                return Ok(self.ticket(of));
            }
            count.waiting.retain(|waiting| !waiting.is_closed());
            let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(WAITING);
            if count.waiting.len() >= room {
                drop(counts);
                return Err(self.full(most));
            }
            let (call, turn) = oneshot::channel();
            count.waiting.push_back(call);
            // Where a place was made by a larger bound, nobody else would call.
            count.admit();
            turn
        };
        let mut turn = Turn { at_once: self, of, turn };
        match tokio::time::timeout(PATIENCE, &mut turn.turn).await {
            Ok(Ok(())) => Ok(self.ticket(of)),
            _ => Err(self.full(most)),
        }
    }

    fn ticket(&self, of: K) -> Ticket<K> {
        Ticket { counts: Arc::clone(&self.0), of }
    }

    fn full(&self, most: u64) -> Error {
        let Inner { scope, name, unit, .. } = *self.0;
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        let info = LimitInfo::new(name, scope, most, unit)
            .reset(1)
            .raised("ask who runs the platform for a plan with more");
        Error::new(
            Code::RateLimited,
            format!("the {} has {most} {unit} under way, the most it may have", scope.as_str()),
        )
        .retry_after(Duration::from_secs(1))
        .limit(info)
        .hint("let some of them end, then go on with fewer at once")
    }
}

/// Who waits. A place that comes in the moment in which one gives up goes to the next one.
struct Turn<'a, K: Copy + Eq + Hash> {
    at_once: &'a AtOnce<K>,
    of: K,
    turn: oneshot::Receiver<()>,
}

impl<K: Copy + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turn.close();
        if self.turn.try_recv().is_ok() {
            drop(self.at_once.ticket(self.of));
        }
    }
}

impl Count {
    /// Calls those in line for whom there is a place.
    fn admit(&mut self) {
        while self.underway < self.most {
            let Some(next) = self.waiting.pop_front() else { return };
            if next.send(()).is_ok() {
                self.underway += 1;
            }
        }
    }
}

impl<K: Eq + Hash> Inner<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(&self.of) else { return };
        count.underway = count.underway.saturating_sub(1);
        count.admit();
        if count.underway == 0 && count.waiting.is_empty() {
            counts.remove(&self.of);
        }
    }
}

impl<K: Copy + Eq + Hash> fmt::Debug for Ticket<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("of", &self.counts.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn places() -> AtOnce<u32> {
        AtOnce::new(LimitScope::Tenant, "tenant_at_once", "calls at once")
    }

    #[tokio::test]
    async fn no_more_than_allowed_are_under_way_and_each_gets_its_turn() {
        let places = Arc::new(places());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all: Vec<_> = (0..12)
            .map(|_| {
                let (places, now, most) = (Arc::clone(&places), Arc::clone(&now), Arc::clone(&most));
                tokio::spawn(async move {
                    let _ticket = places.take(1, 3).await.unwrap();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        assert_eq!((most.load(Ordering::SeqCst), places.count(1)), (3, 0));
        assert!(places.0.lock().is_empty());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused_and_takes_no_place() {
        let places = Arc::new(places());
        let first = places.take(1, 1).await.unwrap();
        let refused = places.take(1, 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        assert_eq!(refused.limit_info().map(|info| info.value), Some(1));
        // Somebody else is not held up.
        drop(places.take(2, 1).await.unwrap());
        // One gives up while it waits.
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(1, 1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;
        drop(first);
        drop(places.take_now(1, 1).unwrap());
        assert!(places.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_place_that_comes_when_one_gives_up_goes_to_the_next() {
        let places = places();
        for _ in 0..200 {
            let first = places.take(1, 1).await.unwrap();
            {
                let mut waits = std::pin::pin!(places.take(1, 1));
                assert!(futures::poll!(&mut waits).is_pending());
                // It is called, and does not look any more.
                drop(first);
            }
            assert_eq!(places.count(1), 0);
        }
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let places = Arc::new(places());
        let _first = places.take(1, 1).await.unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let places = Arc::clone(&places);
                tokio::spawn(async move { places.take(1, 1).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        places.take(1, 1).await.unwrap_err();
        assert!(began.elapsed() < PATIENCE);
        for one in waiting {
            one.await.unwrap().unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_larger_bound_calls_those_in_line() {
        let places = Arc::new(places());
        let _first = places.take(1, 1).await.unwrap();
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(1, 1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(places.take(1, 3).await.unwrap());
        waiting.await.unwrap().unwrap();
    }
}
