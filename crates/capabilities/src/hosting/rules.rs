//! Header rules and redirects: read from a manifest, checked once, matched on every request.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// Response headers for the paths that match, as a manifest has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRuleSpec {
    /// A path such as /assets/* where * stands for any characters, slashes too.
    #[serde(rename = "for")]
    pub pattern: String,
    /// Header name to value.
    pub set: BTreeMap<String, String>,
}

/// A redirect, as a manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// A path, or a path that ends in /* for everything below it.
    pub from: String,
    /// A path or an http(s) URL; :splat stands for what * matched.
    pub to: String,
    /// 301, 302 (default), 303, 307 or 308.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A checked header rule. Names are in lower case; values have no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    #[serde(rename = "for")]
    pattern: String,
    set: BTreeMap<String, String>,
}

/// A checked redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    from: String,
    to: String,
    status: RedirectStatus,
}

/// The statuses of a redirect (RFC 9110 §15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum RedirectStatus {
    /// 301
    MovedPermanently,
    /// 302
    Found,
    /// 303
    SeeOther,
    /// 307
    Temporary,
    /// 308
    Permanent,
}

/// How many header rules a site may have, how many headers a rule, and how long a value is at most.
const MAX_HEADER_RULES: usize = 200;
const MAX_HEADERS: usize = 20;
const MAX_VALUE: usize = 2_000;
/// How many redirects a site may have.
const MAX_REDIRECTS: usize = 1_000;
/// How long a pattern or a target may be, in bytes.
const MAX_TEXT: usize = 2_000;
/// How many redirects in a row a visitor may meet before it counts as a loop; browsers give up at 20.
const MAX_HOPS: usize = 10;

/// Headers that a rule may not set. Those of the connection and of the body's form are the server's to say;
/// a cookie set on static, cacheable files would be everybody's; the rest are what keeps one app from
/// speaking for another.
const KEPT_HEADERS: &[&str] = &[
    "accept-ranges", "age", "allow", "alt-svc", "connection", "content-encoding", "content-length",
    "content-range", "date", "etag", "host", "keep-alive", "last-modified", "location",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "set-cookie", "set-cookie2", "te",
    "trailer", "transfer-encoding", "upgrade", "vary", "via", "www-authenticate", "x-content-type-options",
    "x-release", "x-request-id",
];

impl HeaderRule {
    /// Checks the rules of a site.
    pub(super) fn parse_all(specs: Vec<HeaderRuleSpec>) -> Result<Vec<HeaderRule>> {
        if specs.len() > MAX_HEADER_RULES {
            let why = format!("there are {} header rules; the limit is {MAX_HEADER_RULES}", specs.len());
            return Err(Error::HeaderRule { at: "/headers".into(), why });
        }
        specs.into_iter().enumerate().map(|(at, spec)| Self::parse(at, spec)).collect()
    }

