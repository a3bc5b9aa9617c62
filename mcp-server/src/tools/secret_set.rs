//! `secret_set`: stores a secret that can be used and never read.

use control::SecretKind;
use kernel::{Env, Result, Scope, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct SecretSet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Such as STRIPE_KEY.
    name: String,
    /// Its value.
    #[schemars(with = "String")]
    value: Secret,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// How often it has been set.
    version: i64,
}

impl Tool<Platform> for SecretSet {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Set a secret",
        about: "Stores a value for the app's server side. It cannot be read back.",
        scopes: &[Scope::SecretWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"name":"EXAMPLE_KEY","value":"s3cret"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let secrets = cx.platform().control.secrets();
        let set = secrets.set(cx.env(), &input.name, SecretKind::Function, &input.value).await?;
        Ok(Output { version: set.version })
    }
}
