//! Rows as they are given: checked against their table, before any rule or statement sees them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::{Code, Error, Result, Timestamp};
use serde_json::{Map, Value};

use super::{ColumnModel, TableModel, Type, time_text};
use crate::access::Subject;

/// The values of a new row or of changes to one, by the names of the model: JSON as it was given, but times in the
/// form that columns hold. Each fits its column.
pub(crate) type Given = Map<String, Value>;

/// Checks a new row, and fills in its owner.
///
/// # Errors
/// `invalid_input` with a pointer to the column; `forbidden` for the owner of another.
pub(crate) fn new_row(table: &TableModel, subject: &Subject, row: Map<String, Value>) -> Result<Given> {
    let mut given = fitting(table, subject, row)?;
    for column in table.columns.iter().filter(|column| column.required && column.default.is_none()) {
        if !given.contains_key(&column.name) {
            return Err(Error::invalid(pointer(&column.name), format!("{} is required", column.name)));
        }
    }
    if table.has_owner() {
        own(subject, &given)?;
        given.entry("owner").or_insert_with(|| subject.uid().into());
    }
    Ok(given)
}

/// Checks changes to a row. An owner among them is the one who asks: rows do not change hands.
///
/// # Errors
/// As [`new_row`].
pub(crate) fn changes(table: &TableModel, subject: &Subject, row: Map<String, Value>) -> Result<Given> {
    let given = fitting(table, subject, row)?;
    if table.has_owner() {
        own(subject, &given)?;
    }
    Ok(given)
}

fn own(subject: &Subject, given: &Given) -> Result<()> {
    match given.get("owner") {
        Some(owner) if *subject != Subject::Service && *owner != Value::from(subject.uid()) => {
            Err(Error::new(Code::Forbidden, "the owner of a row is who makes it")
                .field("/owner")
                .hint("leave owner out"))
        }
        _ => Ok(()),
    }
}

fn fitting(table: &TableModel, subject: &Subject, row: Map<String, Value>) -> Result<Given> {
    let mut given = Given::new();
    for (name, value) in row {
        let at = pointer(&name);
        let column = table
            .columns
            .iter()
            .find(|column| column.name == name && (!column.hidden || *subject == Subject::Service))
            .ok_or_else(|| unknown(table, &at, &name))?;
        if column.built_in && column.name != "owner" {
            return Err(Error::invalid(at, format!("{name} is set by the platform")).hint("leave it out"));
        }
        let value = fit(column, value).map_err(|why| Error::invalid(at, format!("{name} {why}")))?;
        given.insert(name, value);
    }
    Ok(given)
}

/// The error for a column that `table` does not have.
pub(super) fn unknown(table: &TableModel, at: &str, name: &str) -> Error {
    let name: String = name.chars().take(64).collect();
    let columns: Vec<&str> = table.shown().map(|column| column.name.as_str()).collect();
    Error::invalid(at, format!("{} has no column {name:?}", table.name))
        .hint(format!("its columns are {}", columns.join(", ")))
}

fn pointer(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn fit(column: &ColumnModel, value: Value) -> Result<Value, &'static str> {
    match (column.kind, value) {
        (_, Value::Null) if column.required => Err("must have a value"),
        (_, Value::Null) => Ok(Value::Null),
        (Type::Text, value @ Value::String(_))
        | (Type::Bool, value @ Value::Bool(_))
        | (Type::Json, value) => Ok(value),
        (Type::Int, Value::Number(number)) if number.is_i64() => Ok(number.into()),
        (Type::Int, Value::Number(_)) => Err("must be a whole number of at most 64 bits"),
        (Type::Real, Value::Number(number)) => number.as_f64().map(Value::from).ok_or("must be a number"),
        (Type::Timestamp, Value::String(text)) => {
            let text = Timestamp::parse(&text).and_then(time_text);
            text.map(Value::from).ok_or("must be an RFC 3339 time such as \"2026-01-31T12:00:00Z\"")
        }
        (Type::Blob, Value::Object(object)) => match (object.len(), object.get("base64")) {
            (1, Some(Value::String(text))) if STANDARD.decode(text).is_ok() => Ok(object.into()),
            _ => Err("must be bytes as {\"base64\": \"…\"}"),
        },
        (Type::Text, _) => Err("must be a text"),
        (Type::Bool, _) => Err("must be true or false"),
        (Type::Int | Type::Real, _) => Err("must be a number"),
        (Type::Timestamp, _) => Err("must be a time as a text"),
        (Type::Blob, _) => Err("must be bytes as {\"base64\": \"…\"}"),
    }
}

/// A given value as a parameter of a statement.
pub(crate) fn parameter(kind: Type, value: &Value) -> Value {
    match (kind, value) {
        (Type::Json, value) if !value.is_null() => value.to_string().into(),
        _ => value.clone(),
    }
}
