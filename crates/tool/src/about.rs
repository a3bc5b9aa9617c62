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

/// Fields of an input that are looked at.
const MOST: usize = 24;

/// What `input` is about: names and switches as they are, and of all else how much there is.
#[must_use]
pub fn about(input: &Value) -> Map<String, Value> {
    let fields = input.as_object().into_iter().flatten().take(MOST);
    fields
        .filter(|(name, _)| name.len() <= LONGEST)
        .map(|(name, value)| (name.clone(), kept(name, value)))
        .collect()
}

fn kept(name: &str, value: &Value) -> Value {
    let named = NAMES.contains(&name);
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(number) if named && number.is_i64() => value.clone(),
        Value::String(text) if named => {
            // What follows the path of an address may be a token.
            let text = text.split(['?', '#']).next().unwrap_or_default();
            if text.len() <= LONGEST { text.into() } else { size(text.len(), "bytes") }
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
            "table": "t".repeat(129),
        });
        let expected = json!({
            "name": "API_KEY", "value": "<7 bytes>", "path": "/pay", "dry_run": true, "release": 3,
            "limit": "<number>", "manifest": "<1 fields>", "params": "<1 entries>", "kind": "<1 fields>",
            "table": "<129 bytes>",
        });
        assert_eq!(Value::Object(about(&input)), expected);
        assert!(about(&json!(["hunter2"])).is_empty());
        let many: Map<_, _> = (0..100).map(|at| (format!("f{at}"), json!(1))).collect();
        assert_eq!(about(&Value::Object(many)).len(), MOST);
    }
}
