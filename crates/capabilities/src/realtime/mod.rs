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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kernel::{Code, Env, EnvId, Error, Result, Secret};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connection::Connection;
pub use limits::RealtimeLimits;
pub use message::{Broadcast, Join, Message, Subscribe};
pub use outbox::{End, Frame};
pub use spec::{ChannelRules, ChannelSpec, RealtimeSpec};

use self::hub::Hub;
use self::spec::Act;
use self::tickets::Tickets;
use crate::access::Guest;
use crate::auth::Auth;
use crate::database::Databases;
use crate::rows::LiveApps;

/// How often a hub looks which release is live, and who is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Realtime of every environment. Clones share everything.
#[derive(Clone)]
pub struct Realtime(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    hubs: Mutex<HashMap<EnvId, Arc<Hub>>>,
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
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
        let tickets = Tickets::new(limits.ticket, limits.tickets);
        let services = Arc::new(Services { databases, live, auth, limits, tasks: TaskTracker::new() });
        Self(Arc::new(Inner { services, hubs: Mutex::default(), clients: Arc::default(), tickets, stopping }))
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &RealtimeLimits {
        &self.0.services.limits
    }

    /// What a page of `origin` shows in an address instead of `token`, once.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `unavailable` where too many tickets are not used yet.
    pub async fn ticket(&self, env: &Env, origin: Option<&str>, token: Option<&Secret>) -> Result<Secret> {
        if let Some(token) = token {
            let app = self.0.services.live.app(env).await?;
            self.0.services.auth.recognize(env, app.auth.mfa, token).await?;
        }
        self.0.tickets.issue(env.id(), origin, token)
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
                hub
            }
        };
        // Under the same lock, so that the hub does not go to rest meanwhile.
        Connection::enter(hub, held, token, seat)
    }

    /// Says something to everybody in a channel; to how many it was said.
    ///
    /// # Errors
    /// `forbidden` where `guest` may not; `too_large`.
    pub async fn broadcast(&self, guest: &Guest, message: &Broadcast) -> Result<usize> {
        let env = guest.env();
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
            () = inner.stopping.cancelled() => return hub.end(End::Stopping),
            _ = heads.changed() => hub.tell().await,
            _ = look.tick() => {
                if inner.rest(&hub) {
                    return;
                }
                hub.refresh().await;
            }
            _ = beat.tick() => {
                hub.judge_members(&hub.state_of_release()).await;
                hub.tell().await;
                hub.beat();
            }
        }
    }
}

/// What the members of a channel are told.
fn said(message: &Broadcast, from: &serde_json::Value) -> serde_json::Value {
    let Broadcast { channel, event, data, .. } = message;
    json!({ "type": "broadcast", "channel": channel, "event": event, "data": data, "from": from })
}

/// A connection's place among those of its network address; free again when it is dropped.
pub struct Seat {
    clients: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: Option<IpAddr>,
}

impl Seat {
    fn take(inner: &Inner, client: Option<IpAddr>) -> Result<Self> {
        if let Some(client) = client {
            let mut clients = inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = clients.entry(client).or_default();
            let limits = &inner.services.limits;
            if *taken >= limits.connections_of_client {
                return Err(Error::new(Code::RateLimited, "too many connections are open from this address")
                    .hint("close those that are not needed")
                    .retry_after(limits.idle)
                    .limit(limits.full("client_connections", limits.connections_of_client)));
            }
            *taken += 1;
        }
        Ok(Self { clients: Arc::clone(&inner.clients), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = clients.get_mut(&client) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                clients.remove(&client);
            }
        }
    }
}
