//! The platform's own programs inside sandboxes: versions by their digest, and which of them a sandbox has.
//!
//! Every sandbox sees the one directory of all versions, and a directory of its own with one link in it, `current`. Which
//! version that is changes in one rename, in a sandbox that runs, is stopped, or has not begun: what runs keeps the files
//! that it has open, what starts gets the others. A version's path is its digest's, so that what was compiled from another
//! one and kept by its path is never taken for it. Nothing of this lies in the workspace.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kernel::BlobHash;
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// Where a sandbox sees all versions.
const INSIDE: &str = "/run/steading/runners";

/// The one name in a sandbox's own directory.
const CURRENT: &str = "current";

/// All versions that are here.
#[derive(Debug)]
pub struct Runners(PathBuf);

impl Runners {
    /// Those in `path`, of which nothing is left of before: no sandbox lives that could use it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let emptied = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => DirBuilder::new().mode(0o755).create(&path),
        };
        emptied.map_err(|error| Error::Files("preparing the runners", error))?;
        Ok(Self(path))
    }

    /// The directory of all of them.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a version of these files, programs all; one that is there stays as it is.
    ///
    /// # Errors
    /// Of the file system.
    pub fn add(&self, files: &[(String, Vec<u8>)]) -> Result<BlobHash, Error> {
        let mut hash = Sha256::new();
        for (name, bytes) in files {
            for part in [name.as_bytes(), bytes] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        let runner = BlobHash::from_bytes(hash.finalize().into());
        let written = || -> io::Result<()> {
            let place = self.0.join(runner.to_string());
            if place.exists() {
                return Ok(());
            }
            let half = self.0.join(format!(".{runner}"));
            DirBuilder::new().mode(0o755).create(&half)?;
            for (name, bytes) in files {
                let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
                if !plain {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let mut file =
                    OpenOptions::new().create_new(true).write(true).mode(0o755).open(half.join(name))?;
                file.write_all(bytes)?;
                file.set_permissions(Permissions::from_mode(0o755))?;
            }
            File::open(&half)?.set_permissions(Permissions::from_mode(0o755))?;
            fs::rename(half, place)
        };
        written().map_err(|error| Error::Files("adding a runner", error))?;
        Ok(runner)
    }

    /// Holds that there is such a version.
    ///
    /// # Errors
    /// [`Error::Runner`].
    pub fn known(&self, runner: BlobHash) -> Result<(), Error> {
        if self.0.join(runner.to_string()).is_dir() { Ok(()) } else { Err(Error::Runner) }
    }

    /// Has the sandbox whose directory is `at` use a version, in one step, and returns the one that it has used.
    ///
    /// # Errors
    /// [`Error::Runner`] where there is no such version; of the file system.
    pub fn point(&self, at: &Path, runner: BlobHash) -> Result<Option<BlobHash>, Error> {
        self.known(runner)?;
        let before = fs::read_link(at.join(CURRENT)).ok();
        let before = before.and_then(|to| to.file_name()?.to_str()?.parse().ok());
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
