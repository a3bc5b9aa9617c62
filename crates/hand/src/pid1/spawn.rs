//! Starts a command: a supervisor that orphans fall to, and below it the command, confined.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::groups::Group;
use crate::jail::{Confinement, confine};

/// The longest time between two looks into a group whose command has ended.
const OUTLAST: Duration = Duration::from_millis(100);

/// Bytes of a report on the status pipe. Far below what a pipe takes in one piece.
const REPORT: usize = 8;

/// What a supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The command runs, under this id.
    Running(i32),
    /// It does not, for this error number, at that step.
    Failed(Step, i32),
    /// It has ended, with this status as `wait` gives it.
    Ended(i32),
}

/// Steps between fork and exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Fork,
    /// Its terminal and its standard streams.
    Streams,
    /// Giving up what it may not have.
    Confine,
    /// Its directory.
    Directory,
    /// Its program.
    Program,
}

impl Step {
    const ALL: [Step; 5] = [Step::Fork, Step::Streams, Step::Confine, Step::Directory, Step::Program];
}

/// Where the program is.
pub enum Image<'a> {
    /// At the first of these paths at which there is one.
    Paths(Vec<CString>),
    /// This file.
    File(BorrowedFd<'a>),
}

/// A command to be started. Its descriptors are above 2.
pub struct Launch<'a> {
    pub image: Image<'a>,
    pub arguments: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: CString,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    pub controls: Controls,
    pub confinement: &'a Confinement,
    /// What its processes are known by, where nothing falls to its supervisor.
    pub group: Option<&'a Group>,
}

/// Whether a command's standard input is the terminal that it controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controls {
    Terminal,
    Nothing,
}

/// Starts it. The supervisor reports on the pipe that comes back, which is its end when nothing of the command is left.
///
/// # Errors
/// Where there is no room for one more process or pipe.
pub fn spawn(launch: &Launch<'_>) -> io::Result<(Pid, OwnedFd)> {
    let (reports, reporting) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    match fork()? {
        Some(supervisor) => Ok((supervisor, reports)),
        None => supervise(launch, reporting),
    }
}

/// The next report, where one has come. `None` is the pipe's end.
pub fn next_report(reports: &OwnedFd) -> Option<Option<Report>> {
    let mut bytes = [0; REPORT];
    match rustix::io::read(reports, &mut bytes) {
        Ok(REPORT) => {
            let [tag, step, _, _, number @ ..] = bytes;
            let number = i32::from_le_bytes(number);
            match tag {
                b'R' => Some(Some(Report::Running(number))),
                b'E' => Some(Some(Report::Ended(number))),
                _ => Some(Some(Report::Failed(
                    *Step::ALL.get(usize::from(step)).unwrap_or(&Step::Fork),
                    number,
                ))),
            }
        }
        Ok(_) => None,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Some(None),
        Err(_) => None,
    }
}

fn report(to: &OwnedFd, report: Report) {
    let (tag, step, number) = match report {
        Report::Running(pid) => (b'R', 0, pid),
        Report::Failed(step, errno) => (b'F', step as u8, errno),
        Report::Ended(status) => (b'E', 0, status),
    };
    let mut bytes = [0; REPORT];
    bytes[0] = tag;
    bytes[1] = step;
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    // Nobody is told where nobody reads.
    let _ = rustix::io::write(to, &bytes);
}

/// The supervisor's whole life: starts the command, says how it went, and waits until nothing is left below it.
/// It keeps no descriptor of the hand's, so that it holds nothing open.
fn supervise(launch: &Launch<'_>, reporting: OwnedFd) -> ! {
    let own = rustix::process::getpid();
    let heir = if launch.group.is_some() { Ok(()) } else { rustix::process::set_child_subreaper(Some(own)) };
    let begun = heir
        .and_then(|()| pipe_with(PipeFlags::CLOEXEC))
        .map_err(io::Error::from)
        .and_then(|(failure, failing)| Ok((fork()?, failure, failing)));
    let (command, failure, failing) = match begun {
        Ok((None, failure, failing)) => {
            drop((failure, reporting));
            become_command(launch, &failing)
        }
        Ok((Some(command), failure, failing)) => (command, failure, failing),
        Err(error) => {
            report(&reporting, Report::Failed(Step::Fork, error.raw_os_error().unwrap_or(libc::EIO)));
            exit(1)
        }
    };
    drop(failing);
    close_from_3_but([reporting.as_raw_fd(), failure.as_raw_fd()]);
    let mut bytes = [0; 5];
    if let Ok(5) = rustix::io::retry_on_intr(|| rustix::io::read(&failure, &mut bytes)) {
        let [step, errno @ ..] = bytes;
        let step = *Step::ALL.get(usize::from(step)).unwrap_or(&Step::Fork);
        report(&reporting, Report::Failed(step, i32::from_le_bytes(errno)));
    } else {
        report(&reporting, Report::Running(command.as_raw_nonzero().get()));
    }
    loop {
        let mut status = 0;
        // SAFETY: `status` is a place for one integer.
        #[expect(unsafe_code, reason = "the raw status is passed on")]
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid == command.as_raw_nonzero().get() {
            report(&reporting, Report::Ended(status));
        } else if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) {
            launch.group.inspect(|group| outlast(group));
            exit(0);
        }
    }
}

