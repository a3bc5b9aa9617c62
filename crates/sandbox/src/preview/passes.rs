//! What lets a visitor in where a port is not shown to everybody: the pass in a link, and the cookie that it becomes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use http::header::{ACCEPT, COOKIE, HOST, HeaderName, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use kernel::{SandboxId, Timestamp};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

use super::Scheme;
use super::labels::{Labels, id};

/// The header that programs send a pass in.
pub(super) const PASS: HeaderName = HeaderName::from_static(NAME);

/// The cookie where browsers hold it to this host alone and to HTTPS, or to a name of this machine (RFC 6265bis §4.1.3.2).
pub(super) const COOKIE_HERE: &str = "__Host-steading-preview";

/// The cookie of visitors without HTTPS, whose browser may not take the other one.
pub(super) const COOKIE_PLAIN: &str = NAME;

/// What a pass is called in a link.
const NAME: &str = "steading-preview";

/// How long a link is good to be opened.
const LINK: Duration = Duration::from_secs(24 * 3_600);
/// How long whoever has opened it may come back.
const STAY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Proofs end with an hour: who asks twice gets the same link.
const HOUR: i64 = 3_600;
/// The bytes of a proof: nobody guesses 128 bits.
const PROOF: usize = 16;
/// What proofs are of. No label's begins like these.
const OF_PASS: &[u8] = b"a pass to a preview";
const OF_COOKIE: &[u8] = b"the cookie of a preview";

/// What lets a visitor see a preview that is not public, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A pass, which is good until then.
    Pass(Timestamp),
    /// The cookie that came of one, which is good until then.
    Cookie(Timestamp),
    /// Their browser has the cookie, and another origin's page makes it ask.
    Anothers,
    /// Nothing.
    Stranger,
}

impl Labels {
    /// A pass to a port of a sandbox, good for a day.
    #[must_use]
    pub fn pass(&self, sandbox: SandboxId, port: u16, now: Timestamp) -> String {
        self.made(OF_PASS, sandbox, port, now.plus(LINK))
    }

    /// What follows the address of a preview in a link with that pass.
    #[must_use]
    pub fn query(pass: &str) -> String {
        format!("/?{NAME}={pass}")
    }

    /// What `asked` has that lets it see a port of a sandbox.
    #[must_use]
    pub fn entry(&self, sandbox: SandboxId, port: u16, asked: &Parts, now: Timestamp) -> Entry {
        let is_good = |what, text: &[u8]| self.until(what, sandbox, port, text).filter(|until| *until > now);
        let sent = asked.headers.get_all(PASS).iter().map(|value| value.as_bytes().to_vec());
        let (named, _) = split(asked.uri.query().unwrap_or_default());
        let passes = sent.chain(named).filter_map(|pass| is_good(OF_PASS, &pass));
        if let Some(until) = passes.max() {
            return Entry::Pass(until);
        }
        match cookies(&asked.headers).filter_map(|cookie| is_good(OF_COOKIE, cookie)).max() {
            Some(until) if is_own(asked) => Entry::Cookie(until),
            Some(_) => Entry::Anothers,
            None => Entry::Stranger,
        }
    }

    /// The cookies that a visitor gets who has opened a link.
    #[must_use]
    pub fn cookies(&self, sandbox: SandboxId, port: u16, scheme: Scheme, now: Timestamp) -> Vec<HeaderValue> {
        let value = self.made(OF_COOKIE, sandbox, port, now.plus(STAY));
        let age = STAY.as_secs();
        // A page that shows it in a frame is of another site. Each of those has one of its own.
        let here = format!(
            "{COOKIE_HERE}={value}; Path=/; Max-Age={age}; HttpOnly; Secure; SameSite=None; Partitioned"
        );
        let plain = format!("{COOKIE_PLAIN}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax");
        let all = match scheme {
            Scheme::Https => vec![here],
            Scheme::Http => vec![here, plain],
        };
        all.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()).collect()
    }

    fn made(&self, what: &[u8], sandbox: SandboxId, port: u16, until: Timestamp) -> String {
        let hours = u32::try_from(until.as_secs().div_euclid(HOUR) + 1).unwrap_or_default().to_be_bytes();
        let proof = self.proof(what, sandbox, port, &hours).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&hours[..], &proof[..PROOF]].concat())
    }

    /// When what was made for this port of this sandbox ends.
    fn until(&self, what: &[u8], sandbox: SandboxId, port: u16, text: &[u8]) -> Option<Timestamp> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (hours, proof) = bytes.split_first_chunk::<4>().filter(|(_, proof)| proof.len() == PROOF)?;
        self.proof(what, sandbox, port, hours).verify_truncated_left(proof).ok()?;
        Some(Timestamp::from_micros(i64::from(u32::from_be_bytes(*hours)) * HOUR * 1_000_000))
    }

    fn proof(&self, what: &[u8], sandbox: SandboxId, port: u16, hours: &[u8; 4]) -> Hmac<Sha256> {
        self.key()
            .chain_update(what)
            .chain_update(id(sandbox))
            .chain_update(port.to_be_bytes())
            .chain_update(hours)
    }
}

