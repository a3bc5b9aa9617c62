//! What becomes of sandboxes that nobody uses: they are stopped where they are, then ended. Their files stay.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kernel::{Code, Result, Timestamp, WorkspaceId};
use sandbox::runner::Runner as _;
use store::Ended;
use tokio_util::sync::CancellationToken;

use crate::awake::Awake;
use crate::{Hands, Inner};

/// A workspace may have as many files as it may have pieces of this many bytes.
const BYTES_OF_A_FILE: u64 = 4096;

/// How often it is looked who is not used, at the least.
const LOOK: Duration = Duration::from_secs(5);

impl Hands {
    /// Looks after the sandboxes until `stop`.
    pub async fn tend(&self, stop: CancellationToken) {
        let look = LOOK.min(self.0.limits.freeze_after.max(Duration::from_secs(1)));
        let resting = async {
            while stop.run_until_cancelled(tokio::time::sleep(look)).await.is_some() {
                self.rest().await;
            }
        };
        // What takes its time keeps nobody from being put to rest.
        let storing = async {
            while stop.run_until_cancelled(tokio::time::sleep(look)).await.is_some() {
                self.store_away().await;
            }
        };
        tokio::join!(resting, storing);
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
                let records = self.0.store.workspaces();
                if awake.has_ended() {
                    self.0.end(awake.sandbox, &mut held).await?;
                    slot.note(None);
                    return Ok(records.ended(workspace, Some(Ended::Crashed), Timestamp::now()).await?);
                }
                if !awake.stopped.load(Ordering::SeqCst) {
                    let usage = self.0.local.usage(awake.sandbox).await?;
                    awake.worked(usage.cpu);
                    if awake.was_out_of_memory(usage.oom_kills) {
                        records.ended(workspace, Some(Ended::OutOfMemory), Timestamp::now()).await?;
                    }
                    if self.0.is_overfull(workspace, &awake).await? {
                        tracing::warn!(workspace.id = %workspace, "a sandbox is ended: its workspace is over its quota");
                        self.0.end(awake.sandbox, &mut held).await?;
                        slot.note(None);
                        return Ok(records
                            .ended(workspace, Some(Ended::OverQuota), Timestamp::now())
                            .await?);
                    }
                }
                let idle = awake.idle();
                if idle >= self.0.limits.park_after {
                    self.0.end(awake.sandbox, &mut held).await?;
                    slot.note(None);
                    records.touch(workspace, Timestamp::now()).await?;
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
    /// Whether a workspace is past its quota, where its file system does not hold it to that, or the disk has no room
    /// for anybody. What writes is ended then; what removes is quicker than the next look.
    async fn is_overfull(&self, workspace: WorkspaceId, awake: &Awake) -> Result<bool> {
        if !self.has_room() {
            return Ok(true);
        }
        if !awake.is_to_be_weighed() {
            return Ok(false);
        }
        let fullness = match self.local.fullness(workspace).await {
            // What cannot be weighed within its bounds is past them.
            Err(error) if error.code() == Code::TooLarge => return Ok(true),
            fullness => fullness?,
        };
        awake.weighed(fullness);
        // Files without bytes take of the disk, too.
        let most = fullness.quota_bytes / BYTES_OF_A_FILE;
        Ok(!fullness.enforced && (fullness.bytes > fullness.quota_bytes || fullness.files > most))
    }

    /// Whether the disk that workspaces are on has room for more than what the platform itself needs.
    pub(crate) fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.limits.directory)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) > self.limits.spare_bytes)
    }

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
