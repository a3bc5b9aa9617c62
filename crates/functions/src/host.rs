//! What functions need of the platform around them, and what they are asked.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use capabilities::functions::{Function, FunctionName};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use kernel::{Env, Secret};
use sandbox::egress::{Event, Policy};
use sandbox::runner::Isolation;

use crate::instance::Sent;
use crate::output::Line;

/// The platform around functions.
pub trait Host: Send + Sync {
    /// Where an app is: the slug of its environment, and its public origin.
    ///
    /// # Errors
    /// Where the control plane fails.
    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, kernel::Result<Place>>;

    /// The values of an environment's secrets, as many of `names` as there are.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn secrets<'a>(
        &'a self,
        env: &'a Env,
        names: &'a [String],
    ) -> BoxFuture<'a, kernel::Result<BTreeMap<String, Secret>>>;

    /// Whether what runs for an environment may run, and be built, where it is kept apart by that.
    ///
    /// # Errors
    /// `unavailable` where more is demanded.
    fn admits<'a>(&'a self, env: &'a Env, isolation: Isolation) -> BoxFuture<'a, kernel::Result<()>>;

    /// Where an environment's functions may go, and how much of it.
    ///
    /// # Errors
    /// Where that cannot be known; they go nowhere then.
    fn policy<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, kernel::Result<Policy>>;

    /// A line of a function's log. `request` is the one that it is of. It must not block.
    fn log(&self, called: &Called, request: Option<&str>, line: &Line);

    /// Something has happened on the way out of a function. It must not block.
    fn told(&self, called: &Called, event: Event);

    /// Answers what a function asks of the platform. Nobody else reaches the socket that it has come by; nothing in it is
    /// believed.
    fn answer<'a>(&'a self, asker: &'a Asker, request: Request<Incoming>) -> BoxFuture<'a, Response<Sent>>;
}

/// Where an app is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The slug of its environment.
    pub slug: String,
    /// Its public origin.
    pub url: String,
}

/// A function that is asked: one of an app's release.
#[derive(Debug, Clone)]
pub struct Called {
    /// Whose it is.
    pub env: Env,
    /// What it is called.
    pub name: FunctionName,
    /// What of it is in the release.
    pub function: Arc<Function>,
    /// The app's variables, below the function's own.
    pub variables: Arc<BTreeMap<String, String>>,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Of somebody who visits the app.
    #[default]
    Http,
    /// A call with JSON.
    Invoke,
    /// That its time has come.
    Scheduled,
    /// That something has happened.
    Event,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Invoke => "invoke",
            Self::Scheduled => "scheduled",
            Self::Event => "event",
        }
    }
}

/// A request to a function.
pub struct Asking {
    /// What is asked. Headers that are the platform's own are taken out of it.
    pub request: Request<Sent>,
    /// Its id, which says in the log what belongs together.
    pub id: String,
    /// What kind it is.
    pub kind: Kind,
    /// Its address as the outside sees it.
    pub url: Option<String>,
    /// Who asks, as the function is told: `{"kind": "user", …}`, in ASCII.
    pub caller: Option<String>,
    /// What has made it come, for what is scheduled and for events, in ASCII.
    pub trigger: Option<String>,
    /// Who asks, as the platform knows them: while the request is under way the function may ask with their rights.
    pub rights: Option<Arc<dyn Any + Send + Sync>>,
    /// How many functions have asked each other until here.
    pub depth: u8,
    /// How long the answer may take to begin; the function's own limit where that is shorter.
    pub within: Option<Duration>,
    /// Takes the lines of the log that are of this request.
    pub lines: Option<Lines>,
}

/// Lines of one request, as they come.
pub type Lines = Arc<Mutex<Vec<Line>>>;

/// The most lines that are kept for whoever asks.
const MOST_LINES: usize = 1_000;

/// Requests that are over and whose lines are still taken for theirs.
const REMEMBERED: usize = 1_000;

/// For how long what a function does beside its requests is held to come of one that is over.
const MOMENT: Duration = Duration::from_secs(60);

impl Asking {
    /// One of that id and kind, of nobody.
    #[must_use]
    pub fn new(request: Request<Sent>, id: impl Into<String>, kind: Kind) -> Self {
        Self {
            request,
            id: id.into(),
            kind,
            url: None,
            caller: None,
            trigger: None,
            rights: None,
            depth: 0,
            within: None,
            lines: None,
        }
    }
}

/// Who has made a request that a process works on.
pub enum By {
    /// Nobody in whose place anything may be done: it works on no such request, not any more, or on several of that id.
    Nobody,
    /// The platform itself.
    Platform,
    /// Whoever this stands for, which is [`Asking::rights`] of the request.
    Somebody(Arc<dyn Any + Send + Sync>),
}

/// A process of a function that asks the platform for something.
pub struct Asker {
    /// Whose function it is.
    pub env: Env,
    /// What it is called.
    pub name: FunctionName,
    flights: Arc<Flights>,
}

impl Asker {
    pub(crate) fn new(called: &Called, flights: Arc<Flights>) -> Self {
        Self { env: called.env.clone(), name: called.name.clone(), flights }
    }

    /// Who has made the request of that id.
    #[must_use]
    pub fn by(&self, id: &str) -> By {
        self.flights.by(id)
    }

    /// How many functions have asked each other until the request of that id came here, also where it is over. Of what a
    /// function does beside its requests that counts which has come the longest way, of those that it works on or has worked
    /// on a moment ago: it is no new beginning.
    #[must_use]
    pub fn depth(&self, id: Option<&str>) -> u8 {
        self.flights.depth(id)
    }
}

