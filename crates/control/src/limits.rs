//! How many calls and visits pass, and how many are under way.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use kernel::{Caller, Code, EnvId, Error, KeyId, LimitInfo, LimitScope, Principal, Result, TenantId};

use crate::at_once::{AtOnce, Ticket};
use crate::bounds::rate;
use crate::plans::{Allowed, Plans};
use crate::{RateLimit, RateLimits};

/// The system's clock and not a calibrated counter: calibration would make the start wait.
type Cells<K> = RateLimiter<K, DashMapStateStore<K>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Admits calls by key, by minted token, by tenant and by environment (GCRA), and visits of apps by environment. A call of a
/// minted token counts as one of each that it stands on: minting makes no room. What a plan bounds is looked up for each call.
pub struct Limits {
    usual: RateLimits,
    plans: Arc<Plans>,
    keys: Policy<KeyId>,
    tokens: Policy<KeyId>,
    tenants: Policy<TenantId>,
    environments: Policy<EnvId>,
    visits: Policy<EnvId>,
    of_tenant: AtOnce<TenantId>,
    of_environment: AtOnce<EnvId>,
    visiting: AtOnce<EnvId>,
}

/// A rate that many are held to, each for itself.
struct Policy<K: Clone + Eq + Hash> {
    scope: LimitScope,
    name: &'static str,
    what: &'static str,
    /// By the rate, since a plan has another one.
    cells: RwLock<HashMap<RateLimit, Arc<Cells<K>>>>,
    /// How many did not pass.
    refused: AtomicU64,
}

/// A call that is under way, counted as long as this is there.
#[derive(Debug, Default)]
pub struct Underway {
    _tenant: Option<Ticket<TenantId>>,
    _environment: Option<Ticket<EnvId>>,
}

/// A visit that is under way, counted as long as this is there.
#[derive(Debug, Default)]
pub struct Visit {
    _visit: Option<Ticket<EnvId>>,
}

impl Limits {
    pub(crate) fn new(usual: RateLimits, plans: Arc<Plans>) -> Self {
        Self {
            usual,
            plans,
            keys: Policy::new(LimitScope::Key, "key", "calls"),
            tokens: Policy::new(LimitScope::Token, "token", "calls"),
            tenants: Policy::new(LimitScope::Tenant, "tenant", "calls"),
            environments: Policy::new(LimitScope::Environment, "environment", "calls"),
            visits: Policy::new(LimitScope::Environment, "visits", "requests"),
            of_tenant: AtOnce::new(LimitScope::Tenant, "tenant_at_once", "calls at once"),
            of_environment: AtOnce::new(LimitScope::Environment, "environment_at_once", "calls at once"),
            visiting: AtOnce::new(LimitScope::Environment, "visits_at_once", "requests at once"),
        }
    }

    /// How many calls pass of one key, of one minted token, of this tenant, and of the environment where it has a bound.
    #[must_use]
    pub fn rates(&self, tenant: TenantId, env: Option<EnvId>) -> Vec<(LimitScope, RateLimit)> {
        let allowed = self.plans.of(tenant, env);
        let mut rates = vec![
            (LimitScope::Key, self.usual.key),
            (LimitScope::Token, self.usual.token),
            (LimitScope::Tenant, self.of_tenant(&allowed)),
        ];
        let environment = env.and_then(|_| of_environment(&allowed));
        rates.extend(environment.map(|rate| (LimitScope::Environment, rate)));
        rates
    }

    /// How many calls of a tenant and of one of its environments are under way.
    #[must_use]
    pub fn underway(&self, tenant: TenantId, env: Option<EnvId>) -> (u64, u64) {
        (self.of_tenant.count(tenant), env.map_or(0, |env| self.of_environment.count(env)))
    }

    /// How many visitors' requests to an environment's app are under way, where they have a bound.
    #[must_use]
    pub fn visiting(&self, env: EnvId) -> u64 {
        self.visiting.count(env)
    }

    /// How many calls did not pass, by whose limit held them up.
    #[must_use]
    pub fn refused(&self) -> [(LimitScope, u64); 4] {
        [
            (LimitScope::Key, self.keys.refused()),
            (LimitScope::Token, self.tokens.refused()),
            (LimitScope::Tenant, self.tenants.refused() + self.of_tenant.refused()),
            (LimitScope::Environment, self.environments.refused() + self.of_environment.refused()),
        ]
    }

    /// Counts a visitor's request to an app.
    ///
    /// # Errors
    /// `rate_limited` with the limit, its value and when the next one passes.
    pub fn visit(&self, tenant: TenantId, env: EnvId) -> Result<Visit> {
        let bounds = self.plans.of(tenant, Some(env)).environment;
        if let Some(rate) = rate(bounds.visits_per_second, bounds.visits_burst) {
            self.visits.admit(env, rate)?;
        }
        let ticket = bounds.visits_at_once.map(|most| self.visiting.take_now(env, most));
        Ok(Visit { _visit: ticket.transpose()? })
    }

