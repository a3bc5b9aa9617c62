//! Control groups: v2, v1, or both at once, whichever this machine has, below the group that this process is in.
//!
//! A sandbox has a group of its name in each hierarchy, and where that bounds anything, in it one for its commands, which
//! carries the limits: whatever commands use up, the hand still answers.

mod hierarchy;
mod layout;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hand::jail::{Groups, Kernel};

use crate::runner::{Limiting, Limits, Usage};

pub use hierarchy::Hierarchy;
pub use layout::Layout;

/// How long the processes of a group may take to be gone once they are killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The groups of one sandbox.
#[derive(Debug)]
pub struct Group {
    hierarchies: Vec<Hierarchy>,
    name: String,
}

impl Group {
    /// Makes the groups of the sandbox `name`. Nothing is left where one cannot be made.
    ///
    /// # Errors
    /// Of the file system, with the path.
    pub fn create(layout: &Layout, name: &str, limits: &Limits) -> io::Result<Self> {
        let group = Self::named(layout, name);
        let made = group.hierarchies.iter().try_for_each(|hierarchy| hierarchy.create(name, limits));
        if let Err(error) = made {
            // Why it could not be made says more than why it could not be removed.
            let _ = group.destroy();
            return Err(error);
        }
        Ok(group)
    }

    /// The groups of a sandbox that may or may not be there.
    #[must_use]
    pub fn named(layout: &Layout, name: &str) -> Self {
        Self { hierarchies: layout.hierarchies.clone(), name: name.to_owned() }
    }

    /// How a jail with that kernel joins.
    #[must_use]
    pub fn to_join(&self, kernel: &Kernel) -> Groups {
        let mut groups = Groups::default();
        for hierarchy in &self.hierarchies {
            hierarchy.add_to_join(&self.name, kernel, &mut groups);
        }
        groups
    }

    /// Stops every process where it is, and returns when each has stopped.
    ///
    /// # Errors
    /// `Unsupported` where no hierarchy can; of the file system.
    pub fn freeze(&self) -> io::Result<()> {
        self.freezer()?.freeze(&self.name)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Group::freeze`].
    pub fn thaw(&self) -> io::Result<()> {
        self.freezer()?.thaw(&self.name)
    }

    fn freezer(&self) -> io::Result<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.freezes())
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// What the sandbox uses, as far as there is a hierarchy that counts it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for hierarchy in &self.hierarchies {
            hierarchy.add_usage(&self.name, &mut usage);
        }
        usage
    }

    /// Ends every process in the groups and removes them. What is not there is no error.
    ///
    /// # Errors
    /// `TimedOut` where processes do not end; of the file system.
    pub fn destroy(&self) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            hierarchy.kill(&self.name)?;
        }
        let deadline = Instant::now() + PATIENCE;
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.directory(&self.name);
            for group in [directory.join(hierarchy::HAND), directory.join(hierarchy::COMMANDS), directory] {
                self.remove(&group, deadline)?;
            }
        }
        Ok(())
    }

    /// A group can be removed a moment after its last process is gone, and a process may have been made while the others
    /// were killed.
    fn remove(&self, group: &Path, deadline: Instant) -> io::Result<()> {
        let mut pause = Duration::from_micros(200);
        loop {
            match fs::remove_dir(group) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", group.display())));
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, group.display().to_string()));
                }
                Err(_) => {
                    remove_below(group);
                    for hierarchy in &self.hierarchies {
                        hierarchy.kill(&self.name)?;
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
            }
        }
    }
}

/// Whether limits are held for a sandbox as a whole.
impl From<&Layout> for Limiting {
    fn from(layout: &Layout) -> Self {
        if layout.limits() { Limiting::Enforced } else { Limiting::Degraded }
    }
}

/// Removes groups that were made below one of ours, by whoever was in it.
fn remove_below(group: &Path) {
    let below: Vec<PathBuf> = fs::read_dir(group)
        .map(|entries| {
            entries.flatten().filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect()
        })
        .unwrap_or_default();
    for group in below {
        remove_below(&group);
        let _ = fs::remove_dir(group);
    }
}
