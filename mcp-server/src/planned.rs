//! What environments may have, by their plans.

use std::sync::Arc;

use capabilities::quotas::{Quota, Quotas};
use control::Control;
use futures::future::BoxFuture;
use kernel::EnvId;

/// Asks the control plane.
pub struct PlannedQuotas(pub Arc<Control>);

impl Quotas for PlannedQuotas {
    fn version(&self) -> u64 {
        self.0.plans().version()
    }

    fn of(&self, env: EnvId) -> BoxFuture<'_, Option<Quota>> {
        Box::pin(async move {
            let place = self.0.environments().find(&env.to_string()).await;
            let place = place.inspect_err(|error| {
                tracing::warn!(env.id = %env, error = error.chain(), "what an environment may have is not known now");
            });
            let place = place.ok()??;
            let bounds = self.0.plans().of(place.tenant, Some(env)).environment;
            Some(Quota { database_bytes: bounds.database_bytes, files_bytes: bounds.files_bytes })
        })
    }
}
