//! Branches: an environment made of another one, as that is now or was at a snapshot.

use std::path::{Path, PathBuf};

use kernel::{Env, EnvId, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::store::{self, sync};
use super::{Inner, Snapshots, blocking, contents};
use crate::database::{Along, Fate, Loose, Maker, make_servable};
use crate::releases::past;

/// Where a branch keeps what it began with.
pub(crate) const STATE: &str = "branch";

/// What the name of an environment's directory ends with that is not whole yet.
const HALF: &str = "half";

/// What comes along into a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Rows, users and files, with the shape.
    Data,
    /// Tables, releases and migrations alone.
    Shape,
}

/// What a branch began with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    /// Of which environment it is a branch.
    pub parent: EnvId,
    /// Its release there; 0 before the first.
    pub release: u64,
    /// The release's manifest, and its site.
    pub manifest: Value,
    pub site: Value,
}

/// The directory of an environment that is not there yet; it goes when it is dropped.
pub(super) struct Site {
    half: PathBuf,
    whole: PathBuf,
}

impl Snapshots {
    /// Makes the files of the environment `to`, a branch of `env`; of its `snapshot` where one is given. Sessions do not
    /// come along: tokens of the one never open the other.
    ///
    /// # Returns
    /// The release that is live there; 0 before the first.
    ///
    /// # Errors
    /// `not_found` at `/snapshot`; `unavailable` where others write for too long, or the disk is full. Nothing is there
    /// then.
    pub async fn branch(&self, env: &Env, to: EnvId, snapshot: Option<&str>, with: With) -> Result<u64> {
        let (this, env, snapshot) = (self.clone(), env.clone(), snapshot.map(str::to_owned));
        let work = async move {
            let _turn = this.0.turn(env.id()).await;
            let from = match snapshot {
                Some(wanted) => {
                    let found = this.find(&env, &wanted).await?;
                    Some(this.0.directory(env.id()).join(found.snapshot.to_string()))
                }
                None => None,
            };
            this.0.branch(&env, to, from, with).await
        };
        // Whoever waits for this may go away; what was begun is finished.
        tokio::spawn(work).await.map_err(Error::internal)?
    }

    /// Whether the files of an environment are there, whole.
    #[must_use]
    pub fn is_there(&self, env: EnvId) -> bool {
        self.0.environment(env).join("main.db").exists()
    }

    /// Removes what attempts to make environments that died have left; for the start.
    ///
    /// # Errors
    /// The disk.
    pub async fn sweep(&self) -> Result<()> {
        let directory = self.0.envs_dir.clone();
        blocking(move || {
            for path in store::entries(&directory)? {
                if path.extension().is_some_and(|extension| extension == HALF) {
                    std::fs::remove_dir_all(path)?;
                }
            }
            Ok(())
        })
        .await
    }
}

impl Inner {
    async fn branch(&self, env: &Env, to: EnvId, from: Option<PathBuf>, with: With) -> Result<u64> {
        let site = Site::new(self.environment(to)).await?;
        let database = site.path().join("main.db");
        let contents_of = match from {
            Some(snapshot) => {
                let source = snapshot.join("main.db");
                match with {
                    With::Data => {
                        let copy = database.clone();
                        blocking(move || std::fs::copy(source, copy)).await?;
                    }
                    With::Shape => {
                        self.databases.rebuild(to, &source, &database, Maker::Us, Along::Shape).await?
                    }
                }
                if with == With::Data {
                    contents::files(snapshot.join("files"), site.path().join("files")).await?;
                }
                snapshot
            }
            None => {
                let here = self.environment(env.id());
                let mut quiet = self.databases.quiet(env).await?;
                match with {
                    With::Data => {
                        let copying = self.databases.begin_copy(env, &mut quiet, &database).await?;
                        contents::files(here.join("files"), site.path().join("files")).await?;
                        quiet.end();
                        copying.finish().await?;
                    }
                    With::Shape => {
                        self.databases
                            .rebuild(to, &here.join("main.db"), &database, Maker::Us, Along::Shape)
                            .await?;
                        quiet.end();
                    }
                }
                here
            }
        };
        let mut copy = self.databases.open_loose(to, &database).await?;
        let prepared = match self.whole(&mut copy).await {
            Ok(()) => become_branch(&mut copy, env.id()).await,
            Err(error) => Err(error),
        };
        copy.close().await;
        let (release, blobs) = prepared?;
        make_servable(to, &database).await?;
        contents::blobs(contents_of.join("blobs"), site.path().join("blobs"), blobs).await?;
        site.become_environment().await?;
        Ok(release)
    }
}

/// Makes a database one of a branch of `parent`. Gives the live release, and the blobs that all releases need.
async fn become_branch(
    copy: &mut Loose,
    parent: EnvId,
) -> Result<(u64, std::collections::HashSet<kernel::BlobHash>)> {
    copy.run("BEGIN IMMEDIATE", &[]).await?;
    copy.keep(|fate| matches!(fate, Fate::Shape | Fate::Data | Fate::People(_))).await?;
    let current = copy.rows(past::CURRENT).await?.into_iter().next();
    let part = |at: usize| -> Result<Value> {
        let text = current.as_ref().and_then(|row| row.get(at)?.as_str()).unwrap_or("null");
        serde_json::from_str(text).map_err(Error::internal)
    };
    let release = current.as_ref().and_then(|row| row.first()?.as_u64()).unwrap_or_default();
    let origin = Origin { parent, release, manifest: part(1)?, site: part(2)? };
    let origin = serde_json::to_string(&origin).map_err(Error::internal)?;
    let sql = "INSERT INTO _steading_state (key, value) VALUES (?1, ?2) \
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    copy.run(sql, &[json!(STATE), json!(origin)]).await?;
    copy.run("COMMIT", &[]).await?;
    Ok((release, past::needed(copy.rows(past::RELEASES).await?)?))
}

impl Site {
    /// The directory that becomes `whole`.
    pub async fn new(whole: PathBuf) -> Result<Self> {
        let half = whole.with_extension(HALF);
        let made = half.clone();
        blocking(move || std::fs::create_dir(made)).await?;
        Ok(Self { half, whole })
    }

    pub fn path(&self) -> &Path {
        &self.half
    }

    /// Makes it an environment's.
    pub async fn become_environment(self) -> Result<()> {
        let (half, whole) = (self.half.clone(), self.whole.clone());
        blocking(move || {
            sync(&half)?;
            std::fs::rename(&half, &whole)?;
            whole.parent().map_or(Ok(()), sync)
        })
        .await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It is not there any more where it has become something.
        let _ = std::fs::remove_dir_all(&self.half);
    }
}
