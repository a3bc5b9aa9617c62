//! The processes of one version of a function: started when somebody asks, as many as are needed, and no more than may be.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::host::{Called, Flight, Flights};
use crate::instance::Instance;
use crate::room::Room;

/// Ends of processes within [`WINDOW`] that nobody wanted, from which on it is waited before the next is started.
const CRASHES: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// How long is waited then, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Requests that may wait for a place, of a function that has few.
const LEAST_WAITING: u32 = 100;

/// All processes of one version.
pub(crate) struct Fleet {
    pub called: Called,
    state: Mutex<State>,
    pub changed: Notify,
    /// How many wait for a place.
    waiting: AtomicU32,
}

#[derive(Default)]
pub(crate) struct State {
    pub running: Vec<Arc<Running>>,
    pub starting: u32,
    /// How often all that runs was told to go: what was begun before that is not wanted when it comes.
    rounds: u64,
    /// Whether nothing is started any more.
    is_closed: bool,
    /// How many starts have failed, and what the last one has said.
    failed: (u64, Option<Arc<Error>>),
    crashes: VecDeque<Instant>,
    pause: Option<(Duration, Instant)>,
    /// When somebody has asked last.
    pub used: Option<Instant>,
}

/// A process that listens.
pub(crate) struct Running {
    pub instance: Instance,
    pub flights: Arc<Flights>,
    in_flight: AtomicU32,
    used: Mutex<Instant>,
    /// It gets nothing more to do, and ends when what it does is done.
    pub leaving: AtomicBool,
    /// When it was asked how it is, where it has not answered that.
    pub asked: Mutex<Option<Instant>>,
    _room: Room,
}

/// One that waits for a place, as long as this lives.
pub(crate) struct Waits<'a>(&'a Fleet);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A start that has begun. Dropped it has come to nothing.
pub(crate) struct Beginning {
    fleet: Arc<Fleet>,
    round: u64,
    is_over: bool,
}

impl Running {
    pub fn new(instance: Instance, flights: Arc<Flights>, room: Room) -> Self {
        Self {
            _room: room,
            instance,
            flights,
            in_flight: AtomicU32::new(0),
            used: Mutex::new(Instant::now()),
            leaving: AtomicBool::new(false),
            asked: Mutex::new(None),
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// For how long it has had nothing to do.
    pub fn idle(&self) -> Duration {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if self.in_flight() > 0 { Duration::ZERO } else { used.elapsed() }
    }

    /// For how long it has not answered how it is.
    pub fn silent(&self) -> Duration {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map_or(Duration::ZERO, |at| at.elapsed())
    }

    fn takes(&self, most: u32) -> bool {
        !self.leaving.load(Ordering::SeqCst) && !self.instance.has_ended() && self.in_flight() < most
    }
}

/// A place among what a process works on. Dropped it is another's.
pub struct Lease {
    pub(crate) running: Arc<Running>,
    fleet: Arc<Fleet>,
    id: String,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.running.flights.end(&self.id);
        *self.running.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.running.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.fleet.changed.notify_one();
    }
}

/// What is to be done for somebody who asks.
pub(crate) enum Place {
    /// A process has one.
    Here(Lease),
    /// One more process is to be started, and then looked again.
    Start(Beginning),
    /// All are at work, or one is just being started.
    Wait,
}

impl Fleet {
    pub fn new(called: Called) -> Self {
        Self { called, state: Mutex::default(), changed: Notify::new(), waiting: AtomicU32::new(0) }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody waits.
    ///
    /// # Errors
    /// [`Error::Busy`] where many do already.
    pub fn wait(&self) -> Result<Waits<'_>> {
        let limits = self.called.function.limits();
        let places = limits.concurrency.saturating_mul(limits.max_instances);
        let waits = Waits(self);
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= places.saturating_mul(2).max(LEAST_WAITING) {
            return Err(Error::Busy(limits.max_instances));
        }
        Ok(waits)
    }

    /// Has everything go that runs or is being started; with `for_good` nothing is started after it. What was running is
    /// whoever's who has called this to end.
    pub fn dismiss(&self, for_good: bool) -> Vec<Arc<Running>> {
        let mut state = self.lock();
        state.rounds += 1;
        state.is_closed |= for_good;
        let running = state.running.clone();
        drop(state);
        self.changed.notify_waiters();
        running
    }

