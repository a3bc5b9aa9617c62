//! One client's connection: what it asks for, and what it is told until it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, Error, Result, Secret, Timestamp};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::channels::{Shown, outside};
use super::hub::{Hub, Id};
use super::message::{Broadcast, Join, Message, Subscribe, problem};
use super::outbox::{End, Frame, Outbox};
use super::spec::Act;
use super::{RealtimeLimits, Seat, cost, fitting, said};
use crate::auth::Held;

/// How long a decision about sending to a channel holds.
const DECIDED: Duration = Duration::from_secs(1);

/// How often a platform key is recognized again.
const AGAIN: Duration = Duration::from_millis(500);

/// A connection. Dropped, it leaves everything.
pub struct Connection {
    hub: Arc<Hub>,
    id: Id,
    /// What others call it.
    name: String,
    outbox: Arc<Outbox>,
    held: Held,
    token: Option<Secret>,
    /// When it ends by itself.
    until: Option<tokio::time::Instant>,
    again: tokio::time::Instant,
    decided: Option<(String, Instant)>,
    messages: Messages,
    seat: Seat,
}

/// How many messages a client may still send.
struct Messages {
    left: f64,
    at: Instant,
    each_second: u32,
}

impl Connection {
    pub(super) fn enter(hub: Arc<Hub>, held: Held, token: Option<Secret>, seat: Seat) -> Result<Self> {
        let mut name = [0; 9];
        getrandom::fill(&mut name).map_err(Error::internal)?;
        let outbox = Arc::new(Outbox::new(hub.limits(), &hub.services.waiting, held.guest().subject()));
        let id = hub.enter(&outbox)?;
        let now = tokio::time::Instant::now();
        let until = ends(&held);
        let each_second = hub.limits().messages;
        let messages = Messages { left: f64::from(each_second), at: Instant::now(), each_second };
        Ok(Self {
            hub,
            id,
            name: URL_SAFE_NO_PAD.encode(name),
            outbox,
            held,
            token,
            until,
            again: now + AGAIN,
            decided: None,
            messages,
            seat,
        })
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &RealtimeLimits {
        self.hub.limits()
    }

    /// Cancelled when it is over, also while nobody asks for the next message.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.outbox.ended().clone()
    }

    /// Ends it; what waits is not sent any more.
    pub fn end(&self, why: End) {
        self.outbox.end(why);
    }

    /// Subscribes to rows, all or none, and tells what has happened since the place where the first that names one goes
    /// on.
    ///
    /// # Errors
    /// `not_found` for an unknown table; `invalid_input` with a pointer; `conflict` for a name that is taken;
    /// `too_large` where there are too many, `rate_limited` where there are from the client's network.
    pub async fn subscribe(&mut self, wanted: &[Subscribe]) -> Result<()> {
        let before = self.hub.subscriptions_of(self.id);
        self.seat.subscribed(before + wanted.len(), self.hub.limits())?;
        let done = self.hub.subscribe(self.id, &self.outbox, self.held.guest(), wanted).await;
        self.count_again();
        done
    }

    /// Tells its seat how many subscriptions there are.
    fn count_again(&mut self) {
        // What goes down is never refused.
        let _ = self.seat.subscribed(self.hub.subscriptions_of(self.id), self.hub.limits());
    }

    /// Joins a channel.
    ///
    /// # Errors
    /// `forbidden` where the rules do not allow it; `too_large`; `conflict` where it is in already.
    pub async fn join(&self, join: Join) -> Result<()> {
        let shown = self.fitting(join.state)?;
        let app = self.hub.services.live.app(&self.hub.env).await?;
        self.hub.permit(&app, Act::Join, &join.channel, self.held.guest().subject()).await?;
        let member = Hub::member(&self.name, &self.outbox, self.held.guest(), shown);
        let most = (self.limits().channels, self.limits().members);
        self.hub.channels(|channels| channels.join(&join.channel, self.id, member, most))
    }

    fn fitting(&self, shown: Shown) -> Result<Shown> {
        let most = self.limits().presence_bytes;
        let bytes = shown.as_ref().map_or(0, |state| Value::Object(Map::clone(state)).to_string().len());
        if bytes > most {
            let message = format!("the state is {bytes} bytes of JSON and at most {most} are allowed");
            return Err(Error::new(Code::TooLarge, message).field("/state"));
        }
        Ok(shown)
    }

    /// Does what a client says. What is refused is told, and does not end the connection.
    pub async fn hear(&mut self, message: Message) {
        let (about, done) = match message {
            Message::Hello { token, .. } => (("about", "hello".to_owned()), self.renew(token).await),
            Message::Subscribe(wanted) => {
                let sub = wanted.sub.clone().unwrap_or_else(|| wanted.table.clone());
                (("sub", sub), self.subscribe(&[wanted]).await)
            }
            Message::Unsubscribe { sub } => {
                let done = self.hub.unsubscribe(self.id, &sub);
                if done.is_ok() {
                    self.count_again();
                    self.say(&json!({ "type": "unsubscribed", "sub": sub }));
                }
                (("sub", sub), done)
            }
            Message::Join(join) => (("channel", join.channel.clone()), self.join(join).await),
            Message::Leave { channel } => {
                let was_in = self.hub.channels(|channels| channels.leave(&channel, self.id));
                if was_in {
                    self.say(&json!({ "type": "left", "channel": channel, "reason": "asked" }));
                }
                (("channel", channel), if was_in { Ok(()) } else { Err(outside()) })
            }
            Message::Broadcast(broadcast) => {
                (("channel", broadcast.channel.clone()), self.broadcast(&broadcast).await)
            }
            Message::Presence { channel, state } => {
                let shown = self.fitting(state);
                let done = shown
                    .and_then(|shown| self.hub.channels(|channels| channels.show(&channel, self.id, shown)));
                (("channel", channel), done)
            }
            Message::Ping => {
                self.say(&json!({ "type": "pong" }));
                (("about", "ping".to_owned()), Ok(()))
            }
        };
        if let Err(error) = done {
            self.refuse(&error, (about.0, &about.1));
        }
    }

