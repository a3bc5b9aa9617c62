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
struct Place {
    file: u64,
    offset: u64,
}

impl Place {
    /// Before everything.
    const END: Self = Self { file: 0, offset: 0 };
}

/// A place in each part of the log.
struct Cursor([Place; PARTS]);

/// How many parts a log has.
const PARTS: usize = 3;

/// Finds entries in all parts of a log, whose entries are in the order of their times.
pub(super) fn run(files: &[Files; PARTS], query: &Query) -> Result<Page> {
    let start = query.cursor.as_deref().map(str::parse::<Cursor>).transpose()?;
    let limit = if query.limit == 0 { MAX_LIMIT } else { query.limit.min(MAX_LIMIT) };
    let text = query.text.as_ref().map(|text| text.to_lowercase());
    let wants = |entry: &Entry| query.wants(entry, text.as_deref());
    let mut parts = Vec::new();
    for (i, files) in files.iter().enumerate() {
        let mut part = Backwards::from(files, start.as_ref().map(|Cursor(places)| places[i]))?;
        let next = part.next(wants)?;
        parts.push((part, next));
    }
    let mut entries = Vec::new();
    loop {
        // The newest that is left; of several at the same time, that of the first part.
        let newest = parts.iter_mut().filter(|(_, next)| next.is_some());
        let newest = newest.reduce(|a, b| if at(&b.1) > at(&a.1) { b } else { a });
        let Some((part, next)) = newest else { return Ok(Page { entries, cursor: None }) };
        if entries.len() == limit {
            let places = [0, 1, 2].map(|i| parts[i].1.as_ref().map_or(Place::END, |(_, place)| *place));
            return Ok(Page { entries, cursor: Some(Cursor(places).to_string()) });
        }
        entries.extend(next.take().map(|(entry, _)| entry));
        *next = part.next(wants)?;
    }
}

fn at(next: &Option<(Entry, Place)>) -> Option<Timestamp> {
    next.as_ref().map(|(entry, _)| entry.at)
}

/// The entries of one part, newest first.
struct Backwards<'a> {
    files: &'a Files,
    /// Those that are still to be read, the newest last.
    numbers: Vec<u64>,
    /// Where to begin in the first.
    start: Option<Place>,
    file: u64,
    bytes: Vec<u8>,
}

impl<'a> Backwards<'a> {
    fn from(files: &'a Files, start: Option<Place>) -> Result<Self> {
        let mut numbers = files.numbers().map_err(Error::Files)?;
        numbers.reverse();
        numbers.retain(|number| start.is_none_or(|start| *number <= start.file));
        Ok(Self { files, numbers, start, file: 0, bytes: Vec::new() })
    }

    /// The next that is wanted, and the place behind it.
    fn next(&mut self, wants: impl Fn(&Entry) -> bool) -> Result<Option<(Entry, Place)>> {
        loop {
            while let Some((before, line)) = last_line(&self.bytes) {
                // What does not read as an entry is a line that a crash tore.
                let entry = serde_json::from_slice::<Entry>(line).ok();
                let place = Place { file: self.file, offset: self.bytes.len() as u64 };
                let before = before.len();
                self.bytes.truncate(before);
                if let Some(entry) = entry.filter(&wants) {
                    return Ok(Some((entry, place)));
                }
            }
            let Some(file) = self.numbers.pop() else { return Ok(None) };
            let end = self.start.filter(|start| start.file == file).map(|start| start.offset);
            self.bytes = self.files.read(file, end).map_err(Error::Files)?;
            self.file = file;
        }
    }
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
        let places = self.0.map(|Place { file, offset }| format!("{file}.{offset}"));
        f.write_str(&places.join("-"))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = |text: &str| {
            let (file, offset) = text.split_once('.')?;
            Some(Place { file: file.parse().ok()?, offset: offset.parse().ok()? })
        };
        let places: Option<Vec<Place>> = text.split('-').map(place).collect();
        let places = places.and_then(|places| places.try_into().ok());
        places.map(Self).ok_or_else(|| Error::Cursor(text.chars().take(64).collect()))
    }
}
