//! Domains that manifests name: claimed with the release that adds them, given up with the one that names them no longer.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result};

use super::change::{Action, Draft, EffectKind};
use super::rehearsal::{Goal, Release};
use super::{Releases, Served};
use crate::domains::Domains;
use crate::logs::Level;

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
            let words = "the app answers there once domain_check has found its proof";
            draft.change(Action::Create, format!("domain {domain}"), Some(words.to_owned()));
        }
        for domain in &self.removed {
            let target = format!("domain {domain}");
            draft.effect(EffectKind::Privilege, &target, "the app does not answer there any more");
            draft.change(Action::Drop, target, None);
        }
    }
}

impl Releases {
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
        match &self.domains {
            Some(domains) => domains.claim_all(env, &moved.added).await.map_err(|e| e.under("/domains")),
            None => Ok(()),
        }
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
