//! What is done in a sandbox: commands, files, ports. Written once, over any bytes to the hand inside.
//!
//! Nothing that comes from inside is believed: frames are bounded, every message is parsed in full, and a hand that
//! sends more than it was given credit for loses its session.

mod background;
mod dial;
mod error;
mod files;
mod mux;
mod process;
mod run;
mod stream;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use hand::wire::{self, Mode, Reply, Request};
use kernel::Secret;
use tokio::io::{AsyncRead, AsyncWrite};

pub use background::Attachment;
pub use dial::Connection;
pub use error::{Error, Result};
pub use files::{Content, Files, Search, Searched, Tree, Watch, Write};
pub use hand::wire::{
    Among, Cause, Change, Completeness, Contents, Entry, Existing, Exit, FileKind, Found, Listening, Outcome,
    Output, Program, Running, Size, State, Stats, Stdin, Terminal, TreeCaps,
};
pub use process::Process;
pub use run::{Ran, Run, Text, Watched};
pub use stream::{Reader, Writer};

/// A connection to the hand in one sandbox. Clones are the same connection; it closes with the last of them and of all
/// that they gave, and the sandbox ends with it.
#[derive(Debug, Clone)]
pub struct Session {
    mux: mux::Mux,
}

/// A program to run in the foreground.
#[derive(Debug, Clone)]
pub struct Exec {
    /// What to run.
    pub program: Program,
    /// Where; relative to the home directory, which it is without one.
    pub cwd: Option<String>,
    /// Variables, over those that every command has.
    pub env: BTreeMap<String, String>,
    /// Whether with a terminal.
    pub terminal: Terminal,
    /// What its standard input is.
    pub stdin: Stdin,
    /// Between one second and sixty minutes; ten minutes without one.
    pub timeout: Option<Duration>,
    /// What becomes of its output.
    pub output: Output,
}

impl Exec {
    /// Runs that program at home, with empty standard input, and all of its output sent.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self {
            program,
            cwd: None,
            env: BTreeMap::new(),
            terminal: Terminal::None,
            stdin: Stdin::Empty,
            timeout: None,
            output: Output::Stream,
        }
    }

    /// Runs a line of bash.
    #[must_use]
    pub fn command(line: impl Into<String>) -> Self {
        Self::new(Program::Command(line.into()))
    }

    /// Runs a program with arguments.
    #[must_use]
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    fn into_wire(self, mode: Mode) -> wire::Exec {
        wire::Exec {
            program: self.program,
            cwd: self.cwd,
            env: self.env,
            terminal: self.terminal,
            stdin: self.stdin,
            timeout_ms: self.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            mode,
        }
    }
}

impl Session {
    /// Begins one, once the hand has said that it speaks the same version.
    ///
    /// # Errors
    /// Where it says something else, or nothing at all.
    pub async fn open(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<Self> {
        Ok(Self { mux: mux::Mux::open(stream).await? })
    }

    /// Waits until the session has ended, for whatever reason.
    pub async fn closed(&self) {
        self.mux.closed().await;
    }

    /// Runs a program, and returns when it runs.
    ///
    /// # Errors
    /// Where there is no such program or directory, or the sandbox is gone.
    pub async fn exec(&self, exec: Exec) -> Result<Process> {
        let mode = Mode::Foreground(exec.output);
        let stream = self.mux.open_stream(&Request::Exec(exec.into_wire(mode)))?;
        Process::started(stream).await
    }

    /// Runs a program that serves others, until it ends or what is given is dropped: how long it may run is not looked at,
    /// and all of its output is sent.
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn serve(&self, exec: Exec) -> Result<Process> {
        let stream = self.mux.open_stream(&Request::Exec(exec.into_wire(Mode::Lasting)))?;
        Process::started(stream).await
    }

    /// The ports that are listened on inside, by number, without the way out.
    ///
    /// # Errors
    /// Where the sandbox is gone.
    pub async fn ports(&self) -> Result<Vec<Listening>> {
        self.ask(&Request::Ports, |reply| match reply {
            Reply::Ports(ports) => Some(ports),
            _ => None,
        })
        .await
    }

    /// What is used inside.
    ///
    /// # Errors
    /// Where the sandbox is gone.
    pub async fn stats(&self) -> Result<Stats> {
        self.ask(&Request::Stats, |reply| match reply {
            Reply::Stats(stats) => Some(stats),
            _ => None,
        })
        .await
    }

    /// Makes the sandbox somebody's, or somebody's for longer: every command from here on sees these variables, in place
    /// of those of an earlier call, and `/run/steading/token` holds the token, where one is given.
    ///
    /// # Errors
    /// Where the token cannot be written; nothing has changed then.
    pub async fn activate(&self, env: BTreeMap<String, String>, token: Option<&Secret>) -> Result<()> {
        let token = token.map(|token| token.expose().to_owned());
        self.ask(&Request::Activate { env, token }, done).await
    }

    async fn ask<T>(&self, request: &Request, wanted: impl FnOnce(Reply) -> Option<T>) -> Result<T> {
        stream::reply(&mut self.mux.open_stream(request)?, wanted).await
    }
}

fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}
