//! What random attacks are made of: numbers, values and rules that depend on a seed alone.

use serde_json::{Map, Value, json};

use crate::app_reference::Access;
use crate::app_rules::{Of, Rule, Rules};

const TEXTS: [&str; 12] =
    ["", "a", "ab", "abc", "b", "B", "é", "日本", "%", "_", "x' OR 1=1 --", "say \"it\""];
const OPERATORS: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];

/// A generator of numbers that depend on nothing but the seed (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Values of a row; where it is whole, with all that a new row needs.
    pub fn values(&mut self, whole: bool) -> Map<String, Value> {
        let mut values = Map::new();
        if whole || self.once_in(2) {
            values.insert("title".to_owned(), self.of(&TEXTS).into());
        }
        if self.once_in(2) {
            values.insert("n".to_owned(), self.number());
        }
        if self.once_in(2) {
            values.insert("done".to_owned(), self.once_in(2).into());
        }
        if self.once_in(3) || values.is_empty() {
            let note = if self.once_in(3) { Value::Null } else { self.of(&TEXTS).into() };
            values.insert("note".to_owned(), note);
        }
        values
    }

    fn number(&mut self) -> Value {
        if self.once_in(5) { Value::Null } else { (self.below(9) as i64 - 3).into() }
    }

    /// A rule or a filter over columns of these rows, with others inside it down to this depth.
    pub fn rule(&mut self, of: &[Of], owner: bool, depth: usize) -> Rule {
        let at = self.of(of);
        let text = (at, if self.once_in(2) { "title" } else { "note" });
        let inner = |chance: &mut Self| chance.rule(of, owner, depth - 1).into();
        match self.below(if depth == 0 { 14 } else { 20 }) {
            0 => Rule::Constant(self.once_in(2)),
            1 | 2 => Rule::Compare(text, self.of(&OPERATORS), self.of(&TEXTS).into()),
            3 => Rule::Compare((at, "n"), self.of(&OPERATORS), json!(self.below(9) as i64 - 3)),
            4 => Rule::Compare((at, "done"), self.of(&OPERATORS[..2]), self.once_in(2).into()),
            5 => Rule::Absent((at, self.of(&["n", "note", "title"])), self.once_in(2)),
            6 => Rule::StartsWith(text, self.of(&["a", "ab", "é", "%", "日", ""])),
            7 => Rule::Longer(text, self.below(4)),
            8 => Rule::In((at, "n"), (0..1 + self.below(4)).map(|_| json!(self.below(6))).collect()),
            9 => Rule::Role(self.of(&["admin", "user"])),
            10 => Rule::SignedIn,
            11 if of.len() > 1 => Rule::Kept(self.of(&["title", "n", "done", "note"]), self.once_in(2)),
            11..=13 if owner => Rule::Mine(at),
            11..=13 => Rule::Absent((at, "note"), self.once_in(2)),
            14 | 15 => Rule::Not(inner(self)),
            16 | 17 => Rule::All(inner(self), inner(self)),
            _ => Rule::Any(inner(self), inner(self)),
        }
    }

    /// Who may do what with a table.
    pub fn access(&mut self) -> Access {
        match self.below(8) {
            0 => Access::Private,
            1 => Access::PublicRead,
            2 => Access::AdminWrite,
            3 => Access::AdminOnly,
            4 => Access::Shut,
            _ => Access::Rules(self.rules().into()),
        }
    }

    fn rules(&mut self) -> Rules {
        let mut rule = |of: &[Of]| (!self.once_in(8)).then(|| self.rule(of, true, 2));
        Rules {
            list: rule(&[Of::Row]),
            get: rule(&[Of::Row]),
            create: rule(&[Of::New]),
            update: rule(&[Of::Row, Of::New]),
            delete: rule(&[Of::Row]),
        }
    }
}
