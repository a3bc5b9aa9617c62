//! `/v1/envs/{env}/export`, `import` and `backups`: a whole environment as one archive, and one made of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use capabilities::snapshots::ArchiveStream;
use control::NewEnvironment;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use kernel::{Caller, Code, Env, EnvId, Error, Proof as _, Result, Scope, Slug, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use mcp_server::platform::Platform;
use serde_json::json;
use tool::Effect;
use web::body::chunks;
use web::problem::Problem;

use super::{Api, answer, unbroken};

/// It holds everything that its users have written, and what is stored of their passwords.
const EXPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppRead, Scope::DbRead, Scope::AuthRead, Scope::StorageRead];

/// How often it is asked whether who reads an archive may still.
const AGAIN: Duration = Duration::from_secs(5);

/// What is made of an archive is an app with rows, users and files.
const IMPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppWrite, Scope::DbWrite, Scope::AuthWrite, Scope::StorageWrite];

/// The environment as it is now, as a tar.
pub async fn export(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let (env, slug) = found(platform, &caller, &env).await?;
        let secrets = platform.secrets(&env).await?;
        let stream = platform.snapshots.export(&env, slug.to_string(), secrets).await;
        let stream = unless_gone(platform, &caller, &slug, stream).await?;
        Ok((slug.to_string(), stream))
    };
    let (slug, stream) = api.act(&caller, "envs.export", Effect::Read, work).await?;
    Ok(archive(&slug, watched(&api, headers, stream)))
}

/// The environment's backups, newest first; one that is deleted is named by its id.
pub async fn backups(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let env = past(platform, &caller, &env).await?;
        platform.backups.list(env).await
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
            let made = platform.backups.take_one_more(&env, slug.to_string(), secrets).await;
            unless_gone(platform, &caller, &slug, made).await
        };
        let made = api.act(&caller, "backups.create", Effect::Write, work).await?;
        Ok(answer(StatusCode::CREATED, &json!(made)))
    })
    .await
}

/// Removes one backup.
pub async fn remove_backup(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((env, backup)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        Tenant::authorize(&caller, &[Scope::ResourceDelete])?;
        let env = past(platform, &caller, &env).await?;
        platform.backups.forget(env, &backup).await
    };
    api.act(&caller, "backups.delete", Effect::Destroy, work).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// One backup, as a tar.
pub async fn backup(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((env, backup)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let platform = api.platform();
    let work = async {
        let env = past(platform, &caller, &env).await?;
        platform.backups.read(env, &backup).await
    };
    let (backup, stream) = api.act(&caller, "backups.read", Effect::Read, work).await?;
    let name = format!("{}-{}", backup.slug, backup.backup);
    Ok(archive(&name, watched(&api, headers, stream)))
}

/// The environment whose archives `caller` may have.
async fn found(platform: &Platform, caller: &Caller, env: &str) -> Result<(Env, Slug)> {
    let tenant = Tenant::authorize(caller, EXPORT)?;
    let found = platform.control.environments().get(&tenant, env).await?;
    Ok((Env::for_upkeep(found.tenant, found.id), found.slug))
}

/// What has come of reading an environment: where that was deleted meanwhile, its files were gone and that is why.
async fn unless_gone<T>(platform: &Platform, caller: &Caller, slug: &Slug, outcome: Result<T>) -> Result<T> {
    if let Err(error) = &outcome
        && matches!(error.code(), Code::Internal | Code::Unavailable)
    {
        found(platform, caller, slug.as_str()).await?;
    }
    outcome
}

/// The environment whose backups `caller` may have: also one that is deleted, by its id.
async fn past(platform: &Platform, caller: &Caller, env: &str) -> Result<EnvId> {
    let missing = match found(platform, caller, env).await {
        Ok((found, _)) => return Ok(found.id()),
        Err(error) if error.code() == Code::NotFound => error,
        Err(error) => return Err(error),
    };
    let (Ok(id), tenant) = (env.parse::<EnvId>(), Tenant::authorize(caller, EXPORT)?) else {
        return Err(missing);
    };
    if platform.backups.left_of(id).await? == Some(tenant.id()) { Ok(id) } else { Err(missing) }
}

/// An archive for as long as who asked for it may have it.
fn watched(api: &Api, headers: HeaderMap, stream: ArchiveStream) -> ArchiveStream {
    let state = (Arc::clone(&api.0.gate), headers, stream, Instant::now());
    let watched = stream::try_unfold(state, async |(gate, headers, mut stream, mut asked)| {
        let Some(chunk) = stream.next().await.transpose()? else { return Ok(None) };
        if asked.elapsed() > AGAIN {
            let Authenticated(caller) = Authenticated::again(&*gate, &headers).await.map_err(gone)?;
            Tenant::authorize(&caller, EXPORT).map_err(gone)?;
            asked = Instant::now();
        }
        Ok(Some((chunk, (gate, headers, stream, asked))))
    });
    watched.boxed()
}

fn archive(name: &str, stream: ArchiveStream) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/x-tar".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.steading.tar\"")),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

fn gone(error: Error) -> std::io::Error {
    std::io::Error::other(error.message().to_owned())
}

/// Makes the environment with this slug, which must be free, out of an archive.
pub async fn import(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(slug): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    unbroken(async move {
        let platform = api.platform();
        let work = async {
            let tenant = Tenant::authorize(&caller, IMPORT)?;
            let slug: Slug = slug.parse().map_err(|e| Error::invalid("/slug", format!("{e}")))?;
            let _turn = platform.snapshots.begin_import(tenant.id())?;
            let wanted = NewEnvironment { slug: Some(slug), ..NewEnvironment::default() };
            let gate = Arc::clone(&api.0.gate);
            // An archive takes its time: whoever sends its end must still be let in.
            let again = async move {
                let Authenticated(caller) = Authenticated::again(&*gate, &headers).await.map_err(gone)?;
                Tenant::authorize(&caller, IMPORT).map_err(gone)?;
                Ok(None)
            };
            let again = stream::once(again).try_filter_map(async |end| Ok(end));
            let stream = chunks(body).map_err(gone).chain(again);
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
