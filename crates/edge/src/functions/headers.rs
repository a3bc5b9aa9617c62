//! What of a message's header goes from whoever asks to a function, and back.

use std::net::IpAddr;

use capabilities::auth::is_of_a_way;
use http::header::{
    ALT_SVC, AUTHORIZATION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
};
use http::{HeaderMap, HeaderValue};
use sandbox::preview::{PLATFORM_COOKIES, holds_a_key, strip_cookies};
use sandbox::relay;

/// What names of headers begin with that are between the platform and whoever asks.
const OURS: &str = "steading-";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a function is told of the way that a request has come.
pub(super) struct Way<'a> {
    /// The app's address, without a slash at its end.
    pub base: &'a str,
    /// What stands before the path that the function sees.
    pub prefix: Option<String>,
    /// Who asks.
    pub address: Option<IpAddr>,
    /// Whether the request's `Authorization` is the function's to see.
    pub shows_authorization: bool,
}

/// Makes a request's header the function's. Returns the protocol that is asked for instead of HTTP, where one is.
pub(super) fn to_function(headers: &mut HeaderMap, way: &Way<'_>) -> Option<HeaderValue> {
    let protocol = relay::end_to_end(headers);
    let told_by_others: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            // Many programs take both signs for one.
            let name = name.as_str().replace('_', "-");
            name.starts_with(OURS) || name.starts_with("x-forwarded-") || name == "x-real-ip"
        })
        .cloned()
        .collect();
    for name in told_by_others.iter().chain([&FORWARDED]) {
        headers.remove(name);
    }
    if !way.shows_authorization {
        headers.remove(AUTHORIZATION);
    }
    if headers.get_all(&X_API_KEY).iter().any(holds_a_key) {
        headers.remove(&X_API_KEY);
    }
    strip_cookies(headers, is_platforms);
    let (scheme, host) = way.base.split_once("://").unwrap_or(("http", way.base));
    let address = way.address.map(|address| address.to_canonical().to_string());
    let told = [
        (HOST, Some(host)),
        (X_FORWARDED_HOST, Some(host)),
        (X_FORWARDED_PROTO, Some(scheme)),
        (X_FORWARDED_FOR, address.as_deref()),
        (X_FORWARDED_PREFIX, way.prefix.as_deref()),
    ];
    for (name, value) in told {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    protocol
}

/// Makes the header of a function's answer the one of whoever has asked: nothing in it is the platform's word, or reaches
/// beyond the app's host.
pub(super) fn to_asker(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let protocol = relay::end_to_end(headers);
    // Which pages may read it is judged before the function is asked.
    let ours =
        |name: &&HeaderName| name.as_str().starts_with(OURS) || name.as_str().starts_with("access-control-");
    let ours: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    // How the host is reached is the platform's to say; the last one would empty the cookies of the whole domain that the
    // host is below (Clear Site Data §3.1).
    let others = [STRICT_TRANSPORT_SECURITY, ALT_SVC, HeaderName::from_static("clear-site-data")];
    for name in ours.iter().chain(&others) {
        headers.remove(name);
    }
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter_map(confined).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    protocol
}

/// What a function cannot choose when it asks the platform: who it is, and the way by which it comes.
pub(super) fn from_function(headers: &mut HeaderMap) {
    relay::end_to_end(headers);
    let said: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str().replace('_', "-");
            ["x-forwarded-", "sec-", OURS].iter().any(|begin| name.starts_with(begin))
                || [
                    "authorization",
                    "cookie",
                    "forwarded",
                    "host",
                    "origin",
                    "referer",
                    "x-api-key",
                    "x-real-ip",
                ]
                .contains(&name.as_str())
        })
        .cloned()
        .collect();
    for name in said {
        headers.remove(name);
    }
}

/// Takes out what says how long a body is that is not sent.
pub(super) fn without_body(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
}

/// Whether a cookie has one of the platform's names. Browsers compare the prefix without case (RFC 6265bis §4.1.3).
fn is_platforms(pair: &[u8]) -> bool {
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    let is_ours =
        |own: &str| name.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own.as_bytes()));
    is_ours(PLATFORM_COOKIES) || is_ours(OURS) || std::str::from_utf8(name).is_ok_and(is_of_a_way)
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
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn shown(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut shown: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        shown.sort_unstable();
        shown
    }

    #[test]
    fn a_function_is_told_of_the_way_by_the_platform_alone() {
        let mut given = headers(&[
            ("steading-fn-caller", "{}"),
            ("steading-key", "pk_x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.test"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("host", "evil.test"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("authorization", "Bearer token"),
            ("x-api-key", "stead_key_x"),
            ("cookie", "a=1; __Host-stead=x; __Host-oauth-0123456789abcdef=y; oauth-x=2; steading-preview=z"),
            ("accept", "*/*"),
        ]);
        let way = Way {
            base: "https://shop.test",
            prefix: Some("/_/fn/hello".to_owned()),
            address: Some("::ffff:192.0.2.7".parse().unwrap()),
            shows_authorization: false,
        };
        assert_eq!(to_function(&mut given, &way), None);
        let expected = [
            ("accept", "*/*"),
            ("cookie", "a=1; oauth-x=2"),
            ("host", "shop.test"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.test"),
            ("x-forwarded-prefix", "/_/fn/hello"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(shown(&given), expected);
    }

    #[test]
    fn no_answer_speaks_for_the_platform_or_reaches_beyond_its_host() {
        let mut given = headers(&[
            ("steading-fn-outcome", "threw"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("strict-transport-security", "max-age=1"),
            ("clear-site-data", "\"cookies\""),
            ("set-cookie", "a=1; Domain=apps.test; HttpOnly"),
            ("set-cookie", "__Host-stead=x; Path=/"),
            ("set-cookie", "=__host-oauth-0123456789abcdef=x"),
            ("transfer-encoding", "chunked"),
            ("x-own", "1"),
        ]);
        assert_eq!(to_asker(&mut given), None);
        assert_eq!(shown(&given), [("set-cookie", "a=1; HttpOnly"), ("x-own", "1")]);
    }

    #[test]
    fn no_function_chooses_who_it_is() {
        let mut given = headers(&[
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("steading-key", "pk_x"),
            ("steading-fn-rights", "caller"),
            ("x-forwarded-for", "10.0.0.1"),
            ("host", "other.test"),
            ("origin", "https://other.test"),
            ("sec-fetch-site", "same-origin"),
            ("if-match", "\"1\""),
        ]);
        from_function(&mut given);
        assert_eq!(shown(&given), [("if-match", "\"1\"")]);
    }
}
