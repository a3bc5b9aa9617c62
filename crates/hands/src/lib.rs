//! Sandboxes of environments: whose workspace is whose, when its sandbox is awake, and what becomes of it while nobody
//! needs it.
//!
//! A workspace is a row of the control plane and files that the sandboxes' own process keeps. Its sandbox is made when
//! somebody calls, stopped where it is when nobody does, and ended a while later; the files stay. Nothing of all that is
//! asked for: whoever calls again finds the files as they were.

mod awake;
mod crowd;
mod demands;
mod limits;
mod snapshots;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Code, Env, EnvId, Error, Result, SandboxId, TenantId, Timestamp, WorkspaceId};
use sandbox::egress::{Event, Outside};
use sandbox::local::Local;
use sandbox::workspace::DEFAULT_QUOTA;
use store::{Store, Workspace};
use tokio::sync::OnceCell;

pub use awake::{Hand, Visit};
pub use demands::Demands;
pub use limits::HandsLimits;

use awake::Slot;

/// Is told what becomes of a sandbox's connections. It must not block.
pub type Journal = Arc<dyn Fn(&Env, Event) + Send + Sync>;

/// The sandboxes of all environments. Clones share everything.
#[derive(Clone)]
pub struct Hands(Arc<Inner>);

struct Inner {
    local: Local,
    store: Store,
    outside: Arc<Outside>,
    journal: Journal,
    limits: HandsLimits,
    slots: Mutex<HashMap<WorkspaceId, Arc<Slot>>>,
    /// Whether what earlier processes have left was looked after.
    tidy: OnceCell<()>,
}

impl Hands {
    /// Sandboxes that `local` makes.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(local: Local, store: Store, journal: Journal, limits: HandsLimits) -> Result<Self> {
        let outside = Arc::new(Outside::of_this_machine()?);
        let (slots, tidy) = (Mutex::default(), OnceCell::new());
        Ok(Self(Arc::new(Inner { local, store, outside, journal, limits, slots, tidy })))
    }

    /// The workspace of that name, made where there is none.
    ///
    /// # Errors
    /// `quota_exceeded` where the environment has as many as it may; `not_found` where it is going.
    pub async fn workspace(&self, env: &Env, name: &str) -> Result<Workspace> {
        let records = self.0.store.workspaces();
        if let Some(found) = records.find(env.id(), name).await? {
            return Ok(found);
        }
        let new = Workspace {
            id: WorkspaceId::new(),
            env: env.id(),
            tenant: env.tenant(),
            name: name.to_owned(),
            sandbox: SandboxId::new(),
            quota_bytes: self.0.limits.quota_bytes.unwrap_or(DEFAULT_QUOTA),
            created: Timestamp::now(),
            used: Timestamp::now(),
        };
        let most = self.0.limits.workspaces_of_env;
        if let Some(made) = records.get_or_insert(&new, most).await? {
            return Ok(made);
        }
        let there = records.list(env.id()).await?.len();
        if there == 0 {
            return Err(Error::not_found(format!("environment \"{}\"", env.id())));
        }
        Err(Error::new(
            Code::QuotaExceeded,
            format!("the environment has {there} workspaces, which is all it may"),
        )
        .hint("revoke a key that is not needed: its workspace makes room"))
    }

    /// The workspaces of an environment, by name.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn workspaces(&self, env: &Env) -> Result<Vec<Workspace>> {
        Ok(self.0.store.workspaces().list(env.id()).await?)
    }

    /// The workspace that a sandbox has; none where there is no such sandbox.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn of_sandbox(&self, sandbox: SandboxId) -> Result<Option<Workspace>> {
        Ok(self.0.store.workspaces().of_sandbox(sandbox).await?)
    }

    /// Removes a workspace with its files and its snapshots; its sandbox ends first.
    ///
    /// # Errors
    /// Where the files cannot be removed; it is there then, without its sandbox.
    pub async fn remove(&self, workspace: &Workspace) -> Result<()> {
        let slot = self.0.slot(workspace.id);
        let mut awake = slot.lock().await;
        self.0.end(workspace.sandbox, &mut awake).await?;
        self.0.local.remove_workspace(workspace.id).await?;
        for snapshot in self.0.store.workspaces().snapshots(workspace.id).await? {
            self.0.local.remove_snapshot(snapshot.id).await?;
        }
        self.0.store.workspaces().remove(workspace.id).await?;
        self.0.slots().remove(&workspace.id);
        Ok(())
    }

    /// Removes everything of an environment that is going.
    ///
    /// # Errors
    /// As [`Hands::remove`].
    pub async fn forget(&self, env: EnvId) -> Result<()> {
        for workspace in self.0.store.workspaces().list(env).await? {
            self.remove(&workspace).await?;
        }
        Ok(())
    }

    /// Ends every sandbox, and the process that makes them.
    pub async fn close(&self) {
        self.0.local.close().await;
    }
}

impl Inner {
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<WorkspaceId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, workspace: WorkspaceId) -> Arc<Slot> {
        Arc::clone(self.slots().entry(workspace).or_default())
    }

    /// How many sandboxes are awake, of `tenant` and in all.
    fn awake(&self, tenant: TenantId) -> (usize, usize) {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let awake: Vec<_> = slots.iter().filter_map(|slot| slot.tenant()).collect();
        (awake.iter().filter(|it| **it == tenant).count(), awake.len())
    }
}
