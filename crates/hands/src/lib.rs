//! Sandboxes of environments: whose workspace is whose, when its sandbox is awake, and what becomes of it while nobody
//! needs it.
//!
//! A workspace is a row of the control plane and files that the sandboxes' own process keeps. Its sandbox is made when
//! somebody calls, stopped where it is when nobody does, and ended a while later; the files stay. Nothing of all that is
//! asked for: whoever calls again finds the files as they were.

mod allowed;
mod archiving;
mod awake;
mod census;
mod crowd;
mod demands;
mod freezing;
mod keeping;
mod limits;
mod programs;
mod rarely;
mod runs;
mod servers;
mod serving;
mod showing;
mod snapshots;
mod status;
mod surroundings;
mod turns;
mod upkeep;
mod waking;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kernel::{Code, Env, EnvId, Error, Result, SandboxId, Timestamp, WorkspaceId};
use sandbox::bridge::Tokens;
use sandbox::egress::{Event, Outside, Policy};
use sandbox::local::Local;
use sandbox::workspace::DEFAULT_QUOTA;
use sandbox::workspace::templates::Template;
use store::{Kept, Most, Store, Workspace};
use tokio::sync::{OnceCell, Semaphore};
use tracing::Instrument as _;

pub use allowed::Allowed;
pub use awake::{Hand, Visit};
pub use census::Census;
pub use demands::Demands;
pub use keeping::{Keeping, place_of};
pub use limits::HandsLimits;
pub use programs::{Equipment, Swapped};
pub use runs::{Lent, Platform, Reach};
pub use servers::{Message, Program, Speaker};
pub use serving::{Reached, Who};
pub use showing::Visibility;
pub use status::{AwakeStatus, State, Status, Wanted};

use awake::Slot;
use census::Starts;
use turns::Turns;

/// How many workspaces are weighed at once.
const WEIGHED: usize = 2;

/// Why a workspace was refused that another one makes room for when it goes.
#[derive(Debug)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the environment has as many workspaces as it may")
    }
}

impl std::error::Error for Full {}

impl Full {
    /// Whether that is why.
    #[must_use]
    pub fn is(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Self>())
    }
}

/// Is told what becomes of a sandbox's connections. It must not block.
pub type Journal = Arc<dyn Fn(&Env, Event) + Send + Sync>;

/// The sandboxes of all environments. Clones share everything.
#[derive(Clone)]
pub struct Hands(Arc<Inner>);

struct Inner {
    local: Arc<Local>,
    store: Store,
    outside: Arc<Outside>,
    journal: Journal,
    limits: HandsLimits,
    keeping: Keeping,
    slots: Mutex<HashMap<WorkspaceId, Arc<Slot>>>,
    /// Whose files are weighed: that reads all of them, and is no reason to keep the machine busy. Of each tenant it is
    /// one workspace.
    weighing: Semaphore,
    weighing_of: Turns,
    /// Whether what earlier processes have left was looked after.
    tidy: OnceCell<()>,
    /// Tenants whose files are being copied: one copy at a time is all that a tenant makes the machine do.
    copying: Turns,
    /// Who has it changes what sandboxes have beside their hands.
    equipping: tokio::sync::Mutex<()>,
    /// Whether this machine has made a sandbox that gVisor keeps apart.
    has_gvisor: OnceCell<()>,
    /// The tokens of what runs.
    tokens: Arc<Tokens>,
    /// Whose tools runs call.
    platform: RwLock<Option<Arc<dyn Platform>>>,
    starts: Starts,
}

