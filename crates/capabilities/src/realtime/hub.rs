//! One environment's subscribers: what changes is judged for each, in rounds, and laid into their outboxes in order.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kernel::{Code, Env, Error, Result};

use super::channels::Channels;
use super::judge::{Event, Told, Wanted};
use super::message::{Reset, Resumed, Subscribe, event, reset, subscribed};
use super::outbox::{End, Frame, Outbox};
use super::places::Places;
use super::{RealtimeLimits, Services};
use crate::access::{Expr, Guest, Operation, Subject};
use crate::database::{Changed, Entry, Feed, Since};
use crate::rows::{App, TableModel};

/// Changes that are judged at once.
const ROUND: usize = 500;

/// How often somebody who goes on where they stopped may be overtaken by new changes.
const CATCHING_UP: usize = 50;

/// A connection's number within its environment.
pub(super) type Id = u64;

pub(super) struct Hub {
    pub env: Env,
    pub services: Arc<Services>,
    feed: Arc<Feed>,
    places: Places,
    state: Mutex<State>,
}

struct State {
    last: Id,
    outboxes: HashMap<Id, Arc<Outbox>>,
    /// Those who are being told what happened before they came: how far they are is not how far the others are.
    arriving: BTreeSet<Id>,
    /// By table in lower case.
    subscriptions: HashMap<String, Vec<Arc<Subscription>>>,
    channels: Channels,
    /// Everything up to this change has been told.
    told: u64,
    app: Arc<App>,
    /// Since when nobody is connected.
    empty: Option<Instant>,
}

/// What one connection wants to know of one table.
struct Subscription {
    connection: Id,
    outbox: Arc<Outbox>,
    sub: String,
    /// As the model writes it.
    table: String,
    filter: Option<String>,
    select: Option<String>,
    subject: Arc<Subject>,
    /// What came before this change is not told.
    from: u64,
    recent: Arc<Mutex<Recent>>,
}

/// What a subscription was told last of the latest rows: a row that changes twice while it is judged looks the same both
/// times.
#[derive(Default)]
struct Recent(HashMap<Arc<str>, Event>);

/// How many rows are kept in mind.
const RECENT: usize = 32;

impl Recent {
    /// Whether this is something new.
    fn is_news(&mut self, id: &Arc<str>, event: &Event) -> bool {
        if self.0.get(id).is_some_and(|last| last.leaves() == event.leaves()) {
            return false;
        }
        if self.0.len() >= RECENT {
            self.0.clear();
        }
        self.0.insert(Arc::clone(id), event.clone());
        true
    }
}

/// Subscriptions that are told the same.
#[derive(PartialEq, Eq, Hash)]
struct Alike<'a> {
    table: &'a str,
    filter: Option<&'a str>,
    select: Option<&'a str>,
    /// None where neither rule nor condition asks who asks.
    subject: Option<String>,
}

/// What goes into one outbox, by change.
type Post = Vec<(u64, Posted)>;

enum Posted {
    Event(Arc<Subscription>, Event),
    Reset(Arc<Subscription>, Reset),
}

