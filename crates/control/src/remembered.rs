//! A bounded memory of what the database said, that never keeps what a change has overtaken.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

/// Answers by question, each for a short time.
pub(crate) struct Remembered<K, V> {
    answers: Cache<K, (V, Instant)>,
    /// Counts changes, so that an answer read before one is not kept after it.
    changes: AtomicU64,
    lifetime: Duration,
}

/// The moment before a question is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked(u64);

impl<K: Eq + Hash + Clone, V: Clone> Remembered<K, V> {
    pub(crate) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { answers: Cache::new(capacity), changes: AtomicU64::new(0), lifetime }
    }

    pub(crate) fn get(&self, question: &K) -> Option<V> {
        let (answer, at) = self.answers.get(question)?;
        (at.elapsed() < self.lifetime).then_some(answer)
    }

    /// To be called before the database is asked.
    pub(crate) fn asking(&self) -> Asked {
        Asked(self.changes.load(Ordering::SeqCst))
    }

    /// Keeps an answer, except where something has changed since the question was asked.
    pub(crate) fn keep(&self, asked: Asked, question: K, answer: V) {
        self.answers.insert(question.clone(), (answer, Instant::now()));
        // Looked at after the insertion: a change either sees the answer and drops it, or is seen here.
        if self.changes.load(Ordering::SeqCst) != asked.0 {
            self.answers.remove(&question);
        }
    }

    /// To be called after a change is on disk: drops the answers that it overtook.
    pub(crate) fn forget(&self, overtaken: impl Fn(&K, &V) -> bool) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.answers.retain(|question, (answer, _)| !overtaken(question, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_read_before_a_change_is_not_kept_after_it() {
        let memory = Remembered::new(10, Duration::from_secs(60));
        let asked = memory.asking();
        memory.keep(asked, 1, "live");
        assert_eq!(memory.get(&1), Some("live"));
        let asked = memory.asking();
        memory.forget(|question, _| *question == 1);
        assert_eq!(memory.get(&1), None);
        memory.keep(asked, 1, "live");
        assert_eq!(memory.get(&1), None);
    }

    #[test]
    fn an_answer_ends_with_its_time() {
        let memory = Remembered::new(10, Duration::ZERO);
        memory.keep(memory.asking(), 1, "live");
        assert_eq!(memory.get(&1), None);
    }

    #[test]
    fn it_does_not_grow_beyond_its_capacity() {
        let memory = Remembered::new(100, Duration::from_secs(60));
        for question in 0..10_000 {
            memory.keep(memory.asking(), question, ());
        }
        assert!(memory.answers.len() <= 200, "{}", memory.answers.len());
    }
}
