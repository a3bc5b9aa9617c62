//! What a minted credential is held to beyond its scopes: tools, and values in their inputs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{Code, Error, Result};

/// The most tools that can be listed, and the most places in the input of one that can be held.
const MOST: usize = 64;
/// The longest list of rules, in bytes of JSON.
const MOST_BYTES: usize = 8 << 10;
/// How often a text may be percent-encoded that a rule begins with.
const MOST_ENCODED: usize = 2;
/// Whole numbers up to here are exact in every form of a JSON number.
const MOST_WHOLE: i64 = 1 << 53;

/// One rule for one value. The list is closed: what it does not know is refused.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    /// This very value.
    Const(Value),
    /// One of these.
    Enum(Vec<Value>),
    /// A text that begins so, and goes nowhere else by `..`.
    Prefix(String),
    /// A number that is no larger.
    Max(i64),
}

type Rules = BTreeMap<String, BTreeMap<String, Vec<Rule>>>;

/// What a credential is held to: some tools, or all; and for each tool, rules for values at JSON pointers (RFC 6901) of
/// its input, all of which must hold. A value that is not there breaks its rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    tools: Option<BTreeSet<String>>,
    rules: Rules,
}

impl Held {
    /// Held to these tools.
    #[must_use]
    pub fn to(tools: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { tools: Some(tools.into_iter().map(Into::into).collect()), rules: Rules::new() }
    }

    /// As it is written: a list of tools or none, and an object `{tool: {pointer: rule}}` or none, with one rule or a
    /// list of rules of `{"const": value}`, `{"enum": [values]}`, `{"prefix": text}`, `{"max": number}`.
    ///
    /// # Errors
    /// `invalid_input` below `/tools` or `/args`.
    pub fn read(tools: Option<Vec<String>>, args: Option<&Value>) -> Result<Self> {
        if tools.as_ref().is_some_and(|tools| tools.is_empty() || tools.len() > MOST) {
            return Err(Error::invalid("/tools", format!("list 1 to {MOST} tools")));
        }
        let tools = tools.map(|tools| tools.into_iter().collect());
        let Some(args) = args else { return Ok(Self { tools, rules: Rules::new() }) };
        if args.to_string().len() > MOST_BYTES {
            return Err(Error::invalid("/args", format!("the rules take more than {MOST_BYTES} bytes")));
        }
        let mut rules = Rules::new();
        for (tool, places) in object(args, "/args")? {
            let at = format!("/args/{}", escaped(tool));
            let mut read = BTreeMap::new();
            for (pointer, rule) in object(places, &at)? {
                let at = format!("{at}/{}", escaped(pointer));
                if !(pointer.is_empty() || pointer.starts_with('/')) {
                    return Err(Error::invalid(
                        at,
                        "a place in the input is a JSON pointer, such as /bucket",
                    ));
                }
                let list = rule.as_array().map_or(std::slice::from_ref(rule), Vec::as_slice);
                let list: Option<Vec<Rule>> = list.iter().map(Rule::read).collect();
                let list = list.filter(|list| !list.is_empty()).ok_or_else(|| {
                    Error::invalid(at, "this is no rule").hint(
                        "write {\"const\": value}, {\"enum\": [values]}, {\"prefix\": text} or {\"max\": whole number}",
                    )
                })?;
                read.insert(pointer.clone(), list);
            }
            if read.is_empty() || read.len() > MOST {
                return Err(Error::invalid(at, format!("name 1 to {MOST} places in the input")));
            }
            rules.insert(tool.clone(), read);
        }
        Ok(Self { tools, rules })
    }

    /// Held to both.
    #[must_use]
    pub fn and(mut self, other: &Held) -> Self {
        self.tools = match (self.tools, &other.tools) {
            (Some(mine), Some(others)) => Some(mine.intersection(others).cloned().collect()),
            (mine, others) => mine.or_else(|| others.clone()),
        };
        for (tool, places) in &other.rules {
            let mine = self.rules.entry(tool.clone()).or_default();
            for (pointer, rules) in places {
                let mine = mine.entry(pointer.clone()).or_default();
                let new: Vec<_> = rules.iter().filter(|rule| !mine.contains(rule)).cloned().collect();
                mine.extend(new);
            }
        }
        self
    }

