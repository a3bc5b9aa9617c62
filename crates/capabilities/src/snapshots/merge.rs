//! A branch's app back in the environment that it is a branch of. Its rows stay where they are.

use kernel::{Code, Env, EnvId, Error, PlanId, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::branch::{Base, MergedOnce, Origin, STATE};
use super::{Snapshots, contents};
use crate::database::{Durability, Role};
use crate::releases::merge::{MIGRATIONS, Merged, Sides};
use crate::releases::{Applied, Plan, past};

/// How many merges of a branch are kept in mind, for a parent that goes back to before some of them.
const MERGES: usize = 5;

/// What a merge would do.
#[derive(Debug)]
pub struct Merging {
    /// What both sides have changed, each differently: nothing can be done before one of them gives in.
    pub conflicts: Vec<String>,
    /// What would be done, where nothing is in conflict.
    pub plan: Option<Plan>,
}

impl Snapshots {
    /// What it would do to `env` to take in the app of `branch`. `secrets` are the names of those that are set in `env`.
    ///
    /// # Errors
    /// `conflict` where it is not a branch of `env`; why the app cannot be applied.
    pub async fn plan_merge(&self, env: &Env, branch: &Env, secrets: &[String]) -> Result<Merging> {
        let (_, merged) = self.merged(env, branch, secrets).await?;
        if !merged.conflicts.is_empty() {
            return Ok(Merging { conflicts: merged.conflicts, plan: None });
        }
        // What is brought is not needed by anything yet.
        let _turn = self.0.turn(env.id()).await;
        self.bring(env, branch, &merged).await?;
        let plan = self.0.releases.plan_merged(env, merged).await?;
        Ok(Merging { conflicts: Vec::new(), plan: Some(plan) })
    }

    /// Takes the app of `branch` into `env`; `confirm` is the plan's [`Plan::confirmation`].
    ///
    /// # Errors
    /// As [`Snapshots::plan_merge`]; `conflict` naming what both sides have changed, or where something has moved since
    /// the plan. Nothing has changed then.
    pub async fn merge(
        &self,
        env: &Env,
        branch: &Env,
        secrets: &[String],
        confirm: &str,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        let (origin, merged) = self.merged(env, branch, secrets).await?;
        if !merged.conflicts.is_empty() {
            return Err(conflict(&merged.conflicts));
        }
        // What is brought, or was here and needed by nothing, must not be collected before it is needed.
        let _turn = self.0.turn(env.id()).await;
        self.bring(env, branch, &merged).await?;
        let applied = self.0.releases.apply_merged(env, &merged, confirm, cancel).await?;
        // What is here now is what the next merge begins with. Where that cannot be noted, both sides are equal in it,
        // which is no conflict.
        self.note(env, branch, &origin).await?;
        Ok(applied)
    }

    /// Both sides as one, and what they have in common after that.
    async fn merged(&self, env: &Env, branch: &Env, secrets: &[String]) -> Result<(Origin, Merged)> {
        let databases = &self.0.databases;
        let text = self.kept(branch, STATE).await?;
        let origin: Option<Origin> =
            text.as_deref().map(serde_json::from_str).transpose().map_err(Error::internal)?;
        let mut origin = origin.filter(|origin| origin.parent == env.id()).ok_or_else(|| {
            Error::new(Code::Conflict, "that is not a branch of this environment")
                .field("/from")
                .hint("make one with env_branch, or take the app over with app_apply")
        })?;
        let current = databases.platform_query(branch, past::CURRENT, &[]).await?.into_iter().next();
        let part = |at: usize| -> Result<Value> {
            let text = current.as_ref().and_then(|row| row.get(at)?.as_str()).unwrap_or("null");
            serde_json::from_str(text).map_err(Error::internal)
        };
        let release = current.as_ref().and_then(|row| row.first()?.as_u64()).unwrap_or_default();
        let theirs = [part(1)?, part(2)?, part(3)?];
        let ran = databases.platform_query(branch, MIGRATIONS, &[]).await?;
        let words = |row: &Vec<Value>| [0, 1, 2].map(|at| row[at].as_str().unwrap_or_default().to_owned());
        let mark = self.kept(env, &mark_of(branch.id())).await?;
        // A parent that went back has the mark of an earlier merge, or none; where the branch did, it has one that the branch
        // does not know. Marks of later merges are greater.
        let at = origin.merged.iter().rposition(|merge| Some(&merge.mark) <= mark.as_ref());
        origin.merged.truncate(at.map_or(0, |at| at + 1));
        let base = origin.merged.last().map_or(&origin.base, |merge| &merge.base).clone();
        let sides = Sides {
            base: [base.manifest, base.site, base.functions],
            theirs: theirs.clone(),
            migrations: ran.iter().map(words).collect(),
        };
        let [manifest, site, functions] = theirs;
        let base = Base { release, manifest, site, functions };
        origin.merged.push(MergedOnce { mark: PlanId::new().to_string(), base });
        let too_many = origin.merged.len().saturating_sub(MERGES);
        origin.merged.drain(..too_many);
        Ok((origin, self.0.releases.merge(env, sides, secrets).await?))
    }

    /// Puts the blobs in place that the merged site and functions need and the branch has.
    async fn bring(&self, env: &Env, branch: &Env, merged: &Merged) -> Result<()> {
        let here = self.0.environment(env.id()).join("blobs");
        let there = self.0.environment(branch.id()).join("blobs");
        contents::blobs(there, here, merged.blobs().into_iter().collect()).await
    }

    async fn kept(&self, env: &Env, key: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM _steading_state WHERE key = ?1";
        let found = self.0.databases.platform_query(env, sql, &[json!(key)]).await?;
        Ok(found.first().and_then(|row| row.first()?.as_str()).map(str::to_owned))
    }

    async fn note(&self, env: &Env, branch: &Env, origin: &Origin) -> Result<()> {
        let text = serde_json::to_string(origin).map_err(Error::internal)?;
        let mark = origin.merged.last().map(|merge| &merge.mark);
        for (env, key, value) in
            [(env, mark_of(branch.id()), json!(mark)), (branch, STATE.to_owned(), json!(text))]
        {
            let mut db = self.0.databases.writer(env).await?;
            db.begin(Durability::Normal).await?;
            let sql = "INSERT INTO _steading_state (key, value) VALUES (?1, ?2) \
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            db.run(Role::Platform, sql, &[json!(key), value]).await?;
            db.commit().await?;
        }
        Ok(())
    }
}

/// Where a parent keeps the mark of a branch's last merge.
fn mark_of(branch: EnvId) -> String {
    format!("merged:{branch}")
}

fn conflict(conflicts: &[String]) -> Error {
    let mut named: Vec<_> = conflicts.iter().take(20).cloned().collect();
    if conflicts.len() > named.len() {
        named.push(format!("and {} more", conflicts.len() - named.len()));
    }
    Error::new(Code::Conflict, format!("both sides have changed the same: {}", named.join("; ")))
        .field("/from")
        .hint("make these parts alike with app_apply on one of the sides, then merge again")
}
