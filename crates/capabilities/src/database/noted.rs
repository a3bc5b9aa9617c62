//! A row as events have it: JSON, with marks in place of what JSON cannot say and what is too large.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The largest value that comes with an event, in bytes.
pub(super) const LARGE: usize = 64 << 10;

/// What stands for a value of so many bytes.
pub(super) fn cut(bytes: usize) -> Value {
    json!({ "cut": bytes })
}

/// What stands for bytes.
pub(super) fn blob(bytes: &[u8]) -> Value {
    json!({ "base64": STANDARD.encode(bytes) })
}

/// A number; what is none has no form.
pub(super) fn real(value: f64) -> Value {
    Value::from(value)
}

/// What a row's value is, where a mark stands for it; none where it was too large.
pub(crate) fn marked(mark: &Map<String, Value>) -> Option<Value> {
    mark.contains_key("base64").then(|| Value::Object(mark.clone()))
}

/// A row that is put together.
pub(super) struct Row(Vec<u8>);

impl Row {
    /// One that has these columns already, or none.
    pub fn after(before: &[u8]) -> Self {
        Self(before.strip_suffix(b"}").unwrap_or(b"{").to_vec())
    }

    /// Begins a column, whose name is JSON.
    pub fn column(&mut self, name: &[u8]) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(name);
        self.0.push(b':');
        self
    }

    /// What is in it.
    pub fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        if serde_json::to_writer(&mut self.0, value).is_err() {
            self.0.extend_from_slice(b"null");
        }
    }

    /// The row's text, of at most so many bytes.
    pub fn bounded(mut self, most: usize) -> Vec<u8> {
        self.0.push(b'}');
        if self.0.len() <= most { self.0 } else { bounded(&self.0, most).into_bytes() }
    }
}

/// A row that is too large: the largest values go before others, and columns when all have gone.
fn bounded(text: &[u8], most: usize) -> String {
    let mut row: Map<String, Value> = serde_json::from_slice(text).unwrap_or_default();
    let length = |value: &Value| value.to_string().len();
    let mut sizes: Vec<(usize, &mut Value)> = row.values_mut().map(|value| (length(value), value)).collect();
    sizes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let mut total = text.len();
    for (size, value) in sizes {
        let mark = cut(size);
        let after = length(&mark);
        if total <= most || size <= after {
            break;
        }
        *value = mark;
        total -= size - after;
    }
    loop {
        let text = serde_json::to_string(&row).unwrap_or_default();
        let last = row.keys().next_back().cloned();
        match last.filter(|_| text.len() > most) {
            Some(last) => drop(row.shift_remove(&last)),
            None => return text,
        }
    }
}
