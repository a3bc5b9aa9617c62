//! `storage_bucket`: makes a bucket of files, or changes one.

use capabilities::access::AccessSpec;
use capabilities::releases::BucketChange;
use capabilities::storage::MAX_SIZE;
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use super::access_set::AccessInput;
use super::outcome::Standing;
use crate::platform::Platform;

pub struct StorageBucket;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    name: String,
    /// As of a table; row is a file's path, size, content_type, owner, metadata.
    access: Option<AccessInput>,
    /// Bytes of one file.
    #[schemars(with = "Option<i64>")]
    max_size: Option<u64>,
    /// image/png, image/* …
    types: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    #[serde(flatten)]
    standing: Standing,
    /// Who may do what; nobody where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<AccessSpec>,
    /// The largest file, in bytes.
    max_size: u64,
    /// Content types that files may have; any where it is empty.
    types: Vec<String>,
}

impl Tool<Platform> for StorageBucket {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Set a bucket",
        about: "Makes or changes a bucket of files, as a new release. What is left out stays.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"name":"photos","access":"private","types":["image/*"]}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let access = input.access.map(AccessInput::parse).transpose()?;
        let url = platform.url(env).await?;
        let Input { name, max_size, types, .. } = input;
        let change = BucketChange { name, access, max_size, types };
        let (applied, bucket) = platform.releases.set_bucket(env, change, cx.cancel()).await?;
        Ok(Output {
            standing: Standing::new(url, applied),
            access: bucket.access,
            max_size: bucket.max_size.unwrap_or(MAX_SIZE),
            types: bucket.types,
        })
    }
}
