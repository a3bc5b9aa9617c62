//! The gateway's end of archives: bytes go between the process that may read workspaces and whoever keeps archives.

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::os::fd::OwnedFd;

use kernel::{BlobHash, Error as Failure, Result, WorkspaceSnapshotId};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::runtime::Handle;

use super::Local;
use super::error::Error;
use super::message::{Answer, Call, WorkspaceCall};
use super::pieces;
use crate::workspace::Caps;
use crate::workspace::manifest::Manifest;
use crate::workspace::restoring::Open;

impl Local {
    /// Writes the archive of a snapshot to `out`, as [`crate::workspace::archive::write`], and returns its manifest.
    /// Called on a thread that may block.
    ///
    /// # Errors
    /// As there; `unavailable` where the process is gone.
    pub fn archive(
        &self,
        runtime: &Handle,
        snapshot: WorkspaceSnapshotId,
        base: Option<&Manifest>,
        out: &mut dyn Write,
    ) -> Result<Manifest> {
        let (read, write) = pipe()?;
        let mut told = memory(|_| Ok(()))?;
        let mut files = vec![write, told.try_clone().map_err(failed)?.into()];
        if let Some(base) = base {
            files.push(memory(|file| Ok(base.write(file)?))?.into());
        }
        let call = Call::Workspace(WorkspaceCall::Archive { snapshot });
        std::thread::scope(|scope| {
            let called = scope.spawn(|| runtime.block_on(self.call_with(call, files)));
            let copied = io::copy(&mut File::from(read), out);
            // Why it was not written says more than that nobody reads it.
            called.join().map_err(|_| Failure::internal("a thread has panicked"))??;
            copied.map(drop).map_err(|error| Error::Files("keeping an archive", error).into())
        })
        .and_then(|()| {
            told.rewind().map_err(failed)?;
            Ok(Manifest::read(&mut told, &Caps::default())?)
        })
    }

    /// Makes a snapshot of what `manifest` describes and `open` gives the archives of. Called on a thread that may block.
    ///
    /// # Errors
    /// `conflict` where there is one; `internal` where an archive is not what was written; of `open`.
    pub fn receive(
        &self,
        runtime: &Handle,
        snapshot: WorkspaceSnapshotId,
        manifest: &Manifest,
        open: &mut Open<'_>,
    ) -> Result<()> {
        let (read, write) = pipe()?;
        let files = vec![memory(|file| Ok(manifest.write(file)?))?.into(), read];
        let call = Call::Workspace(WorkspaceCall::Receive { snapshot });
        std::thread::scope(|scope| {
            let called = scope.spawn(|| runtime.block_on(self.call_with(call, files)));
            let (mut out, mut unread) = (File::from(write), false);
            let sent = manifest.archives.iter().try_for_each(|archive| {
                let mut input = open(archive.snapshot)?;
                pieces::send(&mut *input, &mut out).map_err(|error| {
                    unread = error.kind() == io::ErrorKind::BrokenPipe;
                    failed(error)
                })
            });
            drop(out);
            let called = called.join().map_err(|_| Failure::internal("a thread has panicked"))?;
            // Who takes nothing more says why; who has not got all is not to blame.
            if unread || sent.is_ok() { called.map(drop) } else { sent }
        })
    }

    /// The digest of what a snapshot holds: the same wherever it lies.
    ///
    /// # Errors
    /// `not_found`; `too_large` where there is more than is read.
    pub async fn digest(&self, snapshot: WorkspaceSnapshotId) -> Result<BlobHash> {
        match self.call_with(Call::Workspace(WorkspaceCall::Digest { snapshot }), Vec::new()).await? {
            (Answer::Digest(digest), _) => Ok(digest),
            _ => Err(Error::Answer.into()),
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))
}

pub(super) fn failed(error: io::Error) -> Failure {
    Error::Files("carrying an archive", error).into()
}

/// A file of no directory, to be read from its beginning.
pub(super) fn memory(fill: impl FnOnce(&mut File) -> Result<()>) -> Result<File> {
    let made = rustix::fs::memfd_create("manifest", MemfdFlags::CLOEXEC);
    let mut file = File::from(made.map_err(|error| failed(error.into()))?);
    fill(&mut file)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}
