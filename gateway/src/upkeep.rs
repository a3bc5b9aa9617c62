//! What nobody asks for and has to be done: backups are made, expired rows, sessions, releases, snapshots and lines of
//! logs go, and contents that nothing needs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capabilities::logs::{self, Level, Source};
use capabilities::snapshots::Backup;
use kernel::{Env, EnvId, Result, Slug, Timestamp};
use mcp_server::platform::Platform;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often expired rows of the control plane are removed.
const MINUTE: Duration = Duration::from_secs(60);

/// How often an environment's log says that its backups fail.
const TOLD: Duration = Duration::from_secs(60 * 60);

/// How often it is looked for what backups that died have left.
const SWEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// When it was last done what is not done each time, for each environment.
#[derive(Default)]
struct Last {
    /// It was told that it is not backed up.
    told: HashMap<EnvId, Instant>,
    /// What backups that died have left was looked for.
    swept: HashMap<EnvId, Instant>,
}

/// Works in the background until `stop`; environments are looked at each time that `every` has passed, and backups of
/// deleted ones go after `left`.
pub fn start(platform: Arc<Platform>, every: Duration, left: Duration, stop: CancellationToken) {
    tokio::spawn(look_at_domains(Arc::clone(&platform), stop.clone()));
    tokio::spawn(async move {
        let mut last = Last::default();
        let (mut control, mut environments) = (interval(MINUTE), interval(every));
        for timer in [&mut control, &mut environments] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick comes at once.
            timer.tick().await;
        }
        loop {
            tokio::select! {
                _ = control.tick() => {
                    if let Err(error) = platform.control.upkeep().await {
                        tracing::warn!(error = error.chain(), "the control plane could not be tidied");
                    }
                }
                _ = environments.tick() => {
                    each(&platform, &mut last).await;
                    if let Err(error) = platform.backups.expire_left(left).await {
                        tracing::warn!(error = error.chain(), "backups of deleted environments could not be removed");
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    });
}

/// By itself: name servers that do not answer hold nothing else up.
async fn look_at_domains(platform: Arc<Platform>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(MINUTE)).await.is_some() {
        if let Err(error) = platform.domains.upkeep().await {
            tracing::warn!(error = error.chain(), "domains could not be looked at");
        }
    }
}

/// Looks after every environment.
async fn each(platform: &Platform, Last { told, swept }: &mut Last) {
    told.retain(|_, at| at.elapsed() < TOLD);
    swept.retain(|_, at| at.elapsed() < SWEPT);
    let Ok(mut directories) = tokio::fs::read_dir(&platform.environments_dir).await else { return };
    while let Ok(Some(entry)) = directories.next_entry().await {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<EnvId>().ok()) else {
            continue;
        };
        let Ok(Some(place)) = platform.control.environments().find(&id.to_string()).await else { continue };
        let env = Env::for_upkeep(place.tenant, place.env);
        // Before anything goes.
        let said = |level, words| {
            platform.logs.append(&env, logs::Entry::new(Timestamp::now(), level, Source::Release, words));
        };
        match back_up(platform, &env, place.slug).await {
            Ok(Some(backup)) => {
                told.remove(&id);
                said(
                    Level::Info,
                    format!("the backup {} was made, of {} bytes", backup.backup, backup.bytes),
                );
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(env.id = %id, error = error.chain(), "an environment could not be backed up");
                told.entry(id).or_insert_with(|| {
                    said(Level::Error, format!("a backup that was due could not be made: {error}"));
                    Instant::now()
                });
            }
        }
        if let Entry::Vacant(place) = swept.entry(id) {
            match platform.backups.sweep(id).await {
                Ok(()) => drop(place.insert(Instant::now())),
                Err(error) => {
                    tracing::warn!(env.id = %id, error = error.chain(), "what backups have left could not be removed");
                }
            }
        }
        if let Err(error) = expire(platform, &env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "what is old could not be removed");
        }
        if let Err(error) = collect(platform, &env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "unused contents could not be collected");
        }
        if let Err(error) = platform.auth.tidy(&env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "expired sessions could not be removed");
        }
    }
}

async fn back_up(platform: &Platform, env: &Env, slug: Slug) -> Result<Option<Backup>> {
    let (spec, _) = platform.releases.keeping(env).await?;
    if spec.every.is_none() {
        return Ok(None);
    }
    let secrets = platform.secrets(env).await?;
    platform.backups.keep_up(env, &spec, slug.to_string(), secrets).await
}

async fn expire(platform: &Platform, env: &Env) -> Result<()> {
    let (_, lifecycle) = platform.releases.keeping(env).await?;
    platform.releases.expire(env, &lifecycle).await?;
    platform.snapshots.expire(env, lifecycle.snapshots.unwrap_or_default()).await?;
    if let Some(age) = lifecycle.logs.and_then(|logs| logs.age) {
        platform.logs.expire(env, Timestamp::now().minus(age.duration())).await?;
    }
    Ok(())
}

async fn collect(platform: &Platform, env: &Env) -> Result<()> {
    // What a return to a snapshot brings back is not needed before it is there.
    let _held = platform.snapshots.hold(env).await;
    platform.releases.collect(env).await?;
    platform.storage.tidy(env).await.map(drop)
}
