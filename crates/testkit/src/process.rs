//! A child process that cannot outlive its test.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
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

/// How a child is asked to end, by its test or by the kernel when its test is gone.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// Nothing of it needs to be tidied up: its group is killed at once.
    Kill,
    /// Postgres's "immediate" shutdown, which returns its shared memory.
    Quit,
}

/// A running child with its own process group and a log file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    ending: Ending,
}

/// A command that gets `ending`'s signal from the kernel when the test process dies, in a clean environment.
pub fn command(program: &Path, user: User, ending: Ending) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg(match ending {
        Ending::Kill => "KILL",
        Ending::Quit => "QUIT",
    });
    if let User::Named(name) = user {
        command.args(["--reuid", name, "--regid", name, "--init-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
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
        let child =
            spawn_from_a_lasting_thread(command).context("setpriv, from util-linux, starts engines")?;
        Ok(Self { child, log: log.to_path_buf(), ending })
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
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The only failure is a group that has ended already, which is what the signal is for.
            let _ = kill_process_group(group, signal);
        }
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
        self.end(match self.ending {
            Ending::Kill => Signal::KILL,
            Ending::Quit => Signal::QUIT,
        });
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failing test shows what its engine said")]
            {
                eprintln!("--- the end of {} ---\n{}", self.log.display(), self.log_tail());
            }
        }
    }
}

/// The kernel sends the parent-death signal when the *thread* that started the child ends (prctl(2)), and test
/// threads end long before an engine that several tests share.
fn spawn_from_a_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::sync_channel(1);
    let gone = |_| io::Error::other("the spawning thread is gone");
    spawner.send((command, answer)).map_err(|_| io::Error::other("the spawning thread is gone"))?;
    child.recv().map_err(gone)?
}
