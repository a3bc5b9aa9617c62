//! JSON values to the engine's and back: blobs are `{"base64": "…"}`, everything else is what it looks like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};
use sqlx::sqlite::{SqliteArguments, SqliteRow, SqliteValueRef};
use sqlx::{Arguments as _, Decode, Row as _, Sqlite, TypeInfo as _, ValueRef as _};

use super::error::Error;

/// The arguments that bind `params` to the parameters a statement names.
///
/// # Errors
/// Where their number differs, a parameter has a name instead of a number, or a value has no place in a column.
pub(super) fn bind(names: &[Option<String>], params: &[Value]) -> Result<SqliteArguments, Error> {
    let expected = count(names)?;
    if expected != params.len() {
        return Err(Error::ParameterCount { expected, given: params.len() });
    }
    let mut arguments = SqliteArguments::default();
    for (index, value) in params.iter().enumerate() {
        add(&mut arguments, value).map_err(|why| Error::Parameter { index, why })?;
    }
    Ok(arguments)
}

/// How many values the parameters take: bare ones count up, numbered ones (`?2`, `$2`) say it. A number that the
/// text skips is a parameter without a name to the engine, so a bare one must stand at its own place.
fn count(names: &[Option<String>]) -> Result<usize, Error> {
    let (mut bare, mut highest) = (0, 0);
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = name {
            let number = name.strip_prefix(['?', '$']).and_then(|digits| digits.parse::<usize>().ok());
            highest =
                highest.max(number.filter(|n| *n > 0).ok_or_else(|| Error::ParameterName(name.clone()))?);
        } else {
            bare += 1;
            if bare != index + 1 {
                return Err(Error::ParameterStyles);
            }
        }
    }
    Ok(bare.max(highest))
}

fn add(arguments: &mut SqliteArguments, value: &Value) -> Result<(), &'static str> {
    let added = match value {
        Value::Null => arguments.add(None::<i64>),
        Value::Bool(value) => arguments.add(i64::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => arguments.add(integer),
            (None, _) if number.is_u64() => return Err("is larger than a 64-bit signed integer"),
            (None, Some(real)) => arguments.add(real),
            (None, None) => return Err("is not a number the database can hold"),
        },
        Value::String(text) => arguments.add(text.clone()),
        Value::Object(object) => arguments.add(blob(object)?),
        Value::Array(_) => return Err("is an array: pass its JSON text, or one parameter for each element"),
    };
    added.map_err(|_| "cannot be bound")
}

/// The bytes of `{"base64": "…"}`.
pub(super) fn blob(object: &Map<String, Value>) -> Result<Vec<u8>, &'static str> {
    match (object.len(), object.get("base64")) {
        (1, Some(Value::String(text))) => STANDARD.decode(text).map_err(|_| "is not valid base64"),
        _ => Err("is an object: pass its JSON text, or a blob as {\"base64\": \"…\"}"),
    }
}

/// One row as JSON, a value for each column.
pub(super) fn row(row: &SqliteRow) -> Result<Vec<Value>, Error> {
    (0..row.len()).map(|index| value(row.try_get_raw(index).map_err(Error::Engine)?)).collect()
}

fn value(raw: SqliteValueRef<'_>) -> Result<Value, Error> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().into_owned();
    match kind.name() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(raw).map(Value::from),
        "REAL" => <f64 as Decode<Sqlite>>::decode(raw).map(real),
        "TEXT" => <Vec<u8> as Decode<Sqlite>>::decode(raw).map(|bytes| match String::from_utf8(bytes) {
            Ok(text) => Value::String(text),
            Err(not_text) => encoded(not_text.as_bytes()),
        }),
        _ => <Vec<u8> as Decode<Sqlite>>::decode(raw).map(|bytes| encoded(&bytes)),
    }
    .map_err(|source| Error::Engine(sqlx::Error::Decode(source)))
}

/// JSON has no infinities; their names are clearer than a null.
fn real(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

fn encoded(bytes: &[u8]) -> Value {
    Value::Object(Map::from_iter([("base64".to_owned(), Value::String(STANDARD.encode(bytes)))]))
}

/// About how many tokens a row costs the one who reads it, with the comma after it.
pub(super) fn tokens(row: &[Value]) -> usize {
    serde_json::to_string(row).map_or(usize::MAX, |text| tool::budget::estimate(&text) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect()
    }

    #[test]
    fn parameters_count_by_position_or_by_number() {
        let count = |names: &[&str]| count(&named(names)).map_err(|error| error.to_string());
        assert_eq!(count(&[]), Ok(0));
        assert_eq!(count(&["", ""]), Ok(2));
        assert_eq!(count(&["$2", "$1"]), Ok(2));
        assert_eq!(count(&["?1", "$1"]), Ok(1));
        assert_eq!(count(&["", "", "?3"]), Ok(3));
        assert!(count(&["$2", ""]).is_err());
        for bad in [":a", "@a", "$a", "$0", "$1::int"] {
            assert!(count(&[bad]).is_err(), "{bad}");
        }
    }
}
