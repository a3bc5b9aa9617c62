//! One environment's subscribers: what changes is judged for each, in rounds, and laid into their outboxes in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kernel::{Code, Env, Error, LimitScope, Result, Secret};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::channels::Channels;
use super::message::Reset;
use super::outbox::{End, Frame, Outbox};
use super::places::{Place, Places};
use super::telling::{Subscription, asked_by};
use super::{RealtimeLimits, Services};
use crate::auth::Held;
use crate::database::{Changed, Feed, Since};
use crate::rows::App;

/// Changes that are judged at once.
const ROUND: usize = 500;

/// The number of those who come at once, so that a name that is given again is another's.
pub(super) type Number = u64;

/// A connection's number within its environment.
pub(super) type Id = u64;

pub(super) struct Hub {
    pub env: Env,
    pub services: Arc<Services>,
    pub feed: Arc<Feed>,
    places: Places,
    /// How many releases with other tables there have been; counted before anybody concerned is told.
    rules: AtomicU64,
    /// Asks for members of channels to be judged again.
    judging: Notify,
    /// Cancelled when nobody works for it any more.
    closed: CancellationToken,
    state: Mutex<State>,
}

pub(super) struct State {
    last: Id,
    pub outboxes: HashMap<Id, Arc<Outbox>>,
    /// Subscriptions that have no seat yet, by connection and name, also those that are being told what happened before
    /// they came: how far those are is not how far the others are.
    pub arriving: BTreeMap<(Id, String), Number>,
    arrivals: Number,
    /// By table in lower case.
    pub subscriptions: HashMap<String, Vec<Arc<Subscription>>>,
    channels: Channels,
    /// Everything up to this change has been told.
    told: u64,
    app: Arc<App>,
    /// Since when nobody is connected.
    empty: Option<Instant>,
}

impl Hub {
    pub fn new(env: Env, services: Arc<Services>, app: Arc<App>) -> Result<Self> {
        let feed = services.databases.feed(env.id());
        let state = State {
            last: 0,
            outboxes: HashMap::new(),
            arriving: BTreeMap::new(),
            arrivals: 0,
            subscriptions: HashMap::new(),
            channels: Channels::default(),
            told: feed.head(),
            app,
            empty: None,
        };
        Ok(Self {
            env,
            services,
            feed,
            places: Places::new()?,
            rules: AtomicU64::new(0),
            judging: Notify::new(),
            closed: CancellationToken::new(),
            state: Mutex::new(state),
        })
    }

    /// The place after the change with this number, for the client of `outbox`.
    pub fn place(&self, seq: u64, outbox: &Outbox) -> Option<String> {
        self.place_under(self.rules(), seq, outbox)
    }

    /// The same for who has been told of no other rules than these.
    pub fn place_under(&self, rules: u64, seq: u64, outbox: &Outbox) -> Option<String> {
        self.places.seal(Place { seq, rules, who: outbox.who })
    }

    /// The number of the change at which the client of `outbox` can go on.
    pub fn opened(&self, place: &str, outbox: &Outbox) -> Option<u64> {
        let Place { seq, rules, who } = self.places.open(place)?;
        (rules == self.rules() && who == outbox.who).then_some(seq)
    }

    /// Which rules hold: a number that grows with each that change.
    pub fn rules(&self) -> u64 {
        self.rules.load(Ordering::Acquire)
    }

    pub fn limits(&self) -> &RealtimeLimits {
        &self.services.limits
    }

    /// Takes a connection in.
    ///
    /// # Errors
    /// `rate_limited` where there are too many.
    pub fn enter(&self, outbox: &Arc<Outbox>) -> Result<Id> {
        let mut state = self.state();
        if state.outboxes.len() >= self.limits().connections {
            return Err(Error::new(Code::RateLimited, "the app has too many open connections")
                .hint("close those that are not needed, or try again later")
                .retry_after(self.limits().idle)
                .limit(self.limits().full(
                    "connections",
                    LimitScope::Environment,
                    self.limits().connections,
                )));
        }
        state.last += 1;
        let id = state.last;
        state.outboxes.insert(id, Arc::clone(outbox));
        state.empty = None;
        Ok(id)
    }