    /// That there are no more rules than one credential may have: those of its makers are among them.
    ///
    /// # Errors
    /// `invalid_input` at `/args`.
    pub fn is_within_bounds(&self) -> Result<()> {
        let bytes = self.args().map_or(0, |args| args.to_string().len());
        if bytes <= MOST_BYTES && self.rules.values().all(|places| places.len() <= MOST) {
            return Ok(());
        }
        let message = format!(
            "with those of its maker, the rules are more than {MOST_BYTES} bytes or {MOST} places of a tool"
        );
        Err(Error::invalid("/args", message)
            .hint("ask for fewer, or for those that its maker has: they hold anyway"))
    }

    /// Without the tools that `keep` refuses, where tools are listed.
    #[must_use]
    pub fn of_tools(mut self, keep: impl Fn(&str) -> bool) -> Self {
        if let Some(tools) = &mut self.tools {
            tools.retain(|tool| keep(tool));
        }
        self
    }

    /// Whether it holds to nothing.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.tools.is_none() && self.rules.is_empty()
    }

    /// Whether no tool is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tools.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// The tools, where it holds to some.
    #[must_use]
    pub fn tools(&self) -> Option<&BTreeSet<String>> {
        self.tools.as_ref()
    }

    /// The tools that have rules.
    pub fn ruled(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Whether a tool may be called at all.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }

    /// That a tool may be called at all.
    ///
    /// # Errors
    /// `forbidden` that names the tools there are.
    pub fn permits(&self, tool: &str) -> Result<()> {
        match &self.tools {
            Some(tools) if !tools.contains(tool) => {
                let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
                let message = format!("the credential is not for the tool {tool}");
                let hint = format!("its tools are {}", tools.join(", "));
                Err(Error::new(Code::Forbidden, message).hint(hint))
            }
            _ => Ok(()),
        }
    }

    /// That a tool may be called with this input.
    ///
    /// # Errors
    /// `forbidden` with the place in the input and what may stand there.
    pub fn admits(&self, tool: &str, input: &Value) -> Result<()> {
        self.permits(tool)?;
        for (pointer, rules) in self.rules.get(tool).into_iter().flatten() {
            let value = input.pointer(pointer);
            if let Some(broken) = rules.iter().find(|rule| !value.is_some_and(|value| rule.holds(value))) {
                let message = format!("the credential holds {tool} to other values here");
                let hint = format!("it must be given, and {}", broken.said());
                return Err(Error::new(Code::Forbidden, message).field(pointer.as_str()).hint(hint));
            }
        }
        Ok(())
    }

    /// The member `args` of what is shown, as [`Held::read`] reads it; none where there are no rules.
    #[must_use]
    pub fn args(&self) -> Option<Value> {
        let written = |rules: &Vec<Rule>| match rules.as_slice() {
            [rule] => rule.to_json(),
            rules => rules.iter().map(Rule::to_json).collect(),
        };
        let places = |places: &BTreeMap<String, Vec<Rule>>| -> Map<String, Value> {
            places.iter().map(|(pointer, rules)| (pointer.clone(), written(rules))).collect()
        };
        let args: Map<String, Value> =
            self.rules.iter().map(|(tool, held)| (tool.clone(), places(held).into())).collect();
        (!args.is_empty()).then_some(args.into())
    }
}

