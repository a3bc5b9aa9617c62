//! `auth_users`: lists an app's users.

use capabilities::auth::{Account, COSTLIEST, Users};
use capabilities::mail::Kept;
use kernel::{Code, Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool, budget};

use crate::platform::Platform;

pub struct AuthUsers;

/// How many mails are shown where nothing is said.
const LATEST: u32 = 10;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    query: Option<String>,
    /// Id, address or phone number.
    user: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
    /// Unsent mails instead.
    mails: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// Newest first.
    users: Vec<Account>,
    /// The mails to such addresses, newest first; codes and links in them open accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    mails: Option<Vec<Kept>>,
    /// How many mails there are beside these: name an address to see them.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<usize>,
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
        about: "Lists the app's users.",
        scopes: &[Scope::AuthRead],
        effect: Effect::Read,
        examples: &[r#"{"query":"@example.org"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let Input { query, user, limit, cursor, mails } = input;
        if mails == Some(true) {
            return outbox(cx, user.as_deref().or(query.as_deref()), limit.unwrap_or(LATEST)).await;
        }
        let page = cx.platform().auth.users(cx.env(), &Users { user, query, limit, cursor }).await?;
        let (users, left) = budget::fit(page.users, COSTLIEST);
        let next = users.last().filter(|_| left > 0).map(|user| user.id.to_string());
        Ok(Output { users, mails: None, omitted: None, cursor: next.or(page.cursor) })
    }
}

/// The outbox. Who reads it can sign in as anybody, so that this takes what changing users takes.
async fn outbox(cx: &Cx<'_, Platform, Env>, to: Option<&str>, limit: u32) -> Result<Output> {
    if let Some(scope) = cx.caller().scopes.missing(&[Scope::AuthWrite]) {
        return Err(Error::new(
            Code::Forbidden,
            format!("mails open accounts: the credential lacks the scope {scope}"),
        ));
    }
    if !cx.selection().admits(Effect::Idempotent) {
        return Err(Error::new(
            Code::Forbidden,
            "mails open accounts, and this connection asked for reading alone",
        )
        .hint("connect with ?tools=full"));
    }
    let mails = cx.platform().auth.mails(cx.env(), to, limit).await?;
    let (mails, left) = budget::fit(mails, COSTLIEST);
    Ok(Output {
        users: Vec::new(),
        mails: Some(mails),
        omitted: Some(left).filter(|left| *left > 0),
        cursor: None,
    })
}
