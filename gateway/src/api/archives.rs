//! `/v1/envs/{env}/export`, `import` and `backups`: a whole environment as one archive, and one made of it.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use capabilities::snapshots::ArchiveStream;
use control::NewEnvironment;
use futures::TryStreamExt as _;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use kernel::{Caller, Env, Error, Proof as _, Result, Scope, Slug, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use mcp_server::platform::Platform;
use serde_json::json;
use tool::Effect;
use web::problem::Problem;

use super::{Api, answer, unbroken};

/// It holds everything that its users have written, and what is stored of their passwords.
const EXPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppRead, Scope::DbRead, Scope::AuthRead, Scope::StorageRead];

/// What is made of an archive is an app with rows, users and files.
const IMPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppWrite, Scope::DbWrite, Scope::AuthWrite, Scope::StorageWrite];

/// The environment as it is now, as a tar.
pub async fn export(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let (env, slug) = found(platform, &caller, &env).await?;
        let secrets = platform.secrets(&env).await?;
        let stream = platform.snapshots.export(&env, slug.to_string(), secrets).await?;
        Ok((slug.to_string(), stream))
    };
    let (slug, stream) = api.act(&caller, "envs.export", Effect::Read, work).await?;
    Ok(archive(&slug, stream))
}

/// The environment's backups, newest first.
pub async fn backups(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let (env, _) = found(platform, &caller, &env).await?;
        platform.backups.list(env.id()).await
    };
    let backups = api.act(&caller, "backups.list", Effect::Read, work).await?;
    Ok(answer(StatusCode::OK, &json!({ "backups": backups })))
}

/// Makes a backup now.
pub async fn back_up(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let platform = api.platform();
        let work = async {
            let (env, slug) = found(platform, &caller, &env).await?;
            let secrets = platform.secrets(&env).await?;
            platform.backups.take(&env, slug.to_string(), secrets).await
        };
        let made = api.act(&caller, "backups.create", Effect::Write, work).await?;
        Ok(answer(StatusCode::CREATED, &json!(made)))
    })
    .await
}

/// One backup, as a tar.
pub async fn backup(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((env, backup)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let (env, _) = found(platform, &caller, &env).await?;
        platform.backups.read(env.id(), &backup).await
    };
    let (backup, stream) = api.act(&caller, "backups.read", Effect::Read, work).await?;
    Ok(archive(&format!("{}-{}", backup.slug, backup.backup), stream))
}

/// The environment whose archives `caller` may have.
async fn found(platform: &Platform, caller: &Caller, env: &str) -> Result<(Env, Slug)> {
    let tenant = Tenant::authorize(caller, EXPORT)?;
    let found = platform.control.environments().get(&tenant, env).await?;
    Ok((Env::for_upkeep(found.tenant, found.id), found.slug))
}

fn archive(name: &str, stream: ArchiveStream) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/x-tar".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.steading.tar\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// Makes the environment with this slug, which must be free, out of an archive.
pub async fn import(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(slug): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    unbroken(async move {
        let platform = api.platform();
        let work = async {
            let tenant = Tenant::authorize(&caller, IMPORT)?;
            let slug: Slug = slug.parse().map_err(|e| Error::invalid("/slug", format!("{e}")))?;
            let wanted = NewEnvironment { slug: Some(slug), ..NewEnvironment::default() };
            let stream = body.into_data_stream().map_err(std::io::Error::other);
            platform
                .fill_environment(&tenant, wanted, async |id| platform.snapshots.import(id, stream).await)
                .await
        };
        let (made, imported) = api.act(&caller, "envs.import", Effect::Write, work).await?;
        let url = platform.urls.app(&made.slug);
        let body = json!({
            "env": made.id, "slug": made.slug.to_string(), "url": url, "release": imported.release,
            "secrets": imported.secrets,
        });
        Ok(answer(StatusCode::CREATED, &body))
    })
    .await
}
