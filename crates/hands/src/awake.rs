//! Sandboxes that are awake: made by the first call, and there for the next.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use kernel::{Env, Error, Result, SandboxId, TenantId};
use sandbox::bridge;
use sandbox::egress::Egress;
use sandbox::runner::{Isolation, Limiting, Runner, Spec};
use sandbox::session::Session;
use sandbox::workspace::Fullness;
use store::Workspace;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::rarely::Rarely;
use crate::runs::Run;
use crate::servers::Servers;
use crate::serving::Begun;
use crate::surroundings::surroundings;
use crate::{Inner, Journal};

/// A workspace's place: whoever has it decides what becomes of its sandbox.
#[derive(Default)]
pub(crate) struct Slot {
    state: Arc<tokio::sync::Mutex<Option<Arc<Awake>>>>,
    /// The sandbox that was made in it last, for who only looks.
    seen: Mutex<Weak<Awake>>,
    /// How many wait for it.
    waiting: AtomicUsize,
    /// Whose sandbox is awake in it, for who counts.
    tenant: Mutex<Option<TenantId>>,
    /// How much its files took when they were weighed last, whichever sandbox was awake in it then.
    weight: Mutex<Option<u64>>,
    /// When its files may be archived again after that has failed.
    pub archiving: Rarely,
    /// When they are kept again, while something goes wrong in it and goes on.
    pub keeping: Rarely,
    /// The same of those that have ended.
    pub keeping_ended: Rarely,
    /// Which of its visitors wakes it, and when the last one has failed to.
    pub visited: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// The commands that began last to serve its ports.
    pub serving: Arc<tokio::sync::Mutex<HashMap<u16, Begun>>>,
}

/// Somebody who waits, until this goes.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What has a place.
pub(crate) type Held = OwnedMutexGuard<Option<Arc<Awake>>>;

impl Slot {
    pub async fn lock(&self) -> Held {
        if let Some(held) = self.try_lock() {
            return held;
        }
        let _waits = Waits::new(&self.waiting);
        Arc::clone(&self.state).lock_owned().await
    }

    /// Whether somebody waits for it.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Whoever does not wait for somebody else's work on it.
    pub fn try_lock(&self) -> Option<Held> {
        Arc::clone(&self.state).try_lock_owned().ok()
    }

