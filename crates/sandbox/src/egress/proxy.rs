//! Requests of a sandbox: judged, and passed on under the one name that was judged.

use std::convert::Infallible;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kernel::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::journal::{Event, Outcome};
use super::mask::{self, Masked};
use super::policy::{Policy, Target};
use super::refusal::{Cut, Refusal};
use super::secrets::Swap;
use super::{Client, Shared, tunnel};
use crate::relay::{self, Body, Failed, Switched, Upstream};

/// What follows when a connection stops to be one of requests.
type After = BoxFuture<'static, ()>;

/// What a tunnel of requests is to.
pub(super) enum Inside {
    /// A place that is asked as it is.
    Plain(Target),
    /// One that gets secrets, over TLS.
    Secret(Target),
}

/// A connection of requests: the sandbox's own, or one inside a tunnel.
pub(super) struct Visit {
    pub(super) shared: Arc<Shared>,
    /// Where all of its requests go, inside a tunnel.
    inside: Option<Inside>,
    upstream: tokio::sync::Mutex<Option<(Target, Upstream)>>,
    after: Mutex<Option<After>>,
}

/// Serves one connection of the sandbox to its end.
pub(super) async fn serve(client: Client, stream: UnixStream) {
    let longest = client.0.policy().limits.longest;
    let visit = Visit::new(Arc::clone(&client.0), None);
    // One that lasts too long is closed as if the program had closed it.
    drop(timeout(longest, requests(visit, stream)).await);
}

/// Answers the requests of a connection, and then lets it be what the last of them made of it.
pub(super) fn requests<S>(visit: Arc<Visit>, stream: S) -> BoxFuture<'static, ()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    Box::pin(async move {
        let head = visit.shared.policy().limits.head;
        let answering = Arc::clone(&visit);
        let answers = service_fn(move |request| {
            let visit = Arc::clone(&answering);
            async move { Ok::<_, Infallible>(visit.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(relay::HEAD)
            .max_headers(relay::FIELDS)
            .max_header_size(relay::HEAD)
            .serve_connection(TokioIo::new(stream), answers)
            .with_upgrades()
            .await;
        let after = visit.after.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Ok(()), Some(after)) = (served, after) {
            after.await;
        }
    })
}

impl Visit {
    pub(super) fn new(shared: Arc<Shared>, inside: Option<Inside>) -> Arc<Self> {
        Arc::new(Self { shared, inside, upstream: tokio::sync::Mutex::default(), after: Mutex::default() })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let policy = self.shared.policy();
        let answer = match (&self.inside, request.method()) {
            (None, &Method::CONNECT) => self.connect(request, &policy).await,
            _ => self.pass(request, &policy).await,
        };
        answer.unwrap_or_else(|refusal| {
            // A connection that was made tells of itself.
            if !matches!(refusal, Refusal::Broken(_) | Refusal::Cut(..)) {
                self.shared.refused(&refusal);
            }
            refusal.response(&policy)
        })
    }

    /// Opens a tunnel.
    async fn connect(&self, request: Request<Incoming>, policy: &Policy) -> Result<Response<Body>, Refusal> {
        if !self.shared.meter.request(Instant::now()) {
            return Err(Refusal::TooMany);
        }
        let target = request
            .uri()
            .authority()
            .filter(|_| request.uri().scheme().is_none())
            .and_then(|authority| place(authority, None))
            .ok_or(Refusal::Unreadable)?;
        let tunnel = tunnel::to(&self.shared, policy, target).await?;
        let upgraded = hyper::upgrade::on(request);
        self.then(Box::pin(async move {
            if let Ok(client) = upgraded.await {
                tunnel.carry(TokioIo::new(client)).await;
            }
        }));
        Ok(Response::new(relay::empty()))
    }

    /// Passes a request on.
    async fn pass(&self, mut request: Request<Incoming>, policy: &Policy) -> Result<Response<Body>, Refusal> {
        if !self.shared.meter.request(Instant::now()) {
            return Err(Refusal::TooMany);
        }
        let target = match &self.inside {
            Some(Inside::Plain(target)) => named_inside(&request, target, 80)?,
            Some(Inside::Secret(target)) => named_inside(&request, target, 443)?,
            None => named(request.uri())?,
        };
        let secret = matches!(self.inside, Some(Inside::Secret(_)));
        if !policy.allows(&target) {
            return Err(Refusal::NotAllowed(target));
        }
        let asked = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let protocol = relay::end_to_end(&mut parts.headers);
        let asked = protocol.as_ref().map(|_| asked);
        if let Some(protocol) = protocol {
            relay::ask_for(&mut parts.headers, protocol);
        }
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        parts.version = Version::HTTP_11;
        let host = target.authority(if secret { 443 } else { 80 });
        let host = HeaderValue::from_str(&host).map_err(|_| Refusal::Unreadable)?;
        parts.headers.insert(HOST, host);
        let swap = secret.then(|| Swap::of(policy, &target)).flatten();
        let mask = swap.map(|swap| swap.into_request(&mut parts));
        let request = Request::from_parts(parts, relay::passing(body));

        let mut response = self.exchange(&target, request).await?;
        let switched = Switched::of(&mut response, asked).map_err(|_| Refusal::Broken(target.clone()))?;
        let Some(mask) = mask else {
            if let Some(switched) = switched {
                self.then(Box::pin(switched.carry()));
            }
            return Ok(response.map(relay::passing));
        };
        mask.headers(response.headers_mut());
        response.extensions_mut().remove::<ReasonPhrase>();
        if let Some(switched) = switched {
            self.then(Box::pin(mask::carry(switched, mask.clone())));
        }
        Ok(response.map(|body| relay::passing(Masked::new(body, mask))))
    }

