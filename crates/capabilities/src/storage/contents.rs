//! The bytes of files, each under a fresh name that is never written again: in a directory, or in an S3 bucket.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kernel::{BlobHash, Code, EnvId, Error, Result, Timestamp};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::parts::Parts;
use super::{media, pins};

/// How much of a file is read at a time, and written to a directory.
pub(super) const CHUNK: usize = 256 << 10;

/// How much is written to a bucket at a time; S3 takes no smaller part but the last.
const PART: usize = 5 << 20;

/// The bytes of a file as they are read.
pub type FileStream = BoxStream<'static, Result<Bytes>>;

/// Where the bytes of all environments' files are. Clones share everything.
#[derive(Clone)]
pub struct Contents(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) part: usize,
    /// Where the directories of environments are.
    envs_dir: PathBuf,
    pub(super) at: At,
    /// Environments whose files are removed: nothing is put in place there any more, which would make their directory
    /// anew. Held for reading while something is.
    removed: RwLock<HashSet<EnvId>>,
}

/// Where the files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the environments' own directories, with parts of unfinished writes beside them, which the store does not
    /// list.
    Home,
    /// Elsewhere.
    Away,
}

/// What was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// The name of its bytes.
    pub key: String,
    /// How many bytes.
    pub size: u64,
    /// Their hash.
    pub sha256: BlobHash,
}

/// How much may be written, and what is said where it is more.
pub(super) struct Most {
    pub bytes: u64,
    pub beyond: Error,
}

