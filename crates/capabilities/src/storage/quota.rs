//! How many bytes an environment's files may have, and have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kernel::{Code, EnvId, Error, LimitInfo, LimitScope, Result};

/// What everybody's files may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageLimits {
    /// How many bytes the files of one environment may have together, those of unfinished uploads among them.
    pub bytes: u64,
}

impl Default for StorageLimits {
    fn default() -> Self {
        Self { bytes: 10 << 30 }
    }
}

/// Reads how many bytes the files have, and have come of unfinished uploads: what is only announced takes no room.
pub(super) const USED: &str = "SELECT (SELECT coalesce(sum(size), 0) FROM _steading_object) + \
    (SELECT coalesce(sum(received), 0) FROM _steading_upload WHERE done = 0)";

/// Whether there is room for `more` bytes beside those that are used.
pub(super) fn room(used: u64, more: u64, most: u64) -> Result<()> {
    if used.saturating_add(more) > most { Err(used_up(used, most)) } else { Ok(()) }
}

/// Bytes that are coming and are in no row yet, by environment.
#[derive(Default)]
pub(super) struct Coming(Mutex<HashMap<EnvId, u64>>);

/// Those of one request, until it is dropped.
pub(super) struct Flight {
    coming: Arc<Coming>,
    env: EnvId,
    bytes: u64,
    room: u64,
    most: u64,
}

impl Flight {
    /// A request for an environment that has `room` left of `most`, whatever else is coming.
    pub fn new(coming: &Arc<Coming>, env: EnvId, room: u64, most: u64) -> Self {
        Self { coming: Arc::clone(coming), env, bytes: 0, room, most }
    }

    /// Counts bytes that have come.
    ///
    /// # Errors
    /// `quota_exceeded` where all that is coming is more than there is room for.
    pub fn add(&mut self, bytes: Bytes) -> Result<Bytes> {
        let more = bytes.len() as u64;
        let mut coming = self.coming.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = coming.entry(self.env).or_default();
        *all += more;
        self.bytes += more;
        if *all > self.room {
            Err(used_up(self.most - self.room.min(self.most), self.most))
        } else {
            Ok(bytes)
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut coming = self.coming.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = coming.get_mut(&self.env) {
            *all = all.saturating_sub(self.bytes);
            if *all == 0 {
                coming.remove(&self.env);
            }
        }
    }
}

/// More than the bucket lets one file have.
pub(super) fn too_large(bucket: &str, most: u64) -> Error {
    Error::new(Code::TooLarge, format!("a file of {bucket} has at most {most} bytes"))
        .hint("send a smaller file, or have max_size of the bucket raised")
}

/// More than the environment may have.
pub(super) fn used_up(used: u64, most: u64) -> Error {
    let info = LimitInfo::new("files_bytes", LimitScope::Environment, most, "bytes")
        .left(most.saturating_sub(used))
        .raised("ask who runs the platform for a plan with more");
    Error::new(Code::QuotaExceeded, format!("the app's files have {used} of {most} bytes, and this is more"))
        .limit(info)
        .hint("remove files that are not needed, or have environments.max_files_bytes or the plan's files_bytes raised")
}
