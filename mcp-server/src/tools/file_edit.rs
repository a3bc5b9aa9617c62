//! `file_edit`: changes one place of a text file of the caller's sandbox.

use kernel::{Env, Error, Result, Scope};
use sandbox::session::Write;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::whole_text::whole_text;
use crate::platform::Platform;

pub struct FileEdit;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    path: String,
    /// Text that is there, exactly once unless `all`.
    old: String,
    new: String,
    /// Every place.
    all: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Places changed.
    changed: u64,
}

impl Tool<Platform> for FileEdit {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Edit a file",
        about: "Replaces a text in a file of your sandbox.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Write,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        if input.old.is_empty() {
            return Err(
                Error::invalid("/old", "nothing is in every place").hint("file_write writes a file whole")
            );
        }
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let text = whole_text(&hand, &input.path).await?;
        let changed = text.matches(input.old.as_str()).count() as u64;
        match (changed, input.all.unwrap_or_default()) {
            (0, _) => {
                return Err(Error::invalid("/old", "the text is not in the file")
                    .hint("read the file again: spaces and line ends count"));
            }
            (1, _) | (_, true) => {}
            (several, false) => {
                return Err(Error::invalid("/old", format!("the text is in {several} places"))
                    .hint("take more of what is around it, or pass all"));
            }
        }
        let text = text.replace(&input.old, &input.new);
        // What has the same name by then is what somebody else has just written; last one wins, as in any editor.
        hand.files().write(&input.path, text.as_bytes(), text.len() as u64, Write::default()).await?;
        Ok(Output { changed })
    }
}
