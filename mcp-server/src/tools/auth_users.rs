//! `auth_users`: lists an app's users.

use capabilities::auth::{Account, COSTLIEST, Users};
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct AuthUsers;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Part of an address.
    query: Option<String>,
    /// Id or address.
    user: Option<String>,
    /// Default 50.
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Newest first.
    users: Vec<Account>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Tool<Platform> for AuthUsers {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "List users",
        about: "Lists the app's users: id, address, role, claims.",
        scopes: &[Scope::AuthRead],
        effect: Effect::Read,
        examples: &[r#"{"query":"@example.org"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let Input { query, user, limit, cursor } = input;
        let page = cx.platform().auth.users(cx.env(), &Users { user, query, limit, cursor }).await?;
        let (users, left) = budget::fit(page.users, COSTLIEST);
        let next = users.last().filter(|_| left > 0).map(|user| user.id.to_string());
        Ok(Output { users, cursor: next.or(page.cursor) })
    }
}
