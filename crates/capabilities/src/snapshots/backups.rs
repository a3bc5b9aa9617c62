//! Backups: archives of environments in a store of objects, each read back before an older one goes.
//!
//! A backup is two objects: `<env>/<id>.tar`, and `<env>/<id>.json`, which is written last, when the first has been read
//! back with the right hash. One without the other is none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kernel::{BlobHash, Code, Env, EnvId, Error, Result, SnapshotId, TenantId, Timestamp};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Place;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ArchiveStream, Snapshots};
use crate::releases::BackupSpec;
use crate::storage::parts::Parts;

/// How much is written at a time; S3 takes no smaller part but the last.
const PART: usize = 8 << 20;

/// How many of one environment there may be for more to be asked for.
const ASKED: usize = 20;

/// How many notes of them are read at once.
const READ_AT_ONCE: usize = 16;

/// After how long what an attempt that died has left is removed.
const LEFT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where it is noted which environments are deleted whose backups are left.
const LEFT_BY: &str = "deleted";

/// What is noted of an environment that is deleted and has backups.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    tenant: TenantId,
    at: Timestamp,
}

/// The backups of all environments. Clones share everything.
#[derive(Clone)]
pub struct Backups {
    store: Arc<dyn ObjectStore>,
    snapshots: Snapshots,
    most_bytes: u64,
}

/// One backup that was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Its id.
    pub backup: SnapshotId,
    /// Of which moment it is.
    pub created_at: Timestamp,
    /// The environment's slug at that moment.
    pub slug: String,
    /// How large it is, in bytes.
    pub bytes: u64,
    /// The SHA-256 of it.
    pub sha256: BlobHash,
}

