//! Columns: the short form (`text!`, `bool = false`), the object form, and what both mean.

use std::fmt;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{ColumnName, TableName};
pub(crate) use crate::rows::Type;
use crate::rows::time_text;

/// A column as the manifest writes it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnSpec {
    /// `type`, `type!`, `type = default`, `type! = default`.
    Short(String),
    /// The object form.
    Full(ColumnObject),
}

// By hand, because serde's untagged enums only say that no variant matched.
impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Spec;

        impl<'de> Visitor<'de> for Spec {
            type Value = ColumnSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as \"text!\" or \"bool = false\", or an object with `type`")
            }

            fn visit_str<E>(self, text: &str) -> Result<ColumnSpec, E> {
                Ok(ColumnSpec::Short(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnSpec, A::Error> {
                ColumnObject::deserialize(MapAccessDeserializer::new(map)).map(ColumnSpec::Full)
            }
        }

        from.deserialize_any(Spec)
    }
}

/// The object form of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnObject {
    /// text int real bool json blob timestamp ref:<table>
    pub r#type: String,
    /// Whether every row must have a value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The value where none is given; `now()` for the time of the insert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Whether values must differ from row to row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unique: bool,
    /// The table whose `id` this column holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<TableName>,
    /// What becomes of this row when the row it refers to is deleted; that is refused where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// What every row must meet, over the table's columns: `size(title) <= 100`. A missing value passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Whether it is kept from everybody: no answer has it, no user writes it, filters or orders by it. Rules may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Whether it keeps the value that the row was made with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

/// What becomes of a row when the row it refers to is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// The deletion is refused.
    Restrict,
    /// This row is deleted too.
    Cascade,
    /// The column becomes null.
    SetNull,
}

impl OnDelete {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            OnDelete::Restrict => "restrict",
            OnDelete::Cascade => "cascade",
            OnDelete::SetNull => "set_null",
        }
    }
}

/// The default of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Default {
    /// A constant, as an SQL literal.
    Constant(String),
    /// The time of the insert.
    Now,
}

/// The `check` of a column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// As the manifest writes it.
    pub said: String,
    /// What stands in `CHECK (…)`; empty until all columns of the table are known.
    pub sql: String,
}

/// A column, spelled out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub name: ColumnName,
    pub kind: Type,
    pub required: bool,
    pub default: Option<Default>,
    pub unique: bool,
    pub references: Option<TableName>,
    pub on_delete: Option<OnDelete>,
    pub check: Option<Check>,
    pub hidden: bool,
    pub immutable: bool,
}

impl Column {
    /// The one column of a table of documents.
    pub(crate) fn document() -> Self {
        Self {
            name: ColumnName::data(),
            kind: Type::Json,
            required: true,
            default: Some(Default::Constant("'{}'".into())),
            unique: false,
            references: None,
            on_delete: None,
            check: None,
            hidden: false,
            immutable: false,
        }
    }

    /// Spells a column out, or says what is wrong with it.
    pub(crate) fn parse(name: &ColumnName, spec: &ColumnSpec) -> Result<Self> {
        match spec {
            ColumnSpec::Short(text) => Self::parse_short(name, text),
            ColumnSpec::Full(object) => Self::parse_object(name, object),
        }
    }

    /// Refuses what a release may have been made of and no manifest may say from now on: a release that is there is
    /// served whatever is written in it.
    pub(crate) fn well_written(&self, spec: &ColumnSpec) -> Result<()> {
        let ColumnSpec::Short(text) = spec else { return Ok(()) };
        let default = text.split_once('=').map(|(_, default)| default.trim()).unwrap_or_default();
        let quotes = default.starts_with(['"', '\'']) && self.kind == Type::Text;
        // Where the quotes count they are gone.
        if quotes && self.default == Some(Default::Constant(quoted(default))) {
            return Err(Error::invalid("", "the default begins with a quote and does not end with it")
                .hint("write text = open, or text = \"it's open\"; for more take the object form"));
        }
        Ok(())
    }

    fn parse_short(name: &ColumnName, text: &str) -> Result<Self> {
        let (head, default) = match text.split_once('=') {
            Some((head, default)) => (head.trim(), Some(default.trim())),
            None => (text.trim(), None),
        };
        let (word, required) = match head.strip_suffix('!') {
            Some(word) => (word.trim_end(), true),
            None => (head, false),
        };
        let (kind, references) = parse_type(word).ok_or_else(|| unknown_type("", word))?;
        let default = default.map(|d| default_of(kind, &written(kind, d))).transpose()?;
        Ok(Self {
            name: name.clone(),
            kind,
            required,
            default,
            unique: false,
            references,
            on_delete: None,
            check: None,
            hidden: false,
            immutable: false,
        })
    }

