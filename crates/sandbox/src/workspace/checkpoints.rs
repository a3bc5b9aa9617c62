//! Archives of workspaces in a store of objects, so that a workspace outlives the machine it was on.
//!
//! ```text
//! <workspace>/archives/<snapshot>.tar.zst     what changed, or everything
//! <workspace>/manifests/<snapshot>.zst        the whole tree, and which archives have its contents
//! <workspace>/checkpoints/<snapshot>.json     written last: without it there is no checkpoint
//! ```

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use kernel::{BlobHash, Code, Error, Result, Timestamp, WorkspaceId, WorkspaceSnapshotId};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Place;
use object_store::prefix::PrefixStore;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::Caps;
use super::manifest::Manifest;
use super::restoring::{self, Open};

const ARCHIVES: &str = "archives";
const MANIFESTS: &str = "manifests";
const CHECKPOINTS: &str = "checkpoints";

/// What is uploaded at once; no object may have more than 10,000 such parts.
const PART: usize = 16 << 20;
/// Chunks that wait between who archives and who uploads.
const WAITING: usize = 8;
const CHUNK: usize = 256 << 10;

/// Checkpoints of workspaces. Clones share them.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    store: Arc<dyn ObjectStore>,
    turns: Arc<Mutex<HashMap<WorkspaceId, Arc<tokio::sync::Mutex<()>>>>>,
}

/// A checkpoint that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The snapshot that it was made of.
    pub snapshot: WorkspaceSnapshotId,
    /// When it was made.
    pub created_at: Timestamp,
    /// The digest of the tree.
    pub digest: BlobHash,
    /// The bytes of the tree's files.
    pub bytes: u64,
    /// The archives that it needs, the oldest first; its own is the last.
    pub needs: Vec<WorkspaceSnapshotId>,
    /// How its own archive was written.
    pub archive: Object,
    /// How its manifest was written.
    pub manifest: Object,
}

/// What an object consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// How many bytes it has.
    pub bytes: u64,
    /// Their hash.
    pub hash: BlobHash,
}

