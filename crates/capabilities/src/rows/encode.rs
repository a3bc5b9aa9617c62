//! Rows of the engine as JSON objects, written straight into the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::{ColumnModel, Type};
use crate::database::{Cell, Error, Row};

/// Appends the first columns of `row`, which are `columns`, as one object.
pub(crate) fn object(columns: &[&ColumnModel], row: &Row<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
    open_object(columns, row, to)?;
    to.push(b'}');
    Ok(())
}

/// As [`object`], without its end.
pub(super) fn open_object(columns: &[&ColumnModel], row: &Row<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
    for (index, column) in columns.iter().enumerate() {
        // Names of columns are letters, digits and `_`.
        to.push(if index == 0 { b'{' } else { b',' });
        to.push(b'"');
        to.extend_from_slice(column.name.as_bytes());
        to.extend_from_slice(b"\":");
        value(column.kind, row.cell(index), to)?;
    }
    Ok(())
}

pub(super) fn value(kind: Type, cell: Cell<'_>, to: &mut Vec<u8>) -> Result<(), Error> {
    match (kind, cell) {
        (_, Cell::Null) => to.extend_from_slice(b"null"),
        (Type::Bool, Cell::Int(number)) => to.extend_from_slice(if number == 0 { b"false" } else { b"true" }),
        (_, Cell::Int(number)) => json(&number, to)?,
        // JSON has no infinities.
        (_, Cell::Real(number)) => json(&number, to)?,
        (Type::Json, Cell::Text(text)) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            to.extend_from_slice(text.as_bytes());
        }
        (_, Cell::Text(text)) => json(text, to)?,
        (_, Cell::Blob(bytes)) => {
            to.extend_from_slice(b"{\"base64\":\"");
            to.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            to.extend_from_slice(b"\"}");
        }
    }
    Ok(())
}

/// Appends a value as JSON.
pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) -> Result<(), Error> {
    serde_json::to_writer(to, value).map_err(|error| Error::Engine(sqlx::Error::Decode(error.into())))
}
