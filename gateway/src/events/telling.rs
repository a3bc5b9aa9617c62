//! Telling a function of one event after the other, and what comes of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capabilities::events::{Event, Fate, Lane};
use capabilities::functions::EventSpec;
use capabilities::logs::{Entry, Level, Source};
use functions::{Called, InVain, Notice};
use futures::FutureExt as _;
use kernel::{CallId, Env, Result, Timestamp};
use tokio::time::timeout;

use super::Messenger;
use super::lanes::{Memory, rest};

/// How long is waited before each attempt after the first.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// How long a function is told until others have their turn, and how long there is between two events at least.
const SLICE: Duration = Duration::from_secs(10);
const APART: Duration = Duration::from_millis(5);

/// How long it may take to tell it of one until those that wait are looked at anew.
const FRESH: Duration = Duration::from_secs(1);

/// How long it waits to be noted that a function was told of one where it is being told of the next.
const SOON: Duration = Duration::from_millis(50);

/// For how long an event waits for a process of its function before that counts as an attempt.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many times functions may set each other off in a row.
const DEEPEST: u8 = 8;

/// What has come of telling a function of one.
enum Told {
    Yes(u128),
    /// The function does not listen to it any more.
    Nobody,
    InVain {
        why: InVain,
        retries: u8,
    },
}

/// What comes next.
enum Next {
    /// That has come of it.
    Settled(Fate),
    /// Nobody listens to it any more.
    Dropped,
    /// The function was not asked, which is not its fault.
    Later,
}

impl Messenger {
    /// Tells a function what waits for it in a lane, in order. Where it rests before it goes on, until when.
    ///
    /// # Errors
    /// Where it was broken off. What the function was told of is not told again for that: `memory` has it.
    pub(super) async fn lane(
        &self,
        env: &Env,
        lane: &Lane,
        memory: &mut Memory,
    ) -> Result<Option<Timestamp>> {
        let outcome = self.slice(env, lane, memory).await;
        self.settle_lane(env, lane, memory).await?;
        let dropped = std::mem::take(&mut memory.dropped);
        if dropped > 0 {
            let name = &lane.function;
            let message = format!("{dropped} events were dropped that {name} does not listen to any more");
            self.say(env, lane, Level::Warn, message);
        }
        outcome
    }

    async fn slice(&self, env: &Env, lane: &Lane, memory: &mut Memory) -> Result<Option<Timestamp>> {
        let begun = Instant::now();
        loop {
            self.settle_lane(env, lane, memory).await?;
            let next = self.events.next(env, lane).await?;
            if next.is_empty() {
                return Ok(None);
            }
            for event in next {
                if self.stop.is_cancelled() || begun.elapsed() >= SLICE {
                    return Ok(None);
                }
                if event.due > Timestamp::now() {
                    return Ok(Some(event.due));
                }
                let apart = Instant::now() + APART;
                let fate = match self.one_while_settling(env, lane, &event, memory).await? {
                    Next::Settled(fate) => fate,
                    Next::Dropped => {
                        memory.dropped += 1;
                        memory.settled.push(event.settled(Fate::Over));
                        continue;
                    }
                    Next::Later => {
                        memory.failures += 1;
                        return Ok(Some(Timestamp::now().plus(rest(memory.failures))));
                    }
                };
                memory.failures = 0;
                let due = if let Fate::Again { due, .. } = &fate { Some(*due) } else { None };
                memory.settled.push(event.settled(fate));
                if due.is_some() {
                    return Ok(due);
                }
                // What was read so long ago may be gone meanwhile, with a return to a snapshot.
                if apart.elapsed() > FRESH {
                    break;
                }
                tokio::time::sleep_until(apart.into()).await;
            }
        }
    }

    /// Notes what has come of events of a lane.
    async fn settle_lane(&self, env: &Env, lane: &Lane, memory: &mut Memory) -> Result<()> {
        self.events.settle(env, lane, &memory.settled).await?;
        memory.settled.clear();
        Ok(())
    }

    /// Tells it of one. Where that takes its time, what came of those before is noted meanwhile.
    async fn one_while_settling(
        &self,
        env: &Env,
        lane: &Lane,
        event: &Event,
        memory: &mut Memory,
    ) -> Result<Next> {
        let one = self.one(env, lane, event);
        tokio::pin!(one);
        if memory.settled.is_empty() {
            return one.await;
        }
        match timeout(SOON, &mut one).await {
            Ok(next) => next,
            // What could not be noted is once more, before the lane goes on.
            Err(_) => tokio::join!(one, self.settle_lane(env, lane, memory)).0,
        }
    }

