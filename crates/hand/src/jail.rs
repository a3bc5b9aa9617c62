//! A jail: what it is to be like, how it is made, and what every process in it has given up.

pub mod base;
mod etc;
mod gate;
mod gvisor;
mod landlock;
mod make;
mod mounts;
mod namespaces;
mod privileges;
mod proc;
mod seccomp;
mod spec;
mod sys;
mod tree;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use gate::Gate;
pub use landlock::is_there as landlock_is_there;
pub use make::{make, make_base};
pub use privileges::{Confinement, become_first, confine};
pub use spec::{Disks, Groups, JailSpec, Kernel, Protection, Told, Tree, Users};

/// The user that commands are, inside and on disk; the group has the same number.
pub const USER: u32 = 1000;

/// What of making a jail failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reading what was asked for.
    Spec,
    /// Joining the control groups.
    Groups,
    /// The namespace of users.
    Users,
    /// The other namespaces.
    Namespaces,
    /// The loopback interface.
    Network,
    /// The file systems that every jail has.
    Mounts,
    /// `/workspace`, and what lies over `/usr/local`.
    Workspace,
    /// Becoming the jail's own user and giving up capabilities.
    Privileges,
    /// Landlock.
    Landlock,
    /// The filter of system calls.
    Seccomp,
    /// Becoming the first process.
    Exec,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step:?} at {at}")]
pub struct Error {
    /// Which.
    pub step: Step,
    /// On what: a path, or a call of the kernel.
    pub at: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// What the maker of a jail says of it, a line of JSON each. Silence after `Made` and the end of the pipe mean that the
/// jail's first process runs. Where that is another kernel, it keeps the pipe for what it has to complain of; then the
/// hand's first words on the connection mean that all runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// The first process exists.
    Made {
        /// Its number where the maker was started.
        pid: u32,
    },
    /// All is there but what lies on disks.
    Waits,
    /// It does not work; whatever there was is gone when the process is.
    Failed {
        /// The step.
        step: Step,
        /// On what.
        at: String,
        /// The kernel's number for why; 0 where it was not the kernel.
        errno: i32,
    },
}

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        let errno = error.source.raw_os_error().unwrap_or(0);
        Report::Failed { step: error.step, at: error.at, errno }
    }
}

/// Names step and place of what fails.
trait At<T> {
    fn at(self, step: Step, at: impl ToString) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step, at: impl ToString) -> Result<T, Error> {
        self.map_err(|source| Error { step, at: at.to_string(), source: source.into() })
    }
}

/// Where the hand is, as every process in a jail sees it.
#[must_use]
pub fn hand_path() -> PathBuf {
    PathBuf::from("/run/steading/hand")
}
