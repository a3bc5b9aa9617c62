//! Programs in a sandbox that speak MCP over their standard input and output, and are spoken to from outside: one of each
//! name, begun by the first call, that goes on for the next until its sandbox ends.
//!
//! Who calls from outside has no session. The handshake of the protocol's older versions is done here, once, and its
//! result is told to whoever asks for it. Nothing is read further than that, and all of it is bounded for each sandbox:
//! who speaks with its programs, what these say, and how fast.

mod message;
mod reads;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kernel::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::Hand;
pub use message::Message;
use reads::Reads;
use server::Server;

/// How long a call may take, with the time that its program takes to begin.
const ANSWERING: Duration = Duration::from_secs(600);

/// Programs of one sandbox, and calls to all of them at once.
const PROGRAMS: usize = 16;
const CALLS: usize = 32;

/// A program, as agents' settings describe one (`mcpServers`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What to run.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where; `/workspace` without one.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// The programs of one sandbox. They end with this.
pub(crate) struct Servers {
    places: Mutex<HashMap<String, Place>>,
    calls: Semaphore,
    reads: Arc<Reads>,
}

/// Where the program of a name is, and one at a time may see that it is.
type Place = Arc<AsyncMutex<Stand>>;

#[derive(Default)]
struct Stand {
    server: Option<Arc<Server>>,
    failed: Option<Failed>,
}

impl Stand {
    fn lives(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.lives())
    }
}

/// That a program has not begun. Whoever waited for it meanwhile is told the same.
struct Failed {
    at: Instant,
    program: Program,
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failed {
    fn again(&self) -> Error {
        let error = Error::new(self.code, self.message.as_str());
        self.hint.iter().fold(error, |error, hint| error.hint(hint.as_str()))
    }
}

/// Somebody's turn to speak with the programs of a sandbox.
pub struct Speaker<'a> {
    hand: &'a Hand,
    _turn: SemaphorePermit<'a>,
}

impl Hand {
    /// A turn to speak with what speaks MCP in it.
    ///
    /// # Errors
    /// `rate_limited` where too many do already.
    pub fn speaker(&self) -> Result<Speaker<'_>> {
        Ok(Speaker { hand: self, _turn: self.servers().turn()? })
    }
}

impl Speaker<'_> {
    /// What the program of that name answers, which is begun where it does not run, or does not run like this; nothing to
    /// a notification.
    ///
    /// # Errors
    /// `unavailable` where it does not begin or has ended, with what it says; `quota_exceeded` where there are too many;
    /// `timeout`.
    pub async fn speak(&self, name: &str, program: &Program, message: &Message) -> Result<Option<String>> {
        let servers = self.hand.servers();
        let begin = |program| Server::begin(self.hand, program, Arc::clone(&servers.reads));
        let spoken = async { servers.get(name, program, begin).await?.speak(message).await };
        timeout(ANSWERING, spoken).await.map_err(|_| {
            Error::new(Code::Timeout, format!("no answer within {} s", ANSWERING.as_secs()))
                .hint("let the program answer at once and work on in the background")
        })?
    }
}

impl Default for Servers {
    fn default() -> Self {
        Self { places: Mutex::default(), calls: Semaphore::new(CALLS), reads: Arc::default() }
    }
}

impl Servers {
    fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.calls.try_acquire().map_err(|_| {
            Error::new(
                Code::RateLimited,
                format!("{CALLS} calls of MCP servers of this sandbox have no answer yet"),
            )
            .retry_after(Duration::from_secs(1))
            .hint("wait for some of them, or cancel them with notifications/cancelled")
        })
    }

    /// The program of that name, begun where it does not run like that.
    async fn get<F>(
        &self,
        name: &str,
        program: &Program,
        begin: impl FnOnce(Program) -> F,
    ) -> Result<Arc<Server>>
    where
        F: Future<Output = Result<Arc<Server>>>,
    {
        let came = Instant::now();
        let place = self.place(name)?;
        let mut place = place.lock().await;
        if let Some(server) = place.server.as_ref().filter(|it| it.lives() && it.program == *program) {
            return Ok(Arc::clone(server));
        }
        if let Some(failed) = place.failed.as_ref().filter(|it| it.at >= came && it.program == *program) {
            return Err(failed.again());
        }
        // The old one ends before there is a new one.
        if let Some(old) = place.server.take() {
            old.end();
        }
        match begin(program.clone()).await {
            Ok(server) => {
                place.server = Some(Arc::clone(&server));
                Ok(server)
            }
            Err(error) => {
                place.failed = Some(Failed {
                    at: Instant::now(),
                    program: program.clone(),
                    code: error.code(),
                    message: error.message().to_owned(),
                    hint: error.advice().map(str::to_owned),
                });
                Err(error)
            }
        }
    }

    fn place(&self, name: &str) -> Result<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.contains_key(name) && places.len() >= PROGRAMS {
            // Those that never began or have ended, and that nobody waits for, are nobody's.
            places.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().map_or(true, |place| place.lives())
            });
        }
        if !places.contains_key(name) && places.len() >= PROGRAMS {
            let message = format!("{PROGRAMS} programs that speak MCP run in this sandbox");
            return Err(Error::new(Code::QuotaExceeded, message)
                .hint("each ends an hour after it has begun; `kill` one that is not needed"));
        }
        Ok(Arc::clone(places.entry(name.to_owned()).or_default()))
    }
}
