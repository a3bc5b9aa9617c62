//! Where a sandbox may go, and how much of it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use kernel::{Code, Error};
use serde::{Deserialize, Serialize};
use url::Host;

use super::secrets::Bound;

/// What the policy of one sandbox says. Nothing that it does not name is reached.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Hosts that may be asked.
    pub allow: Vec<Pattern>,
    /// Where this is said, of those only these.
    pub within: Option<Vec<Pattern>>,
    /// Of those, places whose addresses need not be public: the operator vouches for each, by exact host and port.
    pub origins: Vec<Target>,
    /// Secrets that go out in place of what the sandbox has of them.
    pub secrets: Vec<Bound>,
    /// How much may go out and come in.
    pub limits: Limits,
    /// What whoever is refused a host may do about it, in one sentence without a full stop.
    pub advice: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            within: None,
            origins: Vec::new(),
            secrets: Vec::new(),
            limits: Limits::default(),
            advice: "ask the environment's owner to allow this host for its sandboxes".to_owned(),
        }
    }
}

/// The most that a sandbox takes of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections that the sandbox has open at once; one more waits.
    pub connections: usize,
    /// Bytes in both directions, from the start of the sandbox on.
    pub bytes: u64,
    /// Bytes a second in both directions.
    pub bytes_per_second: u64,
    /// Requests and tunnels that begin in a minute.
    pub requests_per_minute: u32,
    /// How long the head of a request may take, and how long a connection may wait for its next one.
    pub head: Duration,
    /// How long it may take until a host is connected.
    pub connect: Duration,
    /// How long nothing may come or go.
    pub idle: Duration,
    /// How long one connection may last.
    pub longest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            bytes: 20 << 30,
            bytes_per_second: 64 << 20,
            requests_per_minute: 6_000,
            head: Duration::from_secs(20),
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            longest: Duration::from_secs(3_600),
        }
    }
}

/// Why a text says nothing about hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not a host, nor a pattern of hosts.
    #[error(
        "{0:?} is not a host: write example.com, *.example.com or an address, with :port where it is not 80 or 443"
    )]
    Host(String),
    /// The port is none.
    #[error("{0:?} has no port between 1 and 65535 after its colon")]
    Port(String),
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Self {
        let message = error.to_string();
        match error {
            Unreadable::Host(_) | Unreadable::Port(_) => Self::new(Code::InvalidInput, message),
        }
    }
}

/// A host and a port, in the one way of writing them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    host: Host,
    port: u16,
}

impl Target {
    /// The place that a host, in whichever of its writings, and a port name. An address in decimal, octal or
    /// hexadecimal digits, or mapped into IPv6, is that address (WHATWG URL §3.5).
    ///
    /// # Errors
    /// Where that is no host, or the port 0.
    pub fn new(host: &str, port: u16) -> Result<Self, Unreadable> {
        if port == 0 {
            return Err(Unreadable::Port(shown(host)));
        }
        Ok(Self { host: canonical(host)?, port })
    }

    /// The host; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// How `Host` names it where `default` is the scheme's own port (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self, default: u16) -> String {
        if self.port == default { self.host.to_string() } else { self.to_string() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Target {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (host, port) = split(text)?;
        Self::new(host, port.ok_or_else(|| Unreadable::Port(shown(text)))?)
    }
}

impl TryFrom<String> for Target {
    type Error = Unreadable;

    fn try_from(text: String) -> Result<Self, Unreadable> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

/// Hosts with their ports: `example.com` (ports 80 and 443), `*.example.com:8443` (every name below it, not itself),
/// `192.0.2.1:5432`, `*` (every host).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Hosts {
    One(Host),
    Below(String),
    Any,
}

impl Pattern {
    /// Whether the pattern names it.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        let host = match (&self.hosts, &target.host) {
            (Hosts::Any, _) => true,
            (Hosts::One(one), host) => one == host,
            (Hosts::Below(parent), Host::Domain(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Hosts::Below(_), _) => false,
        };
        host && self.port.map_or(matches!(target.port, 80 | 443), |port| port == target.port)
    }

    /// Whether it names every host.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.hosts == Hosts::Any
    }
}

