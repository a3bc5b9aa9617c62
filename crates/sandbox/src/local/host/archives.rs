//! Archives of workspaces, written and read where their files may be: whoever keeps them sees only bytes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{BlobHash, Result, WorkspaceSnapshotId};

use super::Error;
use crate::local::pieces::Incoming;
use crate::workspace::archive::{self, LeftOut};
use crate::workspace::manifest::Manifest;
use crate::workspace::restoring;
use crate::workspace::{Caps, Workspaces};

/// Writes the archive of a snapshot, then its manifest.
///
/// # Errors
/// `not_found`; those of [`archive::write`].
pub fn write(keeper: &dyn Workspaces, snapshot: WorkspaceSnapshotId, files: Vec<OwnedFd>) -> Result<()> {
    let caps = Caps::default();
    let mut files = files.into_iter().map(File::from);
    let (Some(mut out), Some(mut told)) = (files.next(), files.next()) else {
        return Err(Error::Order.into());
    };
    let base = files.next().map(|mut base| Manifest::read(&mut base, &caps)).transpose()?;
    let trees = keeper.snapshot_files(snapshot)?;
    let manifest = archive::write(&trees, snapshot, base.as_ref(), LeftOut::Nothing, &caps, &mut out)?;
    Ok(manifest.write(&mut told)?)
}

/// Makes a snapshot of what a manifest describes and archives have.
///
/// # Errors
/// `conflict`; those of [`restoring::restore`].
pub fn receive(keeper: &dyn Workspaces, snapshot: WorkspaceSnapshotId, files: Vec<OwnedFd>) -> Result<()> {
    let caps = Caps::default();
    let mut files = files.into_iter().map(File::from);
    let (Some(mut told), Some(input)) = (files.next(), files.next()) else {
        return Err(Error::Order.into());
    };
    let manifest = Manifest::read(&mut told, &caps)?;
    let incoming = Arc::new(Mutex::new(Incoming::new(input)));
    keeper.receive(snapshot, &mut |to| {
        let mut open = |_| {
            let failed = |error| Error::Files("reading an archive", error);
            incoming.lock().unwrap_or_else(PoisonError::into_inner).next_archive().map_err(failed)?;
            Ok(Box::new(One(incoming.clone())) as Box<dyn Read>)
        };
        restoring::restore(&manifest, &mut open, &caps, to)
    })
}

/// The digest of what a snapshot holds.
///
/// # Errors
/// `not_found`; those of [`archive::scan`].
pub fn digest(keeper: &dyn Workspaces, snapshot: WorkspaceSnapshotId) -> Result<BlobHash> {
    Ok(archive::scan(&keeper.snapshot_files(snapshot)?, &Caps::default())?.digest())
}

/// The archive that is being read of those that come.
struct One(Arc<Mutex<Incoming<File>>>);

impl Read for One {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}
