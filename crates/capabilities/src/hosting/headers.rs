//! Header rules: read from a manifest, checked once, matched on every request.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::spec::pointer_escape;
use super::{Error, Result};

/// How many header rules a site may have, how many headers a rule, how long a pattern and a value is at most.
const MAX_RULES: usize = 200;
const MAX_HEADERS: usize = 20;
const MAX_PATTERN: usize = 512;
const MAX_VALUE: usize = 2_000;

/// Headers that a rule may not set. Those of the connection and of the body's form are the server's to say;
/// a cookie set on static, cacheable files would be everybody's, and could be set for the domain above. What
/// proxies take as orders (`x-accel-redirect`, `x-sendfile`) would make one before us serve its own files.
const KEPT: &[&str] = &[
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "host",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
    "x-accel-redirect",
    "x-content-type-options",
    "x-lighttpd-send-file",
    "x-lighttpd-send-tempfile",
    "x-release",
    "x-request-id",
    "x-reproxy-url",
    "x-sendfile",
    "x-sendfile2",
];

/// A checked header rule. Names are in lower case; values are printable ASCII on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    #[serde(rename = "for")]
    pattern: String,
    set: BTreeMap<String, String>,
}

impl HeaderRule {
    /// Checks the rules of a site: path pattern to headers, in the manifest's order.
    pub(super) fn parse_all(given: IndexMap<String, BTreeMap<String, String>>) -> Result<Vec<HeaderRule>> {
        if given.len() > MAX_RULES {
            let why = format!("there are {} header rules; the limit is {MAX_RULES}", given.len());
            return Err(Error::HeaderRule { at: "/headers".into(), why });
        }
        given.into_iter().map(|(pattern, set)| Self::parse(pattern, set)).collect()
    }

    /// As a manifest has it.
    pub(super) fn spec(&self) -> (String, BTreeMap<String, String>) {
        (self.pattern.clone(), self.set.clone())
    }

    fn parse(pattern: String, given: BTreeMap<String, String>) -> Result<Self> {
        let rule = format!("/headers/{}", pointer_escape(&pattern));
        let refuse = |at: String, why: String| Err(Error::HeaderRule { at, why });
        if !pattern.starts_with('/') {
            return refuse(rule, format!("the pattern {pattern:?} does not begin with a slash"));
        }
        if pattern.len() > MAX_PATTERN || pattern.chars().any(char::is_control) {
            return refuse(rule, format!("the pattern is not one line of at most {MAX_PATTERN} bytes"));
        }
        if given.len() > MAX_HEADERS {
            return refuse(
                rule,
                format!("the rule sets {} headers; the limit is {MAX_HEADERS}", given.len()),
            );
        }
        let mut set = BTreeMap::new();
        for (written, value) in given {
            let at = format!("{rule}/{}", pointer_escape(&written));
            let name = written.to_ascii_lowercase();
            if name.is_empty() || name.len() > 100 || !name.bytes().all(is_token) {
                return refuse(at, format!("{written:?} is not a header name"));
            }
            if KEPT.contains(&name.as_str()) {
                return refuse(at, format!("the header {name} is set by the server and cannot be changed"));
            }
            if value.len() > MAX_VALUE || !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
                let why = format!(
                    "the value of {name} is not 0 to {MAX_VALUE} printable ASCII characters on one line"
                );
                return refuse(at, why);
            }
            if set.insert(name.clone(), value).is_some() {
                return refuse(at, format!("the rule sets {name} twice"));
            }
        }
        Ok(Self { pattern, set })
    }

    /// Whether the rule is for `path`, which is decoded and begins with a slash.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        glob(self.pattern.as_bytes(), path.as_bytes())
    }

    /// The headers it sets: name in lower case, value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Whether `path` matches `pattern`, where `*` stands for any bytes. Goes back to the last star only, so the
/// work is bounded by the product of the lengths.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while s < path.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, s));
            p += 1;
        } else if pattern.get(p) == path.get(s) {
            p += 1;
            s += 1;
        } else if let Some((at, eaten)) = star {
            star = Some((at, eaten + 1));
            p = at + 1;
            s = eaten + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

/// A character of a header name (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rules: serde_json::Value) -> Result<Vec<HeaderRule>, String> {
        HeaderRule::parse_all(serde_json::from_value(rules).unwrap())
            .map_err(|error| format!("{:?}", kernel::Error::from(error)))
    }

    #[test]
    fn a_pattern_is_for_the_paths_it_covers() {
        for (pattern, yes, no) in [
            ("/a.html", vec!["/a.html"], vec!["/a.htm", "/a.html/", "/b/a.html", "/"]),
            ("/*", vec!["/", "/a", "/a/b"], vec![]),
            ("/assets/*", vec!["/assets/", "/assets/a/b.js"], vec!["/assets", "/x/assets/a"]),
            ("/*.js", vec!["/a.js", "/b/c.js"], vec!["/a.js.map", "/a.jsx"]),
            ("/a/*/c/*", vec!["/a/b/c/d", "/a/b/b/c/"], vec!["/a/c/d"]),
        ] {
            let rule = &parse(serde_json::json!({ pattern: { "X-A": "1" } })).unwrap()[0];
            for path in yes {
                assert!(rule.matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!rule.matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn a_pattern_full_of_stars_is_matched_quickly() {
        let rule = &parse(serde_json::json!({ format!("/{}b", "*a".repeat(250)): {} })).unwrap()[0];
        assert!(!rule.matches(&format!("/{}", "a".repeat(500))));
    }

    #[test]
    fn the_order_of_the_manifest_is_kept_and_names_are_in_lower_case() {
        let rules = parse(serde_json::json!({ "/z": { "X-B": "1", "X-A": "2" }, "/a": {} })).unwrap();
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"[{"for":"/z","set":{"x-a":"2","x-b":"1"}},{"for":"/a","set":{}}]"#
        );
    }

    #[test]
    fn what_the_server_says_itself_cannot_be_set() {
        for name in [
            "Set-Cookie",
            "content-length",
            "Transfer-Encoding",
            "ETag",
            "X-Release",
            "Location",
            "X-Accel-Redirect",
            "X-Sendfile",
        ] {
            let error = parse(serde_json::json!({ "/*": { name: "1" } })).unwrap_err();
            let lower = name.to_ascii_lowercase();
            assert_eq!(
                error,
                format!(
                    "invalid_input /headers/~1*/{name}: the header {lower} is set by the server and cannot be changed"
                )
            );
        }
    }

    #[test]
    fn a_value_cannot_begin_another_header() {
        for value in ["a\r\nSet-Cookie: b", "a\nb", "a\0", "ü", "a\tb"] {
            assert!(parse(serde_json::json!({ "/*": { "X-A": value } })).is_err(), "{value:?}");
        }
        for name in ["", "a b", "a:b", "a\r\nb", "é"] {
            assert!(parse(serde_json::json!({ "/*": { name: "1" } })).is_err(), "{name:?}");
        }
        for rules in [
            serde_json::json!({ "a": {} }),
            serde_json::json!({ "/\n": {} }),
            serde_json::json!({ "/": { "x-a": "1", "X-A": "2" } }),
        ] {
            assert!(parse(rules.clone()).is_err(), "{rules}");
        }
    }
}
