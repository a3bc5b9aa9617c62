//! Points in the life of an environment: its database, the blobs that releases need and the files of its buckets, as
//! they were together at one moment.
//!
//! A snapshot is a directory below its environment's own. It is made under another name and renamed when it is whole
//! and on the disk, so that a crash leaves it whole or not at all. What never changes is shared with the environment: by
//! hard links, and where contents are in S3 by a list of their names, which keeps them from being removed.

mod archive;
mod attic;
mod backups;
mod branch;
mod contents;
mod exports;
mod files;
mod lifecycle;
mod losses;
mod merge;
mod restore;
mod store;
mod take;
mod transfer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::{Code, Env, EnvId, Error, Result, SnapshotId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::database::Databases;
use crate::logs::Logs;
use crate::releases::Releases;
use crate::storage::Contents;

pub use attic::Attic;
pub use backups::{Backup, Backups};
pub(crate) use branch::STATE;
pub use branch::With;
use exports::Exports;
pub use merge::Merging;
pub use restore::Restored;
pub use transfer::{ArchiveStream, Imported};

/// The snapshots of every environment. Clones share everything.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    envs_dir: PathBuf,
    databases: Arc<Databases>,
    releases: Arc<Releases>,
    auth: Auth,
    logs: Logs,
    contents: Contents,
    attic: Attic,
    limits: SnapshotLimits,
    turns: Mutex<HashMap<EnvId, Arc<tokio::sync::Mutex<()>>>>,
    exports: Exports,
    imports: Exports,
}

/// How much the snapshots of one environment may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// How many somebody may make.
    pub most: usize,
    /// How many the platform keeps of those that it makes before something is restored; the oldest goes first.
    pub automatic: usize,
    /// How many bytes all of them may take together, without what they share with the environment.
    pub bytes: u64,
    /// How many bytes an archive may hold that an environment is made of.
    pub archive: u64,
    /// How long an archive that is sent may stand still, because nobody takes more of it.
    pub idle: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { most: 20, automatic: 3, bytes: 4 << 30, archive: 8 << 30, idle: Duration::from_secs(60) }
    }
}

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its id.
    #[schemars(with = "String")]
    pub snapshot: SnapshotId,
    /// Its name, unlike that of any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of which moment it is.
    #[schemars(with = "String")]
    pub created_at: Timestamp,
    /// The release that was current; 0 before the first.
    pub release: u64,
    /// How large its database is, in bytes.
    pub bytes: u64,
    /// Whether the platform made it, before it restored another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
    /// Whether it is packed away: a return to it takes longer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
}

/// What a snapshot is to be called.
#[derive(Debug, Clone, Default)]
pub struct NewSnapshot {
    /// A name that no other has, at most 60 characters.
    pub name: Option<String>,
    /// What it is for, at most 500 characters.
    pub note: Option<String>,
}

impl Snapshots {
    /// The snapshots of the environments below `envs_dir`, whose files' bytes are in `contents`; old ones go to `attic`.
    #[expect(clippy::too_many_arguments, reason = "each is another part of an environment")]
    #[must_use]
    pub fn new(
        envs_dir: PathBuf,
        databases: Arc<Databases>,
        releases: Arc<Releases>,
        auth: Auth,
        logs: Logs,
        contents: Contents,
        attic: Attic,
        limits: SnapshotLimits,
    ) -> Self {
        let (turns, exports) = (Mutex::default(), Exports::default());
        Self(Arc::new(Inner {
            envs_dir,
            databases,
            releases,
            auth,
            logs,
            contents,
            attic,
            limits,
            turns,
            exports,
            imports: Exports::default(),
        }))
    }

    /// Every snapshot of the environment, newest first.
    ///
    /// # Errors
    /// The disk.
    pub async fn list(&self, env: &Env) -> Result<Vec<Snapshot>> {
        store::list(self.0.directory(env.id())).await
    }

    /// The snapshot of that id or name.
    ///
    /// # Errors
    /// `not_found` at `/snapshot`.
    pub async fn find(&self, env: &Env, id_or_name: &str) -> Result<Snapshot> {
        let named =
            |it: &Snapshot| it.snapshot.to_string() == id_or_name || it.name.as_deref() == Some(id_or_name);
        self.list(env).await?.into_iter().find(named).ok_or_else(|| {
            let name: String = id_or_name.chars().take(64).collect();
            Error::not_found(format!("snapshot {name:?}"))
                .field("/snapshot")
                .hint("app_describe lists the snapshots")
        })
    }

    /// Removes a snapshot; what only it needs goes with it.
    ///
    /// # Errors
    /// `not_found`; the disk.
    pub async fn remove(&self, env: &Env, id_or_name: &str) -> Result<Snapshot> {
        let _turn = self.0.turn(env.id()).await;
        let found = self.find(env, id_or_name).await?;
        self.0.remove(env.id(), &found).await?;
        Ok(found)
    }

    /// Forgets an environment that is deleted, and removes what is packed of it.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn forget(&self, env: EnvId) -> Result<()> {
        // One that is being packed is in its place before what is there is listed.
        let turn = self.0.turn(env).await;
        let forgotten = self.0.attic.forget(env, &[]).await;
        drop(turn);
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(&env);
        forgotten
    }

    /// Waits until no snapshot of the environment is made or restored, and lets none begin until what it gives is
    /// dropped. Whoever removes contents that nothing names holds it.
    pub async fn hold(&self, env: &Env) -> tokio::sync::OwnedMutexGuard<()> {
        self.0.turn(env.id()).await
    }
}

impl Inner {
    /// Where the snapshots of `env` are.
    fn directory(&self, env: EnvId) -> PathBuf {
        self.environment(env).join("snapshots")
    }

    fn environment(&self, env: EnvId) -> PathBuf {
        self.envs_dir.join(env.to_string())
    }

    /// The turn to work on the snapshots of `env`.
    async fn turn(&self, env: EnvId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn =
            Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(env).or_default());
        turn.lock_owned().await
    }
}

/// The disk fails, or is full.
fn disk(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return Error::new(Code::Unavailable, "the disk is full")
            .hint("the operator has to free space on the disk; nothing was changed");
    }
    Error::internal(error)
}

/// Runs `work`, which waits for the disk, where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))).map_err(disk)
}

#[cfg(test)]
mod tests;
