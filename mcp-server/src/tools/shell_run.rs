//! `shell_run`: runs a command in the caller's sandbox.

use std::time::Duration;

use kernel::{Code, Env, Error, Result, Scope};
use sandbox::session::{Exec, Outcome, Run, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct ShellRun;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// For bash. Servers: end with `&`.
    command: String,
    /// From /workspace.
    cwd: Option<String>,
    /// 1 to 3600; 600 if not said.
    #[schemars(with = "Option<u64>")]
    timeout_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Its exit code; 128 and the signal's number where one ended it, 124 where its time was over.
    exit_code: i32,
    /// Its standard output: the beginning and the end, where it is long.
    stdout: String,
    /// Its standard error, likewise.
    stderr: String,
    /// How it ended, where that was not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    /// What to do, where the sandbox is in a state that it does not leave by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How long a command may run where nobody says, and at most, in seconds.
const USUAL: u64 = 600;
const MOST: u64 = 3_600;

/// Bytes of each channel that are given back, from its beginning and from its end.
const HEAD: u32 = 2_500;
const TAIL: u32 = 3_500;

/// How often is said that a command still runs.
const TICK: Duration = Duration::from_secs(10);

impl Tool<Platform> for ShellRun {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Run a command",
        about: "Runs a command in your sandbox: Linux, no network but allowed hosts by proxy. Files in /workspace stay.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Write,
        examples: &[r#"{"command":"echo hello > greeting && cat greeting"}"#],
    };

    const PATIENCE: Duration = Duration::from_secs(MOST + 60);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let seconds = input.timeout_s.unwrap_or(USUAL);
        if !(1..=MOST).contains(&seconds) {
            return Err(Error::invalid("/timeout_s", format!("{seconds} is not from 1 to {MOST}")));
        }
        if input.command.trim().is_empty() {
            return Err(Error::invalid("/command", "there is nothing to run"));
        }
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let mut exec = Exec::command(input.command);
        exec.cwd = input.cwd;
        exec.timeout = Some(Duration::from_secs(seconds));
        let run = hand.run(Run { exec, stdin: Vec::new(), head: HEAD, tail: TAIL });
        tokio::pin!(run);
        let mut ticks = tokio::time::interval(TICK);
        ticks.tick().await;
        let mut passed = 0;
        // Given up, the command ends with what it has begun.
        let ran = loop {
            tokio::select! {
                ran = &mut run => break ran?,
                () = cx.cancel().cancelled() => {
                    return Err(Error::new(Code::Timeout, "the call was given up, and its command ended"));
                }
                _ = ticks.tick() => {
                    passed += TICK.as_secs();
                    let total = u32::try_from(seconds).unwrap_or(u32::MAX);
                    cx.progress(u32::try_from(passed).unwrap_or(total).min(total), total, format!("runs for {passed} s"));
                }
            }
        };
        let (exit_code, ended) = match ran.outcome {
            Outcome::Code(code) => (code, None),
            Outcome::Signal(signal) => (128 + signal, Some(format!("ended by signal {signal}"))),
            Outcome::TimedOut => (124, Some(format!("ended with all it had begun: {seconds} s were over"))),
        };
        let hint = cx.platform().hands.advice(&hand).await;
        Ok(Output { exit_code, stdout: shown(ran.stdout), stderr: shown(ran.stderr), ended, hint })
    }
}

/// Output with a note of what is left out, and where it is.
fn shown(text: Text) -> String {
    if text.omitted == 0 {
        return text.head;
    }
    let place = match &text.file {
        Some(file) => format!("all of it is in {file}"),
        None => "there was no room to keep it".to_owned(),
    };
    format!("{}\n[… {} bytes are left out; {place} …]\n{}", text.head, text.omitted, text.tail)
}
