//! What a tool is, and the one road to it.

mod about;
pub mod budget;
mod cx;
mod decode;
mod pipeline;
mod ports;
mod registry;
mod schema;

use std::future::Future;
use std::time::Duration;

use kernel::{Proof, Result, Scope};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use about::about;
pub use cx::{Cx, Progress, Step};
pub use decode::decode;
pub use pipeline::Call;
pub use ports::{Attempt, Host, Ledger, Limiter, Record, ReplayKey, Replays, Underway, ended};
pub use registry::{Doc, Registry};

/// One declared capability. Its name is the name of the file that holds it.
///
/// The doc comments of `Input` are what a model reads: they say what to pass, units, defaults and limits.
pub trait Tool<P: Host>: 'static {
    /// The level the tool works on: [`kernel::Env`] or [`kernel::Tenant`].
    type Proof: Proof;
    /// What goes in. Unknown fields are refused.
    type Input: DeserializeOwned + JsonSchema + Send;
    /// What comes out.
    type Output: Serialize + JsonSchema;

    /// Everything else there is to know without calling it.
    const SPEC: Spec;

    /// Whether agents begin with it, so that clients which load tools when they are searched for load it at once.
    const ENTRY: bool = false;

    /// How long a call may run where its caller sets no deadline.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Does it.
    fn call(
        cx: &Cx<'_, P, Self::Proof>,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// The declaration of a tool.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// A few words for people.
    pub title: &'static str,
    /// What it does, for a model: one or two sentences.
    pub about: &'static str,
    /// What a credential must carry.
    pub scopes: &'static [Scope],
    /// Its risk class.
    pub effect: Effect,
    /// Inputs that work on a fresh environment, as JSON.
    pub examples: &'static [&'static str],
}

/// The risk class of a tool. MCP annotations, approval, parallel runs and retries follow from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes something; a repeat changes nothing more.
    Idempotent,
    /// Changes something each time; loses nothing that was there, or asks first.
    Write,
    /// Takes something away.
    Destroy,
}

impl Effect {
    /// The name in logs, audit rows and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Read => "read",
            Effect::Idempotent => "idempotent",
            Effect::Write => "write",
            Effect::Destroy => "destroy",
        }
    }
}

/// How much of its tools a client asked to see. It narrows what the credential allows and never widens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selection {
    /// Only tools that change nothing.
    ReadOnly,
    /// All but those that take something away.
    Safe,
    /// Whatever the credential allows.
    #[default]
    Full,
}

impl Selection {
    /// Whether tools of this class are in the selection.
    #[must_use]
    pub fn admits(self, effect: Effect) -> bool {
        match self {
            Selection::ReadOnly => effect == Effect::Read,
            Selection::Safe => effect != Effect::Destroy,
            Selection::Full => true,
        }
    }
}
