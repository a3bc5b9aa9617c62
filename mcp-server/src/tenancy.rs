//! What becomes of all that a tenant has when its state changes.

use std::sync::Arc;

use capabilities::releases::Served;
use control::{Tenant, TenantState};
use kernel::{Env, Error, Result, TenantId};

use crate::platform::Platform;

impl Platform {
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

    /// To be called when a tenant's state has changed: what runs for it ends, or what always does begins again.
    pub async fn tenant_changed(&self, tenant: &Tenant) {
        match tenant.state {
            TenantState::Active => self.take_up_tenant(tenant.id).await,
            TenantState::Suspended | TenantState::Deleted => self.stop_what_is_suspended().await,
        }
    }

    async fn take_up_tenant(&self, tenant: TenantId) {
        let mut after = None;
        loop {
            let page = match self.control.tenants().environments(tenant, after).await {
                Ok(page) => page,
                Err(error) => {
                    return tracing::warn!(tenant.id = %tenant, error = error.chain(), "a tenant's environments could not be listed");
                }
            };
            let Some(last) = page.last() else { return };
            after = Some(last.id);
            for environment in page {
                let env = Env::for_upkeep(environment.tenant, environment.id);
                if let Err(error) = self.take_up(&env).await {
                    tracing::warn!(env.id = %env.id(), error = error.chain(), "the services of an app could not be started");
                }
            }
        }
    }

    /// Ends functions, services and connections of environments that cannot be used, for their tenant is not active. Sandboxes
    /// are nobody's then, and end as those do.
    pub async fn stop_what_is_suspended(&self) {
        let mut running = self.functions.environments();
        running.extend(self.realtime.environments());
        for env in running {
            let ended = async {
                if self.control.environments().is_suspended(&env.to_string()).await? {
                    self.realtime.forget(env);
                    self.functions.rest(env).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = ended.await {
                tracing::warn!(env.id = %env, error = error.chain(), "what runs of a suspended tenant could not be ended");
            }
        }
    }

    /// Removes the deleted tenants whose time of grace is over, with all that is theirs.
    ///
    /// # Errors
    /// Where the control plane fails. What could not be removed is tried again the next time.
    pub async fn purge_tenants(&self) -> Result<()> {
        let tenants = self.control.tenants();
        for tenant in tenants.due().await? {
            let mut left = tenants.environments(tenant.id, None).await?;
            while let Some(environment) = left.pop() {
                let doomed = self.control.environments().doom(environment).await?;
                self.remove_environment(&doomed).await?;
                if left.is_empty() {
                    left = tenants.environments(tenant.id, None).await?;
                }
            }
            if tenants.remove(tenant.id).await? {
                tracing::info!(tenant.id = %tenant.id, "a deleted tenant is removed for good");
            }
        }
        Ok(())
    }
}
