//! The clock of all apps' schedules. The control plane knows when each is due, so that no environment is opened before its
//! time, and of many gateways one runs it.

mod bell;
mod run;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capabilities::logs::{Entry, Level, Source};
use capabilities::schedules::{Missed, Overlap, ScheduleName, ScheduleSpec};
use kernel::{CallId, Env, EnvId, Result, Timestamp};
use mcp_server::platform::Platform;
use store::{Beside, Due, Fired, Firing, ScheduleRow, Schedules};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bell::Bell;

use crate::events::Messenger;

/// How long it sleeps at most: others who have the same control plane ring no bell here.
const POLL: Duration = Duration::from_secs(5);

/// How long a time that was slept through counts as kept.
const GRACE: Duration = Duration::from_secs(60);

/// How long a run is its gateway's without being renewed, and how often it is.
const LEASE: Duration = Duration::from_secs(30);
const RENEWED: Duration = Duration::from_secs(10);

/// Runs at once, of all environments and of one. Others wait for their turn.
const MOST: usize = 1_000;
const MOST_OF_ENV: usize = 10;

/// Rows that are read at a time.
const PAGE: i64 = 500;

/// The clock.
pub struct Clock {
    platform: Arc<Platform>,
    bell: Bell,
    messenger: Arc<Messenger>,
    busy: Mutex<Busy>,
    /// There is room for another, or others are due.
    wake: Notify,
    running: TaskTracker,
    stop: CancellationToken,
}

/// What is being looked after.
#[derive(Default)]
struct Busy {
    all: HashSet<Key>,
    of_env: HashMap<EnvId, usize>,
}

/// How long an environment whose schedule could not be run holds its place, until the next try.
const AGAIN: Duration = Duration::from_secs(10);

/// A schedule, and a time of it.
type Key = (EnvId, String, i64);

/// A place among what is being looked after. Dropped it is another's.
struct Place {
    clock: Arc<Clock>,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = self.clock.busy();
        busy.all.remove(&self.key);
        if let Some(of_env) = busy.of_env.get_mut(&self.key.0) {
            *of_env -= 1;
            if *of_env == 0 {
                busy.of_env.remove(&self.key.0);
            }
        }
        drop(busy);
        self.clock.wake.notify_one();
    }
}

impl Clock {
    /// Goes until `stop`. Whoever rings `bell` has it look at an environment's schedules, and `messenger` at its events.
    pub fn start(
        platform: Arc<Platform>,
        bell: Bell,
        messenger: Arc<Messenger>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let clock = Arc::new(Self {
            platform,
            bell,
            messenger,
            busy: Mutex::default(),
            wake: Notify::new(),
            running: TaskTracker::new(),
            stop,
        });
        tokio::spawn(Arc::clone(&clock).listen());
        tokio::spawn(Arc::clone(&clock).go());
        clock
    }