    /// Tells it of one.
    async fn one(&self, env: &Env, lane: &Lane, event: &Event) -> Result<Next> {
        let id = CallId::new();
        let what = format!("{} of {}", event.did, if lane.about.is_empty() { "a user" } else { &lane.about });
        let say = |level, message| self.say_of(env, lane, event, level, message, id);
        if event.depth > DEEPEST {
            let why = format!("functions have set each other off more than {DEEPEST} times in a row");
            let name = &lane.function;
            say(
                Level::Error,
                format!("{name} is not told of {what}: {why}; look for one that changes what it listens to"),
            );
            return Ok(Next::Settled(Fate::GivenUp { why }));
        }
        let told = AssertUnwindSafe(self.tell(env, lane, event, id)).catch_unwind().await;
        let (why, retries) = match told {
            Ok(Ok(Told::Nobody)) => return Ok(Next::Dropped),
            Ok(Ok(Told::Yes(took))) => {
                say(Level::Debug, format!("{} was told of {what} in {took} ms", lane.function));
                return Ok(Next::Settled(Fate::Over));
            }
            Ok(Ok(Told::InVain { why, retries })) => (why, retries),
            Ok(Err(error)) => return Err(error),
            Err(_) => (InVain { why: "the platform has failed at it".to_owned(), reached: true }, u8::MAX),
        };
        // It was not the function that failed.
        if self.stop.is_cancelled() || !self.is_open(env).await? {
            return Ok(Next::Later);
        }
        let InVain { why, reached } = why;
        let why = self.platform.masks.cover(env.id(), &why).into_owned();
        let is_old = Timestamp::parse(&event.at).is_none_or(|at| at.plus(PATIENCE) < Timestamp::now());
        if !reached && !is_old {
            let name = &lane.function;
            say(Level::Warn, format!("{name} could not be told of {what} yet: {why}"));
            return Ok(Next::Later);
        }
        let attempt = usize::try_from(event.attempt).unwrap_or(usize::MAX);
        let pause = PAUSES[..usize::from(retries).min(PAUSES.len())].get(attempt);
        let message = format!("{} was told of {what} in vain, and is", lane.function);
        Ok(Next::Settled(match pause {
            None => {
                say(Level::Error, format!("{message} not told again: {why}"));
                Fate::GivenUp { why }
            }
            Some(pause) => {
                let due = Timestamp::now().plus(*pause);
                say(Level::Error, format!("{message} told again at {due}: {why}"));
                Fate::Again { due, why }
            }
        }))
    }

    async fn tell(&self, env: &Env, lane: &Lane, event: &Event, id: CallId) -> Result<Told> {
        let Some(live) = self.platform.releases.committed(env).await? else { return Ok(Told::Nobody) };
        let Some((name, function)) = live.functions.iter().find(|(name, _)| name.as_str() == lane.function)
        else {
            return Ok(Told::Nobody);
        };
        let listens = |it: &&EventSpec| {
            it.on.as_str() == lane.on
                && it.about().eq_ignore_ascii_case(&lane.about)
                && it.told().iter().any(|did| did.as_str() == event.did)
        };
        let Some(spec) = function.settings.events.iter().find(listens) else { return Ok(Told::Nobody) };
        let table = live.app.table(&lane.about).filter(|_| lane.on == "rows");
        let notice = Notice {
            what: &format!("{}.{}", lane.on, event.did),
            at: &event.at,
            attempt: event.attempt + 1,
            depth: event.depth,
            body: event.body(lane, table.map(Arc::as_ref)),
        };
        let called = Called {
            env: env.clone(),
            name: name.clone(),
            function: Arc::clone(function),
            variables: Arc::clone(&live.variables),
        };
        let begun = Instant::now();
        match self.platform.functions.run(&called, notice.asking(id.to_string())).await {
            Ok(()) => Ok(Told::Yes(begun.elapsed().as_millis())),
            Err(why) => Ok(Told::InVain { why, retries: spec.retries }),
        }
    }

    fn say_of(&self, env: &Env, lane: &Lane, event: &Event, level: Level, message: String, id: CallId) {
        let mut entry = entry(lane, level, message);
        entry.request_id = Some(id.to_string());
        entry.fields.insert("event".to_owned(), event.id.as_str().into());
        self.platform.logs.append(env, entry);
    }

    fn say(&self, env: &Env, lane: &Lane, level: Level, message: String) {
        self.platform.logs.append(env, entry(lane, level, message));
    }
}

fn entry(lane: &Lane, level: Level, message: String) -> Entry {
    let mut entry = Entry::new(Timestamp::now(), level, Source::Function, message);
    entry.fields.insert("function".to_owned(), lane.function.as_str().into());
    entry
}
