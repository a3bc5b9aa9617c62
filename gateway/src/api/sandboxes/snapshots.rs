//! What a sandbox's files were at earlier moments, and the way back to it.

use axum::extract::Request;
use kernel::{Error, Result};
use mcp_server::sandboxes::check_snapshot_name;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Workspace, WorkspaceSnapshot};
use tool::Effect;

use super::asked::{Answer, Asked};
use super::environment;
use crate::api::unbroken;

pub async fn list(asked: Asked) -> Answer {
    let work = async {
        let workspace = asked.workspace().await?;
        let all = asked.platform().hands.snapshots(&workspace).await?;
        Ok(json!({ "snapshots": all.iter().map(shown).collect::<Vec<_>>() }))
    };
    asked.told("sandboxes.snapshots", Effect::Read, work).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: Option<String>,
}

/// Keeps the files as they are now.
pub async fn take(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, input) = asked.input(request).await?;
        let Wanted { name } = tool::decode(input.clone())?;
        let work = async {
            check_snapshot_name(name.as_deref())?;
            let workspace = asked.workspace().await?;
            let snapshot = asked.platform().hands.snapshot(&workspace, name).await?;
            Ok(shown(&snapshot))
        };
        asked.made(&headers, "sandboxes.snapshot", &input, work).await
    })
    .await
}

pub async fn remove(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async {
            let workspace = asked.workspace().await?;
            let found = found(&asked, &workspace, asked.part("snapshot")).await?;
            asked.platform().hands.remove_snapshot(&workspace, &found).await
        };
        asked.done("sandboxes.forget", Effect::Destroy, work).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Return {
    snapshot: String,
}

/// Puts the files back; whatever runs ends.
pub async fn restore(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (_, input) = asked.input(request).await?;
        let work = async {
            let Return { snapshot } = tool::decode(input)?;
            let workspace = asked.workspace().await?;
            let found = found(&asked, &workspace, &snapshot).await?;
            Ok(shown(&asked.platform().hands.restore(&workspace, found.id).await?))
        };
        asked.told("sandboxes.restore", Effect::Destroy, work).await
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
pub async fn fork(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, input) = asked.input(request).await?;
        let Fork { name, snapshot } = tool::decode(input.clone())?;
        let work = async {
            let env = environment(&asked.api, &asked.caller).await?;
            let (platform, source) = (asked.platform(), asked.workspace().await?);
            let snapshot = match snapshot {
                Some(snapshot) => Some(found(&asked, &source, &snapshot).await?.id),
                None => None,
            };
            let made = platform.fork_sandbox(&env, &asked.caller, &source, snapshot, &name).await?;
            super::shown(&asked.api, &made).await
        };
        asked.made(&headers, "sandboxes.fork", &input, work).await
    })
    .await
}

/// Freezes the files as they are: each run after this begins with the same bytes.
pub async fn freeze(mut asked: Asked, request: Request) -> Answer {
    unbroken(async move {
        let (headers, input) = asked.input(request).await?;
        let Wanted { name } = tool::decode(input.clone())?;
        let work = async {
            check_snapshot_name(name.as_deref())?;
            let workspace = asked.workspace().await?;
            Ok(shown(&asked.platform().hands.freeze(&workspace, name).await?))
        };
        asked.made(&headers, "sandboxes.freeze", &input, work).await
    })
    .await
}

/// Lets the files be changed again.
pub async fn thaw(asked: Asked) -> Answer {
    unbroken(async move {
        let work = async { asked.platform().hands.thaw(&asked.workspace().await?).await };
        asked.done("sandboxes.thaw", Effect::Idempotent, work).await
    })
    .await
}

/// A snapshot of a workspace, by its id or its name.
async fn found(asked: &Asked, workspace: &Workspace, id_or_name: &str) -> Result<WorkspaceSnapshot> {
    let there = asked.platform().hands.snapshots(workspace).await?;
    let found = there.into_iter().find(|it| it.is(id_or_name));
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
