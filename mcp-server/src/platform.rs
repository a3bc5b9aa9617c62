//! What the tools work on: the services of the platform, and what takes more than one of them.

use std::sync::Arc;

use capabilities::database::Databases;
use capabilities::hosting::Blobs;
use capabilities::logs::Logs;
use capabilities::releases::Releases;
use control::{Control, Environment, NewEnvironment};
use kernel::{Env, EnvId, Result, Slug, Tenant};
use tool::{Host, Ledger, Limiter, Replays};

/// The services that tools ask.
pub struct Platform {
    /// Tenants, environments, credentials, secrets, limits, records.
    pub control: Arc<Control>,
    /// The environments' databases.
    pub databases: Arc<Databases>,
    /// Their releases.
    pub releases: Arc<Releases>,
    /// Their blobs.
    pub blobs: Blobs,
    /// Their logs.
    pub logs: Logs,
    /// Where apps answer.
    pub urls: Urls,
}

/// Where apps answer.
#[derive(Debug, Clone)]
pub struct Urls {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The domain that slugs stand before, with its port where that is not the scheme's own.
    pub apps_domain: String,
}

impl Urls {
    /// The address of the app with this slug.
    #[must_use]
    pub fn app(&self, slug: &Slug) -> String {
        format!("{}://{slug}.{}", self.scheme, self.apps_domain)
    }
}
