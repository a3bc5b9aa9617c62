//! Secrets that a sandbox uses and never has: it has a text in their place, which becomes the secret on its way to the hosts
//! that the secret is for, and to no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_NOPAD;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, IF_RANGE, RANGE, UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use kernel::{Code, Error, Result, Secret};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::mask::Mask;
use super::policy::{Pattern, Policy, Target};

/// How long a secret is at least: a shorter one could not be told from other text where an answer repeats it.
const SHORTEST: usize = 8;
/// And at most, which a head has to hold.
const LONGEST: usize = 8 << 10;

/// A secret and the hosts that it is for.
#[derive(Debug, Clone)]
pub struct Bound {
    placeholder: String,
    value: Secret,
    hosts: Vec<Pattern>,
    places: Places,
}

/// Where in a request a secret takes its text's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// In the values of header fields, and in the name and password of Basic (RFC 7617).
    Headers,
    /// There and in the query of the address.
    HeadersAndQuery,
}

/// Why a secret cannot be one for the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbindable {
    /// The value is too short, too long, or more than a header field holds.
    #[error("the value of the secret {0:?} is not {SHORTEST} to {LONGEST} visible ASCII characters")]
    Value(String),
    /// The text in its place could be found by accident.
    #[error(
        "the placeholder of the secret {0:?} is not 16 to 200 letters, digits, dots, hyphens or underscores"
    )]
    Placeholder(String),
    /// It is for no host, or for all.
    #[error("the secret {0:?} is for no host, or for every host")]
    Hosts(String),
}

impl From<Unbindable> for Error {
    fn from(error: Unbindable) -> Self {
        let message = error.to_string();
        match error {
            Unbindable::Value(_) | Unbindable::Placeholder(_) => Self::new(Code::InvalidInput, message),
            Unbindable::Hosts(_) => Self::new(Code::InvalidInput, message)
                .hint("name the hosts that get the secret, as in registry.example.com"),
        }
    }
}

/// A new text for the place of the secret `name`, as no other.
///
/// # Errors
/// `internal` where there is no randomness.
pub fn placeholder(name: &str) -> Result<String> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
    Ok(format!("secret_{name}_{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
}

impl Bound {
    /// Binds the secret `name` to `hosts`; a host without a port is bound at port 443. What the sandbox has of it is
    /// `placeholder`.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(
        name: &str,
        placeholder: impl Into<String>,
        value: Secret,
        hosts: Vec<Pattern>,
        places: Places,
    ) -> Result<Self, Unbindable> {
        let placeholder = placeholder.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(16..=200).contains(&placeholder.len()) || !placeholder.bytes().all(plain) {
            return Err(Unbindable::Placeholder(name.to_owned()));
        }
        let text = value.expose();
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(SHORTEST..=LONGEST).contains(&text.len()) || text.contains(&placeholder) {
            return Err(Unbindable::Value(name.to_owned()));
        }
        if hosts.is_empty() || hosts.iter().any(Pattern::is_any) {
            return Err(Unbindable::Hosts(name.to_owned()));
        }
        Ok(Self { placeholder, value, hosts, places })
    }

    /// Whether the secret is for the place. It never goes to port 80, where everybody can read it.
    fn is_for(&self, target: &Target) -> bool {
        target.port() != 80 && self.hosts.iter().any(|pattern| pattern.matches(target))
    }
}

/// The secrets that are for one place.
pub(super) struct Swap<'a>(Vec<&'a Bound>);

impl<'a> Swap<'a> {
    /// Those of `policy` for `target`; none where there are none.
    pub(super) fn of(policy: &'a Policy, target: &Target) -> Option<Self> {
        let bound: Vec<_> = policy.secrets.iter().filter(|bound| bound.is_for(target)).collect();
        (!bound.is_empty()).then_some(Self(bound))
    }

