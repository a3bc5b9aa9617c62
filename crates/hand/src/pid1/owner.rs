//! Files that this process makes for the user whom commands run as.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Lets the kernel judge accesses of files as that user's while it lives, so that nothing which the user has put in the
/// way leads anywhere that the user could not go.
pub struct Owner {
    back: Back,
}

/// What is put back.
enum Back {
    Nothing,
    /// The user and the group by whom accesses of files are judged.
    Files(u32, u32),
    /// The same of everything, where the kernel does not tell the two apart.
    Everything(u32, u32),
}

impl Owner {
    /// Without a user nothing changes.
    pub fn become_user(user: Option<u32>) -> Self {
        let Some(user) = user else { return Self { back: Back::Nothing } };
        // SAFETY: changes nothing but how accesses of files are judged.
        #[expect(unsafe_code, reason = "rustix has no setfsuid")]
        let (uid, gid) = unsafe {
            let gid = libc::setfsgid(user);
            (libc::setfsuid(user), gid)
        };
        // It returns who it was before; gVisor's kernel does not have it.
        let back = if uid < 0 {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            act_as(user, user);
            Back::Everything(uid, gid)
        } else {
            Back::Files(uid.cast_unsigned(), gid.cast_unsigned())
        };
        Self { back }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        match self.back {
            Back::Nothing => {}
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "rustix has no setfsuid")]
            Back::Files(uid, gid) => unsafe {
                libc::setfsuid(uid);
                libc::setfsgid(gid);
            },
            Back::Everything(uid, gid) => act_as(uid, gid),
        }
    }
}

/// Acts as that user and that group; who this process really is, and what it may become, stays.
fn act_as(uid: u32, gid: u32) {
    let same = u32::MAX;
    // SAFETY: this process has one thread. Only who has the privilege becomes another group, so that is first when it is
    // given up, and last when it comes back; what fails the second time was done by the first.
    #[expect(unsafe_code, reason = "rustix changes the ids of a thread, this is about the process")]
    unsafe {
        libc::setresgid(same, gid, same);
        libc::setresuid(same, uid, same);
        libc::setresgid(same, gid, same);
    }
}

/// Makes a file of that user's, which is not there yet.
///
/// # Errors
/// Where there is one, or a link, or no room.
pub fn create(path: &Path, user: Option<u32>, mode: u32) -> io::Result<File> {
    let _owner = Owner::become_user(user);
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Puts a file of that user's in the place of whatever file is there, in one step.
///
/// # Errors
/// Where there is a directory, or no room.
pub fn replace(path: &Path, user: Option<u32>, mode: u32, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _owner = Owner::become_user(user);
    if let Err(error) = std::fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(content)?;
    std::fs::rename(&new, path)
}