impl Hub {
    pub fn new(env: Env, services: Arc<Services>, app: Arc<App>) -> Result<Self> {
        let feed = services.databases.feed(env.id());
        let state = State {
            last: 0,
            outboxes: HashMap::new(),
            arriving: BTreeSet::new(),
            subscriptions: HashMap::new(),
            channels: Channels::default(),
            told: feed.head(),
            app,
            empty: None,
        };
        Ok(Self { env, services, feed, places: Places::new()?, state: Mutex::new(state) })
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
                .retry_after(self.limits().idle));
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
    }

    /// Adds subscriptions of a connection, and first tells what has happened since the place where it goes on.
    ///
    /// # Errors
    /// `not_found` for an unknown table, `invalid_input` with a pointer, `conflict` for a name that is taken.
    pub async fn subscribe(
        &self,
        id: Id,
        outbox: &Arc<Outbox>,
        guest: &Guest,
        wanted: &[Subscribe],
    ) -> Result<()> {
        let app = self.services.live.app(&self.env).await?;
        let subject = Arc::new(guest.subject().clone());
        let mut made = Vec::new();
        for (index, one) in wanted.iter().enumerate() {
            made.push(self.subscription(id, outbox, &app, &subject, one).map_err(|e| match wanted {
                [_] => e,
                _ => e.under(&format!("/{index}")),
            })?);
        }
        self.count(id, &made)?;
        self.watch(&app, &made).await?;
        let _arrival = Arrival::new(self, id);
        let after = wanted.iter().filter_map(|one| one.after.as_deref()).next();
        let place = after.and_then(|after| self.places.open(after));
        let resumed = if place.is_some() { Resumed::Yes } else { Resumed::No };
        let mut from = place.unwrap_or_else(|| self.feed.head());
        let tell = |from| {
            let at = self.places.seal(from);
            for one in &made {
                let json = subscribed(&one.sub, &one.table, at.as_ref(), resumed);
                outbox.push(Frame { at: at.clone(), json });
            }
            if after.is_some() && resumed == Resumed::No {
                self.reset_all(outbox, &made, from, Reset::Lost);
            }
        };
        if resumed == Resumed::Yes {
            tell(from);
        }
        for _ in 0..CATCHING_UP {
            if resumed == Resumed::No || self.feed.head() == from {
                break;
            }
            from = self.catch_up(outbox, &made, from).await?;
        }
        // Nothing is told while this is held, so that the first of the next round comes after the last of these.
        let mut state = self.state();
        let head = self.feed.head();
        if resumed == Resumed::No {
            tell(head);
        } else if head != from {
            self.reset_all(outbox, &made, head, Reset::Lost);
        }
        for mut one in made {
            one.from = head;
            state.subscriptions.entry(one.table.to_ascii_lowercase()).or_default().push(Arc::new(one));
        }
        Ok(())
    }

    fn subscription(
        &self,
        connection: Id,
        outbox: &Arc<Outbox>,
        app: &App,
        subject: &Arc<Subject>,
        wanted: &Subscribe,
    ) -> Result<Subscription> {
        let table = known(app, &wanted.table)?;
        Wanted::new(table, wanted.filter.as_deref(), wanted.select.as_deref(), subject)?;
        Ok(Subscription {
            connection,
            outbox: Arc::clone(outbox),
            sub: wanted.name()?.to_owned(),
            table: table.name.clone(),
            filter: wanted.filter.clone(),
            select: wanted.select.clone(),
            subject: Arc::clone(subject),
            from: 0,
            recent: Arc::default(),
        })
    }

    /// Holds that a connection has no more subscriptions than it may, each with a name of its own.
    fn count(&self, id: Id, made: &[Subscription]) -> Result<()> {
        let state = self.state();
        let of = |subscription: &&Arc<Subscription>| subscription.connection == id;
        let mut names: BTreeSet<&str> = state
            .subscriptions
            .values()
            .flatten()
            .filter(of)
            .map(|subscription| subscription.sub.as_str())
            .collect();
        for one in made {
            if !names.insert(&one.sub) {
                let message = format!("there is a subscription {:?} already", one.sub);
                return Err(Error::new(Code::Conflict, message)
                    .field("/sub")
                    .hint("give each its own `sub`"));
            }
        }
        let most = self.limits().subscriptions;
        if names.len() > most {
            return Err(Error::new(Code::TooLarge, format!("a connection has at most {most} subscriptions")));
        }
        Ok(())
    }

    async fn watch(&self, app: &App, made: &[Subscription]) -> Result<()> {
        let tables: Vec<&str> = made.iter().map(|one| one.table.as_str()).collect();
        let tables: BTreeSet<&str> =
            tables.iter().copied().chain(tables.iter().flat_map(|table| asked_by(app, table))).collect();
        let tables: Vec<&str> = tables.into_iter().collect();
        self.services.databases.watch(&self.env, &tables).await.map_err(Error::from)
    }

    /// Ends a subscription of a connection.
    ///
    /// # Errors
    /// `not_found`.
    pub fn unsubscribe(&self, id: Id, sub: &str) -> Result<()> {
        let mut state = self.state();
        let mut found = false;
        state.subscriptions.retain(|_, subscriptions| {
            subscriptions.retain(|one| {
                let is = one.connection == id && one.sub == sub;
                found |= is;
                !is
            });
            !subscriptions.is_empty()
        });
        if found { Ok(()) } else { Err(Error::not_found("such subscription").field("/sub")) }
    }

    /// Tells what has happened after a change, and up to which.
    async fn catch_up(&self, outbox: &Arc<Outbox>, made: &[Subscription], from: u64) -> Result<u64> {
        let head = self.feed.head();
        let entries = match self.feed.since(from, ROUND) {
            Since::Lost => {
                self.reset_all(outbox, made, head, Reset::Lost);
                return Ok(head);
            }
            Since::Entries(entries) => entries,
        };
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(head) };
        let app = self.services.live.app(&self.env).await?;
        let copies =
            made.iter().map(|one| Arc::new(Subscription { outbox: Arc::clone(outbox), ..one.copy() }));
        let mut posts = self.judged(&app, &entries, copies.collect()).await;
        if let Some(post) = posts.pop() {
            self.deliver(outbox, post.1);
        }
        Ok(last)
    }

    fn reset_all(&self, outbox: &Outbox, made: &[Subscription], at: u64, why: Reset) {
        let at = self.places.seal(at);
        for one in made {
            outbox.push(Frame { at: at.clone(), json: reset(&one.sub, &one.table, at.as_ref(), why) });
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
                    self.deliver(&outbox, post);
                }
            }
        }
        true
    }

    /// What is told of these changes, for each outbox.
    async fn judged(
        &self,
        app: &App,
        entries: &[Arc<Entry>],
        subscriptions: Vec<Arc<Subscription>>,
    ) -> Vec<(Arc<Outbox>, Post)> {
        let mut alike: HashMap<Alike<'_>, Vec<&Arc<Subscription>>> = HashMap::new();
        for one in &subscriptions {
            let asks = *one.subject == Subject::Service
                || app.table(&one.table).is_none_or(|it| asks_who(it, one.filter.as_deref()));
            let subject = asks.then(|| format!("{:?}", one.subject));
            let key = Alike {
                table: &one.table,
                filter: one.filter.as_deref(),
                select: one.select.as_deref(),
                subject,
            };
            alike.entry(key).or_default().push(one);
        }
        let mut posts: HashMap<Id, (Arc<Outbox>, Post)> = HashMap::new();
        for group in alike.into_values() {
            let Some(first) = group.first() else { continue };
            let post = self.group(app, first, entries).await;
            for one in group {
                let to = posts.entry(one.connection).or_insert_with(|| (Arc::clone(&one.outbox), Vec::new()));
                let mut recent = one.recent.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = post.iter().filter(|(seq, _)| *seq > one.from);
                to.1.extend(fresh.filter_map(|(seq, told)| {
                    let posted = match told {
                        Ok((id, event)) => recent
                            .is_news(id, event)
                            .then(|| Posted::Event(Arc::clone(one), event.clone()))?,
                        Err(why) => Posted::Reset(Arc::clone(one), *why),
                    };
                    Some((*seq, posted))
                }));
            }
        }
        posts.into_values().collect()
    }

    /// What subscriptions like this one are told.
    async fn group(
        &self,
        app: &App,
        like: &Subscription,
        entries: &[Arc<Entry>],
    ) -> Vec<(u64, Result<Told, Reset>)> {
        let last = entries.last().map_or(0, |entry| entry.seq);
        // A table that is gone has no rows to tell of; that it is gone was told with the release.
        let Ok(table) = known(app, &like.table) else { return Vec::new() };
        let own = |entry: &&Arc<Entry>| entry.table.eq_ignore_ascii_case(&like.table);
        let much = entries.iter().rev().find(|entry| match entry.what {
            Changed::Much if own(entry) => true,
            // Who may see a row of this table may depend on rows of that one.
            _ => asked_by(app, &like.table).any(|table| entry.table.eq_ignore_ascii_case(table)),
        });
        if much.is_some() {
            return vec![(last, Err(Reset::Much))];
        }
        let wanted = Wanted::new(table, like.filter.as_deref(), like.select.as_deref(), &like.subject);
        let Ok(wanted) = wanted else { return vec![(last, Err(Reset::Release))] };
        let own: Vec<&Entry> = entries.iter().filter(own).map(|entry| &**entry).collect();
        match wanted.judge(&self.services.databases, &self.env, &own).await {
            Ok(told) => told.into_iter().map(|(seq, told)| (seq, Ok(told))).collect(),
            Err(error) => {
                tracing::debug!(env.id = %self.env.id(), error = %error, "changes could not be judged");
                vec![(last, Err(Reset::Unavailable))]
            }
        }
    }

    /// Lays what is told into an outbox, in the order of the changes. Of several messages about one change only the last
    /// is a place to go on from.
    fn deliver(&self, outbox: &Outbox, mut post: Post) {
        post.sort_by_key(|(seq, _)| *seq);
        let last: Vec<bool> =
            (0..post.len()).map(|i| post.get(i + 1).is_none_or(|(next, _)| *next != post[i].0)).collect();
        for ((seq, posted), is_last) in post.into_iter().zip(last) {
            let at = is_last.then(|| self.places.seal(seq)).flatten();
            let json = match posted {
                Posted::Event(to, told) => event(&to.sub, &to.table, &told, at.as_ref()),
                Posted::Reset(to, why) => reset(&to.sub, &to.table, at.as_ref(), why),
            };
            outbox.push(Frame { at, json });
        }
    }

    fn reset_these(&self, subscriptions: &[Arc<Subscription>], at: u64, why: Reset) {
        for one in subscriptions {
            let at = self.places.seal(at);
            one.outbox.push(Frame { json: reset(&one.sub, &one.table, at.as_ref(), why), at });
        }
    }

    /// Looks which release is live, and tells those whose tables have other rules or columns now.
    pub async fn refresh(&self) {
        if let Err(error) = self.refreshed().await {
            tracing::debug!(env.id = %self.env.id(), error = error.chain(), "the live release is not known");
        }
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
        if before.realtime != app.realtime {
            self.judge_members(&app).await;
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
        for (_, outbox) in state.outboxes.iter().filter(|(id, _)| !state.arriving.contains(id)) {
            outbox.push(Frame { at: self.places.seal(state.told), json: String::new() });
        }
    }

    pub fn state_of_release(&self) -> Arc<App> {
        Arc::clone(&self.state().app)
    }

    /// Tells of every new change.
    pub fn heads(&self) -> tokio::sync::watch::Receiver<u64> {
        self.feed.heads()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    fn copy(&self) -> Self {
        Self {
            connection: self.connection,
            outbox: Arc::clone(&self.outbox),
            sub: self.sub.clone(),
            table: self.table.clone(),
            filter: self.filter.clone(),
            select: self.select.clone(),
            subject: Arc::clone(&self.subject),
            from: self.from,
            recent: Arc::clone(&self.recent),
        }
    }
}

/// Somebody who is being told what happened before they came.
struct Arrival<'a> {
    hub: &'a Hub,
    id: Id,
}

impl<'a> Arrival<'a> {
    fn new(hub: &'a Hub, id: Id) -> Self {
        hub.state().arriving.insert(id);
        Self { hub, id }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.hub.state().arriving.remove(&self.id);
    }
}

/// Whether it depends on who asks what is told of the table.
fn asks_who(table: &TableModel, filter: Option<&str>) -> bool {
    // A text that says the word may be about something else, and is then judged for each by itself.
    filter.is_some_and(|text| text.contains("auth"))
        || table.access.of(Operation::List).is_some_and(Expr::asks_who)
}

/// The other tables by whose rows it is decided who may list rows of this one.
fn asked_by<'a>(_: &'a App, _: &str) -> impl Iterator<Item = &'a str> {
    std::iter::empty()
}

fn known<'a>(app: &'a App, name: &str) -> Result<&'a Arc<TableModel>> {
    app.table(name).ok_or_else(|| Error::new(Code::NotFound, "there is no such table").field("/table"))
}
