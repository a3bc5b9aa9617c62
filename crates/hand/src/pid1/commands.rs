//! Requests to run something.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use super::background::MAX_BACKGROUND;
use super::log::{Log, Place};
use super::process::{Input, Outlet, Process, Sink, Stage, winsize};
use super::serve::Server;
use super::spawn::{Controls, Image, Launch, Step, spawn};
use super::tree::Tree;
use crate::wire::{
    Cause, Event, Exec, Kind, MAX_HEAD_AND_TAIL, Mode, Output, Program, Reply, Stdin, Terminal, WINDOW,
};

/// The shortest and the longest time a command is given.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;

/// The time of a command in the foreground that names none.
const DEFAULT_TIMEOUT_MS: u64 = 600_000;

/// What is kept of the output of a command in the background.
const RING: usize = 1 << 20;

/// Commands that may run at once, with those in the background that have ended and are not forgotten.
const MAX_COMMANDS: usize = 256;

/// Where programs are looked for without `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A request that cannot be met.
struct Refused(Cause, String);

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Refused(Cause::Busy, format!("no command can be started: {error}"))
    }
}

/// The ends of a command's streams: its own, and ours.
struct Streams {
    own: [OwnedFd; 3],
    stdin: Input,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Server {
    /// Runs a program.
    pub fn exec(&mut self, stream: u32, exec: &Exec) {
        if let Err(Refused(cause, message)) = self.try_exec(stream, exec) {
            self.link.fail(stream, cause, &message);
        }
    }

    fn try_exec(&mut self, stream: u32, exec: &Exec) -> Result<(), Refused> {
        if self.processes.len() >= MAX_COMMANDS {
            return Err(Refused(Cause::Busy, format!("{MAX_COMMANDS} commands run or are kept")));
        }
        if exec.mode == Mode::Background && self.room_for_background().is_err() {
            return Err(Refused(Cause::Busy, format!("{MAX_BACKGROUND} commands run in the background")));
        }
        let timeout_ms = match (exec.timeout_ms, exec.mode) {
            (Some(ms), _) if !TIMEOUT_MS.contains(&ms) => {
                return Err(invalid("a command is given between one second and sixty minutes"));
            }
            (None, Mode::Foreground(_)) if !matches!(exec.program, Program::Files(_)) => {
                Some(DEFAULT_TIMEOUT_MS)
            }
            (given, _) => given,
        };
        let mut env: BTreeMap<&str, &str> = BTreeMap::new();
        for variables in [&self.base, &self.activated, &exec.env] {
            env.extend(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains('=')) {
            return Err(invalid(&format!("{name:?} cannot be a variable's name")));
        }
        let home = env.get("HOME").copied().unwrap_or("/");
        let cwd = match exec.cwd.as_deref() {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("{home}/{path}"),
            None => home.to_owned(),
        };
        let handle = self.last_handle + 1;
        let (image, arguments) = self.program(&exec.program, env.get("PATH").copied().unwrap_or(PATH))?;
        let place = |channel: &str| Place {
            user: self.confinement.user,
            path: self.places.output.join(format!("{handle}.{channel}")),
        };
        let sink = |channel: &str| match exec.mode {
            Mode::Background => Ok(Sink::Log(Log::new(RING, place(channel)))),
            Mode::Lasting | Mode::Foreground(Output::Stream) => Ok(Sink::Stream { credit: WINDOW, sent: 0 }),
            Mode::Foreground(Output::Capped { head, tail }) => {
                let sum = head.saturating_add(tail);
                if sum > MAX_HEAD_AND_TAIL {
                    return Err(invalid("head and tail are more than one window"));
                }
                Ok(Sink::Capped {
                    head: head.into(),
                    tail: tail.into(),
                    log: Log::new(sum as usize, place(channel)),
                })
            }
        };
        let (stdout, stderr) = (sink("stdout")?, sink("stderr")?);
        let streams = streams(exec)?;
        let group = self.groups.as_ref().map(|groups| groups.of_command(handle)).transpose()?;
        let launch = Launch {
            image,
            arguments,
            env: env
                .iter()
                .map(|(name, value)| text(&format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            cwd: text(&cwd)?,
            stdin: streams.own[0].as_fd(),
            stdout: streams.own[1].as_fd(),
            stderr: streams.own[2].as_fd(),
            controls: if streams.terminal.is_some() { Controls::Terminal } else { Controls::Nothing },
            confinement: &self.confinement,
            group: group.as_ref(),
        };
        let (supervisor, reports) = spawn(&launch)?;
        self.last_handle = handle;
        let now = Instant::now();
        let process = Process {
            supervisor,
            tree: group.map_or(Tree::Below(supervisor), Tree::Group),
            reports: Some(reports),
            stage: Stage::Starting,
            id: 0,
            stream: Some(stream),
            writer: Some(stream),
            command: shown(&exec.program),
            began: now,
            deadline: timeout_ms.map(|ms| now + Duration::from_millis(ms)),
            terminal: streams.terminal,
            stdin: streams.stdin,
            stdout: Outlet::new(streams.stdout, Kind::Data, stdout),
            stderr: Outlet::new(streams.stderr, Kind::ErrData, stderr),
            kill_at: None,
            timed_out: false,
        };
        self.processes.insert(handle, process);
        self.waiting.insert(stream, handle);
        Ok(())
    }

    fn program(&self, program: &Program, path: &str) -> Result<(Image<'_>, Vec<CString>), Refused> {
        let strings = |all: &[&str]| all.iter().map(|one| text(one)).collect::<Result<Vec<_>, _>>();
        match program {
            Program::Files(request) => {
                let request = serde_json::to_string(request).map_err(|error| invalid(&error.to_string()))?;
                Ok((Image::File(self.own.as_fd()), strings(&["hand", "files", &request])?))
            }
            Program::Command(command) => Ok((
                Image::Paths(strings(&["/bin/bash", "/usr/bin/bash"])?),
                strings(&["bash", "-c", command])?,
            )),
            Program::Argv(argv) => {
                let name = argv
                    .first()
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| invalid("no program is named"))?;
                let paths = if name.contains('/') {
                    vec![text(name)?]
                } else {
                    path.split(':')
                        .map(|directory| text(&format!("{directory}/{name}")))
                        .collect::<Result<_, _>>()?
                };
                Ok((Image::Paths(paths), argv.iter().map(|one| text(one)).collect::<Result<_, _>>()?))
            }
        }
    }

    /// A command runs. Nobody waits for one in the background any more.
    pub fn started(&mut self, handle: u32, pid: i32) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        process.stage = Stage::Running(pid);
        process.id = pid;
        let Some(stream) = process.stream else { return };
        if process.stdout.log().is_some() {
            process.stream = None;
            process.writer = None;
            self.waiting.remove(&stream);
            self.link.say(stream, Kind::Reply, &Reply::Began(handle));
        } else {
            self.link.say(stream, Kind::Event, &Event::Started { pid });
        }
    }

    /// A command could not be started.
    pub fn failed(&mut self, handle: u32, step: Step, errno: i32) {
        let Some(process) = self.processes.remove(&handle) else { return };
        let Some(stream) = process.stream else { return };
        self.waiting.remove(&stream);
        let error = std::io::Error::from_raw_os_error(errno);
        let what = match step {
            Step::Fork | Step::Streams => "no process can be made",
            Step::Confine => "the command cannot be confined",
            Step::Directory => "there is no such working directory",
            Step::Program => "the program cannot be run",
        };
        let cause = match (step, errno) {
            (Step::Fork, _) => Cause::Busy,
            (_, libc::ENOENT | libc::ENOTDIR) => Cause::NotFound,
            (Step::Directory | Step::Program, libc::EACCES | libc::EPERM) => Cause::Denied,
            (Step::Program, libc::E2BIG | libc::ENOEXEC) => Cause::Invalid,
            _ => Cause::Broken,
        };
        self.link.fail(stream, cause, &format!("{what}: {error}"));
    }
}

fn invalid(message: &str) -> Refused {
    Refused(Cause::Invalid, message.to_owned())
}

fn text(text: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| invalid("a zero byte cannot be in an argument, a variable or a path"))
}

/// A line to know it by.
fn shown(program: &Program) -> String {
    let whole = match program {
        Program::Argv(argv) => argv.join(" "),
        Program::Command(command) => command.clone(),
        Program::Files(_) => "files".to_owned(),
    };
    whole.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect()
}

/// Makes a command's streams. Ours do not block; its own do, so they are no halves of one open file.
fn streams(exec: &Exec) -> Result<Streams, Refused> {
    if let Terminal::Of(size) = exec.terminal {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let own = other_side(&master)?;
        rustix::termios::tcsetwinsize(&master, winsize(size))?;
        rustix::io::ioctl_fionbio(&master, true)?;
        return Ok(Streams {
            own: [own.try_clone()?, own.try_clone()?, own],
            stdin: Input::new(Some(master.try_clone()?)),
            stdout: Some(master.try_clone()?),
            stderr: None,
            terminal: Some(master),
        });
    }
    let (stdin_own, stdin) = match exec.stdin {
        Stdin::Empty => (OpenOptions::new().read(true).open("/dev/null")?.into(), None),
        Stdin::Stream => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(nonblocking(write)?))
        }
    };
    let (stdout, stdout_own) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_own) = match exec.mode {
        Mode::Background => (None, stdout_own.try_clone()?),
        Mode::Foreground(_) | Mode::Lasting => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(nonblocking(read)?), write)
        }
    };
    Ok(Streams {
        own: [stdin_own, stdout_own, stderr_own],
        stdin: Input::new(stdin),
        stdout: Some(nonblocking(stdout)?),
        stderr,
        terminal: None,
    })
}

/// A terminal's side for the command.
fn other_side(master: &OwnedFd) -> Result<OwnedFd, Errno> {
    match rustix::pty::ioctl_tiocgptpeer(
        master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    ) {
        // gVisor's kernel gives it only by its name, behind which nobody in a sandbox can put something else.
        Err(Errno::NOTTY | Errno::INVAL) => {
            let name = rustix::pty::ptsname(master, Vec::new())?;
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(name, flags, rustix::fs::Mode::empty())
        }
        opened => opened,
    }
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}
