//! Blobs: bytes under their SHA-256, each environment's own, durable before a write returns.

use std::collections::HashSet;
use std::fs::{File, FileTimes};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use kernel::{BlobHash, Env, EnvId};
use object_store::local::LocalFileSystem;
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_util::io::ReaderStream;

use super::tally::{Room, Tally};
use super::{Error, Result};

/// How long a blob that no release names is kept: time enough between its upload and the deploy.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60 * 60);

/// How much of a blob is read or written at a time.
const CHUNK: usize = 64 * 1024;

/// The bytes of a blob as they are read.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs and left-over temporary files.
    pub removed: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The blobs of all environments, one directory each. Equal bytes of two environments are stored twice, so
/// that neither can learn what the other has.
#[derive(Debug, Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    envs_dir: PathBuf,
    store: LocalFileSystem,
    /// Held for reading while a blob is found, renewed or put in place, for writing while one is removed: a
    /// collection cannot take what a deploy has just been told is there. It holds the environments that are
    /// removed: nothing is put in place there, which would make their directory anew.
    removal: RwLock<HashSet<EnvId>>,
    tally: Tally,
}

impl Blobs {
    /// Blobs below `<envs_dir>/<env_id>/blobs`. Makes `envs_dir` where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn new(envs_dir: impl Into<PathBuf>) -> Result<Self> {
        Self::bounded(envs_dir, u64::MAX)
    }

    /// The same, where those of one environment have at most `most` bytes together.
    ///
    /// # Errors
    /// As [`Blobs::new`].
    pub fn bounded(envs_dir: impl Into<PathBuf>, most: u64) -> Result<Self> {
        let envs_dir = envs_dir.into();
        std::fs::create_dir_all(&envs_dir).map_err(Error::Files)?;
        let store = LocalFileSystem::new_with_prefix(&envs_dir)?.with_fsync(true);
        let (removal, tally) = (RwLock::default(), Tally::new(most));
        Ok(Self { inner: Arc::new(Inner { envs_dir, store, removal, tally }) })
    }

    /// Stores `bytes` and returns their hash; on stable storage when it returns. Bytes that are there already
    /// are not written again, and are kept for another grace period.
    ///
    /// # Errors
    /// [`Error::Full`]; the disk is full or fails.
    pub async fn put(&self, env: &Env, bytes: Bytes) -> Result<BlobHash> {
        let hash = BlobHash::of(&bytes);
        let _kept = self.kept(env).await?;
        if self.renew(env, hash).await?.is_some() && self.read(env, hash).await.is_ok() {
            return Ok(hash);
        }
        let mut room = self.inner.tally.room(env.id(), &self.dir(env)).await?;
        room.take(bytes.len() as u64)?;
        self.inner.store.put(&location(env, hash), PutPayload::from_bytes(bytes)).await?;
        room.keep();
        Ok(hash)
    }

    /// Stores what `stream` brings, if its SHA-256 is `expected` and it has at most `limit` bytes. Nothing is
    /// left behind otherwise.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::BlobTooLarge`], [`Error::Full`], [`Error::Upload`] where the stream breaks, or the disk.
    pub async fn put_expected<S, E>(&self, env: &Env, expected: BlobHash, stream: S, limit: u64) -> Result<()>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut room = self.inner.tally.room(env.id(), &self.dir(env)).await?;
        let begun = self.kept(env).await?;
        let mut upload = self.inner.store.put_multipart(&location(env, expected)).await?;
        drop(begun);
        let received = receive(upload.as_mut(), expected, stream, limit, &mut room).await;
        let stored = match received {
            Ok(()) => match self.kept(env).await {
                Ok(_kept) => upload.complete().await.map(|_| ()).map_err(Error::from),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if stored.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, "a refused upload left a temporary file for the next collection");
        }
        if stored.is_ok() {
            room.keep();
        }
        stored
    }

    /// Stores nothing for an environment any more, whose directory is about to be removed.
    pub async fn forget(&self, env: EnvId) {
        self.inner.removal.write().await.insert(env);
    }

    /// The right to put a blob in place.
    async fn kept(&self, env: &Env) -> Result<RwLockReadGuard<'_, HashSet<EnvId>>> {
        let removed = self.inner.removal.read().await;
        if removed.contains(&env.id()) { Err(Error::Removed) } else { Ok(removed) }
    }

    /// Whether the blob is there. Asking keeps it for another grace period, so that the deploy which follows
    /// finds it.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn has(&self, env: &Env, hash: BlobHash) -> Result<bool> {
        Ok(self.size(env, hash).await?.is_some())
    }

    /// The blob's size in bytes, `None` where it is not there. Keeps it like [`Blobs::has`].
    ///
    /// # Errors
    /// The disk fails.
    pub async fn size(&self, env: &Env, hash: BlobHash) -> Result<Option<u64>> {
        let _kept = self.inner.removal.read().await;
        self.renew(env, hash).await
    }

    /// The whole blob, checked against its hash.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Damaged`], or the disk.
    pub async fn read(&self, env: &Env, hash: BlobHash) -> Result<Bytes> {
        let found = self.inner.store.get(&location(env, hash)).await.map_err(|e| absent(e, hash))?;
        let bytes = match found.payload {
            GetResultPayload::File(file, _) => {
                let mut bytes = Vec::with_capacity(usize::try_from(found.meta.size).unwrap_or(0));
                tokio::fs::File::from_std(file).read_to_end(&mut bytes).await.map_err(Error::Files)?;
                Bytes::from(bytes)
            }
            GetResultPayload::Stream(_) => found.bytes().await?,
        };
        if BlobHash::of(&bytes) == hash { Ok(bytes) } else { Err(Error::Damaged(hash)) }
    }

    /// Gives a blob another name on this machine, at which everybody may read it who comes there; it takes no room of its
    /// own, and stays when the blob is collected. It is checked against its hash before.
    ///
    /// # Errors
    /// [`Error::NoBlob`], [`Error::Damaged`], or the disk.
    pub async fn link(&self, env: &Env, hash: BlobHash, place: PathBuf) -> Result<()> {
        let bytes = self.read(env, hash).await?;
        let blob = self.dir(env).join(hash.to_string());
        blocking(move || {
            let readable = || std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(&blob, readable())?;
            match std::fs::hard_link(&blob, &place) {
                // Another file system, or one without such names.
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    std::fs::write(&place, &bytes)?;
                    std::fs::set_permissions(&place, readable())
                }
                done => done,
            }
        })
        .await
    }

    /// The blob, or the bytes of `range` in it, as a stream. A whole blob is hashed on the way and its last
    /// bytes are held back until the hash is right, so a damaged one never arrives complete. A part cannot
    /// be checked; a `range` beyond the end is an error.
    ///
    /// # Errors
    /// [`Error::NoBlob`] and the disk here; [`Error::Damaged`] in the stream.
    pub async fn get(&self, env: &Env, hash: BlobHash, range: Option<Range<u64>>) -> Result<BlobStream> {
        let wanted = range.clone().map(GetRange::Bounded);
        let options = GetOptions { range: wanted, ..GetOptions::default() };
        let found =
            self.inner.store.get_opts(&location(env, hash), options).await.map_err(|e| absent(e, hash))?;
        if range.is_some_and(|asked| asked != found.range) {
            return Err(Error::Damaged(hash));
        }
        let whole = found.range == (0..found.meta.size);
        let bytes: BlobStream = match found.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(found.range.start)).await.map_err(Error::Files)?;
                let part = file.take(found.range.end - found.range.start);
                ReaderStream::with_capacity(part, CHUNK).map_err(Error::Files).boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(Error::from).boxed(),
        };
        Ok(if whole { checked(bytes, hash) } else { bytes })
    }

    /// Removes the environment's blobs that are not in `keep`, and its left-over temporary files, where they
    /// are older than `older_than` (see [`DEFAULT_GRACE`]).
    ///
    /// # Errors
    /// The disk fails.
    pub async fn collect(
        &self,
        env: &Env,
        keep: &HashSet<BlobHash>,
        older_than: Duration,
    ) -> Result<Collected> {
        let dir = self.dir(env);
        let before = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
        let candidates = blocking(move || stale_files(&dir, before)).await?;
        let mut collected = Collected::default();
        for path in candidates {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.parse().is_ok_and(|hash| keep.contains(&hash)) {
                continue;
            }
            let _alone = self.inner.removal.write().await;
            if let Some(bytes) = blocking(move || remove_if_stale(&path, before)).await? {
                collected.removed += 1;
                collected.bytes += bytes;
            }
        }
        if collected.removed > 0 {
            self.inner.tally.forget(env.id());
        }
        Ok(collected)
    }

    /// The blob's size, after its grace period was begun anew.
    async fn renew(&self, env: &Env, hash: BlobHash) -> Result<Option<u64>> {
        let path = self.dir(env).join(hash.to_string());
        blocking(move || {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
            Ok(Some(file.metadata()?.len()))
        })
        .await
    }

    fn dir(&self, env: &Env) -> PathBuf {
        self.inner.envs_dir.join(env.id().to_string()).join("blobs")
    }
}

