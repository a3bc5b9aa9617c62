//! The directories of snapshots: half ones and whole ones.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kernel::{Result, SnapshotId};

use super::{Snapshot, blocking};
use crate::storage::pins::HALF;

/// What says what a snapshot is; written last.
const ABOUT: &str = "snapshot.json";

/// What says that a snapshot is packed away.
pub(super) const PACKED: &str = "packed.json";

/// A directory that becomes something whole, or goes when it is dropped. It is locked meanwhile, by which
/// [`sweep`] knows that somebody works on it.
pub(super) struct Staged {
    path: PathBuf,
    _lock: File,
}

impl Staged {
    /// A new empty directory in `directory`, which is made where it is missing.
    pub async fn new(directory: PathBuf) -> Result<Self> {
        blocking(move || {
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let path = directory.join(format!("{HALF}{}", SnapshotId::new()));
            std::fs::create_dir(&path)?;
            let lock = File::open(&path)?;
            lock.lock()?;
            Ok(Self { path, _lock: lock })
        })
        .await
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it whole: a snapshot.
    pub async fn become_snapshot(self, about: &Snapshot) -> Result<()> {
        let (from, about) = (self.path.clone(), about.clone());
        blocking(move || {
            let text = serde_json::to_vec_pretty(&about)?;
            let file = from.join(ABOUT);
            std::fs::write(&file, text)?;
            File::open(&file)?.sync_all()?;
            sync(&from)?;
            let directory = from.parent().unwrap_or(&from);
            std::fs::rename(&from, directory.join(about.snapshot.to_string()))?;
            sync(directory)?;
            directory.parent().map_or(Ok(()), sync)
        })
        .await
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It is not there any more where it has become something.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Every whole snapshot in `directory`, newest first.
pub(super) async fn list(directory: PathBuf) -> Result<Vec<Snapshot>> {
    blocking(move || {
        let mut found: Vec<Snapshot> = Vec::new();
        for path in entries(&directory)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.parse::<SnapshotId>().is_err() {
                continue;
            }
            let about = match std::fs::read(path.join(ABOUT)) {
                Ok(about) => about,
                // It was removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match serde_json::from_slice::<Snapshot>(&about) {
                Ok(about) => found.push(Snapshot { archived: path.join(PACKED).exists(), ..about }),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a snapshot cannot be read"),
            }
        }
        found.sort_by_key(|it| std::cmp::Reverse((it.created_at, it.snapshot)));
        Ok(found)
    })
    .await
}

/// Removes what attempts that died have left in `directory`; not to be called while one begins.
pub(super) async fn sweep(directory: PathBuf) -> Result<()> {
    blocking(move || {
        for path in entries(&directory)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // One that somebody reads for long, an export for one, is locked.
            if name.starts_with(HALF) && File::open(&path)?.try_lock().is_ok() {
                std::fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    })
    .await
}

/// Removes one whole snapshot: its name goes first, so that it is never found half.
pub(super) async fn remove(directory: PathBuf, snapshot: SnapshotId) -> Result<()> {
    blocking(move || {
        let doomed = directory.join(format!("{HALF}{snapshot}"));
        std::fs::rename(directory.join(snapshot.to_string()), &doomed)?;
        std::fs::remove_dir_all(doomed)
    })
    .await
}

/// Removes from the directory of a snapshot what is packed away.
pub(super) fn strip(snapshot: &Path) -> std::io::Result<()> {
    for path in entries(snapshot)? {
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else if !path.ends_with(ABOUT) && !path.ends_with(PACKED) {
            std::fs::remove_file(path)?;
        }
    }
    sync(snapshot)
}

/// How many bytes the snapshots in `directory` take that nobody else has.
pub(super) async fn taken(directory: PathBuf) -> Result<u64> {
    blocking(move || {
        // Inode → how often it is named here, how often anywhere, its size.
        let mut named: HashMap<u64, (u64, u64, u64)> = HashMap::new();
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            for path in entries(&directory)? {
                let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
                if found.is_dir() {
                    open.push(path);
                } else {
                    named.entry(found.ino()).or_insert((0, found.nlink(), found.len())).0 += 1;
                }
            }
        }
        Ok(named.values().filter(|(here, all, _)| here >= all).map(|(.., size)| size).sum())
    })
    .await
}

/// The entries of a directory; none where it is not there.
pub(super) fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

pub(super) fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}
