//! Looking after one environment: whose turn it is to tell its functions, and which of its lanes are told when.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capabilities::events::{Lane, MOST as MOST_WAITING};
use capabilities::logs::{Entry, Level, Source};
use futures::FutureExt as _;
use kernel::{Env, Error, Result, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinSet;

use super::Messenger;
use super::lanes::{Lanes, Memory, rest};

/// How long an environment is this gateway's to tell without being renewed, and how often it is.
const LEASE: Duration = Duration::from_secs(15);
const RENEWED: Duration = Duration::from_secs(5);

/// How long it stays so with nothing to tell: what comes then costs the control plane nothing.
const LINGER: Duration = Duration::from_secs(5);

/// How long it is waited for more that comes at the same time.
const GATHERED: Duration = Duration::from_millis(10);

/// How soon it is looked again whether another gateway is done with an environment, or has noted something there.
const AGAIN: Duration = Duration::from_secs(1);

/// Lanes that are told at once, of all environments and of one. Half of the first are for environments of which none is.
pub(super) const MOST: usize = 400;
const MOST_OF_ENV: usize = 8;

/// How long an environment keeps its places while others wait for one.
const KEPT: Duration = Duration::from_secs(10);

/// When it is looked at an environment again.
enum Next {
    /// Where something is noted.
    Rung,
    /// After that long, or where something is noted.
    Rest(Duration),
    /// Another gateway has the turn.
    Taken,
    /// When the environment can be used again, whoever opens it rings.
    Closed,
}

/// A turn to tell the functions of an environment, which no other gateway has meanwhile.
struct Turn {
    until: Timestamp,
    renewed: Instant,
}

/// What has come of telling a lane.
type Told = (Lane, Memory, Result<Option<Timestamp>>, OwnedSemaphorePermit);

impl Messenger {
    /// Tells the functions of an environment until nothing waits there.
    pub(super) async fn tend(self: &Arc<Self>, env: &Env, bell: &Notify) {
        let (mut lanes, mut failures) = (Lanes::default(), 0);
        loop {
            let next = self.round(env, bell, &mut lanes).await;
            if self.stop.is_cancelled() {
                return;
            }
            let pause = match next {
                Ok(Next::Rung) => return self.leave(env).await,
                Ok(Next::Closed) => return drop(self.busy().remove(&env.id())),
                _ if !self.is_here(env.id()) => return self.leave(env).await,
                Ok(Next::Rest(pause)) => {
                    failures = 0;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        // What comes in quick succession is looked at once.
                        () = bell.notified() => tokio::time::sleep(GATHERED).await,
                        () = self.stop.cancelled() => return,
                    }
                    continue;
                }
                Ok(Next::Taken) => AGAIN,
                Err(error) => {
                    tracing::warn!(env.id = %env.id(), error = error.chain(), "functions could not be told of events");
                    failures += 1;
                    rest(failures)
                }
            };
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Where something is to be told now, takes the turn and tells it. It holds no turn, and no place, while it waits.
    async fn round(self: &Arc<Self>, env: &Env, bell: &Notify, lanes: &mut Lanes) -> Result<Next> {
        let next = |lanes: &Lanes| lanes.rest().map_or(Next::Rung, Next::Rest);
        if !self.is_open(env).await? {
            return Ok(Next::Closed);
        }
        // More may come while all of them rest.
        self.trim(env, lanes).await?;
        if lanes.ready(self.events.lanes(env).await?).is_empty() {
            return Ok(next(lanes));
        }
        let place = self.stop.run_until_cancelled(Arc::clone(&self.room).acquire_owned()).await;
        let Some(Ok(place)) = place else { return Ok(Next::Taken) };
        self.listeners().add(env.id()).await?;
        let now = Timestamp::now();
        let mut turn = Turn { until: now.plus(LEASE), renewed: Instant::now() };
        if !self.listeners().take(env.id(), now, turn.until).await? {
            return Ok(Next::Taken);
        }
        let told = self.turn(env, bell, &mut turn, lanes, place).await;
        // Where something waits, whoever is there then is to look.
        let left = if lanes.rest().is_some() { Timestamp::now() } else { Timestamp::from_micros(0) };
        self.listeners().renew(env.id(), turn.until, left).await?;
        told.map(|()| next(lanes))
    }

    /// Has each lane be told beside the others, as long as there is something to tell. One that rests holds up none, and
    /// neither does one that is broken off.
    async fn turn(
        self: &Arc<Self>,
        env: &Env,
        bell: &Notify,
        turn: &mut Turn,
        lanes: &mut Lanes,
        place: OwnedSemaphorePermit,
    ) -> Result<()> {
        let mut telling: JoinSet<Told> = JoinSet::new();
        let mut places = vec![place];
        let (begun, mut worked) = (Instant::now(), Instant::now());
        let outcome = loop {
            let ready: Result<Vec<Lane>> = async {
                self.trim(env, lanes).await?;
                Ok(lanes.ready(self.events.lanes(env).await?))
            }
            .await;
            let ready = match ready {
                Ok(ready) => ready,
                Err(error) if telling.is_empty() => break Err(error),
                // Those that are being told go on.
                Err(error) => {
                    tracing::warn!(env.id = %env.id(), error = error.chain(), "events could not be looked at");
                    Vec::new()
                }
            };
            for lane in ready.iter().take(MOST_OF_ENV.saturating_sub(lanes.active())) {
                let Some(place) = places.pop().or_else(|| self.place(lanes)) else { break };
                self.begin(&mut telling, env, lane.clone(), lanes.begin(lane), place);
            }
            places.clear();
            if !telling.is_empty() {
                worked = Instant::now();
            } else if !ready.is_empty() || worked.elapsed() >= LINGER {
                break Ok(());
            }
            tokio::select! {
                Some(Ok((lane, memory, told, place))) = telling.join_next(), if !telling.is_empty() => {
                    if begun.elapsed() < KEPT {
                        places.push(place);
                    }
                    ended(env, lanes, lane, memory, told);
                }
                () = bell.notified() => tokio::time::sleep(GATHERED).await,
                // Those that have no place get one where another lane has come to its end.
                () = tokio::time::sleep(lanes.next().unwrap_or(AGAIN).min(AGAIN)) => {}
                () = self.stop.cancelled() => break Ok(()),
            }
            if turn.renewed.elapsed() >= RENEWED && !self.renewed(env, turn).await {
                break Ok(());
            }
        };
        // What is under way comes to its end, or the functions' own.
        while let Some(told) = telling.join_next().await {
            if let Ok((lane, memory, told, _)) = told {
                ended(env, lanes, lane, memory, told);
            }
        }
        outcome
    }

    /// Whether the environment can be used: its tenant is active.
    pub(super) async fn is_open(&self, env: &Env) -> Result<bool> {
        Ok(self.platform.control.environments().find(&env.id().to_string()).await?.is_some())
    }

    /// Has a lane be told by a task of its own.
    fn begin(
        self: &Arc<Self>,
        telling: &mut JoinSet<Told>,
        env: &Env,
        lane: Lane,
        mut memory: Memory,
        place: OwnedSemaphorePermit,
    ) {
        let (messenger, env) = (Arc::clone(self), env.clone());
        telling.spawn(async move {
            let told = AssertUnwindSafe(messenger.lane(&env, &lane, &mut memory)).catch_unwind().await;
            let told = told.unwrap_or_else(|_| Err(Error::internal("telling a function has panicked")));
            (lane, memory, told, place)
        });
    }

    /// A place for one more lane of an environment.
    fn place(&self, lanes: &Lanes) -> Option<OwnedSemaphorePermit> {
        let free = self.room.available_permits();
        let may = lanes.active() == 0 || free > MOST / 2;
        Arc::clone(&self.room).try_acquire_owned().ok().filter(|_| may)
    }

    /// Whether the turn is still this gateway's. A control plane that does not answer may do so the next time.
    async fn renewed(&self, env: &Env, turn: &mut Turn) -> bool {
        let now = Timestamp::now();
        let until = now.plus(LEASE);
        match self.listeners().renew(env.id(), turn.until, until).await {
            Ok(true) => {
                *turn = Turn { until, renewed: Instant::now() };
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(env.id = %env.id(), %error, "the turn to tell functions could not be renewed");
                now < turn.until
            }
        }
    }

    /// Takes the oldest away where more wait than may. It is looked now and then.
    async fn trim(&self, env: &Env, lanes: &mut Lanes) -> Result<()> {
        if lanes.trimmed.is_some_and(|at| at.elapsed() <= RENEWED) {
            return Ok(());
        }
        lanes.trimmed = Some(Instant::now());
        for (lane, gone) in self.events.trim(env).await? {
            let (function, of) =
                (&lane.function, if lane.about.is_empty() { "users" } else { lane.about.as_str() });
            let message = format!(
                "{function} is not told of {gone} events of {of} or more: {} MB wait in this environment, and no more may",
                MOST_WAITING >> 20
            );
            self.platform
                .logs
                .append(env, Entry::new(Timestamp::now(), Level::Error, Source::Function, message));
        }
        Ok(())
    }
}

/// A lane is not being told any more.
fn ended(env: &Env, lanes: &mut Lanes, lane: Lane, mut memory: Memory, told: Result<Option<Timestamp>>) {
    let rests = told.unwrap_or_else(|error| {
        tracing::warn!(env.id = %env.id(), function = lane.function, error = error.chain(), "a function could not be told of events");
        memory.failures += 1;
        Some(Timestamp::now().plus(rest(memory.failures)))
    });
    lanes.end(lane, memory, rests);
}
