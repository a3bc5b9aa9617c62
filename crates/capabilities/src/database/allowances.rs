//! The bounds of each environment's database: those of all, and what is its own of them.

use std::sync::{Arc, Mutex, PoisonError};

use kernel::EnvId;

use super::limits::{Limits, pages};
use crate::quotas::{Quota, Quotas};

/// Who says what holds for an environment.
pub(super) struct Allowances {
    usual: Arc<Limits>,
    quotas: Option<Arc<dyn Quotas>>,
}

/// What was said last of one environment, and which answer that was.
pub(super) struct Allowed(Mutex<(u64, Arc<Limits>)>);

impl Allowances {
    pub fn new(usual: Limits, quotas: Option<Arc<dyn Quotas>>) -> Self {
        Self { usual: Arc::new(usual), quotas }
    }

    /// What holds where nothing else is said.
    pub fn usual(&self) -> &Arc<Limits> {
        &self.usual
    }

    /// Of an environment that nobody has asked for yet.
    pub fn unasked(&self) -> Allowed {
        Allowed(Mutex::new((0, Arc::clone(&self.usual))))
    }

    /// What an environment may have beside what is usual.
    pub async fn quota(&self, env: EnvId) -> Quota {
        match &self.quotas {
            Some(quotas) => quotas.of(env).await.unwrap_or_default(),
            None => Quota::default(),
        }
    }

    /// What holds for an environment now.
    pub async fn of(&self, env: EnvId, said: &Allowed) -> Arc<Limits> {
        let Some(quotas) = &self.quotas else { return Arc::clone(&self.usual) };
        let version = quotas.version();
        let (known, last) = said.last();
        if known == version {
            return last;
        }
        // Where nobody knows now, what was said last holds, and is asked for again.
        let Some(quota) = quotas.of(env).await else { return last };
        let pages = quota.database_bytes.map_or(self.usual.pages, pages);
        let mut said = said.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.1.pages != pages {
            said.1 = Arc::new(Limits { pages, ..Limits::clone(&self.usual) });
        }
        said.0 = version;
        Arc::clone(&said.1)
    }
}

impl Allowed {
    fn last(&self) -> (u64, Arc<Limits>) {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (said.0, Arc::clone(&said.1))
    }

    /// What was said last.
    pub fn limits(&self) -> Arc<Limits> {
        self.last().1
    }
}
