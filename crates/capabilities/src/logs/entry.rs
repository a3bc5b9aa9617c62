//! One entry of a log, and its line of JSON.

use kernel::{CallId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For those who look for a fault.
    Debug,
    /// The usual course.
    Info,
    /// Works, but should not be so.
    Warn,
    /// Something failed.
    Error,
}

/// Which part of the environment speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Requests to the app's host.
    Edge,
    /// Releases made, switched and undone.
    Release,
    /// Tool calls.
    Tool,
    /// The database.
    Database,
    /// Mail to the app's users.
    Mail,
    /// Signing in.
    Auth,
    /// What functions say, and what becomes of them.
    Function,
    /// What services say, and what becomes of them.
    Service,
    /// What sandboxes ask for and are refused.
    Sandbox,
    /// The log itself.
    Logs,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// Who says so.
    pub source: Source,
    /// What happened, readable alone.
    pub message: String,
    /// The request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Values to search by.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// A request to the app's host, told of for each one: an [`Entry`] of [`Source::Edge`] with these fields, which takes nothing
/// but its line. Who makes it cuts what visitors have sent.
#[derive(Debug, Serialize)]
#[serde(tag = "source", rename = "edge")]
pub struct Visited<'a> {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What happened, readable alone.
    pub message: String,
    /// The request.
    pub request_id: CallId,
    /// Values to search by.
    pub fields: VisitFields<'a>,
}

/// What is searched for among visits.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are what there is to say")]
pub struct VisitFields<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub duration_ms: f64,
    pub release: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
}

impl Visited<'_> {
    pub(super) fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

/// How long a message may be, and the fields together, in bytes. One line never fills the log.
const MAX_MESSAGE: usize = 8 << 10;
const MAX_FIELDS: usize = 4 << 10;

/// How long most lines are at most, in bytes.
const LINE: usize = 512;

impl Entry {
    /// An entry without request and fields.
    #[must_use]
    pub fn new(at: Timestamp, level: Level, source: Source, message: impl Into<String>) -> Self {
        Self { at, level, source, message: message.into(), request_id: None, fields: Map::new() }
    }

    /// The entry as one line with its line feed, cut to size.
    pub(super) fn into_line(mut self) -> Vec<u8> {
        cut(&mut self.message, MAX_MESSAGE);
        if let Some(id) = &mut self.request_id {
            cut(id, 128);
        }
        let whole = line(&self);
        if whole.len() > MAX_FIELDS && serde_json::to_vec(&self.fields).is_ok_and(|f| f.len() > MAX_FIELDS) {
            self.fields = Map::from_iter([("fields_dropped".to_owned(), self.fields.len().into())]);
            return line(&self);
        }
        whole
    }
}

/// A line of JSON with its line feed. Neither text nor JSON values can fail to be written as JSON.
fn line(entry: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::with_capacity(LINE);
    if serde_json::to_writer(&mut line, entry).is_err() {
        line.clear();
    }
    line.push(b'\n');
    line
}

fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
        text.push('…');
    }
}
