//! The second step of what cannot be undone: the token of a dry run comes back.

use kernel::{Code, Error, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::outcome::lines;
use crate::platform::Platform;

/// What the losses that an error or a dry run names may cost, in tokens.
pub const LOSSES: usize = 2_400;

/// What a deletion, or its dry run, has come to.
#[derive(Serialize, JsonSchema)]
pub struct Deletion {
    /// Whether it is gone.
    pub deleted: bool,
    /// What is, or would be, lost.
    pub effects: Vec<String>,
    /// What to pass to delete it, after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// What is to be confirmed.
pub struct Confirm<'a> {
    /// The tool.
    pub action: &'static str,
    /// On what, and whose.
    pub subject: &'a str,
    /// What would be lost, as it was shown.
    pub losses: &'a [String],
}

impl Confirm<'_> {
    /// The token that a dry run hands out.
    pub fn issue(&self, platform: &Platform) -> String {
        platform.control.confirmations().issue(self.action, self.subject, &self.state()).token
    }

    /// Uses the token up.
    ///
    /// # Errors
    /// `conflict` naming the losses where there is no token; what is wrong with it otherwise.
    pub async fn redeem(&self, platform: &Platform, given: Option<&str>) -> Result<()> {
        let given = given.ok_or_else(|| unconfirmed(self.losses))?;
        platform.control.confirmations().redeem(self.action, self.subject, &self.state(), given).await
    }

    fn state(&self) -> Vec<u8> {
        self.losses.join("\n").into_bytes()
    }
}

/// The refusal to do without a dry run what cannot be undone.
pub fn unconfirmed(losses: &[String]) -> Error {
    let losses = lines(losses.to_vec(), LOSSES);
    let message = match losses.as_slice() {
        [] => "this cannot be undone".to_owned(),
        losses => format!("this cannot be undone: {}", losses.join("; ")),
    };
    Error::new(Code::Conflict, message)
        .field("/confirm")
        .hint("call with dry_run, then again with the `confirm` that it returns")
}
