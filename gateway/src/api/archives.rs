//! `/v1/envs/{env}/export`, `import` and `backups`: a whole environment as one archive, and one made of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use capabilities::snapshots::ArchiveStream;
use control::NewEnvironment;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use kernel::{Caller, Code, Env, EnvId, Error, Proof as _, Result, Scope, Slug, Tenant};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use mcp_server::platform::Platform;
use serde_json::{Value, json};
use tool::Effect;
use web::body::chunks;
use web::problem::Problem;

use super::{Action, Api, answer, unbroken};

/// It holds everything that its users have written, and what is stored of their passwords.
const EXPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppRead, Scope::DbRead, Scope::AuthRead, Scope::StorageRead];

/// What is made of an archive is an app with rows, users and files.
const IMPORT: &[Scope] =
    &[Scope::EnvWrite, Scope::AppWrite, Scope::DbWrite, Scope::AuthWrite, Scope::StorageWrite];

/// How long an archive goes on until it is asked again who has asked for it.
const AGAIN: Duration = Duration::from_millis(500);

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
    Ok(archive(&slug, watched(stream, still(&api, headers, &caller), AGAIN)))
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

/// Makes a backup now, once for each idempotency key.
pub async fn back_up(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(env): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    unbroken(async move {
        let platform = api.platform();
        let input = json!({ "env": env });
        let work = async {
            let (env, slug) = found(platform, &caller, &env).await?;
            let secrets = platform.secrets(&env).await?;
            let made = platform.backups.take_one_more(&env, slug.to_string(), secrets).await;
            Ok(json!(unless_gone(platform, &caller, &slug, made).await?))
        };
        let made = api.act_once(&caller, &headers, "backups.create", &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &made))
    })
    .await
}

/// Removes one backup.
pub async fn remove_backup(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path((env, backup)): Path<(String, String)>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let platform = api.platform();
        let work = async {
            let env = past(platform, &caller, &env).await?;
            // It may be all that is left.
            Tenant::authorize(&caller, &[Scope::ResourceDelete])?;
            platform.backups.forget(env, &backup).await
        };
        api.act(&caller, Action::on("backups.delete", "backup", &backup), Effect::Destroy, work).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
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
    let stream = watched(stream, still(&api, headers, &caller), AGAIN);
    Ok(archive(&format!("{}-{}", backup.slug, backup.backup), stream))
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

/// Asks whether who has asked for an archive may still have it.
fn still(
    api: &Api,
    headers: HeaderMap,
    first: &Arc<Caller>,
) -> impl Fn() -> BoxFuture<'static, Result<()>> + Send + 'static {
    let (gate, headers, first) = (Arc::clone(&api.0.gate), Arc::new(headers), Arc::clone(first));
    move || {
        let (gate, headers, first) = (Arc::clone(&gate), Arc::clone(&headers), Arc::clone(&first));
        async move {
            let Authenticated(caller) = Authenticated::again(&*gate, &headers, &first).await?;
            Tenant::authorize(&caller, EXPORT).map(drop)
        }
        .boxed()
    }
}

/// An archive on its way, which breaks off where `still`, asked `every` so long, refuses: what one key has begun does not outlive it.
fn watched(
    stream: ArchiveStream,
    still: impl Fn() -> BoxFuture<'static, Result<()>> + Send + 'static,
    every: Duration,
) -> ArchiveStream {
    stream::try_unfold((stream, still, Instant::now()), move |(mut stream, still, mut asked)| async move {
        let Some(chunk) = stream.try_next().await? else { return Ok(None) };
        if asked.elapsed() >= every {
            let answer = still();
            answer.await.map_err(gone)?;
            asked = Instant::now();
        }
        Ok(Some((chunk, (stream, still, asked))))
    })
    .boxed()
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
            let (gate, first) = (Arc::clone(&api.0.gate), Arc::clone(&caller));
            // An archive takes its time: whoever sends its end must still be let in.
            let again = async move {
                let Authenticated(caller) = Authenticated::again(&*gate, &headers, &first).await.map_err(gone)?;
                Tenant::authorize(&caller, IMPORT).map_err(gone)?;
                Ok(None)
            };
            let again = stream::once(again).try_filter_map(async |end| Ok(end));
            let stream = chunks(body).map_err(gone).chain(again);
            let (made, imported) = platform
                .fill_environment(&tenant, wanted, async |id| platform.snapshots.import(id, stream).await)
                .await?;
            let env = Env::for_upkeep(made.tenant, made.id);
            // What was imported is there, whatever is known of its domains.
            let unclaimed = platform.releases.unclaimed_now(&env).await.unwrap_or_else(|error| {
                tracing::warn!(env.id = %made.id, error = error.chain(), "whose the domains of an import are is not known");
                Default::default()
            });
            Ok((made, imported, unclaimed))
        };
        let (made, imported, unclaimed) = api.act(&caller, Action::on("envs.import", "slug", &slug), Effect::Write, work).await?;
        let url = platform.urls.app(&made.slug);
        let effects = unclaimed
            .iter()
            .map(|name| format!("domain {name} is named and not claimed by this: domain_set does it"));
        let effects: Vec<_> = effects.collect();
        let body = json!({
            "env": made.id, "slug": made.slug.to_string(), "url": url, "release": imported.release,
            "secrets": imported.secrets, "effects": effects,
        });
        Ok(answer(StatusCode::CREATED, &body))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Bytes;

    use super::*;

    #[tokio::test]
    async fn an_archive_breaks_off_when_its_key_has_ended() {
        let is_good = Arc::new(AtomicBool::new(true));
        let known = Arc::clone(&is_good);
        let still = move || {
            let is_good = known.load(Ordering::Relaxed);
            let ended = Error::new(Code::Unauthenticated, "it has ended");
            async move { if is_good { Ok(()) } else { Err(ended) } }.boxed()
        };
        let chunks = stream::iter((0..100).map(|_| Ok(Bytes::from_static(b"chunk")))).boxed();
        let mut archive = watched(chunks, still, Duration::ZERO);
        for _ in 0..20 {
            archive.try_next().await.unwrap().unwrap();
        }
        is_good.store(false, Ordering::Relaxed);
        assert_eq!(archive.try_next().await.unwrap_err().to_string(), "it has ended");
        assert!(archive.try_next().await.unwrap().is_none(), "nothing comes after it");
    }
}
