//! How many archives are under way: each holds a copy of its environment and a thread until it is read or written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::{Code, EnvId, Error, LimitInfo, LimitScope, Result, TenantId};

/// How many of one environment, of all environments of one tenant, and of all tenants.
const OF_ENV: usize = 2;
const OF_TENANT: usize = 4;
const OF_ALL: usize = 64;

/// After how long it is worth to ask again.
const AGAIN: Duration = Duration::from_secs(30);

/// The exports that are under way, or the imports.
#[derive(Default, Clone)]
pub(super) struct Exports(Arc<Mutex<Vec<(TenantId, EnvId)>>>);

/// One of them, until it is dropped.
pub struct Export {
    all: Exports,
    of: (TenantId, EnvId),
}

impl Exports {
    /// Begins one.
    ///
    /// # Errors
    /// `rate_limited` where as many are under way as may be.
    pub fn begin(&self, tenant: TenantId, env: EnvId) -> Result<Export> {
        let of = (tenant, env);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_env = all.iter().filter(|it| **it == of).count();
        let of_tenant = all.iter().filter(|it| it.0 == of.0).count();
        if of_env >= OF_ENV || of_tenant >= OF_TENANT {
            let limit = if of_env >= OF_ENV {
                LimitInfo::new("env_archives", LimitScope::Environment, OF_ENV as u64, "archives at once")
            } else {
                LimitInfo::new("tenant_archives", LimitScope::Tenant, OF_TENANT as u64, "archives at once")
            };
            // No setting raises it.
            let limit = limit.reset(AGAIN.as_secs()).raised("let those that were begun end");
            let message = format!(
                "at most {OF_ENV} archives of an environment and {OF_TENANT} of a tenant move at once"
            );
            return Err(Error::new(Code::RateLimited, message)
                .hint("let those that were begun come to their end first")
                .retry_after(AGAIN)
                .limit(limit));
        }
        if all.len() >= OF_ALL {
            return Err(Error::new(Code::Unavailable, "too many archives move at this moment")
                .retry_after(AGAIN)
                .hint("try again in a moment"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_the_archives_that_move() {
        let (all, tenant, env) = (Exports::default(), TenantId::new(), EnvId::new());
        let code = |begun: Result<Export>| begun.err().map(|error| error.code());
        let first: Vec<_> = (0..OF_ENV).map(|_| all.begin(tenant, env).unwrap()).collect();
        let full = all.begin(tenant, env).err().unwrap();
        assert_eq!(
            (full.code(), full.retry_after_secs()),
            (Code::RateLimited, Some(30)),
            "of one environment"
        );
        let limit = full.limit_info().map(|limit| (limit.name, limit.value, limit.left));
        assert_eq!(limit, Some(("env_archives", 2, 0)));
        let others: Vec<_> = (OF_ENV..OF_TENANT).map(|_| all.begin(tenant, EnvId::new()).unwrap()).collect();
        assert_eq!(code(all.begin(tenant, EnvId::new())), Some(Code::RateLimited), "of one tenant");
        let begin = |_| all.begin(TenantId::new(), EnvId::new()).unwrap();
        let rest: Vec<_> = (OF_TENANT..OF_ALL).map(begin).collect();
        assert_eq!(code(all.begin(TenantId::new(), EnvId::new())), Some(Code::Unavailable), "of all");
        drop(first);
        assert_eq!(code(all.begin(tenant, env)), None);
        drop((others, rest));
    }
}
