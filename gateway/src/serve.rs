//! Builds, serves, drains.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use edge::{Hangup, Tls};
use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Config;
use crate::groundwork::Groundwork;
use crate::lockfile::{self, Lock};
use crate::ports::Ports;
use crate::prompt::Prompt;
use crate::traffic::{Counted, Own, Traffic, TrafficLimits};
use crate::wiring::{self, App, Listening, Ready};

/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// As many files as the process asks to have open.
const FILES: u64 = 65_536;

/// How many requests of one connection are answered at once (RFC 9113 §5.1.2).
const STREAMS: u32 = 64;

/// How many bytes of requests a connection of HTTP/2 may have on their way (RFC 9113 §5.2).
const WINDOW: u32 = 512 << 10;

/// What a connection begins with where it speaks HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait for more of the first bytes.
const STEP: Duration = Duration::from_millis(50);

/// How long cancelled calls get to end by themselves.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why serving did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {}", reason(source))]
    Bind {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be had.
    #[error(transparent)]
    Lock(#[from] lockfile::Error),
    /// An engine refused.
    #[error(transparent)]
    Build(#[from] kernel::Error),
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not use the port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
        _ => error.to_string(),
    }
}

impl From<Error> for kernel::Error {
    fn from(e: Error) -> Self {
        match e {
            Error::Bind { .. } => kernel::Error::new(kernel::Code::Unavailable, e.to_string())
                .hint("choose another port with --listen, or a free one with --listen 127.0.0.1:0"),
            Error::Lock(e) => e.into(),
            Error::Build(e) => e,
        }
    }
}

/// A platform that listens.
pub struct Running {
    /// Where it listens.
    pub listening: Listening,
    /// What to say about it.
    pub ready: Ready,
    app: App,
    server: Server,
    grace: Duration,
    // Last, so that the data directory is free only when everything else is closed.
    _lock: Lock,
}

impl Running {
    /// The address on this machine, whatever the public one is.
    pub fn local_url(&self) -> String {
        local_url(self.listening.addr)
    }

    /// Stops accepting, lets calls in flight end within the grace period, cancels the rest, flushes.
    pub async fn stop(self) {
        self.server.stop(&self.listening, self.grace).await;
        self.app.shutdown().await;
        info!("stopped");
    }
}

/// Takes the data directory's lock, builds the platform and starts to accept at the ports of `groundwork`. A platform that
/// stays has given up its privileges by then.
///
/// # Errors
/// Nothing is changed on disk where the data directory cannot be had.
pub async fn start(config: &Config, groundwork: Groundwork) -> Result<Running, Error> {
    let Groundwork { ports: Ports { plain: (listener, addr), secure, redirect }, starter } = groundwork;
    let mut lock = Lock::acquire(&config.data_dir)?;
    let listening = listening(config, addr, secure.as_ref().map(|(_, addr)| *addr));
    let app = wiring::build(config, &listening, starter).await?;
    lock.announce(&local_url(addr))?;
    let door = |listener, answering, tls| -> Result<Door, Error> {
        let listener = TcpListener::from_std(listener).map_err(|source| Error::Bind { addr, source })?;
        Ok(Door { listener, answering, tls })
    };
    let mut doors = vec![door(listener, Arc::clone(&app.answering), None)?];
    if let (Some((listener, addr)), Some(https)) = (secure, &app.https) {
        doors.push(door(listener, Arc::clone(&app.answering), Some(https.tls.clone()))?);
        info!(address = %addr, "listening for HTTPS");
        if let Some((listener, addr)) = redirect {
            doors.push(door(listener, Arc::clone(&https.redirect), None)?);
            info!(address = %addr, "sending HTTP on to HTTPS");
        }
    }
    let server = Server::start(doors, &listening, HEAD);
    info!(url = listening.url, data_dir = %config.data_dir.display(), "listening");
    let grace = Duration::from_secs(config.shutdown_grace_s);
    Ok(Running { listening, ready: app.ready.clone(), app, server, grace, _lock: lock })
}

/// How many files the process may have open, after asking for as many as it may ask for.
fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES).min(FILES).max(limit.current.unwrap_or_default());
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::debug!(%error, "no more files may be open");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(FILES)
}

fn listening(config: &Config, addr: SocketAddr, tls: Option<SocketAddr>) -> Listening {
    let url = match &config.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => local_url(addr),
    };
    let port = addr.port();
    Listening {
        addr,
        tls,
        url,
        apps_domain: config.apps_domain.clone().unwrap_or_else(|| format!("localhost:{port}")),
        preview_domain: config.preview_domain.clone().unwrap_or_else(|| format!("preview.localhost:{port}")),
        own: Own::default(),
        traffic: Traffic::new(TrafficLimits::new(open_files(), config.trusted_proxies.clone())),
        stopping: CancellationToken::new(),
        cancelled: CancellationToken::new(),
    }
}

/// The address as this machine reaches it.
fn local_url(addr: SocketAddr) -> String {
    format!("http://{}", wiring::local(addr))
}

/// Answers every request. What it gives is small, as the server moves it about.
pub type Answering = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response> + Send + Sync>;

/// A listener, and what answers there.
struct Door {
    listener: TcpListener,
    answering: Answering,
    /// Where it is for HTTPS.
    tls: Option<Tls>,
}

/// Accepts connections and answers their requests.
struct Server {
    accepting: Vec<JoinHandle<()>>,
    connections: TaskTracker,
}

impl Server {
    fn start(doors: Vec<Door>, listening: &Listening, head: Duration) -> Self {
        let connections = TaskTracker::new();
        let begin = |door| tokio::spawn(accept(door, connections.clone(), listening.clone(), head));
        Self { accepting: doors.into_iter().map(begin).collect(), connections }
    }

