//! How many calls pass.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use kernel::{Caller, Code, Error, KeyId, LimitInfo, LimitScope, Principal, Result, TenantId};

use crate::{RateLimit, RateLimits};

/// The system's clock and not a calibrated counter: calibration would make the start wait.
type Cells<K> = RateLimiter<K, DashMapStateStore<K>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Admits calls by key, by minted token and by tenant (GCRA). A call of a minted token counts as one of each that it stands
/// on: minting makes no room.
pub struct Limits {
    keys: Policy<KeyId>,
    tokens: Policy<KeyId>,
    tenants: Policy<TenantId>,
}

struct Policy<K: Clone + Eq + Hash> {
    scope: LimitScope,
    limit: RateLimit,
    cells: Cells<K>,
    /// How many calls did not pass.
    refused: AtomicU64,
}

impl Limits {
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self {
            keys: Policy::new(LimitScope::Key, limits.key),
            tokens: Policy::new(LimitScope::Token, limits.token),
            tenants: Policy::new(LimitScope::Tenant, limits.tenant),
        }
    }

    /// How many calls pass of one key, of one minted token and of one tenant.
    #[must_use]
    pub fn rates(&self) -> [(LimitScope, RateLimit); 3] {
        [
            (self.keys.scope, self.keys.limit),
            (self.tokens.scope, self.tokens.limit),
            (self.tenants.scope, self.tenants.limit),
        ]
    }

    /// How many calls did not pass, by the limit that held them up.
    #[must_use]
    pub fn refused(&self) -> [(LimitScope, u64); 3] {
        [self.keys.refused(), self.tokens.refused(), self.tenants.refused()]
    }

    /// Forgets who has not called for a while.
    pub(crate) fn tidy(&self) {
        self.keys.tidy();
        self.tokens.tidy();
        self.tenants.tidy();
    }
}

impl tool::Limiter for Limits {
    fn admit(&self, caller: &Caller) -> Result<()> {
        match caller.principal {
            Principal::Run(_) => self.tokens.admit(caller.credential)?,
            _ => self.keys.admit(caller.credential)?,
        }
        for between in caller.above.iter().skip(1).rev() {
            self.tokens.admit(*between)?;
        }
        if let Some(root) = caller.above.first() {
            self.keys.admit(*root)?;
        }
        self.tenants.admit(caller.tenant)
    }
}

impl<K: Clone + Eq + Hash> Policy<K> {
    fn new(scope: LimitScope, limit: RateLimit) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        let cells = RateLimiter::dashmap_with_clock(quota, MonotonicClock);
        Self { scope, limit, cells, refused: AtomicU64::new(0) }
    }

    fn refused(&self) -> (LimitScope, u64) {
        (self.scope, self.refused.load(Ordering::Relaxed))
    }

    fn admit(&self, who: K) -> Result<()> {
        let Err(until) = self.cells.check_key(&who) else { return Ok(()) };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let wait = until.wait_time_from(MonotonicClock.now()).max(Duration::from_millis(1));
        let burst = u64::from(self.limit.burst.get());
        let name = self.scope.as_str();
        let info = LimitInfo::new(name, self.scope, burst, "calls")
            .window(burst.div_ceil(u64::from(self.limit.per_second.get())))
            .reset(wait.as_millis().div_ceil(1000) as u64)
            .raised(format!(
                "ask who runs the platform to raise limits.{name}_per_second and limits.{name}_burst"
            ));
        let message = format!(
            "more calls than the {name} may make: {} a second, {burst} at once",
            self.limit.per_second
        );
        Err(Error::new(Code::RateLimited, message)
            .retry_after(wait)
            .limit(info)
            .hint("wait, then go on slower"))
    }

    fn tidy(&self) {
        self.cells.retain_recent();
        self.cells.shrink_to_fit();
    }
}
