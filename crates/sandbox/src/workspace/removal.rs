//! Removes trees of any depth: what is deep is first moved up.

use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use super::{Error, beneath};

/// Empties the directory `place`, which is the host's own and has nothing in it that anybody uses. Where it is killed,
/// what is left is still below `place`.
///
/// # Errors
/// Of the file system.
pub(super) fn empty(place: &Path) -> Result<(), Error> {
    let failed = || Error::os("what is not needed any more cannot be removed");
    let root = beneath::root(place).map_err(failed())?;
    let mut serial = 0u64;
    loop {
        let mut left = false;
        for entry in Dir::read_from(&root).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            left = true;
            if entry.file_type() != FileType::Directory && unlink(&root, name)? {
                continue;
            }
            let directory = match beneath::directory(&root, name.to_bytes()) {
                Ok(directory) => directory,
                // Without privileges, our own directory may be closed to us.
                Err(Errno::ACCESS) => {
                    rustix::fs::chmodat(&root, name, Mode::RWXU, AtFlags::empty()).map_err(failed())?;
                    beneath::directory(&root, name.to_bytes()).map_err(failed())?
                }
                Err(other) => return Err(failed()(other)),
            };
            if !rustix::process::geteuid().is_root() {
                rustix::fs::fchmod(&directory, Mode::RWXU).map_err(failed())?;
            }
            for inner in Dir::read_from(&directory).map_err(failed())? {
                let inner = inner.map_err(failed())?;
                let inner = (inner.file_name(), inner.file_type());
                if matches!(inner.0.to_bytes(), b"." | b"..")
                    || inner.1 != FileType::Directory && unlink(&directory, inner.0)?
                {
                    continue;
                }
                loop {
                    serial += 1;
                    // What it may meet there goes too, and an empty directory gives way.
                    let up = rustix::fs::renameat(&directory, inner.0, &root, format!(".{serial}"));
                    match up {
                        Ok(()) => break,
                        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                        Err(Errno::ACCESS) => {
                            rustix::fs::chmodat(&directory, inner.0, Mode::RWXU, AtFlags::empty())
                                .map_err(failed())?;
                        }
                        Err(other) => return Err(failed()(other)),
                    }
                }
            }
            match rustix::fs::unlinkat(&root, name, AtFlags::REMOVEDIR) {
                // A listing that changes underfoot may leave something out, which the next round finds.
                Ok(()) | Err(Errno::NOTEMPTY) => {}
                Err(other) => return Err(failed()(other)),
            }
        }
        if !left {
            return Ok(());
        }
    }
}

/// Whether it was no directory, and is gone.
fn unlink(parent: &impl std::os::fd::AsFd, name: &std::ffi::CStr) -> Result<bool, Error> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(other) => Err(Error::Io("what is not needed any more cannot be removed", other.into())),
    }
}
