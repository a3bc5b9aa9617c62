//! Files as tools take them: a plain object to a model, checked completely inside, or a directory of its sandbox.

use std::borrow::Cow;
use std::collections::BTreeMap;

use capabilities::hosting::{FileSpec, Limits};
use kernel::{Code, Env, Error, Result, Scope};
use sandbox::session::TreeCaps;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};
use tool::Cx;

use crate::platform::Platform;

/// Files that have not been checked.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct FilesInput(Map<String, Value>);

impl FilesInput {
    /// Checks their form; their paths and content are hosting's to check.
    ///
    /// # Errors
    /// `invalid_input` that points at the file.
    pub fn parse(self) -> Result<BTreeMap<String, FileSpec>> {
        tool::decode(Value::Object(self.0)).map_err(|e| e.under("/files"))
    }
}

impl JsonSchema for FilesInput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// Files as a call gives them: themselves, or a directory of the caller's workspace; none where it gives neither.
///
/// # Errors
/// `invalid_input` where it gives both, and for what is wrong with them; `timeout` where it is given up meanwhile.
pub async fn given(
    cx: &Cx<'_, Platform, Env>,
    files: Option<FilesInput>,
    workspace_path: Option<&str>,
) -> Result<Option<BTreeMap<String, FileSpec>>> {
    match (files, workspace_path) {
        (Some(files), None) => files.parse().map(Some),
        (None, Some(path)) => tokio::select! {
            files = stored(cx, path) => files.map(Some).map_err(at_path),
            () = cx.cancel().cancelled() => {
                Err(Error::new(Code::Timeout, "the call was given up, and nothing was deployed"))
            }
        },
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Error::invalid("/files", "give either files or workspace_path")),
    }
}

/// The files below a directory of the caller's workspace, stored as blobs.
async fn stored(cx: &Cx<'_, Platform, Env>, path: &str) -> Result<BTreeMap<String, FileSpec>> {
    let env = cx.env();
    env.permits(&[Scope::SandboxUse])?;
    let hand = cx.platform().hand(env, cx.caller()).await?;
    let Limits { files, file_bytes, bytes } = Limits::default();
    let caps = TreeCaps { files: files as u64, file_bytes, bytes };
    let _turn = hand.turn().await?;
    let mut tree = hand.files().tree(path, caps).await?;
    let mut stored = BTreeMap::new();
    while let Some((path, content)) = tree.file().await? {
        let sha256 = cx.platform().blobs.put(env, content).await?;
        stored.insert(path, FileSpec::Blob { sha256: sha256.to_string() });
    }
    if stored.is_empty() {
        return Err(Error::invalid("/workspace_path", "there is no file in it")
            .hint("build first what is to be deployed"));
    }
    Ok(stored)
}

/// What is wrong with a directory of the workspace, said of the field that names it.
pub fn at_path(error: Error) -> Error {
    match error.code() {
        Code::InvalidInput | Code::NotFound | Code::TooLarge => error.field("/workspace_path"),
        _ => error,
    }
}
