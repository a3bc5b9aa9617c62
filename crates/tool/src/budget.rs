//! How many tokens a text costs a model, estimated from above without a tokenizer.

use serde::Serialize;

/// What a result may cost, in tokens of the o200k vocabulary.
pub const RESULT_TOKENS: usize = 4_000;

/// How many letters a usual word has at most; what is longer is rather an id, which costs twice as much.
const WORD: usize = 6;

/// An estimate of the o200k tokens in `text`, from above for text that people or programs write, and never below
/// six tenths of the truth.
#[must_use]
pub fn estimate(text: &str) -> usize {
    let mut thirds = 0;
    let mut previous = Kind::Space;
    let mut run = 0;
    for byte in text.bytes() {
        let kind = Kind::of(byte);
        run = if kind == previous { run + 1 } else { 1 };
        previous = kind;
        thirds += match kind {
            Kind::Letter => 1 + 2 * usize::from(run == 1) + usize::from(run > WORD),
            Kind::Digit => 1 + 2 * usize::from(run % 3 == 1),
            Kind::Space => usize::from(run > 1),
            Kind::Punctuation => 3,
            Kind::Other => 2,
        };
    }
    thirds.div_ceil(3)
}

/// The first of `items` that cost no more than `tokens` together, and how many are left over.
pub fn fit<T: Serialize>(items: Vec<T>, tokens: usize) -> (Vec<T>, usize) {
    let (mut spent, all) = (0, items.len());
    let kept: Vec<T> = items
        .into_iter()
        .take_while(|item| {
            // What does not serialize costs nothing and fails where it is written.
            spent += serde_json::to_string(item).map_or(0, |text| estimate(&text) + 1);
            spent <= tokens
        })
        .collect();
    let left = all - kept.len();
    (kept, left)
}

#[derive(PartialEq, Clone, Copy)]
enum Kind {
    Letter,
    Digit,
    Space,
    Punctuation,
    Other,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Kind::Letter,
            b'0'..=b'9' => Kind::Digit,
            b' ' => Kind::Space,
            0..=127 => Kind::Punctuation,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
