//! Which hosts the platform answers to, and which web origins may ask it.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use kernel::{Code, Error, Result};

/// The allow-list of hosts and origins: loopback on any port, and the public address.
///
/// It stops DNS rebinding: a page whose name was pointed at this machine sends its own name as `Host` or
/// `Origin` (MCP 2025-11-25, Transports, Security Warning).
#[derive(Debug, Clone, Default)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    /// Loopback only.
    #[must_use]
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Also the host and the origin of `url`; one that does not parse adds nothing.
    #[must_use]
    pub fn with_url(mut self, url: &Uri) -> Self {
        if let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) {
            self.hosts.push(authority.host().to_ascii_lowercase());
            self.origins.push(origin(scheme, authority));
        }
        self
    }

    /// Also the host `name`, on any port.
    #[must_use]
    pub fn with_host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_ascii_lowercase());
        self
    }

    /// Lets a request pass, or not.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let mut hosts = headers.get_all(HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            (Some(value), None) => Authority::try_from(value.as_bytes()).ok(),
            (None, _) => uri.authority().cloned(),
            (Some(_), Some(_)) => None,
        };
        let known = |host: &str| is_loopback(host) || self.hosts.iter().any(|h| h.eq_ignore_ascii_case(host));
        if !named.is_some_and(|authority| known(authority.host())) {
            return Err(Error::new(Code::Forbidden, "the platform does not answer to this host name")
                .hint("use the address it was started with, or set public_url"));
        }
        if headers.get_all(ORIGIN).iter().all(|value| self.knows_origin(value.as_bytes())) {
            return Ok(());
        }
        Err(Error::new(Code::Forbidden, "pages of this origin may not call the platform"))
    }

    fn knows_origin(&self, value: &[u8]) -> bool {
        let Ok(url) = Uri::try_from(value) else { return false };
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return false };
        let web = scheme == "http" || scheme == "https";
        web && (is_loopback(authority.host()) || self.origins.contains(&origin(scheme, authority)))
    }
}

/// An origin with its port always written (RFC 6454 §4).
fn origin(scheme: &str, authority: &Authority) -> String {
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = authority.port_u16().unwrap_or(usual);
    format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origin: Option<&str>) -> bool {
        let guard = Guard::loopback().with_url(&Uri::from_static("https://Steading.example"));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        guard.check(&Uri::from_static("/mcp"), &headers).is_ok()
    }

    #[test]
    fn loopback_and_the_public_address_pass() {
        for host in ["localhost", "localhost:8787", "127.0.0.1:1", "[::1]:8787", "steading.example:443"] {
            assert!(passes(host, None), "{host}");
        }
        for origin in
            ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:9", "https://steading.example"]
        {
            assert!(passes("localhost", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn every_other_name_is_refused() {
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "app.localhost:8787", ""] {
            assert!(!passes(host, None), "{host}");
        }
        let origins = [
            "null",
            "http://evil.example",
            "http://app.localhost:8787",
            "http://steading.example",
            "https://steading.example:444",
            "https://localhost.evil.example",
            "chrome-extension://localhost",
            "file://",
            "",
        ];
        for origin in origins {
            assert!(!passes("localhost", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn two_hosts_are_no_host() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, "localhost".parse().unwrap());
        headers.append(HOST, "evil.example".parse().unwrap());
        assert!(Guard::loopback().check(&Uri::from_static("/mcp"), &headers).is_err());
    }
}
