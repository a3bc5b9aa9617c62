//! Sandboxes that are awake: made by the first call, and there for the next.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use kernel::{Code, Env, Error, Result, SandboxId, TenantId, Timestamp};
use sandbox::bridge;
use sandbox::egress::Egress;
use sandbox::local::Local;
use sandbox::runner::{Isolation, Limiting, Runner, Spec};
use sandbox::session::Session;
use sandbox::workspace::Fullness;
use store::Workspace;
use tokio::sync::{MutexGuard, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::runs::Run;
use crate::surroundings::surroundings;
use crate::{Hands, Inner, Journal};

/// A workspace's place: whoever has it decides what becomes of its sandbox.
#[derive(Default)]
pub(crate) struct Slot {
    state: tokio::sync::Mutex<Option<Arc<Awake>>>,
    /// Whose sandbox is awake in it, for who counts.
    tenant: Mutex<Option<TenantId>>,
    /// When its files may be archived again after that has failed.
    archive_from: Mutex<Option<Instant>>,
}

/// The shortest time between two attempts to archive one workspace.
const NEXT_ARCHIVE: Duration = Duration::from_secs(60);

/// What has a place.
pub(crate) type Held<'a> = MutexGuard<'a, Option<Arc<Awake>>>;

impl Slot {
    pub async fn lock(&self) -> Held<'_> {
        self.state.lock().await
    }

    /// Whoever does not wait for somebody else's work on it.
    pub fn try_lock(&self) -> Option<Held<'_>> {
        self.state.try_lock().ok()
    }

    pub fn may_be_archived(&self) -> bool {
        let from = *self.archive_from.lock().unwrap_or_else(PoisonError::into_inner);
        from.is_none_or(|from| from <= Instant::now())
    }

    /// It could not be, after so long a time: what is hopeless is tried for no more than a share of the time.
    pub fn archive_later(&self, took: Duration) {
        let later = Instant::now() + NEXT_ARCHIVE.max(took * SHARE);
        *self.archive_from.lock().unwrap_or_else(PoisonError::into_inner) = Some(later);
    }

    pub fn tenant(&self) -> Option<TenantId> {
        *self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, tenant: Option<TenantId>) {
        *self.tenant.lock().unwrap_or_else(PoisonError::into_inner) = tenant;
    }
}

/// A sandbox that runs, or is stopped where it is.
pub(crate) struct Awake {
    pub sandbox: SandboxId,
    pub isolation: Isolation,
    pub limiting: Limiting,
    pub calls: AtomicUsize,
    visits: AtomicUsize,
    pub stopped: Arc<AtomicBool>,
    used: Mutex<Used>,
    /// How often the kernel has ended a process of it for want of memory.
    oom_kills: AtomicU64,
    /// Whether, and when, its files are weighed next.
    weigh: Mutex<Weigh>,
    fullness: Mutex<Option<Fullness>>,
    session: Session,
    pub run: Arc<Run>,
    contents: Semaphore,
    /// Its way out and its bridge, which end with it.
    _serving: JoinSet<()>,
}

/// When it was last of use.
#[derive(Debug, Clone, Copy)]
struct Used {
    at: Instant,
    /// The processor time that it had used when that was looked at last, and when that was.
    cpu: Duration,
    looked: Instant,
}

/// When the files of a workspace are weighed.
#[derive(Debug, Clone, Copy)]
enum Weigh {
    /// Never: its file system holds it to its quota.
    Never,
    /// From then on.
    From(Instant),
}

/// A workspace is weighed for no more than this share of the time.
const SHARE: u32 = 10;

impl Awake {
    /// Whether its files are to be weighed now.
    pub fn is_to_be_weighed(&self) -> bool {
        let mut weigh = self.weigh.lock().unwrap_or_else(PoisonError::into_inner);
        match *weigh {
            Weigh::From(at) if at <= Instant::now() => {
                *weigh = Weigh::From(Instant::now());
                true
            }
            _ => false,
        }
    }

