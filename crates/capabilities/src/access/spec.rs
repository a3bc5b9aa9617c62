//! Access as a manifest writes it: the name of a preset, or an expression for each operation.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::lexer::{Token, tokens};
use super::preset::CloudBase;
use super::{Expr, Operation, Preset, Rules};
use crate::rows::TableModel;

/// Who may do what with a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AccessSpec {
    /// `private`, `public_read`, `admin_write` or `admin_only`.
    Preset(Preset),
    /// A preset by its name at CloudBase.
    CloudBase(CloudBase),
    /// An expression for each operation.
    Rules(RulesSpec),
}

/// An expression for each operation, over `row.*`, `new.*`, `auth.uid|role|email|claims.*` and `now()`; nobody does what
/// is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSpec {
    /// Which rows are in lists: `row.owner == auth.uid`, `true` for all.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Which rows are read by their id.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub get: Option<String>,
    /// Which rows are made: `new.owner == auth.uid`.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub create: Option<String>,
    /// Which rows are changed, and to what.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// Which rows are removed.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    /// As CloudBase has it: `list` and `get`, where those are left out.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// As CloudBase has it: `create`, `update` and `delete`, where those are left out.
    #[serde(default, deserialize_with = "expression", skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
}

impl RulesSpec {
    /// The expressions that there are, to be shortened before they are shown.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let RulesSpec { list, get, create, update, delete, read, write } = self;
        [list, get, create, update, delete, read, write].into_iter().flatten()
    }

    fn of(&self, operation: Operation) -> Option<&str> {
        let (own, both) = match operation {
            Operation::List => (&self.list, &self.read),
            Operation::Get => (&self.get, &self.read),
            Operation::Create => (&self.create, &self.write),
            Operation::Update => (&self.update, &self.write),
            Operation::Delete => (&self.delete, &self.write),
        };
        own.as_deref().or(both.as_deref())
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        Operation::ALL.into_iter().filter_map(|operation| self.of(operation))
    }
}

/// An expression, or CloudBase's `true` and `false`.
fn expression<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an expression as a text")]
    enum Written {
        Text(String),
        Bool(bool),
    }
    let written = Option::<Written>::deserialize(from)?;
    Ok(written.map(|written| match written {
        Written::Text(text) => text,
        Written::Bool(value) => value.to_string(),
    }))
}

impl AccessSpec {
    /// Whether rows have an owner: a rule mentions one.
    pub(crate) fn has_owner(&self) -> bool {
        let names = |row: &str, column: &str| match row {
            "row" | "new" => column.eq_ignore_ascii_case("owner"),
            "doc" => column == "_openid" || column.eq_ignore_ascii_case("owner"),
            _ => false,
        };
        match self.preset() {
            Ok(preset) => preset.has_owner(),
            Err(rules) => rules.texts().any(|text| mentions(text, names)),
        }
    }

    /// Whether it is written as CloudBase writes it.
    pub(crate) fn is_cloudbase(&self) -> bool {
        let names = |object: &str, name: &str| object == "doc" || (object == "auth" && name == "openid");
        match self {
            AccessSpec::Preset(_) => false,
            AccessSpec::CloudBase(_) => true,
            AccessSpec::Rules(rules) => {
                rules.read.is_some()
                    || rules.write.is_some()
                    || rules.texts().any(|text| mentions(text, names))
            }
        }
    }

    fn preset(&self) -> Result<Preset, &RulesSpec> {
        match self {
            AccessSpec::Preset(preset) => Ok(*preset),
            AccessSpec::CloudBase(name) => Ok(name.preset()),
            AccessSpec::Rules(rules) => Err(rules),
        }
    }

    /// The rules on `table`, which may look into `tables`; or the first that is wrong, with the operation as its place.
    pub(crate) fn rules(&self, table: &TableModel, tables: &[TableModel]) -> kernel::Result<Rules> {
        let spec = match self.preset() {
            Ok(preset) => return Ok(preset.rules()),
            Err(spec) => spec,
        };
        let mut rules = Rules::default();
        for operation in Operation::ALL {
            if let Some(text) = spec.of(operation) {
                let rule = Expr::parse_rule(text, table, tables, operation);
                *rules.of_mut(operation) = Some(rule.map_err(|e| e.under(&format!("/{operation}")))?);
            }
        }
        Ok(rules)
    }
}

/// Whether `text` has an `object.name` of that kind.
fn mentions(text: &str, is: impl Fn(&str, &str) -> bool) -> bool {
    let tokens = tokens(text).unwrap_or_default();
    tokens.windows(3).any(|three| match [&three[0].1, &three[1].1, &three[2].1] {
        [Token::Name(object), Token::Sign("."), Token::Name(name)] => is(object, name),
        _ => false,
    })
}

impl fmt::Display for AccessSpec {
    /// The preset's name, or that there are expressions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessSpec::Preset(preset) => f.write_str(preset.as_str()),
            AccessSpec::CloudBase(name) => write!(f, "{} ({})", name.preset().as_str(), name.as_str()),
            AccessSpec::Rules(_) => f.write_str("expressions"),
        }
    }
}

// By hand, because serde's untagged enums only say that no variant matched.
impl<'de> Deserialize<'de> for AccessSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Spec;

        impl<'de> Visitor<'de> for Spec {
            type Value = AccessSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a preset (private, public_read, admin_write, admin_only) or an object with an expression for \
                     each of list, get, create, update, delete",
                )
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<AccessSpec, E> {
                let preset = Preset::ALL.into_iter().find(|preset| preset.as_str() == name);
                let theirs = || CloudBase::ALL.into_iter().find(|preset| preset.as_str() == name);
                preset
                    .map(AccessSpec::Preset)
                    .or_else(|| theirs().map(AccessSpec::CloudBase))
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(name), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AccessSpec, A::Error> {
                RulesSpec::deserialize(MapAccessDeserializer::new(map)).map(AccessSpec::Rules)
            }
        }

        from.deserialize_any(Spec)
    }
}
