//! Trees on any file system: directories that are copied, file by file.

use std::os::fd::AsFd as _;
use std::path::Path;

use super::shelf::{Clear, Sharing, private, step};
use super::trees::Medium;
use super::{Caps, Driver, Error, Files, Trees, beneath, copying, removal};

/// Directories on any file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    sharing: Sharing,
}

impl Trees {
    /// Workspaces in `root`, on a file system that several machines may share. Their contents share blocks where it can.
    ///
    /// # Errors
    /// Of the file system.
    pub fn directory(root: &Path) -> kernel::Result<Self> {
        Ok(Self::over(root, Box::new(Plain { sharing: Sharing::Shared }))?)
    }

    /// Workspaces in `root`, copied byte by byte.
    ///
    /// # Errors
    /// `unavailable` where another process has them; of the file system.
    pub fn copy(root: &Path) -> kernel::Result<Self> {
        Ok(Self::over(root, Box::new(Plain { sharing: Sharing::Alone }))?)
    }
}

impl Clear for Plain {
    fn clear(&self, directory: &Path) -> Result<(), Error> {
        removal::empty(directory)
    }
}

impl Medium for Plain {
    fn driver(&self) -> Driver {
        match self.sharing {
            Sharing::Alone => Driver::Copy,
            Sharing::Shared => Driver::Directory,
        }
    }

    fn sharing(&self) -> Sharing {
        self.sharing
    }

    fn make(&self, at: &Path) -> Result<(), Error> {
        make(at)
    }

    fn double(&self, from: &Path, to: &Path, quota: u64) -> Result<(), Error> {
        make(to)?;
        step();
        let root = beneath::root(to).map_err(Error::os("a directory cannot be opened"))?;
        let how = match self.sharing {
            Sharing::Alone => copying::How::Bytes,
            Sharing::Shared => copying::How::Shared,
        };
        copying::merged(&Files::of(from.to_owned()), root.as_fd(), how, &Caps::default(), quota)?;
        step();
        rustix::fs::syncfs(&root).map_err(Error::os("the copy cannot be brought to the disk"))
    }

    fn seal(&self, _at: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn bound(&self, _at: &Path, _quota: u64) -> Result<bool, Error> {
        Ok(false)
    }
}

/// Makes an empty directory that the user of sandboxes owns.
pub(super) fn make(at: &Path) -> Result<(), Error> {
    let failed = || Error::os("a directory cannot be made");
    private(at).map_err(Error::io("a directory cannot be made"))?;
    let fd = beneath::root(at).map_err(failed())?;
    rustix::fs::fchmod(&fd, rustix::fs::Mode::from_raw_mode(0o755)).map_err(failed())?;
    copying::own_open(fd.as_fd())
}
