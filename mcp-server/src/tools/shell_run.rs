//! `shell_run`: runs a command in the caller's sandbox.

use std::time::{Duration, Instant};

use kernel::{Code, Env, Error, Result, Scope};
use sandbox::session::{Exec, Outcome, Run, Text, Watched};
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

/// How often is said what a command does that still runs.
const TICK: Duration = Duration::from_secs(3);

/// The last lines of each channel that are said, and characters of one.
const LINES: usize = 3;
const LINE: usize = 200;

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
        let run = Run { exec, stdin: Vec::new(), head: HEAD, tail: TAIL };
        let began = Instant::now();
        let total = u32::try_from(seconds).unwrap_or(u32::MAX);
        let mut say = |stdout: &str, stderr: &str| {
            let passed = u32::try_from(began.elapsed().as_secs()).unwrap_or(total).min(total);
            cx.progress(
                passed,
                total,
                format!("runs for {passed} s{}{}", last_lines(stdout), last_lines(stderr)),
            );
        };
        let watched = cx.is_listened_to().then_some(Watched { every: TICK, say: &mut say });
        // Given up, the command ends with what it has begun.
        let ran = tokio::select! {
            ran = hand.run_watched(run, watched) => ran?,
            () = cx.cancel().cancelled() => {
                return Err(Error::new(Code::Timeout, "the call was given up, and its command ended"));
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

/// The last lines of what was written so far, each after a line break. What moves a terminal's cursor is left out, and of
/// a line that was written over only the last writing counts.
fn last_lines(output: &str) -> String {
    let visible = |line: &str| -> String {
        let line = line.trim_end_matches('\r');
        let line = line.rsplit('\r').next().unwrap_or(line);
        let mut shown = String::new();
        let mut rest = line.chars().peekable();
        while let Some(character) = rest.next() {
            if character == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
                // A control sequence (ECMA-48 §5.4) goes on to its final byte.
                while rest.next_if(|it| !('@'..='~').contains(it)).is_some() {}
                rest.next();
            } else if !character.is_control() {
                shown.push(character);
            }
        }
        shown.trim_end().chars().take(LINE).collect()
    };
    let lines: Vec<_> = output.lines().map(visible).filter(|line| !line.is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).flat_map(|line| ["\n", line]).collect()
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

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_what_a_reader_of_a_terminal_would_see() {
        let written = "one\ntwo\n\n10%\r55%\r\n\u{1b}[1;32mgreen\u{1b}[0m \u{7}\n\u{1b}[\n";
        assert_eq!(last_lines(written), "\ntwo\n55%\ngreen");
        assert_eq!((last_lines(""), last_lines("\n\r\n")), (String::new(), String::new()));
        assert_eq!(last_lines(&"x".repeat(1_000)).len(), 201);
    }
}