impl Hands {
    /// Sandboxes that `local` makes.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(
        local: Arc<Local>,
        store: Store,
        journal: Journal,
        keeping: Keeping,
        limits: HandsLimits,
    ) -> Result<Self> {
        let outside = Arc::new(Outside::of_this_machine()?);
        let (slots, tidy) = (Mutex::default(), OnceCell::new());
        let (tokens, platform) = (Arc::default(), RwLock::default());
        Ok(Self(Arc::new(Inner {
            local,
            store,
            outside,
            journal,
            limits,
            keeping,
            slots,
            weighing: Semaphore::new(WEIGHED),
            weighing_of: Turns::default(),
            tidy,
            copying: Turns::default(),
            equipping: tokio::sync::Mutex::default(),
            has_gvisor: OnceCell::new(),
            tokens,
            platform,
            starts: Starts::default(),
        })))
    }

    /// The workspace of that name, made where there is none.
    ///
    /// # Errors
    /// As [`Hands::workspace_from`].
    pub async fn workspace(&self, env: &Env, name: &str) -> Result<Workspace> {
        self.workspace_from(env, name, self.0.limits.template).await
    }

    /// The workspace of that name, made where there is none; its sandbox then has what `template` says below
    /// `/usr/local`.
    ///
    /// # Errors
    /// `quota_exceeded` where the environment has as many as it may; `not_found` where it is going.
    pub async fn workspace_from(&self, env: &Env, name: &str, template: Template) -> Result<Workspace> {
        let records = self.0.store.workspaces();
        if let Some(found) = records.find(env.id(), name).await? {
            return Ok(found);
        }
        let new = self.new_workspace(env, name.to_owned(), template.as_str());
        self.insert(&new).await
    }

    /// A workspace that is in no list yet.
    pub(crate) fn new_workspace(&self, env: &Env, name: String, template: &str) -> Workspace {
        Workspace {
            id: WorkspaceId::new(),
            env: env.id(),
            tenant: env.tenant(),
            name,
            sandbox: SandboxId::new(),
            quota_bytes: self.0.limits.quota_bytes.unwrap_or(DEFAULT_QUOTA),
            created: Timestamp::now(),
            used: Timestamp::now(),
            kept: Kept::Unsaid,
            archive: None,
            template: template.to_owned(),
            isolation: None,
            frozen: None,
            ended: None,
        }
    }

    /// Notes a workspace, unless there is one of that name.
    async fn insert(&self, new: &Workspace) -> Result<Workspace> {
        // What could never have a sandbox is not made.
        self.0.isolation_of(new).await?;
        let records = self.0.store.workspaces();
        let limits = &self.0.limits;
        let most = Most { of_env: limits.workspaces_of_env, of_owner: limits.workspaces_of_owner };
        if let Some(made) = records.get_or_insert(new, most).await? {
            return Ok(made);
        }
        self.may_have_more(&new.name, &records.list(new.env).await?)?;
        Err(Error::not_found(format!("environment \"{}\"", new.env)))
    }

    /// Refuses one more workspace of that name where there are as many as there may be.
    fn may_have_more(&self, name: &str, there: &[Workspace]) -> Result<()> {
        let limits = &self.0.limits;
        let owner = name.split_once('/').map(|(owner, _)| format!("{owner}/"));
        let own = owner.map_or(0, |owner| there.iter().filter(|it| it.name.starts_with(&owner)).count());
        if own as i64 >= limits.workspaces_of_owner {
            return Err(Error::new(
                Code::QuotaExceeded,
                format!("this credential has {own} sandboxes beside its own"),
            )
            .hint("remove one that is not needed: DELETE /v1/sandboxes/{sandbox}"));
        }
        if there.len() as i64 >= limits.workspaces_of_env {
            return Err(Error::new(
                Code::QuotaExceeded,
                format!("the environment has {} workspaces, which is all it may", there.len()),
            )
            .hint("revoke a key that is not needed: its workspace makes room")
            .source(Full));
        }
        Ok(())
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

    /// Does work to its end, also where whoever asked for it does not wait any more: nobody comes back to what is half
    /// done.
    async fn to_its_end<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        tokio::spawn(work(self.clone()).in_current_span()).await.map_err(Error::internal)?
    }

    /// Removes a workspace with its files, its snapshots and its archive; its sandbox ends first.
    ///
    /// # Errors
    /// Where the files cannot be removed; it is there then, without its sandbox.
    pub async fn remove(&self, workspace: &Workspace) -> Result<()> {
        let slot = self.0.slot(workspace.id);
        let mut held = slot.lock().await;
        self.0.end(&slot, &mut held).await?;
        // What may not answer goes first: until it does nothing else is gone.
        self.0.keeping.checkpoints.forget(workspace.id).await?;
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

    /// Where the programs of an environment may go besides those in its sandboxes: to the same hosts, without the secrets
    /// that are bound to some.
    ///
    /// # Errors
    /// Where that cannot be known.
    pub async fn policy(&self, env: &Env) -> Result<Policy> {
        let nobody = || Error::new(Code::Unavailable, "the platform is about to stop");
        let within = self.0.platform().ok_or_else(nobody)?.reach(env).await?.within;
        Ok(Policy { within, ..self.0.limits.egress_of(env.tenant()) })
    }

    /// Removes the files that earlier processes have left, once. From then on nobody's files go whom no row names.
    ///
    /// # Errors
    /// Where they cannot be removed, or the machine makes no sandboxes.
    pub async fn tidied(&self) -> Result<()> {
        self.0.tidy().await
    }

    /// Ends every sandbox, and the process that makes them.
    pub async fn close(&self) {
        // It has these in turn.
        *self.0.platform.write().unwrap_or_else(PoisonError::into_inner) = None;
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
}