    /// Goes on with a newer token of the same user, so that nobody has to come back for it.
    async fn renew(&mut self, token: Option<Secret>) -> Result<()> {
        let held = self.hub.held(token.as_ref()).await?;
        let user = |held: &Held| held.guest().subject().uid();
        if user(&held).is_none() || held.guest().subject() != self.held.guest().subject() {
            return Err(Error::new(Code::Conflict, "this connection is another's")
                .hint("open another connection for another session"));
        }
        self.until = ends(&held);
        (self.held, self.token) = (held, token);
        self.say(&json!({ "type": "renewed" }));
        Ok(())
    }

    /// Reads one message of a client and does what it says.
    pub async fn hear_text(&mut self, text: &str) {
        match Message::parse(text) {
            Ok(message) if self.messages.admits(cost(text.len())) => self.hear(message).await,
            Ok(heard) => {
                let most = self.messages.each_second;
                let message = format!("at most {most} messages a second are heard, and fewer large ones");
                let error =
                    Error::new(Code::RateLimited, message).hint("send less often; this one was not heard");
                match heard {
                    Message::Broadcast(heard) => self.refuse(&error, ("channel", &heard.channel)),
                    _ => self.refuse(&error, ("about", "message")),
                }
            }
            Err(error) => self.refuse(&error, ("about", "message")),
        }
    }

    async fn broadcast(&mut self, message: &Broadcast) -> Result<()> {
        fitting(message, self.limits())?;
        let decided =
            |(channel, at): &(String, Instant)| *channel == message.channel && at.elapsed() < DECIDED;
        if !self.decided.as_ref().is_some_and(decided) {
            let app = self.hub.services.live.app(&self.hub.env).await?;
            self.hub.permit(&app, Act::Send, &message.channel, self.held.guest().subject()).await?;
            self.decided = Some((message.channel.clone(), Instant::now()));
        }
        let from = json!({ "id": self.name, "user": self.held.guest().subject().uid() });
        let said = said(message, &from);
        self.hub.channels(|channels| channels.broadcast(&message.channel, Some(self.id), &said));
        if let Some(reference) = &message.reference {
            self.say(&json!({ "type": "sent", "reference": reference }));
        }
        Ok(())
    }

    fn say(&self, message: &Value) {
        self.outbox.push(Frame { at: None, json: message.to_string().into() });
    }

    fn refuse(&self, error: &Error, about: (&str, &str)) {
        if error.code() == Code::Internal {
            tracing::error!(env.id = %self.hub.env.id(), error = error.chain(), "a realtime message failed");
        }
        self.outbox.push(Frame { at: None, json: problem(error, about).into() });
    }

    /// The next message; the last one says why it is over, and after it there is none.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let ended = self.held.ended();
            let far = tokio::time::Instant::now() + Duration::from_secs(3_600);
            let over = self.outbox.ended().is_cancelled();
            tokio::select! {
                biased;
                () = ended.cancelled(), if !over => self.end_of_session().await,
                () = tokio::time::sleep_until(self.until.unwrap_or(far)), if !over && self.until.is_some() => {
                    self.outbox.end(End::TokenExpired);
                }
                () = tokio::time::sleep_until(self.again), if !over && self.is_key() => self.recognize_again().await,
                frame = self.outbox.next() => return frame,
            }
        }
    }

    /// Whether it has changed or has ended.
    async fn end_of_session(&self) {
        let holds = self.hub.held(self.token.as_ref()).await.is_ok();
        self.outbox.end(if holds { End::SessionChanged } else { End::SessionEnded });
    }

    fn is_key(&self) -> bool {
        self.token.is_some() && self.until.is_none()
    }

    async fn recognize_again(&mut self) {
        self.again = tokio::time::Instant::now() + AGAIN;
        if self.hub.held(self.token.as_ref()).await.is_err() {
            self.outbox.end(End::SessionEnded);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.leave(self.id);
    }
}

impl Messages {
    /// Whether one may be heard that counts for so many.
    fn admits(&mut self, cost: u32) -> bool {
        let (now, most) = (Instant::now(), f64::from(self.each_second));
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * most).min(most);
        self.at = now;
        if self.left < f64::from(cost).min(most) {
            return false;
        }
        self.left -= f64::from(cost);
        true
    }
}

/// When the token ends.
fn ends(held: &Held) -> Option<tokio::time::Instant> {
    let left = held.expires()?.as_micros().saturating_sub(Timestamp::now().as_micros());
    Some(tokio::time::Instant::now() + Duration::from_micros(u64::try_from(left).unwrap_or_default()))
}
