//! What processes of a jail may do: the first one a little, commands nothing.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use super::{At, Error, JailSpec, Kernel, Protection, Step, USER, Users, sys};

/// What the first process keeps: to become a command's user, and to end processes of it.
const KEPT: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::KILL);

/// Most open files of a process.
pub(super) const FILES: u64 = 65_536;

/// What is given up between fork and exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// The user and the group to become; without one the process stays who it is.
    pub user: Option<u32>,
    /// Open files that take who writes `0` into the groups to join.
    #[serde(default)]
    pub groups: Vec<RawFd>,
    /// How many processes there may be of all commands together, where the kernel is the sandbox's own: then the first
    /// process makes groups that hold them to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// Becomes the user that the first process is, and gives up every capability but [`KEPT`]: no program can bring one back,
/// for the bounding set is empty and locked so that user 0 is a user like any other.
pub(super) fn become_hand(spec: &JailSpec, users: BorrowedFd<'_>) -> Result<(), Error> {
    let step = Step::Privileges;
    if spec.has(Protection::Users) {
        sys::enter(users, libc::CLONE_NEWUSER).at(Step::Users, "setns")?;
        match spec.users {
            Users::Range { .. } => sys::become_user(0).at(step, "user 0")?,
            // This already is USER, and cannot be anybody else.
            Users::Single => {}
        }
    }
    limits(spec).at(step, "limits")?;
    if spec.kernel != Kernel::Host {
        // It makes namespaces of its own in the one of users, and gives up all else by itself.
        return sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(step, "no_new_privs");
    }
    if spec.has(Protection::NoNewPrivileges) {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at(step, "no_new_privs")?;
    }
    if !spec.has(Protection::Privileges) {
        return Ok(());
    }
    let sets = CapabilitySets {
        effective: CapabilitySet::all(),
        permitted: CapabilitySet::all(),
        inheritable: KEPT,
    };
    let held = rustix::thread::capabilities(None).at(step, "capget")?;
    let sets = CapabilitySets { effective: held.permitted, permitted: held.permitted, ..sets };
    rustix::thread::set_capabilities(None, sets).at(step, "capset")?;
    rustix::thread::clear_ambient_capability_set().at(step, "ambient")?;
    for capability in KEPT.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true).at(step, "ambient")?;
    }
    let root_is_nobody = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    sys::prctl(libc::PR_SET_SECUREBITS, root_is_nobody as libc::c_ulong).at(step, "securebits")?;
    // Numbers past the last that the kernel knows are refused.
    for number in 0..64 {
        if sys::prctl(libc::PR_CAPBSET_DROP, number).is_err() {
            break;
        }
    }
    Ok(())
}

/// What the first process does before anything else: its memory and files are nobody's, and it does not outlive whoever
/// made it.
///
/// # Errors
/// Of the kernel; the process must then not go on.
pub fn become_first() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Gives up what commands do not have. Called between fork and exec, in a process of one thread.
///
/// # Errors
/// Of the kernel; the process must then not go on.
pub fn confine(confinement: &Confinement) -> io::Result<()> {
    for group in &confinement.groups {
        // SAFETY: whoever made the confinement holds the file open.
        #[expect(unsafe_code, reason = "a confinement is data, which borrows nothing")]
        let group = unsafe { BorrowedFd::borrow_raw(*group) };
        rustix::io::write(group, b"0")?;
    }
    let Some(user) = confinement.user else {
        return Ok(());
    };
    if rustix::process::getuid().as_raw() != user {
        sys::become_user(user)?;
    }
    match rustix::thread::clear_ambient_capability_set() {
        // A kernel that does not know of them, as gVisor's, has none to clear.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let nothing = CapabilitySet::empty();
    let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn limits(spec: &JailSpec) -> io::Result<()> {
    // A limit of 1 is the one that also keeps a core from a program of the host that takes cores (core(5)); the filter of
    // system calls keeps it where it is.
    let core = if spec.has(Protection::Core) { Some(1) } else { None };
    // What another kernel needs of processes and threads is not what those on it are counted by.
    let counted = spec.has(Protection::Groups) && spec.kernel == Kernel::Host;
    let processes = if counted { Some(u64::from(spec.pids)) } else { None };
    for (resource, limit) in [
        (Resource::Core, core),
        (Resource::Nproc, processes),
        (Resource::Nofile, Some(FILES)),
        (Resource::Nice, Some(0)),
        (Resource::Rtprio, Some(0)),
        (Resource::Memlock, Some(8 << 20)),
    ] {
        let Some(limit) = limit else {
            continue;
        };
        // Nobody raises a limit here.
        let limit = rustix::process::getrlimit(resource).maximum.map_or(limit, |held| held.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// What a command of the jail gives up.
pub(super) fn of_commands(groups: Vec<RawFd>) -> Confinement {
    Confinement { user: Some(USER), groups, pids: None }
}
