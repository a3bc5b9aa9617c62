//! `storage_get`: a file, and its content where it is a text that fits.

use capabilities::access::Guest;
use futures::TryStreamExt as _;
use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct StorageGet;

/// What the text may cost, in tokens, and how much is read to find it, in bytes.
const TOKENS: usize = 3_200;
const READ: u64 = 24_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    bucket: String,
    path: String,
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    path: String,
    /// In bytes.
    size: u64,
    content_type: String,
    etag: String,
    /// The user who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// What is noted about it, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    created_at: String,
    updated_at: String,
    /// Its content, or a part; absent where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Where the text goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for StorageGet {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Read a file",
        about: "Reads a file: what it is, and its content if that is text.",
        scopes: &[Scope::StorageRead],
        effect: Effect::Read,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let storage = &cx.platform().storage;
        let guest = Guest::maker(cx.env().clone());
        let object = storage.get(&guest, &input.bucket, &input.path).await?;
        let wrong = || Error::invalid("/cursor", "the cursor does not belong to this file");
        let start = match &input.cursor {
            Some(cursor) => cursor.parse::<u64>().ok().filter(|at| *at <= object.size).ok_or_else(wrong)?,
            None => 0,
        };
        let end = object.size.min(start + READ);
        let bytes = storage.read(&guest, &object, start..end).await?;
        let bytes = bytes.try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        let part = text(&bytes.await?);
        let next = start + part.as_ref().map_or(0, |text| text.len() as u64);
        let metadata =
            object.metadata.as_object().filter(|it| !it.is_empty()).map(|_| object.metadata.to_string());
        Ok(Output {
            path: object.path,
            size: object.size,
            content_type: object.content_type,
            etag: object.etag,
            owner: object.owner,
            metadata,
            created_at: object.created_at,
            updated_at: object.updated_at,
            cursor: (part.is_some() && next < object.size).then(|| next.to_string()),
            text: part,
        })
    }
}

/// The text that `bytes` begin with and that fits; none where they begin with something else.
fn text(bytes: &[u8]) -> Option<String> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // What is cut off in the middle of a character is one all the same.
        Err(cut) if cut.error_len().is_none() => std::str::from_utf8(&bytes[..cut.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if valid.contains('\0') || (valid.is_empty() && !bytes.is_empty()) {
        return None;
    }
    let mut end = valid.len();
    while budget::estimate(&valid[..end]) > TOKENS {
        end = valid.floor_char_boundary(end * 3 / 4);
    }
    Some(valid[..end].to_owned())
}
