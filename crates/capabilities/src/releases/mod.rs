//! Releases: an app as one manifest, planned, applied whole or not at all, and rolled back.

mod alter;
mod change;
mod column;
mod convert;
mod ddl;
mod describe;
mod live;
mod manifest;
mod names;
mod observed;
mod plans;
mod rehearsal;
mod tables;

use std::sync::Arc;

use kernel::{Env, EnvId, Error, PlanId, Result};
use tokio_util::sync::CancellationToken;

pub use change::{Action, Change, Effect, EffectKind};
pub use describe::{Description, ReleaseInfo, SiteInfo, TableInfo};
pub use live::{LiveCheck, Served};
pub use manifest::{DatabaseSpec, Manifest, MigrationSpec, Preset, TableSpec};

use crate::database::{Databases, Role, Writer};
use crate::hosting::{Blobs, Site, Sites};
use live::Live;
use plans::{Stored, lossy};
use rehearsal::{Goal, Rehearsal, Release, rehearse};

/// The releases of every environment.
pub struct Releases {
    databases: Arc<Databases>,
    blobs: Blobs,
    sites: Sites,
    live: Live,
    check: Arc<dyn LiveCheck>,
}

/// A plan, as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to apply it by.
    pub id: PlanId,
    /// The release that is current.
    pub release: u64,
    /// What would be done.
    pub changes: Vec<Change>,
    /// What that means for those who use the app.
    pub effects: Vec<Effect>,
    /// What has to be said to apply it, where it loses data.
    pub confirm: Option<String>,
}

/// What an apply or a rollback has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The release that is current.
    pub release: u64,
    /// Whether anything was done.
    pub changed: bool,
    /// What was done.
    pub changes: Vec<Change>,
    /// What that means for those who use the app.
    pub effects: Vec<Effect>,
}

/// What [`Releases::apply`] is given.
#[derive(Debug)]
pub enum Wanted {
    /// A manifest, which loses no data.
    Manifest(Box<Manifest>),
    /// A plan that was shown, with its confirmation where it loses data.
    Plan { id: PlanId, confirm: Option<String> },
}

impl Releases {
    /// Releases over the environments' databases and blobs; `check` tries each before it is kept.
    #[must_use]
    pub fn new(databases: Arc<Databases>, blobs: Blobs, check: Arc<dyn LiveCheck>) -> Self {
        let sites = Sites::new(blobs.clone());
        Self { databases, blobs, sites, live: Live::new(), check }
    }

    /// What applying `manifest` would do, tried out in a transaction that is rolled back. `secrets` are the names
    /// of those that are set.
    ///
    /// # Errors
    /// What is wrong with the manifest, with a pointer into it, or why it cannot be applied to what is there.
    pub async fn plan(&self, env: &Env, manifest: Manifest, secrets: &[String]) -> Result<Plan> {
        let goal = self.goal(env, manifest, secrets).await?;
        self.plan_goal(env, goal).await
    }

    /// What removing a table would do.
    ///
    /// # Errors
    /// `not_found`; `conflict` where other tables refer to it.
    pub async fn plan_drop(&self, env: &Env, table: &str) -> Result<Plan> {
        self.plan_goal(env, Goal::DropTable { name: table.to_owned() }).await
    }

    async fn plan_goal(&self, env: &Env, goal: Goal) -> Result<Plan> {
        let mut db = self.databases.writer(env).await?;
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        db.rollback().await?;
        let stored = Stored::of(goal, &rehearsal);
        let id = stored.save(&mut db).await?;
        Ok(Plan {
            id,
            release: rehearsal.observed.release,
            changes: rehearsal.changes,
            effects: rehearsal.effects,
            confirm: stored.confirm,
        })
    }

    /// Applies a manifest or a plan: everything or nothing. The new release answers at the app's address, and
    /// has been fetched from there, when this returns.
    ///
    /// # Errors
    /// As [`Releases::plan`]; `conflict` where data would be lost without confirmation, or where the state has
    /// moved since the plan; `unavailable` where the release does not answer. Nothing has changed then.
    pub async fn apply(
        &self,
        env: &Env,
        wanted: Wanted,
        secrets: &[String],
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        match wanted {
            Wanted::Manifest(manifest) => {
                let goal = self.goal(env, *manifest, secrets).await?;
                let mut db = self.databases.writer(env).await?;
                let rehearsal = rehearse(&mut db, &goal, "").await?;
                if rehearsal.losses().next().is_some() {
                    db.rollback().await?;
                    return Err(lossy(rehearsal.losses())
                        .field("/manifest")
                        .hint("call app_plan with this manifest, then app_apply with its plan_id and confirm"));
                }
                self.finish(env, db, rehearsal, cancel).await
            }
            Wanted::Plan { id, confirm } => self.apply_plan(env, id, confirm.as_deref(), cancel).await,
        }
    }

    async fn apply_plan(
        &self,
        env: &Env,
        id: PlanId,
        confirm: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let mut db = self.databases.writer(env).await?;
        let stored = Stored::load(&mut db, id).await?;
        let note = id.to_string();
        if let Some(release) = Release::applied_as(&mut db, &note).await? {
            return Ok(Applied { release, changed: false, changes: Vec::new(), effects: Vec::new() });
        }
        stored.confirmed(confirm)?;
        let rehearsal = rehearse(&mut db, &stored.goal, &note).await?;
        let judged = stored.observed.unmoved(&rehearsal.observed).and_then(|()| {
            let grown = !rehearsal.losses().eq(stored.losses.iter());
            if grown { Err(lossy(rehearsal.losses()).hint("that is not what the plan said: call app_plan again")) } else { Ok(()) }
        });
        if let Err(refusal) = judged {
            db.rollback().await?;
            return Err(refusal);
        }
        self.finish(env, db, rehearsal, cancel).await
    }

