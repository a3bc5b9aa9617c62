//! What nobody asks for and has to be done: backups are made, expired rows, sessions, releases, snapshots and lines of
//! logs go, and contents that nothing needs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use capabilities::logs::{self, Level, Source};
use capabilities::snapshots::Backup;
use kernel::{Env, EnvId, Result, SandboxId, Slug, TenantId, Timestamp};
use mcp_server::platform::Platform;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Bell;

/// How often expired rows of the control plane are removed.
const MINUTE: Duration = Duration::from_secs(60);

/// How long it is waited for credentials that end together.
const TOGETHER: Duration = Duration::from_millis(250);

/// How often an environment's log says that its backups fail.
const TOLD: Duration = Duration::from_secs(60 * 60);

/// Backups that are made at a time.
const BACKUPS: usize = 2;

/// How often it is looked for what backups that died have left.
const SWEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Works in the background until `stop`; environments are looked at each time that `every` has passed, and backups of
/// deleted ones go after `left`. `bell` has the clock look at the schedules of each.
pub fn start(platform: Arc<Platform>, bell: Bell, every: Duration, left: Duration, stop: CancellationToken) {
    tokio::spawn(follow_lives(Arc::clone(&platform), bell.clone(), stop.clone()));
    tokio::spawn(look_at_domains(Arc::clone(&platform), stop.clone()));
    tokio::spawn(take_up(Arc::clone(&platform), bell.clone(), stop.clone()));
    tokio::spawn(make_backups(Arc::clone(&platform), every, left, stop.clone()));
    tokio::spawn(async move {
        let mut swept = HashMap::new();
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
                    if let Err(error) = platform.purge_tenants().await {
                        tracing::error!(error = error.chain(), "a deleted tenant could not be removed");
                    }
                }
                _ = environments.tick() => {
                    each(&platform, &bell, &mut swept).await;
                }
                () = stop.cancelled() => return,
            }
        }
    });
}

/// Stops what runs for tenants that are not active, and in sandboxes whose credential has ended: nobody comes back to it. What
/// always runs of environments that can be used again begins again.
async fn follow_lives(platform: Arc<Platform>, bell: Bell, stop: CancellationToken) {
    let mut revocations = platform.control.revocations();
    loop {
        tokio::select! {
            // Some end by themselves.
            _ = tokio::time::timeout(MINUTE, revocations.next()) => tokio::time::sleep(TOGETHER).await,
            () = stop.cancelled() => return,
        }
        platform.close_what_is_not_ready().await;
        match platform.opened().await {
            Ok(opened) => {
                for env in opened {
                    take_up_one(&platform, &bell, &env).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "it is not known which environments can be used again");
            }
        }
        for sandbox in platform.hands.running() {
            if let Err(error) = stop_where_nobodys(&platform, sandbox).await {
                tracing::warn!(sandbox.id = %sandbox, error = error.chain(), "a sandbox that is nobody's could not be stopped");
            }
        }
    }
}

async fn stop_where_nobodys(platform: &Platform, sandbox: SandboxId) -> Result<()> {
    match platform.hands.of_sandbox(sandbox).await? {
        // It was removed by another gateway.
        None => platform.hands.end(sandbox).await,
        Some(workspace) if platform.may_run(&workspace).await? => Ok(()),
        Some(workspace) => match platform.hands.pause(&workspace).await {
            Ok(()) => Ok(()),
            // Not every machine can stop one where it is.
            Err(_) => platform.hands.end(sandbox).await,
        },
    }
}

/// Has services run that always do, whose releases were live before this process began, and has functions be told of events:
/// who made such a release live may have died over it.
async fn take_up(platform: Arc<Platform>, bell: Bell, stop: CancellationToken) {
    let keep = async {
        for (env, _) in all(&platform).await {
            take_up_one(&platform, &bell, &env).await;
        }
    };
    let _ = stop.run_until_cancelled(keep).await;
}

