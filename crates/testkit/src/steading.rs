//! The product's own binary, started as a user starts it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use crate::directory::temporary;
use crate::environment::variable;
use crate::http::Request;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{Client, Unavailable, eventually};

/// How long a program may take to end once it has said that it will.
const GRACE: Duration = Duration::from_secs(10);
const READY_LIMIT: Duration = Duration::from_secs(60);
/// `/proc/<pid>/stat` counts in clock ticks, a hundred a second on every Linux that this builds for (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// What `steading serve --json` says when it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The platform's address, without a slash at its end.
    pub url: String,
    /// The MCP endpoint of the default environment.
    pub mcp_url: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The default environment.
    pub env: String,
    /// The operator key.
    pub key: String,
}

/// How to start a [`Steading`]: the binary, its data directory, and what else to pass.
#[derive(Debug)]
#[must_use]
pub struct Launch {
    binary: Option<PathBuf>,
    data: Option<PathBuf>,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

/// A running `steading serve` on a loopback port. Dropping it kills it; a data directory of its own goes too.
#[derive(Debug)]
pub struct Steading {
    // Dropped in this order: the process ends before its directories go.
    process: Process,
    ready: Ready,
    ready_after: Duration,
    rest: Arc<Mutex<String>>,
    settings: Settings,
}

#[derive(Debug)]
struct Settings {
    binary: PathBuf,
    data: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    directory: TempDir,
}

impl Launch {
    /// Starts this binary, instead of `STEADING_BIN` or the one in the target directory of the running test.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Uses this data directory, instead of a new one, and leaves it in place at the end.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Passes one more argument to `serve`.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts it on a free port and waits until it answers.
    ///
    /// # Errors
    /// `Missing` where the binary is not built, `Broken` with its log where it does not become ready.
    pub fn start(self) -> Result<Steading, Unavailable> {
        let binary = self.binary.or_else(built_binary).ok_or(Unavailable::NotBuilt)?;
        let start = || {
            let directory = temporary()?;
            let data = self.data.unwrap_or_else(|| directory.path().join("data"));
            let (arguments, variables) = (self.arguments, self.variables);
            Settings { binary, data, arguments, variables, directory }.serve("127.0.0.1:0")
        };
        start().map_err(Unavailable::broken("steading"))
    }
}

impl Steading {
    /// Starts the built binary with a new data directory.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn start() -> Result<Self, Unavailable> {
        Self::launch().start()
    }

    /// The same with settings.
    pub fn launch() -> Launch {
        Launch { binary: None, data: None, arguments: Vec::new(), variables: Vec::new() }
    }

    /// What it said when it became ready, the last time it was started.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// From the start of the process to its ready line.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// A client with the operator key, in the default environment.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.ready.url).with_key(&self.ready.key).in_env(&self.ready.env)
    }

    /// The host and port it listens on.
    #[must_use]
    pub fn authority(&self) -> &str {
        authority(&self.ready.url)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a power cut would, with `SIGKILL`, and waits for its end.
    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Asks it to stop, with `SIGTERM`; `None` when it did not within ten seconds and was killed.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.process.end(Signal::TERM)
    }

    /// Starts it again on the same data directory and the same port, killing it first where it still runs.
    ///
    /// # Errors
    /// With its log, where it does not become ready.
    pub fn restart(self) -> anyhow::Result<Self> {
        let Self { mut process, ready, settings, .. } = self;
        process.end(Signal::KILL);
        drop(process);
        settings.serve(authority(&ready.url))
    }

    /// A command of the same binary, with `arguments`, that talks to this server with the operator key.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.settings.binary, User::Current);
        command
            .args(arguments)
            .current_dir(self.settings.directory.path())
            .env("STEADING_URL", &self.ready.url)
            .env("STEADING_KEY", &self.ready.key);
        command
    }

    /// Resident memory in bytes, of the one process (`VmRSS`).
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn rss(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// Processor time used so far, user and system, in steps of 10 ms.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // The second field is the program's name, which may hold spaces; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no program name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(TICK * ticks.sum::<Result<u32, _>>()?)
    }

    /// What it has logged: the last few kilobytes of standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log_tail()
    }

    /// The file that holds all it has logged, also before a restart.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.settings.directory.path().join("log")
    }

    /// What it has printed on standard output after the ready line, which should be nothing.
    #[must_use]
    pub fn rest_of_stdout(&self) -> String {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Settings {
    /// The ready line; the key, which only the first start shows, is then read where the operator finds it.
    fn ready(&self, line: &str) -> anyhow::Result<Ready> {
        let mut line: serde_json::Value = serde_json::from_str(line)?;
        if line["key"].is_null() {
            line["key"] = std::fs::read_to_string(self.data.join("operator.key"))?.trim().into();
        }
        Ok(serde_json::from_value(line)?)
    }

    fn serve(self, listen: &str) -> anyhow::Result<Steading> {
        let mut serve = command(&self.binary, User::Current);
        serve
            .args(["serve", "--json", "--listen", listen, "--data-dir"])
            .arg(&self.data)
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path());
        let started = Instant::now();
        let mut process =
            Process::spawn(serve, &self.directory.path().join("log"), Stdout::Read, Ending::Kill)?;
        let stdout = process.stdout().context("its standard output is read once")?;
        let rest = Arc::new(Mutex::new(String::new()));
        let line = match first_line(stdout, Arc::clone(&rest)).recv_timeout(READY_LIMIT) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("not ready within {READY_LIMIT:?}:\n{}", process.log_tail())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // It closed its standard output, and ends by itself in a moment.
                let status = eventually(GRACE, || process.exited()).map(|status| status.to_string());
                let status = status.unwrap_or_else(|| "no end".to_owned());
                bail!("{status} before it was ready:\n{}", process.log_tail())
            }
        };
        let ready_after = started.elapsed();
        let ready = self.ready(&line).with_context(|| format!("not a ready line: {line}"))?;
        let answer = Request::get(&format!("{}/readyz", ready.url)).send()?;
        ensure!(
            answer.status == 200,
            "ready, and /readyz answers {}:\n{}",
            answer.status,
            process.log_tail()
        );
        Ok(Steading { process, ready, ready_after, rest, settings: self })
    }
}

/// Sends the first line; what follows goes to `rest`, for a full pipe would block the program.
fn first_line(stdout: ChildStdout, rest: Arc<Mutex<String>>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        if let Some(line) = lines.next() {
            // Nobody listens any more where the start has been given up.
            let _ = send.send(line);
        }
        for line in lines {
            let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
            rest.push_str(&line);
            rest.push('\n');
        }
    });
    receive
}

fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").split('/').next().unwrap_or(url)
}

/// `STEADING_BIN`, else `steading` in the directory where cargo put the running test's own kind of artifacts.
#[must_use]
pub fn built_binary() -> Option<PathBuf> {
    let named = variable("STEADING_BIN").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("steading"));
    named.or_else(beside).filter(|binary| Path::is_file(binary))
}
