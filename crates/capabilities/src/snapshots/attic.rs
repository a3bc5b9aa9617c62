//! Old snapshots, packed away: each whole and compressed in a store of objects, so that what it took on the disk is free.
//!
//! Its directory stays, with what it is and what was packed. It is unpacked beside it for as long as somebody needs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use kernel::{BlobHash, EnvId, Error, Result, SnapshotId};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Place;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};

use super::archive::{Index, Most};
use super::backups::{failed, keep_whole};
use super::store::{self, PACKED, Staged};
use super::transfer::{Form, receive};
use super::{Inner, Snapshot, blocking, files};

/// What we have packed ourselves may be as large as it is.
const ANY: Most = Most { database: u64::MAX, bytes: u64::MAX, files: usize::MAX };

/// Where old snapshots are packed away. Clones share it.
#[derive(Clone)]
pub struct Attic(Arc<dyn ObjectStore>);

/// What was packed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packed {
    /// How many bytes it takes.
    bytes: u64,
    /// The hash of the archive's index, which has that of everything else.
    index: BlobHash,
}

impl Attic {
    /// Below the directory `path`, which is made where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn local(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(super::disk)?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(Error::internal)?.with_fsync(true);
        Ok(Self(Arc::new(store)))
    }

    /// In a store of objects, below `archive`.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>) -> Self {
        Self(Arc::new(PrefixStore::new(store, "archive")))
    }

    /// Removes what is packed of an environment, but for `kept`.
    pub(super) async fn forget(&self, env: EnvId, kept: &[SnapshotId]) -> Result<()> {
        let kept: Vec<_> = kept.iter().map(|snapshot| place(env, *snapshot)).collect();
        let all = self.0.list(Some(&Place::from(env.to_string()))).map_ok(|found| found.location);
        let others = all.try_filter(move |place| std::future::ready(!kept.contains(place))).boxed();
        self.0.delete_stream(others).try_for_each(async |_| Ok(())).await.map_err(failed)
    }
}

impl Inner {
    /// Packs a snapshot away; nothing is freed before it has been read back.
    ///
    /// # Errors
    /// `unavailable` where the store fails; then the snapshot is as it was.
    pub(super) async fn pack(&self, env: EnvId, snapshot: &Snapshot) -> Result<()> {
        let directory = self.directory(env).join(snapshot.snapshot.to_string());
        let mut copy = self.databases.open_loose(env, &directory.join("main.db")).await?;
        // Those that lie in its directory are found there.
        let named = if self.contents.are_away() { files::named(&mut copy).await } else { Ok(Vec::new()) };
        copy.close().await;
        let (named, at, release) = (named?, snapshot.created_at, snapshot.release);
        let from = directory.clone();
        let index =
            blocking(move || Index::of(&from, &named, at, String::new(), release, Vec::new())).await?;
        let digest = digest(&index)?;
        let mut stream = self.stream(env, index, directory.clone(), (), Form::Compressed);
        let (bytes, _) = keep_whole(&self.attic.0, &place(env, snapshot.snapshot), &mut stream).await?;
        let about = serde_json::to_vec(&Packed { bytes, index: digest }).map_err(Error::internal)?;
        blocking(move || {
            let half = directory.join("half");
            std::fs::write(&half, about)?;
            std::fs::File::open(&half)?.sync_all()?;
            std::fs::rename(half, directory.join(PACKED))?;
            store::sync(&directory)?;
            store::strip(&directory)
        })
        .await
    }

    /// Where a snapshot lies open, and what holds it there.
    ///
    /// # Errors
    /// `unavailable` where the store fails, `internal` where it gives something else than was packed.
    pub(super) async fn open(&self, env: EnvId, snapshot: &Snapshot) -> Result<(PathBuf, Option<Staged>)> {
        let directory = self.directory(env).join(snapshot.snapshot.to_string());
        if !snapshot.archived {
            return Ok((directory, None));
        }
        let about = blocking(move || std::fs::read(directory.join(PACKED))).await?;
        let packed: Packed = serde_json::from_slice(&about).map_err(Error::internal)?;
        let staged = Staged::new(self.directory(env)).await?;
        let open = staged.path().join("open");
        let stream = self.attic.0.get(&place(env, snapshot.snapshot)).await.map_err(failed)?.into_stream();
        let stream = stream.map_err(std::io::Error::other).boxed();
        let index = receive(stream, open.clone(), ANY, Form::Compressed).await.map_err(Error::internal)?;
        if digest(&index)? != packed.index {
            return Err(Error::internal("the archive of a snapshot is another than was packed"));
        }
        Ok((open, Some(staged)))
    }

    /// Removes a snapshot wherever it is.
    ///
    /// # Errors
    /// The disk; `unavailable` where the store fails, when there is no such snapshot any more.
    pub(super) async fn remove(&self, env: EnvId, snapshot: &Snapshot) -> Result<()> {
        store::remove(self.directory(env), snapshot.snapshot).await?;
        if !snapshot.archived {
            return Ok(());
        }
        match self.attic.0.delete(&place(env, snapshot.snapshot)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn digest(index: &Index) -> Result<BlobHash> {
    Ok(BlobHash::of(&serde_json::to_vec(index).map_err(Error::internal)?))
}

fn place(env: EnvId, snapshot: SnapshotId) -> Place {
    Place::from_iter([env.to_string(), format!("{snapshot}.tar.gz")])
}
