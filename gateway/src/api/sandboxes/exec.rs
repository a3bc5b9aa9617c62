//! A command in a sandbox, told as it runs. It ends with whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use axum::extract::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hands::Hand;
use kernel::{Error, Result};
use sandbox::session::{Exec, Process, Program, Reader, Size, Stdin, Terminal, Writer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tool::Effect;

use super::asked::{Answer, Asked};
use super::lines::{self, Source, Still, Texts};
use crate::api::unbroken;

/// How long a command may run, in seconds.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=3_600;

/// A program that is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    command: Option<String>,
    argv: Option<Vec<String>>,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    timeout_s: Option<u64>,
    terminal: Option<Size>,
    stdin: Option<String>,
    stdin_base64: Option<String>,
}

impl Wanted {
    /// It, as the session runs it, and its whole standard input where that was given.
    ///
    /// # Errors
    /// `invalid_input`.
    pub fn exec(self) -> Result<(Exec, Option<Vec<u8>>)> {
        let program = match (self.command, self.argv) {
            (Some(command), None) if !command.trim().is_empty() => Program::Command(command),
            (None, Some(argv)) if argv.first().is_some_and(|program| !program.is_empty()) => {
                Program::Argv(argv)
            }
            _ => {
                let message = "give one of command, a line for bash, and argv, a program and its arguments";
                return Err(Error::invalid("/command", message));
            }
        };
        if let Some(seconds) = self.timeout_s.filter(|seconds| !SECONDS.contains(seconds)) {
            let message = format!("{seconds} is not from {} to {}", SECONDS.start(), SECONDS.end());
            return Err(Error::invalid("/timeout_s", message));
        }
        let input = match (self.stdin, self.stdin_base64) {
            (None, None) => None,
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                Some(bytes.map_err(|error| Error::invalid("/stdin_base64", error.to_string()))?)
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid("/stdin_base64", "give one of stdin and stdin_base64"));
            }
        };
        let mut exec = Exec::new(program);
        (exec.cwd, exec.env) = (self.cwd, self.env);
        exec.timeout = self.timeout_s.map(Duration::from_secs);
        exec.terminal = self.terminal.map_or(Terminal::None, Terminal::Of);
        exec.stdin = if input.is_some() { Stdin::Stream } else { Stdin::Empty };
        Ok((exec, input))
    }
}

pub async fn exec(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, input) = asked.input(request).await?;
        let work = async {
            let (exec, input) = tool::decode::<Wanted>(input)?.exec()?;
            let hand = asked.hand().await?;
            let process = hand.exec(exec).await?;
            Ok(Running::new(hand, process, input))
        };
        let running = asked.act("sandboxes.exec", Effect::Write, work).await?;
        Ok(lines::answer(running, Still::new(&asked.api, headers, &asked.caller)))
    })
    .await
}

/// A command that is told of. Dropped it ends.
struct Running {
    process: Process,
    stdout: Channel,
    stderr: Channel,
    told: VecDeque<Value>,
    /// Whether the end is told.
    ended: bool,
    _input: JoinSet<()>,
    _hand: Hand,
}

/// One of its outputs.
struct Channel {
    kind: &'static str,
    from: Option<Reader>,
    texts: Texts,
}

impl Channel {
    fn new(kind: &'static str, from: Option<Reader>) -> Self {
        Self { kind, from, texts: Texts::default() }
    }

    /// The lines of what comes next; where it has ended it waits for ever.
    async fn next(&mut self) -> Vec<Value> {
        let Some(from) = &mut self.from else { return std::future::pending().await };
        match from.chunk().await {
            Some(chunk) => self.texts.take(self.kind, &chunk),
            None => {
                self.from = None;
                self.texts.end(self.kind).into_iter().collect()
            }
        }
    }
}

impl Running {
    fn new(hand: Hand, mut process: Process, input: Option<Vec<u8>>) -> Self {
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let mut writing = JoinSet::new();
        if let Some(input) = input {
            writing.spawn(write(process.stdin_writer(), input));
        }
        let told = [json!({ "type": "started", "pid": process.pid() })].into();
        Self {
            process,
            stdout: Channel::new("stdout", stdout),
            stderr: Channel::new("stderr", stderr),
            told,
            ended: false,
            _input: writing,
            _hand: hand,
        }
    }
}

async fn write(mut to: Writer, input: Vec<u8>) {
    // A command that does not read its input is none the worse.
    let _ = to.write_all(&input).await;
    let _ = to.shutdown().await;
}

impl Source for Running {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.told.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            let over = self.stdout.from.is_none() && self.stderr.from.is_none();
            tokio::select! {
                lines = self.stdout.next() => self.told.extend(lines),
                lines = self.stderr.next() => self.told.extend(lines),
                exit = self.process.wait(), if over => {
                    self.ended = true;
                    self.told.push_back(match exit {
                        Ok(exit) => lines::ended(exit.outcome),
                        Err(error) => lines::failed(&error.into()),
                    });
                }
            }
        }
    }
}
