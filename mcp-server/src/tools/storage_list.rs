//! `storage_list`: the files of a bucket.

use capabilities::access::Guest;
use capabilities::storage::{ListFiles, Object};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct StorageList;

/// What a page may cost, in tokens.
const TOKENS: usize = 3_400;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    bucket: String,
    prefix: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    files: Vec<File>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// One file.
#[derive(Serialize, JsonSchema)]
pub struct File {
    path: String,
    /// In bytes.
    size: u64,
    content_type: String,
    /// The user who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    updated_at: String,
}

impl Tool<Platform> for StorageList {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "List files",
        about: "Lists a bucket's files by path.",
        scopes: &[Scope::StorageRead],
        effect: Effect::Read,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let guest = Guest::maker(cx.env().clone());
        let query = ListFiles { prefix: input.prefix, limit: None, cursor: input.cursor };
        let listed = cx.platform().storage.list(&guest, &input.bucket, &query).await?;
        let mut cursors: Vec<String> = listed.files.iter().map(Object::cursor).collect();
        let files = listed.files.into_iter().map(|file| File {
            path: file.path,
            size: file.size,
            content_type: file.content_type,
            owner: file.owner,
            updated_at: file.updated_at,
        });
        let (files, left) = budget::fit(files.collect(), TOKENS);
        cursors.truncate(files.len());
        let cursor = if left > 0 { cursors.pop() } else { listed.cursor };
        Ok(Output { files, cursor })
    }
}
