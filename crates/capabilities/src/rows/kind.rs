//! The types of columns.

use std::str::FromStr;

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
