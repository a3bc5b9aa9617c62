//! What a plan says it will do, and what that means for those who use the app.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that a plan does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// To what: `table todos`, `column todos.done`, `site`.
    pub target: String,
    /// How, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Alter,
    /// It is removed.
    Drop,
    /// It runs once.
    Run,
    /// It stays although it is not in the release, because removing it would lose data.
    Keep,
}

/// What a plan means for those who use the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// Of which kind.
    pub kind: EffectKind,
    /// On what.
    pub target: String,
    /// In words, with numbers.
    pub message: String,
}

/// The kinds of effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Data is lost; needs confirmation.
    DataLoss,
    /// Who may see or do what changes.
    Privilege,
    /// It takes time or space.
    Cost,
}

/// What a part of the app contributes to a plan.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub changes: Vec<Change>,
    pub effects: Vec<Effect>,
    /// SQL to run in the release's transaction, in order, each with the place in the manifest that asks for it.
    pub steps: Vec<(String, String)>,
    /// The names of contents of files that go.
    pub gone: Vec<String>,
    /// The place whose steps are being added.
    pub place: String,
    /// Whether a table is dropped or rebuilt, for which the engine must not act on foreign keys meanwhile.
    pub foreign_keys_off: bool,
}

impl Draft {
    pub(crate) fn change(&mut self, action: Action, target: impl Into<String>, detail: Option<String>) {
        self.changes.push(Change { action, target: target.into(), detail });
    }

    pub(crate) fn effect(&mut self, kind: EffectKind, target: impl Into<String>, message: impl Into<String>) {
        self.effects.push(Effect { kind, target: target.into(), message: message.into() });
    }

    pub(crate) fn step(&mut self, sql: impl Into<String>) {
        self.steps.push((self.place.clone(), sql.into()));
    }
}