impl Backups {
    /// Backups below the directory `path`, which is made where it is missing, of at most so many bytes for each
    /// environment.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn local(path: &Path, snapshots: Snapshots, most_bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(super::disk)?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(Error::internal)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), snapshots, most_bytes })
    }

    /// Backups in a store of objects, below `backups`.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>, snapshots: Snapshots, most_bytes: u64) -> Self {
        Self { store: Arc::new(PrefixStore::new(store, "backups")), snapshots, most_bytes }
    }

    /// Makes a backup of the environment as it is now, and reads it back.
    ///
    /// # Errors
    /// As [`Snapshots::export`]; `unavailable` where the store fails.
    pub async fn take(&self, env: &Env, slug: String, secrets: Vec<String>) -> Result<Backup> {
        let (backup, created_at) = (SnapshotId::new(), Timestamp::now());
        let mut stream = self.snapshots.export(env, slug.clone(), secrets).await?;
        let place = tar(env.id(), backup);
        let (bytes, sha256) = keep_whole(&self.store, &place, &mut stream).await?;
        let made = Backup { backup, created_at, slug, bytes, sha256 };
        let about = serde_json::to_vec(&made).map_err(Error::internal)?;
        self.store.put(&about_of(env.id(), backup), about.into()).await.map_err(failed)?;
        Ok(made)
    }

    /// As [`Backups::take`], for somebody who asks for it: so often and no more.
    ///
    /// # Errors
    /// `quota_exceeded` too.
    pub async fn take_one_more(&self, env: &Env, slug: String, secrets: Vec<String>) -> Result<Backup> {
        let there = self.list(env.id()).await?;
        let bytes: u64 = there.iter().map(|it| it.bytes).sum();
        let refusal = if there.len() >= ASKED {
            format!(
                "there are {} backups of the environment, which is as many as can be asked for",
                there.len()
            )
        } else if bytes >= self.most_bytes {
            format!("the environment's backups have {bytes} bytes, of {} that they may have", self.most_bytes)
        } else {
            return self.take(env, slug, secrets).await;
        };
        Err(Error::new(Code::QuotaExceeded, refusal)
            .hint("remove one with DELETE /v1/envs/{env}/backups/{backup}, or let `backups` of the manifest keep fewer"))
    }

    /// Removes one backup.
    ///
    /// # Errors
    /// `not_found`; `unavailable` where the store fails.
    pub async fn forget(&self, env: EnvId, id: &str) -> Result<()> {
        let found = self.find(env, id).await?;
        // What says that it is one goes first.
        self.remove(&about_of(env, found.backup)).await?;
        self.remove(&tar(env, found.backup)).await
    }

    async fn find(&self, env: EnvId, id: &str) -> Result<Backup> {
        self.list(env).await?.into_iter().find(|it| it.backup.to_string() == id).ok_or_else(|| {
            let id: String = id.chars().take(64).collect();
            Error::not_found(format!("backup {id:?}"))
        })
    }

    /// The backups of an environment, newest first. There may be some of one that is deleted.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn list(&self, env: EnvId) -> Result<Vec<Backup>> {
        let notes = futures::stream::iter(self.notes(env).await?);
        let read = notes.map(async |place| self.noted(env, &place).await).buffer_unordered(READ_AT_ONCE);
        let read: Vec<Option<Backup>> = read.try_collect().await?;
        let mut backups: Vec<Backup> = read.into_iter().flatten().collect();
        backups.sort_by_key(|it| std::cmp::Reverse((it.created_at, it.backup)));
        Ok(backups)
    }

    /// How many backups of an environment there are, and the newest, without reading what is noted of the others.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn newest(&self, env: EnvId) -> Result<(usize, Option<Backup>)> {
        let mut notes = self.notes(env).await?;
        let there = notes.len();
        // Ids are in the order of time.
        notes.sort_unstable();
        while let Some(place) = notes.pop() {
            if let Some(newest) = self.noted(env, &place).await? {
                return Ok((there, Some(newest)));
            }
        }
        Ok((0, None))
    }

    /// Where the backups of an environment are noted.
    async fn notes(&self, env: EnvId) -> Result<Vec<Place>> {
        let listed = self.store.list(Some(&Place::from(env.to_string())));
        let mut places: Vec<Place> =
            listed.map_ok(|found| found.location).try_collect().await.map_err(failed)?;
        places.retain(|place| place.extension() == Some("json"));
        Ok(places)
    }

    /// What is noted there; none where that is nothing to be read.
    async fn noted(&self, env: EnvId, place: &Place) -> Result<Option<Backup>> {
        let text = match self.store.get(place).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            // It was removed meanwhile.
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match serde_json::from_slice::<Backup>(&text) {
            Ok(backup) if *place == about_of(env, backup.backup) => Ok(Some(backup)),
            _ => {
                tracing::warn!(%place, "what is noted of a backup cannot be read");
                Ok(None)
            }
        }
    }

    /// The bytes of a backup: an archive that an environment can be made of.
    ///
    /// # Errors
    /// `not_found`; `unavailable` where the store fails, in the stream too.
    pub async fn read(
        &self,
        env: EnvId,
        id: &str,
    ) -> Result<(Backup, BoxStream<'static, std::io::Result<Bytes>>)> {
        let found = self.find(env, id).await?;
        let bytes = self.store.get(&tar(env, found.backup)).await.map_err(failed)?.into_stream();
        Ok((found, bytes.map_err(std::io::Error::other).boxed()))
    }

    /// Makes a backup where one is due, then removes those that are more than are to be kept; the one that it made.
    ///
    /// # Errors
    /// As [`Backups::take`]; then no older one is removed.
    pub async fn keep_up(
        &self,
        env: &Env,
        spec: &BackupSpec,
        slug: String,
        secrets: Vec<String>,
    ) -> Result<Option<Backup>> {
        let Some(every) = spec.every else { return Ok(None) };
        let (_, newest) = self.newest(env.id()).await?;
        let due = Timestamp::now().minus(every.duration());
        let is_due = newest.is_none_or(|newest| newest.created_at <= due);
        let made = if is_due { Some(self.take(env, slug, secrets).await?) } else { None };
        let before = spec.age.map(|age| Timestamp::now().minus(age.duration()));
        self.forget_older(env.id(), spec.kept(), before).await?;
        Ok(made)
    }

    /// Notes that an environment is deleted, so that its backups go when their time is over.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn leave(&self, tenant: TenantId, env: EnvId) -> Result<()> {
        // Also where there are none: one may be on its way.
        let left = serde_json::to_vec(&Left { tenant, at: Timestamp::now() }).map_err(Error::internal)?;
        self.store.put(&left_by(env), left.into()).await.map(drop).map_err(failed)
    }

    /// Whose a deleted environment was of which there are backups.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn left_of(&self, env: EnvId) -> Result<Option<TenantId>> {
        Ok(self.left(&left_by(env)).await?.map(|left| left.tenant))
    }

    /// Removes the backups of environments that were deleted longer ago than `kept`; of how many.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn expire_left(&self, kept: Duration) -> Result<u64> {
        let before = Timestamp::now().minus(kept);
        let listed: Vec<_> =
            self.store.list(Some(&Place::from(LEFT_BY))).try_collect().await.map_err(failed)?;
        let mut gone = 0;
        for found in listed {
            let env =
                found.location.filename().and_then(|name| name.strip_suffix(".json")?.parse::<EnvId>().ok());
            let Some(env) = env else { continue };
            if self.left(&found.location).await?.is_none_or(|left| left.at > before) {
                continue;
            }
            let all =
                self.store.list(Some(&Place::from(env.to_string()))).map_ok(|found| found.location).boxed();
            self.store.delete_stream(all).try_for_each(async |_| Ok(())).await.map_err(failed)?;
            self.remove(&found.location).await?;
            gone += 1;
        }
        Ok(gone)
    }

    async fn left(&self, place: &Place) -> Result<Option<Left>> {
        let text = match self.store.get(place).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(Error::internal)
    }

    /// Removes all but the newest `keep`, those of before `before` and those that are too much but for the newest.
    async fn forget_older(&self, env: EnvId, keep: usize, before: Option<Timestamp>) -> Result<()> {
        let all = self.list(env).await?;
        let mut bytes = all.first().map_or(0, |newest| newest.bytes);
        for (place, old) in all.iter().enumerate().skip(1) {
            bytes = bytes.saturating_add(old.bytes);
            let is_young = before.is_none_or(|before| old.created_at >= before);
            if place < keep && is_young && bytes <= self.most_bytes {
                continue;
            }
            // What says that it is one goes first.
            self.remove(&about_of(env, old.backup)).await?;
            self.remove(&tar(env, old.backup)).await?;
        }
        Ok(())
    }

    /// Removes archives of which nothing is noted: attempts and removals that died have left them.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn sweep(&self, env: EnvId) -> Result<()> {
        let listed = self.store.list(Some(&Place::from(env.to_string())));
        let listed: Vec<_> = listed.try_collect().await.map_err(failed)?;
        let noted = |archive: &str| {
            listed
                .iter()
                .any(|it| it.location.filename().and_then(|name| name.strip_suffix(".json")) == Some(archive))
        };
        for found in &listed {
            let archive = found.location.filename().and_then(|name| name.strip_suffix(".tar"));
            let age = Timestamp::now().as_secs() - found.last_modified.timestamp();
            if archive.is_some_and(|archive| !noted(archive)) && age > LEFT.as_secs().cast_signed() {
                self.remove(&found.location).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, place: &Place) -> Result<()> {
        match self.store.delete(place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn tar(env: EnvId, backup: SnapshotId) -> Place {
    Place::from_iter([env.to_string(), format!("{backup}.tar")])
}

fn about_of(env: EnvId, backup: SnapshotId) -> Place {
    Place::from_iter([env.to_string(), format!("{backup}.json")])
}

fn left_by(env: EnvId) -> Place {
    Place::from_iter([LEFT_BY.to_owned(), format!("{env}.json")])
}

/// Writes a stream to a place and reads it back; how many bytes it had, and their hash.
///
/// # Errors
/// `unavailable` where the store fails or gives other bytes back; then nothing is there.
pub(super) async fn keep_whole(
    store: &Arc<dyn ObjectStore>,
    place: &Place,
    stream: &mut ArchiveStream,
) -> Result<(u64, BlobHash)> {
    let mut parts = Parts::begin(store, place.clone()).await.map_err(failed)?;
    let written = match write(&mut parts, stream).await {
        Ok(written) => written,
        Err(error) => {
            parts.abort().await;
            return Err(error);
        }
    };
    parts.complete().await.map_err(failed)?;
    let read = store.get(place).await.map_err(failed)?.into_stream().map_err(failed);
    if hash(read.boxed()).await? != written {
        let _ = store.delete(place).await;
        return Err(Error::new(Code::Unavailable, "a backup could not be read back as it was written")
            .hint("the operator has to look after the store of backups"));
    }
    Ok(written)
}

async fn write(parts: &mut Parts, stream: &mut ArchiveStream) -> Result<(u64, BlobHash)> {
    let (mut hasher, mut bytes, mut held) = (Sha256::new(), 0, BytesMut::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(super::disk)?;
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
        held.extend_from_slice(&chunk);
        if held.len() >= PART {
            parts.put(held.split_to(PART).freeze()).await.map_err(failed)?;
        }
    }
    if !held.is_empty() {
        parts.put(held.freeze()).await.map_err(failed)?;
    }
    Ok((bytes, BlobHash::from_bytes(hasher.finalize().into())))
}

async fn hash(mut stream: BoxStream<'_, Result<Bytes>>) -> Result<(u64, BlobHash)> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    while let Some(chunk) = stream.try_next().await? {
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
    }
    Ok((bytes, BlobHash::from_bytes(hasher.finalize().into())))
}

pub(super) fn failed(error: object_store::Error) -> Error {
    Error::new(Code::Unavailable, "the store of backups does not work")
        .hint("the operator has to look after it")
        .source(error)
}
