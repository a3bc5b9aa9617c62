//! What makes a function run that nobody asks: how it is told, and what it comes to.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use kernel::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::host::{Asking, Called, Kind};
use crate::instance::Sent;
use crate::supervisor::{Functions, Outcome, Reply};

/// The most bytes that are read of an answer, and how long it is read.
const ANSWER: usize = 64 << 10;
const READ: Duration = Duration::from_secs(60);

/// The longest text of a failure, in characters.
const LONGEST: usize = 300;

/// One run of a schedule.
#[derive(Debug, Clone)]
pub struct Tick<'a> {
    /// What the schedule is called.
    pub name: &'a str,
    /// When it is time, as it is written.
    pub cron: &'a str,
    /// The time that it runs for.
    pub at: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: i64,
    /// What the function gets, in JSON; empty where that is nothing.
    pub payload: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Notice<'a> {
    /// What has happened: `rows.create`.
    pub what: &'a str,
    /// When.
    pub at: &'a str,
    /// Which attempt this is, from 1.
    pub attempt: i64,
    /// How many times functions have set each other off until here.
    pub depth: u8,
    /// What the function gets, in JSON.
    pub body: String,
}

/// Why a function has run in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InVain {
    /// In one line, without secrets being covered.
    pub why: String,
    /// Whether the function has had its chance: not where the platform has no process for it.
    pub reached: bool,
}

impl Notice<'_> {
    /// The request of that id to the function.
    #[must_use]
    pub fn asking(&self, id: impl Into<String>) -> Asking {
        let trigger = json!({ "type": self.what, "time": self.at, "attempt": self.attempt });
        Asking { depth: self.depth, ..asking(id, Kind::Event, &trigger, self.body.clone()) }
    }
}

impl Tick<'_> {
    /// The request of that id to the function.
    #[must_use]
    pub fn asking(&self, id: impl Into<String>) -> Asking {
        let trigger = json!({
            "name": self.name,
            "cron": self.cron,
            "time": self.at.to_string(),
            "attempt": self.attempt,
        });
        asking(id, Kind::Scheduled, &trigger, self.payload.clone())
    }
}

/// A request of that kind with a body of JSON.
fn asking(id: impl Into<String>, kind: Kind, trigger: &Value, body: String) -> Asking {
    let body: Sent = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("function.internal"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Asking { trigger: Some(ascii(trigger)), ..Asking::new(request, id, kind) }
}

impl Functions {
    /// Runs a function for what has made it run, to the end of its answer.
    ///
    /// # Errors
    /// Why it has failed.
    pub async fn run(&self, called: &Called, asking: Asking) -> Result<(), InVain> {
        let Reply { response, outcome } = self
            .ask(called, asking)
            .await
            .map_err(|error| InVain { reached: !error.is_of_platform(), why: cut(&error.to_string()) })?;
        let read = timeout(READ, Limited::new(response.into_body(), ANSWER).collect()).await;
        let Some(outcome) = outcome else { return Ok(()) };
        let said =
            read.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
        let why = match outcome {
            Outcome::Threw if text("name").is_empty() => format!("it threw {}", text("message")),
            Outcome::Threw => format!("{}: {}", text("name"), text("message")),
            Outcome::Refused => text("message").to_owned(),
        };
        Err(InVain { why: cut(&why), reached: true })
    }
}

/// One line of a text that may be long.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LONGEST).collect()
}

/// JSON that fits into a header.
#[must_use]
pub fn ascii(value: &Value) -> String {
    let (text, mut units) = (value.to_string(), [0; 2]);
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if (' '..='~').contains(&character) {
            plain.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut units) {
            plain.push_str(&format!("\\u{unit:04x}"));
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_function_is_told_is_ascii_and_reads_back() {
        let told =
            json!({ "kind": "user", "email": "zoë@example.com", "claims": { "x": "\u{1f33e}\u{7f}\n" } });
        let text = ascii(&told);
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), told);
    }
}
