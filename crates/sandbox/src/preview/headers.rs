//! What of a message's header goes from a visitor to a server in a sandbox, and back.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ALT_SVC, AUTHORIZATION, COOKIE, FORWARDED, HOST, HeaderName, REFERER, REFERRER_POLICY, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::passes::{COOKIE_PLAIN, PASS, without_pass};
use super::{Scheme, Visitor};
use crate::relay;

/// What names of the platform's own cookies at a preview's host begin with; no server in a sandbox sees or sets them.
pub const PLATFORM_COOKIES: &str = "__Host-stead";

/// What the platform's keys begin with.
const PLATFORM_KEYS: &[u8] = b"stead_";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// Makes a visitor's header the server's. Returns the protocol that is asked for instead of HTTP, where one is, or
/// nothing where the request does not name one host.
pub(super) fn to_server(parts: &mut Parts, visitor: Visitor) -> Option<Option<HeaderValue>> {
    let headers = &mut parts.headers;
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next(), parts.uri.authority()) {
        (Some(host), None, _) => host.clone(),
        // HTTP/2 has it in the address (RFC 9113 §8.3.1).
        (None, None, Some(authority)) => HeaderValue::from_str(authority.as_str()).ok()?,
        _ => return None,
    };
    let protocol = relay::end_to_end(headers);
    let told_by_others: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-forwarded-") || name == "x-real-ip"
        })
        .cloned()
        .collect();
    for name in told_by_others.iter().chain([&FORWARDED, &PASS]) {
        headers.remove(name);
    }
    for name in [AUTHORIZATION, X_API_KEY] {
        if headers.get_all(&name).iter().any(holds_a_key) {
            headers.remove(name);
        }
    }
    strip_cookies(headers, is_platforms);
    if let Some(referer) = headers.remove(REFERER)
        && let Some(referer) = referer.to_str().ok().map(without_pass)
        && let Ok(referer) = HeaderValue::from_str(&referer)
    {
        headers.insert(REFERER, referer);
    }
    let address: IpAddr = visitor.address.to_canonical();
    if let Ok(address) = HeaderValue::from_str(&address.to_string()) {
        headers.insert(X_FORWARDED_FOR, address);
    }
    let scheme = match visitor.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(HOST, host);
    Some(protocol)
}

/// Makes a server's header the visitor's: nothing in it reaches beyond this host.
pub(super) fn to_visitor(headers: &mut HeaderMap) {
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter_map(confined).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    // How this host is reached, and at which other places it is, is the platform's to say.
    headers.remove(STRICT_TRANSPORT_SECURITY);
    headers.remove(ALT_SVC);
    // It would empty the cookies of the whole domain that this host is below (Clear Site Data §3.1).
    headers.remove("clear-site-data");
    // Who knows the host can see the preview; nobody else is to learn it from a link or a picture.
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
}

/// Whether a credential is the platform's, as it is or in the name and password of Basic (RFC 7617).
#[must_use]
pub fn holds_a_key(value: &HeaderValue) -> bool {
    let has = |bytes: &[u8]| bytes.windows(PLATFORM_KEYS.len()).any(|part| part == PLATFORM_KEYS);
    let value = value.as_bytes();
    let basic = value.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case(b"basic ")).is_some();
    has(value) || basic && STANDARD.decode(value[6..].trim_ascii()).is_ok_and(|decoded| has(&decoded))
}

/// Takes out the cookies that `is_platforms` knows, each a pair of name and value, and leaves the others in one line.
pub fn strip_cookies(headers: &mut HeaderMap, is_platforms: impl Fn(&[u8]) -> bool) {
    let others: Vec<Vec<u8>> = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_platforms(pair))
        .map(<[u8]>::to_vec)
        .collect();
    headers.remove(COOKIE);
    if let Some(line) = Some(others.join(&b"; "[..])).filter(|line| !line.is_empty())
        && let Ok(line) = HeaderValue::from_bytes(&line)
    {
        headers.insert(COOKIE, line);
    }
}

/// Whether a cookie has one of the platform's names. Browsers compare the prefix without case (RFC 6265bis §4.1.3).
fn is_platforms(pair: &[u8]) -> bool {
    [PLATFORM_COOKIES, COOKIE_PLAIN]
        .iter()
        .any(|own| pair.get(..own.len()).is_some_and(|name| name.eq_ignore_ascii_case(own.as_bytes())))
}

