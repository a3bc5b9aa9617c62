//! An environment's public name, the first label of its host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names that no environment may take.
const RESERVED: &[&str] = &["preview", "www", "api", "console", "platform", "admin", "localhost"];

/// `[a-z0-9](-?[a-z0-9])*`, at most 40 characters, no `--` (that separates a release's preview), not reserved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// Why a text is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Characters, length or hyphens are off.
    #[error("{0:?} is not a slug: use 1 to 40 of a-z and 0-9, with single hyphens between them")]
    Form(String),
    /// The platform keeps this name for itself.
    #[error("the slug {0:?} is reserved: choose another")]
    Reserved(String),
}

impl Slug {
    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest slug to a human name: `"My Shop!"` gives `my-shop`; `None` where nothing is left.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut text = String::new();
        for c in name.chars() {
            if c.is_ascii_alphanumeric() {
                text.push(c.to_ascii_lowercase());
            } else if !text.is_empty() && !text.ends_with('-') {
                text.push('-');
            }
        }
        text.truncate(40);
        text.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for Slug {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        let well_formed = !text.is_empty()
            && text.len() <= 40
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--")
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !well_formed {
            return Err(SlugError::Form(text.chars().take(64).collect()));
        }
        if RESERVED.contains(&text) {
            return Err(SlugError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> String {
        slug.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_checked() {
        for good in ["a", "shop", "my-shop-2", "0", &"a".repeat(40)] {
            assert!(good.parse::<Slug>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "é", "..", &"a".repeat(41), "www", "localhost"]
        {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_becomes_a_slug() {
        let slug = |name: &str| Slug::from_name(name).map(String::from);
        assert_eq!(slug("My Shop!").as_deref(), Some("my-shop"));
        assert_eq!(slug("  --  "), None);
        assert_eq!(slug("www"), None);
    }
}
