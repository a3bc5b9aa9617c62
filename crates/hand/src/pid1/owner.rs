//! Files that this process makes for the user whom commands run as.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Lets the kernel judge accesses of files as that user's while it lives, so that nothing which the user has put in the
/// way leads anywhere that the user could not go.
pub struct Owner {
    back: Option<(u32, u32)>,
}

impl Owner {
    /// Without a user nothing changes.
    pub fn become_user(user: Option<u32>) -> Self {
        let Some(user) = user else { return Self { back: None } };
        // SAFETY: changes nothing but how accesses of files are judged.
        #[expect(unsafe_code, reason = "rustix has no setfsuid")]
        let (uid, gid) = unsafe {
            let gid = libc::setfsgid(user);
            (libc::setfsuid(user), gid)
        };
        Self { back: Some((uid.cast_unsigned(), gid.cast_unsigned())) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.back {
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "rustix has no setfsuid")]
            unsafe {
                libc::setfsuid(uid);
                libc::setfsgid(gid);
            }
        }
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