    /// How full its workspace was when it was weighed last.
    pub fn fullness(&self) -> Option<Fullness> {
        *self.fullness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They were: what takes long is done less often.
    pub fn weighed(&self, fullness: Fullness) {
        *self.fullness.lock().unwrap_or_else(PoisonError::into_inner) = Some(fullness);
        let mut weigh = self.weigh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Weigh::From(began) = *weigh {
            *weigh = if fullness.enforced {
                Weigh::Never
            } else {
                Weigh::From(Instant::now() + began.elapsed() * SHARE)
            };
        }
    }

    /// For how long nobody has called and it has done nothing to speak of.
    pub fn idle(&self) -> Duration {
        if self.calls.load(Ordering::SeqCst) > 0 {
            return Duration::ZERO;
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed()
    }

    /// Takes note of what it has used: a build in the background is work too.
    pub fn worked(&self, cpu: Duration) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let share = cpu.saturating_sub(used.cpu).as_secs_f64() / (now - used.looked).as_secs_f64().max(0.001);
        if share > BUSY {
            used.at = now;
        }
        (used.cpu, used.looked) = (cpu, now);
    }

    /// Whether memory has been short since this was asked last.
    pub fn was_out_of_memory(&self, oom_kills: u64) -> bool {
        self.oom_kills.swap(oom_kills, Ordering::SeqCst) < oom_kills
    }

    fn touch(&self) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).at = Instant::now();
    }

    /// How many processes there are in it, as its hand says.
    pub async fn processes(&self) -> Option<u32> {
        Some(self.session.stats().await.ok()?.processes)
    }

    pub fn has_ended(&self) -> bool {
        self.session.closed().now_or_never().is_some()
    }
}

/// The share of a core from which on a sandbox is at work.
const BUSY: f64 = 0.02;

/// A sandbox in use: it is neither stopped nor ended while somebody has this.
pub struct Hand(Arc<Awake>);

impl Hand {
    fn new(awake: &Arc<Awake>) -> Self {
        awake.calls.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(awake))
    }

    /// How strongly it is kept from its host.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.0.isolation
    }

    /// Whether its limits are held.
    #[must_use]
    pub fn limiting(&self) -> Limiting {
        self.0.limiting
    }

    /// Its id.
    #[must_use]
    pub fn sandbox(&self) -> SandboxId {
        self.0.sandbox
    }
}

/// Contents of files of one sandbox that are held in memory at once, to be read or deployed whole.
const CONTENTS: usize = 2;

impl Hand {
    /// A turn to hold the whole content of a file in memory: what is inside says how large files are, and how slowly they
    /// come.
    ///
    /// # Errors
    /// Never: turns are not ended.
    pub async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.0.contents.acquire().await.map_err(Error::internal)
    }
}

/// How many connections visitors may have into one sandbox: its owner's calls have the others.
const VISITS: usize = 200;

/// A visitor's place in a sandbox, which is in use for as long.
pub struct Visit(Hand);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.0.visits.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hand {
    /// Gives the sandbox to a visitor; none where there are too many.
    #[must_use]
    pub fn visit(self) -> Option<Visit> {
        if self.0.visits.fetch_add(1, Ordering::SeqCst) >= VISITS {
            self.0.visits.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Visit(self))
    }
}

