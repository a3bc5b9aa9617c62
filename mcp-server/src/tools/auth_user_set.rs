//! `auth_user_set`: changes one of an app's users, or makes one.

use capabilities::auth::{Account, UserChange};
use kernel::{Env, Result, Scope, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct AuthUserSet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Id or address.
    user: String,
    role: Option<String>,
    claims: Option<Map<String, Value>>,
    disabled: Option<bool>,
    email: Option<String>,
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
    sign_out: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    user: Account,
    /// Whether the user is new.
    created: bool,
    /// How many sessions have ended.
    signed_out: u64,
}

impl Tool<Platform> for AuthUserSet {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Set a user",
        about: "Changes a user of the app, or makes one with a new address. Roles: user, admin, or any.",
        scopes: &[Scope::AuthWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"user":"ada@example.org","role":"admin"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let Input { user, role, claims, disabled, email, password, sign_out } = input;
        let sign_out = sign_out.unwrap_or_default();
        let change = UserChange { user, role, claims, disabled, email, password, sign_out };
        let set = cx.platform().auth.set_user(cx.env(), change).await?;
        Ok(Output { user: set.user, created: set.created, signed_out: set.signed_out })
    }
}
