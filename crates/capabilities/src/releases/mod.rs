//! Releases: an app as one manifest, planned, applied whole or not at all, and rolled back.

mod access;
mod advice;
mod alter;
mod app;
mod auth_spec;
mod beside;
mod buckets;
mod building;
mod change;
mod column;
mod convert;
mod ddl;
mod declared;
mod describe;
mod described_service;
mod domains;
mod door;
mod entrusting;
mod events;
mod functions;
mod goal;
mod keeping;
mod lately;
mod live;
mod manifest;
pub(crate) mod merge;
mod migrations;
mod names;
mod observed;
pub(crate) mod past;
mod plans;
mod rehearsal;
mod routes;
mod running;
mod schedules;
mod tables;
mod title;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::{Code, Env, Error, PlanId, Result, Timestamp};
use tokio_util::sync::CancellationToken;

pub use access::AccessSet;
pub use auth_spec::{AuthChange, AuthSpec};
pub use buckets::BucketChange;
pub use building::CodeChange;
pub use change::{Action, Change, Effect, EffectKind};
pub use describe::{
    AuthInfo, BackupInfo, BucketInfo, Description, FunctionInfo, ReleaseInfo, SiteInfo, TableInfo,
};
pub use described_service::ServiceInfo;
pub use keeping::{BackupSpec, Keep, LifecycleSpec, Period};
pub use live::{LiveCheck, Served};
pub use manifest::{DatabaseSpec, Manifest, MigrationSpec, TableSpec};
pub use schedules::{ScheduleInfo, Scheduled};
pub use wanted::{Removal, Wanted};

pub(crate) use ddl::NOW;
pub(crate) use door::is_secret;
pub(crate) use entrusting::SET_FIRST;
pub(crate) use schedules::HOLD;
pub(crate) use title::is_title;

use crate::database::{Databases, Durability, Writer};
use crate::functions::Builder;
use crate::hosting::{Blobs, FileSpec, SiteSpec, Sites};
use crate::logs::{Entry, Level, Logs, Source};
use crate::storage::Contents;
use building::unless;
use goal::Goal;
use lately::Lately;
use live::Live;
use plans::{Stored, lossy};
use rehearsal::{Rehearsal, Release, rehearse};
use running::{Until, may_lead};

/// The releases of every environment.
pub struct Releases {
    databases: Arc<Databases>,
    blobs: Blobs,
    sites: Sites,
    logs: Logs,
    live: Arc<Live>,
    check: Arc<dyn LiveCheck>,
    domains: Option<Arc<crate::domains::Domains>>,
    contents: Option<Contents>,
    builder: Option<Arc<dyn Builder>>,
    lately: Lately,
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

impl Plan {
    /// What [`Releases::remove`] wants to hear.
    #[must_use]
    pub fn confirmation(&self) -> String {
        match &self.confirm {
            Some(secret) => format!("{}.{secret}", self.id),
            None => self.id.to_string(),
        }
    }
}

impl Releases {
    /// Releases over the environments' databases and blobs; `check` tries each before it is kept, and `logs` is told.
    #[must_use]
    pub fn new(databases: Arc<Databases>, blobs: Blobs, logs: Logs, check: Arc<dyn LiveCheck>) -> Self {
        let sites = Sites::new(blobs.clone());
        Self {
            databases,
            blobs,
            sites,
            logs,
            live: Arc::new(Live::new()),
            check,
            domains: None,
            contents: None,
            builder: None,
            lately: Lately::default(),
        }
    }

    /// What applying `manifest` would do, tried out in a transaction that is rolled back. Its functions are built, and not
    /// started: a plan runs nothing. `secrets` are the names of those that the app can use.
    ///
    /// # Errors
    /// What is wrong with the manifest, with a pointer into it, or why it cannot be applied to what is there.
    pub async fn plan(&self, env: &Env, manifest: Manifest, secrets: &[String]) -> Result<Plan> {
        let goal = self.goal(env, manifest, secrets, Until::Built).await?;
        self.plan_goal(env, goal).await
    }

    /// What removing something would do.
    ///
    /// # Errors
    /// `not_found`; `conflict` where something else refers to it.
    pub async fn plan_removal(&self, env: &Env, removal: Removal) -> Result<Plan> {
        let plan = self.plan_goal(env, removal.goal()).await?;
        if plan.changes.is_empty() {
            return Err(Error::not_found("the site").field("/kind"));
        }
        Ok(plan)
    }

