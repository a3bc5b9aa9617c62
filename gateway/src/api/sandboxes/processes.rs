//! Commands in the background of a sandbox: they outlive whoever began them.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::Request;
use hands::Hand;
use http::HeaderMap;
use kernel::{Code, Error, Result};
use mcp_server::extract::Query;
use sandbox::session::{Attachment, Outcome, Reader, Running, State as Life};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;

use super::asked::{Answer, Asked};
use super::exec::Wanted;
use super::lines::{self, Source, Still, Texts};
use crate::api::unbroken;

/// How long the end of a command is waited for that was killed.
const ENDING: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

pub async fn spawn(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, wanted) = asked.input(request).await?;
        let work = async {
            let (exec, input) = tool::decode::<Wanted>(wanted.clone())?.exec()?;
            if input.is_some() {
                return Err(Error::invalid("/stdin", "a command in the background has none")
                    .hint("let it read a file: PUT /v1/sandboxes/{sandbox}/files"));
            }
            let hand = asked.hand().await?;
            Ok(json!({ "process": hand.spawn(exec).await? }))
        };
        asked.made(&headers, "sandboxes.spawn", &wanted, work).await
    })
    .await
}

pub async fn list(asked: Asked) -> Answer {
    let work = async {
        let hand = asked.hand().await?;
        let all: Vec<_> = hand.processes().await?.into_iter().map(shown).collect();
        Ok(json!({ "processes": all }))
    };
    asked.told("sandboxes.processes", Effect::Read, work).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    from: Option<u64>,
}

/// What one has written from a byte on, and writes, until its end.
pub async fn output(asked: Asked, Query(From { from }): Query<From>, headers: HeaderMap) -> Answer {
    let work = async {
        let hand = asked.hand().await?;
        let mut attachment = hand.attach(handle(asked.part("process"))?, from.unwrap_or_default()).await?;
        let told = [json!({ "type": "attached", "from": attachment.from() })].into();
        let output = attachment.output();
        Ok(Attached { attachment, output, texts: Texts::default(), told, ended: false, _hand: hand })
    };
    let attached = asked.act("sandboxes.attach", Effect::Read, work).await?;
    Ok(lines::answer(attached, Still::new(&asked.api, headers, &asked.caller)))
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
pub async fn signal(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (_, input) = asked.input(request).await?;
        let work = async {
            let Signal { signal } = tool::decode(input)?;
            let hand = asked.hand().await?;
            Ok(hand.kill(handle(asked.part("process"))?, signal).await?)
        };
        asked.done("sandboxes.signal", Effect::Write, work).await
    })
    .await
}

/// Ends one with all it has begun, and forgets it.
pub async fn end(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async {
            let hand = asked.hand().await?;
            let handle = handle(asked.part("process"))?;
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
        asked.done("sandboxes.end", Effect::Destroy, work).await
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