    /// Asks the place, over the connection that is there where it is the same one.
    async fn exchange(
        &self,
        target: &Target,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut kept = self.upstream.lock().await;
        if let Some((_, upstream)) = kept.as_mut().filter(|(to, up)| to == target && up.is_open()) {
            match upstream.send(request).await {
                Ok(response) => return Ok(response),
                // It ended while nobody looked.
                Err(Failed::Unsent(unsent)) => request = *unsent,
                Err(Failed::Broken(error)) => return Err(broken(target, &error)),
            }
        }
        *kept = None;
        let wire = self.shared.dial(target).await?;
        let upstream = if matches!(self.inside, Some(Inside::Secret(_))) {
            let policy = self.shared.policy();
            Upstream::over(self.shared.outside.secure(&policy, target, wire).await?).await
        } else {
            Upstream::over(wire).await
        };
        let upstream = upstream.map_err(|error| broken(target, &error))?;
        let (_, upstream) = kept.insert((target.clone(), upstream));
        upstream.send(request).await.map_err(|failed| match failed {
            Failed::Unsent(_) => Refusal::Broken(target.clone()),
            Failed::Broken(error) => broken(target, &error),
        })
    }

    fn then(&self, after: After) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }
}

impl Shared {
    pub(super) fn refused(&self, refusal: &Refusal) {
        self.journal.told(Event {
            at: Timestamp::now(),
            target: refusal.target().cloned(),
            outcome: Outcome::Refused(refusal.clone()),
            up: 0,
            down: 0,
            took: Duration::ZERO,
        });
    }
}

/// The place that an absolute address names (RFC 9112 §3.2.2); what `Host` says counts for nothing.
fn named(uri: &Uri) -> Result<Target, Refusal> {
    let authority = uri.authority().ok_or(Refusal::NotForAProxy)?;
    if uri.scheme_str() != Some("http") {
        return Err(Refusal::NotForAProxy);
    }
    if authority.as_str().contains('@') {
        return Err(Refusal::User);
    }
    place(authority, Some(80)).ok_or(Refusal::Unreadable)
}

/// The place of the tunnel, which is the only one that a request in it may name.
fn named_inside(request: &Request<Incoming>, target: &Target, port: u16) -> Result<Target, Refusal> {
    let other = || Refusal::OtherHost(target.clone());
    if request.method() == Method::CONNECT {
        return Err(Refusal::NotForAProxy);
    }
    let in_address =
        request.uri().authority().is_none_or(|named| place(named, Some(port)).as_ref() == Some(target));
    let in_header = host(request.headers()).and_then(|named| place(&named, Some(port)));
    if in_address && in_header.as_ref() == Some(target) { Ok(target.clone()) } else { Err(other()) }
}

/// What `Host` says, where it says one thing.
fn host(headers: &HeaderMap) -> Option<Authority> {
    let mut all = headers.get_all(HOST).iter();
    let one = all.next().filter(|_| all.next().is_none())?;
    Authority::try_from(one.as_bytes()).ok()
}

/// The place that an authority names; without a port the scheme's, where it has one.
fn place(authority: &Authority, default: Option<u16>) -> Option<Target> {
    if authority.as_str().contains('@') {
        return None;
    }
    let rest = authority.as_str().strip_prefix(authority.host())?;
    let port = match rest.strip_prefix(':') {
        None => default?,
        Some(_) => authority.port_u16()?,
    };
    Target::new(authority.host(), port).ok()
}

/// Why an exchange broke: the connection knows where it was cut.
fn broken(target: &Target, error: &hyper::Error) -> Refusal {
    let mut cause = error.source();
    while let Some(error) = cause {
        let cut = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<Cut>());
        if let Some(cut) = cut {
            return Refusal::Cut(target.clone(), *cut);
        }
        cause = error.source();
    }
    Refusal::Broken(target.clone())
}
