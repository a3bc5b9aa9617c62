//! `/v1/encryption-keys`: what values are sealed with, for the operator. Keys are not in it.

use axum::extract::{Request, State};
use axum::response::Response;
use control::{DataKeyInfo, EncryptionKeys};
use http::StatusCode;
use kernel::Result;
use mcp_server::auth::Authenticated;
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, answer, read, unbroken};

pub async fn show(State(api): State<Api>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    let work = api.platform().control.encryption_keys(&caller);
    let keys = api.act(&caller, "encryption_keys.show", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &shown(&keys)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {}

pub async fn rotate(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let action = Action::of("encryption_keys.rotate", &input);
        let Rotation {} = tool::decode(input)?;
        let work = api.platform().control.rotate_encryption_keys(&caller);
        let keys = api.act(&caller, action, Effect::Write, work).await?;
        Ok(answer(StatusCode::OK, &shown(&keys)))
    })
    .await
}

fn shown(keys: &EncryptionKeys) -> Value {
    let data_keys: Vec<_> = keys.data_keys.iter().map(data_key).collect();
    json!({
        "key_encryption_key": { "id": keys.in_force, "here": keys.is_here },
        "data_keys": data_keys,
        "older_values": keys.older_values,
    })
}

fn data_key(key: &DataKeyInfo) -> Value {
    let mut body = json!({ "id": key.id, "owner": key.owner, "created_at": key.created.to_string() });
    if let Some(at) = key.retired {
        body["retired_at"] = at.to_string().into();
    }
    body
}
