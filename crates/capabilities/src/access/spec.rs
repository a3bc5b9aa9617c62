//! Access as a manifest writes it: the name of a preset, or an expression for each operation.

use std::fmt;

use kernel::Result;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::lexer::{Token, tokens};
use super::{Expr, Operation, Preset, Rules};
use crate::rows::TableModel;

/// Who may do what with a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AccessSpec {
    /// `private`, `public_read`, `admin_write` or `admin_only`.
    Preset(Preset),
    /// An expression for each operation.
    Rules(RulesSpec),
}

/// An expression for each operation, over `row.*`, `new.*`, `auth.uid|role|email|claims.*` and `now()`; nobody does what
/// is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesSpec {
    /// Which rows are in lists: `row.owner == auth.uid`, `true` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Which rows are read by their id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub get: Option<String>,
    /// Which rows are made: `new.owner == auth.uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<String>,
    /// Which rows are changed, and to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// Which rows are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
}

impl RulesSpec {
    /// The expressions that there are, to be shortened before they are shown.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        [&mut self.list, &mut self.get, &mut self.create, &mut self.update, &mut self.delete]
            .into_iter()
            .flatten()
    }

    fn of(&self, operation: Operation) -> Option<&str> {
        match operation {
            Operation::List => self.list.as_deref(),
            Operation::Get => self.get.as_deref(),
            Operation::Create => self.create.as_deref(),
            Operation::Update => self.update.as_deref(),
            Operation::Delete => self.delete.as_deref(),
        }
    }
}

impl AccessSpec {
    /// Whether rows have an owner: a rule mentions one.
    pub(crate) fn has_owner(&self) -> bool {
        let mentions = |text: &str| {
            let tokens = tokens(text).unwrap_or_default();
            tokens.windows(3).any(|three| match [&three[0].1, &three[1].1, &three[2].1] {
                [Token::Name(row), Token::Sign("."), Token::Name(column)] => {
                    matches!(row.as_str(), "row" | "new") && column.eq_ignore_ascii_case("owner")
                }
                _ => false,
            })
        };
        match self {
            AccessSpec::Preset(preset) => preset.has_owner(),
            AccessSpec::Rules(rules) => {
                Operation::ALL.into_iter().filter_map(|operation| rules.of(operation)).any(mentions)
            }
        }
    }

    /// The rules on `table`; or the first that is wrong, with the operation as its place.
    pub(crate) fn rules(&self, table: &TableModel) -> Result<Rules> {
        let spec = match self {
            AccessSpec::Preset(preset) => return Ok(preset.rules()),
            AccessSpec::Rules(spec) => spec,
        };
        let mut rules = Rules::default();
        for operation in Operation::ALL {
            if let Some(text) = spec.of(operation) {
                let rule = Expr::parse_rule(text, table, operation);
                *rules.of_mut(operation) = Some(rule.map_err(|e| e.under(&format!("/{operation}")))?);
            }
        }
        Ok(rules)
    }
}

impl fmt::Display for AccessSpec {
    /// The preset's name, or that there are expressions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessSpec::Preset(preset) => preset.as_str(),
            AccessSpec::Rules(_) => "expressions",
        })
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
                preset
                    .map(AccessSpec::Preset)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(name), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AccessSpec, A::Error> {
                RulesSpec::deserialize(MapAccessDeserializer::new(map)).map(AccessSpec::Rules)
            }
        }

        from.deserialize_any(Spec)
    }
}
