//! Turns of tenants: each tenant has one at a time, and waits for nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::TenantId;
use tokio::sync::OwnedMutexGuard;

/// Who has a turn, and who waits for one.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// The tenant's next turn, until what this returns goes.
    pub async fn of(&self, tenant: TenantId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(all.entry(tenant).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_tenant_waits_for_its_own_turn_alone() {
        let (turns, [one, other]) = (Turns::default(), [TenantId::new(), TenantId::new()]);
        let first = turns.of(one).await;
        assert!(turns.of(one).now_or_never().is_none());
        let _other = turns.of(other).now_or_never().unwrap();
        drop(first);
        assert!(turns.of(one).now_or_never().is_some());
    }
}