    async fn plan_goal(&self, env: &Env, goal: Goal) -> Result<Plan> {
        may_lead(env, &goal, &self.current(env).await?)?;
        let mut db = self.databases.writer(env).await?;
        let rehearsal = self.observed(env, &mut db, &goal, "").await?;
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
                let goal = unless(cancel, self.goal(env, *manifest, secrets, Until::Started)).await?;
                let mut db = self.writer(env, cancel).await?;
                let rehearsal = self.observed(env, &mut db, &goal, "").await?;
                if rehearsal.losses().next().is_some() {
                    db.rollback().await?;
                    return Err(lossy(rehearsal.losses()).field("").hint(
                        "call app_plan with this manifest, then app_apply with its plan_id and confirm",
                    ));
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
        let note = id.to_string();
        let mut db = self.writer(env, cancel).await?;
        db.begin(Durability::Normal).await?;
        let stored = Stored::load(&mut db, id).await?;
        let applied = Release::applied_as(&mut db, &note).await?;
        let base = Release::current(&mut db).await?;
        db.rollback().await?;
        drop(db);
        if let Some(release) = applied {
            return Ok(Applied { release, changed: false, changes: Vec::new(), effects: Vec::new() });
        }
        stored.confirmed(confirm)?;
        may_lead(env, &stored.goal, &base)?;
        unless(cancel, self.planned_started(env, &stored.goal, &base)).await?;
        let mut db = self.writer(env, cancel).await?;
        let rehearsal = self.observed(env, &mut db, &stored.goal, &note).await?;
        let judged = stored.observed.unmoved(&rehearsal.observed).and_then(|()| {
            if !rehearsal.losses().eq(stored.losses.iter()) {
                Err(lossy(rehearsal.losses()).hint("that is not what the plan said: call app_plan again"))
            } else {
                Ok(())
            }
        });
        if let Err(refusal) = judged {
            db.rollback().await?;
            return Err(refusal);
        }
        self.finish(env, db, rehearsal, cancel).await
    }

    /// Removes something after [`Releases::plan_removal`]; `confirm` is [`Plan::confirmation`].
    ///
    /// # Errors
    /// As [`Releases::apply`]; `conflict` where the confirmation is for something else.
    pub async fn remove(
        &self,
        env: &Env,
        removal: &Removal,
        confirm: &str,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        self.apply_confirmed(env, &removal.goal(), confirm, cancel).await
    }

    /// Applies the plan that `confirm` stands for, where it is one for `goal`.
    async fn apply_confirmed(
        &self,
        env: &Env,
        goal: &Goal,
        confirm: &str,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let other = |why: &str| {
            Error::new(Code::Conflict, why)
                .field("/confirm")
                .hint("call with dry_run, and pass the `confirm` it returns")
        };
        let (plan, secret) = match confirm.split_once('.') {
            Some((plan, secret)) => (plan, Some(secret)),
            None => (confirm, None),
        };
        let plan: PlanId = plan.parse().map_err(|_| other("this is not a confirmation"))?;
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Normal).await?;
        let stored = Stored::load(&mut db, plan).await;
        db.rollback().await?;
        drop(db);
        let stored = stored.map_err(|e| match e.code() {
            Code::NotFound => other("this confirmation is not valid any more"),
            _ => e,
        })?;
        if stored.goal != *goal {
            return Err(other("this confirmation is for something else"));
        }
        let applied = self.apply_plan(env, plan, secret, cancel).await;
        applied.map_err(|e| match e.pointer() {
            Some("/plan_id") => {
                e.field("/confirm").hint("call with dry_run again and look at what it returns")
            }
            _ => e,
        })
    }

    /// Replaces the site's files as a new release; `spa` too where it is given. Header rules and redirects stay.
    ///
    /// # Errors
    /// As [`Releases::apply`], with pointers relative to the files' owner.
    pub async fn deploy(
        &self,
        env: &Env,
        files: BTreeMap<String, FileSpec>,
        spa: Option<bool>,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let before = self.live(env).await?;
        let spa = spa.unwrap_or_else(|| before.is_some_and(|served| served.site.spa));
        let mut site = self.sites.prepare(env, SiteSpec { files, spa, ..SiteSpec::default() }).await?;
        let mut db = self.writer(env, cancel).await?;
        // While the files were stored another release may have come with other rules.
        db.begin(Durability::Normal).await?;
        let current = Release::current(&mut db).await?;
        db.rollback().await?;
        if let Some(before) = current.site {
            site.headers = before.headers;
            site.redirects = before.redirects;
        }
        let goal =
            Goal::Apply { manifest: Box::default(), site: Some(site), functions: None, services: None };
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        self.finish(env, db, rehearsal, cancel).await
    }

    /// Changes how people sign in, as a new release; what is none stays.
    ///
    /// # Errors
    /// As [`Releases::apply`]; `invalid_input` at the field.
    pub async fn configure_auth(
        &self,
        env: &Env,
        change: AuthChange,
        secrets: &[String],
        cancel: &CancellationToken,
    ) -> Result<(Applied, AuthSpec)> {
        let mut db = self.writer(env, cancel).await?;
        db.begin(Durability::Normal).await?;
        let current = Release::current(&mut db).await?;
        db.rollback().await?;
        let auth = current.manifest.auth.unwrap_or_default().with(change).checked()?;
        auth.has_secrets(secrets)?;
        let manifest = Manifest { auth: Some(auth.clone()), ..Manifest::default() };
        let goal = Goal::Apply { manifest: Box::new(manifest), site: None, functions: None, services: None };
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        Ok((self.finish(env, db, rehearsal, cancel).await?, auth))
    }

