//! Reading columns into the types of the platform.

use std::fmt::Write;
use std::str::FromStr;

use kernel::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::{Error, Result};

pub(crate) fn text(row: &AnyRow, column: &'static str) -> Result<String> {
    Ok(row.try_get(column)?)
}

pub(crate) fn text_or_null(row: &AnyRow, column: &'static str) -> Result<Option<String>> {
    Ok(row.try_get(column)?)
}

pub(crate) fn number(row: &AnyRow, column: &'static str) -> Result<i64> {
    Ok(row.try_get(column)?)
}

pub(crate) fn time(row: &AnyRow, column: &'static str) -> Result<Timestamp> {
    number(row, column).map(Timestamp::from_micros)
}

pub(crate) fn time_or_null(row: &AnyRow, column: &'static str) -> Result<Option<Timestamp>> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.map(Timestamp::from_micros))
}

pub(crate) fn parsed<T>(row: &AnyRow, column: &'static str) -> Result<T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    text(row, column)?.parse().map_err(|e: T::Err| Error::Unreadable { what: column, source: e.into() })
}

pub(crate) fn parsed_or_null<T>(row: &AnyRow, column: &'static str) -> Result<Option<T>>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    text_or_null(row, column)?
        .map(|text| text.parse().map_err(|e: T::Err| Error::Unreadable { what: column, source: e.into() }))
        .transpose()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
