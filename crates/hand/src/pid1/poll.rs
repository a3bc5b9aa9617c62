//! What the loop waits for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until one of them is ready or the time has come, and says which are.
pub fn wait<T: Copy>(wanted: Vec<(T, PollFd<'_>)>, until: Option<Instant>) -> Vec<(T, PollFlags)> {
    let (names, mut fds): (Vec<T>, Vec<PollFd<'_>>) = wanted.into_iter().unzip();
    let timeout = until.map(|until| {
        // Rounded up, so that what waits for this moment is due when it is woken.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => names
            .into_iter()
            .zip(fds)
            .map(|(name, fd)| (name, fd.revents()))
            .filter(|(_, e)| !e.is_empty())
            .collect(),
        // Only too little memory and an interruption are possible; the next turn asks again.
        Err(Errno::INTR | _) => Vec::new(),
    }
}

/// A descriptor that is readable when a child has ended; the signal itself comes no more.
///
/// # Errors
/// Of the kernel.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is made before it is used, and the descriptor is new.
    #[expect(unsafe_code, reason = "rustix has no signalfd")]
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}
