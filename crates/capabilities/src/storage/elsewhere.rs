//! Contents on their way between environments, and into and out of directories.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use futures::{StreamExt as _, TryStreamExt as _};
use kernel::{EnvId, Error, Result};
use object_store::ObjectStoreExt as _;
use tokio_util::io::ReaderStream;

use super::contents::{At, CHUNK, Contents, FileStream, failed, place};
use super::parts::Parts;
use super::pins::Named;

/// What S3 copies in one go, in bytes (CopyObject takes no more).
const LARGEST_COPY: u64 = 5 << 30;

/// How many files are on their way at a time.
const AT_ONCE: usize = 32;

impl Contents {
    /// Whether the bytes are in another service, and not in the environments' own directories.
    #[must_use]
    pub fn are_away(&self) -> bool {
        self.0.at == At::Away
    }

    /// Gives `to` what `named` names: what lies in `directory` from there, the rest from `from`, by the service itself. An
    /// environment has all of its files for itself, so that no other's end takes them away.
    ///
    /// # Errors
    /// `not_found` where one is gone, `unavailable` where the store fails, `internal` where the directory cannot be read.
    pub(crate) async fn give(&self, from: EnvId, directory: &Path, to: EnvId, named: &[Named]) -> Result<()> {
        let all = futures::stream::iter(named.to_vec()).map(|named| {
            let (this, path) = (self.clone(), directory.join(&named.key));
            this.give_one(from, path, to, named)
        });
        all.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn give_one(self, from: EnvId, path: PathBuf, to: EnvId, named: Named) -> Result<()> {
        match tokio::fs::File::open(path).await {
            Ok(file) => {
                let bytes = ReaderStream::with_capacity(file, CHUNK).map_err(Error::internal).boxed();
                return self.pour(to, &named.key, bytes).await;
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::internal(error)),
            Err(_) if from == to => return Ok(()),
            Err(_) => {}
        }
        if named.size > LARGEST_COPY {
            let bytes = self.stored(from, &named).await?;
            return self.pour(to, &named.key, bytes).await;
        }
        let _kept = self.kept(to).await?;
        let (from, to) = (place(from, &named.key), place(to, &named.key));
        self.0.store.copy(&from, &to).await.map_err(failed)
    }

    /// The bytes that a row names.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub(crate) async fn stored(&self, env: EnvId, named: &Named) -> Result<FileStream> {
        self.read(env, &named.key, 0..named.size).await
    }

    /// Removes contents that no row names any more, and no snapshot needs.
    pub(crate) async fn discard_all(self, env: EnvId, keys: Vec<String>) {
        for key in keys {
            self.discard(env, &key).await;
        }
    }

    /// Writes a stream under a name that is known.
    async fn pour(&self, env: EnvId, key: &str, mut bytes: FileStream) -> Result<()> {
        let mut held = BytesMut::new();
        let mut parts: Option<Parts> = None;
        while let Some(chunk) = bytes.try_next().await? {
            held.extend_from_slice(&chunk);
            while held.len() >= self.0.part {
                let begun = match &mut parts {
                    Some(begun) => begun,
                    none => none.insert(Parts::begin(&self.0.store, place(env, key)).await.map_err(failed)?),
                };
                begun.put(held.split_to(self.0.part).freeze()).await.map_err(failed)?;
            }
        }
        let _kept = self.kept(env).await?;
        let rest = held.split().freeze();
        match parts {
            None => self.0.store.put(&place(env, key), rest.into()).await.map(drop).map_err(failed),
            Some(mut begun) => {
                if !rest.is_empty() {
                    begun.put(rest).await.map_err(failed)?;
                }
                begun.complete().await.map_err(failed)
            }
        }
    }
}
