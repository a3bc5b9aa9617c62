//! Has a jail made by `hand jail`, and tells what came of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hand::jail::{JailSpec, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

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
    let mut command = Command::new(format!("/proc/self/fd/{}", program.0.as_raw_fd()));
    command.arg("jail").env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stream);
    let mut maker = spawner.spawn(command).map_err(|error| Error::Files("starting a jail's maker", error))?;
    let told = serde_json::to_vec(spec).map_err(io::Error::from).and_then(|spec| {
        let mut input = maker.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(&spec)
    });
    // A maker that does not listen says why, or ends.
    let heard = told.and_then(|()| listen(&mut maker));
    let _ = maker.kill();
    let _ = maker.wait();
    let Heard { reports, whole } = heard.unwrap_or_default();
    let first = reports.iter().find_map(|report| match report {
        Report::Made { pid } => adopt(*pid),
        Report::Failed { .. } => None,
    });
    for report in &reports {
        if let Report::Failed { step, at, errno } = report {
            if let Some(first) = &first {
                first.end();
            }
            let source = io::Error::from_raw_os_error(*errno);
            return Err(Error::Jail { step: *step, at: at.clone(), source });
        }
    }
    match first {
        Some(first) if whole => Ok(first),
        Some(first) => {
            first.end();
            Err(Error::Maker)
        }
        None => Err(Error::Maker),
    }
}

/// What the maker of a jail has said.
#[derive(Default)]
struct Heard {
    reports: Vec<Report>,
    /// Nobody is left who could say more.
    whole: bool,
}

/// The number is that of a child that nobody has waited for, so that it is nobody else's.
fn adopt(pid: u32) -> Option<First> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    Some(First { pidfd: pidfd_open(pid, PidfdFlags::empty()).ok()? })
}

/// Everything that is said until the first process runs or all have ended.
fn listen(maker: &mut Child) -> io::Result<Heard> {
    let mut output = maker.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let deadline = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let whole = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&output, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match output.read(&mut buffer)? {
            0 => break true,
            read => text.extend_from_slice(&buffer[..read]),
        }
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(Heard { reports: lines.map(serde_json::from_slice).collect::<Result<_, _>>()?, whole })
}
