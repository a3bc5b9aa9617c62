//! `logs_query`: what happened in an environment.

use capabilities::logs::{Entry, Level, Query};
use kernel::{Env, Error, Result, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tool::{Cx, Effect, Spec, Tool};

use super::shorten::{Room, clip};
use crate::platform::Platform;

pub struct LogsQuery;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// RFC 3339, or an age: 15m, 2h, 1d.
    since: Option<String>,
    /// This or higher.
    level: Option<Floor>,
    /// Text within.
    text: Option<String>,
    request_id: Option<String>,
    /// Default 50.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    cursor: Option<String>,
}

// Levels without the words that explain them, which models know.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Floor {
    Debug,
    Info,
    Warn,
    Error,
}

impl From<Floor> for Level {
    fn from(floor: Floor) -> Level {
        match floor {
            Floor::Debug => Level::Debug,
            Floor::Info => Level::Info,
            Floor::Warn => Level::Warn,
            Floor::Error => Level::Error,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Newest first.
    entries: Vec<Entry>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for LogsQuery {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Read the logs",
        about: "Shows requests, releases and failures, newest first.",
        scopes: &[Scope::LogsRead],
        effect: Effect::Read,
        examples: &[r#"{"since":"1h","level":"warn"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let since = input.since.as_deref().map(since).transpose()?;
        let mut query = Query {
            since,
            level: input.level.map(Level::from),
            text: input.text,
            request_id: input.request_id,
            limit: input.limit.unwrap_or(50) as usize,
            cursor: input.cursor,
        };
        loop {
            let page = cx.platform().logs.query(cx.env(), query.clone()).await?;
            let mut entries: Vec<Entry> = page.entries.into_iter().map(shortened).collect();
            if Room::of_result().cut(&mut entries) == 0 {
                return Ok(Output { entries, cursor: page.cursor });
            }
            // Only the log knows the cursor of a shorter page.
            query.limit = entries.len().max(1);
        }
    }
}

/// An entry that fits into a result.
fn shortened(mut entry: Entry) -> Entry {
    entry.message = clip(entry.message, 2_000);
    for value in entry.fields.values_mut() {
        if let Value::String(text) = value {
            *text = clip(std::mem::take(text), 300);
        }
    }
    if !Room::new(1_500).admits(&entry.fields) {
        let more = format!("{} fields are too much to show", entry.fields.len());
        entry.fields = Map::from_iter([("…".to_owned(), Value::from(more))]);
    }
    entry
}

/// A point in time, or how long ago it is.
fn since(text: &str) -> Result<Timestamp> {
    let ago = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        Some(Timestamp::now().minus(std::time::Duration::from_secs(seconds)))
    };
    Timestamp::parse(text).or_else(ago).ok_or_else(|| {
        Error::invalid(
            "/since",
            "expected a time such as 2026-01-31T12:00:00Z, or an age such as 15m, 2h, 1d",
        )
    })
}
