//! How many sandboxes there may be, how large each is, and how long it waits for its next call.

use std::path::PathBuf;
use std::time::Duration;

use kernel::TenantId;
use sandbox::egress::Policy;
use sandbox::runner::Limits;
use sandbox::workspace::templates::Template;

use crate::{Allowed, Demands};

/// Bounds of one process.
#[derive(Debug, Clone)]
pub struct HandsLimits {
    /// Sandboxes that are awake at once, of all tenants.
    pub awake: usize,
    /// The same of one tenant.
    pub awake_of_tenant: usize,
    /// Workspaces of one environment.
    pub workspaces_of_env: i64,
    /// Those of one owner in it, beside its own.
    pub workspaces_of_owner: i64,
    /// Snapshots of one workspace.
    pub snapshots: usize,
    /// The most bytes that all snapshots of a tenant's workspaces hold.
    pub snapshot_bytes_of_tenant: u64,
    /// The most bytes that a new workspace may hold; the keeper's own default where it is not said.
    pub quota_bytes: Option<u64>,
    /// A directory on the disk that workspaces are on.
    pub directory: PathBuf,
    /// What stays free on that disk, in bytes: below it nothing wakes, and what is awake is ended.
    pub spare_bytes: u64,
    /// After how long without a call and without work a sandbox is stopped where it is.
    pub freeze_after: Duration,
    /// After how long it is ended; its files stay.
    pub park_after: Duration,
    /// After how long without use the files of a workspace go to the store of checkpoints; never where it is not said.
    pub archive_after: Option<Duration>,
    /// What a new workspace's sandbox has below `/usr/local`, where nobody says otherwise.
    pub template: Template,
    /// How long a run token is good for, a quarter of an hour at most; it is renewed while its run lives.
    pub token: Duration,
    /// The domain that previews are shown below, without a port.
    pub preview_domain: Option<String>,
    /// What one sandbox may use.
    pub each: Limits,
    /// How much of the network sandboxes have.
    pub egress: Policy,
    /// Where they may go.
    pub allow: Allowed,
    /// How strongly they must be kept apart.
    pub isolation: Demands,
}

impl Default for HandsLimits {
    fn default() -> Self {
        Self {
            awake: 32,
            awake_of_tenant: 8,
            workspaces_of_env: 20,
            workspaces_of_owner: 8,
            snapshots: 20,
            snapshot_bytes_of_tenant: 20 << 30,
            quota_bytes: None,
            directory: PathBuf::from("."),
            spare_bytes: 2 << 30,
            freeze_after: Duration::from_secs(30),
            park_after: Duration::from_secs(300),
            archive_after: None,
            template: Template::Blank,
            token: Duration::from_secs(900),
            preview_domain: None,
            each: Limits::default(),
            egress: Policy::default(),
            allow: Allowed::default(),
            isolation: Demands::default(),
        }
    }
}

impl HandsLimits {
    /// Where the sandboxes of a tenant may go, and how much of it.
    pub(crate) fn egress_of(&self, tenant: TenantId) -> Policy {
        self.allow.policy(&self.egress, tenant)
    }
}
