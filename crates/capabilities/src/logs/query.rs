//! Finding entries: newest first, a page at a time, over files whose number and size are bounded.

use std::fmt;
use std::str::FromStr;

use kernel::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::files::Files;
use super::{Entry, Error, Level, Result};

/// How many entries a page has at most.
const MAX_LIMIT: usize = 500;

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only entries of this time or later.
    pub since: Option<Timestamp>,
    /// Only entries of this level or a higher one.
    pub level: Option<Level>,
    /// Only entries with this text in their message or fields, in whatever case.
    pub text: Option<String>,
    /// Only entries of this request.
    pub request_id: Option<String>,
    /// At most this many; 0 and more than 500 are 500.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Entries, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A place between two lines: everything before it is still to be read.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    file: u64,
    offset: u64,
}

pub(super) fn run(files: &Files, query: &Query) -> Result<Page> {
    let start: Option<Cursor> = query.cursor.as_deref().map(str::parse).transpose()?;
    let limit = if query.limit == 0 { MAX_LIMIT } else { query.limit.min(MAX_LIMIT) };
    let text = query.text.as_ref().map(|text| text.to_lowercase());
    let mut entries = Vec::new();
    for file in files.numbers().map_err(Error::Files)? {
        let end = match start {
            Some(start) if file > start.file => continue,
            Some(start) if file == start.file => Some(start.offset),
            _ => None,
        };
        let bytes = files.read(file, end).map_err(Error::Files)?;
        let mut rest = bytes.as_slice();
        while let Some((before, line)) = last_line(rest) {
            // What does not read as an entry is a line that a crash tore.
            let entry = serde_json::from_slice::<Entry>(line).ok();
            if let Some(entry) = entry.filter(|entry| query.wants(entry, text.as_deref())) {
                if entries.len() == limit {
                    let cursor = Cursor { file, offset: rest.len() as u64 };
                    return Ok(Page { entries, cursor: Some(cursor.to_string()) });
                }
                entries.push(entry);
            }
            rest = before;
        }
    }
    Ok(Page { entries, cursor: None })
}

impl Query {
    fn wants(&self, entry: &Entry, text: Option<&str>) -> bool {
        self.since.is_none_or(|since| entry.at >= since)
            && self.level.is_none_or(|level| entry.level >= level)
            && self.request_id.as_ref().is_none_or(|id| entry.request_id.as_ref() == Some(id))
            && text.is_none_or(|text| {
                let within = |value: &str| value.to_lowercase().contains(text);
                within(&entry.message)
                    || entry.fields.values().any(|value| match value.as_str() {
                        Some(value) => within(value),
                        None => within(&value.to_string()),
                    })
            })
    }
}

/// Splits off the last line: what is before it, and the line without its line feed.
fn last_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let without_end = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let start = without_end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Some((&bytes[..start], &without_end[start..]))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.file, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || Error::Cursor(text.chars().take(64).collect());
        let (file, offset) = text.split_once('.').ok_or_else(refuse)?;
        Ok(Self { file: file.parse().map_err(|_| refuse())?, offset: offset.parse().map_err(|_| refuse())? })
    }
}
