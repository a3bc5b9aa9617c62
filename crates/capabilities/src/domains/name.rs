//! What a domain may be called.

use std::fmt;
use std::net::IpAddr;

use kernel::{Error, Result};

/// A domain that a proof can be asked for, in lower case and ASCII, without the dot of the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// The label below a domain that holds the proof.
pub const PROOF_LABEL: &str = "_steading";

/// A name of 253 bytes (RFC 1035 §2.3.4) with the label of the proof before it.
const LONGEST: usize = 253 - PROOF_LABEL.len() - 1;

/// The hosts that are the platform's own and nobody else's.
#[derive(Debug, Clone, Default)]
pub struct Reserved {
    /// Domains that are refused with all below them.
    pub domains: Vec<String>,
}

impl DomainName {
    /// Reads a domain. International names have one form, the ASCII one (UTS #46).
    ///
    /// # Errors
    /// `invalid_input` at `/domain`, saying which names can be used.
    pub fn read(text: &str, reserved: &Reserved) -> Result<Self> {
        let shown: String = text.chars().take(80).collect();
        let refuse = |why: &str| Error::invalid("/domain", format!("{shown:?} {why}"));
        let hint = "give the name alone, such as shop.example.com";
        let text = text.trim();
        if text.contains("://") || text.contains('/') {
            return Err(refuse("is an address and not a domain").hint(hint));
        }
        if text.starts_with("*.") || text == "*" {
            return Err(refuse("is a wildcard, which cannot be proven").hint("set each name by itself"));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
            return Err(refuse("is an IP address and not a domain"));
        }
        if name.contains(':') {
            return Err(refuse("has a port").hint(hint));
        }
        let ascii = idna::domain_to_ascii_strict(name)
            .map_err(|_| refuse("is not a domain name: labels are letters, digits and hyphens").hint(hint))?;
        if ascii.parse::<IpAddr>().is_ok() {
            return Err(refuse("is an IP address and not a domain"));
        }
        if ascii.len() > LONGEST {
            return Err(refuse("is too long").hint(format!("a domain has at most {LONGEST} characters here")));
        }
        let last = ascii.rsplit('.').next().unwrap_or_default();
        if !ascii.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse("is not a full domain name").hint(hint));
        }
        if ascii == "localhost" || ascii.ends_with(".localhost") {
            return Err(refuse("is this machine's own name"));
        }
        if reserved.covers(&ascii) {
            return Err(refuse("is the platform's own").hint("an app has its own address below it already"));
        }
        if psl::suffix_str(&ascii) == Some(ascii.as_str()) {
            return Err(refuse("is a public suffix, below which others have their domains").hint(hint));
        }
        Ok(Self(ascii))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is what one registers, where DNS allows no CNAME (RFC 1034 §3.6.2).
    #[must_use]
    pub fn is_apex(&self) -> bool {
        psl::domain_str(&self.0) == Some(self.0.as_str())
    }

    /// Where its proof is published.
    #[must_use]
    pub fn proof_name(&self) -> String {
        format!("{PROOF_LABEL}.{}", self.0)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Reserved {
    fn covers(&self, name: &str) -> bool {
        self.domains.iter().any(|domain| {
            name == domain || name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let reserved = Reserved { domains: vec!["cloud.example.com".into(), "apps.example.org".into()] };
        match DomainName::read(text, &reserved) {
            Ok(name) => name.to_string(),
            Err(error) => format!("{} {}", error.pointer().unwrap_or_default(), error.message()),
        }
    }

    #[test]
    fn a_name_has_one_form() {
        for spelled in ["shop.example.com", "Shop.Example.COM", "shop.example.com.", " shop.example.com "] {
            assert_eq!(read(spelled), "shop.example.com");
        }
        for spelled in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "bu\u{308}cher.example"]
        {
            assert_eq!(read(spelled), "xn--bcher-kva.example");
        }
        assert_eq!(read("example.com"), "example.com");
        assert_eq!(read("someone.github.io"), "someone.github.io");
    }

    #[test]
    fn what_nobody_can_prove_or_is_the_platforms_is_refused() {
        let refused = [
            ("https://shop.example.com", "is an address and not a domain"),
            ("shop.example.com/x", "is an address and not a domain"),
            ("*.example.com", "is a wildcard, which cannot be proven"),
            ("shop.example.com:443", "has a port"),
            ("192.0.2.1", "is an IP address and not a domain"),
            ("[::1]", "is an IP address and not a domain"),
            ("::1", "is an IP address and not a domain"),
            ("0x7f.1", "is not a full domain name"),
            ("com", "is not a full domain name"),
            ("localhost", "is not a full domain name"),
            ("app.localhost", "is this machine's own name"),
            ("co.uk", "is a public suffix, below which others have their domains"),
            ("github.io", "is a public suffix, below which others have their domains"),
            ("cloud.example.com", "is the platform's own"),
            ("X.Cloud.example.com.", "is the platform's own"),
            ("shop.apps.example.org", "is the platform's own"),
        ];
        for (text, why) in refused {
            assert_eq!(read(text), format!("/domain {text:?} {why}"));
        }
        for text in [
            "",
            ".",
            "a..example",
            "-a.example",
            "a_b.example",
            "a b.example",
            "a\0.example",
            "xn--a.example",
        ] {
            assert!(read(text).starts_with("/domain"), "{text:?}: {}", read(text));
        }
        let long = format!("{}.example.com", ["a"; 120].join("."));
        assert!(read(&long).ends_with("is too long"), "{}", read(&long));
    }

    #[test]
    fn what_is_registered_is_told_from_what_is_below_it() {
        let apex = |text: &str| DomainName::read(text, &Reserved::default()).unwrap().is_apex();
        assert!(
            apex("example.com") && apex("example.co.uk") && apex("someone.github.io") && apex("shop.test")
        );
        assert!(!apex("www.example.com") && !apex("a.b.example.co.uk"));
    }
}
