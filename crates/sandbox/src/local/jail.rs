//! Has a jail made by `hand jail`, and tells what came of it.

pub mod spoken;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hand::jail::{Disks, JailSpec, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::Serialize;

use super::error::Error;
use super::spawner::Spawner;

/// How long making a jail may take on a machine that is loaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hand, in memory that nobody can change.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Takes the program's bytes.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut memory =
            File::from(rustix::fs::memfd_create("hand", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        memory.write_all(bytes)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        Ok(Self(memory.into()))
    }

    /// It as `what` it is to be, with nothing in its environment.
    pub fn command(&self, what: &str) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg(what).env_clear().current_dir("/");
        command
    }
}

/// The first process of a jail, a child of this one.
#[derive(Debug)]
pub struct First {
    pidfd: OwnedFd,
}

impl First {
    /// Readable when the process has ended.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Opens a directory of the jail's root, below which nothing of it leads elsewhere, to name what is in it.
    pub fn open_inside(&self, path: &Path) -> io::Result<OwnedFd> {
        let root = format!("/proc/{}/root", self.pid()?);
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, directory, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(root, path, directory, Mode::empty(), resolve)?;
        // Nobody else has had its number as long as it has not ended.
        if self.has_ended()? { Err(io::ErrorKind::NotFound.into()) } else { Ok(opened) }
    }

    fn has_ended(&self) -> io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&at_once))? > 0)
    }

    fn pid(&self) -> io::Result<i32> {
        let known = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd()))?;
        let pid = known.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        pid.filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Ends it, and with it every process of the jail, and returns when they are gone. Once more is no error.
    pub fn end(&self) {
        // It may have ended by itself; then there is nobody to send to, and nobody to wait for.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Makes the jail; its first process serves `stream`.
///
/// # Errors
/// [`Error::Jail`] with the step that failed; then the jail's processes are gone.
pub fn make(spawner: &Spawner, program: &Program, spec: &JailSpec, stream: OwnedFd) -> Result<First, Error> {
    let mut maker = Maker::start(spawner, program, stream)?;
    maker.tell(spec);
    maker.finish()
}

/// A jail that has everything but what lies on disks.
#[derive(Debug)]
pub struct Half {
    maker: Maker,
    first: First,
}

/// Makes as much of a jail as needs no disk; `spec` says that the rest comes later.
///
/// # Errors
/// As [`make`].
pub fn begin(spawner: &Spawner, program: &Program, spec: &JailSpec, stream: OwnedFd) -> Result<Half, Error> {
    let mut maker = Maker::start(spawner, program, stream)?;
    maker.tell(spec);
    // A maker that does not listen says why, or ends.
    let heard = maker.listen(|reports| reports.contains(&Report::Waits));
    match (heard, maker.first()) {
        (Ok(()), Some(first)) if maker.reports.contains(&Report::Waits) => Ok(Half { maker, first }),
        _ => Err(maker.finish().err().unwrap_or(Error::Maker)),
    }
}

impl Half {
    /// Tells it the rest.
    ///
    /// # Errors
    /// As [`make`].
    pub fn finish(mut self, disks: &Disks) -> Result<First, Error> {
        self.maker.tell(disks);
        self.maker.finish()
    }

    /// Ends it.
    pub fn end(self) {
        self.first.end();
    }
}

/// Whoever makes a jail, and what it says.
#[derive(Debug)]
struct Maker {
    process: Child,
    text: Vec<u8>,
    reports: Vec<Report>,
    deadline: Instant,
    /// Nobody is left who could say more.
    whole: bool,
}

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Maker {
    fn start(spawner: &Spawner, program: &Program, stream: OwnedFd) -> Result<Self, Error> {
        let mut command = program.command("jail");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stream);
        let started = spawner.spawn(command);
        let process = started.map_err(|error| Error::Files("starting a jail's maker", error))?;
        let deadline = Instant::now() + PATIENCE;
        Ok(Self { process, text: Vec::new(), reports: Vec::new(), deadline, whole: false })
    }

    /// Says a line. Where nobody listens any more, what they have said says why.
    fn tell(&mut self, words: &impl Serialize) {
        self.deadline = Instant::now() + PATIENCE;
        if let (Ok(mut line), Some(input)) = (serde_json::to_vec(words), self.process.stdin.as_mut()) {
            line.push(b'\n');
            let _ = input.write_all(&line);
        }
    }

    /// Hears all that is said until it is enough, the first process runs or all have ended.
    fn listen(&mut self, enough: impl Fn(&[Report]) -> bool) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while !self.whole && !enough(&self.reports) {
            let output = self.process.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut polled = [PollFd::new(&*output, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match output.read(&mut buffer)? {
                0 => self.whole = true,
                read => self.text.extend_from_slice(&buffer[..read]),
            }
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                self.reports.push(serde_json::from_slice(&line)?);
            }
        }
        Ok(())
    }

    /// The first process, once it exists.
    fn first(&self) -> Option<First> {
        self.reports.iter().find_map(|report| match report {
            Report::Made { pid } => adopt(*pid),
            Report::Failed { .. } | Report::Waits => None,
        })
    }

    /// Hears the rest, and returns what has come of it.
    fn finish(mut self) -> Result<First, Error> {
        self.process.stdin.take();
        let heard = self.listen(|_| false);
        let first = self.first();
        let failed = self.reports.iter().find_map(failure);
        match (first, failed) {
            (Some(first), None) if heard.is_ok() && self.whole => Ok(first),
            (first, failed) => {
                if let Some(first) = first {
                    first.end();
                }
                Err(failed.unwrap_or(Error::Maker))
            }
        }
    }
}

/// What a maker says that has failed.
pub fn failure(report: &Report) -> Option<Error> {
    let Report::Failed { step, at, errno } = report else { return None };
    let source = io::Error::from_raw_os_error(*errno);
    Some(Error::Jail { step: *step, at: at.clone(), source })
}

/// The number is that of a child that nobody has waited for, so that it is nobody else's.
fn adopt(pid: u32) -> Option<First> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    Some(First { pidfd: pidfd_open(pid, PidfdFlags::empty()).ok()? })
}
