//! The files of buckets in snapshots, branches and archives, wherever their bytes are.

use std::path::Path;

use kernel::{Code, EnvId, Error, Result};

use super::{Inner, blocking, contents};
use crate::database::Loose;
use crate::storage::pins::{self, NAMED, Named};

impl Inner {
    /// Puts the files of an environment into the directory `to` as well, where they are files at all. Nobody may write
    /// meanwhile.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn link_files(&self, env: EnvId, to: &Path) -> Result<()> {
        if self.contents.are_away() {
            return Ok(());
        }
        contents::files(self.environment(env).join("files"), to.join("files")).await
    }

    /// What the rows of a copy name, where that is not in a directory.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub(super) async fn named(&self, copy: &mut Loose) -> Result<Vec<Named>> {
        if self.contents.are_away() { named(copy).await } else { Ok(Vec::new()) }
    }

    /// Notes in the directory of a snapshot what it needs of what is elsewhere.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn pin(&self, snapshot: &Path, named: &[Named]) -> Result<()> {
        if !self.contents.are_away() {
            return Ok(());
        }
        let (snapshot, named) = (snapshot.to_owned(), named.to_owned());
        blocking(move || pins::write(&snapshot, &named)).await
    }

    /// Gives `to`, whose directory is `directory`, the files of a snapshot of `from`: the links that it has, and what it
    /// names.
    ///
    /// # Errors
    /// `conflict` where they are in a service that is not used any more; `unavailable`; the disk.
    pub(super) async fn unpack(
        &self,
        snapshot: &Path,
        from: EnvId,
        to: EnvId,
        directory: &Path,
        named: &[Named],
    ) -> Result<()> {
        let links = snapshot.join("files");
        if self.contents.are_away() {
            return self.contents.give(from, &links, to, named).await;
        }
        let at = snapshot.to_owned();
        if blocking(move || pins::has_any(&at)).await? {
            let message = "the files of this snapshot are in an S3 service, which is not used any more";
            return Err(Error::new(Code::Conflict, message)
                .hint("the operator has to set storage.s3_bucket as it was, or branch without data"));
        }
        contents::files(links, directory.join("files")).await
    }

    /// How many bytes the snapshots of an environment alone need of what is elsewhere.
    ///
    /// # Errors
    /// The disk, the database.
    pub(super) async fn pinned_bytes(&self, env: &kernel::Env) -> Result<u64> {
        let snapshots = self.directory(env.id());
        let mut pinned = blocking(move || pins::all(&snapshots)).await?;
        if !pinned.is_empty() {
            for row in self.databases.platform_query(env, NAMED, &[]).await? {
                pinned.remove(row.first().and_then(serde_json::Value::as_str).unwrap_or_default());
            }
        }
        Ok(pinned.values().sum())
    }
}

/// What the rows of a copy name.
///
/// # Errors
/// The copy cannot be read.
pub(super) async fn named(copy: &mut Loose) -> Result<Vec<Named>> {
    let rows = copy.rows(NAMED).await?;
    let named: Option<Vec<Named>> = rows.iter().map(|row| Named::read(row)).collect();
    named.ok_or_else(|| Error::internal("the row of a file names no content"))
}
