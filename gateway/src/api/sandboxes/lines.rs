//! What happens in a sandbox, told as it happens: a JSON object in each line, or in each server-sent event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use kernel::{CallId, Caller, Env, Error, Proof as _, Result};
use mcp_server::auth::Authenticated;
use mcp_server::gate::Gate;
use sandbox::session::Outcome;
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Api, SCOPES};

/// How often it is asked whether who listens may still do so.
const AGAIN: Duration = Duration::from_millis(500);

/// After how many such times without a line a sign of life is given.
const SILENT: u32 = 30;

/// Where lines come from. Whether waiting for the next one is given up makes no difference to it.
pub trait Source: Send + 'static {
    /// The next line; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Value>> + Send;
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// One in each line of text.
    Lines,
    /// One in each event (HTML, Server-sent events).
    Events,
}

/// Who asked, so that what one credential has begun does not outlive it.
pub struct Still {
    gate: Arc<dyn Gate>,
    headers: HeaderMap,
    first: Arc<Caller>,
    asked: Interval,
}

impl Still {
    pub fn new(api: &Api, headers: HeaderMap, first: &Arc<Caller>) -> Self {
        let mut asked = interval(AGAIN);
        asked.set_missed_tick_behavior(MissedTickBehavior::Delay);
        asked.reset();
        Self { gate: Arc::clone(&api.0.gate), headers, first: Arc::clone(first), asked }
    }

    /// Waits until it is time to ask.
    pub async fn time(&mut self) {
        self.asked.tick().await;
    }

    /// Asks.
    ///
    /// # Errors
    /// As for whoever begins now.
    pub async fn holds(&self) -> Result<()> {
        let Authenticated(caller) = Authenticated::again(&*self.gate, &self.headers, &self.first).await?;
        Env::authorize(&caller, SCOPES).map(drop)
    }

    /// What comes of `work`, which ends where it does not hold any more.
    ///
    /// # Errors
    /// As [`Still::holds`]; those of `work`.
    pub async fn during<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.time() => self.holds().await?,
                done = &mut work => return done,
            }
        }
    }
}

/// What is told, until its end.
struct Telling<S> {
    source: Option<S>,
    still: Still,
    silent: u32,
    format: Format,
}

/// An answer that tells what `source` has, until its end; dropped with its connection.
pub fn answer(source: impl Source, still: Still) -> Response {
    let asked = still.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = if asked.contains("text/event-stream") { Format::Events } else { Format::Lines };
    let media = match format {
        Format::Lines => "application/x-ndjson",
        Format::Events => "text/event-stream",
    };
    let telling = Telling { source: Some(source), still, silent: 0, format };
    let lines = stream::unfold(telling, |mut telling| async {
        let line = telling.next().await?;
        Some((Ok::<_, Infallible>(line), telling))
    });
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, "no-store")], Body::from_stream(lines)).into_response()
}

impl<S: Source> Telling<S> {
    async fn next(&mut self) -> Option<Bytes> {
        let line = loop {
            let source = self.source.as_mut()?;
            tokio::select! {
                biased;
                () = self.still.time() => {
                    if let Err(error) = self.still.holds().await {
                        self.source = None;
                        break failed(&error);
                    }
                    self.silent += 1;
                    if self.silent >= SILENT {
                        self.silent = 0;
                        break json!({ "type": "alive" });
                    }
                }
                line = source.next() => {
                    self.silent = 0;
                    break line?;
                }
            }
        };
        Some(match self.format {
            Format::Lines => format!("{line}\n").into(),
            Format::Events => {
                let kind = line["type"].as_str().unwrap_or("message");
                format!("event: {kind}\ndata: {line}\n\n").into()
            }
        })
    }
}

/// A line that says why there are no more.
pub fn failed(error: &Error) -> Value {
    let id = CallId::new();
    web::problem::log_internal(error, id);
    json!({ "type": "error", "problem": error.problem(&id.to_string()) })
}

/// A line that says how a command has ended.
pub fn ended(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Code(code) => json!({ "type": "exit", "code": code }),
        Outcome::Signal(signal) => json!({ "type": "exit", "signal": signal }),
        Outcome::TimedOut => json!({ "type": "exit", "timed_out": true }),
    }
}

/// Bytes as text, as far as they are: a character that has come in part waits for its rest.
#[derive(Debug, Default)]
pub struct Texts {
    rest: Vec<u8>,
}

impl Texts {
    /// Lines of that type for the next bytes.
    pub fn take(&mut self, kind: &str, bytes: &[u8]) -> Vec<Value> {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let whole = match std::str::from_utf8(&all) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return vec![json!({ "type": kind, "base64": STANDARD.encode(&all) })],
        };
        let (text, rest) = all.split_at(whole);
        self.rest.extend_from_slice(rest);
        match std::str::from_utf8(text) {
            Ok(text) if !text.is_empty() => vec![json!({ "type": kind, "text": text })],
            _ => Vec::new(),
        }
    }

    /// What is left at the end.
    pub fn end(&mut self, kind: &str) -> Option<Value> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| json!({ "type": kind, "base64": STANDARD.encode(rest) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_wherever_it_is_cut_and_the_rest_is_told_in_base64() {
        let all = "aé€😀".as_bytes();
        for cut in 0..=all.len() {
            let mut texts = Texts::default();
            let mut told = texts.take("stdout", &all[..cut]);
            told.extend(texts.take("stdout", &all[cut..]));
            let text: String = told.iter().map(|line| line["text"].as_str().unwrap()).collect();
            assert_eq!((text.as_str(), texts.end("stdout")), ("aé€😀", None), "{cut}");
        }
        let mut texts = Texts::default();
        assert_eq!(texts.take("stderr", &[b'a', 0xFF]), [json!({ "type": "stderr", "base64": "Yf8=" })]);
        assert_eq!(texts.take("stderr", &[0xC3]), Vec::<Value>::new());
        assert_eq!(texts.end("stderr"), Some(json!({ "type": "stderr", "base64": "ww==" })));
    }
}
