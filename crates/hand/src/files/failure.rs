//! Why something could not be done with a file.

use std::io;

use crate::wire::{Cause, Failure};

/// Why not.
#[derive(Debug)]
pub struct Failed(pub Failure);

pub type Result<T> = std::result::Result<T, Failed>;

/// Something that makes no sense.
pub fn invalid(message: impl Into<String>) -> Failed {
    Failed(Failure { cause: Cause::Invalid, message: message.into() })
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let cause = match error.raw_os_error() {
            Some(libc::ENOENT) => Cause::NotFound,
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Cause::Denied,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Cause::Full,
            Some(libc::EEXIST | libc::ENOTEMPTY) => Cause::Exists,
            Some(
                libc::EINVAL
                | libc::ENOTDIR
                | libc::EISDIR
                | libc::ELOOP
                | libc::ENAMETOOLONG
                | libc::EXDEV
                | libc::ENXIO,
            ) => Cause::Invalid,
            _ => Cause::Broken,
        };
        Failed(Failure { cause, message: error.to_string() })
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Says which file.
pub trait On<T> {
    fn on(self, path: &str) -> Result<T>;
}

impl<T, E: Into<Failed>> On<T> for std::result::Result<T, E> {
    fn on(self, path: &str) -> Result<T> {
        self.map_err(|error| {
            let Failed(failure) = error.into();
            let path: String = path.chars().take(500).collect();
            Failed(Failure { message: format!("{path}: {}", failure.message), ..failure })
        })
    }
}
