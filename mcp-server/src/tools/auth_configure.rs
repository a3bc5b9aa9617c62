//! `auth_configure`: changes how an app's users sign in.

use std::collections::{BTreeMap, BTreeSet};

use capabilities::auth::{CALLBACK, Provider};
use capabilities::releases::AuthChange;
use capabilities::rows::{Method, Mfa, SignUp};
use kernel::{Env, Result, Scope};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct AuthConfigure;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    #[serde(default)]
    #[schemars(schema_with = "methods")]
    methods: Option<BTreeSet<Method>>,
    /// Other sites whose pages may call the app.
    origins: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(schema_with = "signup")]
    signup: Option<SignUp>,
    #[serde(default)]
    #[schemars(schema_with = "providers")]
    providers: Option<BTreeMap<String, Provider>>,
    #[serde(default)]
    #[schemars(schema_with = "mfa")]
    mfa: Option<Mfa>,
}

fn providers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

fn methods(_: &mut SchemaGenerator) -> Schema {
    let methods = ["anonymous", "password", "otp", "phone", "passkey", "oauth", "custom"];
    json_schema!({ "type": "array", "items": { "enum": methods } })
}

fn signup(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["open", "invite", "closed"] })
}

fn mfa(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["off", "optional", "required"] })
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The current release.
    release: u64,
    /// Where the app answers.
    url: String,
    /// Whether anything was done.
    changed: bool,
    methods: BTreeSet<Method>,
    origins: Vec<String>,
    signup: SignUp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    providers: Vec<String>,
    /// The address to register with each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<String>,
    mfa: Mfa,
    /// What pages of those origins pass to createClient; may be public.
    publishable_key: String,
}

impl Tool<Platform> for AuthConfigure {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Configure sign-in",
        about: "Sets how users sign in, as a new release. What is left out stays.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"methods":["anonymous","password"]}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let url = platform.url(env).await?;
        let publishable_key = platform.auth.publishable_key(env).await?;
        let Input { methods, origins, signup, mfa, providers } = input;
        let change = AuthChange { methods, origins, signup, mfa, providers };
        let secrets = platform.app_secrets(env).await?;
        let (applied, auth) = platform.releases.configure_auth(env, change, &secrets, cx.cancel()).await?;
        Ok(Output {
            release: applied.release,
            callback: (!auth.providers.is_empty()).then(|| format!("{url}{CALLBACK}{{provider}}")),
            url,
            changed: applied.changed,
            methods: auth.methods,
            origins: auth.origins,
            signup: auth.signup,
            providers: auth.providers.into_keys().collect(),
            mfa: auth.mfa,
            publishable_key,
        })
    }
}
