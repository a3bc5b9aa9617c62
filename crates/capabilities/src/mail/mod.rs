//! Mail to the users of apps: by a mail server, or into an outbox that the app's makers read.

mod outbox;
mod smtp;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kernel::{CallId, Env, Result, Secret, Timestamp};
use serde_json::Value;
use tokio::sync::Semaphore;

pub use outbox::Kept;
pub use smtp::{Server, is_sender};

pub(crate) use outbox::{keep, kept};

use crate::logs::{Entry, Level, Logs, Source};
use crate::places::{Place, Places};
use smtp::{Failure, Smtp};

/// One letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The address it goes to.
    pub to: String,
    /// Who it says it is from: the app's name.
    pub from: String,
    /// The subject.
    pub subject: String,
    /// The text, which may hold what opens an account.
    pub text: Secret,
}

/// Knows where apps answer, so that a letter's links never come from what a request says.
pub trait Addresses: Send + Sync + 'static {
    /// The app's address, without a slash at its end.
    fn url<'a>(&'a self, env: &'a Env, at: At<'a>) -> BoxFuture<'a, Result<String>>;
}

/// Which of an app's addresses is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'a> {
    /// The one below the domain of all apps.
    Apps,
    /// A domain of its own, which is proven.
    Domain(&'a str),
    /// The first of its proven domains, or the one below the domain of all apps where it has none.
    Best,
}

impl<'a> From<Option<&'a str>> for At<'a> {
    fn from(domain: Option<&'a str>) -> Self {
        domain.map_or(At::Apps, At::Domain)
    }
}

/// Where letters go.
#[derive(Debug, Clone)]
pub enum Route {
    /// Nowhere: they stay in the environment, for the app's makers to read.
    Outbox,
    /// To a mail server.
    Server(Server),
}

/// Hands letters on, beside the requests that cause them. Clones share everything.
#[derive(Clone)]
pub struct Post(Arc<Inner>);

struct Inner {
    smtp: Option<Smtp>,
    addresses: Arc<dyn Addresses>,
    logs: Logs,
    /// For those that wait or are being sent for the first time.
    room: Places,
    /// For those that the server has put off.
    late: Places,
    /// For those that are being sent.
    lines: Semaphore,
}

/// How many letters wait at most, and as many more that the server has put off; others are dropped, and said to be.
const WAITING: usize = 5_000;

/// How many of one environment: some servers put off what others make it write.
const OF_ONE: usize = 100;

/// How many connections the mail server has to bear.
const LINES: usize = 8;

/// How long after a failure that may pass the next try follows.
const TRIES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

impl Post {
    /// Letters go by `route`; what becomes of them is in `logs`.
    ///
    /// # Errors
    /// `invalid_input` where the server cannot be what was configured.
    pub fn new(route: &Route, addresses: Arc<dyn Addresses>, logs: Logs) -> Result<Self> {
        let smtp = match route {
            Route::Outbox => None,
            Route::Server(server) => Some(Smtp::new(server)?),
        };
        let (room, late) = (Places::new(WAITING, OF_ONE), Places::new(WAITING, OF_ONE));
        let lines = Semaphore::new(LINES);
        Ok(Self(Arc::new(Inner { smtp, addresses, logs, room, late, lines })))
    }

    /// Whether letters stay in the outbox.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.smtp.is_none()
    }

    /// Where the app of `env` answers.
    ///
    /// # Errors
    /// Where the control plane fails, or the environment is being deleted.
    pub async fn url(&self, env: &Env, at: At<'_>) -> Result<String> {
        self.0.addresses.url(env, at).await
    }

    /// Notes what has happened to somebody's sign-in.
    pub(crate) fn note(&self, env: &Env, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.append(env, Source::Auth, level, message, fields);
    }

    /// Notes what a request about somebody's sign-in was refused for.
    pub(crate) fn note_of(&self, env: &Env, message: &str, fields: &[(&str, &str)], request: CallId) {
        let mut entry = entry(Source::Auth, Level::Warn, message, fields);
        entry.request_id = Some(request.to_string());
        self.0.logs.append(env, entry);
    }

    /// Says that a letter is in the outbox, without what is in it.
    pub(crate) fn tell(&self, env: &Env) {
        let message = "a mail is in the outbox, since no mail server is set: auth_users with mails shows it";
        self.log(env, Level::Info, message, &[]);
    }

    /// Sends a letter some time soon, several times where the server fails for a moment. Does not wait.
    pub(crate) fn send(&self, env: &Env, letter: Letter) {
        let (post, env) = (self.clone(), env.clone());
        let Some(room) = post.0.room.take(env.id()) else {
            return post.log(
                &env,
                Level::Error,
                "a mail was dropped: too many of this app wait to be sent",
                &[],
            );
        };
        tokio::spawn(async move { post.deliver(&env, &letter, room).await });
    }

    async fn deliver(&self, env: &Env, letter: &Letter, room: Place) {
        let Some(smtp) = &self.0.smtp else { return };
        let (mut new, mut late) = (Some(room), None);
        let mut waits = TRIES.into_iter();
        loop {
            let sent = {
                let Ok(_line) = self.0.lines.acquire().await else { return };
                smtp.send(letter).await
            };
            let Failure { lasts, why } = match sent {
                Ok(()) => return self.log(env, Level::Info, "a mail was handed to the mail server", &[]),
                Err(failure) => failure,
            };
            let Some(wait) = waits.next().filter(|_| !lasts) else {
                return self.log(env, Level::Error, "a mail could not be sent", &[("why", &why)]);
            };
            // What is put off keeps nothing new from its first try.
            if new.take().is_some() {
                late = self.0.late.take(env.id());
            }
            if late.is_none() {
                let message = "a mail was dropped: too many of this app are put off by the mail server";
                return self.log(env, Level::Error, message, &[("why", &why)]);
            }
            self.log(env, Level::Warn, "a mail could not be sent yet", &[("why", &why)]);
            tokio::time::sleep(wait).await;
        }
    }

    /// Neither addresses nor texts are logged.
    fn log(&self, env: &Env, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.append(env, Source::Mail, level, message, fields);
    }

    fn append(&self, env: &Env, source: Source, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.0.logs.append(env, entry(source, level, message, fields));
    }
}

fn entry(source: Source, level: Level, message: &str, fields: &[(&str, &str)]) -> Entry {
    let mut entry = Entry::new(Timestamp::now(), level, source, message);
    entry.fields = fields.iter().map(|(name, it)| ((*name).to_owned(), Value::from(*it))).collect();
    entry
}

/// Where the app of every environment answers, in tests.
#[cfg(test)]
pub(crate) const URL: &str = "http://shop.localhost:8787";

#[cfg(test)]
impl Post {
    /// Keeps letters in the outbox.
    pub(crate) fn to_outbox(logs: Logs) -> Self {
        struct Here;

        impl Addresses for Here {
            fn url<'a>(&'a self, _: &'a Env, _: At<'a>) -> BoxFuture<'a, Result<String>> {
                Box::pin(async { Ok(URL.to_owned()) })
            }
        }
        let (room, late) = (Places::new(WAITING, OF_ONE), Places::new(WAITING, OF_ONE));
        let lines = Semaphore::new(LINES);
        Self(Arc::new(Inner { smtp: None, addresses: Arc::new(Here), logs, room, late, lines }))
    }
}