impl Contents {
    /// Files below `<envs_dir>/<env id>/files`. Makes `envs_dir` where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn local(envs_dir: impl Into<PathBuf>) -> Result<Self> {
        let envs_dir = envs_dir.into();
        std::fs::create_dir_all(&envs_dir).map_err(Error::internal)?;
        let store = LocalFileSystem::new_with_prefix(&envs_dir).map_err(Error::internal)?.with_fsync(true);
        Ok(Self::new(Arc::new(store), CHUNK, envs_dir, At::Home))
    }

    /// Files in a store, below `<env id>/files`; unfinished uploads are below `envs_dir` all the same.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>, envs_dir: impl Into<PathBuf>) -> Self {
        Self::new(store, PART, envs_dir.into(), At::Away)
    }

    fn new(store: Arc<dyn ObjectStore>, part: usize, envs_dir: PathBuf, at: At) -> Self {
        Self(Arc::new(Inner { store, part, envs_dir, at, removed: RwLock::default() }))
    }

    /// Where the directories of environments are.
    pub(super) fn envs_dir(&self) -> &std::path::Path {
        &self.0.envs_dir
    }

    /// Writes what `stream` brings, if it is not more than `most` and agrees with `content_type`; on stable storage
    /// when it returns. Nothing is left behind otherwise, but by a process that dies.
    ///
    /// # Errors
    /// That of the stream, [`Most::beyond`], `invalid_input` for bytes of another type, `unavailable` for the store.
    pub(super) async fn write<S>(
        &self,
        env: EnvId,
        stream: S,
        most: Most,
        content_type: &str,
    ) -> Result<Written>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let key = Uuid::now_v7().simple().to_string();
        let mut writing = Writing {
            contents: self,
            env,
            key: &key,
            held: BytesMut::new(),
            parts: None,
            size: 0,
            hasher: Sha256::new(),
        };
        let received = writing.receive(stream, most, content_type).await;
        let stored = match received {
            Ok(()) => writing.finish().await,
            Err(error) => Err(error),
        };
        if stored.is_err()
            && let Some(parts) = writing.parts.take()
        {
            parts.abort().await;
        }
        stored?;
        let sha256 = BlobHash::from_bytes(writing.hasher.finalize().into());
        Ok(Written { key: key.clone(), size: writing.size, sha256 })
    }

    /// The bytes of `range` in a file, which has them all.
    ///
    /// # Errors
    /// `not_found` where they are gone, `unavailable` where the store fails; in the stream too.
    pub(super) async fn read(&self, env: EnvId, key: &str, range: Range<u64>) -> Result<FileStream> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let found = self.0.store.get_opts(&place(env, key), options).await.map_err(failed)?;
        if found.range != range {
            return Err(Error::internal("a stored file is shorter than it was"));
        }
        Ok(match found.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(Error::internal)?;
                let part = file.take(range.end - range.start);
                ReaderStream::with_capacity(part, CHUNK).map_err(Error::internal).boxed()
            }
            GetResultPayload::Stream(stream) => stream.map_err(failed).boxed(),
        })
    }

    /// A file's bytes, all of them at once; for those that are known to be few.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub(super) async fn whole(&self, env: EnvId, key: &str, size: u64) -> Result<Bytes> {
        let mut stream = self.read(env, key, 0..size).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The same bytes under another fresh name.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub(super) async fn copy(&self, env: EnvId, key: &str) -> Result<String> {
        let copy = Uuid::now_v7().simple().to_string();
        let _kept = self.kept(env).await?;
        self.0.store.copy(&place(env, key), &place(env, &copy)).await.map_err(failed)?;
        Ok(copy)
    }

    /// Removes bytes that no row names (any more). What cannot be removed now, or a snapshot (or one in the making)
    /// needs, is found by [`Contents::collect`].
    pub(super) async fn discard(&self, env: EnvId, key: &str) {
        if self.0.at == At::Away {
            let (snapshots, wanted) = (self.snapshots(env), key.to_owned());
            let kept = tokio::task::spawn_blocking(move || pins::may_need(&snapshots, &wanted)).await;
            match kept.map_err(Error::internal).and_then(|kept| kept.map_err(Error::internal)) {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    tracing::warn!(env.id = %env, error = error.chain(), "bytes of a file that is gone are left");
                    return;
                }
            }
        }
        self.remove(env, key).await;
    }

    async fn remove(&self, env: EnvId, key: &str) {
        match self.0.store.delete(&place(env, key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(env.id = %env, %error, "bytes of a file that is gone are left"),
        }
    }

    /// Where the snapshots of an environment are.
    pub(super) fn snapshots(&self, env: EnvId) -> PathBuf {
        self.0.envs_dir.join(env.to_string()).join("snapshots")
    }

    /// Removes the bytes that are not in `keep` and are older than `grace`; how many files they were.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub(super) async fn collect(&self, env: EnvId, keep: &HashSet<String>, grace: Duration) -> Result<u64> {
        let before = Timestamp::now().minus(grace);
        let old = |key: &str| made(key).is_some_and(|at| at < before);
        let mut removed = 0;
        let mut listed = self.0.store.list(Some(&folder(env)));
        while let Some(found) = listed.try_next().await.map_err(failed)? {
            let Some(key) = found.location.filename() else { continue };
            if old(key) && !keep.contains(key) {
                self.remove(env, key).await;
                removed += 1;
            }
        }
        if self.0.at == At::Away {
            return Ok(removed);
        }
        let directory = self.0.envs_dir.join(env.to_string()).join("files");
        let parts =
            tokio::task::spawn_blocking(move || stale(&directory, grace, |name| name.contains('#'))).await;
        Ok(removed + parts.map_err(Error::internal)?.map_err(Error::internal)?)
    }

    /// Removes the files of an environment that is removed, and stores nothing for it any more.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub(crate) async fn forget(&self, env: EnvId) -> Result<()> {
        self.0.removed.write().await.insert(env);
        if self.0.at == At::Home {
            // They go with the environment's own directory.
            return Ok(());
        }
        let listed = self.0.store.list(Some(&folder(env))).map_ok(|found| found.location).boxed();
        self.0.store.delete_stream(listed).try_for_each(async |_| Ok(())).await.map_err(failed)
    }

    /// The right to put something in place.
    pub(super) async fn kept(&self, env: EnvId) -> Result<RwLockReadGuard<'_, HashSet<EnvId>>> {
        let removed = self.0.removed.read().await;
        if removed.contains(&env) {
            Err(Error::not_found("such environment (any more)"))
        } else {
            Ok(removed)
        }
    }
}