    /// The sandbox that is awake in it, for who decides nothing about it.
    pub fn seen(&self) -> Option<Arc<Awake>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        seen.filter(|awake| !awake.has_ended())
    }

    pub fn show(&self, awake: &Arc<Awake>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(awake);
    }

    /// Its files take that much. By how many bytes they have grown since the last time; by none where there was none.
    pub fn weighs(&self, bytes: u64) -> u64 {
        let before = self.weight.lock().unwrap_or_else(PoisonError::into_inner).replace(bytes);
        bytes.saturating_sub(before.unwrap_or(bytes))
    }

    /// Its files are others from here on, that take so much as far as is known.
    pub fn begins_with(&self, bytes: Option<u64>) {
        *self.weight.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
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
    /// Whether it was told to end, and may be there all the same.
    pub ending: AtomicBool,
    /// Whether it is stopped only until its files are weighed, on a disk that has no room.
    pub waits_for_room: AtomicBool,
    used: Mutex<Used>,
    /// How often the kernel has ended a process of it for want of memory.
    oom_kills: AtomicU64,
    /// Who has it changes which version of the platform's programs it has.
    pub swapping: tokio::sync::Mutex<()>,
    /// When its files are weighed next.
    pub weighing: Rarely,
    fullness: Mutex<Option<Fullness>>,
    session: Session,
    pub run: Arc<Run>,
    contents: Semaphore,
    servers: Servers,
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

impl Awake {
    /// How full its workspace was when it was weighed last.
    pub fn fullness(&self) -> Option<Fullness> {
        *self.fullness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its file system holds it to its quota, as far as is known.
    pub fn is_held(&self) -> bool {
        self.fullness().is_some_and(|fullness| fullness.enforced)
    }

    /// Its files were weighed, or could not be.
    pub fn weighed(&self, fullness: Option<Fullness>) {
        match fullness {
            Some(fullness) if fullness.enforced => self.weighing.never_again(),
            _ => self.weighing.done(Duration::ZERO),
        }
        if fullness.is_some() {
            *self.fullness.lock().unwrap_or_else(PoisonError::into_inner) = fullness;
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

    /// How many processes there are in it, as its hand says, unless that takes its time.
    pub async fn processes(&self) -> Option<u32> {
        let stats = tokio::time::timeout(ANSWER, self.session.stats()).await.ok()?;
        Some(stats.ok()?.processes)
    }

    /// Whether nothing can be done in it any more.
    pub fn has_ended(&self) -> bool {
        self.was_told_to_end() || self.session.closed().now_or_never().is_some()
    }

    /// Whether somebody has told it to end.
    pub fn was_told_to_end(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// How many connections visitors have into it.
    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }

    /// Whether nothing runs in it.
    pub async fn is_empty(&self) -> bool {
        self.processes().await.is_some_and(|there| there <= OWN)
    }

    /// Whether it is stopped where it is.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// The processes of a sandbox in which nothing runs: its first.
const OWN: u32 = 1;

/// How long the hand inside has to say what runs there.
const ANSWER: Duration = Duration::from_secs(1);

/// The share of a core from which on a sandbox is at work.
const BUSY: f64 = 0.02;

/// A sandbox in use: it is neither stopped nor ended while somebody has this.
pub struct Hand(Arc<Awake>);

impl Hand {
    pub(crate) fn new(awake: &Arc<Awake>) -> Self {
        awake.calls.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(awake))
    }

    /// The same once more: it is in use for as long as somebody has either.
    pub(crate) fn again(&self) -> Self {
        Self::new(&self.0)
    }

    /// Which one it is of those that a workspace has had.
    pub(crate) fn awake(&self) -> &Arc<Awake> {
        &self.0
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

    /// What speaks MCP in it.
    pub(crate) fn servers(&self) -> &Servers {
        &self.0.servers
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
    type Target = Hand;

    fn deref(&self) -> &Hand {
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

impl Inner {
    pub(crate) async fn make(
        self: &Arc<Self>,
        workspace: &Workspace,
        isolation: Isolation,
    ) -> Result<Arc<Awake>> {
        let tree = self.at_hand(workspace).await?;
        let (tree, layers) = self.begin(workspace, tree).await?;
        let spec = Spec { id: workspace.sandbox, workspace: tree, layers, limits: self.limits.each };
        let gvisor = self.local.gvisor();
        let runner: &dyn Runner = if isolation == Isolation::Gvisor { &gvisor } else { &*self.local };
        let started = runner.create(&spec).await?;
        self.local.count_for(workspace.sandbox, workspace.tenant, workspace.env);
        let session = Session::open(started.hand).await?;
        let env = Env::for_upkeep(workspace.tenant, workspace.env);
        let told = Arc::new(Told(Arc::clone(&self.journal), env));
        let egress = Egress::new(Arc::clone(&self.outside), self.limits.egress_of(workspace.tenant), told)?;
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
            ending: AtomicBool::new(false),
            waits_for_room: AtomicBool::new(false),
            oom_kills: AtomicU64::new(0),
            used: Mutex::new(Used { at: now, cpu: Duration::ZERO, looked: now }),
            swapping: tokio::sync::Mutex::default(),
            weighing: Rarely::default(),
            fullness: Mutex::default(),
            session,
            run,
            contents: Semaphore::new(CONTENTS),
            servers: Servers::default(),
            _serving: serving,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_anybody_looked_is_no_growth() {
        let slot = Slot::default();
        assert_eq!(
            [5_000, 5_000, 7_000, 6_000, 6_500].map(|bytes| slot.weighs(bytes)),
            [0, 0, 2_000, 0, 500]
        );
        // What is new holds nothing, and what was put back is not known.
        slot.begins_with(Some(0));
        assert_eq!(slot.weighs(5_000), 5_000);
        slot.begins_with(None);
        assert_eq!(slot.weighs(9_000), 0);
    }
}
