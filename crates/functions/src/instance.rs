//! One process of a function: made, asked, ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use capabilities::functions::Runtime;
use futures::future::BoxFuture;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Limited};
use kernel::{Code, SandboxId, Secret};
use sandbox::local::{Door, Local};
use sandbox::runner::{Limits, Runner as _, Spec, Usage};
use sandbox::session::{Exec, Outcome, Session, Stdin};
use sandbox::workspace::Tree;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::answered::{Answered, Idle, Link};
use crate::attending::{attend, read};
use crate::error::{Error, Result};
use crate::output::{Level, Line, Pieces, Said};
use crate::runtime;
use crate::serving::{PORT, Scratch};

/// Where a function's files are, inside.
const FILES: &str = "/workspace";

/// The name of its socket, in the sandbox's own directory, and where it finds the platform's.
const SOCKET: &str = "fn.sock";
pub(crate) const PLATFORM: &str = "/run/steading/bridge.sock";

/// What the runtime is told of where it is.
pub(crate) const SURROUNDINGS: [(&str, &str); 8] = [
    ("HOME", "/tmp"),
    ("HTTP_PROXY", PROXY),
    ("HTTPS_PROXY", PROXY),
    ("http_proxy", PROXY),
    ("https_proxy", PROXY),
    ("NO_PROXY", "localhost,127.0.0.1,::1"),
    ("no_proxy", "localhost,127.0.0.1,::1"),
    ("NODE_USE_ENV_PROXY", "1"),
];

/// Where the way out is, inside.
const PROXY: &str = "http://127.0.0.1:3128";

/// How long a process may take beyond the time that its module has to load.
const START: Duration = Duration::from_secs(5);

/// How long a connection inside may take, and a ping.
pub(crate) const DIAL: Duration = Duration::from_secs(5);

/// The most bytes of an answer to a ping.
const PING: usize = 4 << 10;

const KIND: HeaderName = HeaderName::from_static("steading-fn-kind");

/// The body of a request to a function.
pub type Sent = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Takes a function's log as it comes. It must not block.
pub type Sink = Arc<dyn Fn(Line) + Send + Sync>;

/// What serves a sandbox's way out and its way to the platform, which are given in this order, for as long as it lives.
pub type Around = Box<dyn FnOnce(UnixListener, UnixListener) -> BoxFuture<'static, ()> + Send>;

/// A function that is to run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// What it runs on.
    pub runtime: Runtime,
    /// The directories of the host that have the runtime.
    pub layers: Vec<PathBuf>,
    /// The directory of the host that has its files, which it only reads.
    pub files: PathBuf,
    /// Which of the files to load.
    pub entry: String,
    /// Its variables and secrets.
    pub env: BTreeMap<String, Secret>,
    /// What it is called.
    pub meta: Meta,
    /// What it may use.
    pub limits: InstanceLimits,
}

/// What a function is told of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Meta {
    /// The slug of its environment.
    pub env: String,
    /// Its name.
    pub function: String,
    /// The version.
    pub version: String,
    /// Its app's public origin.
    pub url: String,
}

/// What one process of a function may use.
#[derive(Debug, Clone, Copy)]
pub struct InstanceLimits {
    /// Memory, processor time, processes, and what `/tmp` holds.
    pub sandbox: Limits,
    /// How long its module may take to load.
    pub boot: Duration,
    /// How long what is in flight may go on when it is to end.
    pub drain: Duration,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            sandbox: Limits { memory_bytes: 128 << 20, cpu_millis: 1_000, pids: 64, tmp_bytes: 64 << 20 },
            boot: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// What a process says of itself. It can say anything: these numbers only shorten its own life.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub struct Ping {
    /// Requests that it works on.
    pub in_flight: u64,
    /// Work that goes on after its answers.
    pub waiting: u64,
    /// Its memory, in bytes.
    pub rss: u64,
}

/// A process of a function or a service that listens. Dropped it is ended.
pub struct Instance {
    pub(crate) way: Way,
    idle: Idle,
    ready: Map<String, Value>,
    signals: mpsc::Sender<i32>,
    ended: watch::Receiver<Option<Outcome>>,
    local: Arc<Local>,
    id: SandboxId,
    /// The files of a service.
    scratch: Option<Scratch>,
    _work: JoinSet<()>,
}

/// How a process is dialled.
pub(crate) enum Way {
    /// At a socket that it has made.
    Socket(Door),
    /// At [`PORT`], through what has begun it.
    Port(Session),
}

/// What was not answered, and the request where nothing of it was sent.
pub(crate) struct Unsent {
    pub error: Error,
    pub request: Option<Request<Sent>>,
}

/// What standard input begins with: all that a process needs to know.
#[derive(Serialize)]
struct Told<'a> {
    entry: String,
    sock: String,
    mark: &'a str,
    env: BTreeMap<&'a str, &'a str>,
    limits: Value,
    meta: &'a Meta,
    platform: Value,
}