/// Waits until nothing is in the group: its orphans are not this process's to wait for.
fn outlast(group: &Group) {
    let mut pause = Duration::from_millis(1);
    while !group.is_empty() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(OUTLAST);
    }
}

/// The command's life until its program takes over.
fn become_command(launch: &Launch<'_>, failing: &OwnedFd) -> ! {
    let (step, error) = match prepare(launch) {
        Ok(()) => (Step::Program, execute(launch)),
        Err(failed) => failed,
    };
    let mut bytes = [0; 5];
    bytes[0] = step as u8;
    bytes[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EIO).to_le_bytes());
    let _ = rustix::io::write(failing, &bytes);
    exit(127)
}

fn prepare(launch: &Launch<'_>) -> Result<(), (Step, io::Error)> {
    let streams = |errno: rustix::io::Errno| (Step::Streams, errno.into());
    rustix::process::setsid().map_err(streams)?;
    rustix::stdio::dup2_stdin(launch.stdin).map_err(streams)?;
    rustix::stdio::dup2_stdout(launch.stdout).map_err(streams)?;
    rustix::stdio::dup2_stderr(launch.stderr).map_err(streams)?;
    if launch.controls == Controls::Terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(streams)?;
    }
    default_signals();
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    for joined in launch.group.iter().flat_map(|group| group.to_join()) {
        rustix::io::write(joined, b"0").map_err(|errno| (Step::Confine, errno.into()))?;
    }
    confine(launch.confinement).map_err(|error| (Step::Confine, error))?;
    rustix::process::chdir(&launch.cwd).map_err(|errno| (Step::Directory, errno.into()))
}

/// Returns only where no program took over.
fn execute(launch: &Launch<'_>) -> io::Error {
    let arguments = pointers(&launch.arguments);
    let env = pointers(&launch.env);
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    match &launch.image {
        Image::File(file) => {
            // SAFETY: both arrays end with a null pointer, and point to strings that outlive the call.
            #[expect(unsafe_code, reason = "exec takes arrays of pointers")]
            unsafe {
                libc::execveat(
                    file.as_raw_fd(),
                    c"".as_ptr(),
                    arguments.as_ptr().cast(),
                    env.as_ptr().cast(),
                    libc::AT_EMPTY_PATH,
                );
            }
            error = io::Error::last_os_error();
        }
        Image::Paths(paths) => {
            for path in paths {
                // SAFETY: both arrays end with a null pointer, and point to strings that outlive the call.
                #[expect(unsafe_code, reason = "exec takes arrays of pointers")]
                unsafe {
                    libc::execve(path.as_ptr(), arguments.as_ptr(), env.as_ptr());
                }
                let failed = io::Error::last_os_error();
                match failed.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR) => {}
                    // A file that may not be run is the answer only where no other directory has one.
                    Some(libc::EACCES) => error = failed,
                    _ => return failed,
                }
            }
        }
    }
    error
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// What the hand ignores or blocks, commands do not.
fn default_signals() {
    // SAFETY: no handler is installed, and the set is made before it is used.
    #[expect(unsafe_code, reason = "signals of a process are set through libc")]
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// `None` in the child. The hand has one thread, so the child may go on as any process.
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has one thread, so no lock is held by another.
    #[expect(unsafe_code, reason = "fork is unsafe in general, not with one thread")]
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

/// Ends a child without what the hand would do at its own end.
fn exit(code: i32) -> ! {
    // SAFETY: the call does not return.
    #[expect(unsafe_code, reason = "std's exit runs what the hand has registered")]
    unsafe {
        libc::_exit(code)
    }
}

/// Closes every descriptor above 2 but those two.
fn close_from_3_but(kept: [RawFd; 2]) {
    let [low, high] = if kept[0] < kept[1] { kept } else { [kept[1], kept[0]] };
    for (first, last) in [(3, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: nothing in this process uses any of them from here on.
        #[expect(unsafe_code, reason = "closes what is owned elsewhere, on purpose")]
        unsafe {
            if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
                for fd in first..=last.min(4_096) {
                    drop(OwnedFd::from_raw_fd(fd));
                }
            }
        }
    }
}
