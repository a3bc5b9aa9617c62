//! Patterns of paths: which paths one is for, what its names stand for there, and which of two is the more particular.

use unicode_normalization::UnicodeNormalization;

use crate::hosting::{SitePath, check_path};

/// A pattern, parsed: `/api/:id/files/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
}

// From the most particular on: so vectors of them are in order, too.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Name(String),
    Rest,
}

/// Where a route leads within its target: text with names in it, as `/posts/:id.html`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rewrite(String);

/// What the names of a pattern stand for in one path; what `*` stands for is `splat`.
pub(crate) type Names<'a> = Vec<(&'a str, &'a str)>;

/// The name of what `*` stands for.
const SPLAT: &str = "splat";

/// Paths that no route is for: they are answered before it is asked for any.
const TAKEN: [&str; 3] = ["_", ".well-known/jwks.json", ".well-known/acme-challenge"];

impl Pattern {
    /// Reads a pattern; or why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = plain(text)?;
        let below = path.strip_suffix('/').unwrap_or(&path);
        let mut segments = Vec::new();
        for segment in below.split('/').filter(|_| !below.is_empty()) {
            let last = segments.len();
            segments.push(match (segment, segment.strip_prefix(':')) {
                ("*", _) => Segment::Rest,
                (_, Some(name)) => Segment::Name(name.to_owned()),
                (text, None) => Segment::Literal(text.to_owned()),
            });
            if segments[..last].contains(&Segment::Rest) || segment.len() > 1 && segment.contains('*') {
                return Err("a * stands alone and at the end: /api/*".to_owned());
            }
        }
        let pattern = Self { segments };
        pattern.named()?;
        if !below.is_empty() {
            check_path(&below.replace(['*', ':'], "x")).map_err(|why| why.to_string())?;
        }
        if TAKEN.iter().any(|taken| below == *taken || below.starts_with(&format!("{taken}/"))) {
            return Err("the app's own interfaces are there, and cannot be routed".to_owned());
        }
        Ok(pattern)
    }

    /// Refuses names that are none, or there twice.
    fn named(&self) -> Result<(), String> {
        let mut seen = Vec::new();
        for segment in &self.segments {
            let Segment::Name(name) = segment else { continue };
            let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(is_name_byte);
            if !plain || name == SPLAT {
                return Err(format!(
                    "{name:?} is no name: letters, digits and _ for one segment; {SPLAT} is what * stands for"
                ));
            }
            if seen.contains(&name) {
                return Err(format!("the name :{name} stands there twice"));
            }
            seen.push(name);
        }
        Ok(())
    }

    /// What the names stand for in `path`, where the pattern is for it. It begins with a slash and is decoded; a slash at
    /// its end makes no difference.
    pub fn names<'a>(&'a self, path: &'a str) -> Option<Names<'a>> {
        let path = path.strip_prefix('/')?;
        let mut rest = Some(path.strip_suffix('/').unwrap_or(path)).filter(|rest| !rest.is_empty());
        let mut names = Vec::new();
        for segment in &self.segments {
            if *segment == Segment::Rest {
                names.push((SPLAT, rest.take().unwrap_or_default()));
                break;
            }
            let whole = rest?;
            let (first, below) = whole.split_once('/').map_or((whole, None), |(a, b)| (a, Some(b)));
            match segment {
                Segment::Literal(text) if text == first => {}
                Segment::Name(name) => names.push((name, first)),
                Segment::Literal(_) | Segment::Rest => return None,
            }
            rest = below;
        }
        rest.is_none().then_some(names)
    }

    /// Whether it ends with `*`.
    pub fn has_rest(&self) -> bool {
        self.segments.last() == Some(&Segment::Rest)
    }

    /// Whether it is for one path only.
    pub fn is_plain(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// What sorts patterns so that of those that are for one path the most particular comes first: segment by segment a
    /// text before a name, and a name before `*`.
    pub fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Name(_) => 1,
            Segment::Rest => 2,
        };
        self.segments.iter().map(rank).collect()
    }

    /// Whether both are for the very same paths.
    pub fn is_like(&self, other: &Pattern) -> bool {
        let alike = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Name(_), Segment::Name(_)) => true,
            (a, b) => a == b,
        };
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// The pattern with `{name}` for each name, as OpenAPI writes paths.
    pub fn template(&self) -> String {
        let texts = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Name(name) => format!("{{{name}}}"),
            Segment::Rest => format!("{{{SPLAT}}}"),
        });
        format!("/{}", texts.collect::<Vec<_>>().join("/"))
    }

    /// The names that stand in it, and `splat` for `*`.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Name(name) => Some(name.as_str()),
            Segment::Rest => Some(SPLAT),
        })
    }
}

