//! The run directory: what of sandboxes is on disk while they run, so that who comes after a crash finds it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::SandboxId;
use rustix::fs::{FlockOperation, flock};

use super::error::Error;
use super::groups::Layout;

/// The names of what a sandbox's directory holds.
const EGRESS: &str = "egress.sock";
const BRIDGE: &str = "bridge.sock";
const SCRATCH: &str = "scratch";
const RUNNER: &str = "runner";

/// How long the one before may take to go, and how often it is looked whether it has.
const GOING: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(10);

/// The run directory, held by this process alone.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Takes it, and makes it where it is not there. One that has lost its platform holds it until all that it has made has
    /// ended, which is waited for.
    ///
    /// # Errors
    /// [`Error::Locked`]; where it is another user's, or open to others.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Error::Files("making the run directory", error))?;
        let known = fs::metadata(path).map_err(|error| Error::Files("reading the run directory", error))?;
        let own = known.uid() == rustix::process::geteuid().as_raw() && known.mode() & 0o077 == 0;
        if !own {
            let error = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(Error::Files("using a run directory that is open to others", error));
        }
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(|error| Error::Files("opening the lock", error))?;
        let begun = Instant::now();
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if begun.elapsed() > GOING {
                return Err(Error::Locked);
            }
            std::thread::sleep(STEP);
        }
        let path =
            fs::canonicalize(path).map_err(|error| Error::Files("reading the run directory", error))?;
        Ok(Self { path, _lock: lock })
    }

    /// Below which the workspace lies of a sandbox that is made for trial.
    #[must_use]
    pub fn trial(&self) -> PathBuf {
        self.path.join("trial")
    }

    /// The layouts of control groups that earlier processes have used.
    #[must_use]
    pub fn layouts(&self) -> Vec<Layout> {
        let text = fs::read_to_string(self.path.join("groups.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Notes the layouts in use, before anything is made in them.
    ///
    /// # Errors
    /// Of the file system.
    pub fn note_layouts(&self, layouts: &[Layout]) -> Result<(), Error> {
        let text = serde_json::to_vec(layouts).map_err(io::Error::from);
        text.and_then(|text| self.replace("groups.json", &text, 0o600))
            .map_err(|error| Error::Files("noting the control groups", error))
    }

    /// Puts the hand where it can be mounted from.
    ///
    /// # Errors
    /// Of the file system.
    pub fn place_hand(&self, program: &[u8]) -> Result<PathBuf, Error> {
        self.replace("hand", program, 0o755).map_err(|error| Error::Files("writing the hand", error))?;
        Ok(self.path.join("hand"))
    }

    /// Where what the roots of jails have in common is mounted.
    ///
    /// # Errors
    /// Of the file system.
    pub fn base(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("base");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| Error::Files("making the run directory", error)).map(|()| path)
    }

    /// Where versions of the runner are.
    #[must_use]
    pub fn runners(&self) -> PathBuf {
        self.path.join("runners")
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        fs::rename(fresh, self.path.join(name))
    }

    /// The sandboxes that have a directory here.
    ///
    /// # Errors
    /// Of the file system.
    pub fn ids(&self) -> Result<Vec<SandboxId>, Error> {
        let read = || -> io::Result<Vec<SandboxId>> {
            let names = fs::read_dir(&self.path)?
                .map(|entry| Ok(entry?.file_name()))
                .collect::<io::Result<Vec<_>>>()?;
            Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
        };
        read().map_err(|error| Error::Files("listing the run directory", error))
    }

    /// The directory of a sandbox, which may or may not be there.
    #[must_use]
    pub fn of(&self, id: SandboxId) -> SandboxDir {
        SandboxDir(self.path.join(id.to_string()))
    }
}

/// The directory of one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxDir(PathBuf);

impl SandboxDir {
    /// Makes it.
    ///
    /// # Errors
    /// [`Error::Taken`]; of the file system.
    pub fn make(&self) -> Result<(), Error> {
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        let public = || DirBuilder::new().mode(0o755).create(self.runner());
        make(&self.0).and_then(|()| make(&self.scratch())).and_then(|()| public()).map_err(
            |error| match error.kind() {
                io::ErrorKind::AlreadyExists => Error::Taken,
                _ => Error::Files("making a sandbox's directory", error),
            },
        )
    }

    /// Listens at the two sockets, to which only the user `owner` can connect.
    ///
    /// # Errors
    /// Of the file system.
    pub fn listen(&self, owner: Option<u32>) -> Result<[UnixListener; 2], Error> {
        // The name of a socket is short; its directory need not be.
        let directory =
            File::open(&self.0).map_err(|error| Error::Files("opening a sandbox's directory", error))?;
        let listen = |name: &str| -> io::Result<UnixListener> {
            let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            if owner.is_some() {
                chown(&path, owner, owner)?;
            }
            Ok(listener)
        };
        let both = listen(EGRESS).and_then(|egress| Ok([egress, listen(BRIDGE)?]));
        both.map_err(|error| Error::Files("listening for a sandbox", error))
    }

    /// The two sockets.
    #[must_use]
    pub fn sockets(&self) -> [PathBuf; 2] {
        [self.0.join(EGRESS), self.0.join(BRIDGE)]
    }

    /// Where the jail's root is put together.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.0.join(SCRATCH)
    }

    /// Where it is said which runner the sandbox has.
    #[must_use]
    pub fn runner(&self) -> PathBuf {
        self.0.join(RUNNER)
    }

    /// Removes it. What is not there is no error; what does not belong there stays, and is one: a mount must not be
    /// emptied.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove(&self) -> Result<(), Error> {
        let there = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let [egress, bridge] = self.sockets();
        there(fs::remove_file(egress))
            .and_then(|()| there(fs::remove_file(bridge)))
            .and_then(|()| there(fs::remove_dir(self.scratch())))
            .and_then(|()| there(fs::remove_dir_all(self.runner())))
            .and_then(|()| there(fs::remove_dir(&self.0)))
            .map_err(|error| Error::Files("removing a sandbox's directory", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_about_to_go_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let before = RunDir::open(&path).unwrap();
        let waiting = std::thread::spawn(move || RunDir::open(&path));
        std::thread::sleep(10 * STEP);
        assert!(!waiting.is_finished());
        drop(before);
        assert!(waiting.join().unwrap().is_ok());
    }
}
