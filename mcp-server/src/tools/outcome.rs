//! What a release does, cut to what a model can read, and never silently.

use capabilities::releases::{Applied, Change, Effect, EffectKind};
use schemars::JsonSchema;
use serde::Serialize;
use tool::budget;

/// What changes may cost, and effects, in tokens.
const CHANGES: usize = 1_600;
const EFFECTS: usize = 1_600;

/// How many characters of one change's detail are shown.
const DETAIL: usize = 400;

/// Where an app stands after an apply or a rollback.
#[derive(Serialize, JsonSchema)]
pub struct Standing {
    /// The current release.
    release: u64,
    /// Where the app answers.
    url: String,
    /// Whether anything was done.
    changed: bool,
    /// What was done, and what was kept so that no data is lost.
    #[serde(flatten)]
    outcome: Outcome,
}

impl Standing {
    pub fn new(url: String, applied: Applied) -> Self {
        let outcome = Outcome::new(applied.changes, applied.effects);
        Self { release: applied.release, url, changed: applied.changed, outcome }
    }
}

/// Changes and effects.
#[derive(Serialize, JsonSchema)]
pub struct Outcome {
    pub changes: Vec<Change>,
    /// Losses of data first.
    pub effects: Vec<Effect>,
    /// How many of each are left out because there are so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
}

impl Outcome {
    pub fn new(mut changes: Vec<Change>, mut effects: Vec<Effect>) -> Self {
        for detail in changes.iter_mut().filter_map(|change| change.detail.as_mut()) {
            shorten(detail, DETAIL);
        }
        effects.sort_by_key(|effect| effect.kind != EffectKind::DataLoss);
        let losses = effects.iter().filter(|effect| effect.kind == EffectKind::DataLoss).count();
        let (changes, more_changes) = budget::fit(changes, CHANGES);
        let (effects, more_effects) = budget::fit(effects, EFFECTS);
        let more_losses = losses.saturating_sub(effects.len());
        let omitted = (more_changes + more_effects > 0).then(|| {
            format!("{more_changes} changes and {more_effects} effects, {more_losses} of them losses of data")
        });
        Self { changes, effects, omitted }
    }
}

/// The first of `lines` that cost no more than `tokens`, and a last one that counts the rest.
pub fn lines(lines: Vec<String>, tokens: usize) -> Vec<String> {
    let (mut kept, left) = budget::fit(lines, tokens);
    if left > 0 {
        kept.push(format!("and {left} more"));
    }
    kept
}

/// Cuts `text` to `most` characters and says how many are missing.
pub fn shorten(text: &mut String, most: usize) {
    let all = text.chars().count();
    if let Some((at, _)) = text.char_indices().nth(most) {
        text.truncate(at);
        text.push_str(&format!("… and {} more characters", all - most));
    }
}
