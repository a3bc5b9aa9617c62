//! Domains that manifests name: claimed with the release that adds them, given up with the one that names them no longer.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result};

use super::change::{Action, Change, Draft, EffectKind};
use super::rehearsal::{Goal, Rehearsal, Release};
use super::{Releases, Served};
use crate::domains::Domains;
use crate::logs::Level;

/// What a plan says of a domain that comes.
fn claimed(domain: &str) -> Change {
    let words = "the app answers there once domain_check has found its proof";
    Change { action: Action::Create, target: format!("domain {domain}"), detail: Some(words.to_owned()) }
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
    /// Adds what a manifest names and the environment does not hold, though the release before names it too: the moment
    /// that was returned to knew it, and it had been given up since.
    pub(super) async fn observe_domains(
        &self,
        env: &Env,
        goal: &Goal,
        rehearsal: &mut Rehearsal,
    ) -> Result<()> {
        let (Some(domains), Goal::Apply { manifest, .. }) = (&self.domains, goal) else { return Ok(()) };
        let named = manifest.domains.as_deref().unwrap_or_default();
        if named.is_empty() {
            return Ok(());
        }
        let held = domains.list(env).await?;
        for name in named {
            if !rehearsal.domains.added.contains(name) && !held.iter().any(|it| it.domain == *name) {
                rehearsal.domains.added.push(name.clone());
                rehearsal.changes.push(claimed(name));
            }
        }
        Ok(())
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

    /// A manifest's domains in their one form, where the environment could claim them.
    pub(super) async fn claimable(
        &self,
        env: &Env,
        names: Option<Vec<String>>,
    ) -> Result<Option<Vec<String>>> {
        let Some(names) = names else { return Ok(None) };
        let Some(domains) = &self.domains else {
            return Err(Error::invalid("/domains", "this platform takes no domains"));
        };
        domains.could_claim(env, &names).await.map(Some).map_err(|e| e.under("/domains"))
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