    fn parse_object(name: &ColumnName, object: &ColumnObject) -> Result<Self> {
        let (kind, by_type) =
            parse_type(&object.r#type).ok_or_else(|| unknown_type("/type", &object.r#type))?;
        let references = by_type.or_else(|| object.references.clone());
        if references.is_some() && kind != Type::Text {
            return Err(Error::invalid("/references", "a column that refers to rows has the type text"));
        }
        if object.on_delete.is_some() && references.is_none() {
            return Err(Error::invalid("/on_delete", "only a column that refers to rows can have this"));
        }
        if object.on_delete == Some(OnDelete::SetNull) && object.required {
            return Err(Error::invalid("/on_delete", "a required column cannot become null"));
        }
        let default = object.default.as_ref().filter(|d| !d.is_null());
        let default = default.map(|d| default_of(kind, d)).transpose().map_err(|e| e.under("/default"))?;
        if object.hidden && object.required && default.is_none() {
            let error =
                Error::invalid("/hidden", "nobody can write a hidden column, and this one is required");
            return Err(error.hint("give it a default, or leave it optional"));
        }
        let check = object.check.as_ref().map(|said| Check { said: said.clone(), sql: String::new() });
        Ok(Self {
            name: name.clone(),
            kind,
            required: object.required,
            default,
            unique: object.unique,
            references,
            on_delete: object.on_delete,
            check,
            hidden: object.hidden,
            immutable: object.immutable,
        })
    }
}

impl fmt::Display for Column {
    /// The short form, for people and models.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.references {
            Some(table) => write!(f, "ref:{table}")?,
            None => f.write_str(self.kind.as_str())?,
        }
        if self.required {
            f.write_str("!")?;
        }
        match &self.default {
            Some(Default::Now) => f.write_str(" = now()"),
            Some(Default::Constant(sql)) if self.kind == Type::Bool => {
                write!(f, " = {}", sql == "1")
            }
            Some(Default::Constant(sql)) => write!(f, " = {}", plain(self.kind, sql)),
            None => Ok(()),
        }
    }
}

/// A constant as the short form writes it: between quotes where it would not be read as it is otherwise.
fn plain(kind: Type, sql: &str) -> String {
    let Some(text) = sql.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) else {
        return sql.to_owned();
    };
    let text = text.replace("''", "'");
    let ambiguous = text.trim() != text || text.starts_with(['"', '\'']);
    if kind == Type::Text && ambiguous { Value::from(text).to_string() } else { text }
}

/// The default that the short form writes. A bare word is a text, and so is all that a text column has, but for a
/// text in JSON's or SQL's quotes; elsewhere anything that is JSON is what it says.
fn written(kind: Type, default: &str) -> Value {
    let inside = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let inside =
        inside.filter(|text| !text.replace("''", "").contains('\'')).map(|text| text.replace("''", "'"));
    if kind != Type::Text {
        let bare = inside.as_deref().unwrap_or(default);
        return serde_json::from_str(bare).unwrap_or_else(|_| Value::from(bare));
    }
    let json = || serde_json::from_str::<String>(default).ok();
    Value::from(inside.or_else(json).unwrap_or_else(|| default.to_owned()))
}

fn parse_type(word: &str) -> Option<(Type, Option<TableName>)> {
    match word.strip_prefix("ref:") {
        Some(table) => Some((Type::Text, Some(table.trim().parse().ok()?))),
        None => Some((word.parse().ok()?, None)),
    }
}