impl Rule {
    fn read(value: &Value) -> Option<Self> {
        let mut fields = value.as_object()?.iter();
        let (Some((kind, value)), None) = (fields.next(), fields.next()) else { return None };
        match kind.as_str() {
            "const" => Some(Rule::Const(value.clone())),
            "enum" => value.as_array().filter(|all| !all.is_empty()).cloned().map(Rule::Enum),
            "prefix" => {
                value.as_str().filter(|text| !text.is_empty()).map(|text| Rule::Prefix(text.to_owned()))
            }
            "max" => value.as_i64().filter(|most| most.abs() <= MOST_WHOLE).map(Rule::Max),
            _ => None,
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match self {
            Rule::Const(only) => value == only,
            Rule::Enum(all) => all.contains(value),
            Rule::Prefix(begin) => value
                .as_str()
                .is_some_and(|text| text.starts_with(begin.as_str()) && !leads_up(text.as_bytes())),
            Rule::Max(most) => match value.as_i64() {
                Some(whole) => whole <= *most,
                // Exact: neither side is beyond what a float counts in ones.
                None => value.as_f64().is_some_and(|number| number <= *most as f64),
            },
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Rule::Const(only) => json!({ "const": only }),
            Rule::Enum(all) => json!({ "enum": all }),
            Rule::Prefix(begin) => json!({ "prefix": begin }),
            Rule::Max(most) => json!({ "max": most }),
        }
    }

    fn said(&self) -> String {
        match self {
            Rule::Const(only) => format!("be {only}"),
            Rule::Enum(all) => format!("be one of {}", Value::from(all.clone())),
            Rule::Prefix(begin) => format!("begin with {begin:?}, without .."),
            Rule::Max(most) => format!("be at most {most}"),
        }
    }
}

/// Whether a part of a path or of an address is `..` to somebody who reads it: bytes may be percent-encoded, and readers of
/// addresses leave out tabs and ends of lines, and what is blank at the ends (URL §4.4).
fn leads_up(text: &[u8]) -> bool {
    let mut text = text.to_vec();
    for _ in 0..=MOST_ENCODED {
        text.retain(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'));
        let blank = |byte: &u8| *byte <= b' ';
        let is_up = |part: &[u8]| {
            let begin = part.iter().position(|byte| !blank(byte)).unwrap_or(part.len());
            let end = part.iter().rposition(|byte| !blank(byte)).map_or(begin, |last| last + 1);
            part[begin..end] == *b".."
        };
        if text.split(|byte| matches!(byte, b'/' | b'\\' | b'?' | b'#')).any(is_up) {
            return true;
        }
        let decoded = decoded(&text);
        if decoded.len() == text.len() {
            return false;
        }
        text = decoded;
    }
    // Nobody encodes anything so often who has nothing to hide.
    true
}

/// With what is percent-encoded decoded, once.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| {
        Error::invalid(at, "expected an object")
            .hint("write {tool: {pointer: rule}}, such as {\"db_query\": {\"/limit\": {\"max\": 10}}}")
    })
}

