//! Commands in the background of a sandbox: they outlive whoever began them.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hands::Hand;
use http::{HeaderMap, StatusCode};
use kernel::{Code, Error, Result};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use sandbox::session::{Attachment, Outcome, Reader, Running, State as Life};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::exec::Wanted;
use super::lines::{self, Source, Still, Texts};
use super::{Api, read, woken};
use crate::api::{answer, unbroken};

/// How long the end of a command is waited for that was killed.
const ENDING: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

pub async fn spawn(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let work = async {
            let (exec, input) = tool::decode::<Wanted>(input)?.exec()?;
            if input.is_some() {
                return Err(Error::invalid("/stdin", "a command in the background has none")
                    .hint("let it read a file: PUT /v1/sandboxes/{sandbox}/files"));
            }
            let hand = woken(&api, &caller, &sandbox).await?;
            Ok(hand.spawn(exec).await?)
        };
        let process = api.act(&caller, "sandboxes.spawn", Effect::Write, work).await?;
        Ok(answer(StatusCode::CREATED, &json!({ "process": process })))
    })
    .await
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let hand = woken(&api, &caller, &sandbox).await?;
        Ok(hand.processes().await?.into_iter().map(shown).collect::<Vec<_>>())
    };
    let all = api.act(&caller, "sandboxes.processes", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "processes": all })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    from: Option<u64>,
}

/// What one has written from a byte on, and writes, until its end.
pub async fn output(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((sandbox, process)): Path<(String, String)>,
    Query(From { from }): Query<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let work = async {
        let hand = woken(&api, &caller, &sandbox).await?;
        let mut attachment = hand.attach(handle(&process)?, from.unwrap_or_default()).await?;
        let told = [json!({ "type": "attached", "from": attachment.from() })].into();
        let output = attachment.output();
        Ok(Attached { attachment, output, texts: Texts::default(), told, ended: false, _hand: hand })
    };
    let attached = api.act(&caller, "sandboxes.attach", Effect::Read, work).await?;
    Ok(lines::answer(attached, Still::new(&api, headers)))
}

/// A command in the background that is told of.
struct Attached {
    attachment: Attachment,
    output: Option<Reader>,
    texts: Texts,
    told: VecDeque<Value>,
    ended: bool,
    _hand: Hand,
}

impl Source for Attached {
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.told.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            match &mut self.output {
                Some(output) => match output.chunk().await {
                    Some(chunk) => self.told.extend(self.texts.take("output", &chunk)),
                    None => {
                        self.output = None;
                        self.told.extend(self.texts.end("output"));
                    }
                },
                None => {
                    let exit = self.attachment.wait().await;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: i32,
}

/// Sends a signal to one and to all it has begun.
pub async fn signal(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((sandbox, process)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (caller, _, input) = read(&api, caller, request).await?;
    let work = async {
        let Signal { signal } = tool::decode(input)?;
        let hand = woken(&api, &caller, &sandbox).await?;
        Ok(hand.kill(handle(&process)?, signal).await?)
    };
    api.act(&caller, "sandboxes.signal", Effect::Write, work).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Ends one with all it has begun, and forgets it.
pub async fn end(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((sandbox, process)): Path<(String, String)>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let hand = woken(&api, &caller, &sandbox).await?;
            let handle = handle(&process)?;
            hand.kill(handle, KILL).await?;
            let gone = async {
                while let Err(error) = hand.forget(handle).await.map_err(Error::from) {
                    if error.code() != Code::Unavailable {
                        return Err(error);
                    }
                    tokio::time::sleep(STEP).await;
                }
                Ok(())
            };
            let gone = tokio::time::timeout(ENDING, gone).await;
            gone.map_err(|_| Error::new(Code::Timeout, "it is told to end, and has not ended yet"))?
        };
        api.act(&caller, "sandboxes.end", Effect::Destroy, work).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// The number of the signal that nothing withstands.
const KILL: i32 = 9;

fn handle(text: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Error::not_found(format!("process {shown:?} of this sandbox"))
    })
}

fn shown(running: Running) -> Value {
    let Running { handle, command, pid, state, written, age_ms } = running;
    let mut body = json!({
        "process": handle, "command": command, "pid": pid, "output_bytes": written, "age_ms": age_ms,
        "state": "running",
    });
    if let Life::Ended(outcome) = state {
        body["state"] = "ended".into();
        let (name, value) = match outcome {
            Outcome::Code(code) => ("code", json!(code)),
            Outcome::Signal(signal) => ("signal", json!(signal)),
            Outcome::TimedOut => ("timed_out", json!(true)),
        };
        body[name] = value;
    }
    body
}
