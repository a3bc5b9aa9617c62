//! Origins of pages, as browsers write them.

use kernel::{Error, Result};
use url::{Origin, Url};

const LONGEST: usize = 300;

/// The origin that somebody has written, in the form in which browsers send it (RFC 6454 §6.2): lower case, the host in
/// ASCII, without the scheme's own port.
///
/// # Errors
/// `invalid_input` where it is more or less than `scheme://host[:port]`, or stands for many.
pub fn origin(written: &str) -> Result<String> {
    let refuse = |message: &str| {
        Err(Error::invalid("", message.to_owned())
            .hint("write it as https://example.org, with its port where it has one"))
    };
    let Some((scheme, authority)) = written.split_once("://") else {
        return refuse("an origin is scheme://host or scheme://host:port");
    };
    if written.len() > LONGEST || !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return refuse("an origin begins with https:// or http://");
    }
    if authority.contains('*') {
        return refuse("an origin is one host: name each");
    }
    if authority.contains(|c: char| "/\\?#@".contains(c) || c.is_whitespace() || c.is_control()) {
        return refuse("an origin has neither a path nor a user");
    }
    match Url::parse(written).map(|url| url.origin()) {
        Ok(origin @ Origin::Tuple(..)) => Ok(origin.ascii_serialization()),
        _ => refuse("this is not the name of a host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        let written = |text: &str| origin(text).map_err(|e| e.message().to_owned());
        for (text, expected) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG:443", "https://example.org"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://example.org:80", "http://example.org"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://127.1", "http://127.0.0.1"),
        ] {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        for bad in [
            "",
            "*",
            "null",
            "example.org",
            "//example.org",
            "https://",
            "https://*.example.org",
            "https://example.org/",
            "https://example.org/path",
            "https://example.org?x",
            "https://example.org#x",
            "https://user@example.org",
            "https://example.org\\path",
            "https://exa mple.org",
            "https://example.org\n",
            "https://example.org:99999",
            "ftp://example.org",
            "javascript://example.org",
            "file://x",
            &format!("https://{}.org", "a".repeat(400)),
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
