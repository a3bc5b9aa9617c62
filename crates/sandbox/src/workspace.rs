//! Files of sandboxes, which outlive them: the port to whatever keeps them, and what does.

use std::fmt;
use std::path::Path;

pub use hand::jail::Tree;
use kernel::{Result, WorkspaceId, WorkspaceSnapshotId};
use serde::{Deserialize, Serialize};

pub mod archive;
mod beneath;
mod btrfs;
pub mod checkpoints;
mod copying;
mod error;
mod files;
pub mod manifest;
mod opening;
mod overlay;
mod plain;
pub mod pool;
mod removal;
pub mod restoring;
mod shelf;
#[cfg(test)]
mod suite;
pub mod templates;
mod trees;

pub use error::Error;
pub use files::{Caps, Files, Kind, Seen};
pub use opening::{best, open, open_as, used};
pub use overlay::Overlay;
pub use trees::Trees;

/// What a workspace may hold where nobody says otherwise.
pub const DEFAULT_QUOTA: u64 = 2 << 30;

/// The least that a workspace's quota can be.
pub const LEAST_QUOTA: u64 = 512 << 20;

/// Whose the files are on the disk, user and group, in every workspace.
pub const OWNER: u32 = 1000;

/// What keeps workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Subvolumes of a btrfs file system.
    Btrfs,
    /// Layers that overlayfs lays over each other, on any file system.
    Overlay,
    /// A directory each, on a file system that several machines share.
    Directory,
    /// A directory each, copied whole.
    Copy,
}

impl Driver {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Btrfs, Self::Overlay, Self::Directory, Self::Copy];

    /// Its name, in texts and on the disk.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Overlay => "overlay",
            Self::Directory => "directory",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a new workspace begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nothing.
    Empty,
    /// What a snapshot holds, of whichever workspace.
    Snapshot(WorkspaceSnapshotId),
}

/// Whether a workspace is in use while something is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mounted {
    /// A sandbox has it; whoever writes in it is paused.
    Paused,
    /// No sandbox has it.
    Nowhere,
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
/// Ids that are not known are `not_found`; ids that are taken are `conflict`. What a call has begun and not finished,
/// for whatever reason, is never seen, and goes when the workspaces are opened again.
pub trait Workspaces: Send + Sync {
    /// What keeps them.
    fn driver(&self) -> Driver;

    /// Makes a workspace of at most `quota_bytes`.
    ///
    /// # Errors
    /// `invalid_input` for a quota below [`LEAST_QUOTA`]; `quota_exceeded` where `origin` holds more.
    fn create(&self, id: WorkspaceId, origin: Origin, quota_bytes: u64) -> Result<()>;

    /// How the workspace is mounted into a sandbox, until the next snapshot that is taken while it is mounted nowhere,
    /// or the next return to one; nobody else may have it mounted.
    ///
    /// # Errors
    /// `not_found`.
    fn tree(&self, id: WorkspaceId) -> Result<Tree>;

    /// Keeps what the workspace holds at this moment.
    ///
    /// # Errors
    /// `not_found`, `conflict`; `too_large` where a tree that must be copied is over a bound of [`Caps`].
    fn snapshot(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId, mounted: Mounted) -> Result<()>;

    /// Puts back what a snapshot holds, in one step. The workspace is mounted nowhere, which the caller sees to.
    ///
    /// # Errors
    /// `not_found`; `quota_exceeded` where it holds more than the workspace may.
    fn rollback(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()>;

    /// Where a snapshot's files can be read on the host, as long as the snapshot is there.
    ///
    /// # Errors
    /// `not_found`.
    fn snapshot_files(&self, snapshot: WorkspaceSnapshotId) -> Result<Files>;

    /// Makes a snapshot of what `fill` puts into an empty directory.
    ///
    /// # Errors
    /// `conflict`; what `fill` returns.
    fn receive(&self, snapshot: WorkspaceSnapshotId, fill: &mut dyn FnMut(&Path) -> Result<()>)
    -> Result<()>;

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
    /// `not_found`; `too_large` where there is more than can be counted.
    fn fullness(&self, id: WorkspaceId) -> Result<Fullness>;

    /// Every workspace and every snapshot there is.
    ///
    /// # Errors
    /// Of the file system.
    fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)>;
}
