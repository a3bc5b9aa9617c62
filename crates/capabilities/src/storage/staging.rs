//! Where the bytes of unfinished uploads lie: a file each, on this machine, written by one request at a time.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kernel::{Code, EnvId, Error, Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a request waits for the one before it to let go.
const PATIENCE: Duration = Duration::from_secs(20);

/// So few uploads are never worth a walk.
const FEW: usize = 64;

/// The unfinished uploads of all environments.
pub(super) struct Staging {
    envs_dir: PathBuf,
    turns: Mutex<HashMap<(EnvId, String), Arc<Place>>>,
}

#[derive(Default)]
struct Place {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Stops the request that has the turn.
    stop: Mutex<CancellationToken>,
}

/// The right to work on one upload, until it is dropped.
pub(super) struct Turn {
    staged: Staged,
    stop: CancellationToken,
    _place: Arc<Place>,
    _lock: OwnedMutexGuard<()>,
}

/// The bytes of one upload.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    bytes: PathBuf,
    /// How many bytes are known to be right, while others are written that may not be.
    sure: PathBuf,
}

/// Bytes that are being added.
pub(super) struct Writing<'a> {
    staged: &'a Staged,
    file: File,
    from: u64,
    unsure: bool,
}

impl Staging {
    pub fn new(envs_dir: PathBuf) -> Self {
        Self { envs_dir, turns: Mutex::default() }
    }

    /// The bytes of an upload; `id` is only hexadecimal digits.
    pub fn of(&self, env: EnvId, id: &str) -> Staged {
        let folder = self.folder(env);
        Staged { bytes: folder.join(id), sure: folder.join(format!("{id}.sure")) }
    }

    pub fn folder(&self, env: EnvId) -> PathBuf {
        self.envs_dir.join(env.to_string()).join("uploads")
    }

    /// Takes the turn from the request that has it: a client that comes again has lost its connection, also where we
    /// have not noticed yet.
    ///
    /// # Errors
    /// `conflict` where the other does not end.
    pub async fn turn(&self, env: EnvId, id: &str) -> Result<Turn> {
        let place = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= FEW {
                turns.retain(|_, place| Arc::strong_count(place) > 1);
            }
            Arc::clone(turns.entry((env, id.to_owned())).or_default())
        };
        let stop = CancellationToken::new();
        let before =
            std::mem::replace(&mut *place.stop.lock().unwrap_or_else(PoisonError::into_inner), stop.clone());
        before.cancel();
        let lock = timeout(PATIENCE, Arc::clone(&place.lock).lock_owned()).await.map_err(|_| {
            Error::new(Code::Conflict, "another request works on this upload").hint("try again in a moment")
        })?;
        Ok(Turn { staged: self.of(env, id), stop, _place: place, _lock: lock })
    }
}

impl Turn {
    pub fn staged(&self) -> &Staged {
        &self.staged
    }

    /// Waits until another request wants the turn.
    pub async fn cancelled(&self) {
        self.stop.cancelled().await;
    }
}

impl Staged {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The disk is full or fails, or the environment is gone.
    pub async fn make(&self) -> Result<()> {
        let folder = self.bytes.parent().unwrap_or(&self.bytes);
        match tokio::fs::create_dir(folder).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        File::create_new(&self.bytes).await.map(drop).map_err(failed)
    }

    /// How many bytes are here. What a process was writing under a checksum when it died is not.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn length(&self) -> Result<u64> {
        let length = tokio::fs::metadata(&self.bytes).await.map_err(failed)?.len();
        let sure = match tokio::fs::read_to_string(&self.sure).await {
            Ok(text) => text.trim().parse::<u64>().ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(length),
            Err(error) => return Err(failed(error)),
        };
        // One that was not written whole says nothing, and no byte came after it.
        if let Some(sure) = sure.filter(|sure| *sure < length) {
            let file = File::options().write(true).open(&self.bytes).await.map_err(failed)?;
            file.set_len(sure).await.map_err(failed)?;
        }
        tokio::fs::remove_file(&self.sure).await.map_err(failed)?;
        Ok(sure.map_or(length, |sure| sure.min(length)))
    }

    /// The first bytes, at most `most`.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn head(&self, most: usize) -> Result<Vec<u8>> {
        let mut head = Vec::with_capacity(most);
        self.open().await?.take(most as u64).read_to_end(&mut head).await.map_err(failed)?;
        Ok(head)
    }

    /// All bytes, from the first.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn open(&self) -> Result<File> {
        File::open(&self.bytes).await.map_err(failed)
    }

    /// Begins to add bytes behind the first `from`; where they may turn out not to be right, a process that dies
    /// meanwhile leaves none of them.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn write(&self, from: u64, unsure: bool) -> Result<Writing<'_>> {
        if unsure {
            tokio::fs::write(&self.sure, from.to_string()).await.map_err(failed)?;
        }
        let mut file = File::options().write(true).open(&self.bytes).await.map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
        Ok(Writing { staged: self, file, from, unsure })
    }

    /// Removes the bytes; what is left is swept later.
    pub async fn remove(&self) {
        for path in [&self.bytes, &self.sure] {
            match tokio::fs::remove_file(path).await {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(%error, "bytes of an upload that is over are left");
                }
                _ => {}
            }
        }
    }
}

impl Writing<'_> {
    pub async fn add(&mut self, chunk: &Bytes) -> Result<()> {
        self.file.write_all(chunk).await.map_err(failed)
    }

    /// Keeps what was added, on stable storage.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub async fn keep(mut self) -> Result<()> {
        self.file.flush().await.map_err(failed)?;
        self.file.sync_data().await.map_err(failed)?;
        self.end().await
    }

    /// Takes back what was added.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn undo(mut self) -> Result<()> {
        // What is still on its way must not come behind the end.
        let _ = self.file.flush().await;
        self.file.set_len(self.from).await.map_err(failed)?;
        self.end().await
    }

    async fn end(self) -> Result<()> {
        if self.unsure {
            tokio::fs::remove_file(&self.staged.sure).await.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull => Error::new(Code::Unavailable, "the disk is full").source(error),
        ErrorKind::NotFound => Error::not_found("such upload (any more)").source(error),
        _ => Error::internal(error),
    }
}
