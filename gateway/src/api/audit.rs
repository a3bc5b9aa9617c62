//! `/v1/audit`: what was done in a tenant, and the log of it to be verified elsewhere.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control::AuditEntry;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use kernel::{Error, Result};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Query;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tool::Effect;
use web::problem::Problem;

use super::budgets::environment;
use super::{Api, answer, page};

/// Entries on one page.
const PAGE: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The environment, by slug or id; all where there is none.
    env: Option<String>,
    cursor: Option<String>,
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let work = async {
        let control = &api.platform().control;
        let before: Option<i64> = asked
            .cursor
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        let env = match &asked.env {
            Some(name) => Some(environment(&api, &caller, name).await?),
            None => None,
        };
        control.audit().list(&caller, env, before, PAGE).await
    };
    let entries = api.act(&caller, "audit.list", Effect::Read, work).await?;
    let last = entries.last().filter(|_| entries.len() == PAGE as usize);
    let cursor = last.map(|entry| entry.seq.to_string());
    let shown = entries.iter().map(shown).collect::<Result<_>>()?;
    Ok(page("entries", shown, cursor))
}

pub async fn key(State(api): State<Api>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    let work = async { api.platform().control.audit().key(&caller) };
    let key = api.act(&caller, "audit.key", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "alg": "Ed25519", "key": key })))
}

/// An export is whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

pub async fn export(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Problem> {
    let work = async { api.platform().control.audit().export(&caller).await };
    let export = api.act(&caller, "audit.export", Effect::Read, work).await?;
    let platform = Arc::clone(api.platform());
    let pieces = futures::stream::try_unfold((platform, export), async |(platform, mut export)| {
        let piece = platform.control.audit().more(&mut export).await?;
        Ok::<_, Error>(piece.map(|text| (text, (platform, export))))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// An entry as it was written, with its hash beside it.
fn shown(entry: &AuditEntry) -> Result<Value> {
    let mut body: Map<String, Value> = serde_json::from_str(&entry.body).map_err(Error::internal)?;
    body.insert("hash".to_owned(), entry.hash.as_str().into());
    Ok(Value::Object(body))
}
