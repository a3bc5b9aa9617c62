//! Values that an environment was given in secret, covered in what is shown of what is said there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use kernel::{EnvId, Error, Secret};
use serde_json::{Map, Value};

use crate::disguises::disguises;

/// What stands in place of a value.
const COVER: &str = "***";

/// What is shorter is found in any text, and is no secret.
const SHORTEST: usize = 4;

/// A line of a value that has several is covered by itself where it is as long as this.
const LINE: usize = 12;

/// What is shorter is not covered in results: their fields hold words that a short value could be, and what it covers there
/// is lost to whoever needs it.
const SHORTEST_IN_RESULTS: usize = 8;

/// The values of one environment that are known at once; single lines of some go first, then those given longest ago.
const MOST: usize = 512;
/// As many lines of one value are known.
const LINES: usize = MOST;

/// The values, by the environment that has given them. Also those that hold no more: whoever was given one may say it.
#[derive(Debug, Default)]
pub struct Masks {
    known: RwLock<HashMap<EnvId, Known>>,
    read: RwLock<HashMap<EnvId, Read>>,
}

/// Which of an environment's secrets are in the masks, by when they were set, and when that was looked at.
#[derive(Debug)]
struct Read {
    at: Instant,
    versions: HashMap<String, i64>,
}

/// Those of an environment.
#[derive(Debug, Default)]
struct Known {
    /// What is a part of another one comes after it.
    all: Vec<Part>,
    given: u64,
}

#[derive(Debug)]
struct Part {
    text: Secret,
    /// The same in other spellings.
    disguises: Vec<Secret>,
    piece: Piece,
    /// When it was given last, in the order in which all were.
    given: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Line,
    Whole,
}

impl Masks {
    /// From here on these are covered.
    pub fn add<'a>(&self, env: EnvId, values: impl Iterator<Item = &'a Secret>) {
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(env).or_default();
        for value in values {
            let lines = value.expose().lines().map(str::trim).filter(|line| line.len() >= LINE);
            let lines = lines.filter(|line| *line != value.expose()).map(|line| (line, Piece::Line));
            let whole = std::iter::once((value.expose(), Piece::Whole));
            let parts = whole.chain(lines.take(LINES));
            for (text, piece) in parts.filter(|(text, _)| text.len() >= SHORTEST) {
                known.add(text, piece);
            }
            // As often as it takes, so that many values together cost no more than each of them.
            if known.all.len() > 2 * MOST {
                known.trim();
            }
        }
        known.trim();
        known.all.sort_by_key(|part| std::cmp::Reverse(part.text.expose().len()));
    }

    /// The text without them.
    #[must_use]
    pub fn cover<'a>(&self, env: EnvId, text: &'a str) -> Cow<'a, str> {
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&env).map_or(Cow::Borrowed(text), |known| known.cover(text, SHORTEST))
    }

    /// A result without them: what is in its texts is covered, and it keeps its form.
    #[must_use]
    pub fn cover_all(&self, env: EnvId, value: Value) -> Value {
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match all.get(&env) {
            Some(known) if !known.all.is_empty() => known.cover_all(value),
            _ => value,
        }
    }

    /// Whether it was looked at an environment's secrets at most `lately` ago.
    #[must_use]
    pub fn were_read(&self, env: EnvId, lately: Duration) -> bool {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.get(&env).is_some_and(|read| read.at.elapsed() < lately)
    }

    /// Those of these secrets, by name and when they were set, whose values are not in here.
    #[must_use]
    pub fn unknown<'a>(&self, env: EnvId, secrets: impl Iterator<Item = (&'a str, i64)>) -> Vec<&'a str> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        let versions = read.get(&env).map(|read| &read.versions);
        let unknown =
            |(name, version): &(&str, i64)| versions.and_then(|all| all.get(*name)) != Some(version);
        secrets.filter(unknown).map(|(name, _)| name).collect()
    }

    /// From here on these versions are known to be in here.
    pub fn were_added(&self, env: EnvId, versions: HashMap<String, i64>) {
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        read.insert(env, Read { at: Instant::now(), versions });
    }

    /// An error without them: what a function says that does not start is in it.
    #[must_use]
    pub fn covered(&self, env: EnvId, error: Error) -> Error {
        error.reworded(|text| self.cover(env, text).into_owned())
    }

    /// Forgets an environment that is gone.
    pub fn forget(&self, env: EnvId) {
        self.read.write().unwrap_or_else(PoisonError::into_inner).remove(&env);
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&env);
    }
}

impl Known {
    /// Lets lines go first, and then what was given longest ago.
    fn trim(&mut self) {
        let surplus = self.all.len().saturating_sub(MOST);
        if surplus > 0 {
            self.all.sort_unstable_by_key(|part| (part.piece, part.given));
            self.all.drain(..surplus);
        }
    }

    fn add(&mut self, text: &str, piece: Piece) {
        self.given += 1;
        match self.all.iter_mut().find(|part| part.text.expose() == text) {
            Some(part) => {
                part.given = self.given;
                part.piece = part.piece.max(piece);
            }
            None => {
                let disguises = if piece == Piece::Whole { disguises(text) } else { Vec::new() };
                self.all.push(Part { text: Secret::new(text), disguises, piece, given: self.given });
            }
        }
    }