    /// Removes a table by a plan of [`Releases::plan_drop`].
    ///
    /// # Errors
    /// As [`Releases::apply`]; `conflict` where the plan is for something else.
    pub async fn drop_table(
        &self,
        env: &Env,
        table: &str,
        plan: PlanId,
        confirm: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let mut db = self.databases.writer(env).await?;
        let stored = Stored::load(&mut db, plan).await?;
        drop(db);
        if stored.goal != (Goal::DropTable { name: table.to_owned() }) {
            let message = "the confirmation is for something else";
            return Err(Error::new(kernel::Code::Conflict, message).field("/confirm").hint("make a dry run for this"));
        }
        self.apply_plan(env, plan, confirm, cancel).await
    }

    /// Returns to an earlier release: its tables and its site. No row written since is lost: what the release
    /// does not know stays beside it, and what cannot be undone without loss is refused. Migrations are not
    /// undone.
    ///
    /// # Errors
    /// `not_found`; `conflict` where values would be lost.
    pub async fn rollback(&self, env: &Env, release: u64, cancel: &CancellationToken) -> Result<Applied> {
        let mut db = self.databases.writer(env).await?;
        let rehearsal = rehearse(&mut db, &Goal::Back { release }, "").await?;
        self.finish(env, db, rehearsal, cancel).await
    }

    /// From what has been rehearsed to what answers at the address.
    async fn finish(
        &self,
        env: &Env,
        mut db: Writer,
        rehearsal: Rehearsal,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let number = rehearsal.release.number;
        let changed = rehearsal.changed();
        if changed {
            let site = rehearsal.release.site.unwrap_or_default();
            let served = Arc::new(Served { env: env.clone(), release: number, site });
            // Readers get the new release from here on; the writer is held, so that giving it up loses no write.
            let trial = self.live.try_out(&served);
            let checked = tokio::select! {
                checked = self.check.check(&served) => checked,
                () = cancel.cancelled() => {
                    Err(Error::new(kernel::Code::Timeout, "the call was cancelled; nothing has changed"))
                }
            };
            if let Err(refusal) = checked {
                db.rollback().await?;
                return Err(refusal);
            }
            db.commit().await?;
            self.live.publish(served);
            drop(trial);
        } else {
            db.rollback().await?;
        }
        let (changes, effects) = if changed { (rehearsal.changes, rehearsal.effects) } else { Default::default() };
        Ok(Applied { release: number, changed, changes, effects })
    }

    async fn goal(&self, env: &Env, mut manifest: Manifest, secrets: &[String]) -> Result<Goal> {
        for (i, name) in manifest.secrets.iter().flatten().enumerate() {
            if !secrets.contains(name) {
                return Err(Error::invalid(format!("/secrets/{i}"), format!("the secret {name} is not set"))
                    .hint("set it with secret_set first"));
            }
        }
        // Wrong tables are said before any blob is stored.
        if let Some(database) = &manifest.database {
            database.tables().map_err(|e| e.under("/database"))?;
        }
        let site = match manifest.site.take() {
            Some(spec) => {
                let site = self.sites.prepare(env, spec).await;
                Some(site.map_err(|e| kernel::Error::from(e).under("/site"))?)
            }
            None => None,
        };
        Ok(Goal::Apply { manifest, site })
    }

    /// What answers at the app's address; nothing before the first release.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn live(&self, env: &Env) -> Result<Option<Arc<Served>>> {
        let load = async {
            let sql = "SELECT number, manifest, site FROM _steading_release \
                       WHERE number = (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";
            self.load(env, sql, &[]).await
        };
        self.live.get(env.id(), load).await
    }

    /// An earlier or the current release, for its preview.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn numbered(&self, env: &Env, release: u64) -> Result<Option<Arc<Served>>> {
        if let Some(live) = self.live(env).await?.filter(|live| live.release == release) {
            return Ok(Some(live));
        }
        let sql = "SELECT number, manifest, site FROM _steading_release WHERE number = ?1";
        self.load(env, sql, &[release.into()]).await
    }

    async fn load(&self, env: &Env, sql: &str, params: &[serde_json::Value]) -> Result<Option<Arc<Served>>> {
        let rows = self.databases.read(env, Role::Platform, sql, params).await?.rows;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let release = Release::read(row)?;
        let site = release.site.unwrap_or_default();
        Ok(Some(Arc::new(Served { env: env.clone(), release: release.number, site })))
    }

    /// Forgets an environment that is deleted.
    pub fn forget(&self, env: EnvId) {
        self.live.forget(env);
    }

    /// Removes the blobs that no release needs and that have been there for a while.
    ///
    /// # Errors
    /// The database or the disk cannot be read.
    pub async fn collect(&self, env: &Env) -> Result<u64> {
        let sql = "SELECT number, manifest, site FROM _steading_release";
        let mut needed = std::collections::HashSet::new();
        for row in self.databases.read(env, Role::Platform, sql, &[]).await?.rows {
            needed.extend(Release::read(row)?.site.iter().flat_map(Site::blobs).collect::<Vec<_>>());
        }
        let collected = self.blobs.collect(env, &needed, crate::hosting::DEFAULT_GRACE).await?;
        Ok(collected.removed)
    }
}

#[cfg(test)]
mod tests;
