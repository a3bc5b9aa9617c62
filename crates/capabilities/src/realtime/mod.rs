//! What happens in an app, told at once: changes of rows, by the rules; and channels, where clients talk to each other.

mod channels;
mod connection;
mod hub;
mod judge;
mod limits;
mod message;
mod outbox;
mod places;
mod spec;
mod subscribing;
mod telling;
mod tickets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::{Code, Env, EnvId, Error, LimitScope, Result, Secret};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connection::Connection;
pub use limits::RealtimeLimits;
pub use message::{Broadcast, Join, Message, Subscribe};
pub use outbox::{End, Frame};
pub use spec::{ChannelRules, ChannelSpec, RealtimeSpec};

use self::hub::Hub;
use self::outbox::Waiting;
use self::spec::Act;
use self::tickets::Tickets;
pub use self::tickets::is_ticket;
use crate::access::Guest;
use crate::auth::{Auth, Rate, Throttle, network};
use crate::database::{Client, Databases};
use crate::rows::LiveApps;

/// How often a hub looks which release is live, and who is still there.
const LOOK: Duration = Duration::from_secs(1);

/// How many senders are kept in mind.
const SENDERS: usize = 100_000;

/// The longest name of an event, in bytes.
const EVENT: usize = 100;

/// A message counts once more for each of so many bytes.
const HEAVY: usize = 8 << 10;

/// Realtime of every environment. Clones share everything.
#[derive(Clone)]
pub struct Realtime(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    hubs: Mutex<HashMap<EnvId, Arc<Hub>>>,
    clients: Arc<Mutex<HashMap<IpAddr, Taken>>>,
    tickets: Tickets,
    stopping: CancellationToken,
}

/// What it works on.
struct Services {
    databases: Arc<Databases>,
    live: Arc<dyn LiveApps>,
    auth: Auth,
    limits: RealtimeLimits,
    tasks: TaskTracker,
    waiting: Arc<Waiting>,
    /// What is said in channels without a connection.
    said: Throttle<(EnvId, Client)>,
}

impl Realtime {
    /// Tells of rows in `databases` of the apps that `live` knows, until `stopping`.
    #[must_use]
    pub fn new(
        databases: Arc<Databases>,
        live: Arc<dyn LiveApps>,
        auth: Auth,
        limits: RealtimeLimits,
        stopping: CancellationToken,
    ) -> Self {
        let tickets = Tickets::new(limits.ticket, (limits.tickets, limits.tickets_of_client));
        let waiting = Arc::new(Waiting::new(limits.waiting_bytes_in_all));
        let burst = NonZeroU32::new(limits.messages).unwrap_or(NonZeroU32::MIN);
        let said = Throttle::new(
            "broadcasts",
            LimitScope::User,
            Rate { burst, every: Duration::from_secs(1) / burst.get() },
            SENDERS,
        );
        let tasks = TaskTracker::new();
        let services = Arc::new(Services { databases, live, auth, limits, tasks, waiting, said });
        Self(Arc::new(Inner { services, hubs: Mutex::default(), clients: Arc::default(), tickets, stopping }))
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &RealtimeLimits {
        &self.0.services.limits
    }

    /// What a page of `origin` shows in an address instead of `token`, once; of those that a client has not used, the newest
    /// hold.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `unavailable` where the app has too many that are not used yet.
    pub async fn ticket(
        &self,
        env: &Env,
        client: Option<IpAddr>,
        origin: Option<&str>,
        token: Option<&Secret>,
    ) -> Result<Secret> {
        if let Some(token) = token {
            let app = self.0.services.live.app(env).await?;
            self.0.services.auth.recognize(env, app.auth.mfa, token).await?;
        }
        self.0.tickets.issue(env.id(), network(client), origin, token)
    }

    /// The token that a ticket stands for, which is spent with it.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn redeem(&self, env: &Env, origin: Option<&str>, ticket: &str) -> Result<Option<Secret>> {
        self.0.tickets.redeem(env.id(), origin, ticket)
    }

