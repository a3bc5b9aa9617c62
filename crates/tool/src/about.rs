//! What a record says of a call's input: what it was about, and nothing of what was in it.

use serde_json::{Map, Value};

/// Fields of inputs that name something, whose values may be kept. Every other value is kept as its kind and size.
const NAMES: [&str; 31] = [
    "action",
    "backup",
    "bucket",
    "budget",
    "credential",
    "do",
    "domain",
    "env",
    "external_id",
    "format",
    "from",
    "kind",
    "language",
    "method",
    "model",
    "name",
    "on",
    "path",
    "plan",
    "plan_id",
    "port",
    "release",
    "role",
    "runtime",
    "sandbox",
    "slug",
    "snapshot",
    "table",
    "tenant",
    "template",
    "user",
];

/// The longest value that is kept, in bytes.
const LONGEST: usize = 128;

/// The longest name of a field that is kept: what somebody else has thought up is no name of ours.
const NAME: usize = 32;

/// Fields of an input that are looked at.
const MOST: usize = 16;

/// What `input` is about: names and switches as they are, and of all else how much there is.
#[must_use]
pub fn about(input: &Value) -> Map<String, Value> {
    let fields = input.as_object().into_iter().flatten().take(MOST);
    let is_name = |name: &str| {
        name.len() <= NAME
            && name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_')
    };
    fields.filter(|(name, _)| is_name(name)).map(|(name, value)| (name.clone(), kept(name, value))).collect()
}

fn kept(name: &str, value: &Value) -> Value {
    let named = NAMES.contains(&name);
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(number) if named && number.is_i64() => value.clone(),
        Value::String(text) if named => {
            // What follows the path of an address may be a token.
            let end = if text.starts_with('/') { text.find(['?', '#']) } else { None };
            let text = &text[..end.unwrap_or(text.len())];
            // A user may be named by an address, which is not ours to keep.
            let is_id = name != "user" || text.parse::<kernel::UserId>().is_ok();
            let is_plain = text.len() <= LONGEST && !text.chars().any(char::is_control);
            if is_id && is_plain { text.into() } else { size(text.len(), "bytes") }
        }
        Value::Number(_) => "<number>".into(),
        Value::String(text) => size(text.len(), "bytes"),
        Value::Array(all) => size(all.len(), "entries"),
        Value::Object(all) => size(all.len(), "fields"),
    }
}

fn size(count: usize, of: &str) -> Value {
    format!("<{count} {of}>").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_switches_are_kept_and_nothing_else_is() {
        let input = json!({
            "name": "API_KEY", "value": "hunter2", "path": "/pay?token=hunter2", "dry_run": true, "release": 3,
            "limit": 50, "manifest": { "a": "hunter2" }, "params": ["hunter2"], "kind": { "hunter2": 1 },
            "table": "t".repeat(129), "Any": 1, "a field of somebody": 1, "user": "ada@example.org",
            "from": "a#b?c", "slug": "\u{7}",
        });
        let expected = json!({
            "name": "API_KEY", "value": "<7 bytes>", "path": "/pay", "dry_run": true, "release": 3,
            "limit": "<number>", "manifest": "<1 fields>", "params": "<1 entries>", "kind": "<1 fields>",
            "table": "<129 bytes>", "user": "<15 bytes>", "from": "a#b?c", "slug": "<1 bytes>",
        });
        assert_eq!(Value::Object(about(&input)), expected);
        assert!(about(&json!(["hunter2"])).is_empty());
        let many: Map<_, _> = (0..100).map(|at| (format!("f{at}"), json!(1))).collect();
        assert_eq!(about(&Value::Object(many)).len(), MOST);
    }
}
