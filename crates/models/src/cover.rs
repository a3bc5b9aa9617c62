//! The operator's key, covered in what a provider says.

use std::borrow::Cow;

use kernel::Secret;
use memchr::memmem;
use url::Url;

/// What stands in its place.
const COVER: &str = "***";

/// What is shorter is found in any text, and is no secret.
const SHORTEST: usize = 8;

/// What nobody is shown.
pub(crate) struct Cover {
    key: Option<Secret>,
    /// Where the provider is, in all the ways in which it may say so.
    places: Vec<String>,
}

impl Cover {
    pub fn new(key: Option<&Secret>, base_url: &Url) -> Self {
        let host = base_url.host_str().unwrap_or_default();
        let port = base_url.port().map(|port| format!("{host}:{port}"));
        let places = [Some(base_url.as_str().to_owned()), port, Some(host.to_owned())];
        let places = places.into_iter().flatten().filter(|place| place.len() >= SHORTEST).collect();
        Self { key: key.filter(|key| key.expose().len() >= SHORTEST).cloned(), places }
    }

    /// A part of an answer without the key.
    pub fn bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(key) = self.key.as_ref().map(|key| key.expose().as_bytes()) else { return text.into() };
        let mut covered = Vec::new();
        let mut from = 0;
        for at in memmem::find_iter(text, key) {
            covered.extend_from_slice(&text[from..at]);
            covered.extend_from_slice(COVER.as_bytes());
            from = at + key.len();
        }
        if from == 0 {
            return text.into();
        }
        covered.extend_from_slice(&text[from..]);
        covered.into()
    }

    /// A message of the provider's without the key, and without where it is; short, and in one line.
    pub fn message(&self, text: &str) -> String {
        const MOST: usize = 300;
        let mut text = String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned();
        for place in &self.places {
            text = text.replace(place, COVER);
        }
        let text = text.replace(char::is_control, " ");
        text.trim().trim_end_matches('.').chars().take(MOST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_and_the_place_are_covered() {
        let url = "http://models.internal:8080/v1".parse().unwrap();
        let cover = Cover::new(Some(&Secret::new("sk-0123456789")), &url);
        assert_eq!(&*cover.bytes(b"a sk-0123456789 b sk-0123456789"), b"a *** b ***");
        assert_eq!(&*cover.bytes(b"sk-012345678"), b"sk-012345678");
        assert_eq!(
            cover.message("sk-0123456789 is\nwrong at http://models.internal:8080/v1/chat, models.internal."),
            "*** is wrong at ***/chat, ***"
        );
        let short = Cover::new(Some(&Secret::new("none")), &url);
        assert_eq!(&*short.bytes(b"none"), b"none");
    }
}