    /// How many starts have failed so far: who waits for one sees by it whether that was in vain.
    pub fn failures(&self) -> u64 {
        self.lock().failed.0
    }

    /// What there is for a request of that id.
    ///
    /// # Errors
    /// What the last start has come to, where one has failed since `seen`, and where it is not tried again yet.
    pub fn place(self: &Arc<Self>, id: &str, flight: impl FnOnce() -> Flight, seen: u64) -> Result<Place> {
        let limits = self.called.function.limits();
        let (each, most) = (limits.concurrency, limits.max_instances);
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::Gone);
        }
        state.used = Some(Instant::now());
        let free = state.running.iter().filter(|it| it.takes(each)).min_by_key(|it| it.in_flight());
        if let Some(running) = free.cloned() {
            running.in_flight.fetch_add(1, Ordering::SeqCst);
            running.flights.begin(id, flight());
            return Ok(Place::Here(Lease { running, fleet: Arc::clone(self), id: id.to_owned() }));
        }
        if let (true, Some(error)) = (state.failed.0 > seen, &state.failed.1) {
            return Err(Error::Shared(Arc::clone(error)));
        }
        if let Some((pause, since)) = state.pause
            && let Some(left) = pause.checked_sub(since.elapsed())
        {
            let last = state.failed.1.clone();
            return Err(Error::Crashes { left, last });
        }
        let there = state.running.iter().filter(|it| !it.leaving.load(Ordering::SeqCst)).count() as u32;
        if state.starting == 0 && there < most {
            state.starting += 1;
            let (fleet, round) = (Arc::clone(self), state.rounds);
            return Ok(Place::Start(Beginning { fleet, round, is_over: false }));
        }
        Ok(Place::Wait)
    }

    /// Why somebody has had no place in time.
    pub fn without_place(&self) -> Error {
        let state = self.lock();
        if state.running.is_empty() && state.starting > 0 {
            return Error::Starting;
        }
        Error::Busy(self.called.function.limits().max_instances)
    }

    /// A process is gone; with `unwanted` nobody has told it to go.
    pub fn gone(&self, gone: &Arc<Running>, unwanted: Option<Error>) {
        let mut state = self.lock();
        state.running.retain(|it| !Arc::ptr_eq(it, gone));
        if let Some(error) = unwanted {
            state.failed.1 = Some(Arc::new(error));
            state.crashed();
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Beginning {
    /// Whose process it is to be.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// It has come to this. What is not wanted any more comes back, and is to be ended.
    pub fn over(mut self, outcome: Result<Arc<Running>>) -> Result<Arc<Running>, Option<Arc<Running>>> {
        self.is_over = true;
        let mut state = self.fleet.lock();
        state.starting = state.starting.saturating_sub(1);
        let outcome = match outcome {
            Ok(running) if state.is_closed || state.rounds != self.round => Err(Some(running)),
            Ok(running) => {
                state.running.push(Arc::clone(&running));
                Ok(running)
            }
            Err(error) => {
                state.failed = (state.failed.0 + 1, Some(Arc::new(error)));
                state.crashed();
                Err(None)
            }
        };
        drop(state);
        self.fleet.changed.notify_waiters();
        outcome
    }

    /// There is no room for it now, which is no failure of its own.
    pub fn put_off(self) {}
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.fleet.lock();
        state.starting = state.starting.saturating_sub(1);
        drop(state);
        self.fleet.changed.notify_one();
    }
}

impl State {
    /// Notes an end that nobody wanted. Where there are many it is waited before the next start, each time twice as long.
    fn crashed(&mut self) {
        let now = Instant::now();
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|at| now - *at > WINDOW) {
            self.crashes.pop_front();
        }
        // One that has gone well for a while begins anew.
        self.pause = self.pause.filter(|(pause, since)| since.elapsed() < *pause + WINDOW);
        if self.crashes.len() < CRASHES && self.pause.is_none() {
            return;
        }
        let before = self.pause.map(|(pause, _)| pause * 2);
        self.pause = Some((before.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE), now));
    }
}
