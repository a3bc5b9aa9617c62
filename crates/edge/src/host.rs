//! Whose host a request is for: the platform's, an app's, a release's preview, or perhaps a domain of an app's own.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Uri};
use kernel::Slug;

/// What a host stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKind {
    /// The platform itself.
    Platform,
    /// The live app of an environment.
    App(Slug),
    /// One release of an environment's app.
    Preview {
        /// The environment.
        slug: Slug,
        /// The release's number.
        release: u64,
    },
    /// A server in a sandbox, by the label that stands for it.
    Sandbox(String),
    /// A domain, in lower case, that an environment may have proven; whether one has is for others to say.
    Domain(String),
    /// Nobody's, or not a host at all.
    Unknown,
}

/// The hosts that this installation answers for.
#[derive(Debug, Clone)]
pub struct Hosts {
    platform: Vec<String>,
    apps: Authority,
    previews: Option<Authority>,
    /// Other ports that apps are reached at.
    ports: Vec<u16>,
}

/// A text that is no host name or address with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host: write a name such as apps.example.com, with a port if it has one")]
pub struct NotAHost(String);

/// A host in lower case, without the dot of the root, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: String,
    port: Option<u16>,
}

impl Hosts {
    /// The platform at `localhost`, `127.0.0.1`, `[::1]` and `platform` (the host of `public_url`), its apps
    /// one label below `apps_domain`. Where `apps_domain` has a port, an app's host with another port is
    /// unknown. The platform answers on any port.
    ///
    /// # Errors
    /// One of the texts is not a host.
    pub fn new<'a>(platform: impl IntoIterator<Item = &'a str>, apps_domain: &str) -> Result<Self, NotAHost> {
        let read =
            |text: &str| Authority::parse(text).ok_or_else(|| NotAHost(text.chars().take(100).collect()));
        let platform = ["localhost", "127.0.0.1", "[::1]"]
            .into_iter()
            .chain(platform)
            .map(|text| Ok(read(text)?.host))
            .collect::<Result<_, NotAHost>>()?;
        Ok(Self { platform, apps: read(apps_domain)?, previews: None, ports: Vec::new() })
    }

    /// Servers in sandboxes are shown one label below `domain`.
    ///
    /// # Errors
    /// It is not a host.
    pub fn with_previews(mut self, domain: &str) -> Result<Self, NotAHost> {
        let read = Authority::parse(domain).ok_or_else(|| NotAHost(domain.chars().take(100).collect()))?;
        self.previews = Some(read);
        Ok(self)
    }

    /// Apps answer at these ports too.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports.extend(ports);
        self
    }

    /// Whose `name` is, which a client asks for before it sends a request (RFC 6066 §3).
    #[must_use]
    pub fn named(&self, name: &str) -> HostKind {
        match Authority::parse(name) {
            Some(given) if given.port.is_none() => self.kind(&given),
            _ => HostKind::Unknown,
        }
    }

    /// The host that a request is for, in lower case and without its port, where [`Hosts::of`] knows one.
    #[must_use]
    pub fn name(uri: &Uri, headers: &HeaderMap) -> Option<String> {
        Authority::asked(uri, headers).map(|given| given.host)
    }

    /// Whose the request is. The target's own authority (HTTP/2, or an absolute target as of RFC 9112 §3.2.2)
    /// and the `Host` header must agree where both are given; two `Host` headers are nobody's.
    #[must_use]
    pub fn of(&self, uri: &Uri, headers: &HeaderMap) -> HostKind {
        Authority::asked(uri, headers).map_or(HostKind::Unknown, |given| self.kind(&given))
    }

    fn kind(&self, given: &Authority) -> HostKind {
        if self.platform.contains(&given.host) {
            return HostKind::Platform;
        }
        if let Some(previews) = &self.previews
            && let Some(rest) = given.host.strip_suffix(&previews.host)
            && (rest.is_empty() || rest.ends_with('.'))
        {
            let is_there =
                given.port.is_none_or(|port| previews.port == Some(port) || self.ports.contains(&port))
                    || previews.port.is_none();
            let label = rest.strip_suffix('.').filter(|label| !label.is_empty() && !label.contains('.'));
            return match label {
                Some(label) if is_there => HostKind::Sandbox(label.to_owned()),
                _ => HostKind::Unknown,
            };
        }
        if let (Some(wanted), Some(port)) = (self.apps.port, given.port)
            && wanted != port
            && !self.ports.contains(&port)
            && self.is_ours(&given.host)
        {
            return HostKind::Unknown;
        }
        let label = given.host.strip_suffix(&self.apps.host).and_then(|rest| rest.strip_suffix('.'));
        match label.and_then(app) {
            Some(kind) => kind,
            None if self.is_ours(&given.host) || !is_domain(&given.host) => HostKind::Unknown,
            None => HostKind::Domain(given.host.clone()),
        }
    }

    /// Whether it is the domain of apps, or below that or one of the platform's hosts.
    fn is_ours(&self, host: &str) -> bool {
        let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        host == self.apps.host
            || below(&self.apps.host)
            || self.platform.iter().any(|platform| below(platform))
    }
}

/// The app that a label stands for: `<slug>` or `<release>--<slug>`.
fn app(label: &str) -> Option<HostKind> {
    let Some((number, slug)) = label.split_once("--") else {
        return label.parse().ok().map(HostKind::App);
    };
    let release = decimal(number)?;
    Some(HostKind::Preview { slug: slug.parse().ok()?, release })
}

/// A number from 1 on, without sign or leading zero, so that each has one spelling.
fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// Whether it has more than one label, and is no address in any of its spellings.
fn is_domain(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.contains('.') && !last.bytes().all(|byte| byte.is_ascii_digit()) && !last.starts_with("0x")
}

impl Authority {
    /// What a request names. The target's own authority and the `Host` header must agree where both are given.
    fn asked(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(HOST).iter();
        let header = match (lines.next(), lines.next()) {
            (None, _) => None,
            (Some(line), None) => Some(line.to_str().ok().and_then(Self::parse)?),
            (Some(_), Some(_)) => return None,
        };
        let target = match uri.authority() {
            None => None,
            Some(authority) => Some(Self::parse(authority.as_str())?),
        };
        match (target, header) {
            (Some(target), Some(header)) if target != header => None,
            (given, header) => given.or(header),
        }
    }

    /// Reads `host[:port]` (RFC 3986 §3.2.2 and §3.2.3), and of that only what DNS names and addresses need:
    /// no user, no percent-encoding, no underscore, no empty port.
    fn parse(text: &str) -> Option<Self> {
        let end_of_host = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(end_of_host)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(u16::try_from(decimal(port)?).ok()?),
            None if rest.is_empty() => None,
            None => return None,
        };
        let host = match host.strip_prefix('[') {
            Some(address) => format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => {
                let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                if name.len() > 253 || !name.split('.').all(is_label) {
                    return None;
                }
                name
            }
        };
        Some(Self { host, port })
    }
}

/// A label of a host name (RFC 1123 §2.1).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
