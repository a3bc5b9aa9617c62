//! `storage_put`: stores a file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use capabilities::access::Guest;
use capabilities::storage::Put;
use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct StoragePut;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    bucket: String,
    path: String,
    text: Option<String>,
    base64: Option<String>,
    /// By extension.
    content_type: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    path: String,
    /// In bytes.
    size: u64,
    content_type: String,
    etag: String,
    /// Whether there was none before.
    created: bool,
}

impl Tool<Platform> for StoragePut {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Store a file",
        about: "Makes or replaces a file of a bucket, from text or base64.",
        scopes: &[Scope::StorageWrite],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let bytes = match (input.text, input.base64) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(base64)) => {
                let bytes = STANDARD.decode(base64);
                bytes.map_err(|_| Error::invalid("/base64", "this is not base64"))?.into()
            }
            _ => return Err(Error::invalid("/text", "give either text or base64")),
        };
        let put = Put {
            bucket: input.bucket,
            path: input.path,
            content_type: input.content_type,
            length: Some(bytes.len() as u64),
            ..Put::default()
        };
        let guest = Guest::maker(cx.env().clone());
        let body = futures::stream::iter([Ok(bytes)]);
        let placed = cx.platform().storage.put(&guest, put, body).await?;
        let (object, created) = (placed.object, placed.created);
        Ok(Output {
            path: object.path,
            size: object.size,
            content_type: object.content_type,
            etag: object.etag,
            created,
        })
    }
}
