//! `/v1/signing-keys`: what signs minted credentials, for the operator.

use axum::extract::{Request, State};
use axum::response::Response;
use control::{Before, KeptSigningKey};
use http::StatusCode;
use kernel::Result;
use mcp_server::auth::Authenticated;
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, page, read, unbroken};

pub async fn list(State(api): State<Api>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    let work = api.platform().control.signing_keys(&caller);
    let all = api.act(&caller, "signing_keys.list", Effect::Read, work).await?;
    Ok(page("signing_keys", all.iter().map(shown).collect(), None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Whether what was signed before holds no more.
    #[serde(default)]
    forget: bool,
}

pub async fn rotate(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::of("signing_keys.rotate", &input);
        let Rotation { forget } = tool::decode(input)?;
        let before = if forget { Before::Forgotten } else { Before::Good };
        let work = api.platform().control.rotate_signing_key(&caller, before);
        let all = api.act(&caller, action, Effect::Write, work).await?;
        let all: Vec<_> = all.iter().map(shown).collect();
        Ok(answer(StatusCode::OK, &json!({ "signing_keys": all })))
    })
    .await
}

fn shown(kept: &KeptSigningKey) -> Value {
    let mut body = json!({
        "kid": kept.key.id, "state": kept.state.as_str(), "created_at": kept.key.created.to_string(),
    });
    for (name, at) in [("activated_at", kept.activated), ("retired_at", kept.retired)] {
        if let Some(at) = at {
            body[name] = at.to_string().into();
        }
    }
    body
}