/// Requests that a process was sent, by their ids: those that it works on, and the last of those that it has worked on, for
/// which lines of its log still come.
#[derive(Default)]
pub(crate) struct Flights(Mutex<Known>);

#[derive(Default)]
struct Known {
    all: HashMap<String, Flight>,
    over: VecDeque<String>,
}

/// One of them.
pub(crate) struct Flight {
    by: By,
    depth: u8,
    /// Who hears the lines of its log.
    pub lines: Option<Lines>,
    /// How many of that id are under way, and when the last was over.
    under_way: u32,
    over: Option<Instant>,
}

impl Flight {
    pub fn new(rights: Option<Arc<dyn Any + Send + Sync>>, depth: u8, lines: Option<Lines>) -> Self {
        Self { by: rights.map_or(By::Platform, By::Somebody), depth, lines, under_way: 1, over: None }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, id: &str, flight: Flight) {
        let mut sent = self.lock();
        match sent.all.get_mut(id) {
            // Nobody is given another's rights for having the same id.
            Some(there) => {
                there.by = By::Nobody;
                there.depth = there.depth.max(flight.depth);
                there.under_way += 1;
                there.over = None;
            }
            None => drop(sent.all.insert(id.to_owned(), flight)),
        }
    }

    pub fn end(&self, id: &str) {
        let mut sent = self.lock();
        let Some(flight) = sent.all.get_mut(id) else { return };
        flight.under_way = flight.under_way.saturating_sub(1);
        if flight.under_way > 0 {
            return;
        }
        flight.by = By::Nobody;
        flight.over = Some(Instant::now());
        sent.over.push_back(id.to_owned());
        while sent.over.len() > REMEMBERED {
            let Some(oldest) = sent.over.pop_front() else { return };
            if sent.all.get(&oldest).is_some_and(|flight| flight.under_way == 0) {
                sent.all.remove(&oldest);
            }
        }
    }

    fn by(&self, id: &str) -> By {
        match self.lock().all.get(id).map(|flight| &flight.by) {
            None | Some(By::Nobody) => By::Nobody,
            Some(By::Platform) => By::Platform,
            Some(By::Somebody(rights)) => By::Somebody(Arc::clone(rights)),
        }
    }

    fn depth(&self, id: Option<&str>) -> u8 {
        let sent = self.lock();
        let lately = |it: &&Flight| it.over.is_none_or(|at| at.elapsed() < MOMENT);
        let deepest = || sent.all.values().filter(lately).map(|it| it.depth).max().unwrap_or_default();
        id.and_then(|id| sent.all.get(id)).map_or_else(deepest, |flight| flight.depth)
    }

    /// Notes a line for the request that it says it is of; whether this process was sent that.
    pub fn hear(&self, line: &Line) -> bool {
        let Some(rid) = &line.rid else { return false };
        let sent = self.lock();
        let Some(flight) = sent.all.get(rid) else { return false };
        if let Some(lines) = &flight.lines {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() < MOST_LINES {
                lines.push(line.clone());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rid: &str) -> Line {
        Line { rid: Some(rid.to_owned()), ..Line::said(crate::Level::Info, "x".to_owned()) }
    }

    fn flight(depth: u8, rights: Option<i32>, lines: Option<&Lines>) -> Flight {
        let rights = rights.map(|it| Arc::new(it) as Arc<dyn Any + Send + Sync>);
        Flight::new(rights, depth, lines.cloned())
    }

    #[test]
    fn lines_come_for_a_while_after_a_request_and_rights_end_with_it() {
        let flights = Flights::default();
        let lines = Lines::default();
        flights.begin("a", flight(0, Some(1), Some(&lines)));
        flights.begin("platform", flight(0, None, None));
        assert!(matches!(flights.by("a"), By::Somebody(_)));
        assert!(matches!(flights.by("platform"), By::Platform));
        flights.end("a");
        assert!(matches!(flights.by("a"), By::Nobody), "not the platform");
        assert!(matches!(flights.by("b"), By::Nobody));
        assert!(flights.hear(&line("a")) && !flights.hear(&line("b")));
        assert_eq!(lines.lock().unwrap().len(), 1);
        for other in 0..REMEMBERED {
            flights.begin(&format!("r{other}"), flight(0, None, None));
            flights.end(&format!("r{other}"));
        }
        assert!(!flights.hear(&line("a")), "what is long over is forgotten");
        assert_eq!(flights.lock().all.len(), REMEMBERED + 1);
    }

    #[test]
    fn two_of_one_id_are_nobodys_and_no_way_gets_shorter() {
        let flights = Flights::default();
        flights.begin("a", flight(2, Some(1), None));
        flights.begin("a", flight(5, Some(2), None));
        flights.begin("b", flight(1, Some(3), None));
        assert!(matches!(flights.by("a"), By::Nobody));
        assert_eq!([Some("a"), Some("b"), Some("c"), None].map(|id| flights.depth(id)), [5, 1, 5, 5]);
        flights.end("a");
        flights.end("a");
        assert_eq!([Some("a"), Some("b"), None].map(|id| flights.depth(id)), [5, 1, 5]);
        flights.end("b");
        assert_eq!([Some("a"), Some("b"), None].map(|id| flights.depth(id)), [5, 1, 5], "each its own");
        let long_ago = Instant::now().checked_sub(MOMENT).unwrap();
        flights.lock().all.get_mut("a").unwrap().over = Some(long_ago);
        assert_eq!([Some("a"), Some("b"), None].map(|id| flights.depth(id)), [5, 1, 1], "not for ever");
    }
}