    fn parse(index: usize, spec: HeaderRuleSpec) -> Result<Self> {
        let refuse = |at: String, why: String| Err(Error::HeaderRule { at, why });
        if let Err(why) = check_path_text(&spec.pattern) {
            return refuse(format!("/headers/{index}/for"), why);
        }
        if spec.set.len() > MAX_HEADERS {
            let why = format!("the rule sets {} headers; the limit is {MAX_HEADERS}", spec.set.len());
            return refuse(format!("/headers/{index}/set"), why);
        }
        let mut set = BTreeMap::new();
        for (given, value) in spec.set {
            let at = format!("/headers/{index}/set/{}", super::spec::pointer_escape(&given));
            let name = given.to_ascii_lowercase();
            if name.is_empty() || name.len() > 100 || !name.bytes().all(is_token) {
                return refuse(at, format!("{given:?} is not a header name"));
            }
            if KEPT_HEADERS.contains(&name.as_str()) {
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
        Ok(Self { pattern: spec.pattern, set })
    }

    /// Whether the rule is for `path`, which begins with a slash.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        glob(self.pattern.as_bytes(), path.as_bytes())
    }

    /// The headers it sets: name in lower case, value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Redirect {
    /// Checks the redirects of a site, each alone and all together: a visitor must arrive somewhere.
    pub(super) fn parse_all(specs: Vec<RedirectSpec>) -> Result<Vec<Redirect>> {
        if specs.len() > MAX_REDIRECTS {
            let why = format!("there are {} redirects; the limit is {MAX_REDIRECTS}", specs.len());
            return Err(Error::Redirect { at: "/redirects".into(), why });
        }
        let rules =
            specs.into_iter().enumerate().map(|(at, spec)| Self::parse(at, spec)).collect::<Result<Vec<_>>>()?;
        for (index, rule) in rules.iter().enumerate() {
            let start = rule.from.replace('*', "x");
            if !arrives(&rules, &start) {
                return Err(Error::Redirect {
                    at: format!("/redirects/{index}"),
                    why: format!("a visitor of {start:?} is redirected in a loop"),
                });
            }
        }
        Ok(rules)
    }

    fn parse(index: usize, spec: RedirectSpec) -> Result<Self> {
        let refuse = |field: &str, why: String| Err(Error::Redirect { at: format!("/redirects/{index}/{field}"), why });
        if let Err(why) = check_path_text(&spec.from) {
            return refuse("from", why);
        }
        let splat = spec.from.ends_with("/*");
        if spec.from.strip_suffix("/*").unwrap_or(&spec.from).contains('*') {
            return refuse("from", "a * may only stand at the end, as /*".into());
        }
        if spec.from.contains(['?', '#']) {
            return refuse("from", "a redirect is chosen by its path alone, without ? and #".into());
        }
        if let Err(why) = check_target(&spec.to, splat) {
            return refuse("to", why);
        }
        let status = match spec.status {
            None => RedirectStatus::Found,
            Some(status) => match RedirectStatus::try_from(status) {
                Ok(status) => status,
                Err(why) => return refuse("status", why),
            },
        };
        Ok(Self { from: spec.from, to: spec.to, status })
    }

    /// Where a request for the decoded `path` is sent, if the rule is for it.
    pub(super) fn apply(&self, path: &str) -> Option<String> {
        let Some(below) = self.from.strip_suffix('*') else {
            return (path == self.from).then(|| self.to.clone());
        };
        let splat = match path.strip_prefix(below) {
            Some(splat) => splat,
            None if below.len() > 1 && path == below.trim_end_matches('/') => "",
            None => return None,
        };
        // What the visitor wrote must not become the host: `/old//evil.example` with `to: "/:splat"`.
        Some(self.to.replace(":splat", super::resolve::encode(splat).trim_start_matches('/')))
    }

    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> RedirectStatus {
        self.status
    }
}

impl RedirectStatus {
    /// The number on the wire.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        match self {
            RedirectStatus::MovedPermanently => 301,
            RedirectStatus::Found => 302,
            RedirectStatus::SeeOther => 303,
            RedirectStatus::Temporary => 307,
            RedirectStatus::Permanent => 308,
        }
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = String;

    fn try_from(status: u16) -> Result<Self, String> {
        use RedirectStatus::{Found, MovedPermanently, Permanent, SeeOther, Temporary};
        [MovedPermanently, Found, SeeOther, Temporary, Permanent]
            .into_iter()
            .find(|known| known.as_u16() == status)
            .ok_or_else(|| format!("{status} is no redirect: use 301, 302, 303, 307 or 308"))
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> u16 {
        status.as_u16()
    }
}

/// Whether redirects from `start` end within [`MAX_HOPS`].
fn arrives(rules: &[Redirect], start: &str) -> bool {
    let mut path = start.to_owned();
    for _ in 0..MAX_HOPS {
        let Some(next) = rules.iter().find_map(|rule| rule.apply(&path)) else { return true };
        if !next.starts_with('/') {
            return true;
        }
        path = next.split(['?', '#']).next().unwrap_or_default().to_owned();
    }
    false
}

/// A path or pattern that begins with a slash and fits on a request line.
fn check_path_text(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} does not begin with a slash"));
    }
    check_text(text)
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("it is longer than {MAX_TEXT} bytes"));
    }
    match text.chars().find(|c| c.is_control() || *c == '\\' || *c == ' ') {
        Some(c) => Err(format!("{c:?} is not allowed in it")),
        None => Ok(()),
    }
}

fn check_target(to: &str, splat: bool) -> Result<(), String> {
    check_text(to)?;
    if !to.is_ascii() {
        return Err(format!("{to:?} is not ASCII: percent-encode the rest"));
    }
    let url = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    let (host, _) = match url {
        Some(url) => url.split_once('/').unwrap_or((url, "")),
        None if to.starts_with('/') && !to.starts_with("//") => ("app", to),
        None => return Err(format!("{to:?} is neither a path that begins with one slash nor an http(s) URL")),
    };
    let host_is_plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    if host.is_empty() || !host_is_plain || host.contains(":splat") {
        return Err(format!("{to:?} does not name a plain host"));
    }
    if to.contains(":splat") && !splat {
        return Err(":splat needs a `from` that ends in /*".into());
    }
    Ok(())
}

/// Whether `path` matches `pattern`, where `*` stands for any bytes. Remembers the last star only, so the
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
#[path = "rules_tests.rs"]
mod tests;
