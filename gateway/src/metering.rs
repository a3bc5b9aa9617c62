//! What environments keep, counted as time goes by; and who tells the meters what else is used.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::{Env, Meter, Metering};
use mcp_server::platform::Platform;
use sandbox::local::Local;
use tokio_util::sync::CancellationToken;

use crate::upkeep;
use crate::wiring::Listening;

/// How often it is looked what environments keep.
const EVERY: Duration = Duration::from_secs(15 * 60);

/// Has everything counted that environments use, until the platform stops: what is read of answers, what `jails` use, and what
/// is kept. `remote` says whether files are in a bucket and not below the data directory.
pub fn start(
    platform: &Arc<Platform>,
    jails: Arc<Local>,
    listening: &Listening,
    every: Duration,
    remote: bool,
) {
    let meters: Arc<dyn Metering> = Arc::new(platform.control.metering().clone());
    listening.traffic.metered_by(Arc::clone(&meters));
    jails.metered_by(meters);
    let (stop, stopped) = (listening.stopping.clone(), listening.stopping.clone());
    tokio::spawn(async move { jails.meter(stopped).await });
    tokio::spawn(storage(Arc::clone(platform), remote, every, stop));
}

/// Counts what is kept, until `stop`.
async fn storage(platform: Arc<Platform>, remote: bool, every: Duration, stop: CancellationToken) {
    let every = every.min(EVERY);
    let mut looked = Instant::now();
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let since = looked.elapsed().as_secs();
        looked += Duration::from_secs(since);
        for (env, _) in upkeep::all(&platform).await {
            let bytes = kept(&platform, &env, remote).await;
            let meters = platform.control.metering();
            meters.count(env.tenant(), env.id(), Meter::Storage, bytes.saturating_mul(since));
        }
    }
}

async fn kept(platform: &Platform, env: &Env, remote: bool) -> u64 {
    let directory = platform.environments_dir.join(env.id().to_string());
    let here = tokio::task::spawn_blocking(move || size(&directory)).await.unwrap_or_default();
    // One that cannot be read now is not charged for what it keeps elsewhere.
    let elsewhere = if remote { platform.storage.used(env).await.unwrap_or_default() } else { 0 };
    here.saturating_add(elsewhere)
}

/// What files below a directory take, each once however many names it has; links are not followed.
fn size(directory: &Path) -> u64 {
    let mut bytes: u64 = 0;
    let mut below: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = below.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.path().symlink_metadata() else { continue };
            if found.is_dir() {
                below.push(entry.path());
            } else if found.is_file() {
                bytes = bytes.saturating_add(found.len() / found.nlink().max(1));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let (one, below) = (directory.path().join("one"), directory.path().join("below"));
        std::fs::create_dir(&below).unwrap();
        std::fs::write(&one, [0; 1_000]).unwrap();
        std::fs::hard_link(&one, below.join("again")).unwrap();
        std::os::unix::fs::symlink(&one, below.join("link")).unwrap();
        std::fs::write(below.join("two"), [0; 500]).unwrap();
        assert_eq!(size(directory.path()), 1_500);
    }
}
