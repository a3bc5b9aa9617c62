//! How a process of a service begins: its files are put where it may change them, its command runs, and it is waited for until
//! it is there.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use capabilities::functions::Health;
use futures::future::BoxFuture;
use http::Request;
use http::header::HOST;
use kernel::{Code, SandboxId, Secret, WorkspaceId};
use sandbox::local::Local;
use sandbox::runner::{Limits, Runner as _, Spec};
use sandbox::session::{Exec, Outcome, Session, Stdin};
use sandbox::workspace::{Fullness, LEAST_QUOTA, Origin};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::attending::{attend, read};
use crate::error::{Error, Failure, Result};
use crate::instance::{Around, DIAL, Instance, PLATFORM, SURROUNDINGS, Sink, Way, mark, nothing};
use crate::output::{Level, Pieces};

/// Where a service listens, in a network of its own.
pub(crate) const PORT: u16 = 8_080;

/// Where its files are, inside, and how many bytes they may be with what it writes there.
const FILES: &str = "/workspace";
const DISK: u64 = LEAST_QUOTA;

/// What a file counts as at least, in bytes, where it is counted how many there may be.
const BYTES_OF_A_FILE: u64 = 4_096;

/// How often it is looked whether it is there.
const LOOKED: Duration = Duration::from_millis(20);

/// How long it may take to put its files there.
const UNPACKING: Duration = Duration::from_secs(60);

/// Lines that are told of one that does not start, and how many characters of each.
const LAST: usize = 20;
const LINE: usize = 400;

/// A service that is to run.
pub struct Service {
    /// The directories of the host that it has below `/usr/local`.
    pub layers: Vec<PathBuf>,
    /// The archive of the host that has its files.
    pub archive: PathBuf,
    /// A line of bash.
    pub command: String,
    /// When it is there.
    pub health: Health,
    /// Its variables and secrets.
    pub env: BTreeMap<String, Secret>,
    /// Its app's public origin.
    pub url: String,
    /// What it may use.
    pub limits: Limits,
}

/// The files of one process, which go with it.
pub(crate) struct Scratch {
    local: Arc<Local>,
    sandbox: SandboxId,
    workspace: Mutex<Option<WorkspaceId>>,
}

impl Scratch {
    async fn make(local: Arc<Local>, sandbox: SandboxId) -> Result<Self> {
        let id = WorkspaceId::new();
        let it = Self { local, sandbox, workspace: Mutex::new(Some(id)) };
        it.local.create_workspace(id, Origin::Empty, DISK).await?;
        Ok(it)
    }

    fn id(&self) -> Option<WorkspaceId> {
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes them, once nothing has them any more.
    pub async fn remove(&self) -> kernel::Result<()> {
        let id = self.workspace.lock().unwrap_or_else(PoisonError::into_inner).take();
        match id {
            Some(id) => self.local.remove_workspace(id).await,
            None => Ok(()),
        }
    }

    /// Whether they are more than they may be.
    pub async fn is_full(&self) -> bool {
        let Some(id) = self.id() else { return false };
        is_over(self.local.fullness(id).await)
    }
}

/// Whether files are more than they may be, where nothing else holds them to it. What cannot be counted is.
pub(crate) fn is_over(counted: kernel::Result<Fullness>) -> bool {
    match counted {
        // Files without bytes take of the disk, too.
        Ok(it) => !it.enforced && (it.bytes > it.quota_bytes || it.files > it.quota_bytes / BYTES_OF_A_FILE),
        Err(error) => error.code() == Code::TooLarge,
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let id = self.workspace.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(id), Ok(runtime)) = (id, tokio::runtime::Handle::try_current()) else { return };
        let (local, sandbox) = (Arc::clone(&self.local), self.sandbox);
        runtime.spawn(async move {
            let ended = local.destroy(sandbox).await;
            // What no row names goes at the next start.
            if let Err(error) = ended.and(local.remove_workspace(id).await) {
                tracing::warn!(workspace.id = %id, error = error.chain(), "a service's files are left");
            }
        });
    }
}

/// The last that a process has said.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<VecDeque<String>>>);

impl Last {
    /// The same sink, whose lines are kept here too.
    fn hearing(&self, sink: Sink) -> Sink {
        let kept = self.clone();
        Arc::new(move |line: crate::Line| {
            let text: String = line.text.chars().take(LINE).collect();
            let mut last = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LAST {
                last.pop_front();
            }
            last.push_back(text);
            drop(last);
            sink(line);
        })
    }