impl FromStr for Pattern {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (host, port) = split(text)?;
        let hosts = if host == "*" {
            Hosts::Any
        } else if let Some(parent) = host.strip_prefix("*.") {
            match canonical(parent)? {
                Host::Domain(parent) => Hosts::Below(parent),
                Host::Ipv4(_) | Host::Ipv6(_) => return Err(Unreadable::Host(shown(text))),
            }
        } else {
            Hosts::One(canonical(host)?)
        };
        Ok(Self { hosts, port })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::One(host) => write!(f, "{host}")?,
            Hosts::Below(parent) => write!(f, "*.{parent}")?,
            Hosts::Any => f.write_str("*")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for Pattern {
    type Error = Unreadable;

    fn try_from(text: String) -> Result<Self, Unreadable> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

impl Policy {
    /// Whether the place may be asked at all.
    #[must_use]
    pub fn allows(&self, target: &Target) -> bool {
        let names = |patterns: &Vec<Pattern>| patterns.iter().any(|pattern| pattern.matches(target));
        names(&self.allow) && self.within.as_ref().is_none_or(names)
    }

    /// Whether its addresses need not be public.
    #[must_use]
    pub fn vouches_for(&self, target: &Target) -> bool {
        self.origins.contains(target)
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split(text: &str) -> Result<(&str, Option<u16>), Unreadable> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            Ok(port @ 1..) if digits(&port.to_string()) => Some(port),
            _ => return Err(Unreadable::Port(shown(text))),
        },
    };
    Ok((host, port))
}

/// The one writing of a host. The root's dot makes no other host; an address mapped into IPv6 is the address.
fn canonical(host: &str) -> Result<Host, Unreadable> {
    let refuse = || Unreadable::Host(shown(host));
    let rootless = host.strip_suffix('.').unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte) || !byte.is_ascii();
    if !rootless.bytes().all(plain) {
        return Err(refuse());
    }
    match Host::parse(rootless).map_err(|_| refuse())? {
        Host::Domain(name) => {
            let labels = name.split('.').all(|label| (1..=63).contains(&label.len()));
            if labels && name.len() <= 253 { Ok(Host::Domain(name)) } else { Err(refuse()) }
        }
        Host::Ipv4(address) => Ok(Host::Ipv4(address)),
        Host::Ipv6(address) => Ok(match IpAddr::from(address).to_canonical() {
            IpAddr::V4(address) => Host::Ipv4(address),
            IpAddr::V6(address) => Host::Ipv6(address),
        }),
    }
}

/// As much of it as a message repeats.
pub(super) fn shown(host: &str) -> String {
    host.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_the_same_in_all_its_writings() {
        for (written, read) in [
            ("EXAMPLE.com.:443", "example.com:443"),
            ("bücher.example:80", "xn--bcher-kva.example:80"),
            ("2130706433:80", "127.0.0.1:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
            ("0177.0.0.01:80", "127.0.0.1:80"),
            ("0xa9fea9fe:80", "169.254.169.254:80"),
            ("127.1:80", "127.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[::FFFF:a9fe:a9fe]:80", "169.254.169.254:80"),
            ("[0:0::1]:80", "[::1]:80"),
        ] {
            assert_eq!(target(written).to_string(), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_host_or_port_is_refused() {
        for bad in [
            ":80",
            ".:80",
            "a..b:80",
            "a b:80",
            "a/b:80",
            "a@b:80",
            "a%2eb:80",
            "a#b:80",
            "256.1.1.1:80",
            "[::1:80",
            "::1:80",
            "a\r\nb:80",
            "*:80",
        ] {
            assert!(
                matches!(bad.parse::<Target>(), Err(Unreadable::Host(_))),
                "{bad:?} {:?}",
                bad.parse::<Target>()
            );
        }
        for bad in ["", "a", "a:0", "a:65536", "a:-1", "a:x", "a:", "[::1]"] {
            assert!(matches!(bad.parse::<Target>(), Err(Unreadable::Port(_))), "{bad:?}");
        }
        assert!(matches!("+a:+80".parse::<Target>(), Err(Unreadable::Port(_) | Unreadable::Host(_))));
        assert!("*.10.0.0.1".parse::<Pattern>().is_err());
        assert!("a.*.example.com".parse::<Pattern>().is_err());
    }

    #[test]
    fn what_is_allowed_is_what_both_lists_name() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let policy = |within: Option<&[&str]>| Policy {
            allow: patterns(&["*.a.test", "b.test"]),
            within: within.map(patterns),
            ..Policy::default()
        };
        let allowed = |within| {
            let policy = policy(within);
            ["x.a.test:443", "y.a.test:443", "b.test:443", "c.test:443"]
                .map(|text| policy.allows(&target(text)))
        };
        assert_eq!(allowed(None), [true, true, true, false]);
        assert_eq!(allowed(Some(&["x.a.test", "c.test"])), [true, false, false, false]);
        assert_eq!(allowed(Some(&["*"])), [true, true, true, false]);
        assert_eq!(allowed(Some(&[])), [false; 4]);
    }

    #[test]
    fn a_pattern_names_its_hosts_and_ports_alone() {
        for (pattern, named, others) in [
            (
                "registry.example.com",
                vec!["registry.example.com:443", "REGISTRY.example.com.:80"],
                vec!["registry.example.com:8443", "a.registry.example.com:443", "example.com:443"],
            ),
            (
                "*.example.com:443",
                vec!["a.example.com:443", "a.b.example.com:443"],
                vec![
                    "example.com:443",
                    "badexample.com:443",
                    "a.example.com:80",
                    "a.example.com.evil.test:443",
                ],
            ),
            ("10.1.2.3:5432", vec!["10.1.2.3:5432", "[::ffff:10.1.2.3]:5432"], vec!["10.1.2.4:5432"]),
            ("*", vec!["a.test:443", "8.8.8.8:80"], vec!["a.test:22"]),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            for text in named {
                assert!(pattern.matches(&target(text)), "{pattern} {text}");
            }
            for text in others {
                assert!(!pattern.matches(&target(text)), "{pattern} {text}");
            }
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
    }
}
