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

use super::{Api, environment, read, workspace};
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
            check_name(name.as_deref())?;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    name: String,
    snapshot: Option<String>,
}

/// Makes one more sandbox with the files of this one, as they are or were.
pub async fn fork(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let Fork { name, snapshot } = tool::decode(input.clone())?;
        let work = async {
            let env = environment(&api, &caller).await?;
            let (platform, source) = (api.platform(), workspace(&api, &caller, &sandbox).await?);
            let snapshot = match snapshot {
                Some(snapshot) => found(&api, &source, &snapshot).await?,
                None => {
                    drop(platform.hands.wake(&source).await?);
                    platform.hands.snapshot(&source, None).await?
                }
            };
            let made = platform.fork_sandbox(&env, &caller, snapshot.id, &name).await?;
            Ok(super::shown(&api, &made, &platform.hands.status(&made).await?))
        };
        let body = api.act_once(&caller, &headers, "sandboxes.fork", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &body))
    })
    .await
}

/// Freezes the files as they are: each run after this begins with the same bytes.
pub async fn freeze(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let Wanted { name } = tool::decode(input.clone())?;
        let work = async {
            check_name(name.as_deref())?;
            let workspace = workspace(&api, &caller, &sandbox).await?;
            drop(api.platform().hands.wake(&workspace).await?);
            Ok(shown(&api.platform().hands.freeze(&workspace, name).await?))
        };
        let body = api.act_once(&caller, &headers, "sandboxes.freeze", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &body))
    })
    .await
}

/// Lets the files be changed again.
pub async fn thaw(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(sandbox): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let workspace = workspace(&api, &caller, &sandbox).await?;
            api.platform().hands.thaw(&workspace).await
        };
        api.act(&caller, "sandboxes.thaw", Effect::Idempotent, work).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

fn check_name(name: Option<&str>) -> Result<()> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().count() <= NAME && !name.chars().any(char::is_control);
    if name.is_none_or(is_name) {
        return Ok(());
    }
    Err(Error::invalid("/name", format!("a name has 1 to {NAME} characters on one line")))
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
    let WorkspaceSnapshot { id, name, created, digest, .. } = snapshot;
    let mut body = json!({ "snapshot": id, "name": name, "created_at": created.to_string() });
    if let Some(digest) = digest {
        body["digest"] = digest.to_string().into();
    }
    body
}
