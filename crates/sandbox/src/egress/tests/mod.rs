//! What a sandbox gets of the network, and what it does not, over real sockets.

mod attacks;
mod clients;
mod limits;
mod passing;
mod secrets;
mod server;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::RootCertStore;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Egress, Event, Journal, Limits, Names, Outcome, Outside, Policy, Refusal};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps what it is told.
#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl Journal for Kept {
    fn told(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Knows these names, and counts who asks.
#[derive(Default)]
struct Known {
    names: HashMap<&'static str, IpAddr>,
    /// What it says first, one after the other, whatever the name.
    fickle: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names for Known {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let turn = self.fickle.lock().unwrap().pop_front();
        let found = turn.or_else(|| self.names.get(name).map(|found| vec![*found]));
        Box::pin(async move { found.ok_or(std::io::ErrorKind::NotFound.into()) })
    }
}

/// A sandbox's way out, and its socket.
struct Sandbox {
    egress: Egress,
    socket: PathBuf,
    kept: Arc<Kept>,
    known: Arc<Known>,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Sandbox {
    /// One for which `a.test`, `b.test` and `c.test` are at loopback.
    fn under(policy: Policy) -> Self {
        Self::trusting(policy, RootCertStore::empty())
    }

    /// One whose platform trusts these authorities.
    fn trusting(policy: Policy, roots: RootCertStore) -> Self {
        let here = IpAddr::from([127, 0, 0, 1]);
        let names = HashMap::from(["a.test", "b.test", "c.test"].map(|name| (name, here)));
        let known = Arc::new(Known { names, ..Known::default() });
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("egress.sock");
        let kept = Arc::new(Kept::default());
        let outside = Outside::new(Arc::clone(&known) as _, roots).unwrap();
        let egress = Egress::new(Arc::new(outside), policy, Arc::clone(&kept) as _).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = egress.clone();
        let task = tokio::spawn(async move { serving.serve(listener).await });
        Self { egress, socket, kept, known, task, _directory: directory }
    }

    async fn open(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// Sends these bytes and reads until the proxy closes.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.open().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// Opens a tunnel.
    async fn tunnel(&self, to: &str) -> UnixStream {
        let mut stream = self.open().await;
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        stream
    }

    /// The way out as programs find it: a proxy on a port of loopback, as inside.
    async fn port(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = self.socket.clone();
        tokio::spawn(async move {
            while let Ok((mut program, _)) = listener.accept().await {
                let Ok(mut egress) = UnixStream::connect(&socket).await else { return };
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut program, &mut egress).await });
            }
        });
        port
    }

    /// Waits for as many events.
    async fn events(&self, count: usize) -> Vec<Event> {
        let waited = timeout(PATIENCE, async {
            while self.kept.0.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap();
        self.kept.0.lock().unwrap().clone()
    }

    /// The only refusal that there was.
    async fn refusal(&self) -> Refusal {
        match self.events(1).await.as_slice() {
            [Event { outcome: Outcome::Refused(refusal), .. }] => refusal.clone(),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A policy of hosts that are allowed, those at loopback vouched for.
fn policy(allow: &[&str], origins: &[&str]) -> Policy {
    Policy {
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        origins: origins.iter().map(|text| text.parse().unwrap()).collect(),
        ..Policy::default()
    }
}

fn limited(allow: &str, limits: Limits) -> Policy {
    Policy { limits, ..policy(&[allow], &[allow]) }
}

/// What comes until the other side closes, whichever way.
async fn rest(stream: &mut UnixStream) -> String {
    let mut all = Vec::new();
    // A connection that is reset ends like one that is closed.
    drop(timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is still open"));
    String::from_utf8_lossy(&all).into_owned()
}

/// The head of an answer.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("no head").unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The first line, and the body.
fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    (head.lines().next().unwrap_or_default(), body)
}
