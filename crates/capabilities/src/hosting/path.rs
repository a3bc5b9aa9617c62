//! `SitePath`: where a file lies in a site, parsed once at the border.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Why a text is no path of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {} bytes", SitePath::MAX_BYTES)]
    TooLong,
    #[error("it is deeper than {} levels", SitePath::MAX_LEVELS)]
    TooDeep,
    #[error("it begins with a slash")]
    Absolute,
    #[error("it begins with a drive letter")]
    Drive,
    #[error("it has a backslash")]
    Backslash,
    #[error("it has a control character")]
    Control,
    #[error("it has an empty segment")]
    EmptySegment,
    #[error("it has a `.` or `..` segment")]
    DotSegment,
    #[error("a segment ends with a dot or a space")]
    TrailingDotOrSpace,
    #[error("`_/` is reserved for the app's own interfaces")]
    Reserved,
}

/// A relative path with `/` between its segments, in Unicode's composed form (NFC). It never leaves its site,
/// on any operating system: no `..`, no drive, no backslash, no control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SitePath(String);

impl SitePath {
    /// How long a path may be, in bytes.
    pub const MAX_BYTES: usize = 512;
    /// How many segments a path may have.
    pub const MAX_LEVELS: usize = 32;

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two paths have in common that machines without regard to case take for the same.
    pub(super) fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for SitePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let text = if is_nfc(text) { text.to_owned() } else { text.nfc().collect() };
        check(&text)?;
        if text == "_" || text.starts_with("_/") {
            return Err(PathError::Reserved);
        }
        Ok(Self(text))
    }
}

/// What holds for every path of a site, whether a file's or a request's.
pub(crate) fn check(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.len() > SitePath::MAX_BYTES {
        return Err(PathError::TooLong);
    }
    if text.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if text.contains('\\') {
        return Err(PathError::Backslash);
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    if let [letter, b':', ..] = text.as_bytes()
        && letter.is_ascii_alphabetic()
    {
        return Err(PathError::Drive);
    }
    for (level, segment) in text.split('/').enumerate() {
        match segment {
            _ if level >= SitePath::MAX_LEVELS => return Err(PathError::TooDeep),
            "" => return Err(PathError::EmptySegment),
            "." | ".." => return Err(PathError::DotSegment),
            _ if segment.ends_with(['.', ' ']) => return Err(PathError::TrailingDotOrSpace),
            _ => {}
        }
    }
    Ok(())
}

impl TryFrom<String> for SitePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<SitePath> for String {
    fn from(path: SitePath) -> String {
        path.0
    }
}

impl std::borrow::Borrow<str> for SitePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SitePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_site_is_refused() {
        use PathError::*;
        let long = "a".repeat(513);
        let deep = ["a"; 33].join("/");
        for (text, why) in [
            ("", Empty),
            (long.as_str(), TooLong),
            (deep.as_str(), TooDeep),
            ("/etc/passwd", Absolute),
            ("C:/a", Drive),
            ("c:a", Drive),
            ("a\\b", Backslash),
            ("..\\a", Backslash),
            ("a\0b", Control),
            ("a\nb", Control),
            ("a\u{85}b", Control),
            ("a//b", EmptySegment),
            ("a/", EmptySegment),
            ("..", DotSegment),
            ("a/../b", DotSegment),
            ("./a", DotSegment),
            ("a/.", DotSegment),
            ("a.", TrailingDotOrSpace),
            ("a /b", TrailingDotOrSpace),
            (".../a", TrailingDotOrSpace),
            ("_/a", Reserved),
            ("_", Reserved),
        ] {
            assert_eq!(text.parse::<SitePath>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn what_people_call_their_files_is_allowed() {
        let widest = "a".repeat(512);
        let deepest = ["a"; 32].join("/");
        for text in [
            "index.html",
            "a/b c/ü.png",
            ".well-known/x",
            "_next/a.js",
            "a/_/b",
            "100%.txt",
            "ab:c",
            "..a",
            &widest,
            &deepest,
        ] {
            assert_eq!(text.parse::<SitePath>().map(String::from), Ok(text.to_owned()));
        }
    }

    #[test]
    fn both_spellings_of_a_character_are_one_path() {
        assert_eq!("e\u{301}.html".parse::<SitePath>(), "\u{e9}.html".parse::<SitePath>());
    }
}
