//! How many bytes the blobs of an environment have on the disk, and whether there is room for more.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::EnvId;

use super::{Error, Result};

/// How long what was counted is believed: others put blobs in place and remove them, too.
const BELIEVED: Duration = Duration::from_secs(30);

/// So few environments are never worth a walk.
const FEW: usize = 64;

/// The bytes of all environments' blobs, counted when they are asked for.
#[derive(Debug)]
pub(super) struct Tally {
    most: u64,
    held: Arc<Mutex<HashMap<EnvId, Held>>>,
}

#[derive(Debug)]
struct Held {
    bytes: u64,
    /// Those that are on their way, and may be on the disk already.
    coming: u64,
    counted: Instant,
}

/// Bytes that are on their way, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    held: Arc<Mutex<HashMap<EnvId, Held>>>,
    env: EnvId,
    most: u64,
    bytes: u64,
    is_kept: bool,
}

impl Tally {
    /// Room for `most` bytes in each environment.
    pub fn new(most: u64) -> Self {
        Self { most, held: Arc::default() }
    }

    /// Room for bytes of `env`, whose blobs are in `directory`; none is taken yet.
    ///
    /// # Errors
    /// The disk fails.
    pub async fn room(&self, env: EnvId, directory: &Path) -> Result<Room> {
        let now = Instant::now();
        let is_believed = |held: &Held| now.saturating_duration_since(held.counted) < BELIEVED;
        let known = lock(&self.held).get(&env).is_some_and(is_believed);
        if !known {
            let directory = directory.to_owned();
            let counted = tokio::task::spawn_blocking(move || count(&directory)).await;
            let bytes = counted.map_err(std::io::Error::other).flatten().map_err(Error::Files)?;
            let mut held = lock(&self.held);
            if held.len() >= FEW {
                held.retain(|_, it| it.coming > 0 || is_believed(it));
            }
            let coming = held.get(&env).map_or(0, |it| it.coming);
            held.insert(env, Held { bytes, coming, counted: now });
        }
        let held = Arc::clone(&self.held);
        Ok(Room { held, env, most: self.most, bytes: 0, is_kept: false })
    }

    /// Counts an environment's blobs anew when they are asked for next.
    pub fn forget(&self, env: EnvId) {
        if let Some(held) = lock(&self.held).get_mut(&env)
            && let Some(before) = held.counted.checked_sub(BELIEVED)
        {
            held.counted = before;
        }
    }
}

impl Room {
    /// Takes room for more bytes.
    ///
    /// # Errors
    /// [`Error::Full`] where there is none.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        let mut held = lock(&self.held);
        let Some(of) = held.get_mut(&self.env) else { return Ok(()) };
        if of.bytes.saturating_add(of.coming).saturating_add(bytes) > self.most {
            return Err(Error::Full { used: of.bytes, limit: self.most });
        }
        of.coming += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// The bytes are in place.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        let Some(of) = held.get_mut(&self.env) else { return };
        of.coming = of.coming.saturating_sub(self.bytes);
        if self.is_kept {
            of.bytes = of.bytes.saturating_add(self.bytes);
        }
    }
}

fn lock(held: &Mutex<HashMap<EnvId, Held>>) -> MutexGuard<'_, HashMap<EnvId, Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of all files in a directory; none where there is no directory.
fn count(directory: &Path) -> std::io::Result<u64> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        // One that vanishes meanwhile takes no room.
        bytes += entry?.metadata().map_or(0, |found| found.len());
    }
    Ok(bytes)
}
