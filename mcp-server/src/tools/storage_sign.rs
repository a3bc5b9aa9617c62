//! `storage_sign`: a link to a file that needs no session.

use std::time::Duration;

use capabilities::access::Guest;
use capabilities::storage::{LIFE, LinkMethod, Sign};
use kernel::{Env, Principal, Result, Scope, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct StorageSign;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    bucket: String,
    path: String,
    method: Method,
    /// Seconds, default 600.
    #[schemars(with = "Option<i64>")]
    expires_in: Option<u64>,
}

// Without the words that explain them, which models know.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Get,
    Put,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    url: String,
    expires_at: String,
}

impl Tool<Platform> for StorageSign {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Sign a link",
        about: "Makes a URL that reads or stores one file without a session.",
        scopes: &[Scope::StorageRead, Scope::StorageWrite],
        effect: Effect::Write,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let Input { bucket, path, method, expires_in } = input;
        let method = match method {
            Method::Get => LinkMethod::Get,
            Method::Put => LinkMethod::Put,
        };
        let mut expires_in = expires_in.map(Duration::from_secs);
        // It ends with the credential that makes it: the shown time of one that is minted says so too.
        let guest = Guest::maker(env.clone()).with_key(cx.caller().credential);
        if let (Principal::Run(_), Some(end)) = (&cx.caller().principal, cx.caller().expires) {
            let left = end.as_micros().saturating_sub(Timestamp::now().as_micros());
            let left = Duration::from_micros(u64::try_from(left).unwrap_or_default());
            expires_in = Some(expires_in.unwrap_or(LIFE).min(left));
        }
        let sign = Sign { bucket, path, method, expires_in, max_size: None, content_type: None };
        let link = platform.storage.sign(&guest, sign).await?;
        let url = format!("{}{}", platform.url(env).await?, link.address());
        Ok(Output { url, expires_at: link.expires_at.to_string() })
    }
}
