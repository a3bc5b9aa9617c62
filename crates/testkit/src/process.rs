//! A child process that cannot outlive its test.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::environment::scrub;
use crate::eventually;

/// How long a process may take to end after a friendly signal before its group is killed.
const GRACE: Duration = Duration::from_secs(10);
/// As much of a log's end as a failure shows.
const TAIL: usize = 8 * 1024;

/// Who a child runs as.
#[derive(Debug, Clone, Copy)]
pub enum User {
    /// The user that runs the tests.
    Current,
    /// Another one; only root may ask for it.
    Named(&'static str),
}

/// What a child's standard output is for.
#[derive(Debug, Clone, Copy)]
pub enum Stdout {
    /// It goes into the log, like standard error.
    Log,
    /// The test reads it, through [`Process::stdout`].
    Read,
}

/// How a child is asked to end, by its test or, when the test is gone, by its guard.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// Nothing of it needs to be tidied up: its group is killed at once.
    Kill,
    /// Postgres's "immediate" shutdown, which returns its shared memory.
    Quit,
}

impl Ending {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

/// A running child with its own process group and a log file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    _guard: Guard,
    log: PathBuf,
    ending: Ending,
}

/// A command in a clean environment.
pub fn command(program: &Path, user: User) -> Command {
    let mut command = match user {
        User::Current => Command::new(program),
        User::Named(name) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", name, "--regid", name, "--init-groups", "--"]).arg(program);
            command
        }
    };
    command.stdin(Stdio::null());
    scrub(&mut command);
    command
}

impl Process {
    /// Starts `command` in a process group of its own, with its output in the file `log`.
    pub fn spawn(mut command: Command, log: &Path, stdout: Stdout, ending: Ending) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        match stdout {
            Stdout::Log => command.stdout(file.try_clone()?),
            Stdout::Read => command.stdout(Stdio::piped()),
        };
        command.stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        let guard = Guard::spawn(child.id(), ending)?;
        Ok(Self { child, _guard: guard, log: log.to_path_buf(), ending })
    }

    /// The process id, which is also its group's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipe that [`Stdout::Read`] asked for; the first caller gets it.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has ended by itself, and how.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends `signal` to the whole group.
    pub fn signal(&self, signal: Signal) {
        signal_group(self.child.id(), signal);
    }

    /// Sends `signal` and waits for the end; `None` when it had to be killed after the grace period.
    pub fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        self.signal(signal);
        let ended = eventually(GRACE, || self.exited());
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        ended
    }

    /// The end of what it has logged.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.ending.signal());
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failing test shows what its engine said")]
            {
                eprintln!("--- the end of {} ---\n{}", self.log.display(), self.log_tail());
            }
        }
    }
}

/// How a program ended that [`finish`] ran.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its status; `None` where it did not end in time and was killed.
    pub status: Option<ExitStatus>,
    /// All that it printed on standard output, bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether it ended in time and with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs a command to its end, or kills it after `limit`; either way nothing that it started lives on.
///
/// # Errors
/// Where it cannot be started.
pub fn finish(mut command: Command, limit: Duration) -> anyhow::Result<Finished> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
    let _guard = Guard::spawn(child.id(), Ending::Kill)?;
    let stdout = child.stdout.take().map(read_aside);
    let stderr = child.stderr.take().map(read_aside);
    let status = eventually(limit, || child.try_wait().ok().flatten());
    signal_group(child.id(), Signal::KILL);
    let _ = child.wait();
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

/// Reads in a thread of its own: a program that fills one pipe while another is read would wait for ever.
fn read_aside(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said all it will.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn signal_group(leader: u32, signal: Signal) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // The only failure is a group that has ended already, which is what the signal is for.
        let _ = kill_process_group(group, signal);
    }
}

/// Ends a group whose test process has died, however it died: a shell in that group, which waits for its standard
/// input to close. (The kernel's parent-death signal reaches the child alone, and a browser's own children live on.)
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn spawn(group: u32, ending: Ending) -> anyhow::Result<Self> {
        let script = format!("read -r _; kill -s {} -- -{group}", ending.name());
        let mut guard = Command::new("sh");
        guard.args(["-c", &script]).env_clear().process_group(i32::try_from(group)?);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(guard.spawn().context("sh")?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It belongs to the group, which has been killed; this only takes note of its end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
