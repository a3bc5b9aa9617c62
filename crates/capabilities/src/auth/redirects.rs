//! Where links in mails may lead on to: the app itself, and the addresses that its manifest lists.

use kernel::{Error, Result};
use url::Url;

const LONGEST: usize = 1_000;

/// Reads an address that a manifest lists.
///
/// # Errors
/// `invalid_input` where it is none that a browser could be sent to, or names a user or a fragment.
pub fn redirect(written: &str) -> Result<Url> {
    let refuse = |message: &str| {
        Err(Error::invalid("", message.to_owned())
            .hint("write it as https://example.org/welcome; one that ends with / stands for all below it"))
    };
    if written.len() > LONGEST || written.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\')
    {
        return refuse("this is not an address");
    }
    match Url::parse(written) {
        Ok(url) if !matches!(url.scheme(), "https" | "http") => {
            refuse("an address begins with https:// or http://")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            refuse("an address names no user")
        }
        Ok(url) if url.fragment().is_some() || url.query().is_some() => {
            refuse("an address ends before ? and #")
        }
        Ok(url) if written.contains('*') || url.host_str().is_none() => {
            refuse("an address names one host: list each")
        }
        Ok(url) => Ok(url),
        Err(_) => refuse("this is not an address"),
    }
}

/// The address that a request wants to be led on to: a path of the app at `app` as it is, another address where
/// `listed` has it.
///
/// # Errors
/// `invalid_input` at `/redirect` for any other.
pub(super) fn allowed(wanted: &str, app: &str, listed: &[Url]) -> Result<String> {
    let refuse = || {
        Error::invalid("/redirect", "the app's links do not lead there")
            .hint("give a path such as /welcome, or list the address in auth.redirects")
    };
    // Browsers read past blanks and backslashes; nothing with them is looked at.
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if wanted.len() > LONGEST || wanted.contains(odd) {
        return Err(refuse());
    }
    let app = Url::parse(app).map_err(Error::internal)?;
    let url = if wanted.starts_with('/') { app.join(wanted) } else { Url::parse(wanted) };
    let mut url = url.map_err(|_| refuse())?;
    if !matches!(url.scheme(), "https" | "http") || !url.username().is_empty() || url.password().is_some() {
        return Err(refuse());
    }
    // What comes after # is ours to write.
    url.set_fragment(None);
    if url.origin() == app.origin() {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        // A path that begins with two slashes would be read as a host.
        return if url.path().starts_with("//") {
            Err(refuse())
        } else {
            Ok(format!("{}{query}", url.path()))
        };
    }
    let fits = |listed: &Url| {
        listed.origin() == url.origin()
            && (listed.path() == url.path()
                || (listed.path().ends_with('/') && url.path().starts_with(listed.path())))
    };
    if listed.iter().any(fits) { Ok(url.into()) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "http://shop.localhost:8787";

    fn leads(wanted: &str) -> Option<String> {
        let listed =
            ["https://friend.example/welcome", "https://friend.example/in/", "http://dev.example:5173/"];
        let listed: Vec<Url> = listed.iter().map(|text| redirect(text).unwrap()).collect();
        allowed(wanted, APP, &listed).ok()
    }

    #[test]
    fn links_lead_to_the_app_and_to_what_is_listed() {
        for (wanted, to) in [
            ("/", "/"),
            ("/welcome?a=1#x", "/welcome?a=1"),
            ("http://shop.localhost:8787/a", "/a"),
            ("https://friend.example/welcome?x=1", "https://friend.example/welcome?x=1"),
            ("https://FRIEND.example:443/in/a/b", "https://friend.example/in/a/b"),
            ("http://dev.example:5173/anything", "http://dev.example:5173/anything"),
            ("/a/../b", "/b"),
        ] {
            assert_eq!(leads(wanted).as_deref(), Some(to), "{wanted}");
        }
    }

    #[test]
    fn links_lead_nowhere_else() {
        for wanted in [
            "",
            "welcome",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            " https://friend.example/welcome",
            "https://evil.example",
            "https://friend.example",
            "https://friend.example/welcome/",
            "https://friend.example/welcome/more",
            "https://friend.example/in",
            "https://friend.example/in/../secret",
            "https://friend.example/in/%2e%2e/secret",
            "https://friend.example:8443/welcome",
            "http://friend.example/welcome",
            "https://friend.example.evil.example/welcome",
            "https://friend.example@evil.example/welcome",
            "https://user@friend.example/welcome",
            "javascript:alert(1)",
            "data:text/html,x",
            "http://shop.localhost:8787//evil.example",
            "http://shop.localhost:9999/",
            "https://shop.localhost:8787/",
        ] {
            assert_eq!(leads(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn a_manifest_lists_whole_addresses() {
        for bad in [
            "",
            "friend.example",
            "https://",
            "https://*.example/",
            "https://a.example/#x",
            "https://a.example/?x",
            "https://u@a.example/",
            "ftp://a.example/",
            "javascript:alert(1)",
            "https://a.example/ b",
            "/welcome",
        ] {
            assert!(redirect(bad).is_err(), "{bad}");
        }
    }
}
