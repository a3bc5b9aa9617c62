//! Logs: what happened in an environment, as lines of JSON in a few bounded files of its own.

mod entry;
mod error;
mod files;
mod pace;
mod query;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel::{Env, EnvId, Timestamp};
use tokio::sync::Notify;

pub use entry::{Entry, Level, Source, VisitFields, Visited};
pub use error::{Error, Result};
pub use pace::Pace;
pub use query::{Page, Query};

use files::Files;
use pace::{Haste, Paced};

/// How many files each part of an environment's log has, and how many bytes each: visits fill the one, signing in another,
/// and everything else the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How many files; the oldest is removed for a new one.
    pub files: usize,
    /// The size in bytes after which a file gets no more lines.
    pub file_bytes: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { files: 4, file_bytes: 1 << 20 }
    }
}

/// How many bytes may wait for the disk, for one part of an environment's log and for all. What is over is dropped and counted.
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
    pace: Pace,
    waiting: Mutex<Waiting>,
    arrived: Arc<Notify>,
    /// Held while lines go from memory to disk, so that they stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    lines: HashMap<(EnvId, Part), Vec<u8>>,
    /// Of those that have logged lately.
    paced: HashMap<(EnvId, Part), Paced>,
}

/// Which part of a log an entry is in, each with its own files, room and pace: whatever visitors ask for pushes out nothing
/// but what visitors have asked for, and whoever guesses passwords nothing but other guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// Visits that have not failed by our fault.
    Visits,
    /// What comes of signing in, likewise.
    SignIns,
    /// Everything else.
    Rest,
}

impl Part {
    fn of(source: Source, level: Level) -> Self {
        match source {
            Source::Edge if level < Level::Error => Self::Visits,
            Source::Auth if level < Level::Error => Self::SignIns,
            _ => Self::Rest,
        }
    }

    /// What the names of its files begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Visits => "visits-",
            Self::SignIns => "sign-ins-",
            Self::Rest => "",
        }
    }
}

impl Logs {
    /// Logs below `<envs_dir>/<env_id>/logs`, and the task that writes them, which ends when the last clone is
    /// dropped. Call [`Logs::flush`] before the program ends. Needs a tokio runtime.
    #[must_use]
    pub fn new(envs_dir: impl Into<PathBuf>) -> Self {
        Self::with(envs_dir, Rotation::default(), Pace::default())
    }

    /// The same with other sizes of files, and another pace.
    #[must_use]
    pub fn with(envs_dir: impl Into<PathBuf>, rotation: Rotation, pace: Pace) -> Self {
        let inner = Arc::new(Inner {
            envs_dir: envs_dir.into(),
            rotation,
            pace,
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
                Logs { inner }.write(Haste::InTime).await;
            }
        });
        logs
    }

    /// Takes an entry in; it is on disk within a moment, or after [`Logs::flush`]. Where an environment logs
    /// faster than it may, or than the disk writes, entries are dropped, and a later entry says how many. An
    /// environment whose directory does not exist (any more) has no log.
    ///
    /// Callers keep query strings, headers, bodies and secrets out of entries.
    pub fn append(&self, env: &Env, entry: Entry) {
        let (of, level) = ((env.id(), Part::of(entry.source, entry.level)), entry.level);
        if self.admits(of, level) {
            self.take(of, &entry.into_line());
        }
    }

    /// As [`Logs::append`], of a request to the app's host, which is not made into an entry where none is taken.
    pub fn visited<'a>(&self, env: &Env, level: Level, visit: impl FnOnce() -> Visited<'a>) {
        let of = (env.id(), Part::of(Source::Edge, level));
        if self.admits(of, level) {
            self.take(of, &visit().to_line());
        }
    }

    /// Whether the pace of a part lets one more in; what it does not is counted.
    fn admits(&self, of: (EnvId, Part), level: Level) -> bool {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let paced = waiting.paced.entry(of).or_insert_with(|| Paced::new(now));
        let is_admitted = paced.admits(level, self.inner.pace, now);
        if !is_admitted {
            paced.dropped += 1;
            drop(waiting);
            self.inner.arrived.notify_one();
        }
        is_admitted
    }

    fn take(&self, of: (EnvId, Part), line: &[u8]) {
        let mut waiting = self.waiting();
        let Waiting { bytes, lines, paced } = &mut *waiting;
        let lines = lines.entry(of).or_default();
        if *bytes + line.len() <= MAX_WAITING_IN_ALL && lines.len() + line.len() <= MAX_WAITING {
            lines.extend_from_slice(line);
            *bytes += line.len();
        } else {
            paced.entry(of).or_insert_with(|| Paced::new(Instant::now())).dropped += 1;
        }
        drop(waiting);
        self.inner.arrived.notify_one();
    }

    /// Writes everything that was appended before.
    pub async fn flush(&self) {
        self.write(Haste::Now).await;
    }

    async fn write(&self, haste: Haste) {
        let _writing = self.inner.writing.lock().await;
        let taken = self.waiting().take(Instant::now(), haste);
        if self.waiting().has_more_to_tell() {
            self.inner.arrived.notify_one();
        }
        if taken.is_empty() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || {
            for ((env, part), lines) in taken {
                if let Err(error) = inner.files(env, part).append(&lines) {
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
        let files = self.inner.parts(env.id());
        match tokio::task::spawn_blocking(move || query::run(&files, &query)).await {
            Ok(page) => page,
            Err(stopped) => Err(Error::Files(std::io::Error::other(stopped))),
        }
    }

    /// Removes what was said before `before`: files that hold nothing else, how many, and what begins the one that is being
    /// written.
    ///
    /// # Errors
    /// The disk.
    pub async fn expire(&self, env: &Env, before: Timestamp) -> Result<u64> {
        let _writing = self.inner.writing.lock().await;
        let files = self.inner.parts(env.id());
        let expired = move || files.iter().map(|part| part.expire(before)).sum::<std::io::Result<u64>>();
        match tokio::task::spawn_blocking(expired).await {
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
    fn files(&self, env: EnvId, part: Part) -> Files {
        let dir = self.envs_dir.join(env.to_string()).join("logs");
        Files::new(dir, part.prefix(), self.rotation)
    }

    fn parts(&self, env: EnvId) -> [Files; 3] {
        [Part::Rest, Part::Visits, Part::SignIns].map(|part| self.files(env, part))
    }
}

impl Waiting {
    /// The lines to write, with what there is to tell of dropped ones.
    fn take(&mut self, now: Instant, haste: Haste) -> Vec<((EnvId, Part), Vec<u8>)> {
        let mut taken = std::mem::take(&mut self.lines);
        self.bytes = 0;
        for (of, paced) in &mut self.paced {
            let Some(dropped) = paced.tell(now, haste) else { continue };
            let message =
                format!("{dropped} entries were dropped: they came faster than this log takes them");
            let mut entry = Entry::new(Timestamp::now(), Level::Warn, Source::Logs, message);
            entry.fields.insert("dropped".into(), dropped.into());
            // To the part whose entries they were, which a crowd may fill.
            taken.entry(*of).or_default().extend_from_slice(&entry.into_line());
        }
        self.paced.retain(|_, paced| !paced.has_rested(now));
        taken.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
    }

    /// Whether something was dropped that the log does not say yet.
    fn has_more_to_tell(&self) -> bool {
        self.paced.values().any(|paced| paced.dropped > 0)
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