impl Deref for Visit {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Deref for Hand {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0.session
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Writes down what becomes of a sandbox's connections.
struct Told(Journal, Env);

impl sandbox::egress::Journal for Told {
    fn told(&self, event: sandbox::egress::Event) {
        (self.0)(&self.1, event);
    }
}

impl Hands {
    /// The workspace's sandbox, woken where it sleeps.
    ///
    /// # Errors
    /// `unavailable` where this machine makes no sandboxes, or all places are taken, with what is to be done.
    pub async fn wake(&self, workspace: &Workspace) -> Result<Hand> {
        let inner = &self.0;
        let slot = inner.slot(workspace.id);
        let mut held = slot.lock().await;
        if let Some(awake) = held.as_ref() {
            let goes_on = if awake.has_ended() {
                false
            } else if awake.stopped.load(Ordering::SeqCst) {
                let resumed = inner.local.resume(awake.sandbox).await;
                awake.stopped.store(resumed.is_err(), Ordering::SeqCst);
                if resumed.is_ok() {
                    awake.run.goes_on().await;
                }
                resumed.is_ok()
            } else {
                true
            };
            if goes_on {
                return Ok(Hand::new(awake));
            }
            // It is made anew: its files are what counts.
            inner.end(workspace.sandbox, &mut held).await?;
            slot.note(None);
        }
        let isolation = inner.limits.isolation.choose(workspace.tenant, &Local::LEVELS)?;
        if !inner.has_room() {
            return Err(Error::new(Code::Unavailable, "the disk has no room for work in sandboxes")
                .hint("the operator has to free space on the disk; nothing was changed"));
        }
        // It may have been removed or archived while this waited for its place.
        let Some(workspace) = &inner.store.workspaces().of_sandbox(workspace.sandbox).await? else {
            inner.slots().remove(&workspace.id);
            return Err(Error::not_found("such workspace (any more)"));
        };
        inner.tidy().await?;
        inner.make_room(workspace.tenant).await?;
        slot.note(Some(workspace.tenant));
        match inner.make(workspace, isolation).await {
            Ok(awake) => {
                let hand = Hand::new(&awake);
                *held = Some(awake);
                inner.store.workspaces().touch(workspace.id, Timestamp::now()).await?;
                Ok(hand)
            }
            Err(error) => {
                slot.note(None);
                // Whatever there is of it is nobody's.
                if let Err(error) = inner.local.destroy(workspace.sandbox).await {
                    tracing::warn!(sandbox.id = %workspace.sandbox, error = error.chain(), "a sandbox is left half made");
                }
                Err(error)
            }
        }
    }
}

impl Inner {
    async fn make(self: &Arc<Self>, workspace: &Workspace, isolation: Isolation) -> Result<Arc<Awake>> {
        let tree = self.at_hand(workspace).await?;
        let (tree, layers) = self.begin(workspace, tree).await?;
        let spec = Spec { id: workspace.sandbox, workspace: tree, layers, limits: self.limits.each };
        let gvisor = self.local.gvisor();
        let runner: &dyn Runner = if isolation == Isolation::Gvisor { &gvisor } else { &self.local };
        let started = runner.create(&spec).await?;
        let session = Session::open(started.hand).await?;
        let env = Env::for_upkeep(workspace.tenant, workspace.env);
        let told = Arc::new(Told(Arc::clone(&self.journal), env));
        let egress = Egress::new(Arc::clone(&self.outside), self.limits.egress.clone(), told)?;
        let run = Arc::new(
            Run::begin(
                self,
                workspace,
                &session,
                &egress,
                surroundings(self.limits.preview_domain.as_deref()),
            )
            .await?,
        );
        let mut serving = JoinSet::new();
        serving.spawn(async move { egress.serve(started.egress).await });
        if let Some(platform) = run.platform() {
            serving.spawn(bridge::serve(started.bridge, workspace.sandbox, platform));
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let (keeping, asleep) = (Arc::clone(&run), Arc::clone(&stopped));
        serving.spawn(async move { keeping.keep(asleep).await });
        let now = Instant::now();
        Ok(Arc::new(Awake {
            sandbox: workspace.sandbox,
            isolation: started.isolation,
            limiting: started.limiting,
            calls: AtomicUsize::new(0),
            visits: AtomicUsize::new(0),
            stopped,
            oom_kills: AtomicU64::new(0),
            used: Mutex::new(Used { at: now, cpu: Duration::ZERO, looked: now }),
            weigh: Mutex::new(Weigh::From(now)),
            fullness: Mutex::default(),
            session,
            run,
            contents: Semaphore::new(CONTENTS),
            _serving: serving,
        }))
    }

    /// Ends the sandbox of a place.
    pub(crate) async fn end(&self, sandbox: SandboxId, held: &mut Held<'_>) -> Result<()> {
        if let Some(awake) = held.take() {
            awake.run.end();
            self.local.destroy(sandbox).await?;
        }
        Ok(())
    }

    /// Sees that one more may be awake: of those that nobody uses the one that has waited longest is ended.
    async fn make_room(&self, tenant: TenantId) -> Result<()> {
        loop {
            let (own, all) = self.awake(tenant);
            let (of_tenant, limit) = (own >= self.limits.awake_of_tenant, all >= self.limits.awake);
            if !of_tenant && !limit {
                return Ok(());
            }
            if !self.end_longest_idle(of_tenant.then_some(tenant)).await? {
                let (name, most) = if of_tenant {
                    ("of the tenant", self.limits.awake_of_tenant)
                } else {
                    ("of the platform", self.limits.awake)
                };
                return Err(Error::new(
                    Code::Unavailable,
                    format!("all {most} sandboxes {name} are at work"),
                )
                .retry_after(Duration::from_secs(5))
                .hint("wait until a command has ended, or have sandbox.awake raised"));
            }
        }
    }

    /// Ends the sandbox that nobody has used for the longest time, of `tenant` or of all; whether there was one.
    async fn end_longest_idle(&self, tenant: Option<TenantId>) -> Result<bool> {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let mut longest: Option<(Duration, Arc<crate::Slot>)> = None;
        for slot in slots {
            if slot.tenant().is_none() || tenant.is_some() && slot.tenant() != tenant {
                continue;
            }
            let Some(held) = slot.try_lock() else { continue };
            let idle = held.as_ref().map(|awake| awake.idle()).filter(|idle| !idle.is_zero());
            drop(held);
            if let Some(idle) = idle
                && longest.as_ref().is_none_or(|(most, _)| idle > *most)
            {
                longest = Some((idle, slot));
            }
        }
        let Some((_, slot)) = longest else { return Ok(false) };
        let mut held = slot.lock().await;
        if let Some(awake) = held.as_ref().filter(|awake| !awake.idle().is_zero()) {
            let sandbox = awake.sandbox;
            self.end(sandbox, &mut held).await?;
            slot.note(None);
        }
        Ok(true)
    }
}
