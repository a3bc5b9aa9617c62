//! What a jail is to be like, told to whoever makes it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is mounted at `/workspace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tree {
    /// A directory of the host, as it is.
    Directory {
        /// Where it is on the host.
        path: PathBuf,
    },
    /// A directory of the host that is only read.
    Fixed {
        /// Where it is on the host.
        path: PathBuf,
    },
    /// Layers that are only read, the topmost first, under one that takes what is written (overlayfs). It is mounted
    /// with `userxattr`: marks are then the same with and without privileges, out of reach of whoever is inside, and
    /// neither renames of directories nor changes of mere attributes are kept in ways that only overlayfs reads.
    Overlay {
        /// The layers that are only read.
        lowers: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// The engine's own directory, on the file system of `upper`.
        work: PathBuf,
    },
}

/// Who the users of a jail are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Users {
    /// 65,536 users of the host that nobody else is, from `first` on. Needs privileges.
    Range {
        /// The host's number for the jail's user 0.
        first: u32,
    },
    /// The one user that makes the jail.
    Single,
}

impl Users {
    /// The number, where the jail is made, of its user 0.
    pub(super) fn root(self) -> u32 {
        match self {
            Users::Range { first } => first,
            Users::Single => 0,
        }
    }

    /// The number, where the jail is made, of the user that commands are.
    pub(super) fn commands(self) -> u32 {
        match self {
            Users::Range { first } => first + super::USER,
            Users::Single => 0,
        }
    }
}

/// The control groups of a jail; none where none can be written.
///
/// Files take the process that writes `0` into them. Of version 1 that is `tasks`, which takes a thread, and so all of a
/// process that has one: `cgroup.procs` waits until every processor of the machine has been seen between two processes,
/// which is longer than a short command takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The directory of the group of version 2 in which the first process is made.
    #[serde(default)]
    pub first: Option<PathBuf>,
    /// The files of the groups of version 1 of the first process alone, so that nothing that commands do starves it.
    pub hand: Vec<PathBuf>,
    /// The files of the groups of everything else.
    pub commands: Vec<PathBuf>,
}

/// One thing that keeps a jail closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// The filter of system calls.
    Seccomp,
    /// Landlock.
    Landlock,
    /// Commands are another user than the first process, without capabilities.
    Privileges,
    /// No program makes anybody more than they were.
    NoNewPrivileges,
    /// The users of the jail are nobody on the host.
    Users,
    /// The network is the jail's own.
    Network,
    /// What the kernel tells of the host in `/proc` is covered.
    Proc,
    /// Files of the workspace change nobody's user.
    Nosuid,
    /// A crash reaches nobody on the host.
    Core,
    /// Commands are counted and bounded.
    Groups,
}

/// Whose system calls the processes of a jail make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kernel {
    /// The host's, through the filter.
    #[default]
    Host,
    /// gVisor's, a program that runs in a jail without a filter and has one inside by its own.
    Gvisor {
        /// `runsc` on the host.
        program: PathBuf,
    },
}

/// What of a jail lies on disks of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disks {
    /// What is mounted at `/workspace`.
    pub workspace: Tree,
    /// Directories laid over `/usr/local`, only to be read, the topmost first.
    pub layers: Vec<PathBuf>,
}

/// When it is said what lies on disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// With the rest.
    #[default]
    AtOnce,
    /// By a line of JSON, [`Disks`], when all else is there, which [`super::Report::Waits`] says. The first process serves
    /// nobody before that.
    /// What the description of the jail names only says on which file systems it will be.
    Later,
}

/// A jail that is wanted. Every path is one of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailSpec {
    /// What is mounted at `/workspace`.
    pub workspace: Tree,
    /// Directories laid over `/usr/local`, only to be read, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What `/tmp` holds, in bytes; `/dev/shm` a quarter of it.
    pub tmp_bytes: u64,
    /// What `/proc/meminfo` says there is, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of one user.
    pub pids: u32,
    /// The socket that becomes `/run/steading/egress.sock`.
    pub egress: PathBuf,
    /// The socket that becomes `/run/steading/bridge.sock`.
    pub bridge: PathBuf,
    /// The program that becomes `/run/steading/hand`.
    pub hand: PathBuf,
    /// The directory that becomes `/run/steading/runners`, only to be read: each version of the platform's own programs
    /// under its digest.
    pub runners: PathBuf,
    /// The directory that becomes `/run/steading/runner`, only to be read: `current` in it leads to one of those.
    pub runner: PathBuf,
    /// Where the part of the root is that all jails have in common, put together by [`super::make_base`]. Without one the
    /// jail makes its own in `scratch`.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// An empty directory in which the root is put together; nothing of it is seen outside the jail.
    pub scratch: PathBuf,
    /// The control groups.
    pub groups: Groups,
    /// Who the users are on the host.
    pub users: Users,
    /// When `workspace` and `layers` are said.
    #[serde(default)]
    pub disks: Told,
    /// Whose system calls its processes make.
    #[serde(default)]
    pub kernel: Kernel,
    /// What to leave out, so that a test can see what it was good for. Refused unless the program was built for tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Protection>,
}

impl JailSpec {
    /// Whether the jail has this protection.
    #[must_use]
    pub fn has(&self, protection: Protection) -> bool {
        !self.without.contains(&protection)
    }
}
