//! Where workspaces and snapshots lie on the disk, and how something comes and goes there in one step.
//!
//! ```text
//! <root>/workspaces/<id>/   about.json, and what the driver keeps
//! <root>/snapshots/<id>/    about.json, and what the driver keeps
//! <root>/staging/<machine>/ what is being made or removed; emptied when the shelf is opened
//! <root>/lock               held while it is open, where only one machine has it
//! ```

use std::collections::HashSet;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::{WorkspaceId, WorkspaceSnapshotId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

const ABOUT: &str = "about.json";

/// How long the lock is waited for: a process that has ended may have handed it to one that it was about to start.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who has the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// This process alone, which a lock sees to.
    Alone,
    /// Several machines, each in what it has staged.
    Shared,
}

#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    staging: PathBuf,
    serial: AtomicU64,
    busy: Mutex<HashSet<WorkspaceId>>,
    free: Condvar,
    _lock: Option<File>,
}

/// A directory in the making, which goes when it is dropped.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    shelf: &'a Shelf,
    path: PathBuf,
    clear: &'a dyn Clear,
}

impl<T: Clear + ?Sized> Clear for Box<T> {
    fn clear(&self, directory: &Path) -> Result<(), Error> {
        (**self).clear(directory)
    }
}

/// How a driver's trees are removed.
pub(super) trait Clear: Send + Sync + std::fmt::Debug {
    /// Empties `directory`, in which there are trees of the driver.
    ///
    /// # Errors
    /// Of the file system.
    fn clear(&self, directory: &Path) -> Result<(), Error>;
}

/// Says that a workspace is worked on; others wait.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    shelf: &'a Shelf,
    id: WorkspaceId,
}

impl Shelf {
    /// Opens the shelf at `root`, which is made where it is missing, and empties what was staged there.
    ///
    /// # Errors
    /// `Unavailable` where another process has it; of the file system.
    pub(super) fn open(root: &Path, sharing: Sharing, clear: &dyn Clear) -> Result<Self, Error> {
        let failed = || Error::io("the directory of the workspaces cannot be made ready");
        let machine = match sharing {
            Sharing::Alone => "here".to_owned(),
            Sharing::Shared => machine(),
        };
        let staging = root.join("staging").join(machine);
        for directory in [&root.join("workspaces"), &root.join("snapshots"), &staging] {
            private(directory).map_err(failed())?;
        }
        let lock = match sharing {
            Sharing::Alone => Some(lock(root)?),
            Sharing::Shared => None,
        };
        clear.clear(&staging)?;
        Ok(Self {
            root: root.to_owned(),
            staging,
            serial: AtomicU64::new(0),
            busy: Mutex::default(),
            free: Condvar::new(),
            _lock: lock,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn workspace(&self, id: WorkspaceId) -> PathBuf {
        self.root.join("workspaces").join(id.to_string())
    }

    pub(super) fn snapshot(&self, id: WorkspaceSnapshotId) -> PathBuf {
        self.root.join("snapshots").join(id.to_string())
    }

    /// Waits until nobody else works on the workspace.
    pub(super) fn turn(&self, id: WorkspaceId) -> Turn<'_> {
        let mut busy = self.busy();
        while !busy.insert(id) {
            busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { shelf: self, id }
    }

    fn busy(&self) -> MutexGuard<'_, HashSet<WorkspaceId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new directory that nobody sees.
    pub(super) fn stage<'a>(&'a self, clear: &'a dyn Clear) -> Result<Staged<'a>, Error> {
        let path = self.fresh();
        private(&path).map_err(Error::io("a directory cannot be made"))?;
        step();
        Ok(Staged { shelf: self, path, clear })
    }

    fn fresh(&self) -> PathBuf {
        // Several processes of one machine may share a shelf, so the number alone is not enough.
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.staging.join(format!("{}-{serial}", std::process::id()))
    }

    /// Takes `place` away in one step, then removes it.
    pub(super) fn discard(&self, place: &Path, clear: &dyn Clear) -> Result<(), Error> {
        let away = self.stage(clear)?;
        step();
        match std::fs::rename(place, away.path.join("gone")) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::Io("it cannot be removed", error)),
        }
        if let Some(above) = place.parent() {
            sync(above)?;
        }
        step();
        away.finish()
    }

    /// What is written of `place`, or nothing where there is no such place.
    pub(super) fn about<T: DeserializeOwned>(&self, place: &Path) -> Result<Option<T>, Error> {
        let text = match std::fs::read(place.join(ABOUT)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Io("what is noted of a workspace cannot be read", error)),
        };
        let about = serde_json::from_slice(&text).map_err(io::Error::other);
        about.map(Some).map_err(Error::io("what is noted of a workspace cannot be read"))
    }