fn location(env: &Env, hash: BlobHash) -> object_store::path::Path {
    object_store::path::Path::from_iter([env.id().to_string(), "blobs".to_owned(), hash.to_string()])
}

fn absent(error: object_store::Error, hash: BlobHash) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::NoBlob(hash),
        error => error.into(),
    }
}

async fn receive<S, E>(
    upload: &mut dyn MultipartUpload,
    expected: BlobHash,
    stream: S,
    limit: u64,
    room: &mut Room,
) -> Result<()>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut stream = std::pin::pin!(stream);
    let mut hasher = Sha256::new();
    let mut received = 0_u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Error::Upload(std::io::Error::other(error)))?;
        received += chunk.len() as u64;
        if received > limit {
            return Err(Error::BlobTooLarge { limit });
        }
        room.take(chunk.len() as u64)?;
        hasher.update(&chunk);
        upload.put_part(PutPayload::from_bytes(chunk)).await?;
    }
    let actual = BlobHash::from_bytes(hasher.finalize().into());
    if actual == expected { Ok(()) } else { Err(Error::Mismatch { expected, actual }) }
}

/// Passes a whole blob on one chunk late, and ends in an error in place of the last chunk where the bytes
/// do not have the hash.
fn checked(bytes: BlobStream, hash: BlobHash) -> BlobStream {
    struct State {
        bytes: BlobStream,
        hasher: Sha256,
        held: Option<Bytes>,
    }
    let start = Some(State { bytes, hasher: Sha256::new(), held: None });
    stream::try_unfold(start, move |state| async move {
        let Some(mut state) = state else { return Ok(None) };
        while let Some(chunk) = state.bytes.try_next().await? {
            state.hasher.update(&chunk);
            if let Some(ready) = state.held.replace(chunk) {
                return Ok(Some((ready, Some(state))));
            }
        }
        if BlobHash::from_bytes(state.hasher.finalize().into()) != hash {
            return Err(Error::Damaged(hash));
        }
        Ok(state.held.map(|last| (last, None)))
    })
    .boxed()
}

/// The files in `dir` that were last written or renewed before `before`; none where there is no `dir`.
fn stale_files(dir: &Path, before: SystemTime) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut stale = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A file that vanishes meanwhile was an upload that ended.
        if entry.metadata().is_ok_and(|m| m.is_file() && m.modified().is_ok_and(|at| at < before)) {
            stale.push(entry.path());
        }
    }
    Ok(stale)
}

fn remove_if_stale(path: &Path, before: SystemTime) -> std::io::Result<Option<u64>> {
    let Ok(found) = std::fs::metadata(path) else { return Ok(None) };
    if found.modified()? >= before {
        return Ok(None);
    }
    std::fs::remove_file(path)?;
    Ok(Some(found.len()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Error::Files),
        Err(stopped) => Err(Error::Files(std::io::Error::other(stopped))),
    }
}

#[cfg(test)]
#[path = "blobs_tests.rs"]
mod tests;
