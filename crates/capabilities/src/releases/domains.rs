//! Domains that manifests name: claimed with the release that adds them, given up with the one that names them no longer.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::{Code, Env, EnvId, Error, Result};

use super::change::{Action, Change, Draft, Effect, EffectKind};
use super::goal::Goal;
use super::rehearsal::{Rehearsal, Release, rehearse};
use super::{Releases, Served};
use crate::database::{self, Writer};
use crate::domains::Domains;
use crate::logs::Level;

/// What a plan says of a domain that comes.
fn claimed(domain: &str) -> Change {
    let words = "the app answers there once domain_check has found its proof";
    Change { action: Action::Create, target: format!("domain {domain}"), detail: Some(words.to_owned()) }
}

/// How many environments a branch of a branch is looked up through.
const DEEPEST: usize = 16;

/// What is said of a domain that a release names and nobody has claimed.
fn unclaimed(domain: &str) -> Effect {
    Effect {
        kind: EffectKind::Privilege,
        target: format!("domain {domain}"),
        message: "it has been given up since, and is not claimed by this: domain_set does it".to_owned(),
    }
}

/// The domains that an environment has claimed.
async fn held(domains: &Domains, env: &Env) -> Result<HashSet<String>> {
    Ok(domains.list(env).await?.into_iter().map(|it| it.domain).collect())
}

/// What comes and what goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    added: Vec<String>,
    removed: Vec<String>,
}

impl Moved {
    /// What moves between two releases. Going back to one moves no domain: visitors keep their address.
    pub(crate) fn by(goal: &Goal, base: &Release, release: &Release) -> Self {
        if matches!(goal, Goal::Back { .. }) {
            return Self::default();
        }
        let of = |release: &Release| release.manifest.domains.clone().unwrap_or_default();
        let (before, after) = (of(base), of(release));
        Self {
            added: after.iter().filter(|name| !before.contains(name)).cloned().collect(),
            removed: before.iter().filter(|name| !after.contains(name)).cloned().collect(),
        }
    }

    /// Says so in a plan.
    pub(crate) fn draft(&self, draft: &mut Draft) {
        for domain in &self.added {
            draft.changes.push(claimed(domain));
        }
        for domain in &self.removed {
            let target = format!("domain {domain}");
            draft.effect(EffectKind::Privilege, &target, "the app does not answer there any more");
            draft.change(Action::Drop, target, None);
        }
    }
}

impl Moved {
    /// Whether anything is claimed.
    pub(super) fn claims(&self) -> bool {
        !self.added.is_empty()
    }
}

impl Releases {
    /// What [`rehearse`] does, and what of its domains is to be claimed and given up.
    ///
    /// # Errors
    /// As there; the domains cannot be read.
    pub(super) async fn observed(
        &self,
        env: &Env,
        db: &mut Writer,
        goal: &Goal,
        note: &str,
    ) -> Result<Rehearsal> {
        let mut rehearsal = rehearse(db, goal, note).await?;
        let observed = self.observe_domains(env, goal, &mut rehearsal).await;
        if observed.is_err() {
            db.rollback().await?;
        }
        observed.map(|()| rehearsal)
    }