    /// Writes what is to be known of `place`, in one step.
    pub(super) fn note<T: Serialize>(&self, place: &Path, about: &T) -> Result<(), Error> {
        self.write(place, about)?;
        step();
        sync(place)
    }

    fn write<T: Serialize>(&self, place: &Path, about: &T) -> Result<(), Error> {
        let failed = || Error::io("what is to be noted of a workspace cannot be written");
        let text = serde_json::to_vec(about).map_err(io::Error::other).map_err(failed())?;
        let half = self.fresh();
        let mut file = File::create(&half).map_err(failed())?;
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(failed())?;
        step();
        std::fs::rename(&half, place.join(ABOUT)).map_err(failed())
    }

    /// The ids of one kind.
    pub(super) fn list<T: FromStr>(&self, kind: &'static str) -> Result<Vec<T>, Error> {
        let failed = || Error::io("the workspaces cannot be listed");
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(self.root.join(kind)).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(ids)
    }
}

impl Staged<'_> {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what is to be known of it; its names come to the disk with those of the place that it is put into.
    pub(super) fn note<T: Serialize>(&self, about: &T) -> Result<(), Error> {
        self.shelf.write(&self.path, about)?;
        step();
        Ok(())
    }

    /// Moves it to `place` in one step; `name` is what it is called where something is there already.
    pub(super) fn put(self, place: &Path, name: impl ToString) -> Result<(), Error> {
        step();
        // What lies there is never empty, and a directory takes no other's place that is not empty.
        std::fs::rename(&self.path, place).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Error::Taken(name.to_string()),
            _ => Error::Io("it cannot be put into its place", error),
        })?;
        step();
        place.parent().map_or(Ok(()), sync)
    }

    /// Removes it.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.clear.clear(&self.path)?;
        std::fs::remove_dir(&self.path).map_err(Error::io("a directory cannot be removed"))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.path.exists() {
            let done = self.clear.clear(&self.path).and_then(|()| {
                std::fs::remove_dir(&self.path).map_err(Error::io("a directory cannot be removed"))
            });
            if let Err(error) = done {
                let staging = &self.shelf.staging;
                tracing::warn!(%error, ?staging, "what was staged goes at the next start");
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shelf.busy().remove(&self.id);
        self.shelf.free.notify_all();
    }
}

fn lock(root: &Path) -> Result<File, Error> {
    let failed = || Error::io("the directory of the workspaces cannot be made ready");
    let lock = File::create(root.join("lock")).map_err(failed())?;
    let until = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(PATIENCE / 100),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Unavailable {
                    what: "another process has the workspaces".to_owned(),
                    hint: "stop it, or give this one another directory".to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
    }
}

/// Makes a directory, and those above it, that only we may look into.
pub(super) fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Brings a directory's names to the disk.
pub(super) fn sync(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(Error::io("a directory cannot be brought to the disk"))
}

/// A name for this machine that is the same after its next start. Copies of one image may have the same id, and others
/// the same name.
fn machine() -> String {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    let hash = kernel::BlobHash::of(&[id, name].concat()).to_string();
    hash[..16].to_owned()
}

/// A place at which the process may be killed; tests do that at each in turn.
#[cfg(not(test))]
pub(super) fn step() {}

#[cfg(test)]
pub(super) use super::suite::step;
