//! `/v1/keys`: credentials of a tenant, shown once, listed without their secret, revoked.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::NewKey;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kernel::{Error, KeyId, Proof, Result, Scope, Scopes, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::credentials::networks;
use super::{Action, Api, answer, page, read, unbroken};

/// Keys on one page.
const PAGE: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    name: String,
    /// The slug or id of the environment to bind it to.
    env: Option<String>,
    scopes: Option<Vec<Scope>>,
    /// Seconds.
    expires_in: Option<u64>,
    /// The networks that it is good in.
    cidrs: Option<Value>,
}

pub async fn create(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let wanted: Wanted = tool::decode(input.clone())?;
        let work = async {
            let tenant = Tenant::authorize(&caller, &[Scope::KeyAdmin])?;
            let env = match &wanted.env {
                Some(name) => {
                    let found = api.platform().control.environments().get(&tenant, name).await;
                    Some(found.map_err(|e| e.field("/env"))?.id)
                }
                None => None,
            };
            let new = NewKey {
                name: wanted.name,
                env,
                scopes: wanted.scopes.map(|scopes| scopes.into_iter().collect::<Scopes>()),
                expires_in: wanted.expires_in.map(Duration::from_secs),
                cidrs: wanted.cidrs.as_ref().map(|cidrs| networks(cidrs, "/cidrs")).transpose()?,
            };
            let made = api.platform().control.keys().create(&caller, new).await?;
            let mut body = shown(&made.key);
            body["key"] = made.secret.expose().into();
            Ok(body)
        };
        let body = api.act_once(&caller, &headers, "keys.create", &input, without_key, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::CREATED, &body)).into_response())
    })
    .await
}

/// A key is shown once, and so not to a repeat of the call that made it.
fn without_key(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().map(|fields| fields.remove("key"));
    body
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    pub cursor: Option<String>,
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(after): Query<After>,
) -> Result<Response, Problem> {
    let work = async {
        let after: Option<KeyId> =
            after.cursor.as_deref().map(str::parse).transpose().map_err(|_| cursor())?;
        api.platform().control.keys().list(&caller, after, PAGE).await
    };
    let keys = api.act(&caller, "keys.list", Effect::Read, work).await?;
    let cursor = (keys.len() == PAGE as usize).then(|| keys.last().map(|key| key.id.to_string())).flatten();
    Ok(page("keys", keys.iter().map(shown).collect(), cursor))
}

pub async fn revoke(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            // What is not an id is told apart from a missing key by nobody.
            let id: KeyId = id.parse().map_err(|_| missing(&id))?;
            api.platform().control.keys().revoke(&caller, id).await
        };
        api.act(&caller, Action::on("keys.revoke", "credential", &id), Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "revoked": true })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// Seconds for which the old one is good yet.
    overlap_s: Option<u64>,
}

/// For how long the old one is good where nothing is said.
const OVERLAP: u64 = 60 * 60;

/// What the operator's key is called, of which there is one.
const OPERATOR: &str = "operator";

/// Makes a key in place of another.
pub async fn rotate(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let wanted: Rotation = tool::decode(input.clone())?;
        let once = json!({ "credential": id, "input": input });
        let work = async {
            let control = &api.platform().control;
            let made = if id == OPERATOR {
                if wanted.overlap_s.is_some_and(|seconds| seconds > 0) {
                    return Err(Error::invalid("/overlap_s", "the operator's key ends at once")
                        .hint("leave it out, or send 0"));
                }
                control.replace_operator(&caller).await?
            } else {
                let id: KeyId = id.parse().map_err(|_| missing(&id))?;
                let overlap = Duration::from_secs(wanted.overlap_s.unwrap_or(OVERLAP));
                control.keys().rotate(&caller, id, overlap).await?
            };
            let mut body = shown(&made.key);
            body["key"] = made.secret.expose().into();
            Ok(body)
        };
        let body = api.act_once(&caller, &headers, "keys.rotate", &once, without_key, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::CREATED, &body)).into_response())
    })
    .await
}

/// The public keys that tokens are verified with (RFC 7517 §5).
pub async fn jwks(State(api): State<Api>) -> Response {
    answer(StatusCode::OK, &api.platform().control.tokens().jwks())
}

fn shown(key: &control::Key) -> Value {
    let mut body = json!({
        "id": key.id, "name": key.name, "scopes": key.scopes, "created_at": key.created.to_string(),
        "revoked": key.revoked.is_some(),
    });
    let optional = [
        ("env", key.env.map(|env| env.to_string())),
        ("expires_at", key.expires.map(|at| at.to_string())),
        ("last_used_at", key.last_used.map(|at| at.to_string())),
        ("rotated_to", key.rotated_to.map(|id| id.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    if let Some(cidrs) = &key.cidrs {
        body["cidrs"] = cidrs.names().into();
    }
    body
}

fn cursor() -> Error {
    Error::invalid("/cursor", "this is not a cursor of this list")
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("key {:?}", id.chars().take(64).collect::<String>()))
}
