//! What is done about processes while nobody asks: those that wait too long end, those that do not answer are ended, and
//! those that have waited longest make room.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use capabilities::functions::{FunctionName, Kind};
use kernel::EnvId;
use tokio::time::timeout;

use crate::error::Error;
use crate::fleet::{Fleet, Running};
use crate::host::Called;
use crate::supervisor::{Functions, Inner, Key, Watched};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(250);

/// For how long a process may be without an answer to how it is, until it is ended.
const BLOCKED: Duration = Duration::from_secs(5);

/// How often it is looked what memory they use.
const WEIGHING: Duration = Duration::from_secs(5);

/// How long the process that makes sandboxes has to say what one uses.
const ANSWER: Duration = Duration::from_secs(2);

/// The share of its memory from which on a process is replaced.
const FULL: f64 = 0.8;

/// For how long a version that nobody asks for is kept in mind, with its files.
const KEPT: Duration = Duration::from_secs(3_600);

/// How long what a process does may take when it is to end.
const DRAIN: Duration = Duration::from_secs(10);

/// How long it takes at most until a request is sent that somebody has a place for.
const ON_ITS_WAY: Duration = Duration::from_millis(25);

/// How long a service is not told to end while it works on something.
const DRAIN_OF_SERVICES: Duration = Duration::from_secs(30);

/// Looks after all functions until nobody has them.
pub async fn look_after(watched: Watched) {
    tokio::spawn(look_at_files(watched.clone()));
    let mut weighed = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = watched.upgrade() else { return };
        let weigh = weighed.elapsed() >= WEIGHING;
        if weigh {
            weighed = Instant::now();
        }
        inner.look(weigh).await;
    }
}

/// Looks at the files of services, by itself: to count many takes long, and holds nobody up.
async fn look_at_files(watched: Watched) {
    loop {
        tokio::time::sleep(WEIGHING).await;
        let Some(inner) = watched.upgrade() else { return };
        let fleets: Vec<_> = inner.fleets().iter().map(|(key, it)| (key.clone(), Arc::clone(it))).collect();
        inner.weigh_files(&fleets).await;
    }
}

impl Functions {
    /// The environments that something runs for, or is to run for always.
    #[must_use]
    pub fn environments(&self) -> BTreeSet<EnvId> {
        let kept: Vec<EnvId> =
            self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let running = self.0.fleets();
        let running = running.iter().filter(|(_, fleet)| !fleet.lock().running.is_empty());
        running.map(|(key, _)| key.env).chain(kept).collect()
    }

    /// Ends all processes of an environment, also those that always run, until it is kept or asked again.
    ///
    /// # Errors
    /// Where one could not be ended; the others are.
    pub async fn rest(&self, env: EnvId) -> kernel::Result<()> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&env);
        self.end(env).await
    }

    /// Ends all processes; what they work on may go on for so long. To be called when nobody asks any more.
    pub async fn close(&self, drain: Duration) {
        let fleets: Vec<_> = self.0.fleets().values().cloned().collect();
        let running = fleets.iter().flat_map(|fleet| fleet.lock().running.clone());
        let ends = running.map(|it| async move {
            it.leaving.store(true, Ordering::SeqCst);
            if let Err(error) = it.instance.stop(drain).await {
                tracing::warn!(error = error.chain(), "a function's sandbox could not be ended");
            }
        });
        drop(futures::future::join_all(ends).await);
    }
}

impl Inner {
    async fn look(self: &Arc<Self>, weigh: bool) {
        let fleets: Vec<_> = self.fleets().iter().map(|(key, it)| (key.clone(), Arc::clone(it))).collect();
        // When each function was asked last, in whichever version that runs.
        let mut newest: HashMap<(EnvId, &FunctionName), Option<Instant>> = HashMap::new();
        for (key, fleet) in &fleets {
            let state = fleet.lock();
            if !state.running.is_empty() {
                let used = newest.entry((key.env, &key.name)).or_default();
                *used = (*used).max(state.used);
            }
        }
        for (key, fleet) in &fleets {
            let (running, used) = {
                let state = fleet.lock();
                (state.running.clone(), state.used)
            };
            let is_old = newest.get(&(key.env, &key.name)).is_some_and(|newest| *newest > used);
            let function = &fleet.called.function;
            let own = function.limits().idle.unwrap_or(self.limits.idle);
            let idle = if is_old { self.limits.idle_old } else { own };
            // One stays of what always runs.
            let stays = usize::from(function.settings.always && self.is_kept(&fleet.called));
            for (at, it) in running.into_iter().enumerate() {
                if weigh {
                    it.instance.sweep().await;
                }
                if it.in_flight() > 0 {
                    self.ask(fleet, &it);
                } else if it.idle() > idle && at >= stays {
                    leave(&it);
                }
            }
        }
        self.start_kept();
        if weigh {
            self.weigh(&fleets).await;
        }
        self.forget_unused(&fleets).await;
    }

