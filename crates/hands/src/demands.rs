//! How strongly sandboxes must be kept apart at least.

use std::collections::BTreeMap;

use kernel::{Code, Env, EnvId, Error, Result, TenantId};
use sandbox::local::{Local, Verdict};
use sandbox::runner::Isolation;
use store::Workspace;

use crate::{Hands, Inner};

/// The least isolation of all sandboxes, and of those of some tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// Of all; any will do where none is said.
    pub all: Option<Isolation>,
    /// Of these tenants, where it is more than that of all.
    pub of: BTreeMap<TenantId, Isolation>,
}

impl Demands {
    /// Of `there`, the weakest that is good enough for the tenant, and for what is demanded of this sandbox alone.
    ///
    /// # Errors
    /// `unavailable`: nothing weaker is taken in its place.
    fn choose(&self, tenant: TenantId, own: Option<Isolation>, there: &[Isolation]) -> Result<Isolation> {
        let least = self.least(tenant).max(own);
        let of = if own > self.least(tenant) { "this sandbox" } else { "sandboxes of this tenant" };
        let enough = there.iter().copied().filter(|level| least.is_none_or(|least| *level >= least)).min();
        enough.ok_or_else(|| {
            let name = |level: Option<Isolation>| level.map_or("nothing", Isolation::as_str);
            let (least, most) = (name(least), name(there.iter().copied().max()));
            Error::new(
                Code::Unavailable,
                format!("{of} must be kept apart by {least} at least, and here they are by {most}"),
            )
            .hint("the operator sees with `steading doctor` what this machine has, and demands it in sandbox.isolation")
        })
    }

    fn least(&self, tenant: TenantId) -> Option<Isolation> {
        self.all.max(self.of.get(&tenant).copied())
    }

    /// Whether sandboxes of somebody must be kept apart like `level`, or by more than anything weaker gives.
    #[must_use]
    pub fn reach(&self, level: Isolation, weaker: Isolation) -> bool {
        self.all.iter().chain(self.of.values()).any(|least| *least > weaker && *least <= level)
    }
}

impl Hands {
    /// The least that is demanded of a workspace's sandbox by whoever made it and by its environment.
    ///
    /// # Errors
    /// `unavailable` where this version does not know it.
    pub async fn least_isolation(&self, workspace: &Workspace) -> Result<Option<Isolation>> {
        self.0.demanded(workspace).await
    }

    /// Whether what runs for an environment may run where it is kept apart by `isolation`.
    ///
    /// # Errors
    /// `unavailable` where more is demanded.
    pub async fn admits(&self, env: &Env, isolation: Isolation) -> Result<()> {
        let own = self.0.demanded_of(env.id(), None).await?;
        self.0.limits.isolation.choose(env.tenant(), own, &[isolation]).map(drop)
    }

    /// Demands of all sandboxes of an environment that they are kept apart by `least` at least, or takes that back. What
    /// runs and is kept apart by less ends.
    ///
    /// # Errors
    /// `unavailable` at `/isolation` where this machine does not do that, and `not_found` where there is no such
    /// environment; then nothing is demanded.
    pub async fn demand(&self, env: &Env, least: Option<Isolation>) -> Result<()> {
        let inner = &self.0;
        if let Some(least) = least {
            let chosen = inner.limits.isolation.choose(env.tenant(), Some(least), &Local::LEVELS);
            inner.can_meet(chosen.map_err(|error| error.field("/isolation"))?).await?;
        }
        if !inner.store.demands().set(env.id(), least.map(Isolation::as_str)).await? {
            return Err(Error::not_found(format!("environment \"{}\"", env.id())));
        }
        // Whoever makes one from here on knows of it.
        let mut outcome = Ok(());
        for workspace in inner.store.workspaces().list(env.id()).await? {
            let Some(slot) = inner.slots().get(&workspace.id).cloned() else { continue };
            let mut held = slot.lock().await;
            if held.as_ref().is_some_and(|awake| Some(awake.isolation) < least) {
                // One that does not end keeps no other from it.
                outcome = outcome.and(inner.end(&slot, &mut held).await);
            }
        }
        outcome
    }
}

