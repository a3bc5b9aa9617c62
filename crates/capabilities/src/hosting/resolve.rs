//! Which file, redirect or page answers a path. No IO.

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::path::{self, SitePath};
use super::redirects::RedirectStatus;
use super::site::{Site, SiteFile};

/// A request's path, percent-decoded once (RFC 3986 §2.1). It begins with a slash, and holds nothing that could
/// mean another place than it says: no `.` or `..` or empty segment, no backslash, no control character, no
/// encoded slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath(String);

/// What a site has for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// This file.
    File {
        /// Its path in the site.
        path: &'a SitePath,
        /// What to send.
        file: &'a SiteFile,
    },
    /// Another address. `location` is percent-encoded and safe as a header's value; it has a query only where
    /// the rule has one.
    Redirect {
        /// Where to.
        location: String,
        /// With which status.
        status: RedirectStatus,
    },
    /// Nothing; `page` is the nearest 404.html.
    NotFound {
        /// The page to show.
        page: Option<(&'a SitePath, &'a SiteFile)>,
    },
}

impl RequestPath {
    /// The path from the request line, without its query. `None` where it is malformed or a trick; that is
    /// answered like a path that does not exist.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        Self::decoded(decode(raw)?)
    }

    /// The same of a path that is decoded already.
    #[must_use]
    pub fn decoded(decoded: String) -> Option<Self> {
        let below = decoded.strip_prefix('/')?;
        let name = below.strip_suffix('/').unwrap_or(below);
        if !below.is_empty() {
            path::check(name).ok()?;
        }
        Some(Self(if is_nfc(&decoded) { decoded } else { decoded.nfc().collect() }))
    }

    /// The decoded path, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies under `/_/`, which belongs to the app's own interfaces and never to its site.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0 == "/_" || self.0.starts_with("/_/")
    }
}

impl Site {
    /// What answers `path`, in this order:
    /// 1. the first redirect rule that matches;
    /// 2. the file of exactly that path (`/about.html` stays reachable under its own name);
    /// 3. clean URLs: `/about` is `about.html`; `/docs/` is `docs/index.html`;
    /// 4. a 308 to the one right spelling, so that relative links work: `/docs` to `/docs/`, `/about/` to
    ///    `/about`;
    /// 5. in a single-page app, `index.html` for paths whose last segment has no file extension;
    /// 6. the nearest `404.html`, searched upwards.
    #[must_use]
    pub fn resolve(&self, path: &RequestPath) -> Found<'_> {
        let full = path.as_str();
        for rule in &self.redirects {
            if let Some(location) = rule.apply(full) {
                return Found::Redirect { location, status: rule.status() };
            }
        }
        let name = &full[1..];
        if let Some(found) = self.file(name) {
            return found;
        }
        let moved = |to: String| Found::Redirect { location: encode(&to), status: RedirectStatus::Permanent };
        match name.strip_suffix('/') {
            None if name.is_empty() => {
                if let Some(found) = self.file("index.html") {
                    return found;
                }
            }
            None => {
                if let Some(found) = self.file(&format!("{name}.html")) {
                    return found;
                }
                if self.has(&format!("{name}/index.html")) {
                    return moved(format!("{full}/"));
                }
            }
            Some(directory) => {
                if let Some(found) = self.file(&format!("{name}index.html")) {
                    return found;
                }
                if self.has(directory) || self.has(&format!("{directory}.html")) {
                    return moved(format!("/{directory}"));
                }
            }
        }
        let last = name.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or_default();
        if self.spa
            && !last.contains('.')
            && let Some(found) = self.file("index.html")
        {
            return found;
        }
        self.not_found(path)
    }

    /// The nearest 404.html at or above the directory of `path`.
    #[must_use]
    pub fn not_found(&self, path: &RequestPath) -> Found<'_> {
        let mut directory = path.as_str();
        while let Some((above, _)) = directory.rsplit_once('/') {
            let page = format!("{above}/404.html");
            if let Some(page) = self.files.get_key_value(&page[1..]) {
                return Found::NotFound { page: Some(page) };
            }
            directory = above;
        }
        Found::NotFound { page: None }
    }

    fn file(&self, name: &str) -> Option<Found<'_>> {
        self.files.get_key_value(name).map(|(path, file)| Found::File { path, file })
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }
}

/// Percent-decodes once. `None` where an escape is broken, hides a slash or a backslash, or the bytes are not
/// UTF-8 (overlong forms are not).
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        match u8::try_from(high * 16 + low).ok()? {
            b'/' | b'\\' => return None,
            decoded => bytes.push(decoded),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes what may not stand in a path as it is (RFC 3986 §3.3).
pub(super) fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
