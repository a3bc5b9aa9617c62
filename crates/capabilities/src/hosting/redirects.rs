//! Redirects: read from a manifest, checked once each and all together, matched on every request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Error, Result, SitePath};

/// A redirect, as a manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectSpec {
    /// A path; a segment :name stands for any one segment, /* at the end for everything below.
    pub from: String,
    /// A path or an http(s) URL; :name and :splat (what * matched) are filled in.
    pub to: String,
    /// 301, 302 (default), 303, 307 or 308.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
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

/// How many redirects a site may have, and how long a pattern or a target is at most, in bytes.
const MAX_REDIRECTS: usize = 1_000;
const MAX_TEXT: usize = 2_000;
/// How many redirects in a row a visitor may meet before it counts as a loop; browsers give up at 20.
const MAX_HOPS: usize = 10;

impl Redirect {
    /// Checks the redirects of a site, each alone and all together: a visitor must arrive somewhere.
    pub(super) fn parse_all(specs: Vec<RedirectSpec>) -> Result<Vec<Redirect>> {
        if specs.len() > MAX_REDIRECTS {
            let why = format!("there are {} redirects; the limit is {MAX_REDIRECTS}", specs.len());
            return Err(Error::Redirect { at: "/redirects".into(), why });
        }
        let rules = specs
            .into_iter()
            .enumerate()
            .map(|(at, spec)| Self::parse(at, spec))
            .collect::<Result<Vec<_>>>()?;
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

    /// As a manifest has it.
    pub(super) fn spec(&self) -> RedirectSpec {
        RedirectSpec { from: self.from.clone(), to: self.to.clone(), status: Some(self.status.into()) }
    }

    fn parse(index: usize, spec: RedirectSpec) -> Result<Self> {
        let refuse = |field: &str, why: String| {
            Err(Error::Redirect { at: format!("/redirects/{index}/{field}"), why })
        };
        if let Err(why) = check_source(&spec.from) {
            return refuse("from", why);
        }
        if let Err(why) = check_target(&spec.to, &spec.from) {
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

    /// Where a request for the decoded `path` is sent, if the rule is for it. A slash at the end makes no
    /// difference.
    pub(super) fn apply(&self, path: &str) -> Option<String> {
        let mut rest = path.strip_prefix('/')?;
        rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut found: Vec<(&str, &str)> = Vec::new();
        let mut more = !rest.is_empty();
        for wanted in segments(&self.from) {
            if wanted == "*" {
                found.push(("splat", rest));
                more = false;
                break;
            }
            if !more {
                return None;
            }
            let (segment, below) = match rest.split_once('/') {
                Some((segment, below)) => (segment, below),
                None => {
                    more = false;
                    (rest, "")
                }
            };
            match wanted.strip_prefix(':') {
                Some(name) => found.push((name, segment)),
                None if wanted == segment => {}
                None => return None,
            }
            rest = below;
        }
        (!more).then(|| fill(&self.to, &found))
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
        let known = [MovedPermanently, Found, SeeOther, Temporary, Permanent];
        known.into_iter().find(|known| known.as_u16() == status).ok_or_else(|| match status {
            200 => "200 rewrites instead of redirecting: for a single-page app set `spa` to true".to_owned(),
            _ => format!("{status} is no redirect: use 301, 302, 303, 307 or 308"),
        })
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> u16 {
        status.as_u16()
    }
}

/// The segments of a pattern that begins with a slash; none for `/` alone.
fn segments(pattern: &str) -> impl Iterator<Item = &str> {
    let inner = pattern.trim_start_matches('/');
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    inner.split('/').filter(|segment| !segment.is_empty())
}

/// The names that a target may use: those of the `:name` segments, and `splat` for a star.
fn names(pattern: &str) -> impl Iterator<Item = &str> {
    segments(pattern).filter_map(|segment| match segment {
        "*" => Some("splat"),
        other => other.strip_prefix(':'),
    })
}

/// Splits `text` at its first `:name`: what is before, the name, what is after.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    let starts_name =
        |(at, _): &(usize, &str)| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let (colon, _) = text.match_indices(':').find(starts_name)?;
    let rest = &text[colon + 1..];
    let end = rest.find(|c: char| !is_name_char(c)).unwrap_or(rest.len());
    Some((&text[..colon], &rest[..end], &rest[end..]))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Puts what was found in the place of the names. What the visitor wrote is encoded, so it stays within its
/// path; nor does an empty splat before it make it a host, as in `/:splat/:name`.
fn fill(to: &str, found: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(to.len());
    let mut rest = to;
    while let Some((before, name, after)) = next_name(rest) {
        filled.push_str(before);
        match found.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => filled.push_str(&super::resolve::encode(value)),
            None => {
                filled.push(':');
                filled.push_str(name);
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    while filled.starts_with("//") {
        filled.remove(0);
    }
    filled
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

fn check_source(from: &str) -> Result<(), String> {
    check_text(from)?;
    if !from.starts_with('/') {
        return Err(format!("{from:?} does not begin with a slash"));
    }
    if from.len() > SitePath::MAX_BYTES || segments(from).nth(SitePath::MAX_LEVELS).is_some() {
        return Err(format!(
            "no path is longer than {} bytes or deeper than {} levels",
            SitePath::MAX_BYTES,
            SitePath::MAX_LEVELS
        ));
    }
    if from.contains('%') {
        return Err("paths are compared decoded: write it without percent-encoding".into());
    }
    if from.contains("//") {
        return Err(format!("{from:?} has an empty segment"));
    }
    if from.contains(['?', '#']) {
        return Err("a redirect is chosen by its path alone, without ? and #".into());
    }
    if from.strip_suffix("/*").unwrap_or(from).contains('*') {
        return Err("a * may only stand at the end, as /*".into());
    }
    let mut seen = Vec::new();
    for name in names(from) {
        if seen.contains(&name) || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!("{name:?} is not a name that stands for one segment"));
        }
        if !name.chars().all(is_name_char) {
            return Err(format!("the name {name:?} may have letters, digits and _ only"));
        }
        seen.push(name);
    }
    Ok(())
}

fn check_target(to: &str, from: &str) -> Result<(), String> {
    check_text(to)?;
    if to.contains(' ') || !to.is_ascii() {
        return Err(format!("{to:?} is not printable ASCII: percent-encode the rest"));
    }
    let url = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
    let path = match url {
        Some(url) => {
            let (host, path) = url.split_once('/').unwrap_or((url, ""));
            check_host(host)?;
            path
        }
        None if to.starts_with('/') && !to.starts_with("//") => to,
        None => {
            return Err(format!("{to:?} is neither a path that begins with one slash nor an http(s) URL"));
        }
    };
    let mut rest = path;
    while let Some((_, name, after)) = next_name(rest) {
        if !names(from).any(|known| known == name) {
            return Err(format!("nothing in `from` is called :{name}"));
        }
        rest = after;
    }
    Ok(())
}

/// A host with or without a port; nothing in it is filled in.
fn check_host(host: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(plain) || next_name(host).is_some() {
        return Err(format!("{host:?} is not a plain host"));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT {
        return Err(format!("it is longer than {MAX_TEXT} bytes"));
    }
    match text.chars().find(|c| c.is_control() || *c == '\\') {
        Some(c) => Err(format!("{c:?} is not allowed in it")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "redirects_tests.rs"]
mod tests;
