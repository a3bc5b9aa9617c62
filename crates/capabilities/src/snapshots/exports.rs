//! How many exports are under way: each holds a copy of its environment until it is read.

use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Code, Env, EnvId, Error, Result, TenantId};

/// How many of one environment, and of all environments of one tenant.
const OF_ENV: usize = 2;
const OF_TENANT: usize = 4;

/// The exports that are under way.
#[derive(Default, Clone)]
pub(super) struct Exports(Arc<Mutex<Vec<(TenantId, EnvId)>>>);

/// One of them, until it is dropped.
pub(super) struct Export {
    all: Exports,
    of: (TenantId, EnvId),
}

impl Exports {
    /// Begins one.
    ///
    /// # Errors
    /// `rate_limited` where as many are under way as may be.
    pub fn begin(&self, env: &Env) -> Result<Export> {
        let of = (env.tenant(), env.id());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_env = all.iter().filter(|it| **it == of).count();
        let of_tenant = all.iter().filter(|it| it.0 == of.0).count();
        if of_env >= OF_ENV || of_tenant >= OF_TENANT {
            let message =
                format!("at most {OF_ENV} exports of an environment and {OF_TENANT} of a tenant run at once");
            return Err(
                Error::new(Code::RateLimited, message).hint("read those that were begun to their end first")
            );
        }
        all.push(of);
        Ok(Export { all: self.clone(), of })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|it| *it == self.of) {
            all.swap_remove(at);
        }
    }
}