    fn text(&self) -> Option<String> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = last.make_contiguous().join("\n");
        Some(text).filter(|text| !text.is_empty())
    }
}

impl Instance {
    /// Starts a process of a service in a sandbox of its own, and returns when it is there. `sink` gets its log from the first
    /// line on.
    ///
    /// # Errors
    /// [`Error::Failed`] where it does not come; nothing is left behind.
    pub async fn serve(local: Arc<Local>, it: &Service, sink: Sink, around: Around) -> Result<Self> {
        let id = SandboxId::new();
        let scratch = Scratch::make(Arc::clone(&local), id).await?;
        let place = scratch.id().ok_or(Error::Gone)?;
        let workspace = local.tree(place).await?;
        let spec = Spec { id, workspace, layers: it.layers.clone(), limits: it.limits };
        let started = local.create(&spec).await?;
        let around = around(started.egress, started.bridge);
        // From here on all of it goes with what has it.
        Self::there(local, id, started.hand, it, sink, around, scratch).await
    }

    async fn there(
        local: Arc<Local>,
        id: SandboxId,
        hand: tokio::net::UnixStream,
        it: &Service,
        sink: Sink,
        around: BoxFuture<'static, ()>,
        scratch: Scratch,
    ) -> Result<Self> {
        let session = Session::open(hand).await?;
        unpacked(&session, &it.archive).await?;
        let mut exec = Exec::command(it.command.clone());
        exec.cwd = Some(FILES.to_owned());
        exec.env = environment(it);
        let mut process = session.serve(exec).await?;
        let mut work = JoinSet::new();
        work.spawn(around);
        let (last, mark) = (Last::default(), mark()?);
        let sink = last.hearing(sink);
        let mut said = JoinSet::new();
        let channels = [(process.stdout(), Level::Info), (process.stderr(), Level::Warn)];
        for (channel, level) in channels {
            let Some(channel) = channel else { continue };
            said.spawn(read(channel, Pieces::new(&mark, level), Arc::clone(&sink), None));
        }
        let (signals, asked) = mpsc::channel(4);
        let (end, ended) = watch::channel(None);
        work.spawn(attend(session.clone(), process, asked, end));
        let instance = Self::made(Way::Port(session), (local, id), signals, ended, Some(scratch));
        let waited = instance.waited_for(&it.health).await;
        if let Err(mut failure) = waited {
            if instance.has_ended() {
                // What it has said last is on its way.
                let all = async { while said.join_next().await.is_some() {} };
                let _ = timeout(Duration::from_secs(1), all).await;
            }
            failure.stack = last.text();
            drop(instance.kill().await);
            return Err(Error::Failed(Box::new(failure)));
        }
        work.spawn(async move { while said.join_next().await.is_some() {} });
        Ok(instance.with_work(work))
    }

    /// Waits until it is there.
    async fn waited_for(&self, health: &Health) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(health.within_s().into());
        let mut seen = None;
        loop {
            if let Some(outcome) = self.outcome() {
                return Err(ended(outcome));
            }
            match self.looked_at(health).await {
                Ok(()) => return Ok(()),
                Err(why) => seen = Some(why).filter(|why| *why != Unwell::Deaf).or(seen),
            }
            if Instant::now() >= until {
                return Err(self.not_there(health, seen).await);
            }
            sleep(LOOKED).await;
        }
    }

    /// Whether it is well at this moment.
    pub(crate) async fn looked_at(&self, health: &Health) -> Result<(), Unwell> {
        let Some(path) = &health.path else {
            return self.listens().await.then_some(()).ok_or(Unwell::Deaf);
        };
        let mut request = Request::new(nothing());
        *request.uri_mut() = path.parse().map_err(|_| Unwell::Silent)?;
        request.headers_mut().insert(HOST, http::HeaderValue::from_static("localhost"));
        match timeout(DIAL, self.send(request)).await {
            Ok(Ok(answer)) => match answer.status().as_u16() {
                200..400 => Ok(()),
                status => Err(Unwell::Says(status)),
            },
            Ok(Err(Error::Gone)) => Err(Unwell::Deaf),
            Ok(Err(_)) | Err(_) => Err(Unwell::Silent),
        }
    }

    async fn not_there(&self, health: &Health, seen: Option<Unwell>) -> Failure {
        let within = health.within_s();
        let path = health.path.as_deref().unwrap_or("/");
        let (kind, message, hint) = match seen {
            Some(Unwell::Says(status)) => (
                "health",
                format!("{path} has answered with {status}, and not with 200 to 399 within {within} s"),
                "have it answer there when it is ready, or name another health.path",
            ),
            Some(Unwell::Silent | Unwell::Deaf) => (
                "health",
                format!("it listens, and has not answered {path} over HTTP within {within} s"),
                "answer HTTP at PORT, or leave health.path out",
            ),
            None => {
                let others: Vec<String> = match &self.way {
                    Way::Port(session) => {
                        let ports = session.ports().await.unwrap_or_default();
                        ports
                            .iter()
                            .map(|it| it.port.to_string())
                            .filter(|it| *it != PORT.to_string())
                            .collect()
                    }
                    Way::Socket(_) => Vec::new(),
                };
                let message = match others.is_empty() {
                    true => format!("nothing listens at PORT, which is {PORT}, within {within} s"),
                    false => format!("it listens at {}, and not at PORT, which is {PORT}", others.join(", ")),
                };
                ("port", message, "listen at the port that the variable PORT says, on 0.0.0.0 or 127.0.0.1")
            }
        };
        failure(kind, message, hint)
    }
}

