//! What a process gives up for good before it becomes somebody's command.

use std::io;

use serde::{Deserialize, Serialize};

/// What is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// The user and the group to become; without one the process stays who it is.
    pub user: Option<u32>,
}

/// Gives it up. Called between fork and exec, in a process of one thread.
///
/// # Errors
/// Of the kernel; the process must then not go on.
pub fn confine(confinement: &Confinement) -> io::Result<()> {
    if let Some(id) = confinement.user {
        // SAFETY: plain system calls; the list of groups is empty, so nothing is read.
        #[expect(unsafe_code, reason = "rustix changes the ids of a thread, this is about the process")]
        let failed = unsafe {
            libc::setgroups(0, std::ptr::null()) != 0
                || libc::setresgid(id, id, id) != 0
                || libc::setresuid(id, id, id) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