    /// Lets a connection go, with all it was in.
    pub fn leave(&self, id: Id) {
        let mut state = self.state();
        state.outboxes.remove(&id);
        state.subscriptions.retain(|_, subscriptions| {
            subscriptions.retain(|subscription| subscription.connection != id);
            !subscriptions.is_empty()
        });
        state.channels.leave_all(id);
        if state.outboxes.is_empty() {
            state.empty = Some(Instant::now());
        }
    }

    /// What is done with the channels, while nothing else happens to them.
    pub fn channels<T>(&self, work: impl FnOnce(&mut Channels) -> T) -> T {
        work(&mut self.state().channels)
    }

    /// Whether nobody has been connected for long.
    pub fn has_rested(&self) -> bool {
        self.state().empty.is_some_and(|since| since.elapsed() >= self.limits().rest)
    }

    /// Ends everything.
    pub fn end(&self, end: End) {
        let outboxes: Vec<_> = self.state().outboxes.values().cloned().collect();
        outboxes.iter().for_each(|outbox| outbox.end(end));
    }

    /// Stops watching; for the last moment.
    pub fn close(&self) {
        self.feed.rest();
        self.closed.cancel();
    }

    /// Has the members of channels judged, beside what is told of rows.
    pub fn judge_soon(&self) {
        self.judging.notify_one();
    }

