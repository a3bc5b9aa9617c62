//! Names of tables and columns, safe to stand in SQL between double quotes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::database;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a name: use a letter, then letters, digits and _, at most 63; not sqlite_…, steading_…, pragma_…, json_each or json_tree"
)]
pub struct NameError(String);

fn check(text: &str) -> Result<(), NameError> {
    let well_formed = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let folded = text.to_ascii_lowercase();
    let is_ours =
        folded.starts_with("sqlite_") || folded.starts_with("steading_") || database::hides_function(&folded);
    if well_formed && !is_ours { Ok(()) } else { Err(NameError(text.chars().take(80).collect())) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name in lower case, as SQLite compares it.
            pub(crate) fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }

            /// The name between double quotes.
            pub(crate) fn quoted(&self) -> String {
                format!("\"{}\"", self.0)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string" })
            }
        }
    };
}

name!(
    /// The name of a table.
    TableName
);
name!(
    /// The name of a column.
    ColumnName
);

/// The way into the JSON of a column: `data.address.city`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonPath {
    column: ColumnName,
    keys: Vec<String>,
}

impl JsonPath {
    /// The column.
    pub(crate) const fn column(&self) -> &ColumnName {
        &self.column
    }

    /// The way from there.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }
}

impl TryFrom<String> for JsonPath {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let wrong = || NameError(text.chars().take(80).collect());
        let (column, keys) = text.split_once('.').ok_or_else(wrong)?;
        let keys: Vec<String> = keys.split('.').map(str::to_owned).collect();
        // As a filter reads it.
        let plain = |key: &String| {
            key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if text.len() > 200 || !keys.iter().all(plain) {
            return Err(wrong());
        }
        Ok(Self { column: column.parse()?, keys })
    }
}

impl From<JsonPath> for String {
    fn from(path: JsonPath) -> String {
        path.to_string()
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.column, self.keys.join("."))
    }
}

impl JsonSchema for JsonPath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "JsonPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl ColumnName {
    /// The column that holds a row's owner.
    pub(crate) fn owner() -> Self {
        Self("owner".to_owned())
    }

    /// The column that holds a document.
    pub(crate) fn data() -> Self {
        Self("data".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes_or_take_ours() {
        for good in ["todos", "createdAt", "a_1"] {
            assert!(good.parse::<TableName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "_a",
            "1a",
            "a\"b",
            "a b",
            "é",
            "sqlite_x",
            "STEADING_x",
            "json_each",
            "JSON_tree",
            "pragma_table_info",
            "_steading_release",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<TableName>().is_err(), "{bad}");
        }
    }
}
