//! Tells functions of the events that wait for them in the databases of their apps. Each database says by itself when some
//! were committed; the control plane knows whose functions listen, for what an earlier program has left.

mod lanes;
mod telling;
mod tending;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capabilities::events::Events;
use kernel::{Env, EnvId, Result, Timestamp};
use mcp_server::platform::Platform;
use store::Listeners;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked for what another gateway has left, and for what could not be looked at.
const POLL: Duration = Duration::from_secs(5);

/// Tells functions of events.
pub struct Messenger {
    platform: Arc<Platform>,
    events: Events,
    /// The environments that are looked after, and what rings where there is something new for them.
    busy: Mutex<HashMap<EnvId, Arc<Notify>>>,
    /// Those that could not be looked at.
    missed: Mutex<HashSet<EnvId>>,
    room: Arc<Semaphore>,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Messenger {
    /// Goes until `stop`.
    pub fn start(platform: Arc<Platform>, stop: CancellationToken) -> Arc<Self> {
        let messenger = Arc::new(Self {
            events: Events::new(Arc::clone(&platform.databases)),
            platform,
            busy: Mutex::default(),
            missed: Mutex::default(),
            room: Arc::new(Semaphore::new(tending::MOST)),
            running: TaskTracker::new(),
            stop,
        });
        tokio::spawn(Arc::clone(&messenger).go());
        messenger
    }

    /// Waits until nobody is told anything any more; to be called when it is to stop.
    pub async fn closed(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Looks whether an environment has something for its functions, and has the control plane know whether they listen.
    ///
    /// # Errors
    /// Where a database fails; it is looked again then.
    pub async fn settle(self: &Arc<Self>, env: &Env) -> Result<()> {
        if !self.is_here(env.id()) {
            return Ok(());
        }
        let settled = self.settled(env).await;
        if settled.is_err() {
            self.missed().insert(env.id());
        }
        settled
    }

    async fn settled(self: &Arc<Self>, env: &Env) -> Result<()> {
        let standing = self.events.standing(env).await?;
        if standing.listens || standing.waits {
            self.listeners().add(env.id()).await?;
        } else {
            self.listeners().remove(env.id(), Timestamp::now()).await?;
        }
        if standing.waits {
            self.wake(env);
        }
        Ok(())
    }

    async fn go(self: Arc<Self>) {
        let noted = self.platform.databases.noted();
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut begun = false;
        loop {
            tokio::select! {
                envs = noted.heard() => self.heard(envs).await,
                _ = poll.tick() => self.look(&mut begun).await,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Looks for what was missed, and for what an earlier program, or another gateway, has left: at first wherever anybody
    /// listens.
    async fn look(self: &Arc<Self>, begun: &mut bool) {
        let missed = std::mem::take(&mut *self.missed());
        self.heard(missed).await;
        let listeners = self.listeners();
        let left = if *begun { listeners.left(Timestamp::now()).await } else { listeners.all().await };
        match left {
            Ok(left) => {
                *begun = true;
                for (tenant, env) in left {
                    // Whoever rests here knows until when.
                    if !self.busy().contains_key(&env) {
                        self.wake(&Env::for_upkeep(tenant, env));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "it could not be looked for events that wait"),
        }
    }

    /// Events of environments were committed.
    async fn heard(self: &Arc<Self>, envs: HashSet<EnvId>) {
        for env in envs {
            if let Some(there) = self.busy().get(&env) {
                there.notify_one();
                continue;
            }
            match self.platform.control.environments().find(&env.to_string()).await {
                Ok(Some(found)) => self.wake(&Env::for_upkeep(found.tenant, found.env)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(env.id = %env, error = error.chain(), "events could not be looked at");
                    self.missed().insert(env);
                }
            }
        }
    }

    fn busy(&self) -> MutexGuard<'_, HashMap<EnvId, Arc<Notify>>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missed(&self) -> MutexGuard<'_, HashSet<EnvId>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> Listeners<'_> {
        self.platform.control.store().listeners()
    }

    /// Another gateway has the others.
    fn is_here(&self, env: EnvId) -> bool {
        self.platform.environments_dir.join(env.to_string()).is_dir()
    }

    /// Has an environment be looked at, by whoever does so already, else by a task of its own.
    fn wake(self: &Arc<Self>, env: &Env) {
        if !self.is_here(env.id()) || self.stop.is_cancelled() {
            return;
        }
        let mut busy = self.busy();
        if let Some(there) = busy.get(&env.id()) {
            there.notify_one();
            return;
        }
        let bell = Arc::new(Notify::new());
        busy.insert(env.id(), Arc::clone(&bell));
        drop(busy);
        let (messenger, env) = (Arc::clone(self), env.clone());
        self.running.spawn(async move { messenger.tend(&env, &bell).await });
    }

    /// Lets an environment go in which nothing waits.
    async fn leave(self: &Arc<Self>, env: &Env) {
        self.busy().remove(&env.id());
        if !self.is_here(env.id()) {
            return;
        }
        // What was noted since it was looked last has rung here, where nobody hears it any more.
        match self.events.standing(env).await {
            Ok(standing) if standing.waits => self.wake(env),
            Err(_) if self.is_here(env.id()) => drop(self.missed().insert(env.id())),
            _ => {}
        }
    }
}
