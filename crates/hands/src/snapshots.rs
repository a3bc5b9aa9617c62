//! What workspaces held at earlier moments, and the way back to it.

use std::sync::atomic::Ordering;

use kernel::{Code, Error, Result, SandboxId, Timestamp, WorkspaceSnapshotId};
use sandbox::runner::{Limiting, Runner as _};
use sandbox::workspace::Mounted;
use store::{Ended, Workspace, WorkspaceSnapshot};

use crate::awake::{Held, Slot};
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
        let workspace = workspace.clone();
        // What was stopped for this has to go on.
        self.to_its_end(|hands| async move {
            let _turn = hands.0.copying.of(workspace.tenant).await;
            let slot = hands.0.slot(workspace.id);
            let mut held = slot.lock().await;
            hands.keep(&workspace, &slot, &mut held, name, How::Plain).await
        })
        .await
    }

    /// Keeps what a workspace holds after something went wrong in its sandbox, under a name that says so. What was kept
    /// under that name goes; where there is no room for one more nothing is kept.
    pub(crate) async fn keep_after(&self, slot: &Slot, sandbox: SandboxId, why: Ended) -> Result<()> {
        let inner = &self.0;
        let Some(workspace) = inner.store.workspaces().of_sandbox(sandbox).await? else { return Ok(()) };
        let _turn = inner.copying.of(workspace.tenant).await;
        let mut held = slot.lock().await;
        self.keep_as(&workspace, slot, &mut held, why).await
    }

    /// The same of a workspace whose place the caller has.
    pub(crate) async fn keep_as(
        &self,
        workspace: &Workspace,
        slot: &Slot,
        held: &mut Held,
        why: Ended,
    ) -> Result<()> {
        let inner = &self.0;
        if workspace.frozen.is_some() {
            return Ok(());
        }
        let there = self.snapshots(workspace).await?;
        let (before, others): (Vec<_>, Vec<_>) =
            there.iter().partition(|it| it.name.as_deref() == Some(why.as_str()));
        if others.len() >= inner.limits.snapshots {
            return Ok(());
        }
        // The old one makes room where there is none, and goes when there is a new one else.
        let (first, after) =
            if there.len() < inner.limits.snapshots { (vec![], before) } else { (before, vec![]) };
        for before in first {
            inner.forget(before).await?;
        }
        self.keep(workspace, slot, held, Some(why.as_str().to_owned()), How::Plain).await?;
        for before in after {
            inner.forget(before).await?;
        }
        Ok(())
    }

    /// Keeps what a workspace holds, whose place the caller has.
    pub(crate) async fn keep(
        &self,
        workspace: &Workspace,
        slot: &Slot,
        held: &mut Held,
        name: Option<String>,
        how: How,
    ) -> Result<WorkspaceSnapshot> {
        let inner = &self.0;
        let records = inner.store.workspaces();
        let there = records.snapshots(workspace.id).await?;
        let (id, bytes) = self.copied(workspace, slot, held).await?;
        let mut snapshot = WorkspaceSnapshot {
            id,
            workspace: workspace.id,
            name,
            created: Timestamp::now(),
            digest: None,
            layer: None,
            bytes,
        };
        let noted = async {
            if how == How::Frozen {
                snapshot.digest = Some(inner.local.digest(snapshot.id).await?);
                // One that is frozen again keeps what it ran with.
                let before = there.iter().find(|it| Some(it.id) == workspace.frozen);
                snapshot.layer = match before {
                    Some(before) => before.layer.clone(),
                    None => inner.layer(&workspace.template).await?,
                };
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

    /// A copy of what a workspace holds, whose place the caller has, and its bytes; no row names it yet. What runs is
    /// stopped meanwhile, or ended where this machine cannot stop it.
    pub(crate) async fn copied(
        &self,
        workspace: &Workspace,
        slot: &Slot,
        held: &mut Held,
    ) -> Result<(WorkspaceSnapshotId, u64)> {
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
        // A file system with quotas copies nothing.
        inner.hold_room(if fullness.enforced { 0 } else { fullness.bytes })?;
        let kept = inner.store.workspaces().snapshot_bytes(workspace.tenant).await?;
        let most = inner.limits.snapshot_bytes_of_tenant;
        if kept.saturating_add(fullness.bytes) > most {
            let message = format!(
                "the tenant's snapshots hold {kept} of the {most} bytes that they may, and this one has {} more",
                fullness.bytes
            );
            return Err(Error::new(Code::QuotaExceeded, message).hint(
                "remove snapshots that are not needed, or have sandbox.snapshot_bytes_of_tenant raised",
            ));
        }
        if held.as_ref().is_some_and(|awake| awake.limiting == Limiting::Degraded) {
            inner.end(slot, held).await?;
        }
        let snapshot = WorkspaceSnapshotId::new();
        match held.as_ref() {
            Some(awake) => {
                let was_stopped = awake.is_stopped();
                if !was_stopped {
                    inner.local.pause(awake.sandbox).await?;
                    awake.stopped.store(true, Ordering::SeqCst);
                }
                let kept = inner.local.snapshot(workspace.id, snapshot, Mounted::Paused).await;
                // One that does not go on is stopped for whoever calls next.
                if !was_stopped && inner.local.resume(awake.sandbox).await.is_ok() {
                    awake.stopped.store(false, Ordering::SeqCst);
                }
                kept?;
            }
            None => inner.local.snapshot(workspace.id, snapshot, Mounted::Nowhere).await?,
        }
        Ok((snapshot, fullness.bytes))
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
        inner.end(&slot, &mut held).await?;
        inner.tidy().await?;
        inner.hold_room(found.bytes)?;
        inner.at_hand(workspace).await?;
        inner.bring(workspace.id, snapshot).await?;
        inner.local.rollback(workspace.id, snapshot).await?;
        slot.begins_with(Some(found.bytes));
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