/// Where a browser that has opened a link goes on, which is the same address without its pass; none where it has not.
#[must_use]
pub fn onwards(asked: &Parts) -> Option<String> {
    let has_pass = !split(asked.uri.query().unwrap_or_default()).0.is_empty();
    if !has_pass || !reads_pages(&asked.method, &asked.headers) || asked.headers.contains_key(UPGRADE) {
        return None;
    }
    let rest = without_pass(asked.uri.path_and_query()?.as_str());
    let rest = rest.strip_prefix('/').unwrap_or(&rest);
    // Two slashes would begin another host's name (RFC 3986 §4.2), and browsers read a backslash as one.
    Some(if rest.starts_with(['/', '\\']) { format!("/./{rest}") } else { format!("/{rest}") })
}

/// An address, or what there is of one, without the passes in its query.
pub(super) fn without_pass(address: &str) -> String {
    let Some((path, query)) = address.split_once('?') else { return address.to_owned() };
    match split(query) {
        (passes, _) if passes.is_empty() => address.to_owned(),
        (_, rest) if rest.is_empty() => path.to_owned(),
        (_, rest) => format!("{path}?{rest}"),
    }
}

/// Whether a page is what is asked for, as browsers do for whoever goes there.
pub(super) fn reads_pages(method: &Method, headers: &HeaderMap) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let is_html = |accept: &HeaderValue| {
        accept.to_str().is_ok_and(|accept| accept.to_ascii_lowercase().contains("text/html"))
    };
    reads && headers.get_all(ACCEPT).iter().any(is_html)
}

/// The passes in a query, and the rest of it.
fn split(query: &str) -> (Vec<Vec<u8>>, String) {
    let (mut passes, mut rest) = (Vec::new(), Vec::new());
    for part in query.split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if percent_decode_str(name).eq(NAME.bytes()) {
            passes.push(percent_decode_str(value).collect());
        } else {
            rest.push(part);
        }
    }
    (passes, rest.join("&"))
}

/// The values of this host's own cookies.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(|pair| {
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        [COOKIE_HERE, COOKIE_PLAIN].iter().any(|own| own.as_bytes() == name).then_some(&value[1..])
    })
}

/// Whether a browser asks for this host's own pages, or for whoever goes there, and not for what another origin's page has
/// in it: that would use the cookie as its own. Browsers tell by Fetch Metadata, and older ones, without HTTPS, and for
/// WebSockets by the `Origin`.
fn is_own(asked: &Parts) -> bool {
    let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let goes_there = header("sec-fetch-mode") == Some("navigate")
        && matches!(header("sec-fetch-dest"), Some("document" | "iframe" | "frame"))
        && matches!(asked.method, Method::GET | Method::HEAD)
        && !asked.headers.contains_key(UPGRADE);
    match header("sec-fetch-site") {
        Some("same-origin" | "none") => true,
        Some(_) => goes_there,
        None => {
            let host =
                asked.uri.authority().map(|authority| authority.as_str()).or_else(|| header(HOST.as_str()));
            let is_host = |origin: &HeaderValue| {
                let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
                matches!((authority, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
            };
            asked.headers.get_all(ORIGIN).iter().all(is_host)
        }
    }
}

#[cfg(test)]
#[path = "passes_tests.rs"]
mod tests;
