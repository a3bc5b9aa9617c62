//! What tells the clock that schedules of environments may be others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Env, EnvId};
use tokio::sync::Notify;

/// Rung for environments. Clones are the same one.
#[derive(Clone, Default)]
pub struct Bell(Arc<Rung>);

#[derive(Default)]
struct Rung {
    envs: Mutex<HashMap<EnvId, Env>>,
    rang: Notify,
}

impl Bell {
    /// Has the clock look at an environment's schedules.
    pub fn ring(&self, env: &Env) {
        self.0.envs.lock().unwrap_or_else(PoisonError::into_inner).insert(env.id(), env.clone());
        self.0.rang.notify_one();
    }

    /// The environments that it was rung for since this was asked.
    pub(super) fn rung(&self) -> Vec<Env> {
        let mut envs = self.0.envs.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *envs).into_values().collect()
    }

    /// Comes when it is rung, or was since this came last.
    pub(super) async fn heard(&self) {
        self.0.rang.notified().await;
    }
}
