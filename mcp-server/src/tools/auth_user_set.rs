//! `auth_user_set`: changes one of an app's users, or makes one.

use capabilities::auth::{Account, Invitation, MfaChange, UserChange};
use capabilities::rows::SignUp;
use kernel::{Env, Error, Result, Scope, Secret};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
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
    /// "" for none.
    phone: Option<String>,
    #[schemars(with = "Option<String>")]
    password: Option<Secret>,
    sign_out: Option<bool>,
    invite: Option<bool>,
    /// Takes second factors away.
    #[serde(default)]
    #[schemars(schema_with = "mfa")]
    mfa: Option<MfaChange>,
}

fn mfa(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["reset"] })
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
        about: "Changes a user of the app, or makes one.",
        scopes: &[Scope::AuthWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"user":"ada@example.org","role":"admin"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let Input { user, role, claims, disabled, email, phone, password, sign_out, invite, mfa } = input;
        let platform = cx.platform();
        let invite = match invite {
            Some(true) => Some(invitation(platform, cx.env()).await?),
            Some(false) | None => None,
        };
        let sign_out = sign_out.unwrap_or_default();
        let change =
            UserChange { user, role, claims, disabled, email, phone, password, sign_out, invite, mfa };
        let set = platform.auth.set_user(cx.env(), change).await?;
        Ok(Output { user: set.user, created: set.created, signed_out: set.signed_out })
    }
}

/// What an invitation to the app says.
async fn invitation(platform: &Platform, env: &Env) -> Result<Invitation> {
    let live = platform.releases.live(env).await?;
    let auth = live.map(|live| live.app.auth.clone()).unwrap_or_default();
    if auth.signup == SignUp::Closed {
        return Err(Error::invalid("/invite", "this app takes no new accounts: auth.signup is closed")
            .hint("auth_configure with signup \"invite\""));
    }
    Ok(Invitation { app: auth.name })
}
