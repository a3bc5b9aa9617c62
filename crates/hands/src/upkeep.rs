//! What becomes of sandboxes that nobody uses: they are stopped where they are, then ended. Their files stay.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kernel::Result;
use sandbox::runner::Runner as _;
use tokio_util::sync::CancellationToken;

use crate::{Hands, Inner};

/// How often it is looked who is not used.
const LOOK: Duration = Duration::from_secs(5);

impl Hands {
    /// Looks after the sandboxes until `stop`.
    pub async fn tend(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.rest().await;
        }
    }

    /// Stops and ends what has not been used for long enough.
    pub async fn rest(&self) {
        let slots: Vec<_> =
            self.0.slots().iter().map(|(id, slot)| (*id, std::sync::Arc::clone(slot))).collect();
        for (workspace, slot) in slots {
            // Whose place is taken is in use.
            let Some(mut held) = slot.try_lock() else { continue };
            let Some(awake) = held.clone() else { continue };
            let outcome = async {
                if !awake.stopped.load(Ordering::SeqCst) {
                    awake.worked(self.0.local.usage(awake.sandbox).await?.cpu);
                }
                let idle = awake.idle();
                if idle >= self.0.limits.park_after {
                    self.0.end(awake.sandbox, &mut held).await?;
                    slot.note(None);
                } else if idle >= self.0.limits.freeze_after && !awake.stopped.load(Ordering::SeqCst) {
                    self.0.local.pause(awake.sandbox).await?;
                    awake.stopped.store(true, Ordering::SeqCst);
                }
                Ok::<(), kernel::Error>(())
            };
            if let Err(error) = outcome.await {
                tracing::warn!(workspace.id = %workspace, error = error.chain(), "a sandbox could not be put to rest");
            }
        }
    }
}

impl Inner {
    /// Removes workspaces and snapshots that no row names: their rows went, or never came, in an earlier process.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let tidy = async {
            let (workspaces, snapshots) = self.local.ids().await?;
            let known = self.store.workspaces().ids().await?;
            let known: (HashSet<_>, HashSet<_>) =
                (known.0.into_iter().collect(), known.1.into_iter().collect());
            for id in workspaces.into_iter().filter(|id| !known.0.contains(id)) {
                self.local.remove_workspace(id).await?;
            }
            for id in snapshots.into_iter().filter(|id| !known.1.contains(id)) {
                self.local.remove_snapshot(id).await?;
            }
            Ok(())
        };
        self.tidy.get_or_try_init(|| tidy).await.map(drop)
    }
}
