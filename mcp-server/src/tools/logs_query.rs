//! `logs_query`: what happened in an environment.

use capabilities::logs::{Entry, Level, Query};
use kernel::{Env, Error, Result, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool, budget};

use super::outcome::shorten;
use crate::platform::Platform;

pub struct LogsQuery;

/// What one page may cost, and the fields of one entry, in tokens.
const TOKENS: usize = 3_600;
const FIELDS: usize = 800;

/// How many characters of one message are shown.
const MESSAGE: usize = 2_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// RFC 3339, or an age: 15m, 2h, 1d.
    since: Option<String>,
    /// This or higher.
    level: Option<Floor>,
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
        // Where a page ends is known to the log alone: one that costs too much is asked for again, shorter.
        loop {
            let mut page = cx.platform().logs.query(cx.env(), query.clone()).await?;
            page.entries.iter_mut().for_each(narrow);
            let (entries, left) = budget::fit(page.entries, TOKENS);
            if left == 0 {
                return Ok(Output { entries, cursor: page.cursor });
            }
            query.limit = entries.len().max(1);
        }
    }
}

/// Cuts an entry so long that it would not fit on a page by itself.
fn narrow(entry: &mut Entry) {
    let cost = |text: &str| budget::estimate(&Value::from(text).to_string());
    let whole = entry.message.clone();
    let mut most = MESSAGE;
    shorten(&mut entry.message, most);
    // Some characters cost more than a token each.
    while cost(&entry.message) > MESSAGE {
        most /= 2;
        entry.message.clone_from(&whole);
        shorten(&mut entry.message, most);
    }
    if let Some(id) = &mut entry.request_id {
        shorten(id, 100);
    }
    let fields = std::mem::take(&mut entry.fields).into_iter().collect();
    let (kept, left) = budget::fit(fields, FIELDS);
    entry.fields = kept.into_iter().collect();
    if left > 0 {
        entry.fields.insert("fields_omitted".to_owned(), left.into());
    }
}

/// A point in time, or how long ago it is.
/// A time, or how long ago it was.
pub fn since(text: &str) -> Result<Timestamp> {
    Timestamp::parse_or_ago(text).ok_or_else(|| {
        Error::invalid(
            "/since",
            "expected a time such as 2026-01-31T12:00:00Z, or an age such as 15m, 2h, 1d",
        )
    })
}
