//! `file_search`: finds files and lines in the caller's sandbox.

use kernel::{Env, Error, Result, Scope};
use sandbox::session::{Among, Completeness, Found, Search};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct FileSearch;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Regular expression for lines.
    line: Option<String>,
    /// Glob for names: *.ts, src/**.
    name: Option<String>,
    /// /workspace if not said.
    path: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// `path:line: text`, or paths.
    found: Vec<String>,
    /// Whether there is more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// How many results there are.
const MOST: u32 = 100;

/// How long one of them is, in bytes, and what all may cost, in tokens.
const LINE: usize = 300;
const GIVEN: usize = 3_500;

impl Tool<Platform> for FileSearch {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Search files",
        about: "Searches files of your sandbox by line and name, without what .gitignore names.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Read,
        examples: &[r#"{"name":"*.ts"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        if input.line.is_none() && input.name.is_none() {
            return Err(Error::invalid("/line", "say what a line or a name is like"));
        }
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let search = Search {
            path: input.path.unwrap_or_else(|| "/workspace".to_owned()),
            name: input.name,
            line: input.line,
            among: Among::Tracked,
            limit: MOST,
        };
        let searched = hand.files().search(search).await?;
        let (mut found, mut cost) = (Vec::new(), 0);
        let mut more = searched.completeness == Completeness::More;
        for one in searched.found {
            let mut text = match one {
                Found::File { path } => path,
                Found::Line { path, number, text, .. } => format!("{path}:{number}: {}", text.trim_end()),
                Found::End { .. } => continue,
            };
            if text.len() > LINE {
                text.truncate(text.floor_char_boundary(LINE));
                text.push('…');
            }
            cost += budget::estimate(&Value::from(text.as_str()).to_string()) + 1;
            if cost > GIVEN {
                more = true;
                break;
            }
            found.push(text);
        }
        Ok(Output { found, more })
    }
}
