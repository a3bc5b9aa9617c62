//! What workspaces held at earlier moments, and the way back to it.

use std::sync::atomic::Ordering;

use kernel::{Code, Error, Result, Timestamp, WorkspaceSnapshotId};
use sandbox::runner::Runner as _;
use sandbox::workspace::Mounted;
use store::{Workspace, WorkspaceSnapshot};

use crate::awake::Held;
use crate::{Hands, Inner};

/// Why a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// To be able to return to it.
    Plain,
    /// For sandboxes to begin with.
    Frozen,
}

fn frozen() -> Error {
    Error::new(Code::Conflict, "the workspace is frozen")
        .hint("its sandbox begins with the same files each time: thaw it before it is changed")
}

impl Hands {
    /// Keeps what a workspace holds at this moment. Whatever runs in it is stopped for that moment, and goes on. Where
    /// there are as many as there may be, the oldest goes.
    ///
    /// # Errors
    /// `quota_exceeded` where the workspace holds more than it may.
    pub async fn snapshot(&self, workspace: &Workspace, name: Option<String>) -> Result<WorkspaceSnapshot> {
        let (hands, workspace) = (self.clone(), workspace.clone());
        // Who asked may not wait any more, and what was stopped for this has to go on.
        let taking = tokio::spawn(async move {
            let copying = hands.0.copying(workspace.tenant);
            let _turn = copying.lock().await;
            let slot = hands.0.slot(workspace.id);
            let held = slot.lock().await;
            hands.keep(&workspace, &held, name, How::Plain).await
        });
        taking.await.map_err(Error::internal)?
    }

    /// Keeps what a workspace holds, whose place the caller has.
    pub(crate) async fn keep(
        &self,
        workspace: &Workspace,
        held: &Held<'_>,
        name: Option<String>,
        how: How,
    ) -> Result<WorkspaceSnapshot> {
        let inner = &self.0;
        let records = inner.store.workspaces();
        let there = records.snapshots(workspace.id).await?;
        let mut snapshot = WorkspaceSnapshot {
            id: self.copied(workspace, held).await?,
            workspace: workspace.id,
            name,
            created: Timestamp::now(),
            digest: None,
            layer: None,
        };
        let noted = async {
            if how == How::Frozen {
                snapshot.digest = Some(inner.local.digest(snapshot.id).await?);
                snapshot.layer = inner.layer(&workspace.template).await?;
            }
            Ok::<_, Error>(records.insert_snapshot(&snapshot).await?)
        };
        if let Err(error) = noted.await {
            inner.local.remove_snapshot(snapshot.id).await?;
            return Err(error);
        }
        // The newest are kept; of the others those without a name go first, and those that were frozen never.
        let mut goes: Vec<_> = there.iter().rev().filter(|it| it.digest.is_none()).collect();
        goes.sort_by_key(|it| it.name.is_some());
        for old in goes.iter().take((there.len() + 1).saturating_sub(inner.limits.snapshots.max(1))) {
            inner.forget(old).await?;
        }
        Ok(snapshot)
    }

    /// A copy of what a workspace holds, whose place the caller has; no row names it yet.
    pub(crate) async fn copied(&self, workspace: &Workspace, held: &Held<'_>) -> Result<WorkspaceSnapshotId> {
        let inner = &self.0;
        inner.tidy().await?;
        if held.is_none() {
            inner.at_hand(&self.now(workspace).await?).await?;
        }
        let fullness = inner.local.fullness(workspace.id).await?;
        if fullness.bytes > fullness.quota_bytes {
            let message = format!(
                "the workspace has {} bytes, of {} that it may",
                fullness.bytes, fullness.quota_bytes
            );
            return Err(Error::new(Code::QuotaExceeded, message).hint("remove files first"));
        }
        let snapshot = WorkspaceSnapshotId::new();
        match held.as_ref() {
            Some(awake) => {
                if !awake.stopped.load(Ordering::SeqCst) {
                    inner.local.pause(awake.sandbox).await?;
                }
                let kept = inner.local.snapshot(workspace.id, snapshot, Mounted::Paused).await;
                if !awake.stopped.load(Ordering::SeqCst) {
                    inner.local.resume(awake.sandbox).await?;
                }
                kept?;
            }
            None => inner.local.snapshot(workspace.id, snapshot, Mounted::Nowhere).await?,
        }
        Ok(snapshot)
    }

    /// The snapshots of a workspace, newest first.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn snapshots(&self, workspace: &Workspace) -> Result<Vec<WorkspaceSnapshot>> {
        Ok(self.0.store.workspaces().snapshots(workspace.id).await?)
    }

    /// Puts back what a snapshot of the workspace holds. Whatever runs in its sandbox is ended first.
    ///
    /// # Errors
    /// `not_found` where it is none of this workspace.
    pub async fn restore(
        &self,
        workspace: &Workspace,
        snapshot: WorkspaceSnapshotId,
    ) -> Result<WorkspaceSnapshot> {
        let inner = &self.0;
        let slot = inner.slot(workspace.id);
        let mut held = slot.lock().await;
        let workspace = &self.now(workspace).await?;
        if workspace.frozen.is_some() {
            return Err(frozen());
        }
        let found = inner.store.workspaces().snapshots(workspace.id).await?;
        let found = found.into_iter().find(|it| it.id == snapshot);
        let found =
            found.ok_or_else(|| Error::not_found(format!("snapshot \"{snapshot}\" of this workspace")))?;
        inner.end(workspace.sandbox, &mut held).await?;
        slot.note(None);
        inner.tidy().await?;
        inner.at_hand(workspace).await?;
        inner.bring(workspace.id, snapshot).await?;
        inner.local.rollback(workspace.id, snapshot).await?;
        Ok(found)
    }

    /// The workspace as it is noted at this moment.
    pub(crate) async fn now(&self, workspace: &Workspace) -> Result<Workspace> {
        let found = self.0.store.workspaces().of_sandbox(workspace.sandbox).await?;
        found.ok_or_else(|| Error::not_found("such workspace (any more)"))
    }

    /// Removes a snapshot of the workspace; once more is no error.
    ///
    /// # Errors
    /// `conflict` where the workspace is frozen with it; where its files cannot be removed.
    pub async fn remove_snapshot(&self, workspace: &Workspace, snapshot: &WorkspaceSnapshot) -> Result<()> {
        let slot = self.0.slot(workspace.id);
        let _held = slot.lock().await;
        if self.now(workspace).await?.frozen == Some(snapshot.id) {
            return Err(Error::new(Code::Conflict, "the frozen sandbox begins with this snapshot")
                .hint("thaw it first"));
        }
        self.0.forget(snapshot).await
    }
}

impl Inner {
    /// Removes a snapshot whose workspace's place the caller has.
    async fn forget(&self, snapshot: &WorkspaceSnapshot) -> Result<()> {
        self.local.remove_snapshot(snapshot.id).await?;
        self.keeping.checkpoints.remove(snapshot.workspace, snapshot.id).await?;
        Ok(self.store.workspaces().remove_snapshot(snapshot.id).await?)
    }
}