fn unknown_type(at: &str, word: &str) -> Error {
    let word: String = word.chars().take(64).collect();
    let lower = word.to_ascii_lowercase();
    let near = match lower.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default() {
        "text" | "string" | "varchar" | "char" | "character" | "uuid" | "email" | "url" | "id" => "text",
        "int" | "integer" | "bigint" | "number" | "serial" | "bigserial" | "smallint" => "int",
        "real" | "float" | "double" | "decimal" | "numeric" => "real",
        "bool" | "boolean" => "bool",
        "json" | "jsonb" | "object" | "array" => "json",
        "timestamp" | "date" | "datetime" | "timestamptz" | "time" => "timestamp",
        "blob" | "bytes" | "bytea" | "binary" => "blob",
        "ref" | "reference" | "references" | "foreign" => "ref:<table>",
        _ => "",
    };
    let error = Error::invalid(at, format!("{word:?} is not a type"));
    let says = |what: &str| lower.contains(what);
    error.hint(match near {
        "" if says("enum") => {
            "write text, and in access which values: new.state in ['open', 'done']".to_owned()
        }
        "" => "use one of text int real bool json blob timestamp ref:<table>".to_owned(),
        _ if says("[]") => "write json: it holds lists".to_owned(),
        near if says("unique") || says("primary") => format!(r#"write {{"type": "{near}", "unique": true}}"#),
        near if says("not null") || says("!") => format!("write {near}!"),
        near if says("default") => format!("write {near} = value"),
        near => format!("write {near}"),
    })
}

fn default_of(kind: Type, value: &Value) -> Result<Default> {
    let wrong = || {
        let error = Error::invalid("", format!("the default does not fit the type {}", kind.as_str()));
        match kind {
            Type::Bool => error.hint("write true or false"),
            Type::Timestamp => error.hint("write now(), or a time such as 2030-01-31T12:00:00Z"),
            Type::Int => error.hint("write a whole number"),
            Type::Real => error.hint("write a number"),
            Type::Blob => error.hint("a blob has no default: leave it out"),
            Type::Text | Type::Json => error,
        }
    };
    let constant = match (kind, value) {
        (Type::Timestamp, Value::String(text)) if matches!(text.as_str(), "now" | "now()") => {
            return Ok(Default::Now);
        }
        (Type::Timestamp, Value::String(text)) => {
            // As rows hold times, so that they compare.
            quoted(&kernel::Timestamp::parse(text).and_then(time_text).ok_or_else(wrong)?)
        }
        (Type::Text, Value::String(text)) => quoted(text),
        (Type::Text, Value::Number(number)) => quoted(&number.to_string()),
        (Type::Text, Value::Bool(flag)) => quoted(&flag.to_string()),
        (Type::Int, Value::Number(number)) if number.is_i64() => number.to_string(),
        (Type::Real, Value::Number(number)) => format!("{:?}", number.as_f64().ok_or_else(wrong)?),
        (Type::Bool, Value::Bool(flag)) => i32::from(*flag).to_string(),
        (Type::Json, value) => quoted(&value.to_string()),
        _ => return Err(wrong()),
    };
    Ok(Default::Constant(constant))
}

/// A text as an SQL literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace('\0', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> String {
        let name: ColumnName = "c".parse().unwrap();
        let spec = ColumnSpec::Short(text.into());
        match Column::parse(&name, &spec).and_then(|column| column.well_written(&spec).map(|()| column)) {
            Ok(column) => format!("{column} | {:?}", column.default),
            Err(error) => format!("{error:?} ({})", error.advice().unwrap_or_default()),
        }
    }

    #[test]
    fn the_short_form_says_type_required_and_default() {
        assert_eq!(short("text"), "text | None");
        assert_eq!(short("text!"), "text! | None");
        assert_eq!(short("bool = false"), r#"bool = false | Some(Constant("0"))"#);
        assert_eq!(short("text! = it's"), r#"text! = it's | Some(Constant("'it''s'"))"#);
        assert_eq!(short("text = 1.50"), r#"text = 1.50 | Some(Constant("'1.50'"))"#);
        assert_eq!(short("text = 'it''s open'"), r#"text = it's open | Some(Constant("'it''s open'"))"#);
        assert_eq!(short(r#"text = "'open'""#), r#"text = "'open'" | Some(Constant("'''open'''"))"#);
        assert_eq!(short("json = '[]'"), r#"json = [] | Some(Constant("'[]'"))"#);
        assert_eq!(short(r#"text = " a""#), r#"text = " a" | Some(Constant("' a'"))"#);
        assert_eq!(short("json = {\"a\": 1}"), r#"json = {"a":1} | Some(Constant("'{\"a\":1}'"))"#);
        assert_eq!(short("int=3"), r#"int = 3 | Some(Constant("3"))"#);
        assert_eq!(short("timestamp = now()"), "timestamp = now() | Some(Now)");
        assert_eq!(short("ref:lists!"), "ref:lists! | None");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_nearest_that_can() {
        assert_eq!(short("string!"), "invalid_input : \"string\" is not a type (write text)");
        assert_eq!(
            short("money"),
            "invalid_input : \"money\" is not a type (use one of text int real bool json blob timestamp ref:<table>)"
        );
        for (wrong, hint) in [
            ("VARCHAR(255)", "write text"),
            ("text not null", "write text!"),
            ("text default 'a'", "write text = value"),
            ("text unique", r#"write {"type": "text", "unique": true}"#),
            ("text[]", "write json: it holds lists"),
            ("enum(a, b)", "write text, and in access which values: new.state in ['open', 'done']"),
            ("references lists", "write ref:<table>"),
        ] {
            assert_eq!(short(wrong), format!("invalid_input : {wrong:?} is not a type ({hint})"));
        }
        assert_eq!(
            short("int = many"),
            "invalid_input : the default does not fit the type int (write a whole number)"
        );
        assert_eq!(
            short(r#"text = "a" unique"#),
            "invalid_input : the default begins with a quote and does not end with it (write text = open, or text = \
             \"it's open\"; for more take the object form)"
        );
    }
}
