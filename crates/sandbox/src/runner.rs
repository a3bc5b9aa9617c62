//! The port to whatever runs sandboxes. A runner makes a jail and carries bytes; what is done in one is
//! written once, over those bytes.

use std::time::Duration;

use futures::future::BoxFuture;
use hand::jail::Tree;
use kernel::{Result, SandboxId};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

/// How strongly a sandbox is kept from its host, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Linux namespaces, seccomp and Landlock: one kernel with the host.
    Namespaces,
    /// A pod of a cluster, with what its runtime class gives.
    Pod,
    /// gVisor: a kernel of its own, in user space.
    Gvisor,
    /// A virtual machine.
    Microvm,
}

impl Isolation {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::Namespaces, Self::Pod, Self::Gvisor, Self::Microvm];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Pod => "pod",
            Self::Gvisor => "gvisor",
            Self::Microvm => "microvm",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// Whether the bounds of a sandbox are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limiting {
    /// The kernel holds each of them for the sandbox as a whole.
    Enforced,
    /// Only limits of single processes are held: no control group can be written here.
    Degraded,
}

/// How much a sandbox may use at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory, with that of `/tmp`, in bytes.
    pub memory_bytes: u64,
    /// Processor time per wall time, in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// What `/tmp` holds, in bytes.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, cpu_millis: 1_000, pids: 512, tmp_bytes: 256 << 20 }
    }
}

/// A sandbox that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its id; everything of it on the host is named so.
    pub id: SandboxId,
    /// What is mounted at `/workspace`.
    pub workspace: Tree,
    /// Directories of the host that are laid over `/usr/local`, only to be read, the topmost first.
    pub layers: Vec<std::path::PathBuf>,
    /// How much it may use.
    pub limits: Limits,
}

/// A sandbox that runs.
#[derive(Debug)]
pub struct Started {
    /// How strongly it is kept from its host.
    pub isolation: Isolation,
    /// Whether its limits are held.
    pub limiting: Limiting,
    /// The one connection to the hand inside; closing it ends the sandbox.
    pub hand: UnixStream,
    /// Where what is inside asks for the network. Only this sandbox can reach it, so it says who asks.
    pub egress: UnixListener,
    /// Where what is inside calls tools. Only this sandbox can reach it, so it says who calls.
    pub bridge: UnixListener,
}

/// What a sandbox has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory at this moment, in bytes.
    pub memory_bytes: u64,
    /// Processor time since the start.
    pub cpu: Duration,
    /// Processes and threads at this moment.
    pub pids: u32,
    /// How often the kernel has ended a process for want of memory.
    pub oom_kills: u64,
}

/// Makes and ends sandboxes. Methods with an id are `not_found` where no such sandbox runs.
pub trait Runner: Send + Sync {
    /// How strongly sandboxes are kept from their host.
    fn isolation(&self) -> Isolation;

    /// Makes a sandbox and returns when the hand in it runs.
    ///
    /// # Errors
    /// `unavailable` where this machine cannot, with what is to be done about it; nothing is left behind.
    fn create<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Started>>;

    /// Stops every process of the sandbox where it is.
    ///
    /// # Errors
    /// `not_found`; `unavailable` where the runner cannot.
    fn pause(&self, id: SandboxId) -> BoxFuture<'_, Result<()>>;

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Runner::pause`].
    fn resume(&self, id: SandboxId) -> BoxFuture<'_, Result<()>>;

    /// Ends every process and removes all that was made for the sandbox but its workspace. Once more is no error.
    ///
    /// # Errors
    /// Where something could not be removed.
    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<()>>;

    /// What the sandbox uses.
    ///
    /// # Errors
    /// `not_found`.
    fn usage(&self, id: SandboxId) -> BoxFuture<'_, Result<Usage>>;
}
