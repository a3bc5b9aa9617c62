//! How many bytes an environment's files may have, and have.

use kernel::{Code, Error, Result};

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

/// More than the bucket lets one file have.
pub(super) fn too_large(bucket: &str, most: u64) -> Error {
    Error::new(Code::TooLarge, format!("a file of {bucket} has at most {most} bytes"))
        .hint("send a smaller file, or have max_size of the bucket raised")
}

/// More than the environment may have.
pub(super) fn used_up(used: u64, most: u64) -> Error {
    Error::new(Code::QuotaExceeded, format!("the app's files have {used} of {most} bytes, and this is more"))
        .hint("remove files that are not needed, or have environments.max_files_bytes raised")
}