    /// Forgets who has not called for a while.
    pub(crate) fn tidy(&self) {
        self.keys.tidy();
        self.tokens.tidy();
        self.tenants.tidy();
        self.environments.tidy();
        self.visits.tidy();
    }

    fn of_tenant(&self, allowed: &Allowed) -> RateLimit {
        let bounds = &allowed.tenant.tenant;
        rate(bounds.calls_per_second, bounds.calls_burst).unwrap_or(self.usual.tenant)
    }
}

fn of_environment(allowed: &Allowed) -> Option<RateLimit> {
    rate(allowed.environment.calls_per_second, allowed.environment.calls_burst)
}

impl tool::Limiter for Limits {
    fn admit(&self, caller: &Caller) -> Result<()> {
        match caller.principal {
            Principal::Run(_) => self.tokens.admit(caller.credential, self.usual.token)?,
            _ => self.keys.admit(caller.credential, self.usual.key)?,
        }
        for between in caller.above.iter().skip(1).rev() {
            self.tokens.admit(*between, self.usual.token)?;
        }
        if let Some(root) = caller.above.first() {
            self.keys.admit(*root, self.usual.key)?;
        }
        let allowed = self.plans.of(caller.tenant, caller.env);
        self.tenants.admit(caller.tenant, self.of_tenant(&allowed))?;
        match (caller.env, of_environment(&allowed)) {
            (Some(env), Some(rate)) => self.environments.admit(env, rate),
            _ => Ok(()),
        }
    }

    fn enter<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Result<tool::Underway>> {
        let allowed = self.plans.of(caller.tenant, caller.env);
        let tenant = allowed.tenant.tenant.calls_at_once;
        let environment = allowed.environment.calls_at_once.filter(|_| caller.env.is_some());
        if tenant.is_none() && environment.is_none() {
            return std::future::ready(Ok(tool::Underway::default())).boxed();
        }
        async move {
            let mut underway = Underway::default();
            // Who waits for a place of their environment holds none that others of the tenant could have.
            if let (Some(most), Some(env)) = (environment, caller.env) {
                underway._environment = Some(self.of_environment.take(env, most).await?);
            }
            if let Some(most) = tenant {
                underway._tenant = Some(self.of_tenant.take(caller.tenant, most).await?);
            }
            Ok(tool::Underway::of(underway))
        }
        .boxed()
    }
}

impl<K: Clone + Eq + Hash> Policy<K> {
    fn new(scope: LimitScope, name: &'static str, what: &'static str) -> Self {
        Self { scope, name, what, cells: RwLock::default(), refused: AtomicU64::new(0) }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn admit(&self, who: K, limit: RateLimit) -> Result<()> {
        let found = self.cells.read().unwrap_or_else(PoisonError::into_inner).get(&limit).map(Arc::clone);
        let cells = found.unwrap_or_else(|| self.cells_of(limit));
        let Err(until) = cells.check_key(&who) else { return Ok(()) };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let wait = until.wait_time_from(MonotonicClock.now()).max(Duration::from_millis(1));
        let (name, burst) = (self.name, u64::from(limit.burst.get()));
        let raise = match self.scope {
            LimitScope::Key | LimitScope::Token => {
                format!("ask who runs the platform to raise limits.{name}_per_second and limits.{name}_burst")
            }
            _ => "ask who runs the platform for a plan with more".to_owned(),
        };
        let info = LimitInfo::new(name, self.scope, burst, self.what)
            .window(burst.div_ceil(u64::from(limit.per_second.get())))
            .reset(wait.as_millis().div_ceil(1000) as u64)
            .raised(raise);
        let (of, what) = (self.scope.as_str(), self.what);
        let message =
            format!("more {what} than the {of} may make: {} a second, {burst} at once", limit.per_second);
        Err(Error::new(Code::RateLimited, message)
            .retry_after(wait)
            .limit(info)
            .hint("wait, then go on slower"))
    }

    fn cells_of(&self, limit: RateLimit) -> Arc<Cells<K>> {
        let mut all = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        let made = all.entry(limit).or_insert_with(|| {
            let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
            Arc::new(RateLimiter::dashmap_with_clock(quota, MonotonicClock))
        });
        Arc::clone(made)
    }

    fn tidy(&self) {
        let all: Vec<_> =
            self.cells.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for cells in &all {
            cells.retain_recent();
            cells.shrink_to_fit();
        }
        drop(all);
        // Nobody is held to a rate that no plan has any more, nor was anybody of late.
        let mut all = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, cells| !cells.is_empty() || Arc::strong_count(cells) > 1);
    }
}
