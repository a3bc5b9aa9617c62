//! What a sandbox's files were at earlier moments, and the way back to it.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kernel::{Error, Result, WorkspaceSnapshotId};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Workspace, WorkspaceSnapshot};
use tool::Effect;
use web::problem::Problem;

use super::{Api, read, workspace};
use crate::api::{answer, unbroken};

/// The longest name, in characters.
const NAME: usize = 64;

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
) -> Result<Response, Problem> {
    let work = async {
        let workspace = workspace(&api, &caller, &sandbox).await?;
        api.platform().hands.snapshots(&workspace).await
    };
    let all = api.act(&caller, "sandboxes.snapshots", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "snapshots": all.iter().map(shown).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: Option<String>,
}

/// Keeps the files as they are now.
pub async fn take(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let Wanted { name } = tool::decode(input.clone())?;
        let work = async {
            if let Some(name) = &name
                && (name.is_empty() || name.chars().count() > NAME || name.chars().any(char::is_control))
            {
                return Err(Error::invalid(
                    "/name",
                    format!("a name has 1 to {NAME} characters on one line"),
                ));
            }
            let workspace = workspace(&api, &caller, &sandbox).await?;
            // A workspace has files from its first call on.
            drop(api.platform().hands.wake(&workspace).await?);
            let snapshot = api.platform().hands.snapshot(&workspace, name).await?;
            Ok(shown(&snapshot))
        };
        let body = api.act_once(&caller, &headers, "sandboxes.snapshot", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &body))
    })
    .await
}

pub async fn remove(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((sandbox, snapshot)): Path<(String, String)>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let workspace = workspace(&api, &caller, &sandbox).await?;
            let found = found(&api, &workspace, &snapshot).await?;
            api.platform().hands.remove_snapshot(&found).await
        };
        api.act(&caller, "sandboxes.forget", Effect::Destroy, work).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Return {
    snapshot: String,
}

/// Puts the files back; whatever runs ends.
pub async fn restore(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let work = async {
            let Return { snapshot } = tool::decode(input)?;
            let workspace = workspace(&api, &caller, &sandbox).await?;
            let found = found(&api, &workspace, &snapshot).await?;
            api.platform().hands.restore(&workspace, found.id).await
        };
        let restored = api.act(&caller, "sandboxes.restore", Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &shown(&restored)))
    })
    .await
}

/// A snapshot of a workspace, by its id or its name.
async fn found(api: &Api, workspace: &Workspace, id_or_name: &str) -> Result<WorkspaceSnapshot> {
    let id = id_or_name.parse::<WorkspaceSnapshotId>().ok();
    let there = api.platform().hands.snapshots(workspace).await?;
    let found = there.into_iter().find(|it| Some(it.id) == id || it.name.as_deref() == Some(id_or_name));
    found.ok_or_else(|| {
        let wanted: String = id_or_name.chars().take(64).collect();
        Error::not_found(format!("snapshot {wanted:?} of this sandbox"))
            .hint("GET /v1/sandboxes/{sandbox}/snapshots lists them")
    })
}

fn shown(snapshot: &WorkspaceSnapshot) -> Value {
    json!({ "snapshot": snapshot.id, "name": snapshot.name, "created_at": snapshot.created.to_string() })
}