    /// Holds what moves against what the environment and those that it is a branch of have claimed. What a manifest names
    /// and nobody of them holds is claimed, though the release before names it too: the moment that was returned to knew
    /// it, and it had been given up since. What is theirs stays with them.
    async fn observe_domains(&self, env: &Env, goal: &Goal, rehearsal: &mut Rehearsal) -> Result<()> {
        let Some(domains) = &self.domains else { return Ok(()) };
        let Rehearsal { domains: moved, changes, effects, release, .. } = rehearsal;
        let named = release.manifest.domains.as_deref().unwrap_or_default();
        if named.is_empty() && moved.removed.is_empty() {
            return Ok(());
        }
        let held = held(domains, env).await?;
        let above = self.held_above(env, domains).await?;
        moved.added.retain(|name| held.contains(name) || !above.contains(name));
        for change in changes.iter_mut() {
            let name = change.target.strip_prefix("domain ").map(str::to_owned);
            if name.is_some_and(|name| change.action == Action::Create && !moved.added.contains(&name)) {
                change.action = Action::Alter;
                change.detail = Some("it stays with the environment that this is a branch of".to_owned());
            }
        }
        moved.removed.retain(|name| {
            let is_held = held.contains(name);
            let target = format!("domain {name}");
            effects.retain(|effect| is_held || effect.target != target);
            is_held
        });
        for name in named {
            if held.contains(name) || above.contains(name) {
                continue;
            }
            match goal {
                Goal::Apply { manifest, .. } if manifest.domains.is_some() && !moved.added.contains(name) => {
                    moved.added.push(name.clone());
                    changes.push(claimed(name));
                }
                Goal::Back { .. } => effects.push(unclaimed(name)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Which of the domains that the live release names are claimed neither by the environment nor by one that it is a
    /// branch of.
    ///
    /// # Errors
    /// The databases cannot be read.
    pub async fn unclaimed_now(&self, env: &Env) -> Result<Vec<String>> {
        let current = self.databases.platform_query(env, Release::CURRENT, &[]).await?;
        let live = current.into_iter().next().map(Release::read).transpose()?;
        self.unclaimed(env, live.and_then(|live| live.manifest.domains).unwrap_or_default()).await
    }

    /// Which of the domains that a manifest names are claimed neither by the environment nor by one that it is a branch of.
    ///
    /// # Errors
    /// The databases cannot be read.
    pub(crate) async fn unclaimed(&self, env: &Env, named: Vec<String>) -> Result<Vec<String>> {
        let Some(domains) = self.domains.as_ref().filter(|_| !named.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut claimed = held(domains, env).await?;
        claimed.extend(self.held_above(env, domains).await?);
        Ok(named.into_iter().filter(|name| !claimed.contains(name)).collect())
    }

    /// The environments that this one is a branch of, the nearest first.
    async fn above(&self, env: &Env) -> Result<Vec<Env>> {
        let sql = "SELECT json_extract(value, '$.parent') FROM _steading_state WHERE key = 'branch'";
        let mut above: Vec<Env> = Vec::new();
        while above.len() < DEEPEST {
            let rows = match self.databases.platform_query(above.last().unwrap_or(env), sql, &[]).await {
                Ok(rows) => rows,
                // One that is removed leaves its domains to whoever proves them.
                Err(database::Error::Unknown(_)) => break,
                Err(error) => return Err(error.into()),
            };
            let parent = rows.first().and_then(|row| row.first()?.as_str()?.parse().ok());
            let Some(parent) = parent else { break };
            above.push(Env::for_upkeep(env.tenant(), parent));
        }
        Ok(above)
    }

    async fn held_above(&self, env: &Env, domains: &Domains) -> Result<HashSet<String>> {
        let mut names = HashSet::new();
        for env in self.above(env).await? {
            names.extend(held(domains, &env).await?);
        }
        Ok(names)
    }

    /// Claims what comes, where no release does.
    pub(super) async fn claim(&self, env: &Env, moved: &Moved) -> Result<()> {
        match &self.domains {
            Some(domains) => domains.claim_all(env, &moved.added).await.map_err(|e| e.under("/domains")),
            None => Ok(()),
        }
    }

    /// The same, with domains that manifests may name.
    #[must_use]
    pub fn with_domains(self, domains: Arc<Domains>) -> Self {
        Self { domains: Some(domains), ..self }
    }

    /// A manifest's domains in their one form, where the environment could claim them, or one has that it is a branch of.
    pub(super) async fn claimable(
        &self,
        env: &Env,
        names: Option<Vec<String>>,
    ) -> Result<Option<Vec<String>>> {
        let Some(names) = names else { return Ok(None) };
        let Some(domains) = &self.domains else {
            return Err(Error::invalid("/domains", "this platform takes no domains"));
        };
        let above: Vec<EnvId> = self.above(env).await?.iter().map(Env::id).collect();
        domains.could_claim(env, &names, &above).await.map(Some).map_err(|e| e.under("/domains"))
    }

    /// Tries a release that is about to be live, and then claims what it adds. A claim by itself opens nothing, so that
    /// one which outlives a failure after it does no harm.
    pub(super) async fn tried(&self, env: &Env, served: &Served, moved: &Moved) -> Result<()> {
        self.check.check(env, served).await?;
        self.claim(env, moved).await
    }

    /// Gives up what the release that is live names no longer. What fails is said; the release stays.
    pub(super) async fn give_up_domains(&self, env: &Env, moved: &Moved) {
        let Some(domains) = &self.domains else { return };
        for text in &moved.removed {
            let gone = async { domains.remove(env, &domains.name(text)?).await }.await;
            if let Err(error) = gone.or_else(|e| if e.code() == Code::NotFound { Ok(()) } else { Err(e) }) {
                tracing::warn!(env.id = %env.id(), domain = text, error = error.chain(), "a domain could not be given up");
                self.say(
                    env,
                    Level::Warn,
                    format!("the domain {text} could not be given up: resource_delete does it"),
                );
            }
        }
    }
}