    /// Whether this is what always runs: of a release, and not of one that has never come to be.
    fn is_kept(&self, called: &Called) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = kept.get(&called.env.id()).into_iter().flatten();
        all.into_iter().any(|it| it.name == called.name && it.function == called.function)
    }

    /// Starts what always runs and does not. What ends again and again is waited with, as where somebody asks.
    fn start_kept(self: &Arc<Self>) {
        let kept: Vec<Called> =
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect();
        for called in kept {
            let fleet = self.fleet(&called);
            let is_there = {
                let state = fleet.lock();
                state.starting > 0 || state.running.iter().any(|it| !it.leaving.load(Ordering::SeqCst))
            };
            if is_there {
                continue;
            }
            let functions = Functions(Arc::clone(self));
            // Why it does not start is in its log.
            tokio::spawn(async move { drop(functions.boot(&called).await) });
        }
    }

    /// Ends services whose files are more than they may be.
    async fn weigh_files(self: &Arc<Self>, fleets: &[(Key, Arc<Fleet>)]) {
        for (_, fleet) in fleets.iter().filter(|(_, it)| it.called.function.kind() == Kind::Service) {
            let running = fleet.lock().running.clone();
            for it in running {
                if it.instance.is_full().await {
                    self.blocked(&fleet.called, &it, Error::Full).await;
                }
            }
        }
    }

    /// Looks what memory all of them use: one that is nearly full is replaced, and where all use too much some make room.
    async fn weigh(&self, fleets: &[(Key, Arc<Fleet>)]) {
        let all: Vec<_> = fleets
            .iter()
            .flat_map(|(key, fleet)| {
                let most = u64::from(fleet.called.function.limits().memory_mb) << 20;
                let running = fleet.lock().running.clone();
                running.into_iter().map(move |it| (key.env, most, it))
            })
            .collect();
        let usages = all.iter().map(|(_, _, it)| timeout(ANSWER, it.instance.usage()));
        let usages = futures::future::join_all(usages).await;
        let mut memory: HashMap<EnvId, u64> = HashMap::new();
        for ((env, most, it), usage) in all.iter().zip(usages) {
            let Ok(Ok(usage)) = usage else { continue };
            *memory.entry(*env).or_default() += usage.memory_bytes;
            if usage.memory_bytes as f64 > FULL * *most as f64 {
                leave(it);
            }
        }
        let used: u64 = memory.values().sum();
        let each = used / all.len().max(1) as u64;
        let surplus = used.saturating_sub(self.limits.memory_bytes).checked_div(each).unwrap_or(0);
        if surplus == 0 {
            return;
        }
        // Whose processes use most make room first, those that have waited longest.
        let mut idle: Vec<_> = all.iter().filter(|(_, _, it)| it.in_flight() == 0).collect();
        let of = |env: &EnvId| memory.get(env).copied().unwrap_or_default();
        idle.sort_by_key(|(env, _, it)| (Reverse(of(env)), Reverse(it.idle())));
        idle.iter().take(surplus as usize).for_each(|(_, _, it)| leave(it));
    }

    /// Asks a process at work how it is, and ends one that has not answered for too long.
    fn ask(self: &Arc<Self>, fleet: &Arc<Fleet>, running: &Arc<Running>) {
        // A service is looked at when it has not answered in time: it has nobody inside who would say how it is.
        if fleet.called.function.kind() == Kind::Service {
            return;
        }
        if running.silent() > BLOCKED {
            let (inner, fleet, running) = (Arc::clone(self), Arc::clone(fleet), Arc::clone(running));
            let error = Error::Blocked(running.silent());
            tokio::spawn(async move { inner.blocked(&fleet.called, &running, error).await });
            return;
        }
        let mut asked = running.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if asked.is_some() {
            return;
        }
        *asked = Some(Instant::now());
        drop(asked);
        let running = Arc::clone(running);
        tokio::spawn(async move {
            // One that answers wrongly is none the better for it.
            if running.instance.ping().await.is_ok() {
                *running.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
            }
        });
    }

    async fn forget_unused(&self, fleets: &[(Key, Arc<Fleet>)]) {
        let unused = |fleet: &Fleet| {
            let state = fleet.lock();
            state.running.is_empty()
                && state.starting == 0
                && state.used.is_some_and(|used| used.elapsed() > KEPT)
        };
        for (key, _) in fleets.iter().filter(|(_, fleet)| unused(fleet)) {
            let gone = {
                let mut all = self.fleets();
                self.known.forget_one(key.env, &key.name);
                // Somebody may have asked since, or be about to.
                if !all.get(key).is_some_and(|fleet| Arc::strong_count(fleet) <= 2 && unused(fleet)) {
                    continue;
                }
                all.remove(key);
                let is_needed = all.keys().any(|it| it.env == key.env && it.version == key.version);
                (!is_needed).then(|| self.artifacts.forget(key.env, &key.version))
            };
            if let Some(gone) = gone
                && let Err(error) = gone.await
            {
                tracing::warn!(error = error.chain(), "files of a function are left");
            }
        }
    }
}

/// Gives a process nothing more to do, and ends it when what it does is done.
pub(crate) fn leave(running: &Arc<Running>) {
    if running.leaving.swap(true, Ordering::SeqCst) {
        return;
    }
    let running = Arc::clone(running);
    tokio::spawn(async move {
        // One that has just been given a request is sent it before it hears that it is to go: it closes what lies idle then.
        tokio::time::sleep(ON_ITS_WAY).await;
        // A function ends by itself what it works on then, and a service may not.
        let most = if running.instance.drains() { EVERY } else { DRAIN_OF_SERVICES };
        let done = async {
            while running.in_flight() > 0 && !running.instance.has_ended() {
                tokio::time::sleep(ON_ITS_WAY).await;
            }
        };
        let _ = timeout(most, done).await;
        if let Err(error) = running.instance.stop(DRAIN).await {
            tracing::warn!(error = error.chain(), "a function's sandbox could not be ended");
        }
    });
}
