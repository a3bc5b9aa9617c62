//! Values that functions were given in secret, covered in what is shown of what they say.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use kernel::{EnvId, Error, Secret};

/// What stands in place of a value.
const COVER: &str = "***";

/// What is shorter is found in any text, and is no secret.
const SHORTEST: usize = 4;

/// A line of a value that has several is covered by itself where it is as long as this.
const LINE: usize = 12;

/// The values of one environment that are known at once; single lines of some go first, then those given longest ago.
const MOST: usize = 512;

/// The values, by the environment that has given them. Also those that hold no more: whoever was given one may say it.
#[derive(Debug, Default)]
pub struct Masks(RwLock<HashMap<EnvId, Known>>);

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
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(env).or_default();
        for value in values {
            let lines = value.expose().lines().map(str::trim).filter(|line| line.len() >= LINE);
            let lines = lines.filter(|line| *line != value.expose()).map(|line| (line, Piece::Line));
            let whole = std::iter::once((value.expose(), Piece::Whole));
            for (text, piece) in whole.chain(lines).filter(|(text, _)| text.len() >= SHORTEST) {
                known.add(text, piece);
            }
        }
        let surplus = known.all.len().saturating_sub(MOST);
        if surplus > 0 {
            known.all.sort_unstable_by_key(|part| (part.piece, part.given));
            known.all.drain(..surplus);
        }
        known.all.sort_by_key(|part| std::cmp::Reverse(part.text.expose().len()));
    }

    /// The text without them.
    #[must_use]
    pub fn cover<'a>(&self, env: EnvId, text: &'a str) -> Cow<'a, str> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut shown = Cow::Borrowed(text);
        for part in all.get(&env).into_iter().flat_map(|known| &known.all) {
            if shown.contains(part.text.expose()) {
                shown = Cow::Owned(shown.replace(part.text.expose(), COVER));
            }
        }
        shown
    }

    /// An error without them: what a function says that does not start is in it.
    #[must_use]
    pub fn covered(&self, env: EnvId, error: Error) -> Error {
        error.reworded(|text| self.cover(env, text).into_owned())
    }

    /// Forgets an environment that is gone.
    pub fn forget(&self, env: EnvId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&env);
    }
}

impl Known {
    fn add(&mut self, text: &str, piece: Piece) {
        self.given += 1;
        match self.all.iter_mut().find(|part| part.text.expose() == text) {
            Some(part) => {
                part.given = self.given;
                part.piece = part.piece.max(piece);
            }
            None => self.all.push(Part { text: Secret::new(text), piece, given: self.given }),
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