    /// Puts members out of channels whenever that is asked for, until the hub is closed. There may be many to ask about,
    /// and who listens to rows does not wait for them.
    pub async fn judge(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return,
                () = self.judging.notified() => {}
            }
            let app = self.state_of_release();
            if self.closed.run_until_cancelled(self.judge_members(&app)).await.is_none() {
                return;
            }
        }
    }

    /// Tells everybody what has happened, until nothing is left to tell.
    pub async fn tell(&self) {
        while self.round().await {}
    }

    /// One round; whether there may be more.
    async fn round(&self) -> bool {
        let from = self.state().told;
        let since = self.feed.since(from, ROUND);
        // Who comes after this is told of what comes after it.
        let (last, subscriptions) = {
            let mut state = self.state();
            let last = match &since {
                Since::Lost => self.feed.head(),
                Since::Entries(entries) => entries.last().map_or(from, |entry| entry.seq),
            };
            state.told = last;
            let mut tables: BTreeSet<&str> = BTreeSet::new();
            match &since {
                Since::Lost => tables.extend(state.subscriptions.keys().map(String::as_str)),
                Since::Entries(entries) => {
                    for entry in entries {
                        tables.insert(&entry.table);
                        let asks = |table: &&String| {
                            asked_by(&state.app, table).any(|it| it.eq_ignore_ascii_case(&entry.table))
                        };
                        tables.extend(state.subscriptions.keys().filter(asks).map(String::as_str));
                    }
                }
            }
            let found = tables.into_iter().filter_map(|table| state.subscriptions.get(table));
            (last, found.flatten().cloned().collect::<Vec<_>>())
        };
        if last == from {
            return false;
        }
        let app = match self.refreshed().await {
            Ok(app) => app,
            Err(error) => {
                tracing::warn!(env.id = %self.env.id(), error = error.chain(), "changes could not be told");
                self.reset_these(&subscriptions, last, Reset::Unavailable);
                return true;
            }
        };
        match since {
            Since::Lost => self.reset_these(&subscriptions, last, Reset::Lost),
            Since::Entries(entries) => {
                if entries.iter().any(|entry| entry.what == Changed::Much) {
                    self.watch_again(&app).await;
                }
                for (outbox, post) in self.judged(&app, &entries, subscriptions).await {
                    self.frames(post, self.rules()).into_iter().for_each(|frame| outbox.push(frame));
                }
            }
        }
        true
    }

    /// Looks which release is live, and tells those whose tables have other rules or columns now.
    pub async fn refresh(&self) {
        if let Err(error) = self.refreshed().await {
            tracing::debug!(env.id = %self.env.id(), error = error.chain(), "the live release is not known");
        }
    }

    /// Who shows `token`, where the live release lets its session in.
    ///
    /// # Errors
    /// Where the token does not hold, or the session has not shown the second factor that is required.
    pub async fn held(&self, token: Option<&Secret>) -> Result<Held> {
        self.services.auth.hold(&self.env, &*self.services.live, token).await
    }

    async fn refreshed(&self) -> Result<Arc<App>> {
        let app = self.services.live.app(&self.env).await?;
        let before = std::mem::replace(&mut self.state().app, Arc::clone(&app));
        if Arc::ptr_eq(&before, &app) || before == app {
            return Ok(app);
        }
        self.watch_again(&app).await;
        let (at, changed) = {
            let state = self.state();
            // Whoever takes a seat after this sees that the rules are others.
            if before.tables != app.tables {
                self.rules.fetch_add(1, Ordering::AcqRel);
            }
            let differs = |table: &&String| {
                let asked: Vec<&str> = asked_by(&app, table).collect();
                asked
                    .iter()
                    .copied()
                    .chain([table.as_str()])
                    .any(|name| before.table(name) != app.table(name))
            };
            let tables = state.subscriptions.keys().filter(differs);
            let changed: Vec<_> =
                tables.filter_map(|table| state.subscriptions.get(table)).flatten().cloned().collect();
            (state.told, changed)
        };
        self.reset_these(&changed, at, Reset::Release);
        if before.auth.mfa != app.auth.mfa {
            // Each connection looks again who it is, and whether that is enough.
            self.services.auth.forget(self.env.id());
        }
        if before.realtime != app.realtime {
            self.judge_soon();
        }
        Ok(app)
    }

    /// Reads the columns of the watched tables again, where they have changed.
    async fn watch_again(&self, app: &App) {
        let tables: BTreeSet<String> = {
            let state = self.state();
            let own = state.subscriptions.keys();
            own.flat_map(|table| asked_by(app, table).chain([table.as_str()]))
                .map(str::to_ascii_lowercase)
                .collect()
        };
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        if let Err(error) = self.services.databases.watch(&self.env, &tables).await {
            // Until it succeeds every change is told as `much`, which tries again.
            tracing::warn!(env.id = %self.env.id(), error = %error, "the columns of tables could not be read");
        }
    }

    /// Lets everybody know how far they are, so that who comes back goes on from there.
    pub fn beat(&self) {
        let state = self.state();
        if state.told != self.feed.head() {
            return;
        }
        let arriving: BTreeSet<Id> = state.arriving.keys().map(|(id, _)| *id).collect();
        for (_, outbox) in state.outboxes.iter().filter(|(id, _)| !arriving.contains(id)) {
            outbox.push(Frame { at: self.place(state.told, outbox), json: Arc::from("") });
        }
    }

    pub fn state_of_release(&self) -> Arc<App> {
        Arc::clone(&self.state().app)
    }

    /// Tells of every new change.
    pub fn heads(&self) -> tokio::sync::watch::Receiver<u64> {
        self.feed.heads()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives these names away until they have their seats.
    pub fn reserve(&mut self, names: impl Iterator<Item = (Id, String)>) -> Number {
        self.arrivals += 1;
        self.arriving.extend(names.map(|name| (name, self.arrivals)));
        self.arrivals
    }

    /// The names of a connection's subscriptions, those on the way among them.
    pub fn names_of(&self, id: Id) -> BTreeSet<&str> {
        let seated = self.subscriptions.values().flatten().filter(|one| one.connection == id);
        let arriving = self.arriving.keys().filter(|(of, _)| *of == id);
        seated.map(|one| one.sub.as_str()).chain(arriving.map(|(_, sub)| sub.as_str())).collect()
    }

    /// Lets these be told of what comes after a change.
    pub fn seat(&mut self, made: Vec<Subscription>, from: u64) {
        for mut one in made {
            one.from = from;
            self.subscriptions.entry(one.table.to_ascii_lowercase()).or_default().push(Arc::new(one));
        }
    }
}