    async fn stop(self, listening: &Listening, grace: Duration) {
        listening.stopping.cancel();
        for accepting in self.accepting {
            drop(accepting.await);
        }
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            warn!(
                connections = self.connections.len(),
                "the grace period is over, cancelling what still runs"
            );
        }
        listening.cancelled.cancel();
        if tokio::time::timeout(LAST_WORDS, self.connections.wait()).await.is_err() {
            warn!(connections = self.connections.len(), "closing connections that did not end");
        }
    }
}

async fn accept(door: Door, connections: TaskTracker, listening: Listening, head: Duration) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = listening.stopping.cancelled() => return,
            accepted = door.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(counted) = listening.traffic.accept(peer, &listening.own) else {
                    tracing::debug!(%peer, "there are too many connections");
                    continue;
                };
                let (answering, listening) = (Arc::clone(&door.answering), listening.clone());
                let peer = Peer { at: peer, counted };
                match door.tls.clone() {
                    Some(tls) => connections.spawn(secured(stream, peer, tls, answering, listening, head)),
                    None => connections.spawn(plain(stream, peer, answering, listening, head)),
                };
            }
            // The peer is gone already; the next one may not be.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                // Out of file descriptors, most likely: they come back when calls end.
                warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone)]
struct Peer {
    at: SocketAddr,
    counted: Counted,
}

impl Peer {
    /// What is answered, unless the peer leaves too many unread.
    async fn answer(self, answering: Answering, mut request: Request<Body>) -> Result<Response, Infallible> {
        request.extensions_mut().insert(ConnectInfo(self.at));
        if self.counted.is_own() {
            request.extensions_mut().insert(edge::Unmetered);
        }
        let Some(under_way) = self.counted.begin() else {
            return Ok(busy("too many requests of this address are under way"));
        };
        let (request, kept) = self.counted.request(request);
        let answered = answering(request).await;
        drop((kept, under_way));
        Ok(self.counted.answer(answered).unwrap_or_else(|| busy("read the answers before this one first")))
    }
}

fn busy(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], why).into_response()
}

async fn plain(stream: TcpStream, peer: Peer, answering: Answering, listening: Listening, head: Duration) {
    // Small answers go out at once: with Nagle's algorithm each call costs up to 40 ms.
    drop(stream.set_nodelay(true));
    let begun = tokio::select! {
        begun = tokio::time::timeout(head, begins(&stream)) => begun.is_ok_and(|begun| begun.is_ok()),
        () = listening.stopping.cancelled() => false,
    };
    if !begun {
        return;
    }
    let (hangup, counted) = (Hangup::default(), peer.counted.clone());
    let told = hangup.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(told.clone());
        peer.clone().answer(Arc::clone(&answering), request)
    });
    let builder = builder(head);
    let stream = Prompt::new(stream, 0, head);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    serve(serving, &counted, &hangup, &listening).await;
}

async fn secured(
    stream: TcpStream,
    peer: Peer,
    tls: Tls,
    answering: Answering,
    listening: Listening,
    head: Duration,
) {
    drop(stream.set_nodelay(true));
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = listening.stopping.cancelled() => return,
    };
    let (stream, name) = match shaken {
        Ok(Some(secured)) => secured,
        Ok(None) => return,
        Err(e) => {
            tracing::debug!(error = %e, "a handshake failed");
            return;
        }
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (hangup, counted) = (Hangup::default(), peer.counted.clone());
    let told = hangup.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(told.clone());
        request.extensions_mut().insert(name.clone());
        peer.clone().answer(Arc::clone(&answering), request)
    });
    // The handshake has said which version it is: nothing waits for the first bytes to tell.
    let builder = if is_h2 { builder(head).http2_only() } else { builder(head).http1_only() };
    let stream = Prompt::new(stream, if is_h2 { PREFACE.len() } else { 0 }, head);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    serve(serving, &counted, &hangup, &listening).await;
}

fn builder(head: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(head).max_concurrent_streams(STREAMS);
    // What comes for requests that do not read it is in memory.
    http2.initial_stream_window_size(WINDOW / 2).initial_connection_window_size(WINDOW);
    builder
}

/// Serves a connection until it ends, is hung up, or the program is to stop.
async fn serve<I, S>(
    serving: auto::UpgradeableConnection<'_, I, S, TokioExecutor>,
    counted: &Counted,
    hangup: &Hangup,
    listening: &Listening,
) where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = axum::response::Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = hangup.0.cancelled() => return,
        () = counted.left_unread() => return,
        () = listening.stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = serving.as_mut() => outcome,
                () = hangup.0.cancelled() => return,
                () = counted.left_unread() => return,
                () = last_words(&listening.cancelled) => return,
            }
        }
    };
    if let Err(e) = outcome {
        tracing::debug!(error = %e, "a connection ended early");
    }
}

/// Waits until the first bytes tell which version of HTTP the peer speaks. Only from then on does the server that
/// follows look at the time.
async fn begins(stream: &TcpStream) -> io::Result<()> {
    let mut first = [0; PREFACE.len()];
    loop {
        let found = stream.peek(&mut first).await?;
        if found == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if found == PREFACE.len() || first[..found] != PREFACE[..found] {
            return Ok(());
        }
        tokio::time::sleep(STEP).await;
    }
}

/// A little after `cancelled`, so that a cancelled call can still say so.
async fn last_words(cancelled: &CancellationToken) {
    cancelled.cancelled().await;
    tokio::time::sleep(LAST_WORDS / 2).await;
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
