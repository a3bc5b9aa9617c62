//! Lists cut to what a result may cost. What is left out is always said.

use capabilities::releases::{Change, Effect, EffectKind};
use serde::Serialize;
use tool::budget::{RESULT_TOKENS, estimate};

/// How much room is left in a result, in tokens.
pub struct Room(usize);

impl Room {
    /// The room of a whole result, but for what stands around its lists.
    pub const fn of_result() -> Self {
        Self(RESULT_TOKENS - 400)
    }

    pub const fn new(tokens: usize) -> Self {
        Self(tokens)
    }

    /// Takes the room that `item` needs, if there is as much.
    pub fn admits(&mut self, item: &impl Serialize) -> bool {
        let tokens = cost(item);
        let fits = tokens <= self.0;
        if fits {
            self.0 -= tokens;
        }
        fits
    }

    /// Keeps the first items as far as there is room. Returns how many had to go.
    pub fn cut<T: Serialize>(&mut self, items: &mut Vec<T>) -> usize {
        let before = items.len();
        let fit = items.iter().position(|item| !self.admits(item)).unwrap_or(before);
        items.truncate(fit);
        before - fit
    }
}

/// What `item` costs among others.
pub fn cost(item: &impl Serialize) -> usize {
    serde_json::to_string(item).map_or(usize::MAX, |text| estimate(&text) + 1)
}

/// The beginning of a text of more than `most` bytes.
pub fn clip(text: String, most: usize) -> String {
    if text.len() <= most { text } else { format!("{}…", &text[..text.floor_char_boundary(most)]) }
}

/// The first of `texts`, each cut to a line, as far as `tokens` go; the last one says how many more there are.
pub fn few(texts: Vec<String>, tokens: usize) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().map(|text| clip(text, 200)).collect();
    let more = Room::new(tokens).cut(&mut texts);
    if more > 0 {
        texts.push(format!("… and {more} more"));
    }
    texts
}

/// Changes and effects as far as a result has room for them, losses of data first, and what was left out.
pub fn outcome(
    mut changes: Vec<Change>,
    mut effects: Vec<Effect>,
) -> (Vec<Change>, Vec<Effect>, Option<String>) {
    effects.sort_by_key(|effect| match effect.kind {
        EffectKind::DataLoss => 0,
        EffectKind::Privilege => 1,
        EffectKind::Cost => 2,
    });
    for change in &mut changes {
        change.detail = change.detail.take().map(|detail| clip(detail, 600));
    }
    for effect in &mut effects {
        effect.message = clip(std::mem::take(&mut effect.message), 600);
    }
    let mut room = Room::of_result();
    let hidden_effects = room.cut(&mut effects);
    let hidden_changes = room.cut(&mut changes);
    let left_out = (hidden_changes + hidden_effects > 0)
        .then(|| format!("{hidden_changes} more changes and {hidden_effects} more effects"));
    (changes, effects, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let texts: Vec<String> = (0..100).map(|n| format!("table {n}")).collect();
        let few = few(texts, 50);
        assert!(few.len() < 30, "{few:?}");
        assert_eq!(few.last().cloned(), Some(format!("… and {} more", 101 - few.len())));
        assert_eq!(clip("äöü".to_owned(), 3), "ä…");
    }
}
