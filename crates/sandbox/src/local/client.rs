//! The gateway's end: starts the process that makes sandboxes, and speaks with it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hand::jail::Tree;
use kernel::{BlobHash, Result, SandboxId, WorkspaceId, WorkspaceSnapshotId};
use rustix::net::{Shutdown, shutdown};
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinHandle;

use super::error::Error;
use super::gvisor::Gvisor;
use super::message::{Answer, Call, Request, Response, Settings, WorkspaceCall};
use super::metering::Counted;
use super::packets::{self, Packet};
use super::probe::Finding;
use super::programs::Programs;
use super::starter::{self, Asked, End, GRACE, Process, Starter};
use crate::runner::{Isolation, Runner, Spec, Started, Usage};
use crate::workspace::{Fullness, Mounted, Origin};

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Packet>>>>>;

/// Sandboxes of this machine. The process that makes them is started by the first call, and again after its end.
pub struct Local {
    origin: Whence,
    host: AsyncMutex<Option<Arc<Connection>>>,
    /// What sandboxes have beside the hand: the operator's programs, and the platform's own files.
    pub(super) programs: Option<Programs>,
    pub(super) own: &'static [(&'static str, &'static [u8])],
    /// The version of both that sandboxes are made with, as far as is known.
    pub(super) newest: Mutex<Option<BlobHash>>,
    pub(super) counted: Counted,
}

/// Where the process comes from.
enum Whence {
    /// It is started here, with the privileges that there are here.
    Here(Box<dyn Fn() -> Command + Send + Sync>, Settings),
    /// It is asked for.
    Starter(Arc<Asked>),
}

impl Whence {
    async fn start(&self) -> Result<Process, Error> {
        match self {
            Self::Here(command, settings) => {
                let (control, child) = starter::start(command(), settings)?;
                Ok(Process { control, end: End::Own(child) })
            }
            Self::Starter(starter) => starter.start().await,
        }
    }

    fn starter(&self) -> Option<Arc<Asked>> {
        match self {
            Self::Here(..) => None,
            Self::Starter(starter) => Some(Arc::clone(starter)),
        }
    }
}

/// One process, as long as it lives.
pub(super) struct Connection {
    socket: Arc<AsyncFd<OwnedFd>>,
    /// None when nobody answers any more.
    waiting: Waiting,
    next: AtomicU64,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Connection {
    /// The process ends when its connection does, and the task that reads is what still holds it.
    fn drop(&mut self) {
        let _ = shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}

impl Local {
    /// How strongly sandboxes can be kept apart here. Whether a machine has what that takes shows when one is made.
    pub const LEVELS: [Isolation; 2] = [Isolation::Namespaces, Isolation::Gvisor];

    /// Sandboxes made by the process that `command` describes: one that calls [`super::host_main`] with its standard
    /// input, and with `settings` as its last argument. It is started with nothing in its environment.
    #[must_use]
    pub fn new(command: impl Fn() -> Command + Send + Sync + 'static, settings: Settings) -> Self {
        Self::of(Whence::Here(Box::new(command), settings))
    }

    /// Sandboxes made by the process that `starter` starts. When either ends, every sandbox does. Called within a runtime.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn started_by(starter: Starter) -> Result<Self> {
        let starter = Arc::new(Asked::new(starter)?);
        Ok(Self::of(Whence::Starter(starter)))
    }

    fn of(origin: Whence) -> Self {
        let (host, newest, counted) = (AsyncMutex::new(None), Mutex::new(None), Counted::default());
        Self { origin, host, programs: None, own: &[], newest, counted }
    }

    /// The same with the programs that are kept there, in all sandboxes.
    #[must_use]
    pub fn with(self, programs: Programs) -> Self {
        Self { programs: Some(programs), ..self }
    }

    /// The same with these files of the platform's own, whose names no program of the operator's has.
    #[must_use]
    pub fn with_own(self, own: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { own, ..self }
    }

    /// What works on this machine, found out by doing it.
    ///
    /// # Errors
    /// Where the process cannot even be started.
    pub async fn probe(&self) -> Result<Vec<Finding>> {
        match self.call(Call::Probe).await? {
            (Answer::Findings(findings), _) => Ok(findings),
            _ => Err(Error::Answer.into()),
        }
    }

    /// The same of sandboxes that gVisor keeps apart.
    ///
    /// # Errors
    /// As [`Local::probe`].
    pub async fn probe_gvisor(&self) -> Result<Vec<Finding>> {
        match self.call(Call::ProbeGvisor).await? {
            (Answer::Findings(findings), _) => Ok(findings),
            _ => Err(Error::Answer.into()),
        }
    }

    /// As [`crate::workspace::Workspaces::create`].
    ///
    /// # Errors
    /// As there; `unavailable` where the process is gone. So it is for the others.
    pub async fn create_workspace(&self, id: WorkspaceId, origin: Origin, quota_bytes: u64) -> Result<()> {
        self.done(Call::Workspace(WorkspaceCall::Create { id, origin, quota_bytes })).await
    }

    /// As [`crate::workspace::Workspaces::tree`].
    ///
    /// # Errors
    /// As there.
    pub async fn tree(&self, id: WorkspaceId) -> Result<Tree> {
        match self.call(Call::Workspace(WorkspaceCall::Tree { id })).await? {
            (Answer::Tree(tree), _) => Ok(tree),
            _ => Err(Error::Answer.into()),
        }
    }

    /// As [`crate::workspace::Workspaces::snapshot`].
    ///
    /// # Errors
    /// As there.
    pub async fn snapshot(
        &self,
        id: WorkspaceId,
        snapshot: WorkspaceSnapshotId,
        mounted: Mounted,
    ) -> Result<()> {
        self.done(Call::Workspace(WorkspaceCall::Snapshot { id, snapshot, mounted })).await
    }

    /// As [`crate::workspace::Workspaces::rollback`].
    ///
    /// # Errors
    /// As there.
    pub async fn rollback(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()> {
        self.done(Call::Workspace(WorkspaceCall::Rollback { id, snapshot })).await
    }

    /// As [`crate::workspace::Workspaces::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove_workspace(&self, id: WorkspaceId) -> Result<()> {
        self.done(Call::Workspace(WorkspaceCall::Remove { id })).await
    }

    /// As [`crate::workspace::Workspaces::remove_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove_snapshot(&self, snapshot: WorkspaceSnapshotId) -> Result<()> {
        self.done(Call::Workspace(WorkspaceCall::RemoveSnapshot { snapshot })).await
    }

