//! Entity tags of rows, and the conditions that name them (RFC 9110 §8.8.3 and §13.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The strong tag of a row, of the whole of it as JSON.
pub(super) fn of(row: &[u8]) -> String {
    let hash = Sha256::digest(row);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash[..16]))
}

/// Which states of a row a change is meant for (`If-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Any, as long as the row is there.
    Any,
    /// Those with one of these tags.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Reads the value of the header, several lines joined by commas. What cannot be read matches nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "*" => IfMatch::Any,
            list => IfMatch::Tags(list.split(',').map(|tag| tag.trim().to_owned()).collect()),
        }
    }

    /// Whether it holds for the row with this tag, by strong comparison: a weak tag matches nothing.
    #[must_use]
    pub fn holds(&self, etag: &str) -> bool {
        match self {
            IfMatch::Any => true,
            IfMatch::Tags(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_the_strong_tags_it_lists() {
        for (text, holds) in [
            ("\"a\"", true),
            ("*", true),
            (" \"b\" , \"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            ("a", false),
            ("", false),
            ("*, \"b\"", false),
        ] {
            assert_eq!(IfMatch::parse(text).holds("\"a\""), holds, "{text}");
        }
    }

    #[test]
    fn tags_are_of_the_content() {
        assert_eq!(of(b"{}"), of(b"{}"));
        assert_ne!(of(b"{}"), of(b"{\"a\":1}"));
    }
}
