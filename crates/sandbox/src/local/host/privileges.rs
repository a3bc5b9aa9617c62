//! What the process that makes sandboxes may do: what that takes, and no more.

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// Mounts and namespaces; becoming their users; files of whomever; ending processes; the loopback of a new network.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::NET_ADMIN);

/// Every user there is, as the machine itself and nobody in a namespace of users sees them.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// Whether mounts and users of others are this process's to make. Root of a container without privileges is a user like
/// any other.
pub fn held() -> bool {
    let held = rustix::thread::capabilities(None);
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root()
        && held.is_ok_and(|held| held.effective.contains(CapabilitySet::SYS_ADMIN))
        && users.split_whitespace().eq(ALL_USERS)
}

/// Leaves the network and the mounts of the machine, and gives up what is not needed. What this process mounts is gone
/// with it; what others mount it still sees.
///
/// # Errors
/// Of the kernel.
pub fn reduce() -> io::Result<()> {
    // SAFETY: no other thread of this process runs yet that could have files in common with this one.
    #[expect(unsafe_code, reason = "what is shared between threads changes")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    for capability in CapabilitySet::all().difference(NEEDED).iter() {
        if rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(capability)?;
        }
    }
    let kept = rustix::thread::capabilities(None)?.permitted.intersection(NEEDED);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
