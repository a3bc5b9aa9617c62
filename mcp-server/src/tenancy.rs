//! What becomes of all that a tenant has when its state changes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capabilities::releases::Served;
use control::{EnvState, Tenant};
use kernel::{Env, EnvId, Error, Result, TenantId, Timestamp};

use crate::platform::Platform;

/// How long files are left to the gateway that has them, until they are nobody's.
const NOBODYS: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known here of tenants that are not active.
#[derive(Debug, Default)]
pub struct Lives {
    /// Environments that could not be used when they were last looked at.
    closed: Mutex<HashSet<EnvId>>,
    /// One tenant is removed at a time.
    removing: tokio::sync::Mutex<()>,
}

/// What a tenant, or one of its environments, has used.
#[derive(Debug)]
pub struct Used {
    /// Calls of tools and routes, from the hour on in which the time is.
    pub calls: Vec<control::Usage>,
    /// Requests to models.
    pub model: store::Statement,
}

impl Platform {
    /// What was used since then.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn used(&self, tenant: TenantId, env: Option<EnvId>, since: Timestamp) -> Result<Used> {
        self.control.ledger().flush(tenant).await?;
        let store = self.control.store();
        let calls = store.records().usage(tenant, env, since).await?;
        let model = store.model_calls().statement(tenant, env, since, Timestamp::now()).await?;
        Ok(Used { calls, model })
    }

    /// Has what always runs of an environment's live release do so from here on; gives that release.
    ///
    /// # Errors
    /// Where the release cannot be read.
    pub async fn take_up(&self, env: &Env) -> Result<Option<Arc<Served>>> {
        let live = self.releases.live(env).await?;
        if let Some(live) = &live {
            self.functions.keep(env, &live.functions, &live.variables);
        }
        Ok(live)
    }

    /// Ends functions, services and connections of environments that are not ready: their tenant is not active, or they are gone.
    /// Sandboxes are nobody's then, and end as those do.
    pub async fn close_what_is_not_ready(&self) {
        let mut running = self.functions.environments();
        running.extend(self.realtime.environments());
        for env in running {
            let ended = async {
                if self.control.environments().find(&env.to_string()).await?.is_none() {
                    // It may be open again before anybody looks which ones are closed.
                    self.look_again(env);
                    self.realtime.forget(env);
                    self.functions.rest(env).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = ended.await {
                tracing::warn!(env.id = %env, error = error.chain(), "what runs of an environment that is closed could not be ended");
            }
        }
    }

    /// The environments of this gateway that could not be used when this was last asked, and can be again.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn opened(&self) -> Result<Vec<Env>> {
        let suspended: HashSet<EnvId> = self.control.environments().suspended().await?.into_iter().collect();
        let before = {
            let mut closed = self.lives.closed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *closed, suspended.clone())
        };
        let mut opened = Vec::new();
        for env in before.difference(&suspended) {
            if !self.environments_dir.join(env.to_string()).is_dir() {
                continue;
            }
            match self.control.environments().find(&env.to_string()).await {
                Ok(Some(place)) => opened.push(Env::for_upkeep(place.tenant, place.env)),
                // It was closed again meanwhile, or is not known now: it is looked at the next time.
                Ok(None) => self.look_again(*env),
                Err(error) => {
                    self.look_again(*env);
                    tracing::warn!(env.id = %env, error = error.chain(), "it is not known whether an environment is open");
                }
            }
        }
        Ok(opened)
    }

    /// Has an environment be among those of [`Platform::opened`] when it can be used: what was to run of it does not.
    pub fn look_again(&self, env: EnvId) {
        self.lives.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(env);
    }

    /// Removes the deleted tenants whose time of grace is over, with all that is theirs. What could not be removed is tried again
    /// the next time, and stands in no other's way.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn purge_tenants(&self) -> Result<()> {
        for tenant in self.control.tenants().due().await? {
            if let Err(error) = self.purge_tenant(&tenant).await {
                tracing::error!(tenant.id = %tenant.id, error = error.chain(), "a deleted tenant could not be removed");
            }
        }
        Ok(())
    }

    /// Removes one of them; `false` where it is not to be removed any more, or has something that is another gateway's to
    /// remove, which has its files.
    ///
    /// # Errors
    /// The first that kept something from being removed.
    pub async fn purge_tenant(&self, tenant: &Tenant) -> Result<bool> {
        let _turn = self.lives.removing.lock().await;
        let (tenants, mut after, mut failed) = (self.control.tenants(), None, None);
        let is_old = tenant.purge.is_some_and(|purge| purge.plus(NOBODYS) <= Timestamp::now());
        loop {
            let page = tenants.environments(tenant.id, after).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for environment in page {
                let id = environment.id;
                let is_here = self.environments_dir.join(id.to_string()).is_dir();
                if !is_here && !is_old && matches!(environment.state, EnvState::Ready | EnvState::Suspended) {
                    continue;
                }
                let Some(doomed) = self.control.environments().doom(environment).await? else {
                    return Ok(false);
                };
                if let Err(error) = self.remove_environment(&doomed).await {
                    tracing::error!(env.id = %id, error = error.chain(), "a deleted environment could not be removed");
                    failed.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let removed = tenants.remove(tenant.id).await?;
        if removed {
            tracing::info!(tenant.id = %tenant.id, "a deleted tenant is removed for good");
        }
        Ok(removed)
    }
}
