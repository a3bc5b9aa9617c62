//! The bounds of the statement that runs on a connection: time, memory, and whoever wants it to stop.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::Error;
use super::guard;

/// How long after a bound the engine may take to notice, in a function that runs long within one operation,
/// before the connection is given up.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How many statements run in this process. The engine counts the memory of all of them together, so each is allowed
/// what all may take: one that needs little is not stopped for what others need.
static RUNNING: AtomicI64 = AtomicI64::new(0);

/// Why a statement was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stop {
    Deadline = 1,
    Cancelled = 2,
    Memory = 3,
    /// Memory too, while others ran, who may have taken it.
    Crowd = 4,
    /// It is more than is done on the thread of who asks.
    Long = 5,
}

/// The bounds of the statement that runs on a connection; its own thread asks every few operations.
pub(super) struct Watch {
    origin: Instant,
    limit_ms: AtomicU64,
    deadline_ms: AtomicU64,
    /// How often it may still be asked before it is long.
    looks: AtomicU32,
    memory_bytes: i64,
    /// What the engine had taken when the statement began.
    memory_before: AtomicI64,
    counted: AtomicBool,
    /// Whether others have run beside it: what they leave is given back a moment after they have ended.
    crowded: AtomicBool,
    stopped: AtomicU8,
    abandoned: AtomicBool,
}

impl Watch {
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            origin: Instant::now(),
            limit_ms: AtomicU64::new(0),
            deadline_ms: AtomicU64::new(u64::MAX),
            looks: AtomicU32::new(u32::MAX),
            memory_bytes: i64::try_from(memory_bytes).unwrap_or(i64::MAX),
            memory_before: AtomicI64::new(i64::MAX),
            counted: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            stopped: AtomicU8::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Runs `work`, statements of this watch's connection, for at most `limit`.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.begin(limit);
        let result = tokio::time::timeout(limit.saturating_add(GRACE), work).await;
        self.end();
        result.unwrap_or_else(|_| {
            self.abandon();
            Err(Error::TooSlow(limit))
        })
    }

    /// From now on, statements of this watch's connection have `limit` to run.
    pub fn begin(&self, limit: Duration) {
        self.begin_with(limit, u32::MAX);
    }

    /// The same, until they have been looked at so often.
    pub fn begin_with(&self, limit: Duration, looks: u32) {
        self.looks.store(looks, Ordering::Relaxed);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.limit_ms.store(limit_ms, Ordering::Relaxed);
        self.stopped.store(0, Ordering::Relaxed);
        self.memory_before.store(guard::memory_used(), Ordering::Relaxed);
        if !self.counted.swap(true, Ordering::Relaxed) {
            let others = RUNNING.fetch_add(1, Ordering::Relaxed);
            self.crowded.store(others > 0, Ordering::Relaxed);
        }
        self.deadline_ms.store(self.now_ms().saturating_add(limit_ms), Ordering::Relaxed);
    }

    /// What [`Watch::begin`] began is over.
    pub fn end(&self) {
        self.deadline_ms.store(u64::MAX, Ordering::Relaxed);
        if self.counted.swap(false, Ordering::Relaxed) {
            RUNNING.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The engine does not come back, though its time is over.
    pub fn abandon(&self) {
        self.stop(Stop::Deadline);
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether the engine has not come back in time, so that the state of the connection is not known.
    pub fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Stops the statement that runs, if one does.
    pub fn stop(&self, why: Stop) {
        let _ = self.stopped.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why it was stopped, if it was.
    pub fn stopped(&self) -> Option<Stop> {
        match self.stopped.load(Ordering::Relaxed) {
            1 => Some(Stop::Deadline),
            2 => Some(Stop::Cancelled),
            3 => Some(Stop::Memory),
            4 => Some(Stop::Crowd),
            5 => Some(Stop::Long),
            _ => None,
        }
    }

    /// How long it may run.
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms.load(Ordering::Relaxed))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it may go on; asked by the connection's own thread every few operations.
    pub fn goes_on(&self) -> bool {
        let looks = self.looks.load(Ordering::Relaxed);
        if looks < u32::MAX {
            // Nobody else asks.
            self.looks.store(looks.saturating_sub(1), Ordering::Relaxed);
            if looks == 0 {
                self.stop(Stop::Long);
            }
        }
        if self.now_ms() > self.deadline_ms.load(Ordering::Relaxed) {
            self.stop(Stop::Deadline);
        }
        let running = RUNNING.load(Ordering::Relaxed).max(1);
        if running > 1 {
            self.crowded.store(true, Ordering::Relaxed);
        }
        let taken = guard::memory_used().saturating_sub(self.memory_before.load(Ordering::Relaxed));
        if taken > self.memory_bytes.saturating_mul(running) {
            self.stop(if self.crowded.load(Ordering::Relaxed) { Stop::Crowd } else { Stop::Memory });
        }
        self.stopped.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Watch {
    /// A statement that was given up with its connection does not run any more.
    fn drop(&mut self) {
        self.end();
    }
}
