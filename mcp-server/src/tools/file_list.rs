//! `file_list`: lists files of the caller's sandbox.

use kernel::{Env, Error, Result, Scope};
use sandbox::session::{Completeness, FileKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct FileList;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// /workspace if not said.
    path: Option<String>,
    /// Directories deep; 1 if not said.
    #[schemars(with = "Option<u32>")]
    depth: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Paths with their sizes; a directory's ends with /.
    files: Vec<String>,
    /// Whether there are more: list a directory below, or file_search by name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// How many are listed, and how deep.
const MOST: u32 = 400;
const DEEP: u32 = 16;

/// What the names that are given may cost, in tokens, and how long one is, in bytes.
const GIVEN: usize = 3_500;
const NAME: usize = 200;

impl Tool<Platform> for FileList {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "List files",
        about: "Lists a directory of your sandbox.",
        scopes: &[Scope::SandboxUse],
        effect: Effect::Read,
        examples: &["{}"],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let depth = input.depth.unwrap_or(1);
        if !(1..=DEEP).contains(&depth) {
            return Err(Error::invalid("/depth", format!("{depth} is not from 1 to {DEEP}")));
        }
        let hand = cx.platform().hand(cx.env(), cx.caller()).await?;
        let path = input.path.as_deref().unwrap_or("/workspace");
        let (entries, completeness) = hand.files().list(path, depth, MOST).await?;
        let (mut files, mut more, mut cost) = (Vec::new(), completeness == Completeness::More, 0);
        for entry in entries {
            let mut line = match (entry.kind, entry.target) {
                (FileKind::Directory, _) => format!("{}/", entry.path),
                (FileKind::Link, Some(target)) => format!("{} -> {target}", entry.path),
                _ => format!("{} {}", entry.path, entry.size),
            };
            if line.len() > NAME {
                line.truncate(line.floor_char_boundary(NAME));
                line.push('…');
            }
            cost += budget::estimate(&Value::from(line.as_str()).to_string()) + 1;
            if cost > GIVEN {
                more = true;
                break;
            }
            files.push(line);
        }
        Ok(Output { files, more })
    }
}