    /// Returns to an earlier release: its tables and its site. No row written since is lost: what the release
    /// does not know stays beside it, and what cannot be undone without loss is refused. Migrations are not
    /// undone. What it names of secrets that are not among `secrets` is said.
    ///
    /// # Errors
    /// `not_found`; `conflict` where values would be lost.
    pub async fn rollback(
        &self,
        env: &Env,
        release: u64,
        secrets: &[String],
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let mut db = self.writer(env, cancel).await?;
        let rehearsal = self.back(env, &mut db, release, secrets).await?;
        self.finish(env, db, rehearsal, cancel).await
    }

    /// What [`Releases::rollback`] would do; nothing has changed afterwards.
    ///
    /// # Errors
    /// As [`Releases::rollback`].
    pub async fn plan_rollback(
        &self,
        env: &Env,
        release: u64,
        secrets: &[String],
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let mut db = self.writer(env, cancel).await?;
        let rehearsal = self.back(env, &mut db, release, secrets).await?;
        db.rollback().await?;
        Ok(rehearsal.planned())
    }

    async fn back(&self, env: &Env, db: &mut Writer, release: u64, secrets: &[String]) -> Result<Rehearsal> {
        let mut rehearsal = self.observed(env, db, &Goal::Back { release }, "").await?;
        let lacking = entrusting::lacking(&rehearsal.release, secrets);
        let effects = lacking.map(|(name, message)| Effect {
            kind: EffectKind::Privilege,
            target: format!("secret {name}"),
            message,
        });
        rehearsal.effects.extend(effects.collect::<Vec<_>>());
        Ok(rehearsal)
    }

    /// From what has been rehearsed to what answers.
    async fn finish(
        &self,
        env: &Env,
        mut db: Writer,
        rehearsal: Rehearsal,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let (number, changed) = (rehearsal.release.number, rehearsal.changed());
        entrusting::may(env, &rehearsal.entrusted, &mut db).await?;
        rehearsal.told.may(env, &mut db).await?;
        if changed {
            let served = rehearsal.release.served()?;
            // Readers get the new release from here on; the writer is held, so that giving it up loses no write.
            let trial = Live::try_out(&self.live, env.id(), &served);
            let checked = tokio::select! {
                checked = self.tried(env, &served, &rehearsal.domains) => checked,
                () = cancel.cancelled() => {
                    Err(Error::new(Code::Timeout, "the call was cancelled; nothing has changed"))
                }
            };
            if let Err(refusal) = checked {
                db.rollback().await?;
                self.say(env, Level::Error, format!("release {number} was undone: {refusal}"));
                return Err(refusal);
            }
            // Whoever waits for this may go away; what is on disk is what answers all the same.
            let (live, id) = (Arc::clone(&self.live), env.id());
            let (builder, of, now) = (self.builder.clone(), env.clone(), Arc::clone(&served));
            let committed = tokio::spawn(async move {
                let committed = db.commit().await;
                if committed.is_ok() {
                    live.publish(id, Some(served));
                    if let Some(builder) = builder {
                        builder.switched(&of, &now.functions, &now.variables);
                    }
                }
                // Before the writer is free: the next trial is another's.
                drop(trial);
                drop(db);
                committed
            });
            committed.await.map_err(Error::internal)??;
            self.give_up_domains(env, &rehearsal.domains).await;
            self.discard(env, rehearsal.gone);
            self.say(env, Level::Info, format!("release {number} is live"));
        } else {
            db.rollback().await?;
            self.claim(env, &rehearsal.domains).await?;
        }
        let changed = changed || rehearsal.domains.claims();
        let (changes, effects) =
            if changed { (rehearsal.changes, rehearsal.effects) } else { Default::default() };
        Ok(Applied { release: number, changed, changes, effects })
    }

    /// The release that is current.
    async fn current(&self, env: &Env) -> Result<Release> {
        let rows = self.databases.platform_query(env, Release::CURRENT, &[]).await?;
        rows.into_iter().next().map_or(Ok(Release::default()), Release::read)
    }

    /// The right to write; no further statement begins once `cancel` is cancelled.
    async fn writer(&self, env: &Env, cancel: &CancellationToken) -> Result<Writer> {
        let mut db = self.databases.writer(env).await?;
        db.heed(cancel);
        Ok(db)
    }

    fn say(&self, env: &Env, level: Level, message: String) {
        self.logs.append(env, Entry::new(Timestamp::now(), level, Source::Release, message));
    }
}

#[cfg(test)]
mod tests;
