//! What each process may do: those that make sandboxes what that takes and no more, the gateway nothing.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// Mounts and namespaces, and those of a jail; becoming their users; files of whomever; ending processes; the loopback of a new network.
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
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::NET_ADMIN);

/// Every user there is, as the machine itself and nobody in a namespace of users sees them.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// Whether mounts and users of others are this process's to make. Root of a container without privileges is a user like
/// any other.
pub(super) fn held() -> bool {
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
pub(super) fn reduce() -> io::Result<()> {
    // SAFETY: no other thread of this process runs yet that could have files in common with this one.
    #[expect(unsafe_code, reason = "what is shared between threads changes")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
    }
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    limit()
}

/// Gives up what making sandboxes does not take.
///
/// # Errors
/// Of the kernel.
pub(super) fn limit() -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        bound(NEEDED)?;
    }
    let kept = held.permitted.intersection(NEEDED);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Gives up every capability for good: no program that this process starts can bring one back, whoever owns it.
///
/// # Errors
/// Where another thread runs, which would keep its own; of the kernel. This process must then not go on.
pub fn give_up() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("other threads run already"));
    }
    let nothing = CapabilitySet::empty();
    if rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        bound(nothing)?;
    }
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Takes every capability but `kept` from all programs that are started from here on.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last that the kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The connection that is this process's standard input, its only open file from then on beside its output. It is told
/// by its connection when to end, and by no signal: whoever stops a service signals all of its processes at once.
///
/// Called before anything is opened or begun.
///
/// # Errors
/// Of the kernel.
pub fn connection() -> io::Result<OwnedFd> {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: nothing has been opened by this process, so that nobody uses the files that are closed; the set is
    // initialized before it is read.
    #[expect(unsafe_code, reason = "files that nobody has told of are closed, and signals are held back")]
    unsafe {
        if libc::close_range(3, libc::c_uint::MAX, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let connection = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(connection)
}
