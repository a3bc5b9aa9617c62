//! The gateway's end of archives: bytes go between the process that may read workspaces and whoever keeps archives.

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use kernel::{BlobHash, Code, Error as Failure, Result, SandboxId, WorkspaceSnapshotId};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::runtime::Handle;

use super::Local;
use super::error::Error;
use super::message::{Answer, Call, WorkspaceCall};
use super::pieces;
use crate::session::{Exec, Outcome, Run, Session};
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

    /// Adds a version of the platform's own programs in sandboxes: at most three files by their names, programs all.
    ///
    /// # Errors
    /// `unavailable` where the process is gone; `internal` for names that are none.
    pub async fn add_runner(&self, files: &[(&str, &[u8])]) -> Result<BlobHash> {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let file = |bytes: &[u8]| memory(|file| file.write_all(bytes).map_err(failed)).map(OwnedFd::from);
        let files = files.iter().map(|(_, bytes)| file(bytes)).collect::<Result<Vec<OwnedFd>>>()?;
        match self.call_with(Call::AddRunner(names), files).await? {
            (Answer::Runner(runner), _) => Ok(runner),
            _ => Err(Error::Answer.into()),
        }
    }

    /// Has sandboxes that are made from here on use a version.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn use_runner(&self, runner: BlobHash) -> Result<()> {
        self.done(Call::UseRunner(runner)).await
    }

    /// Has what starts in a sandbox from here on use a version: what runs goes on with the files that it has. The version
    /// is tried in that sandbox before anything can use it, and once more in its place; where it fails there, what was
    /// used before is used again.
    ///
    /// # Errors
    /// `not_found`; `conflict` where the version fails its check.
    pub async fn swap_runner(&self, id: SandboxId, session: &Session, runner: BlobHash) -> Result<()> {
        check(session, &format!("/run/steading/runners/{runner}/hand")).await?;
        let before = self.swap(id, runner).await?;
        let checked = check(session, "/run/steading/runner/current/hand").await;
        if checked.is_err() {
            self.swap(id, before).await?;
        }
        checked
    }

    async fn swap(&self, id: SandboxId, runner: BlobHash) -> Result<BlobHash> {
        match self.call_with(Call::SwapRunner(id, runner), Vec::new()).await? {
            (Answer::Runner(before), _) => Ok(before),
            _ => Err(Error::Answer.into()),
        }
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

/// How long a runner may take to say that it is whole.
const CHECK: Duration = Duration::from_secs(10);

async fn check(session: &Session, program: &str) -> Result<()> {
    let exec = Exec { timeout: Some(CHECK), ..Exec::argv([program, "check"]) };
    let ran = session.run(Run { exec, stdin: Vec::new(), head: 256, tail: 0 }).await;
    if ran.is_ok_and(|ran| ran.outcome == Outcome::Code(0)) {
        return Ok(());
    }
    Err(Failure::new(Code::Conflict, "the new version of the runner fails its check")
        .hint("the sandbox goes on with the version that it had"))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))
}

fn failed(error: io::Error) -> Failure {
    Error::Files("carrying an archive", error).into()
}

/// A file of no directory, to be read from its beginning.
fn memory(fill: impl FnOnce(&mut File) -> Result<()>) -> Result<File> {
    let made = rustix::fs::memfd_create("manifest", MemfdFlags::CLOEXEC);
    let mut file = File::from(made.map_err(|error| failed(error.into()))?);
    fill(&mut file)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}
