//! The gateway's way to sockets that programs in a sandbox listen at: no byte of it passes through another process.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use kernel::{Result, SandboxId};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixStream;

use super::Local;
use super::error::Error;
use super::message::{Answer, Call};

/// The directory in which what runs in a sandbox listens, `/run/steading` inside. It is whoever's who runs there: what has a
/// name in it may be anything, and lead anywhere. As long as this lives, the directory does.
#[derive(Debug)]
pub struct Door(OwnedFd);

impl Local {
    /// That of a sandbox.
    ///
    /// # Errors
    /// `not_found` where it does not run; `unavailable` where it has just ended.
    pub async fn door(&self, id: SandboxId) -> Result<Door> {
        match self.call(Call::Door(id)).await? {
            (Answer::Door, files) => match <[OwnedFd; 1]>::try_from(files) {
                Ok([directory]) => Ok(Door(directory)),
                Err(_) => Err(Error::Answer.into()),
            },
            _ => Err(Error::Answer.into()),
        }
    }
}

impl Door {
    /// Connects to the socket of that name.
    ///
    /// # Errors
    /// Where there is none, it is something else, or nobody listens at it.
    pub async fn dial(&self, name: &str) -> io::Result<UnixStream> {
        if name.contains('/') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The very file that was looked at is what is dialled, whatever has its name by then.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::openat(&self.0, name, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode);
        if kind != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is to be a socket is none"));
        }
        UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
    }
}
