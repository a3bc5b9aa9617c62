//! The types of columns.

use std::str::FromStr;

use kernel::Timestamp;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// A 64-bit integer.
    Int,
    /// A 64-bit floating-point number.
    Real,
    /// True or false; 1 or 0 in the database.
    Bool,
    /// Any JSON value; its text in the database.
    Json,
    /// Bytes; `{"base64": "…"}` in JSON.
    Blob,
    /// An RFC 3339 time in UTC; its text in the database.
    Timestamp,
}

impl Type {
    /// The name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Int => "int",
            Type::Real => "real",
            Type::Bool => "bool",
            Type::Json => "json",
            Type::Blob => "blob",
            Type::Timestamp => "timestamp",
        }
    }

    /// The storage type in a STRICT table.
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Type::Text | Type::Json | Type::Timestamp => "TEXT",
            Type::Int | Type::Bool => "INTEGER",
            Type::Real => "REAL",
            Type::Blob => "BLOB",
        }
    }
}

impl FromStr for Type {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "text" => Type::Text,
            "int" => Type::Int,
            "real" => Type::Real,
            "bool" => Type::Bool,
            "json" => Type::Json,
            "blob" => Type::Blob,
            "timestamp" => Type::Timestamp,
            _ => return Err(()),
        })
    }
}

/// A time as columns hold it: in UTC, always with milliseconds, so that texts compare as times do. None outside the
/// years 0 to 9999.
pub(crate) fn time_text(at: Timestamp) -> Option<String> {
    let millis = Timestamp::from_micros(at.as_micros().div_euclid(1000) * 1000).to_string();
    let text = millis.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some(format!("{seconds}.{fraction:0<3}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_compare_as_texts() {
        let text = |text: &str| time_text(Timestamp::parse(text).unwrap());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(text("2026-01-02T03:04:05Z"), some("2026-01-02T03:04:05.000Z"));
        assert_eq!(text("2026-01-02T03:04:05.1299+01:00"), some("2026-01-02T02:04:05.129Z"));
        assert_eq!(text("1960-01-02T03:04:05.0001Z"), some("1960-01-02T03:04:05.000Z"));
        assert_eq!(text("9999-12-31T23:59:59-01:00"), None);
        assert_eq!(text("0000-01-01T00:00:00+01:00"), None);
    }
}