async fn take_up_one(platform: &Platform, bell: &Bell, env: &Env) {
    match platform.take_up(env).await {
        Ok(Some(live)) => {
            if live.functions.values().any(|it| !it.settings.events.is_empty()) {
                bell.ring(env);
            }
        }
        Ok(None) => {}
        Err(error) => {
            let error = error.chain();
            platform.look_again(env.id());
            tracing::warn!(env.id = %env.id(), error, "the functions and services of an app could not be looked at");
        }
    }
}

/// By itself: name servers that do not answer hold nothing else up.
async fn look_at_domains(platform: Arc<Platform>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(MINUTE)).await.is_some() {
        if let Err(error) = platform.domains.upkeep().await {
            tracing::warn!(error = error.chain(), "domains could not be looked at");
        }
    }
}

/// By themselves: one that takes long, or a store that does not answer, holds up nothing else, and no more than one of each
/// tenant is made at a time.
async fn make_backups(platform: Arc<Platform>, every: Duration, left: Duration, stop: CancellationToken) {
    let (told, lanes) = (Arc::new(Mutex::default()), Arc::new(Semaphore::new(BACKUPS)));
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    timer.tick().await;
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        let mut of_tenants: BTreeMap<TenantId, Vec<(Env, Slug)>> = BTreeMap::new();
        for (env, slug) in all(&platform).await {
            of_tenants.entry(env.tenant()).or_default().push((env, slug));
        }
        let mut made = JoinSet::new();
        for of_tenant in of_tenants.into_values() {
            let (platform, told, lanes) = (Arc::clone(&platform), Arc::clone(&told), Arc::clone(&lanes));
            made.spawn(async move {
                let _lane = lanes.acquire().await;
                for (env, slug) in of_tenant {
                    back_up_or_tell(&platform, &env, slug, &told).await;
                }
            });
        }
        if stop.run_until_cancelled(made.join_all()).await.is_none() {
            return;
        }
        if let Err(error) = platform.backups.expire_left(left).await {
            tracing::warn!(error = error.chain(), "backups of deleted environments could not be removed");
        }
    }
}

/// Every environment that is there.
pub async fn all(platform: &Platform) -> Vec<(Env, Slug)> {
    let mut all = Vec::new();
    let Ok(mut directories) = tokio::fs::read_dir(&platform.environments_dir).await else { return all };
    while let Ok(Some(entry)) = directories.next_entry().await {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<EnvId>().ok()) else {
            continue;
        };
        if let Ok(Some(place)) = platform.control.environments().find(&id.to_string()).await {
            all.push((Env::for_upkeep(place.tenant, place.env), place.slug));
        }
    }
    all
}

/// Makes the backup of an environment that is due; its log says what came of it, of failures now and then.
async fn back_up_or_tell(platform: &Platform, env: &Env, slug: Slug, told: &Mutex<HashMap<EnvId, Instant>>) {
    let said = |level, words| {
        platform.logs.append(env, logs::Entry::new(Timestamp::now(), level, Source::Release, words));
    };
    let outcome = back_up(platform, env, slug).await;
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.retain(|_, at| at.elapsed() < TOLD);
    match outcome {
        Ok(Some(backup)) => {
            told.remove(&env.id());
            said(Level::Info, format!("the backup {} was made, of {} bytes", backup.backup, backup.bytes));
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(env.id = %env.id(), error = error.chain(), "an environment could not be backed up");
            told.entry(env.id()).or_insert_with(|| {
                said(Level::Error, format!("a backup that was due could not be made: {error}"));
                Instant::now()
            });
        }
    }
}

/// Looks after every environment; `swept` says when it was looked for what backups that died have left.
async fn each(platform: &Platform, bell: &Bell, swept: &mut HashMap<EnvId, Instant>) {
    swept.retain(|_, at| at.elapsed() < SWEPT);
    for (env, _) in all(platform).await {
        let id = env.id();
        // Whoever has made the release may have ended before the clock heard of it.
        bell.ring(&env);
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