    /// Puts the secrets into a request. What comes back of them in the answer is what the mask finds.
    pub(super) fn into_request(self, parts: &mut Parts) -> Mask {
        let mut found: Vec<Vec<u8>> = self.0.iter().map(|bound| bound.value.expose().into()).collect();
        let mut swapped = false;
        // They say where the message goes and ends.
        let framing: [HeaderName; 3] = [HOST, CONTENT_LENGTH, UPGRADE];
        for (name, value) in &mut parts.headers {
            if framing.contains(name) {
                continue;
            }
            let put = match (name == AUTHORIZATION).then(|| basic(value)).flatten() {
                Some(pair) => self.put(&pair, Bound::in_headers).map(|pair| {
                    let coded = STANDARD.encode(pair);
                    found.push(coded.clone().into_bytes());
                    format!("Basic {coded}").into_bytes()
                }),
                None => self.put(value.as_bytes(), Bound::in_headers),
            };
            if let Some(mut put) = put.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
                put.set_sensitive(true);
                *value = put;
                swapped = true;
            }
        }
        if let Some(query) = parts.uri.query()
            && let Some(put) = self.put(query.as_bytes(), Bound::in_query)
            && let Some(address) = with_query(parts.uri.path(), &put)
        {
            found.extend(self.0.iter().filter_map(|bound| bound.in_query()));
            parts.uri = address;
            swapped = true;
        }
        // What is coded cannot be looked through, and what comes in parts hides what is across them.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if swapped {
            parts.headers.remove(RANGE);
            parts.headers.remove(IF_RANGE);
        }
        Mask::of(found)
    }

    /// The text with each secret in its place; none where there is no place for one.
    fn put(&self, text: &[u8], form: impl Fn(&Bound) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut put: Option<Vec<u8>> = None;
        for bound in &self.0 {
            let now = put.as_deref().unwrap_or(text);
            let Some(value) = form(bound) else { continue };
            put = replaced(now, bound.placeholder.as_bytes(), &value).or(put);
        }
        put
    }
}

impl Bound {
    fn in_headers(&self) -> Option<Vec<u8>> {
        Some(self.value.expose().into())
    }

    fn in_query(&self) -> Option<Vec<u8>> {
        let coded = || utf8_percent_encode(self.value.expose(), NON_ALPHANUMERIC).to_string().into_bytes();
        (self.places == Places::HeadersAndQuery).then(coded)
    }
}

/// The name and password of Basic.
fn basic(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, coded) = value.as_bytes().split_at_checked(6)?;
    let coded = scheme.eq_ignore_ascii_case(b"basic ").then(|| coded.trim_ascii())?;
    STANDARD.decode(coded).ok()
}

/// The text with every `from` as `to`; none where there is none.
fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let mut places = memchr::memmem::find_iter(text, from).peekable();
    places.peek()?;
    let (mut all, mut end) = (Vec::new(), 0);
    for at in places {
        all.extend_from_slice(&text[end..at]);
        all.extend_from_slice(to);
        end = at + from.len();
    }
    all.extend_from_slice(&text[end..]);
    Some(all)
}