    /// Waits until nothing runs any more; to be called when it is to stop.
    pub async fn closed(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// By itself: an environment whose database does not answer holds up no other's schedules.
    async fn listen(self: Arc<Self>) {
        while self.stop.run_until_cancelled(self.bell.heard()).await.is_some() {
            for env in self.bell.rung() {
                if let Err(error) = self.settle(&env).await {
                    // Upkeep rings again.
                    tracing::warn!(env.id = %env.id(), error = error.chain(), "schedules could not be noted");
                }
                self.wake.notify_one();
                if let Err(error) = self.messenger.settle(&env).await {
                    tracing::warn!(env.id = %env.id(), error = error.chain(), "events could not be looked at");
                }
            }
        }
    }

    async fn go(self: Arc<Self>) {
        loop {
            let wait = match self.look().await {
                Ok(soonest) => until(soonest),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "it could not be looked for what is due");
                    POLL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedules(&self) -> Schedules<'_> {
        self.platform.control.store().schedules()
    }

    /// Begins what is due, and tells when the next is.
    async fn look(self: &Arc<Self>) -> Result<Option<Timestamp>> {
        let now = Timestamp::now();
        let mut after = Timestamp::from_micros(i64::MIN);
        loop {
            let waiting = self.schedules().waiting(now, after, PAGE).await?;
            let Some(last) = waiting.last().filter(|_| waiting.len() as i64 == PAGE) else {
                waiting.into_iter().for_each(|firing| self.go_on(firing));
                break;
            };
            after = last.due;
            waiting.into_iter().for_each(|firing| self.go_on(firing));
        }
        let mut after = None;
        loop {
            let due = self.schedules().due(now, after.as_ref(), PAGE).await?;
            let is_last = (due.len() as i64) < PAGE;
            after = due.last().cloned();
            for due in due {
                let Some(place) = self.place(&due) else { continue };
                let clock = Arc::clone(self);
                self.running.spawn(async move {
                    let outcome = clock.begin(&due).await;
                    clock.told(&due, outcome, place).await;
                });
            }
            if is_last {
                break;
            }
        }
        Ok(self.schedules().soonest(now).await?)
    }

    fn go_on(self: &Arc<Self>, firing: Firing) {
        let Some(place) = self.place(&firing.of) else { return };
        let clock = Arc::clone(self);
        self.running.spawn(async move {
            let outcome = clock.again(&firing).await;
            clock.told(&firing.of, outcome, place).await;
        });
    }

    /// Gives a place back; where nothing could be done it is tried again after a while.
    async fn told(&self, of: &Due, outcome: Result<()>, place: Place) {
        if let Err(error) = outcome {
            tracing::warn!(env.id = %of.env, schedule = of.name, error = error.chain(), "a schedule could not be run");
            let _ = self.stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
        drop(place);
    }

    /// A place for a time of a schedule, where it is this gateway's to look after, nobody does, and there is room.
    fn place(self: &Arc<Self>, of: &Due) -> Option<Place> {
        // Another gateway has the others.
        if !self.platform.environments_dir.join(of.env.to_string()).is_dir() || self.stop.is_cancelled() {
            return None;
        }
        let key = (of.env, of.name.clone(), of.at.as_micros());
        let mut busy = self.busy();
        let of_env = busy.of_env.get(&of.env).copied().unwrap_or_default();
        if busy.all.len() >= MOST || of_env >= MOST_OF_ENV || !busy.all.insert(key.clone()) {
            return None;
        }
        busy.of_env.insert(of.env, of_env + 1);
        drop(busy);
        Some(Place { clock: Arc::clone(self), key })
    }

    /// Has the control plane know the schedules that run in an environment, and no others; and tells them.
    async fn settle(&self, env: &Env) -> Result<BTreeMap<ScheduleName, ScheduleSpec>> {
        if !self.platform.environments_dir.join(env.id().to_string()).is_dir() {
            return Ok(BTreeMap::new());
        }
        let running = self.platform.releases.scheduled(env).await?.running();
        let (now, known) = (Timestamp::now(), self.schedules().list(env.id()).await?);
        let rows = running.iter().map(|(name, it)| row(name.as_str(), it, &known, now));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        self.schedules().settle(env.id(), &rows).await?;
        Ok(running)
    }

    /// The schedule as the live release has it; where that has none, or one of other times, the control plane learns so.
    async fn current(&self, env: &Env, name: &str) -> Result<Option<ScheduleSpec>> {
        let mut running = self.settle(env).await?;
        Ok(name.parse().ok().and_then(|name: ScheduleName| running.remove(&name)))
    }

    /// Runs a schedule that is due, where it is to run.
    async fn begin(&self, of: &Due) -> Result<()> {
        let env = Env::for_upkeep(of.tenant, of.env);
        let Some(spec) = self.current(&env, &of.name).await? else { return Ok(()) };
        let (timing, now) = (spec.timing()?, Timestamp::now());
        let next = timing.next(now.max(of.at));
        let is_late = now > of.at.plus(GRACE);
        if is_late && spec.missed == Missed::Skip {
            if self.schedules().pass(of, next, "missed: it could not be run in time").await? {
                let message = format!(
                    "the schedule {} has missed its time of {}: it could not be run in time",
                    of.name, of.at
                );
                self.say(&env, Level::Warn, message, &of.name, &spec, None);
            }
            return Ok(());
        }
        let tick = if is_late { timing.last(now).unwrap_or(of.at) } else { of.at };
        let beside = match spec.overlap {
            Overlap::Skip => Beside::Nothing,
            Overlap::Allow => Beside::Runs,
        };
        match self.schedules().claim(of, tick, next, beside, now.plus(LEASE)).await? {
            Fired::Here(firing) => self.run(&env, &spec, &firing).await,
            Fired::Overlaps => {
                let message = format!("the schedule {} skips {}: its last run is not over", of.name, of.at);
                self.say(&env, Level::Warn, message, &of.name, &spec, None);
                Ok(())
            }
            Fired::Gone => Ok(()),
        }
    }

    /// Goes on with a run whose next attempt is due, or that somebody has died over.
    async fn again(&self, firing: &Firing) -> Result<()> {
        let env = Env::for_upkeep(firing.of.tenant, firing.of.env);
        let spec = self.current(&env, &firing.of.name).await?;
        let until = Timestamp::now().plus(LEASE);
        let Some(taken) = self.schedules().take(firing, until).await? else { return Ok(()) };
        // A release without it: what was left of it goes.
        let Some(spec) = spec else {
            return self.schedules().over(&taken, "").await.map(drop).map_err(Into::into);
        };
        if firing.running && firing.attempt > i64::from(spec.retries) {
            let why = "failed: the platform ended while it ran";
            self.schedules().over(&taken, why).await?;
            let message =
                format!("the schedule {} has failed: the platform ended while it ran", firing.of.name);
            self.say(&env, Level::Error, message, &firing.of.name, &spec, None);
            return Ok(());
        }
        self.run(&env, &spec, &taken).await
    }

    fn say(
        &self,
        env: &Env,
        level: Level,
        message: String,
        name: &str,
        spec: &ScheduleSpec,
        id: Option<CallId>,
    ) {
        let mut entry = Entry::new(Timestamp::now(), level, Source::Function, message);
        entry.request_id = id.map(|id| id.to_string());
        entry.fields.insert("function".to_owned(), spec.function.as_str().into());
        entry.fields.insert("schedule".to_owned(), name.into());
        self.platform.logs.append(env, entry);
    }
}

/// What the control plane is to know of a schedule. When it is due is looked for where that is not `known`.
fn row(name: &str, it: &ScheduleSpec, known: &[ScheduleRow], now: Timestamp) -> Result<ScheduleRow> {
    let timezone = it.timezone.clone().unwrap_or_else(|| "UTC".to_owned());
    let same = |row: &&ScheduleRow| row.name == name && row.cron == it.cron && row.timezone == timezone;
    if let Some(known) = known.iter().find(same) {
        return Ok(known.clone());
    }
    let due = it.timing()?.next(now);
    Ok(ScheduleRow { name: name.to_owned(), cron: it.cron.clone(), timezone, due, last: None })
}

/// How long to sleep where the next one is due then.
fn until(soonest: Option<Timestamp>) -> Duration {
    let left = soonest.map(|at| at.as_micros().saturating_sub(Timestamp::now().as_micros()));
    left.map_or(POLL, |left| Duration::from_micros(u64::try_from(left).unwrap_or_default()).min(POLL))
}
