//! `file_read`: reads a text file of the caller's sandbox.

use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool, budget};

use super::whole_text::whole_text;
use crate::platform::Platform;

pub struct FileRead;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    path: String,
    /// First line, from 1.
    #[schemars(with = "Option<u64>")]
    line: Option<u64>,
    /// At most so many lines.
    #[schemars(with = "Option<u64>")]
    lines: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The text.
    text: String,
    /// The line to go on with, where there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_line: Option<u64>,
}

/// How much of it is given at once, in bytes, and what that may cost, in tokens.
const GIVEN: usize = 10_000;
const TOKENS: usize = 3_600;

impl Tool<Platform> for FileRead {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Read a file",
        about: "Reads a text file of your sandbox, as far as a result goes.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Read,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let first = input.line.unwrap_or(1);
        if first == 0 || input.lines == Some(0) {
            let field = if first == 0 { "/line" } else { "/lines" };
            return Err(Error::invalid(field, "lines are counted from 1"));
        }
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let text = whole_text(&hand, &input.path).await?;
        let most = usize::try_from(input.lines.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let skipped = usize::try_from(first - 1).unwrap_or(usize::MAX);
        let (mut given, mut taken, mut cost) = (String::new(), 0, 0);
        let mut lines = text.split_inclusive('\n').skip(skipped);
        for line in lines.by_ref().take(most) {
            cost += budget::estimate(&Value::from(line).to_string());
            if !given.is_empty() && (given.len() + line.len() > GIVEN || cost > TOKENS) {
                return Ok(Output { text: given, next_line: Some(first + taken) });
            }
            // One line may be longer than a result.
            let mut end = line.floor_char_boundary(GIVEN);
            while budget::estimate(&Value::from(&line[..end]).to_string()) > TOKENS {
                end = line.floor_char_boundary(end / 2);
            }
            given.push_str(&line[..end]);
            if end < line.len() {
                given.push_str("… (the line goes on: cut it with shell_run)\n");
            }
            taken += 1;
        }
        let next_line = lines.next().map(|_| first + taken);
        Ok(Output { text: given, next_line })
    }
}
