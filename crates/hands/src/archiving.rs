//! Workspaces that nobody has needed for long: their files go to the store of checkpoints, and come back with the next
//! call, on this machine or on another one.
//!
//! One column says where the files are, and each way is a list of steps that can be begun anew after an end at any of
//! them: what is new is made whole and read back first, then the column changes, then what is old goes.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Error, Result, Timestamp, WorkspaceId, WorkspaceSnapshotId};
use sandbox::workspace::manifest::Manifest;
use sandbox::workspace::restoring::Open;
use sandbox::workspace::{Mounted, Origin, Tree};
use store::{Kept, Workspace};
use tokio::runtime::Handle;

use crate::awake::Slot;
use crate::{Hands, Inner};

/// Why an archive was not made to its end.
const WANTED: &str = "somebody calls who needs the workspace";

/// Writes on until somebody needs the workspace.
struct UntilWanted<'a>(&'a mut dyn Write, &'a Slot);

impl Write for UntilWanted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.is_wanted() {
            return Err(io::Error::other(WANTED));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How many workspaces are archived in one round.
const ROUND: i64 = 8;

/// The shortest time between two attempts to archive one workspace.
const NEXT_ARCHIVE: Duration = Duration::from_secs(60);

impl Hands {
    /// Archives workspaces that nobody has used for long enough.
    pub async fn store_away(&self) {
        let inner = &self.0;
        let Some(after) = inner.limits.archive_after else { return };
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(micros));
        let unused = inner.store.workspaces().unused(inner.keeping.place, before, ROUND).await;
        let unused = unused.unwrap_or_else(|error| {
            tracing::warn!(
                error = kernel::Error::from(error).chain(),
                "unused workspaces cannot be looked up"
            );
            Vec::new()
        });
        for workspace in unused {
            let slot = inner.slot(workspace.id);
            // Whose place is taken is in use.
            let Some(held) = slot.try_lock() else { continue };
            if held.is_some() || !slot.archiving.begin() {
                continue;
            }
            let outcome = inner.archive(&workspace, before, &slot).await;
            slot.archiving.done(if outcome.is_ok() { Duration::ZERO } else { NEXT_ARCHIVE });
            if let Err(error) = outcome {
                if slot.is_wanted() {
                    continue;
                }
                tracing::warn!(workspace.id = %workspace.id, error = error.chain(), "a workspace could not be archived");
            }
        }
    }
}

impl Inner {
    /// Archives a workspace whose place the caller holds, with its snapshots, and removes it from this machine.
    async fn archive(
        self: &Arc<Self>,
        workspace: &Workspace,
        before: Timestamp,
        slot: &Arc<Slot>,
    ) -> Result<()> {
        let records = self.store.workspaces();
        self.tidy().await?;
        // It may have been woken since it was listed.
        let Some(workspace) = records.of_sandbox(workspace.sandbox).await? else { return Ok(()) };
        let here = Kept::At(self.keeping.place);
        if workspace.kept != here || workspace.used >= before {
            return Ok(());
        }
        let checkpoints = &self.keeping.checkpoints;
        let there = checkpoints.list(workspace.id).await?;
        let is_there = |snapshot| there.iter().any(|checkpoint| checkpoint.snapshot == snapshot);
        let snapshots = records.snapshots(workspace.id).await?;
        let mut base = workspace.archive.filter(|archive| is_there(*archive));
        for snapshot in snapshots.iter().rev() {
            if is_there(snapshot.id) {
                // It may have been made long ago.
                self.verify(workspace.id, snapshot.id, slot).await?;
            } else {
                self.checkpoint(workspace.id, snapshot.id, base, slot).await?;
            }
            base = Some(snapshot.id);
        }
        let newest = WorkspaceSnapshotId::new();
        self.local.snapshot(workspace.id, newest, Mounted::Nowhere).await?;
        let kept = self.checkpoint(workspace.id, newest, base, slot).await;
        if kept.is_err() {
            self.local.remove_snapshot(newest).await?;
            return kept;
        }
        if records.keep(workspace.id, here, Kept::Archived, Some(newest)).await? {
            // From here on the archive is what the workspace is; what is left behind goes at the next start.
            self.local.remove_workspace(workspace.id).await?;
            for snapshot in snapshots.iter().map(|snapshot| snapshot.id).chain([newest]) {
                self.local.remove_snapshot(snapshot).await?;
            }
        }
        for old in checkpoints.list(workspace.id).await? {
            if old.snapshot != newest && !snapshots.iter().any(|snapshot| snapshot.id == old.snapshot) {
                checkpoints.remove(workspace.id, old.snapshot).await?;
            }
        }
        tracing::info!(workspace.id = %workspace.id, "a workspace is archived");
        Ok(())
    }

