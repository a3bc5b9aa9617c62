//! Files of sandboxes, which outlive them: the port to whatever keeps them.

use std::path::PathBuf;

use hand::jail::Tree;
use kernel::{Result, WorkspaceId, WorkspaceSnapshotId};
use serde::{Deserialize, Serialize};

/// What a new workspace begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nothing.
    Empty,
    /// What a snapshot holds, of whichever workspace.
    Snapshot(WorkspaceSnapshotId),
}

/// How full a workspace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fullness {
    /// Bytes that its files take.
    pub bytes: u64,
    /// How many files and directories there are.
    pub files: u64,
    /// The most bytes it may hold.
    pub quota_bytes: u64,
    /// Whether the file system itself refuses more than that.
    pub enforced: bool,
}

/// Keeps workspaces and their snapshots. Calls block; they are made where the privileges for it are.
/// Ids that are not known are `not_found`; ids that are taken are `conflict`.
pub trait Workspaces: Send + Sync {
    /// Makes a workspace of at most `quota_bytes`.
    ///
    /// # Errors
    /// `quota_exceeded` where `origin` holds more; nothing is left behind.
    fn create(&self, id: WorkspaceId, origin: Origin, quota_bytes: u64) -> Result<()>;

    /// How the workspace is mounted into a sandbox; nobody else may have it mounted.
    ///
    /// # Errors
    /// `not_found`.
    fn tree(&self, id: WorkspaceId) -> Result<Tree>;

    /// Keeps what the workspace holds at this moment. Whoever writes in it is paused meanwhile, by the caller.
    ///
    /// # Errors
    /// `not_found`, `conflict`.
    fn snapshot(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()>;

    /// Puts back what a snapshot holds, in one step. The workspace is mounted nowhere, which the caller sees to.
    ///
    /// # Errors
    /// `not_found`.
    fn rollback(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()>;

    /// Where a snapshot's files can be read on the host.
    ///
    /// # Errors
    /// `not_found`.
    fn snapshot_files(&self, snapshot: WorkspaceSnapshotId) -> Result<PathBuf>;

    /// Removes a workspace, its snapshots not. Once more is no error.
    ///
    /// # Errors
    /// Of the file system.
    fn remove(&self, id: WorkspaceId) -> Result<()>;

    /// Removes a snapshot; what was made from it stays. Once more is no error.
    ///
    /// # Errors
    /// Of the file system.
    fn remove_snapshot(&self, snapshot: WorkspaceSnapshotId) -> Result<()>;

    /// How full the workspace is.
    ///
    /// # Errors
    /// `not_found`.
    fn fullness(&self, id: WorkspaceId) -> Result<Fullness>;
}
