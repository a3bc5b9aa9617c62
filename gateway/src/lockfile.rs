//! One process per data directory: an exclusive lock, and a note of who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The lock's name in the data directory.
const NAME: &str = "lock";

/// How long a holder may take from locking to saying where it listens.
const STARTING: Duration = Duration::from_secs(10);

/// How long somebody who looks whether the lock is held may seem to hold it.
const LOOKING: Duration = Duration::from_millis(100);

/// How long to wait between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Who holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Where it listens, on this machine.
    pub url: String,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("the data directory {} is in use by {}", dir.display(), said(holder.as_ref()))]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// Who, where it says so yet.
        holder: Option<Holder>,
    },
    /// The file system refused.
    #[error("the data directory {} cannot be used: {source}", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn said(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, url }) => format!("process {pid}, which serves {url}"),
        None => "another process, which is starting".to_owned(),
    }
}

/// The lock, held until it is dropped; the kernel drops it with the process, so the note in the file decides
/// nothing and may be stale.
#[derive(Debug)]
pub struct Lock {
    file: File,
    dir: PathBuf,
}

impl Lock {
    /// Takes the lock of `dir`, which is created, with access for its owner only, where it is missing.
    ///
    /// # Errors
    /// [`Error::Held`], and whatever the file system refuses.
    pub fn acquire(dir: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { dir: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(NAME));
        let file = open.map_err(io)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Somebody who only looks whether it is held holds it for a moment.
                Err(TryLockError::WouldBlock) if started.elapsed() < LOOKING => std::thread::sleep(STEP),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Held { dir: dir.to_owned(), holder: note(&file) });
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        // The last holder's note must not be taken for ours.
        file.set_len(0).map_err(io)?;
        Ok(Self { file, dir: dir.to_owned() })
    }

    /// Says where the holder listens.
    ///
    /// # Errors
    /// Whatever the file system refuses.
    pub fn announce(&mut self, url: &str) -> Result<(), Error> {
        let holder = Holder { pid: std::process::id(), url: url.to_owned() };
        let written = serde_json::to_vec(&holder)
            .map_err(io::Error::other)
            .and_then(|note| self.file.rewind().and_then(|()| self.file.write_all(&note)));
        written.map_err(|source| Error::Io { dir: self.dir.clone(), source })
    }
}

/// Who holds `dir`, if anyone does; waits for a holder that is starting to say where it listens.
///
/// # Errors
/// [`Error::Held`] without a holder where it does not say so in time, and whatever the file system refuses.
pub fn holder(dir: &Path) -> Result<Option<Holder>, Error> {
    let io = |source| Error::Io { dir: dir.to_owned(), source };
    let file = match File::open(dir.join(NAME)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(source)),
    };
    let started = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        if let Some(holder) = note(&file) {
            return Ok(Some(holder));
        }
        if started.elapsed() > STARTING {
            return Err(Error::Held { dir: dir.to_owned(), holder: None });
        }
        std::thread::sleep(STEP);
    }
}

fn note(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

impl From<Error> for kernel::Error {
    fn from(e: Error) -> Self {
        match &e {
            Error::Held { .. } => kernel::Error::new(kernel::Code::Conflict, e.to_string())
                .hint("stop that process, or choose another directory with --data-dir"),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                kernel::Error::new(kernel::Code::Unavailable, e.to_string()).hint("make room on its disk")
            }
            Error::Io { .. } => kernel::Error::new(kernel::Code::Unavailable, e.to_string())
                .hint("choose a directory you may write to with --data-dir"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut lock = Lock::acquire(&data).unwrap();
        lock.announce("http://127.0.0.1:1").unwrap();
        let error = Lock::acquire(&data).unwrap_err();
        let pid = std::process::id();
        assert_eq!(
            error.to_string(),
            format!(
                "the data directory {} is in use by process {pid}, which serves http://127.0.0.1:1",
                data.display()
            )
        );
        assert_eq!(holder(&data).unwrap().map(|h| h.pid), Some(pid));
        drop(lock);
        assert_eq!(holder(&data).unwrap(), None);
        Lock::acquire(&data).unwrap();
    }

    #[test]
    fn a_note_left_behind_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "{\"pid\":1,\"url\":\"http://127.0.0.1:1\",\"long\":true}")
            .unwrap();
        assert_eq!(holder(dir.path()).unwrap(), None);
        let mut lock = Lock::acquire(dir.path()).unwrap();
        lock.announce("http://127.0.0.1:2").unwrap();
        assert_eq!(holder(dir.path()).unwrap().map(|h| h.url), Some("http://127.0.0.1:2".to_owned()));
    }

    #[test]
    fn a_new_data_directory_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let _lock = Lock::acquire(&data).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(NAME))), (0o700, 0o600));
    }
}