    /// A place for one more connection of a network address.
    ///
    /// # Errors
    /// `rate_limited` where it has too many.
    pub fn seat(&self, client: Option<IpAddr>) -> Result<Seat> {
        Seat::take(&self.0, client)
    }

    /// Cancelled when the program is told to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Connects a client, who shows `token` or nothing.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `rate_limited` where too many are connected to the app; `unavailable` where
    /// the program stops.
    pub async fn connect(&self, env: &Env, seat: Seat, token: Option<Secret>) -> Result<Connection> {
        let inner = &self.0;
        if inner.stopping.is_cancelled() {
            return Err(Error::new(Code::Unavailable, "the platform stops").hint("connect again in a moment"));
        }
        let held = inner.services.auth.hold(env, &*inner.services.live, token.as_ref()).await?;
        let app = inner.services.live.app(env).await?;
        let mut hubs = inner.hubs();
        let hub = match hubs.get(&env.id()) {
            Some(hub) => Arc::clone(hub),
            None => {
                let hub = Arc::new(Hub::new(env.clone(), Arc::clone(&inner.services), app)?);
                hubs.insert(env.id(), Arc::clone(&hub));
                inner.services.tasks.spawn(run(Arc::clone(&self.0), Arc::clone(&hub)));
                let judged = Arc::clone(&hub);
                inner.services.tasks.spawn(async move { judged.judge().await });
                hub
            }
        };
        // Under the same lock, so that the hub does not go to rest meanwhile.
        Connection::enter(hub, held, token, seat)
    }

    /// Says something to everybody in a channel; to how many it was said.
    ///
    /// # Errors
    /// `forbidden` where `guest` may not; `too_large`; `rate_limited` where it says too much.
    pub async fn broadcast(&self, guest: &Guest, message: &Broadcast) -> Result<usize> {
        let env = guest.env();
        let limits = &self.0.services.limits;
        let bytes = fitting(message, limits)?;
        for client in guest.clients() {
            for _ in 0..cost(bytes) {
                self.0.services.said.admit((env.id(), client))?;
            }
        }
        let hub = self.0.hubs().get(&env.id()).map(Arc::clone);
        let app = self.0.services.live.app(env).await?;
        let hub = match hub {
            Some(hub) => hub,
            // Nobody hears it; whether it may be said is answered all the same.
            None => Arc::new(Hub::new(env.clone(), Arc::clone(&self.0.services), Arc::clone(&app))?),
        };
        hub.permit(&app, Act::Send, &message.channel, guest.subject()).await?;
        let said = said(message, &json!({ "id": null, "user": guest.subject().uid() }));
        Ok(hub.channels(|channels| channels.broadcast(&message.channel, None, &said)))
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        let clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.values().map(|taken| taken.connections).sum()
    }

    /// The environments that somebody is connected to.
    #[must_use]
    pub fn environments(&self) -> Vec<EnvId> {
        self.0.hubs().keys().copied().collect()
    }

    /// Ends what is open in an environment that is deleted.
    pub fn forget(&self, env: EnvId) {
        if let Some(hub) = self.0.hubs().remove(&env) {
            hub.end(End::Gone);
        }
    }

    /// Waits until everything has ended, after the program was told to stop.
    pub async fn closed(&self) {
        self.0.services.tasks.close();
        self.0.services.tasks.wait().await;
    }

    /// Lets a task of a connection be waited for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.services.tasks.spawn(task);
    }
}

impl Inner {
    fn hubs(&self) -> MutexGuard<'_, HashMap<EnvId, Arc<Hub>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a hub go to which nobody has been connected for long.
    fn rest(&self, hub: &Arc<Hub>) -> bool {
        let mut hubs = self.hubs();
        let is_known = hubs.get(&hub.env.id()).is_some_and(|known| Arc::ptr_eq(known, hub));
        if is_known && !hub.has_rested() {
            return false;
        }
        if is_known {
            hubs.remove(&hub.env.id());
            hub.close();
        }
        true
    }
}