    fn cover<'a>(&self, text: &'a str, shortest: usize) -> Cow<'a, str> {
        let mut shown = Cow::Borrowed(text);
        for part in &self.all {
            for hidden in std::iter::once(&part.text).chain(&part.disguises).map(Secret::expose) {
                if hidden.len() >= shortest && shown.contains(hidden) {
                    shown = Cow::Owned(shown.replace(hidden, COVER));
                }
            }
        }
        shown
    }

    fn cover_all(&self, value: Value) -> Value {
        match value {
            Value::String(text) => match self.cover(&text, SHORTEST_IN_RESULTS) {
                Cow::Borrowed(_) => Value::String(text),
                Cow::Owned(covered) => Value::String(covered),
            },
            Value::Array(items) => items.into_iter().map(|item| self.cover_all(item)).collect(),
            Value::Object(fields) => {
                let covered = |(name, value): (String, Value)| {
                    let name = match self.cover(&name, SHORTEST_IN_RESULTS) {
                        Cow::Borrowed(_) => name,
                        Cow::Owned(covered) => covered,
                    };
                    (name, self.cover_all(value))
                };
                Value::Object(fields.into_iter().map(covered).collect::<Map<_, _>>())
            }
            // A number, a truth or nothing: a value is a text.
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_first_and_then_what_was_given_longest_ago() {
        let (masks, env) = (Masks::default(), EnvId::new());
        let add = |value: &str| masks.add(env, [Secret::new(value)].iter());
        let covers = |text: &str| masks.cover(env, text) == COVER;
        let line = |n: usize| format!("line-{n:0>60}");
        add("a-long-value-that-was-given-first-and-is-given-again");
        add("a-long-value-that-was-given-first-and-never-again");
        let lines: Vec<String> = (0..MOST).map(line).collect();
        add(&lines.join("\n"));
        assert!(!covers(&line(0)) && covers(&line(MOST - 1)));
        assert!(covers("a-long-value-that-was-given-first-and-never-again"));
        for n in 0..MOST - 3 {
            add(&format!("short-{n}"));
        }
        assert!(covers(&lines.join("\n")) && !covers(&line(MOST - 1)));
        add("a-long-value-that-was-given-first-and-is-given-again");
        add("one-more");
        assert!(covers("a-long-value-that-was-given-first-and-is-given-again"));
        assert!(!covers("a-long-value-that-was-given-first-and-never-again"));
        assert!(covers("one-more") && covers("short-0"));
    }

    #[test]
    fn an_error_says_nothing_of_them() {
        let (masks, env) = (Masks::default(), EnvId::new());
        masks.add(env, [Secret::new("hidden")].iter());
        let error = Error::invalid("/files", "it throws hidden").hint("look at hidden");
        let covered = masks.covered(env, error);
        assert_eq!((covered.message(), covered.advice()), ("it throws ***", Some("look at ***")));
        assert_eq!(covered.pointer(), Some("/files"));
    }

    #[test]
    fn a_result_keeps_its_form() {
        let (masks, env) = (Masks::default(), EnvId::new());
        masks.add(env, ["hidden-value", "short", "12345678"].map(Secret::new).iter());
        let result = serde_json::json!({
            "rows": [["a hidden-value", 12345678, null, true], { "hidden-value": "short" }],
            "of": "Bearer aGlkZGVuLXZhbHVl, user:pw aDpoaWRkZW4tdmFsdWU=",
        });
        let shown = serde_json::json!({
            "rows": [["a ***", 12345678, null, true], { "***": "short" }],
            "of": "Bearer ***, user:pw aDp***U=",
        });
        assert_eq!(masks.cover_all(env, result.clone()), shown);
        assert_eq!(masks.cover_all(EnvId::new(), result.clone()), result);
    }

    #[test]
    fn what_was_read_is_not_read_again_until_it_is_another() {
        let (masks, env) = (Masks::default(), EnvId::new());
        let secrets = [("A", 1), ("B", 2)];
        assert!(!masks.were_read(env, Duration::from_secs(60)));
        assert_eq!(masks.unknown(env, secrets.into_iter()), ["A", "B"]);
        masks.were_added(env, [("A".to_owned(), 1), ("B".to_owned(), 1)].into());
        assert_eq!(masks.unknown(env, secrets.into_iter()), ["B"]);
        assert!(masks.were_read(env, Duration::from_secs(60)) && !masks.were_read(env, Duration::ZERO));
        masks.forget(env);
        assert_eq!(masks.unknown(env, secrets.into_iter()), ["A", "B"]);
    }

    #[test]
    fn what_was_given_in_secret_is_covered_and_nothing_else_is() {
        let (masks, env) = (Masks::default(), EnvId::new());
        let values = ["hidden", "hidden-more", "abc", "-----BEGIN-----\nline-of-a-long-key\n-----END-----"];
        masks.add(env, values.map(Secret::new).iter());
        for (said, shown) in [
            ("nothing", "nothing"),
            ("a hidden-more b hidden", "a *** b ***"),
            ("abc", "abc"),
            ("a line-of-a-long-key", "a ***"),
        ] {
            assert_eq!(masks.cover(env, said), shown);
        }
        assert_eq!(masks.cover(EnvId::new(), "hidden"), "hidden", "it is another's");
        masks.forget(env);
        assert_eq!(masks.cover(env, "hidden"), "hidden");
    }
}