    /// As [`crate::workspace::Workspaces::fullness`].
    ///
    /// # Errors
    /// As there.
    pub async fn fullness(&self, id: WorkspaceId) -> Result<Fullness> {
        match self.call(Call::Workspace(WorkspaceCall::Fullness { id })).await? {
            (Answer::Fullness(fullness), _) => Ok(fullness),
            _ => Err(Error::Answer.into()),
        }
    }

    /// As [`crate::workspace::Workspaces::ids`].
    ///
    /// # Errors
    /// As there.
    pub async fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)> {
        match self.call(Call::Workspace(WorkspaceCall::Ids)).await? {
            (Answer::Ids(workspaces, snapshots), _) => Ok((workspaces, snapshots)),
            _ => Err(Error::Answer.into()),
        }
    }

    /// Whether there is a process that makes sandboxes, or one that would start it.
    pub fn can_begin(&self) -> bool {
        match &self.origin {
            Whence::Here(..) => true,
            Whence::Starter(starter) => starter.is_there(),
        }
    }

    /// Ends every sandbox and the process, and returns when both are gone. Whoever started it ends too.
    pub async fn close(&self) {
        let mut host = self.host.lock().await;
        if let Some(connection) = host.take() {
            let _ = shutdown(connection.socket.as_fd(), Shutdown::Both);
            let reader = connection.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(reader) = reader {
                let _ = reader.await;
            }
        }
        if let Whence::Starter(starter) = &self.origin {
            starter.close().await;
        }
    }

    /// Tells a process that has just begun which programs sandboxes have.
    async fn equip(&self, connection: &Connection) -> Result<()> {
        let add = async |files: Vec<(String, File)>| {
            let (names, files) = self.with_files(files)?;
            let (Answer::Runner(runner), _) = connection.call(Call::AddRunner(names), files).await? else {
                return Err(Error::Answer.into());
            };
            Ok::<_, kernel::Error>(runner)
        };
        let added = match self.programs.as_ref().map(Programs::files).transpose() {
            Ok(files) => add(files.unwrap_or_default()).await,
            Err(error) => Err(error),
        };
        let runner = match added {
            Ok(runner) => runner,
            // Without them sandboxes are made, and removed, which is what makes room.
            Err(error) => {
                tracing::error!(
                    error = error.chain(),
                    "the programs beside the hand cannot be used: sandboxes have it alone"
                );
                add(Vec::new()).await?
            }
        };
        connection.call(Call::UseRunner(runner), Vec::new()).await?;
        self.note(runner);
        Ok(())
    }

    /// The version that sandboxes are made with; none where that was never told to anybody.
    pub fn newest(&self) -> Option<BlobHash> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, runner: BlobHash) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(runner);
    }

    pub(super) async fn done(&self, call: Call) -> Result<()> {
        match self.call(call).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(Error::Answer.into()),
        }
    }

    pub(super) async fn call(&self, call: Call) -> Result<(Answer, Vec<OwnedFd>)> {
        self.call_with(call, Vec::new()).await
    }

    /// A call with files, which are closed here as soon as they are sent.
    pub(super) async fn call_with(&self, call: Call, files: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>)> {
        let connection = self.connection().await?;
        connection.call(call, files).await
    }

    pub(super) async fn connection(&self) -> Result<Arc<Connection>> {
        let mut host = self.host.lock().await;
        if let Some(connection) = host.as_ref().filter(|connection| connection.lives()) {
            return Ok(connection.clone());
        }
        let connection = Arc::new(Connection::with(self.origin.start().await?, self.origin.starter())?);
        connection.call(Call::Open, Vec::new()).await?;
        self.equip(&connection).await?;
        *host = Some(connection.clone());
        Ok(connection)
    }

    /// The runner of those that gVisor keeps apart.
    #[must_use]
    pub fn gvisor(&self) -> Gvisor<'_> {
        Gvisor(self)
    }

    pub(super) async fn started(&self, wanted: Isolation, spec: &Spec) -> Result<Started> {
        let (answer, files) = self.call(Call::Create(wanted, spec.clone())).await?;
        let (Answer::Created(isolation, limiting), Ok([hand, egress, bridge])) =
            (answer, <[OwnedFd; 3]>::try_from(files))
        else {
            return Err(Error::Answer.into());
        };
        let files = || -> io::Result<(UnixStream, UnixListener, UnixListener)> {
            let (hand, sockets) = (StdStream::from(hand), [egress, bridge].map(StdListener::from));
            hand.set_nonblocking(true)?;
            let [egress, bridge] = sockets;
            egress.set_nonblocking(true)?;
            bridge.set_nonblocking(true)?;
            Ok((
                UnixStream::from_std(hand)?,
                UnixListener::from_std(egress)?,
                UnixListener::from_std(bridge)?,
            ))
        };
        let (hand, egress, bridge) =
            files().map_err(|error| Error::Files("taking a sandbox's sockets", error))?;
        Ok(Started { isolation, limiting, hand, egress, bridge })
    }
}