/// Works for one environment until nobody is there, or the program stops.
async fn run(inner: Arc<Inner>, hub: Arc<Hub>) {
    let mut heads = hub.heads();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beat = tokio::time::interval(inner.services.limits.beat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = inner.stopping.cancelled() => {
                hub.close();
                return hub.end(End::Stopping);
            }
            _ = heads.changed() => hub.tell().await,
            _ = look.tick() => {
                if inner.rest(&hub) {
                    return;
                }
                hub.refresh().await;
            }
            _ = beat.tick() => {
                hub.judge_soon();
                hub.tell().await;
                hub.beat();
            }
        }
    }
}

/// How many bytes of JSON a message is, where it is one that may be said.
fn fitting(message: &Broadcast, limits: &RealtimeLimits) -> Result<usize> {
    if message.event.is_empty() || message.event.len() > EVENT {
        return Err(Error::invalid("/event", format!("an event has a name of 1 to {EVENT} bytes")));
    }
    let (bytes, most) = (message.data.to_string().len(), limits.message_bytes);
    if bytes > most {
        let text = format!("the data is {bytes} bytes of JSON and at most {most} are allowed");
        return Err(Error::new(Code::TooLarge, text)
            .field("/data")
            .hint("put it into a row or a file, and say where it is"));
    }
    Ok(bytes)
}

/// For how many messages one of so many bytes counts.
fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes / HEAVY).unwrap_or(u32::MAX).saturating_add(1)
}

/// What the members of a channel are told.
fn said(message: &Broadcast, from: &serde_json::Value) -> serde_json::Value {
    let Broadcast { channel, event, data, .. } = message;
    json!({ "type": "broadcast", "channel": channel, "event": event, "data": data, "from": from })
}

/// What a network has taken of what one may have.
#[derive(Default)]
struct Taken {
    connections: usize,
    subscriptions: usize,
}

/// A connection's place among those of its network, with its subscriptions; free again when it is dropped.
pub struct Seat {
    clients: Arc<Mutex<HashMap<IpAddr, Taken>>>,
    client: Option<IpAddr>,
    subscriptions: usize,
}

impl Seat {
    fn take(inner: &Inner, client: Option<IpAddr>) -> Result<Self> {
        let client = network(client);
        if let Some(client) = client {
            let mut clients = inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = clients.entry(client).or_default();
            let limits = &inner.services.limits;
            if taken.connections >= limits.connections_of_client {
                return Err(Error::new(Code::RateLimited, "too many connections are open from this address")
                    .hint("close those that are not needed")
                    .retry_after(limits.idle)
                    .limit(limits.full(
                        "client_connections",
                        LimitScope::Address,
                        limits.connections_of_client,
                    )));
            }
            taken.connections += 1;
        }
        Ok(Self { clients: Arc::clone(&inner.clients), client, subscriptions: 0 })
    }

    /// Has `count` subscriptions from now on.
    ///
    /// # Errors
    /// `rate_limited` where its network would have too many.
    fn subscribed(&mut self, count: usize, limits: &RealtimeLimits) -> Result<()> {
        if let Some(client) = self.client {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = clients.entry(client).or_default();
            let others = taken.subscriptions.saturating_sub(self.subscriptions);
            if count > self.subscriptions && others + count > limits.subscriptions_of_client {
                return Err(Error::new(
                    Code::RateLimited,
                    "there are too many subscriptions from this address",
                )
                .hint("end those that are not needed")
                .retry_after(limits.idle)
                .limit(limits.full(
                    "client_subscriptions",
                    LimitScope::Address,
                    limits.subscriptions_of_client,
                )));
            }
            taken.subscriptions = others + count;
        }
        self.subscriptions = count;
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = clients.get_mut(&client) {
            taken.connections = taken.connections.saturating_sub(1);
            taken.subscriptions = taken.subscriptions.saturating_sub(self.subscriptions);
            if taken.connections == 0 {
                clients.remove(&client);
            }
        }
    }
}
