//! Branches: an environment made of another one, as that is now or was at a snapshot.

use std::path::{Path, PathBuf};

use kernel::{Env, EnvId, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::store::{self, Staged, sync};
use super::{Inner, Snapshots, blocking, contents};
use crate::database::{Along, Fate, Loose, Maker, make_servable};
use crate::releases::{self, past};

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

/// Where a branch comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Of which environment it is a branch.
    pub parent: EnvId,
    /// What it began with.
    #[serde(flatten)]
    pub base: Base,
    /// The last times that it was merged, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<MergedOnce>,
}

/// What a branch and its parent had in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The branch's release; 0 before the first.
    pub release: u64,
    /// The release's manifest, its site, and its functions.
    pub manifest: Value,
    pub site: Value,
    #[serde(default)]
    pub functions: Value,
}

/// A merge. The parent keeps its mark, which goes where the parent goes back to before it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MergedOnce {
    pub mark: String,
    pub base: Base,
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
            let (from, _open) = match snapshot {
                Some(wanted) => {
                    let found = this.find(&env, &wanted).await?;
                    let (from, open) = this.0.open(env.id(), &found).await?;
                    (Some(from), open)
                }
                None => (None, None),
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
        let is_half = |path: &PathBuf| path.extension().is_some_and(|extension| extension == HALF);
        let halves: Vec<_> =
            blocking(move || store::entries(&directory)).await?.into_iter().filter(is_half).collect();
        for half in halves {
            let env = half.file_stem().and_then(|name| name.to_str()?.parse::<EnvId>().ok());
            if let Some(Err(error)) = match env {
                Some(env) => Some(self.0.contents.forget(env).await),
                None => None,
            } {
                // The next start finds it again.
                tracing::warn!(path = %half.display(), error = error.chain(), "files of what was not made are left");
                continue;
            }
            blocking(move || std::fs::remove_dir_all(half)).await?;
        }
        Ok(())
    }
}

impl Inner {
    async fn branch(&self, env: &Env, to: EnvId, from: Option<PathBuf>, with: With) -> Result<u64> {
        let site = Site::new(self.environment(to)).await?;
        let made = self.fill(env, to, from, with, &site).await;
        let release = match made {
            Ok(release) => site.become_environment().await.map(|()| release),
            Err(error) => Err(error),
        };
        if release.is_err() {
            self.undo(to).await;
        }
        release
    }

    /// Removes what an environment that is not made has elsewhere.
    pub(super) async fn undo(&self, env: EnvId) {
        if let Err(error) = self.contents.forget(env).await {
            tracing::warn!(env.id = %env, error = error.chain(), "files of what was not made are left");
        }
    }

    async fn fill(
        &self,
        env: &Env,
        to: EnvId,
        from: Option<PathBuf>,
        with: With,
        site: &Site,
    ) -> Result<u64> {
        let database = site.path().join("main.db");
        // As long as this is there, nothing goes that is elsewhere.
        let staged = Staged::new(self.directory(env.id())).await?;
        let now = from.is_none();
        let source = from.unwrap_or_else(|| self.environment(env.id()));
        if now {
            let mut quiet = self.databases.quiet(env).await?;
            match with {
                With::Data => {
                    let copying = self.databases.begin_copy(env, &mut quiet, &database).await?;
                    self.link_files(env.id(), site.path()).await?;
                    quiet.end();
                    copying.finish().await?;
                }
                With::Shape => {
                    let shape = source.join("main.db");
                    self.databases.rebuild(to, &shape, &database, Maker::Us, Along::Shape).await?;
                    quiet.end();
                }
            }
        } else {
            let (past, copy) = (source.join("main.db"), database.clone());
            match with {
                With::Data => blocking(move || std::fs::copy(past, copy)).await.map(drop)?,
                With::Shape => self.databases.rebuild(to, &past, &database, Maker::Us, Along::Shape).await?,
            }
        }
        let mut copy = self.databases.open_loose(to, &database).await?;
        let prepared = async {
            Ok::<_, Error>((become_branch(&mut copy, env.id()).await?, self.named(&mut copy).await?))
        }
        .await;
        copy.close().await;
        let ((release, blobs), named) = prepared?;
        make_servable(to, &database).await?;
        contents::blobs(source.join("blobs"), site.path().join("blobs"), blobs).await?;
        if with == With::Data && (!now || self.contents.are_away()) {
            self.unpack(&source, env.id(), to, site.path(), &named).await?;
        }
        drop(staged);
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
    let base = Base { release, manifest: part(1)?, site: part(2)?, functions: part(3)? };
    let origin = Origin { parent, base, merged: Vec::new() };
    let origin = serde_json::to_string(&origin).map_err(Error::internal)?;
    let sql = "INSERT INTO _steading_state (key, value) VALUES (?1, ?2) \
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    copy.run(sql, &[json!(STATE), json!(origin)]).await?;
    copy.run(releases::HOLD, &[]).await?;
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
