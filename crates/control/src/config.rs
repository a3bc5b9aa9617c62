//! What the control plane has to be told.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use kernel::Secret;

/// How the control plane is set up.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The data directory; made where it is missing.
    pub data_dir: PathBuf,
    /// The address of a Postgres database; `<data_dir>/control.db` where there is none.
    pub database_url: Option<Secret>,
    /// The program, with its arguments, that wraps and unwraps data keys; a key in `<data_dir>/keys` where there is none.
    pub key_command: Option<Vec<String>>,
    /// How many calls pass.
    pub limits: RateLimits,
    /// The names of the templates an environment can be made from; the first is the default.
    pub templates: Vec<String>,
    /// How long audit rows of calls that changed nothing are kept.
    pub keep_reads: Duration,
    /// How long all other audit rows are kept.
    pub keep_changes: Duration,
    /// How long a deleted tenant can be restored.
    pub keep_tenants: Duration,
    /// How long a user's consent to a client lasts.
    pub consent: Duration,
}

impl ControlConfig {
    /// Everything as it is where nothing is said.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            data_dir: data_dir.into(),
            database_url: None,
            key_command: None,
            limits: RateLimits::default(),
            templates: vec!["empty".to_owned()],
            keep_reads: DAY * 7,
            keep_changes: DAY * 400,
            keep_tenants: DAY * 7,
            consent: DAY * 30,
        }
    }
}

/// How many calls pass for each key, each minted token and each tenant.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits {
    /// Of one key: 500/s, burst 1,000 where nothing is said.
    pub key: RateLimit,
    /// Of one minted token: 50/s, burst 300 where nothing is said.
    pub token: RateLimit,
    /// Of one tenant, all its credentials together: 5,000/s, burst 10,000 where nothing is said.
    pub tenant: RateLimit,
}

/// A number of calls per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Calls per second in the long run.
    pub per_second: NonZeroU32,
    /// Calls that may come at once after a rest.
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// A limit, or `None` where one of the numbers is 0.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Option<Self> {
        match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
            (Some(per_second), Some(burst)) => Some(Self { per_second, burst }),
            _ => None,
        }
    }
}

const fn limit(per_second: u32, burst: u32) -> RateLimit {
    match RateLimit::new(per_second, burst) {
        Some(limit) => limit,
        None => panic!("a limit of nothing"),
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        const KEY: RateLimit = limit(500, 1_000);
        const TOKEN: RateLimit = limit(50, 300);
        const TENANT: RateLimit = limit(5_000, 10_000);
        Self { key: KEY, token: TOKEN, tenant: TENANT }
    }
}