fn with_query(path: &str, query: &[u8]) -> Option<Uri> {
    let query = std::str::from_utf8(query).ok()?;
    PathAndQuery::try_from(format!("{path}?{query}")).ok().map(Uri::from)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const NPM: &str = "secret_npm_aaaaaaaaaaaaaaaa";
    const GIT: &str = "secret_git_bbbbbbbbbbbbbbbb";

    fn bound(placeholder: &str, value: &str, places: Places) -> Bound {
        let hosts = vec!["a.test".parse().unwrap(), "*.b.test:8443".parse().unwrap()];
        Bound::new("x", placeholder, Secret::new(value), hosts, places).unwrap()
    }

    fn policy() -> Policy {
        let secrets = vec![
            bound(NPM, "npm/real+value=1", Places::Headers),
            bound(GIT, "git&real value%2"[..15].replace(' ', "-").as_str(), Places::HeadersAndQuery),
        ];
        Policy { secrets, ..Policy::default() }
    }

    fn sent(path: &str, headers: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let policy = policy();
        let swap = Swap::of(&policy, &"a.test:443".parse().unwrap()).unwrap();
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        swap.into_request(&mut parts);
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        (
            parts.uri.to_string(),
            parts.headers.iter().map(shown).filter(|(name, _)| name != "accept-encoding").collect(),
        )
    }

    #[test]
    fn a_text_becomes_its_secret_in_header_values_and_basic() {
        let one = |value: &str| sent("/", &[("authorization", value)]).1[0].1.clone();
        assert_eq!(one(&format!("Bearer {NPM}")), "Bearer npm/real+value=1");
        assert_eq!(one(&format!("x{NPM}y{GIT}{NPM}")), "xnpm/real+value=1ygit&real-value%npm/real+value=1");
        let basic = one(&format!("bAsic  {}", STANDARD.encode(format!("{GIT}:{NPM}"))));
        let pair = STANDARD.decode(basic.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(pair, b"git&real-value%:npm/real+value=1");
        for untouched in
            ["Bearer other", "Basic !!!", "Basic", &format!("Bearer {}", &NPM[1..]), &NPM.to_uppercase()]
        {
            assert_eq!(one(untouched), untouched);
        }
        assert_eq!(sent("/", &[("host", NPM), ("x-api-key", NPM)]).1[0].1, NPM);
    }

    #[test]
    fn a_query_gets_the_secrets_that_are_for_queries() {
        assert_eq!(
            sent(&format!("/{GIT}?a={GIT}&b={NPM}"), &[]).0,
            format!("/{GIT}?a=git%26real%2Dvalue%25&b={NPM}")
        );
    }

    #[test]
    fn an_answer_comes_whole_and_plain_to_whoever_sent_a_secret() {
        let headers = [("range", "bytes=0-1"), ("if-range", "x"), ("accept", "*/*")];
        let with = [&headers[..], &[("x-key", NPM)]].concat();
        assert_eq!(sent("/", &headers).1.len(), 3);
        let mut kept: Vec<String> = sent("/", &with).1.into_iter().map(|(name, _)| name).collect();
        kept.sort();
        assert_eq!(kept, ["accept", "x-key"]);
    }

    #[test]
    fn a_secret_is_for_its_hosts_at_ports_with_tls_alone() {
        let policy = policy();
        for (target, expected) in [
            ("a.test:443", true),
            ("x.b.test:8443", true),
            ("a.test:80", false),
            ("a.test:8443", false),
            ("b.test:8443", false),
            ("c.test:443", false),
        ] {
            assert_eq!(Swap::of(&policy, &target.parse().unwrap()).is_some(), expected, "{target}");
        }
    }

    #[test]
    fn what_would_leak_or_break_is_not_bound() {
        let host = || vec!["a.test".parse().unwrap()];
        let bind = |placeholder: &str, value: &str, hosts| {
            Bound::new("n", placeholder, Secret::new(value), hosts, Places::Headers).map(drop)
        };
        assert_eq!(bind(NPM, "a-real-value", host()), Ok(()));
        for value in [
            "short",
            "a real value",
            "a\r\nb: injected",
            "naïve-value",
            &"x".repeat(8_193),
            &format!("x{NPM}"),
        ] {
            assert_eq!(bind(NPM, value, host()), Err(Unbindable::Value("n".to_owned())));
        }
        for text in ["short", "with space with space", "a/b/c/d/e/f/g/h/i", &"x".repeat(201)] {
            assert_eq!(bind(text, "a-real-value", host()), Err(Unbindable::Placeholder("n".to_owned())));
        }
        for hosts in
            [vec![], vec!["*".parse().unwrap()], vec!["a.test".parse().unwrap(), "*:8443".parse().unwrap()]]
        {
            assert_eq!(bind(NPM, "a-real-value", hosts), Err(Unbindable::Hosts("n".to_owned())));
        }
        assert!(!format!("{:?}", policy()).contains("real"));
        let (one, two) = (placeholder("NPM-TOKEN").unwrap(), placeholder("NPM-TOKEN").unwrap());
        assert!(one.starts_with("secret_NPMTOKEN_") && one != two);
        assert_eq!(bind(&one, "a-real-value", host()), Ok(()));
    }
}
