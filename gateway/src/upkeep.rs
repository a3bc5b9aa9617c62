//! What nobody asks for and has to be done: expired rows and sessions go, and blobs and files that nothing needs.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Env, EnvId};
use mcp_server::platform::Platform;
use tokio_util::sync::CancellationToken;

/// How often expired rows are removed.
const MINUTE: Duration = Duration::from_secs(60);

/// After how many of those rounds environments are looked at.
const ROUNDS: u32 = 60;

/// Works in the background until `stop`.
pub fn start(platform: Arc<Platform>, stop: CancellationToken) {
    tokio::spawn(async move {
        for round in 1_u32.. {
            tokio::select! {
                () = tokio::time::sleep(MINUTE) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = platform.control.upkeep().await {
                tracing::warn!(error = error.chain(), "the control plane could not be tidied");
            }
            if round % ROUNDS == 0 {
                collect(&platform).await;
            }
        }
    });
}

async fn collect(platform: &Platform) {
    let Ok(mut directories) = tokio::fs::read_dir(&platform.environments_dir).await else { return };
    while let Ok(Some(entry)) = directories.next_entry().await {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<EnvId>().ok()) else {
            continue;
        };
        let Ok(Some(place)) = platform.control.environments().find(&id.to_string()).await else { continue };
        let env = Env::for_upkeep(place.tenant, place.env);
        if let Err(error) = platform.releases.collect(&env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "unused blobs could not be collected");
        }
        if let Err(error) = platform.storage.tidy(&env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "left-over files could not be collected");
        }
        if let Err(error) = platform.auth.tidy(&env).await {
            tracing::warn!(env.id = %id, error = error.chain(), "expired sessions could not be removed");
        }
    }
}