impl Instance {
    /// Starts one in a sandbox of its own, and returns when it listens. `sink` gets its log from the first line on.
    ///
    /// # Errors
    /// [`Error::Failed`] where its module does not load, [`Error::Ended`] and [`Error::Silent`] where it says nothing of
    /// why; nothing is left behind.
    pub async fn start(local: Arc<Local>, it: &Assignment, sink: Sink, around: Around) -> Result<Self> {
        let id = SandboxId::new();
        let workspace = Tree::Fixed { path: it.files.clone() };
        let spec = Spec { id, workspace, layers: it.layers.clone(), limits: it.limits.sandbox };
        let started = local.create(&spec).await?;
        let around = around(started.egress, started.bridge);
        let begun = Self::begin(&local, id, started.hand, it, sink, around).await;
        if begun.is_err()
            && let Err(error) = local.destroy(id).await
        {
            tracing::warn!(sandbox.id = %id, error = error.chain(), "a function's sandbox could not be ended");
        }
        begun
    }

    async fn begin(
        local: &Arc<Local>,
        id: SandboxId,
        hand: tokio::net::UnixStream,
        it: &Assignment,
        sink: Sink,
        around: BoxFuture<'static, ()>,
    ) -> Result<Self> {
        let session = Session::open(hand).await?;
        let mut exec = Exec::argv(runtime::command(it.runtime, it.limits.sandbox.memory_bytes));
        exec.stdin = Stdin::Stream;
        // Settings that a function brings are not the runtime's.
        exec.cwd = Some("/run/steading".to_owned());
        exec.env.extend(SURROUNDINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut process = session.serve(exec).await?;
        let mark = mark()?;
        let (said, mut heard) = mpsc::channel(1);
        let mut work = JoinSet::new();
        work.spawn(around);
        if let Some(stdout) = process.stdout() {
            work.spawn(read(stdout, Pieces::new(&mark, Level::Info), Arc::clone(&sink), Some(said)));
        }
        if let Some(stderr) = process.stderr() {
            work.spawn(read(stderr, Pieces::new(&mark, Level::Error), sink, None));
        }
        let mut writer = process.stdin_writer();
        let told = assignment(it, &mark)?;
        // One that ends before it has read all of it says why.
        let _ = writer.write_all(&told).await;
        let _ = writer.shutdown().await;
        let (signals, asked) = mpsc::channel(4);
        let (end, ended) = watch::channel(None);
        let mut over = ended.clone();
        work.spawn(attend(session, process, asked, end));
        let waits = it.limits.boot.saturating_add(START);
        let outcome = timeout(waits, async {
            match heard.recv().await {
                Some(said) => Ok(said),
                None => Err(ended_as(over.wait_for(Option::is_some).await.ok().and_then(|it| *it))),
            }
        });
        let ready = match outcome.await.map_err(|_| Error::Silent)?? {
            Said::Ready(ready) => ready,
            Said::Failed(failure) => return Err(Error::Failed(failure)),
        };
        let way = Way::Socket(local.door(id).await?);
        let mut instance = Self::made(way, (Arc::clone(local), id), signals, ended, None).with_work(work);
        instance.ready = ready;
        // It listens where whoever answers is the runner, as far as anybody can tell.
        instance.ping().await?;
        Ok(instance)
    }

    /// One that has begun; its work is somebody's who starts it.
    pub(crate) fn made(
        way: Way,
        (local, id): (Arc<Local>, SandboxId),
        signals: mpsc::Sender<i32>,
        ended: watch::Receiver<Option<Outcome>>,
        scratch: Option<Scratch>,
    ) -> Self {
        let (idle, ready, work) = (Idle::default(), Map::new(), JoinSet::new());
        Self { way, idle, ready, signals, ended, local, id, scratch, _work: work }
    }

    /// The same with work that ends with it.
    pub(crate) fn with_work(self, work: JoinSet<()>) -> Self {
        Self { _work: work, ..self }
    }

    /// What its runner has said of it when it listened: the runtime, its version, and what it can be asked for.
    #[must_use]
    pub fn ready(&self) -> &Map<String, Value> {
        &self.ready
    }

    /// Asks it. What its answer's body is dropped before its end is broken off, and the function told so.
    ///
    /// # Errors
    /// [`Error::Gone`] where it has ended, [`Error::Broken`] where it does not speak HTTP.
    pub async fn send(&self, request: Request<Sent>) -> Result<Response<Answered>> {
        self.try_send(request).await.map_err(|unsent| unsent.error)
    }

    /// As [`Instance::send`]; what no byte was sent of comes back.
    pub(crate) async fn try_send(&self, mut request: Request<Sent>) -> Result<Response<Answered>, Unsent> {
        loop {
            let (link, is_new) = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => return Err(Unsent { error, request: Some(request) }),
            };
            match link.send(request, self.idle.clone()).await {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    // One that has waited may just have been closed.
                    Some(back) if !is_new => request = back,
                    back => {
                        let error = Error::Broken(failed.into_error());
                        return Err(Unsent { error, request: back });
                    }
                },
            }
        }
    }

    /// Asks how it is.
    ///
    /// # Errors
    /// [`Error::Silent`] where its event loop does not come round, and as [`Instance::send`].
    pub async fn ping(&self) -> Result<Ping> {
        let asked = async {
            let mut request = Request::new(nothing());
            let headers = request.headers_mut();
            headers.insert(KIND, HeaderValue::from_static("ping"));
            headers.insert(HOST, HeaderValue::from_static("function.internal"));
            let answer = Limited::new(self.send(request).await?.into_body(), PING).collect().await;
            let bytes = answer.map_err(|_| Error::Gone)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|_| Error::Silent)
        };
        timeout(DIAL, asked).await.unwrap_or(Err(Error::Silent))
    }

    /// A connection, and whether it is new.
    async fn connection(&self) -> Result<(Link, bool)> {
        if let Some(link) = self.idle.take().await {
            return Ok((link, false));
        }
        let link = match &self.way {
            Way::Socket(door) => {
                let dialled = timeout(DIAL, door.dial(SOCKET)).await.map_err(|_| Error::Silent)?;
                Link::new(dialled.map_err(|_| Error::Gone)?).await?
            }
            Way::Port(session) => {
                let dialled = timeout(DIAL, session.dial(PORT)).await.map_err(|_| Error::Silent)?;
                Link::new(dialled.map_err(|_| Error::Gone)?).await?
            }
        };
        Ok((link, true))
    }

    /// Closes connections that wait and are none any more.
    pub(crate) async fn sweep(&self) {
        self.idle.sweep().await;
    }

    /// Whether something listens where it is to.
    pub(crate) async fn listens(&self) -> bool {
        match &self.way {
            Way::Socket(door) => matches!(timeout(DIAL, door.dial(SOCKET)).await, Ok(Ok(_))),
            Way::Port(session) => matches!(timeout(DIAL, session.dial(PORT)).await, Ok(Ok(_))),
        }
    }

    /// Whether it ends what it works on by itself when it is told to end.
    pub(crate) const fn drains(&self) -> bool {
        matches!(self.way, Way::Socket(_))
    }

    /// Whether its files are more than they may be.
    pub(crate) async fn is_full(&self) -> bool {
        match &self.scratch {
            Some(scratch) => scratch.is_full().await,
            None => false,
        }
    }

    /// How its process has ended, where it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        *self.ended.borrow()
    }

    /// Its sandbox.
    pub(crate) const fn sandbox(&self) -> SandboxId {
        self.id
    }

    /// Whether its process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until its process has ended, and says how.
    pub async fn ended(&self) -> Option<Outcome> {
        self.ended.clone().wait_for(Option::is_some).await.ok().and_then(|it| *it)
    }

    /// Lets what is in flight end, for as long as it may, and ends it.
    ///
    /// # Errors
    /// Where something of it could not be removed.
    pub async fn stop(&self, drain: Duration) -> kernel::Result<()> {
        const TERM: i32 = 15;
        if self.signals.send(TERM).await.is_ok() {
            // Who goes on is ended.
            let _ = timeout(drain, self.ended()).await;
        }
        self.kill().await
    }

    /// Ends it at once, and removes what is left of it.
    ///
    /// # Errors
    /// Where something of it could not be removed.
    pub async fn kill(&self) -> kernel::Result<()> {
        match self.local.destroy(self.id).await {
            Err(error) if error.code() == Code::NotFound => {}
            done => done?,
        }
        match &self.scratch {
            Some(scratch) => scratch.remove().await,
            None => Ok(()),
        }
    }

    /// What it uses, as the kernel says.
    ///
    /// # Errors
    /// Where it has ended.
    pub async fn usage(&self) -> kernel::Result<Usage> {
        self.local.usage(self.id).await
    }
}

/// A body without anything in it.
pub(crate) fn nothing() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn ended_as(outcome: Option<Outcome>) -> Error {
    Error::Ended(match outcome {
        Some(Outcome::Code(code)) => format!("code {code}"),
        Some(Outcome::Signal(signal)) => format!("signal {signal}"),
        Some(Outcome::TimedOut) | None => "its sandbox has ended".to_owned(),
    })
}

/// A mark that nobody knows before.
pub(crate) fn mark() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(kernel::Error::internal)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn assignment(it: &Assignment, mark: &str) -> Result<Vec<u8>> {
    let told = Told {
        entry: format!("{FILES}/{}", it.entry),
        sock: format!("/run/steading/{SOCKET}"),
        mark,
        env: it.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect(),
        limits: serde_json::json!({
            "boot_ms": it.limits.boot.as_millis() as u64,
            "drain_ms": it.limits.drain.as_millis() as u64,
            "memory_mib": it.limits.sandbox.memory_bytes >> 20,
        }),
        meta: &it.meta,
        platform: serde_json::json!({ "sock": PLATFORM }),
    };
    Ok(serde_json::to_vec(&told).map_err(kernel::Error::internal)?)
}