/// A file that is being written: whole where it is small, in parts where it is not.
struct Writing<'a> {
    contents: &'a Contents,
    env: EnvId,
    key: &'a str,
    held: BytesMut,
    parts: Option<Parts>,
    size: u64,
    hasher: Sha256,
}

impl Writing<'_> {
    async fn receive<S>(&mut self, stream: S, most: Most, content_type: &str) -> Result<()>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let mut stream = std::pin::pin!(stream);
        let mut told = false;
        while let Some(chunk) = stream.next().await {
            let mut chunk = chunk?;
            self.size += chunk.len() as u64;
            if self.size > most.bytes {
                return Err(most.beyond);
            }
            self.hasher.update(&chunk);
            // No part is larger than another, however much comes at once.
            while !chunk.is_empty() {
                let room = self.contents.0.part - self.held.len();
                self.held.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
                if !told && self.held.len() >= media::HEAD {
                    media::agree(content_type, &self.held)?;
                    told = true;
                }
                if self.held.len() == self.contents.0.part {
                    self.part().await?;
                }
            }
        }
        if told { Ok(()) } else { media::agree(content_type, &self.held) }
    }

    async fn part(&mut self) -> Result<()> {
        let part = self.held.split().freeze();
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let _kept = self.contents.kept(self.env).await?;
                let begun = Parts::begin(&self.contents.0.store, place(self.env, self.key)).await;
                none.insert(begun.map_err(failed)?)
            }
        };
        parts.put(part).await.map_err(failed)
    }

    async fn finish(&mut self) -> Result<()> {
        if self.parts.is_some() && !self.held.is_empty() {
            self.part().await?;
        }
        let _kept = self.contents.kept(self.env).await?;
        match self.parts.take() {
            Some(parts) => parts.complete().await.map_err(failed),
            None => {
                let whole = self.held.split().freeze();
                let put = self.contents.0.store.put(&place(self.env, self.key), whole.into()).await;
                put.map(drop).map_err(failed)
            }
        }
    }
}

fn folder(env: EnvId) -> Path {
    Path::from_iter([env.to_string(), "files".to_owned()])
}

pub(super) fn place(env: EnvId, key: &str) -> Path {
    Path::from_iter([env.to_string(), "files".to_owned(), key.to_owned()])
}

/// When a name was made, which it says itself (RFC 9562 §5.7).
fn made(key: &str) -> Option<Timestamp> {
    let (seconds, nanos) = Uuid::try_parse(key).ok()?.get_timestamp()?.to_unix();
    let micros = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    Some(Timestamp::from_micros(micros.checked_add(i64::from(nanos / 1_000))?))
}

/// Removes the files in `directory` of such names that were last written longer ago than `grace`; how many.
pub(super) fn stale(
    directory: &std::path::Path,
    grace: Duration,
    of: impl Fn(&str) -> bool,
) -> std::io::Result<u64> {
    let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let fits = entry.file_name().to_str().is_some_and(&of);
        // One that vanishes meanwhile was a write that ended.
        if fits && entry.metadata().is_ok_and(|m| m.modified().is_ok_and(|at| at < before)) {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The store's failure, in words that name no place of it.
pub(super) fn failed(error: object_store::Error) -> Error {
    let full = std::iter::successors(std::error::Error::source(&error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::StorageFull);
    if full {
        return Error::new(Code::Unavailable, "the disk is full").source(error);
    }
    match error {
        object_store::Error::NotFound { .. } => Error::not_found("content of this file (any more)"),
        error => Error::new(Code::Unavailable, "the store of files does not answer").source(error),
    }
}
