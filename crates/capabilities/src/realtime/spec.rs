//! Realtime as a manifest writes it: which channels there are, who may be in them and who may speak there.

use std::collections::BTreeMap;
use std::fmt;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::{Expr, New, Operation, Sql, Subject, View, compile};
use crate::rows::{ColumnModel, TableModel, Type};

/// The manifest's `realtime`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RealtimeSpec {
    /// Channel → who may do what there. A `*` at the end stands for any ending: `board:*`.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelSpec>,
}

/// Who may do what in a channel: `public`, `signed_in`, or an expression over `row.name`, `row.key` (what the `*` stands
/// for) and `auth.*`; nobody does what is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// Who hears what is sent there, and sees and is seen by the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// Who sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
}

/// How many channels a manifest may name.
const CHANNELS: usize = 50;

/// The longest name of a channel, in bytes.
const NAME: usize = 100;

/// The channels of a release.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChannelRules(Vec<ChannelRule>);

#[derive(Debug, Clone, PartialEq)]
struct ChannelRule {
    pattern: String,
    join: Option<Expr>,
    send: Option<Expr>,
}

/// What is done with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Join,
    Send,
}

impl RealtimeSpec {
    /// What it says; or the first thing that is wrong, with its place below `/realtime`.
    /// Rules look into `tables`.
    pub(crate) fn rules(&self, tables: &[TableModel]) -> Result<ChannelRules> {
        if self.channels.len() > CHANNELS {
            return Err(Error::invalid("/channels", format!("an app names at most {CHANNELS} channels")));
        }
        let mut rules = Vec::new();
        for (pattern, spec) in &self.channels {
            let at = format!("/channels/{}", pattern.replace('~', "~0").replace('/', "~1"));
            if !is_name(pattern.strip_suffix('*').unwrap_or(pattern)) && pattern != "*" {
                let message = format!(
                    "a channel's name has 1 to {NAME} letters, digits and any of _ - . : /, and may end with *"
                );
                return Err(Error::invalid(at, message));
            }
            let rule = |text: &Option<String>, act: &str| {
                let expr = text.as_deref().map(|text| expression(text, tables)).transpose();
                expr.map_err(|error| error.under(&format!("{at}/{act}")))
            };
            let (join, send) = (rule(&spec.join, "join")?, rule(&spec.send, "send")?);
            rules.push(ChannelRule { pattern: pattern.clone(), join, send });
        }
        // The most particular first.
        rules.sort_by_key(|rule| (rule.pattern.ends_with('*'), std::cmp::Reverse(rule.pattern.len())));
        Ok(ChannelRules(rules))
    }
}

impl fmt::Display for RealtimeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.channels.is_empty() {
            return f.write_str("no channels");
        }
        for (index, (pattern, spec)) in self.channels.iter().enumerate() {
            let who = |rule: &Option<String>| rule.clone().unwrap_or_else(|| "nobody".to_owned());
            let comma = if index > 0 { "; " } else { "" };
            write!(f, "{comma}{pattern}: join {}, send {}", who(&spec.join), who(&spec.send))?;
        }
        Ok(())
    }
}

/// Whether this is the name of a channel.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    (1..=NAME).contains(&name.len()) && name.bytes().all(plain)
}

fn expression(text: &str, tables: &[TableModel]) -> Result<Expr> {
    let text = match text {
        "public" => "true",
        "signed_in" => "auth.uid != null",
        other => other,
    };
    Expr::parse_rule(text, &model(), tables, Operation::Get)
}

/// A channel as rules see it.
fn model() -> TableModel {
    let columns = ["name", "key"].map(|name| ColumnModel {
        name: name.to_owned(),
        kind: Type::Text,
        required: true,
        default: None,
        references: None,
        unique: false,
        built_in: false,
        check: None,
        hidden: false,
        immutable: false,
    });
    TableModel { name: "channel".to_owned(), columns: columns.into(), ..TableModel::default() }
}

impl ChannelRules {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The statement that gives a row where `subject` may do this in the channel; none where nobody may.
    pub(super) fn statement(&self, act: Act, channel: &str, subject: &Subject) -> Option<Sql> {
        let (rule, key) = self.0.iter().find_map(|rule| Some((rule, rule.key(channel)?)))?;
        let expr = match act {
            Act::Join => rule.join.as_ref(),
            Act::Send => rule.send.as_ref(),
        };
        let always = Expr::Bool(true);
        let expr = if *subject == Subject::Service { &always } else { expr? };
        let mut sql = Sql::default();
        sql.text.push_str("SELECT 1 FROM (SELECT ");
        sql.bind(Value::from(channel));
        sql.text.push_str(" AS \"name\", ");
        sql.bind(Value::from(key));
        sql.text.push_str(" AS \"key\") AS \"channel\" WHERE ");
        compile(expr, &View { table: &model(), subject, new: New::None }, &mut sql);
        Some(sql)
    }
}

impl ChannelRule {
    /// What the `*` stands for in this channel's name; none where it is another.
    fn key<'a>(&self, channel: &'a str) -> Option<&'a str> {
        match self.pattern.strip_suffix('*') {
            Some(start) => channel.strip_prefix(start).filter(|key| !key.is_empty()),
            None => (self.pattern == channel).then_some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(spec: Value) -> Result<ChannelRules> {
        serde_json::from_value::<RealtimeSpec>(json!({ "channels": spec })).unwrap().rules(&[])
    }

    fn allows(rules: &ChannelRules, act: Act, channel: &str) -> Option<String> {
        rules.statement(act, channel, &Subject::Visitor).map(|sql| format!("{} {:?}", sql.text, sql.params))
    }

    #[test]
    fn the_most_particular_pattern_decides_and_what_is_left_out_is_nobodys() {
        let rules = rules(json!({
            "*": { "join": "public" },
            "board:*": { "join": "row.key == 'a'", "send": "signed_in" },
            "board:open": { "send": "public" },
        }))
        .unwrap();
        let of = |rule: &str, params: &str| {
            Some(format!(
                "SELECT 1 FROM (SELECT ? AS \"name\", ? AS \"key\") AS \"channel\" WHERE {rule} {params}"
            ))
        };
        assert_eq!(allows(&rules, Act::Join, "x"), of("1", "[String(\"x\"), String(\"x\")]"));
        assert_eq!(allows(&rules, Act::Send, "x"), None);
        assert_eq!(
            allows(&rules, Act::Join, "board:b"),
            of(
                "(\"channel\".\"key\" COLLATE BINARY = ?)",
                "[String(\"board:b\"), String(\"b\"), String(\"a\")]"
            )
        );
        assert_eq!(allows(&rules, Act::Join, "board:open"), None);
        assert_eq!(
            allows(&rules, Act::Send, "board:open"),
            of("1", "[String(\"board:open\"), String(\"\")]")
        );
        assert_eq!(allows(&ChannelRules::default(), Act::Join, "x"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let told = |spec| rules(spec).map_err(|error| error.pointer().unwrap_or_default().to_owned()).err();
        assert_eq!(told(json!({ "a b": {} })), Some("/channels/a b".to_owned()));
        assert_eq!(told(json!({ "a*b": {} })), Some("/channels/a*b".to_owned()));
        assert_eq!(told(json!({ "a/b": { "join": "nobody" } })), Some("/channels/a~1b/join".to_owned()));
        assert_eq!(told(json!({ "a": { "send": "row.title == 'x'" } })), Some("/channels/a/send".to_owned()));
        assert_eq!(told(json!({ "a:*": { "join": "public", "send": "auth.role == 'admin'" } })), None);
    }
}