impl Inner {
    /// What keeps the sandboxes of a workspace apart.
    ///
    /// # Errors
    /// `unavailable` where what is demanded is not made here, at `/isolation` where that is its own or its environment's.
    pub(crate) async fn isolation_of(&self, workspace: &Workspace) -> Result<Isolation> {
        let demands = &self.limits.isolation;
        let Some(own) = self.demanded(workspace).await? else {
            return demands.choose(workspace.tenant, None, &Local::LEVELS);
        };
        let chosen = demands.choose(workspace.tenant, Some(own), &Local::LEVELS);
        chosen.map_err(|error| if Local::LEVELS.contains(&own) { error } else { error.field("/isolation") })
    }

    /// The least that is demanded of a workspace's sandbox by whoever made it and by its environment.
    async fn demanded(&self, workspace: &Workspace) -> Result<Option<Isolation>> {
        self.demanded_of(workspace.env, workspace.isolation.as_deref()).await
    }

    async fn demanded_of(&self, env: EnvId, own: Option<&str>) -> Result<Option<Isolation>> {
        let of_env = self.store.demands().get(env).await?;
        let all = [of_env.as_deref(), own].into_iter().flatten();
        let levels = all.map(|name| {
            Isolation::from_name(name).ok_or_else(|| {
                let message = format!("this version keeps no sandbox apart by \"{name}\"");
                Error::new(Code::Unavailable, message)
                    .hint("start the version of Steading that this was demanded of")
            })
        });
        Ok(levels.collect::<Result<Vec<_>>>()?.into_iter().max())
    }

    /// Refuses a demand that this machine does not meet, before anything is made for it.
    ///
    /// # Errors
    /// `unavailable` at `/isolation`.
    pub(crate) async fn can_meet(&self, demanded: Isolation) -> Result<()> {
        if demanded != Isolation::Gvisor {
            return Ok(());
        }
        // A machine that has made one makes another; whoever finds none looks again.
        let tried = async {
            let findings = self.local.probe_gvisor().await?;
            let failed = findings.into_iter().find_map(|finding| match finding.verdict {
                Verdict::Fails { why, .. } => Some(why),
                _ => None,
            });
            let Some(why) = failed else { return Ok(()) };
            Err(Error::new(Code::Unavailable, "this machine makes no sandbox that is kept apart by gvisor")
                .hint("the operator sees with `steading doctor` what it needs; nothing was made")
                .field("/isolation")
                .source(why))
        };
        self.has_gvisor.get_or_try_init(|| tried).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_demand_holds_and_only_for_whom_it_is_made() {
        let [strict, lax] = [TenantId::new(), TenantId::new()];
        let of = |strict, least| BTreeMap::from([(strict, least)]);
        let demands = Demands { all: None, of: of(strict, Isolation::Gvisor) };
        for there in Isolation::ALL {
            let chosen = demands.choose(strict, None, &[there]).ok();
            assert_eq!(chosen, (there >= Isolation::Gvisor).then_some(there));
            assert_eq!(demands.choose(lax, None, &[there]).unwrap(), there);
            let own = demands.choose(lax, Some(Isolation::Gvisor), &[there]).ok();
            assert_eq!(own, chosen);
        }
        let both = [Isolation::Gvisor, Isolation::Namespaces];
        assert_eq!(demands.choose(strict, None, &both).unwrap(), Isolation::Gvisor);
        assert_eq!(demands.choose(lax, None, &both).unwrap(), Isolation::Namespaces);
        assert!(demands.choose(lax, None, &[]).is_err());
        // Nobody gets less by demanding less.
        assert_eq!(demands.choose(strict, Some(Isolation::Namespaces), &both).unwrap(), Isolation::Gvisor);
        let refused = demands.choose(lax, Some(Isolation::Microvm), &both).unwrap_err();
        assert_eq!(
            refused.message(),
            "this sandbox must be kept apart by microvm at least, and here they are by gvisor"
        );
        assert!(demands.reach(Isolation::Gvisor, Isolation::Namespaces));
        assert!(!Demands::default().reach(Isolation::Gvisor, Isolation::Namespaces));
        let demands = Demands { all: Some(Isolation::Gvisor), of: of(lax, Isolation::Namespaces) };
        let refused = demands.choose(lax, None, &[Isolation::Namespaces]).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert_eq!(
            refused.message(),
            "sandboxes of this tenant must be kept apart by gvisor at least, and here they are by namespaces"
        );
    }
}