/// The cookie without its domain, so that it is this host's alone; none where the name is the platform's.
fn confined(cookie: &HeaderValue) -> Option<HeaderValue> {
    let mut parts = cookie.as_bytes().split(|byte| *byte == b';');
    let pair = parts.next()?.trim_ascii();
    // Without a name the value is looked at as if it were one, as browsers do.
    if is_platforms(pair.strip_prefix(b"=").unwrap_or(pair).trim_ascii()) {
        return None;
    }
    let kept = parts.filter(|attribute| {
        let name = attribute.split(|byte| *byte == b'=').next().unwrap_or_default();
        !name.trim_ascii().eq_ignore_ascii_case(b"domain")
    });
    let confined: Vec<&[u8]> = std::iter::once(pair).chain(kept).collect();
    HeaderValue::from_bytes(&confined.join(&b";"[..])).ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn sent(headers: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        let mut request = Request::get("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let visitor = Visitor { address: "::ffff:192.0.2.7".parse().unwrap(), scheme: Scheme::Https };
        to_server(&mut parts, visitor)?;
        let mut sent: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        sent.sort();
        Some(sent)
    }

    /// What is sent beside what is always.
    fn check(headers: &[(&str, &str)], expected: &[(&str, &str)]) {
        let always = [
            ("host", "5173-x.preview.test"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "5173-x.preview.test"),
            ("x-forwarded-proto", "https"),
        ];
        let all: Vec<_> = headers.iter().chain([&always[0]]).copied().collect();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut expected: Vec<_> = expected.iter().chain(&always).map(own).collect();
        expected.sort();
        assert_eq!(sent(&all), Some(expected));
    }

    #[test]
    fn the_server_is_told_of_the_visitor_by_the_platform_alone() {
        check(
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-host", "evil.test"),
                ("x-forwarded-port", "1"),
                ("x-real-ip", "10.0.0.1"),
                ("forwarded", "for=10.0.0.1"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("accept", "*/*"),
            ],
            &[("accept", "*/*")],
        );
        check(&[("connection", "host")], &[]);
        assert_eq!(sent(&[("host", "a.test"), ("host", "b.test")]), None);
        assert_eq!(sent(&[]), None);
    }

    #[test]
    fn what_is_the_platforms_does_not_arrive() {
        check(
            &[
                ("cookie", "a=1; __Host-stead_preview=x; b=2"),
                ("cookie", "__host-STEADING=y;c;steading-preview=z"),
                ("cookie", " STEADING-PREVIEW =z"),
            ],
            &[("cookie", "a=1; b=2; c")],
        );
        check(&[("steading-preview", "x"), ("Steading-Preview", "y")], &[]);
        check(
            &[("referer", "http://x.test/a?b=1&steading-preview=x")],
            &[("referer", "http://x.test/a?b=1")],
        );
        check(&[("referer", "http://x.test/?steading%2dpreview=x")], &[("referer", "http://x.test/")]);
        check(&[("cookie", "__Host-stead=x")], &[]);
        check(&[("authorization", "Bearer stead_key_x"), ("x-api-key", "stead_op_x")], &[]);
        let key = STANDARD.encode("x:stead_key_y");
        check(&[("authorization", &format!("basic {key}"))], &[]);
        let own = [("authorization", "Bearer app"), ("cookie", "__Host-session=x"), ("x-api-key", "app")];
        check(&own, &own);
    }

    #[test]
    fn nothing_reaches_beyond_the_host() {
        let mut headers = HeaderMap::new();
        for cookie in [
            "a=1; Path=/; Domain=preview.test; HttpOnly",
            "b=2;DOMAIN = .preview.test",
            "c=3; domain",
            "d=domain=x",
            "__Host-stead_preview=x; Secure; Path=/",
            "=__Host-stead_preview=x",
            "steading-preview=x; Path=/",
            " = Steading-Preview=x",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=1; includeSubDomains"));
        headers.insert(ALT_SVC, HeaderValue::from_static("h3=\":443\""));
        to_visitor(&mut headers);
        let cookies: Vec<_> =
            headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(cookies, ["a=1; Path=/; HttpOnly", "b=2", "c=3", "d=domain=x"]);
        headers.remove(SET_COOKIE);
        let mut rest: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        rest.sort_unstable();
        assert_eq!(rest, [("referrer-policy", "same-origin"), ("x-robots-tag", "noindex")]);
    }
}
