//! The platform's own programs inside sandboxes: versions by their digest, and which of them a sandbox has.
//!
//! Every sandbox sees the one directory of all versions, and a directory of its own with one link in it, `current`. Which
//! version that is changes in one rename, in a sandbox that runs, is stopped, or has not begun: what runs keeps the files
//! that it has open, what starts gets the others. A version's path is its digest's, so that what was compiled from another
//! one and kept by its path is never taken for it. Nothing of this lies in the workspace.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kernel::BlobHash;
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// Where a sandbox sees all versions.
const INSIDE: &str = "/run/steading/runners";

/// The one name in a sandbox's own directory.
const CURRENT: &str = "current";

/// Versions that stay beside those that are in use, the newest of them: what was added is not used at once, and what runs
/// may yet look for what lay beside it.
const KEPT: usize = 4;

/// What is read at once.
const PIECE: usize = 256 << 10;

/// All versions that are here.
#[derive(Debug)]
pub struct Runners {
    path: PathBuf,
    /// In the order in which they were added last. Who has it adds one.
    added: Mutex<Vec<BlobHash>>,
}

impl Runners {
    /// Those in `path`, of which nothing is left of before: no sandbox lives that could use it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let emptied = remove(&path).and_then(|()| DirBuilder::new().mode(0o755).create(&path));
        emptied.map_err(|error| Error::Files("preparing the runners", error))?;
        Ok(Self { path, added: Mutex::default() })
    }

    /// The directory of all of them.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a version of these files, programs all; one that is there stays as it is. Of others those go that were added
    /// long ago and that nobody has, as `in_use` says.
    ///
    /// # Errors
    /// Of the file system.
    pub fn add(
        &self,
        files: Vec<(String, File)>,
        in_use: impl FnOnce() -> Result<Vec<BlobHash>, Error>,
    ) -> Result<BlobHash, Error> {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        let half = self.path.join(".half");
        let written = || -> io::Result<BlobHash> {
            remove(&half)?;
            DirBuilder::new().mode(0o755).create(&half)?;
            let mut hash = Sha256::new();
            for (name, file) in files {
                let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
                if !plain {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                copy(&name, file, &half, &mut hash)?;
            }
            let runner = BlobHash::from_bytes(hash.finalize().into());
            let place = self.path.join(runner.to_string());
            if place.exists() {
                remove(&half)?;
            } else {
                File::open(&half)?.set_permissions(Permissions::from_mode(0o755))?;
                fs::rename(&half, place)?;
            }
            Ok(runner)
        };
        let runner = written().map_err(|error| {
            // Why it was not added says more than why that was not removed, which the next one does.
            let _ = remove(&half);
            Error::Files("adding a runner", error)
        })?;
        added.retain(|it| *it != runner);
        added.push(runner);
        // Where nobody knows who has which, nothing goes.
        let Ok(in_use) = in_use() else { return Ok(runner) };
        let mut old = added.len().saturating_sub(KEPT);
        added.retain(|it| {
            let goes = old > 0 && !in_use.contains(it);
            old = old.saturating_sub(1);
            // One that does not go is in nobody's way, and goes with the process.
            !goes || remove(&self.path.join(it.to_string())).is_err()
        });
        Ok(runner)
    }

    /// The version that the sandbox whose directory is `at` uses.
    pub fn used(&self, at: &Path) -> Option<BlobHash> {
        fs::read_link(at.join(CURRENT)).ok()?.file_name()?.to_str()?.parse().ok()
    }

    /// Holds that there is such a version.
    ///
    /// # Errors
    /// [`Error::Runner`].
    pub fn known(&self, runner: BlobHash) -> Result<(), Error> {
        if self.path.join(runner.to_string()).is_dir() { Ok(()) } else { Err(Error::Runner) }
    }

    /// Has the sandbox whose directory is `at` use a version, in one step, and returns the one that it has used.
    ///
    /// # Errors
    /// [`Error::Runner`] where there is no such version; of the file system.
    pub fn point(&self, at: &Path, runner: BlobHash) -> Result<Option<BlobHash>, Error> {
        self.known(runner)?;
        let before = self.used(at);
        let pointed = || -> io::Result<()> {
            let fresh = at.join(format!("{CURRENT}.new"));
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            symlink(Path::new(INSIDE).join(runner.to_string()), &fresh)?;
            fs::rename(fresh, at.join(CURRENT))
        };
        pointed().map_err(|error| Error::Files("changing a runner", error))?;
        Ok(before)
    }
}

/// Copies a program into the directory `to`, and what is copied into the hash.
fn copy(name: &str, mut from: File, to: &Path, hash: &mut Sha256) -> io::Result<()> {
    let length = from.metadata()?.len();
    for part in [name.as_bytes(), &length.to_le_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o755).open(to.join(name))?;
    let (mut piece, mut left) = (vec![0; PIECE], length);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = from.read(&mut piece[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&piece[..read]);
        file.write_all(&piece[..read])?;
        left -= read as u64;
    }
    file.set_permissions(Permissions::from_mode(0o755))
}

/// Removes a directory where it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