    /// Makes a checkpoint of a snapshot, and holds that all that it needs can be read back.
    async fn checkpoint(
        self: &Arc<Self>,
        workspace: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
        base: Option<WorkspaceSnapshotId>,
        slot: &Arc<Slot>,
    ) -> Result<()> {
        let (inner, runtime, asked) = (Arc::clone(self), Handle::current(), Arc::clone(slot));
        let archive = move |base: Option<&Manifest>, out: &mut dyn Write| {
            inner.local.archive(&runtime, snapshot, base, &mut UntilWanted(out, &asked))
        };
        self.keeping.checkpoints.keep(workspace, snapshot, base, archive).await?;
        self.verify(workspace, snapshot, slot).await
    }

    /// Holds that all that a checkpoint needs can be read back; one that cannot is none.
    async fn verify(&self, workspace: WorkspaceId, snapshot: WorkspaceSnapshotId, slot: &Slot) -> Result<()> {
        if slot.is_wanted() {
            return Err(Error::new(Code::Unavailable, WANTED));
        }
        let verified = self.keeping.checkpoints.verify(workspace, snapshot).await;
        if verified.is_err() {
            self.keeping.checkpoints.remove(workspace, snapshot).await?;
        }
        verified
    }

    /// How the files of a workspace are mounted, which are brought here first where they are not. The caller holds its
    /// place, and it has no sandbox.
    pub(crate) async fn at_hand(self: &Arc<Self>, workspace: &Workspace) -> Result<Tree> {
        let here = Kept::At(self.keeping.place);
        match workspace.kept {
            Kept::At(place) if place != self.keeping.place => {
                let elsewhere = "the files of the workspace are on another machine";
                return Err(Error::new(Code::Unavailable, elsewhere)
                    .hint("call the platform that runs there, or let that one archive the workspace"));
            }
            Kept::At(_) => {}
            Kept::Unsaid => {
                if !self.is_here(workspace.id).await? {
                    self.local.create_workspace(workspace.id, Origin::Empty, workspace.quota_bytes).await?;
                }
                self.note(workspace, here).await?;
            }
            Kept::Archived => self.unpack(workspace).await?,
        }
        match self.local.tree(workspace.id).await {
            // Nobody gets an empty directory in place of what was lost.
            Err(error) if error.code() == Code::NotFound => {
                Err(Error::new(Code::Unavailable, "the files of the workspace are not where they were left")
                    .hint("the operator has to bring the directory of the workspaces back"))
            }
            tree => tree,
        }
    }

    async fn is_here(&self, workspace: WorkspaceId) -> Result<bool> {
        match self.local.tree(workspace).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Code::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn note(&self, workspace: &Workspace, now: Kept) -> Result<()> {
        let noted =
            self.store.workspaces().keep(workspace.id, workspace.kept, now, workspace.archive).await?;
        if noted {
            return Ok(());
        }
        Err(Error::new(Code::Conflict, "another machine has taken the workspace").hint("call again"))
    }

    /// Brings an archived workspace back.
    async fn unpack(self: &Arc<Self>, workspace: &Workspace) -> Result<()> {
        let archive =
            workspace.archive.ok_or_else(|| Error::internal("an archived workspace has no archive"))?;
        // What lies here is of an earlier attempt, or older than the archive.
        self.local.remove_workspace(workspace.id).await?;
        self.bring(workspace.id, archive).await?;
        let origin = Origin::Snapshot(archive);
        match self.local.create_workspace(workspace.id, origin, workspace.quota_bytes).await {
            // Each file system counts in its own way, and what was within its bounds there has to come back.
            Err(error) if error.code() == Code::QuotaExceeded => {
                let quota = workspace.quota_bytes.saturating_mul(2);
                self.local.create_workspace(workspace.id, origin, quota).await?;
            }
            made => made?,
        }
        self.note(workspace, Kept::At(self.keeping.place)).await?;
        // Whatever it is brought back for, it is not archived again at once.
        self.store.workspaces().touch(workspace.id, Timestamp::now()).await?;
        let named = self.store.workspaces().snapshots(workspace.id).await?;
        if !named.iter().any(|snapshot| snapshot.id == archive) {
            self.local.remove_snapshot(archive).await?;
        }
        tracing::info!(workspace.id = %workspace.id, "a workspace is back from its archive");
        Ok(())
    }

    /// Sees that a snapshot of a workspace is on this machine.
    ///
    /// # Errors
    /// `not_found` where it is neither here nor in the store of checkpoints.
    pub(crate) async fn bring(
        self: &Arc<Self>,
        workspace: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
    ) -> Result<()> {
        if self.local.ids().await?.1.contains(&snapshot) {
            return Ok(());
        }
        let (inner, runtime) = (Arc::clone(self), Handle::current());
        let receive = move |manifest: &Manifest, open: &mut Open<'_>| {
            // Once as it comes, and once as what is made of it.
            inner.hold_room(manifest.bytes().saturating_mul(2))?;
            inner.local.receive(&runtime, snapshot, manifest, open)
        };
        self.keeping.checkpoints.bring(workspace, snapshot, receive).await
    }
}
