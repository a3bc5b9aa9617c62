//! What the roots of all jails have in common, put together once for all of them.
//!
//! It is mounted where only this process and those that it starts see it, and gone when they are.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use hand::jail::base::{Shown, shown};
use rustix::mount::{UnmountFlags, unmount};

use super::error::Error;
use super::jail::{Program, failure};
use super::spawner::Spawner;

/// Where it is mounted, and what of the machine it shows.
#[derive(Debug)]
pub struct Base {
    path: PathBuf,
    shown: RwLock<Vec<Shown>>,
}

/// One that stays as it is for as long as this is held.
pub struct Held<'a> {
    path: &'a Path,
    _shown: RwLockReadGuard<'a, Vec<Shown>>,
}

impl Held<'_> {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path
    }
}

impl Base {
    /// One at `path`, a directory, that is put together when it is needed.
    pub fn new(path: PathBuf) -> Self {
        Self { path, shown: RwLock::default() }
    }

    /// Holds it, put together anew where the machine's files are others by now.
    ///
    /// # Errors
    /// [`Error::Jail`], of the file system.
    pub fn hold(&self, spawner: &Spawner, program: &Program) -> Result<Held<'_>, Error> {
        loop {
            let now = shown();
            let held = self.shown.read().unwrap_or_else(PoisonError::into_inner);
            if *held == now {
                return Ok(Held { path: &self.path, _shown: held });
            }
            drop(held);
            let mut held = self.shown.write().unwrap_or_else(PoisonError::into_inner);
            if *held != now {
                // Jails that are there have copies.
                while unmount(&self.path, UnmountFlags::DETACH).is_ok() {}
                held.clear();
                self.make(spawner, program)?;
                *held = now;
            }
        }
    }

    fn make(&self, spawner: &Spawner, program: &Program) -> Result<(), Error> {
        let failed = |error| Error::Files("putting together what jails have in common", error);
        let mut command = program.command("base");
        command.arg(&self.path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let made = spawner.spawn(command).and_then(Child::wait_with_output).map_err(failed)?;
        match serde_json::from_slice(&made.stdout).ok().as_ref().and_then(failure) {
            Some(error) => Err(error),
            None if made.status.success() => Ok(()),
            None => Err(Error::Maker),
        }
    }
}
