//! The gateway's end of versions: adds them, tries them, and changes which one a sandbox has.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kernel::{BlobHash, Code, Error as Failure, Result, SandboxId};

use super::Local;
use super::carrying::{failed, memory};
use super::error::Error;
use super::message::{Answer, Call};
use super::programs::Programs;
use crate::session::{Exec, Outcome, Run, Session};

/// How long a version may take to say that it is whole.
const CHECK: Duration = Duration::from_secs(10);

/// How long the sandbox has to tell.
const ANSWER: Duration = Duration::from_secs(15);

/// What came of giving a sandbox another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// It has it.
    Done,
    /// It fails its check there, and the sandbox goes on with what it had.
    Reverted,
}

impl Local {
    /// Where the programs are kept that sandboxes have beside the hand; none where they have none.
    #[must_use]
    pub fn programs(&self) -> Option<&Programs> {
        self.programs.as_ref()
    }

    /// The version that sandboxes are made with.
    ///
    /// # Errors
    /// `unavailable` where the process cannot be started.
    pub async fn runner(&self) -> Result<BlobHash> {
        self.connection().await?;
        self.newest().ok_or_else(|| Error::Answer.into())
    }

    /// Adds a version of the hand and the programs that are unpacked and have not taken their place.
    ///
    /// # Errors
    /// As [`Local::add_runner`].
    pub async fn add_next(&self) -> Result<BlobHash> {
        let files = self.programs.as_ref().map(Programs::next_files).transpose()?.unwrap_or_default();
        let (names, files) = self.with_files(files)?;
        self.add(names, files).await
    }

    /// Adds a version of the platform's own programs in sandboxes: files by their names, programs all. The hand comes with
    /// them where none of them is one.
    ///
    /// # Errors
    /// `unavailable` where the process is gone; `internal` for names that are none.
    pub async fn add_runner(&self, files: &[(&str, &[u8])]) -> Result<BlobHash> {
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let files = files.iter().map(|(_, bytes)| in_memory(bytes)).collect::<Result<Vec<OwnedFd>>>()?;
        self.add(names, files).await
    }

    /// The platform's own files, and these programs.
    pub(super) fn with_files(&self, programs: Vec<(String, File)>) -> Result<(Vec<String>, Vec<OwnedFd>)> {
        let own = self.own.iter().map(|(name, bytes)| Ok(((*name).to_owned(), in_memory(bytes)?)));
        let programs = programs.into_iter().map(|(name, file)| Ok((name, OwnedFd::from(file))));
        own.chain(programs).collect::<Result<Vec<_>>>().map(|all| all.into_iter().unzip())
    }

    async fn add(&self, names: Vec<String>, files: Vec<OwnedFd>) -> Result<BlobHash> {
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
        self.done(Call::UseRunner(runner)).await?;
        self.note(runner);
        Ok(())
    }

    /// Has what starts in a sandbox from here on use a version: what runs goes on with the files that it has. The version
    /// is tried in that sandbox before anything can use it, and once more in its place; where it fails there, what was
    /// used before is used again.
    ///
    /// # Errors
    /// Where the process that makes sandboxes fails.
    pub async fn swap_runner(&self, id: SandboxId, session: &Session, runner: BlobHash) -> Result<Swap> {
        if !self.is_whole(session, runner).await {
            return Ok(Swap::Reverted);
        }
        let before = self.point(id, runner).await?;
        if check(session, "/run/steading/runner/current/hand").await {
            return Ok(Swap::Done);
        }
        self.point(id, before).await?;
        Ok(Swap::Reverted)
    }

    /// Whether a version says in a sandbox that it is whole.
    pub async fn is_whole(&self, session: &Session, runner: BlobHash) -> bool {
        check(session, &format!("/run/steading/runners/{runner}/hand")).await
    }

    /// Has what starts in a sandbox use a version, without a look whether it can, and returns the one that it has used.
    /// It need not run.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn point(&self, id: SandboxId, runner: BlobHash) -> Result<BlobHash> {
        match self.call_with(Call::SwapRunner(id, runner), Vec::new()).await? {
            (Answer::Runner(before), _) => Ok(before),
            _ => Err(Error::Answer.into()),
        }
    }
}

fn in_memory(bytes: &[u8]) -> Result<OwnedFd> {
    memory(|file| file.write_all(bytes).map_err(failed)).map(OwnedFd::from)
}

/// Why a version is not used.
#[must_use]
pub fn not_whole() -> Failure {
    Failure::new(Code::Conflict, "the new version fails its check").hint(
        "sandboxes go on with the one that they have: mend the program `check`, which has to end with 0",
    )
}

async fn check(session: &Session, program: &str) -> bool {
    let exec = Exec { timeout: Some(CHECK), ..Exec::argv([program, "check"]) };
    let ran = session.run(Run { exec, stdin: Vec::new(), head: 256, tail: 0 });
    let ran = tokio::time::timeout(ANSWER, ran).await;
    ran.is_ok_and(|ran| ran.is_ok_and(|ran| ran.outcome == Outcome::Code(0)))
}
