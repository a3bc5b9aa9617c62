//! Logs: what happened in an environment, as lines of JSON in a few bounded files of its own.

mod entry;
mod error;
mod files;
mod query;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::{Env, EnvId, Timestamp};
use tokio::sync::Notify;

pub use entry::{Entry, Level, Source};
pub use error::{Error, Result};
pub use query::{Page, Query};

use files::Files;

/// How many files an environment's log has, and how many bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How many files; the oldest is removed for a new one.
    pub files: usize,
    /// The size in bytes after which a file gets no more lines.
    pub file_bytes: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { files: 4, file_bytes: 2 << 20 }
    }
}

/// How many bytes may wait for the disk, for one environment and for all. What is over is dropped and counted.
const MAX_WAITING: usize = 256 << 10;
const MAX_WAITING_IN_ALL: usize = 16 << 20;

/// How long lines wait for others, to be written together.
const GATHER: Duration = Duration::from_millis(50);

/// The logs of all environments. Cheap to clone; [`Logs::append`] never waits.
#[derive(Debug, Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    envs_dir: PathBuf,
    rotation: Rotation,
    waiting: Mutex<Waiting>,
    arrived: Arc<Notify>,
    /// Held while lines go from memory to disk, so that they stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    envs: HashMap<EnvId, Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    dropped: u64,
}

impl Logs {
    /// Logs below `<envs_dir>/<env_id>/logs`, and the task that writes them, which ends when the last clone is
    /// dropped. Call [`Logs::flush`] before the program ends. Needs a tokio runtime.
    #[must_use]
    pub fn new(envs_dir: impl Into<PathBuf>) -> Self {
        Self::with_rotation(envs_dir, Rotation::default())
    }

    /// The same with other file sizes.
    #[must_use]
    pub fn with_rotation(envs_dir: impl Into<PathBuf>, rotation: Rotation) -> Self {
        let inner = Arc::new(Inner {
            envs_dir: envs_dir.into(),
            rotation,
            waiting: Mutex::default(),
            arrived: Arc::default(),
            writing: tokio::sync::Mutex::default(),
        });
        let logs = Self { inner };
        let weak = Arc::downgrade(&logs.inner);
        let arrived = Arc::clone(&logs.inner.arrived);
        tokio::spawn(async move {
            loop {
                arrived.notified().await;
                tokio::time::sleep(GATHER).await;
                let Some(inner) = weak.upgrade() else { return };
                Logs { inner }.flush().await;
            }
        });
        logs
    }

    /// Takes an entry in; it is on disk within a moment, or after [`Logs::flush`]. Where an environment logs
    /// faster than the disk writes, entries are dropped, and a later entry says how many. An environment
    /// whose directory does not exist (any more) has no log.
    ///
    /// Callers keep query strings, headers, bodies and secrets out of entries.
    pub fn append(&self, env: &Env, entry: Entry) {
        let line = entry.into_line();
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + line.len();
        let lines = waiting.envs.entry(env.id()).or_default();
        if bytes > MAX_WAITING_IN_ALL || lines.text.len() + line.len() > MAX_WAITING {
            lines.dropped += 1;
            return;
        }
        lines.text.extend_from_slice(&line);
        waiting.bytes = bytes;
        drop(waiting);
        self.inner.arrived.notify_one();
    }

    /// Writes everything that was appended before.
    pub async fn flush(&self) {
        let _writing = self.inner.writing.lock().await;
        let taken = std::mem::take(&mut *self.waiting());
        if taken.envs.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || {
            for (env, lines) in taken.envs {
                if let Err(error) = inner.files(env).append(&lines.with_drops()) {
                    tracing::warn!(env.id = %env, %error, "an environment's log cannot be written");
                }
            }
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "the logs could not be written");
        }
    }

    /// The environment's entries that match, newest first, including those appended just before.
    ///
    /// # Errors
    /// A cursor that is none of ours; the disk.
    pub async fn query(&self, env: &Env, query: Query) -> Result<Page> {
        self.flush().await;
        let files = self.inner.files(env.id());
        match tokio::task::spawn_blocking(move || query::run(&files, &query)).await {
            Ok(page) => page,
            Err(stopped) => Err(Error::Files(std::io::Error::other(stopped))),
        }
    }

    /// Removes what was written before `before`, but for the file that is being written; how many files.
    ///
    /// # Errors
    /// The disk.
    pub async fn expire(&self, env: &Env, before: Timestamp) -> Result<u64> {
        let _writing = self.inner.writing.lock().await;
        let files = self.inner.files(env.id());
        match tokio::task::spawn_blocking(move || files.expire(before)).await {
            Ok(removed) => removed.map_err(Error::Files),
            Err(stopped) => Err(Error::Files(std::io::Error::other(stopped))),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    /// Wakes the task that writes, so that it ends.
    fn drop(&mut self) {
        self.arrived.notify_one();
    }
}

impl Inner {
    fn files(&self, env: EnvId) -> Files {
        Files::new(self.envs_dir.join(env.to_string()).join("logs"), self.rotation)
    }
}

impl Lines {
    fn with_drops(mut self) -> Vec<u8> {
        if self.dropped > 0 {
            let message =
                format!("{} entries were dropped: they came faster than the log is written", self.dropped);
            let mut entry = Entry::new(Timestamp::now(), Level::Warn, Source::Logs, message);
            entry.fields.insert("dropped".into(), self.dropped.into());
            self.text.extend_from_slice(&entry.into_line());
        }
        self.text
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
