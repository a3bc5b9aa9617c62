//! Subscribing: at once, or after what has happened since a place has been told.

use std::collections::BTreeSet;
use std::sync::Arc;

use kernel::{Code, Error, Result};

use super::hub::{Hub, Id, Number};
use super::judge::Wanted;
use super::message::{Reset, Resumed, Subscribe, subscribed};
use super::outbox::{Frame, Outbox};
use super::telling::{Subscription, asked_by, known};
use crate::access::{Guest, Subject};
use crate::database::Since;
use crate::rows::App;

/// Changes that are judged at once for somebody who comes back.
const CATCHING_UP: usize = 50;

impl Hub {
    /// Adds subscriptions of a connection. What has happened since the place where they go on is told first, as fast as
    /// the client reads, after this has returned.
    ///
    /// # Errors
    /// `not_found` for an unknown table, `invalid_input` with a pointer, `conflict` for a name that is taken.
    pub async fn subscribe(
        self: &Arc<Self>,
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
        let arrival = self.reserve(id, &made)?;
        self.watch(&app, &made).await?;
        let after = wanted.iter().find_map(|one| one.after.as_deref());
        // Which rules hold now is known before a place is held against them.
        if after.is_some() {
            self.refresh().await;
        }
        let rules = self.rules();
        let Some(from) = after.and_then(|after| self.opened(after, outbox)) else {
            // Nothing is told while this is held: what is told next comes after it.
            let mut state = self.state();
            let head = self.feed.head();
            self.say_subscribed(&made, head, Resumed::No);
            if after.is_some() {
                self.reset_all(&made, head, Reset::Lost);
            }
            state.seat(made, head);
            // It looks at the state once more.
            drop(state);
            return Ok(());
        };
        self.say_subscribed(&made, from, Resumed::Yes);
        let outbox = Arc::clone(outbox);
        let hub = Arc::clone(self);
        self.services
            .tasks
            .spawn(async move { hub.arrive(id, &outbox, made, (from, rules), &arrival).await });
        Ok(())
    }

    /// Tells somebody who comes back what has happened meanwhile, until they are where the others are. Where the rules are
    /// no longer those that their place was held against, they are told what the others were told.
    async fn arrive(
        &self,
        id: Id,
        outbox: &Outbox,
        made: Vec<Subscription>,
        (from, rules): (u64, u64),
        arrival: &Arrival,
    ) {
        let mut made: Vec<Arc<Subscription>> = made.into_iter().map(Arc::new).collect();
        let mut from = from;
        while outbox.has_room().await {
            {
                let mut state = self.state();
                // Some may have been ended meanwhile.
                made.retain(|one| state.arriving.get(&(id, one.sub.clone())) == Some(&arrival.number));
                if made.is_empty() || !state.outboxes.contains_key(&id) {
                    return;
                }
                if self.feed.head() == from {
                    if self.rules() != rules {
                        self.reset_these(&made, from, Reset::Release);
                    }
                    state.seat(made.iter().map(|one| one.copy()).collect(), from);
                    drop(state);
                    return;
                }
            }
            let head = self.feed.head();
            let entries = match self.feed.since(from, CATCHING_UP) {
                Since::Lost => Vec::new(),
                Since::Entries(entries) => entries,
            };
            let app = self.services.live.app(&self.env).await;
            let (Some(last), Ok(app)) = (entries.last().map(|entry| entry.seq), app) else {
                self.reset_these(&made, head, Reset::Lost);
                from = head;
                continue;
            };
            let posts = self.judged(&app, &entries, made.clone()).await;
            for frame in posts.into_iter().flat_map(|(_, post)| self.frames(post, rules)) {
                if !outbox.has_room().await {
                    return;
                }
                outbox.push(frame);
            }
            from = last;
        }
    }

    fn say_subscribed(&self, made: &[Subscription], at: u64, resumed: Resumed) {
        for one in made {
            let at = self.place(at, &one.outbox);
            let json = subscribed(&one.sub, &one.table, at.as_ref(), resumed);
            one.outbox.push(Frame { at, json: json.into() });
        }
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

    /// How many subscriptions a connection has, or is about to.
    pub fn subscriptions_of(&self, id: Id) -> usize {
        self.state().names_of(id).len()
    }

    /// Holds that a connection has no more subscriptions than it may, each with a name of its own, until they have their
    /// seats.
    fn reserve(self: &Arc<Self>, id: Id, made: &[Subscription]) -> Result<Arrival> {
        let mut state = self.state();
        let mut names = state.names_of(id);
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
        let number = state.reserve(made.iter().map(|one| (id, one.sub.clone())));
        drop(state);
        Ok(Arrival { hub: Arc::clone(self), number })
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
        let mut found = state.arriving.remove(&(id, sub.to_owned())).is_some();
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
}

/// Subscriptions on the way to their seats.
struct Arrival {
    hub: Arc<Hub>,
    number: Number,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.hub.state().arriving.retain(|_, number| *number != self.number);
    }
}
