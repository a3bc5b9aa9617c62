//! Files of an app: metadata as rows that the rules guard, contents in a directory or an S3 bucket.
//!
//! Contents are written under a fresh name first, then the row that names them commits, then the old contents go. A
//! crash leaves contents that no row names, which are collected, and never a torn file.

mod bucket;
mod contents;
mod elsewhere;
mod files;
mod links;
mod listing;
mod media;
mod moves;
mod object;
pub(crate) mod parts;
mod picture;
mod pictures;
pub(crate) mod pins;
mod put;
mod quota;
mod s3;
mod staging;
mod unfinished;
mod upkeep;
mod uploads;

#[cfg(test)]
pub(crate) mod tests;

use std::hash::RandomState;
use std::sync::Arc;

use kernel::{Env, EnvId, Error, Result};

pub use bucket::{Bucket, BucketName, BucketSpec, MAX_SIZE, StorageSpec};
pub use contents::{Contents, FileStream};
pub use links::{LIFE, Lent, Link, LinkKeys, LinkMethod, Sign};
pub use listing::{ListFiles, Listed};
pub use object::Object;
pub use picture::{Fit, Format, Picture, View};
pub use put::{Condition, Placed, Put};
pub(crate) use put::{STORED, check_stored};
pub use quota::StorageLimits;
pub use s3::S3;
pub use uploads::{Appended, Checksum, Upload};

pub(crate) use object::TABLE;

use self::pictures::Pictures;
use self::staging::Staging;
use crate::access::{Guest, Sql};
use crate::database::{Databases, Role, Writer};
use crate::rows::{App, LiveApps, Statements};

/// The files of every environment's app. Clones share everything.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    databases: Arc<Databases>,
    live: Arc<dyn LiveApps>,
    contents: Contents,
    staging: Staging,
    pictures: Pictures,
    keys: Arc<dyn LinkKeys>,
    limits: StorageLimits,
    /// Bytes that are on their way.
    coming: Arc<quota::Coming>,
    /// Makes of a network's address what it is counted by.
    networks: RandomState,
}

impl Storage {
    /// The files whose metadata is in `databases` and whose bytes are in `contents`, with links that `keys` sign.
    #[must_use]
    pub fn new(
        databases: Arc<Databases>,
        live: Arc<dyn LiveApps>,
        contents: Contents,
        keys: Arc<dyn LinkKeys>,
        limits: StorageLimits,
    ) -> Self {
        let staging = Staging::new(contents.envs_dir().to_owned());
        let (pictures, coming, networks) = (Pictures::new(), Arc::default(), RandomState::new());
        Self(Arc::new(Inner { databases, live, contents, staging, pictures, keys, limits, coming, networks }))
    }

    /// What the files of an environment may have together, in bytes.
    pub async fn most(&self, env: EnvId) -> u64 {
        self.0.most(env).await
    }

    /// What they have, in bytes, those of unfinished uploads among them.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn used(&self, env: &Env) -> Result<u64> {
        put::used(&mut Desk::Reader(&self.0.databases, env)).await
    }

    /// Removes the files of an environment that is removed; to be called after its database is closed for good.
    ///
    /// # Errors
    /// `unavailable` where the store fails.
    pub async fn forget(&self, env: EnvId) -> Result<()> {
        self.0.contents.forget(env).await
    }
}

impl Inner {
    /// What the files of an environment may have together, in bytes.
    async fn most(&self, env: EnvId) -> u64 {
        self.databases.quota(env).await.files_bytes.unwrap_or(self.limits.bytes)
    }

    /// The bucket of that name in the live release.
    async fn bucket(&self, env: &Env, name: &str) -> Result<Arc<Bucket>> {
        known(&*self.live.app(env).await?, name)
    }
}

fn known(app: &App, name: &str) -> Result<Arc<Bucket>> {
    app.buckets.get(name).cloned().ok_or_else(|| {
        Error::not_found("such bucket").hint("app_describe shows the buckets, and storage_bucket makes one")
    })
}

/// The statements of `guest` on a bucket's files.
fn statements<'a>(bucket: &'a Bucket, guest: &'a Guest) -> Statements<'a> {
    Statements { table: &bucket.table, subject: guest.subject() }
}

/// Where statements run: by themselves, or inside the open transaction of a writer.
enum Desk<'a> {
    Reader(&'a Databases, &'a Env),
    Turn(&'a mut Writer),
}

impl Desk<'_> {
    async fn ask(&mut self, sql: Sql) -> Result<Vec<Vec<serde_json::Value>>> {
        Ok(match self {
            Desk::Reader(databases, env) => databases.platform_query(env, &sql.text, &sql.params).await?,
            Desk::Turn(writer) => writer.run(Role::Platform, &sql.text, &sql.params).await?.rows,
        })
    }
}

/// There is no such file, or none that may be read: one answer for both.
fn hidden() -> Error {
    Error::not_found("such file").hint("list the bucket: it shows the paths of all that may be seen")
}

/// Runs `work` to its end, also where its caller goes away: between a commit and what has to follow it nothing comes.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(Error::internal)?
}