impl Runner for Local {
    fn isolation(&self) -> Isolation {
        Isolation::Namespaces
    }

    fn create<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Started>> {
        Box::pin(self.started(Isolation::Namespaces, spec))
    }

    fn pause(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.done(Call::Pause(id)))
    }

    fn resume(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.done(Call::Resume(id)))
    }

    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.last_look(id).await;
            self.done(Call::Destroy(id)).await
        })
    }

    fn usage(&self, id: SandboxId) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(async move {
            match self.call(Call::Usage(id)).await? {
                (Answer::Usage(usage), _) => Ok(usage),
                _ => Err(Error::Answer.into()),
            }
        })
    }
}

impl Connection {
    fn with(process: Process, starter: Option<Arc<Asked>>) -> Result<Self, Error> {
        let Process { control, end } = process;
        rustix::io::ioctl_fionbio(&control, true).map_err(|error| Error::Gone(error.into()))?;
        // SAFETY: the descriptor is owned by what is registered, and is the same until both are dropped.
        #[expect(unsafe_code, reason = "tokio has no sockets of packets")]
        let socket = unsafe { AsyncFd::register(control) };
        let socket = Arc::new(socket.map_err(|error| Error::Gone(error.into()))?);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let read = read(socket.clone(), waiting.clone(), end, starter);
        let reader = Mutex::new(Some(tokio::spawn(read)));
        Ok(Self { socket, waiting, next: AtomicU64::new(0), reader })
    }

    fn lives(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn call(&self, call: Call, files: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>)> {
        let gone = || Error::Gone(io::ErrorKind::BrokenPipe.into());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => waiting.insert(number, sender),
            None => return Err(gone().into()),
        };
        let text =
            serde_json::to_vec(&Request { number, call }).map_err(|error| Error::Gone(error.into()))?;
        loop {
            let mut writable = self.socket.writable().await.map_err(Error::Gone)?;
            let along: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            match writable.try_io(|socket| packets::send(socket.as_fd(), &text, &along)) {
                Ok(sent) => break sent.map_err(Error::Gone)?,
                Err(_) => continue,
            }
        }
        drop(files);
        let packet = receiver.await.map_err(|_| gone())?;
        let response: Response =
            serde_json::from_slice(&packet.text).map_err(|error| Error::Gone(error.into()))?;
        Ok((response.result?, packet.files))
    }
}

/// Only as much of an answer as says whose it is.
#[derive(serde::Deserialize)]
struct Addressed {
    number: u64,
}

/// Hands answers on until the process ends, or whoever started it, which is also when it is reaped.
async fn read(socket: Arc<AsyncFd<OwnedFd>>, waiting: Waiting, mut end: End, starter: Option<Arc<Asked>>) {
    let orphaned = async {
        match &starter {
            Some(starter) => starter.gone().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = answers(&socket, &waiting) => {}
        () = orphaned => {}
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _ = shutdown(socket.as_fd(), Shutdown::Both);
    let deadline = Instant::now() + GRACE;
    while !end.is_over() {
        if Instant::now() >= deadline {
            end.kill();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn answers(socket: &AsyncFd<OwnedFd>, waiting: &Waiting) {
    while let Ok(Some(packet)) = receive(socket).await {
        let Ok(Addressed { number }) = serde_json::from_slice(&packet.text) else {
            break;
        };
        let asker = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|all| all.remove(&number));
        // Who asked may not wait any more; a sandbox made for nobody ends as its connection is dropped here.
        let _ = asker.map(|asker| asker.send(packet));
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Packet>> {
    loop {
        let mut readable = socket.readable().await?;
        match readable.try_io(|socket| packets::receive(socket.as_fd())) {
            Ok(packet) => return packet,
            Err(_) => continue,
        }
    }
}