impl Rewrite {
    /// Reads where a route of `pattern` leads; or why it leads nowhere.
    pub fn parse(text: &str, pattern: &Pattern) -> Result<Self, String> {
        let path = plain(text)?;
        if path.contains('*') {
            return Err("write :splat for what * stands for".to_owned());
        }
        let rewrite = Self(format!("/{path}"));
        let mut rest = rewrite.0.as_str();
        while let Some((_, name, after)) = next_name(rest) {
            if !pattern.all_names().any(|known| known == name) {
                return Err(format!("nothing in the pattern is called :{name}"));
            }
            rest = after;
        }
        let filled = rewrite.filled(|_| Some("x"));
        let inner = filled[1..].strip_suffix('/').unwrap_or(&filled[1..]);
        if !inner.is_empty() {
            check_path(inner).map_err(|why| why.to_string())?;
        }
        if inner == "_" || inner.starts_with("_/") {
            return Err("a route cannot lead to the app's own interfaces below /_/".to_owned());
        }
        Ok(rewrite)
    }

    /// With what the names stand for in their places. What comes is not checked: a name may have stood for anything that a
    /// path can hold.
    pub fn fill(&self, names: &Names<'_>) -> String {
        self.filled(|name| names.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    fn filled<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> String {
        let mut filled = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some((before, name, after)) = next_name(rest) {
            filled.push_str(before);
            filled.push_str(value(name).unwrap_or_default());
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

/// A path as it is compared, without its first slash; or what is wrong with how it is written.
fn plain(text: &str) -> Result<String, String> {
    if text.len() > SitePath::MAX_BYTES {
        return Err(format!("it is longer than {} bytes", SitePath::MAX_BYTES));
    }
    if text.contains('%') {
        return Err("paths are compared decoded: write it without percent-encoding".to_owned());
    }
    if text.contains(['?', '#']) {
        return Err("a path has no ? and no #; the query goes along by itself".to_owned());
    }
    if text.contains("//") {
        return Err("it has an empty segment".to_owned());
    }
    let path: String = text.nfc().collect();
    path.strip_prefix('/').map(str::to_owned).ok_or_else(|| "a path begins with a slash".to_owned())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Splits `text` at its first `:name`: what is before, the name, what is after.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    let begins =
        |(at, _): &(usize, &str)| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let (colon, _) = text.match_indices(':').find(begins)?;
    let rest = &text[colon + 1..];
    let end = rest.bytes().position(|byte| !is_name_byte(byte)).unwrap_or(rest.len());
    Some((&text[..colon], &rest[..end], &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, path: &str) -> Option<String> {
        let pattern = Pattern::parse(pattern).unwrap();
        let names = pattern.names(path)?;
        Some(
            names
                .iter()
                .map(|(name, value)| format!("{name}={value} "))
                .collect::<String>()
                .trim()
                .to_owned(),
        )
    }

    #[test]
    fn a_pattern_is_for_the_paths_it_says() {
        for (pattern, path, found) in [
            ("/", "/", Some("")),
            ("/", "/a", None),
            ("/a", "/a", Some("")),
            ("/a/", "/a", Some("")),
            ("/a", "/a/", Some("")),
            ("/a", "/A", None),
            ("/a", "/a/b", None),
            ("/a", "/ab", None),
            ("/a/:id", "/a/1", Some("id=1")),
            ("/a/:id", "/a", None),
            ("/a/:id", "/a/1/2", None),
            ("/:a/b/:c", "/x/b/y", Some("a=x c=y")),
            ("/*", "/", Some("splat=")),
            ("/*", "/a/b", Some("splat=a/b")),
            ("/a/*", "/a", Some("splat=")),
            ("/a/*", "/a/b/c/", Some("splat=b/c")),
            ("/a/*", "/ab", None),
            ("/e\u{301}", "/\u{e9}", Some("")),
        ] {
            assert_eq!(names(pattern, path).as_deref(), found, "{pattern} {path}");
        }
    }

    #[test]
    fn the_most_particular_comes_first() {
        let mut patterns = ["/*", "/:a", "/a", "/a/*", "/a/:id", "/a/b", "/:x/b", "/a/:id/c", "/"]
            .map(|it| (Pattern::parse(it).unwrap().rank(), it));
        patterns.sort();
        let first =
            |path: &str| patterns.iter().find(|(_, text)| names(text, path).is_some()).map(|(_, text)| *text);
        for (path, pattern) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/z", "/:a"),
            ("/a/b", "/a/b"),
            ("/a/x", "/a/:id"),
            ("/z/b", "/:x/b"),
            ("/a/x/c", "/a/:id/c"),
            ("/a/x/d", "/a/*"),
            ("/z/z", "/*"),
        ] {
            assert_eq!(first(path), Some(pattern), "{path}");
        }
        let alike = |a: &str, b: &str| Pattern::parse(a).unwrap().is_like(&Pattern::parse(b).unwrap());
        assert!(
            alike("/a/:x", "/a/:y/") && alike("/a/", "/a") && !alike("/a/:x", "/a/*") && !alike("/a", "/b")
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "",
            "a",
            "//",
            "/a//b",
            "/a/../b",
            "/.",
            "/a/*/b",
            "/a*",
            "/*a",
            "/:",
            "/:1",
            "/:a-b",
            "/:a/:a",
            "/:splat",
            "/a%20b",
            "/a?b",
            "/a#b",
            "/a\\b",
            "/a\nb",
            "/_",
            "/_/",
            "/_/db/*",
            "/_/:x",
            "/.well-known/jwks.json",
            "/.well-known/acme-challenge/*",
            "/a.",
            "/a /b",
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Pattern::parse(&format!("/{}", "a".repeat(600))).is_err());
        assert!(Pattern::parse(&"/a".repeat(40)).is_err());
        for good in ["/", "/_a", "/a/_/b", "/.well-known/x", "/a b", "/ü", "/a.b/:id/*"] {
            assert!(Pattern::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_rewrite_is_filled_and_stays_a_path() {
        let fill = |pattern: &str, rewrite: &str, path: &str| {
            let pattern = Pattern::parse(pattern).unwrap();
            let names = pattern.names(path).unwrap();
            Rewrite::parse(rewrite, &pattern).map(|rewrite| rewrite.fill(&names))
        };
        assert_eq!(fill("/p/:id", "/posts/:id.html", "/p/7"), Ok("/posts/7.html".to_owned()));
        assert_eq!(fill("/p/*", "/q/:splat", "/p/a/b"), Ok("/q/a/b".to_owned()));
        assert_eq!(fill("/p/*", "/", "/p/a/b"), Ok("/".to_owned()));
        assert_eq!(
            fill("/p/:a/:b", "/:b/:a", "/p/:b/x"),
            Ok("/x/:b".to_owned()),
            "values are not filled again"
        );
        for bad in [
            "",
            "x",
            "//x",
            "/../x",
            "/a/./b",
            "/_/db/x",
            "/_",
            "/:nope",
            "/a?b=:id",
            "/%2e%2e",
            "/a\\b",
            "/*",
            "https://x",
        ] {
            assert!(fill("/p/:id", bad, "/p/1").is_err(), "{bad:?}");
        }
    }
}