impl Checkpoints {
    /// Below the directory `path`, which is made where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn local(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::internal)?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(Error::internal)?.with_fsync(true);
        Ok(Self::over(Arc::new(store)))
    }

    /// In a store of objects, below `workspaces`.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>) -> Self {
        Self::over(Arc::new(PrefixStore::new(store, "workspaces")))
    }

    fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, turns: Arc::default() }
    }

    /// Makes a checkpoint. `archive` is called on a thread that may block, with the manifest of `base` where there is one;
    /// it writes the archive of the snapshot and returns its manifest (see [`super::archive::write`]). When this returns,
    /// all of it has been read back as it was written, and what was archived may be dropped.
    ///
    /// # Errors
    /// `conflict` where there is one of that snapshot; what `archive` returns; `unavailable` where the store fails. Then
    /// there is no checkpoint.
    pub async fn keep(
        &self,
        workspace: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
        base: Option<WorkspaceSnapshotId>,
        archive: impl FnOnce(Option<&Manifest>, &mut dyn Write) -> Result<Manifest> + Send + 'static,
    ) -> Result<Checkpoint> {
        let turn = self.turn(workspace);
        let _turn = turn.lock().await;
        let pointer = place(workspace, CHECKPOINTS, snapshot);
        match self.store.head(&pointer).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => return Err(taken(snapshot)),
        }
        // A base that is gone only makes the archive larger.
        let base = match base {
            Some(base) => self.manifest(workspace, base).await?,
            None => None,
        };
        let (chunks, written) = mpsc::channel(WAITING);
        let archiving = tokio::task::spawn_blocking(move || {
            let mut out = Sender { chunks, held: BytesMut::new() };
            let manifest = archive(base.as_ref(), &mut out)?;
            out.flush().map_err(Error::internal)?;
            Ok(manifest)
        });
        let to = place(workspace, ARCHIVES, snapshot);
        let (archive, manifest) = self.upload(&to, written, archiving).await?;
        let digest = manifest.digest();
        let (bytes, needs) = (manifest.bytes(), manifest.archives.iter().map(|of| of.snapshot).collect());
        let packed = blocking(move || {
            let mut packed = Vec::new();
            manifest.write(&mut packed)?;
            Ok(packed)
        });
        let packed = Bytes::from(packed.await?);
        let about = Object { bytes: packed.len() as u64, hash: BlobHash::of(&packed) };
        let to = place(workspace, MANIFESTS, snapshot);
        self.store.put(&to, packed.into()).await.map_err(failed)?;
        self.read_back(&to, about).await?;
        let created_at = Timestamp::now();
        let checkpoint = Checkpoint { snapshot, created_at, digest, bytes, needs, archive, manifest: about };
        for needed in &checkpoint.needs {
            self.store.head(&place(workspace, ARCHIVES, *needed)).await.map_err(failed)?;
        }
        let text = serde_json::to_vec(&checkpoint).map_err(Error::internal)?;
        let new = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&pointer, text.into(), new).await {
            Ok(_) => Ok(checkpoint),
            Err(object_store::Error::AlreadyExists { .. }) => Err(taken(snapshot)),
            Err(error) => Err(failed(error)),
        }
    }

    /// The checkpoints of a workspace, the oldest first.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn list(&self, workspace: WorkspaceId) -> Result<Vec<Checkpoint>> {
        let prefix = Place::from_iter([workspace.to_string().as_str(), CHECKPOINTS]);
        let places: Vec<Place> = self
            .store
            .list(Some(&prefix))
            .map_ok(|found| found.location)
            .try_collect()
            .await
            .map_err(failed)?;
        let mut checkpoints = Vec::new();
        for place in places {
            // One that goes meanwhile is not there.
            checkpoints.extend(self.pointer(&place).await?);
        }
        checkpoints.sort_by_key(|checkpoint| (checkpoint.created_at.as_micros(), checkpoint.snapshot));
        Ok(checkpoints)
    }

    /// Brings a checkpoint back. `restore` is called on a thread that may block, with the manifest and what opens its
    /// archives (see [`super::restoring::restore`], which checks them).
    ///
    /// # Errors
    /// `not_found`; `internal` where something is not what was written; what `restore` returns; `unavailable`.
    pub async fn bring<T: Send + 'static>(
        &self,
        workspace: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
        restore: impl FnOnce(&Manifest, &mut Open<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let manifest = self.manifest(workspace, snapshot).await?;
        let manifest = manifest.ok_or_else(|| Error::not_found(format!("checkpoint {snapshot}")))?;
        let (store, runtime) = (self.store.clone(), Handle::current());
        blocking(move || {
            let mut open = |archive| {
                let got =
                    runtime.block_on(store.get(&place(workspace, ARCHIVES, archive))).map_err(failed)?;
                let stream = got.into_stream().map_err(io::Error::other).boxed();
                let reader = StreamReader::new(stream);
                Ok(Box::new(SyncIoBridge::new_with_handle(reader, runtime.clone())) as Box<dyn Read>)
            };
            restore(&manifest, &mut open)
        })
        .await
    }

    /// Reads everything that a checkpoint needs, as it is in the store, and holds it against the manifest.
    ///
    /// # Errors
    /// `not_found`; `internal` where something is not what was written; `unavailable`.
    pub async fn verify(&self, workspace: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()> {
        let check =
            |manifest: &Manifest, open: &mut Open<'_>| restoring::verify(manifest, open, &Caps::default());
        self.bring(workspace, snapshot, check).await
    }

    /// Removes a checkpoint, and the archives that none of the others needs. Once more is no error.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn remove(&self, workspace: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()> {
        let turn = self.turn(workspace);
        let _turn = turn.lock().await;
        self.delete(&place(workspace, CHECKPOINTS, snapshot)).await?;
        self.tidy(workspace).await
    }

    /// Removes all of a workspace.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn forget(&self, workspace: WorkspaceId) -> Result<()> {
        let turn = self.turn(workspace);
        let _turn = turn.lock().await;
        for checkpoint in self.list(workspace).await? {
            self.delete(&place(workspace, CHECKPOINTS, checkpoint.snapshot)).await?;
        }
        self.tidy(workspace).await
    }

    /// Removes what no checkpoint of the workspace needs: of those that are gone, and of some that never came to be.
    async fn tidy(&self, workspace: WorkspaceId) -> Result<()> {
        let checkpoints = self.list(workspace).await?;
        let archives = checkpoints.iter().flat_map(|checkpoint| &checkpoint.needs);
        let manifests = checkpoints.iter().map(|checkpoint| &checkpoint.snapshot);
        let needed: HashSet<Place> = archives
            .map(|snapshot| place(workspace, ARCHIVES, *snapshot))
            .chain(manifests.map(|snapshot| place(workspace, MANIFESTS, *snapshot)))
            .collect();
        for kind in [MANIFESTS, ARCHIVES] {
            let prefix = Place::from_iter([workspace.to_string().as_str(), kind]);
            let all = self.store.list(Some(&prefix)).map_ok(|found| found.location);
            let all: Vec<Place> = all.try_collect().await.map_err(failed)?;
            for place in all.iter().filter(|place| !needed.contains(place)) {
                self.delete(place).await?;
            }
        }
        Ok(())
    }

    fn turn(&self, workspace: WorkspaceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(workspace).or_default().clone()
    }

    /// The manifest of a checkpoint, where there is one.
    async fn manifest(
        &self,
        workspace: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
    ) -> Result<Option<Manifest>> {
        let Some(checkpoint) = self.pointer(&place(workspace, CHECKPOINTS, snapshot)).await? else {
            return Ok(None);
        };
        let got = self.store.get(&place(workspace, MANIFESTS, snapshot)).await.map_err(failed)?;
        let spoilt = || Error::internal("a manifest of a workspace is not what was written");
        if got.meta.size != checkpoint.manifest.bytes {
            return Err(spoilt());
        }
        let packed = got.bytes().await.map_err(failed)?;
        blocking(move || {
            if BlobHash::of(&packed) != checkpoint.manifest.hash {
                return Err(spoilt());
            }
            Ok(Some(Manifest::read(&mut &*packed, &Caps::default())?))
        })
        .await
    }

    async fn pointer(&self, place: &Place) -> Result<Option<Checkpoint>> {
        match self.store.get(place).await {
            Ok(got) => {
                let text = got.bytes().await.map_err(failed)?;
                serde_json::from_slice(&text).map(Some).map_err(Error::internal)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Uploads what is written while it is written, and reads it back.
    async fn upload(
        &self,
        to: &Place,
        mut chunks: mpsc::Receiver<Bytes>,
        archiving: tokio::task::JoinHandle<Result<Manifest>>,
    ) -> Result<(Object, Manifest)> {
        let mut upload = self.store.put_multipart(to).await.map_err(failed)?;
        let written = async {
            let written = write(upload.as_mut(), &mut chunks).await?;
            let manifest = archiving.await.map_err(Error::internal)??;
            Ok::<_, Error>((written, manifest))
        };
        let (written, manifest) = match written.await {
            Ok(written) => written,
            Err(error) => {
                let _ = upload.abort().await;
                return Err(error);
            }
        };
        upload.complete().await.map_err(failed)?;
        self.read_back(to, written).await?;
        Ok((written, manifest))
    }

    /// Reads an object as it is in the store.
    async fn read_back(&self, place: &Place, written: Object) -> Result<()> {
        let mut stream = self.store.get(place).await.map_err(failed)?.into_stream();
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            hash.update(&chunk);
            bytes += chunk.len() as u64;
        }
        if written == (Object { bytes, hash: BlobHash::from_bytes(hash.finalize().into()) }) {
            return Ok(());
        }
        self.delete(place).await?;
        Err(Error::new(Code::Unavailable, "a checkpoint could not be read back as it was written")
            .hint("the operator has to look after the store of checkpoints"))
    }

    async fn delete(&self, place: &Place) -> Result<()> {
        match self.store.delete(place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

async fn write(upload: &mut dyn MultipartUpload, chunks: &mut mpsc::Receiver<Bytes>) -> Result<Object> {
    let (mut hash, mut bytes, mut held) = (Sha256::new(), 0, BytesMut::new());
    while let Some(chunk) = chunks.recv().await {
        hash.update(&chunk);
        bytes += chunk.len() as u64;
        held.extend_from_slice(&chunk);
        if held.len() >= PART {
            upload.put_part(held.split_to(PART).freeze().into()).await.map_err(failed)?;
        }
    }
    upload.put_part(held.freeze().into()).await.map_err(failed)?;
    Ok(Object { bytes, hash: BlobHash::from_bytes(hash.finalize().into()) })
}

/// Hands on what is written, from a thread that may block.
struct Sender {
    chunks: mpsc::Sender<Bytes>,
    held: BytesMut,
}

impl Write for Sender {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(buffer);
        if self.held.len() >= CHUNK {
            self.flush()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let chunk = self.held.split().freeze();
        self.chunks.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn place(workspace: WorkspaceId, kind: &str, snapshot: WorkspaceSnapshotId) -> Place {
    let name = match kind {
        ARCHIVES => format!("{snapshot}.tar.zst"),
        MANIFESTS => format!("{snapshot}.zst"),
        _ => format!("{snapshot}.json"),
    };
    Place::from_iter([workspace.to_string().as_str(), kind, &name])
}

fn taken(snapshot: WorkspaceSnapshotId) -> Error {
    Error::new(Code::Conflict, format!("there is a checkpoint of {snapshot} already"))
}

fn failed(error: object_store::Error) -> Error {
    Error::new(Code::Unavailable, "the store of checkpoints does not work")
        .hint("the operator has to look after it")
        .source(error)
}

#[cfg(test)]
#[path = "checkpoints_tests.rs"]
mod tests;