/// Why a service is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwell {
    /// Nothing listens.
    Deaf,
    /// It does not answer HTTP, or not in time.
    Silent,
    /// It answers with this.
    Says(u16),
}

fn failure(kind: &str, message: String, hint: &str) -> Failure {
    let (kind, hint) = (kind.to_owned(), hint.to_owned());
    Failure { kind, message, hint, stack: None, file: None, line: None, column: None, frame: None }
}

/// What is told of a command that has ended before anything listened.
fn ended(outcome: Outcome) -> Failure {
    let (how, hint) = match outcome {
        Outcome::Code(127) => (
            "with code 127: there is no such program".to_owned(),
            "name a program that the template has, or install it with build",
        ),
        Outcome::Code(0) => {
            ("with code 0".to_owned(), "keep it in the foreground: it serves as long as its command runs")
        }
        Outcome::Code(code) => (format!("with code {code}"), "look at what it has said last, and mend that"),
        Outcome::Signal(9) => {
            ("by signal 9, as a process does that takes too much memory".to_owned(), "give it more memory_mb")
        }
        Outcome::Signal(signal) => {
            (format!("by signal {signal}"), "look at what it has said last, and mend that")
        }
        Outcome::TimedOut => ("with its sandbox".to_owned(), "deploy it again"),
    };
    failure("command", format!("its command has ended {how}, before anything listened at PORT"), hint)
}

/// What every process of a service has in its environment; nothing that its author sets stands over it.
fn environment(it: &Service) -> BTreeMap<String, String> {
    let own = it.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let mut all: BTreeMap<String, String> = own.collect();
    let port = PORT.to_string();
    let ours = [
        ("PORT", port.as_str()),
        ("HOST", "0.0.0.0"),
        ("STEADING_URL", &it.url),
        ("STEADING_SOCKET", PLATFORM),
        ("PYTHONUNBUFFERED", "1"),
    ];
    all.extend(SURROUNDINGS.into_iter().chain(ours).map(|(name, value)| (name.to_owned(), value.to_owned())));
    all
}

/// Puts the files there.
async fn unpacked(session: &Session, archive: &std::path::Path) -> Result<()> {
    let failed = |what: String| Error::Sandbox(kernel::Error::internal(format!("a service's files: {what}")));
    let mut file = tokio::fs::File::open(archive).await.map_err(|error| failed(error.to_string()))?;
    let mut exec = Exec::command(format!("exec tar -xpf - -C {FILES} --no-same-owner"));
    (exec.stdin, exec.timeout) = (Stdin::Stream, Some(UNPACKING));
    let mut process = session.exec(exec).await?;
    let mut writer = process.stdin_writer();
    let written = async {
        let copied = tokio::io::copy(&mut file, &mut writer).await;
        let _ = writer.shutdown().await;
        copied
    };
    let (written, exit) = tokio::join!(written, process.wait());
    let outcome = exit?.outcome;
    match (written, outcome) {
        (Ok(_), Outcome::Code(0)) => Ok(()),
        (Err(error), _) => Err(failed(error.to_string())),
        (Ok(_), outcome) => Err(failed(format!("{outcome:?}"))),
    }
}