/// A name as a part of a JSON pointer (RFC 6901 §3).
fn escaped(name: &str) -> String {
    name.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tools: Option<&[&str]>, args: Value) -> Held {
        let tools = tools.map(|tools| tools.iter().map(|tool| (*tool).to_owned()).collect());
        Held::read(tools, Some(&args)).unwrap()
    }

    #[test]
    fn a_value_is_held_to_its_rules_and_must_be_there() {
        let held = held(
            Some(&["put"]),
            json!({ "put": {
                "/bucket": { "const": "a" }, "/kind": { "enum": ["x", 1, null] }, "/path": { "prefix": "in/" },
                "/limit": { "max": 10 },
            } }),
        );
        let good = json!({ "bucket": "a", "kind": 1, "path": "in/file", "limit": 10 });
        held.admits("put", &good).unwrap();
        for (pointer, bad) in [
            ("/bucket", json!("b")),
            ("/bucket", json!(["a"])),
            ("/kind", json!("1")),
            ("/kind", json!(1.0)),
            ("/path", json!("in")),
            ("/path", json!("in/../out")),
            ("/path", json!("in/..")),
            ("/path", json!("in/a\\..\\..\\out")),
            ("/path", json!("in/%2e%2e/out")),
            ("/path", json!("in/.%2E/out")),
            ("/path", json!("in/..?x=1")),
            ("/path", json!("in/..#")),
            ("/path", json!("in/%2E.%2fout")),
            ("/path", json!("in/a%5c..%5c..")),
            ("/path", json!("in/%252e%252e/out")),
            ("/path", json!("in/.\n./out")),
            ("/path", json!("in/.%09./out")),
            ("/path", json!("in/.. ")),
            ("/path", json!("in/%25252525252e%252e/out")),
            ("/path", json!(["in/"])),
            ("/limit", json!(11)),
            ("/limit", json!(10.5)),
            ("/limit", json!(1e300)),
            ("/limit", json!("1")),
            ("/limit", json!(u64::MAX)),
        ] {
            let mut input = good.clone();
            *input.pointer_mut(pointer).unwrap() = bad;
            let refused = held.admits("put", &input).unwrap_err();
            assert_eq!((refused.code(), refused.pointer()), (Code::Forbidden, Some(pointer)), "{input}");
        }
        for harmless in
            ["in/a..b", "in/...", "in/100%", "in/a%20b%2fc", "in/100%25.txt", "in/a\nb/.", "in/?q=a..b"]
        {
            let mut input = good.clone();
            input["path"] = harmless.into();
            assert!(held.admits("put", &input).is_ok(), "{harmless:?}");
        }
        for name in ["bucket", "kind", "path", "limit"] {
            let mut input = good.clone();
            input.as_object_mut().unwrap().remove(name);
            assert!(held.admits("put", &input).is_err(), "without {name}");
        }
        assert!(held.admits("get", &good).is_err());
    }

    #[test]
    fn what_is_no_rule_is_refused_where_it_stands() {
        for (args, at) in [
            (json!([]), "/args"),
            (json!({ "t": 1 }), "/args/t"),
            (json!({ "t": {} }), "/args/t"),
            (json!({ "t": { "limit": { "max": 1 } } }), "/args/t/limit"),
            (json!({ "t/u": { "/a": { "regex": "." } } }), "/args/t~1u/~1a"),
            (json!({ "t": { "/a": { "max": 1, "const": 1 } } }), "/args/t/~1a"),
            (json!({ "t": { "/a": { "max": 1.5 } } }), "/args/t/~1a"),
            (json!({ "t": { "/a": { "enum": [] } } }), "/args/t/~1a"),
            (json!({ "t": { "/a": { "prefix": "" } } }), "/args/t/~1a"),
            (json!({ "t": { "/a": [] } }), "/args/t/~1a"),
            (json!({ "t": { "/a": { "const": "x".repeat(MOST_BYTES) } } }), "/args"),
        ] {
            assert_eq!(Held::read(None, Some(&args)).unwrap_err().pointer(), Some(at), "{args}");
        }
        assert_eq!(Held::read(Some(vec![]), None).unwrap_err().pointer(), Some("/tools"));
    }

    #[test]
    fn both_hold_and_what_is_shown_reads_back() {
        let one = held(Some(&["a", "b"]), json!({ "a": { "/n": { "max": 5 } } }));
        let two = held(
            Some(&["b", "a", "c"]),
            json!({ "a": { "/n": { "max": 3 } }, "b": { "/m": { "const": 1 } } }),
        );
        let both = one.clone().and(&two);
        assert_eq!(both.tools().unwrap().len(), 2);
        assert!(
            both.admits("a", &json!({ "n": 3 })).is_ok() && both.admits("a", &json!({ "n": 4 })).is_err()
        );
        assert!(both.admits("b", &json!({ "m": 1 })).is_ok() && both.admits("b", &json!({})).is_err());
        let tools = both.tools().map(|tools| tools.iter().cloned().collect());
        assert_eq!(Held::read(tools, both.args().as_ref()).unwrap(), both);
        assert_eq!(Held::default().and(&one), one);
        assert_eq!(one.clone().and(&one), one);
    }
}
