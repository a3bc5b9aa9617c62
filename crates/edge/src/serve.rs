//! Answering a request for an app: which release, which file, which part of it, in which form.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::response::Response;
use capabilities::hosting::{
    Blobs, Error, Found as Resolved, RedirectStatus, RequestPath, SiteFile, SitePath,
};
use capabilities::logs::{Level, Logs, VisitFields, Visited};
use capabilities::routes::Route;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    LOCATION, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use kernel::{CallId, Code, Env, Result, Timestamp};
use web::problem::Told;

use crate::cache_control::{self, ASK_FIRST};
use crate::coding::Coding;
use crate::conditional::{self, Part};
use crate::contents::Contents;
use crate::data;
use crate::functions::{self, FunctionDoor};
use crate::routes::{self, Gate, Shown, Taken};
use crate::{Admitted, Apps, AtDomain, Data, HostKind, Secured, Served, Which, page, ticket, tls};

const X_RELEASE: HeaderName = HeaderName::from_static("x-release");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// How much of a path a log entry holds, in bytes.
const LOGGED_PATH: usize = 512;

/// How much of a method, in bytes.
const LOGGED_METHOD: usize = 32;

/// How much of a pointer into what was sent, in bytes.
const LOGGED_FIELD: usize = 100;

/// Serves the apps of all environments. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    pub(crate) apps: Arc<dyn Apps>,
    contents: Arc<Contents>,
    pub(crate) data: Data,
    pub(crate) logs: Logs,
    pub(crate) gate: Arc<Gate>,
    pub(crate) functions: Option<Arc<FunctionDoor>>,
    /// How many sockets are open to functions.
    pub(crate) sockets: Arc<AtomicUsize>,
}

/// The release that a host shows.
struct Found {
    env: Env,
    served: Arc<Served>,
    which: Which,
    hsts: bool,
}

/// A request that found its release.
pub(crate) struct Visit<'a> {
    pub env: &'a Env,
    pub served: &'a Served,
    pub which: Which,
    pub request: &'a Parts,
    pub id: CallId,
}

/// In the extensions of a request that is the platform's own, and nobody's visit.
#[derive(Debug, Clone, Copy)]
pub struct Unmetered;

/// The app that a response is of.
#[derive(Debug, Clone)]
pub struct Of(pub Env);

/// The domain of an app's own that a request is for. It is looked at only where that was found to be proven.
#[derive(Clone)]
pub(crate) struct OwnDomain(pub String);

/// A page or asset to send.
struct Sending<'a> {
    status: StatusCode,
    path: &'a SitePath,
    file: &'a SiteFile,
    asked: &'a RequestPath,
}

impl Edge {
    /// Serves what `apps` says out of `blobs` and `data`, and writes one log entry for each request that reaches an
    /// environment's release.
    #[must_use]
    pub fn new(apps: Arc<dyn Apps>, blobs: Blobs, data: Data, logs: Logs) -> Self {
        let (contents, gate) = (Arc::new(Contents::new(blobs)), Arc::new(Gate::new()));
        Self { apps, contents, data, logs, gate, functions: None, sockets: Arc::default() }
    }

    /// How many sockets are open to functions.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// The same with the functions of all apps.
    #[must_use]
    pub fn with_functions(self, door: FunctionDoor) -> Self {
        Self { functions: Some(Arc::new(door)), ..self }
    }

    /// Answers a request for `host`, which is an app's or a preview's; any other host has nothing. Every answer
    /// has an `x-request-id`.
    pub async fn serve(&self, host: &HostKind, request: Request<Body>) -> Response {
        let started = Instant::now();
        let id = CallId::new();
        let (mut request, body) = request.into_parts();
        if let HostKind::Domain(name) = host {
            request.extensions.insert(OwnDomain(name.clone()));
        }
        let mut response = match self.find(host).await {
            Ok(Some(found)) => {
                let Found { env, served, which, hsts } = found;
                let is_own = request.extensions.get::<Unmetered>().is_some();
                let admitted = if is_own { Ok(Admitted::default()) } else { self.apps.admit(&env) };
                let redeemed = ticket::redeem(&self.data, &env, &mut request);
                let visit = Visit { env: &env, served: &served, which, request: &request, id };
                let mut response = match redeemed.and(admitted) {
                    Ok(_admitted) => self.answer(&visit, body).await,
                    Err(refusal) => data::refused(&refusal, &env, id),
                };
                self.log(&visit, &response, started.elapsed());
                response.extensions_mut().insert(Of(env.clone()));
                if hsts && request.extensions.get::<Secured>().is_some() {
                    response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, tls::HSTS);
                }
                response
            }
            Ok(None) => page::nothing_here(),
            // Whose it is may not have it answer now, which is no fault to look for.
            Err(error) if error.code() == Code::Forbidden => page::failed(StatusCode::SERVICE_UNAVAILABLE),
            Err(error) => {
                tracing::error!(call.id = %id, error = %error.chain(), "an app's release could not be found");
                page::failed(
                    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                )
            }
        };
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            headers.insert(X_REQUEST_ID, id);
        }
        if request.method == Method::HEAD {
            empty(&mut response);
        }
        response
    }

    async fn find(&self, host: &HostKind) -> Result<Option<Found>> {
        let (env, which, hsts) = match host {
            HostKind::App(slug) => (self.apps.find(slug).await?, Which::Live, false),
            HostKind::Preview { slug, release } => {
                (self.apps.find(slug).await?, Which::Number(*release), false)
            }
            HostKind::Domain(name) => {
                let Some(AtDomain { env, hsts }) = self.apps.at_domain(name).await? else { return Ok(None) };
                (Some(env), Which::Live, hsts)
            }
            HostKind::Platform | HostKind::Sandbox(_) | HostKind::Unknown => return Ok(None),
        };
        let Some(env) = env else { return Ok(None) };
        let served = self.apps.release(&env, which).await?;
        Ok(served.map(|served| Found { env, served, which, hsts }))
    }

    async fn answer(&self, visit: &Visit<'_>, body: Body) -> Response {
        let mut response = if functions::takes(visit.request.uri.path()) {
            Box::pin(functions::answer(self, visit, body)).await
        } else if Data::takes(visit.request.uri.path()) {
            // A preview shows an earlier site over the rows as they are, under the rules as they are.
            // Each on its own, so that what one waits for is not as large as the other's state, and moved as often.
            Box::pin(self.data.answer(visit.env, visit.request, body, visit.id)).await
        } else {
            Box::pin(self.page(visit, body)).await
        };
        let headers = response.headers_mut();
        headers.insert(X_RELEASE, HeaderValue::from(visit.served.release));
        if matches!(visit.which, Which::Number(_)) {
            headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
        }
        response
    }

    /// Answers for a path outside the data plane: by the route that is for it, else by the site.
    async fn page(&self, visit: &Visit<'_>, body: Body) -> Response {
        let path = RequestPath::parse(visit.request.uri.path());
        if path.as_ref().is_some_and(RequestPath::is_reserved) {
            return page::problem(&data::unknown(), visit.id);
        }
        let Some(asked) = path else {
            let reads = matches!(visit.request.method, Method::GET | Method::HEAD);
            return if reads { page::no_such_page() } else { page::only_reading() };
        };
        if let Some(found) = visit.served.app.routes.find(&asked) {
            return routes::answer(self, visit, &found, &asked, body).await;
        }
        if let Err(refusal) = routes::as_live(self, visit, &asked).await {
            return data::refused(&refusal, visit.env, visit.id);
        }
        self.site(visit, None, &asked).await
    }

    /// What the site has there; `passed` is the route that led here.
    pub(crate) async fn site(
        &self,
        visit: &Visit<'_>,
        passed: Option<&Route>,
        asked: &RequestPath,
    ) -> Response {
        let site = &visit.served.site;
        if !matches!(visit.request.method, Method::GET | Method::HEAD) {
            return page::only_reading();
        }
        if site.files.is_empty() && site.redirects.is_empty() {
            return page::nothing_here();
        }
        let sending = match site.resolve(asked) {
            Resolved::File { path, file } => Sending { status: StatusCode::OK, path, file, asked },
            Resolved::NotFound { page: Some((path, file)) } => {
                Sending { status: StatusCode::NOT_FOUND, path, file, asked }
            }
            Resolved::NotFound { page: None } => {
                let mut response = page::no_such_page();
                add_own_headers(response.headers_mut(), visit.served, asked, StatusCode::NOT_FOUND);
                return response;
            }
            Resolved::Redirect { location, status } => return redirect(visit, asked, location, status),
        };
        let shown = match routes::shows(self, visit, passed, sending.path.as_str()).await {
            Ok(shown) => shown,
            Err(refusal) => return data::refused(&refusal, visit.env, visit.id),
        };
        match self.send(visit, &sending).await {
            Ok(mut response) => {
                if shown == Shown::ToSome {
                    routes::guarded(&mut response);
                }
                response
            }
            Err(error) => {
                let error = kernel::Error::from(error);
                tracing::error!(
                    call.id = %visit.id, env.id = %visit.env.id(), error = %error.chain(),
                    "a file of a site could not be read"
                );
                page::failed(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// The file with the headers that describe it, or what a conditional or partial request gets instead. The
    /// order is that of RFC 9110 §13.2.2.
    async fn send(&self, visit: &Visit<'_>, sending: &Sending<'_>) -> Result<Response, Error> {
        let Sending { status, path, file, asked } = sending;
        let given = &visit.request.headers;
        // Parts are of the file as it is: a coded part would be of no use to whom has another part.
        let part = match (*status, &visit.request.method) {
            (StatusCode::OK, &Method::GET) => {
                conditional::part(given, file.size, &conditional::etag(file.sha256, Coding::Identity))
            }
            _ => Part::Whole,
        };
        let coded = Contents::is_coded(file);
        let wanted = if coded && part == Part::Whole { Coding::negotiate(given) } else { Coding::Identity };
        let mut tag = conditional::etag(file.sha256, wanted);

        let mut headers = HeaderMap::new();
        if coded {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        set(&mut headers, CONTENT_TYPE, &file.content_type);
        let keep = match *status {
            StatusCode::OK => cache_control::of(path.as_str(), &file.content_type),
            _ => ASK_FIRST,
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        add_own_headers(&mut headers, visit.served, asked, *status);
        if *status == StatusCode::OK {
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            let plain = conditional::etag(file.sha256, Coding::Identity);
            // What is as it is was given where nobody could code it.
            if part == Part::Whole && conditional::client_has(given, &plain) {
                tag = plain;
            }
            set(&mut headers, ETAG, &tag);
            if conditional::client_has(given, &tag) {
                headers.remove(CONTENT_TYPE);
                return Ok(respond(StatusCode::NOT_MODIFIED, headers, Body::empty()));
            }
        }
        let bytes = match part {
            Part::Whole => {
                let (body, length, coding) = self.body(visit, file, wanted).await?;
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                if headers.contains_key(ETAG) {
                    set(&mut headers, ETAG, &conditional::etag(file.sha256, coding));
                }
                if let Some(name) = coding.name() {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
                }
                return Ok(respond(*status, headers, body));
            }
            Part::Beyond => {
                set(&mut headers, CONTENT_RANGE, &format!("bytes */{}", file.size));
                headers.remove(CONTENT_TYPE);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static(ASK_FIRST));
                return Ok(respond(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty()));
            }
            Part::Bytes(bytes) => bytes,
        };
        let range = format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, file.size);
        set(&mut headers, CONTENT_RANGE, &range);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
        let body = if Contents::is_small(file) {
            let whole = self.contents.whole(visit.env, file).await?;
            let within = |at| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
            Body::from(whole.slice(within(bytes.start)..within(bytes.end)))
        } else {
            Body::from_stream(self.contents.stream(visit.env, file, Some(bytes)).await?)
        };
        Ok(respond(StatusCode::PARTIAL_CONTENT, headers, body))
    }

    /// The whole file, its length, and its coding: the wanted one, or none where that would have to be made now and is
    /// not. Nothing is opened or coded for `HEAD`.
    async fn body(
        &self,
        visit: &Visit<'_>,
        file: &SiteFile,
        wanted: Coding,
    ) -> Result<(Body, u64, Coding), Error> {
        let asks = visit.request.method == Method::HEAD;
        let coded = match wanted {
            Coding::Identity => None,
            coding if asks => self.contents.remembered(visit.env, file, coding),
            coding => self.contents.coded(visit.env, file, coding).await?,
        };
        if let Some(bytes) = coded {
            let length = bytes.len() as u64;
            return Ok((Body::from(bytes), length, wanted));
        }
        let body = if asks {
            Body::empty()
        } else if Contents::is_small(file) {
            Body::from(self.contents.whole(visit.env, file).await?)
        } else {
            Body::from_stream(self.contents.stream(visit.env, file, None).await?)
        };
        Ok((body, file.size, Coding::Identity))
    }

    fn log(&self, visit: &Visit<'_>, response: &Response, took: Duration) {
        let status = response.status();
        let level = match status {
            status if status.is_server_error() => Level::Error,
            status if status.is_client_error() => Level::Warn,
            _ => Level::Info,
        };
        self.logs.visited(visit.env, level, || {
            // Every method is ASCII (RFC 9110 §5.6.2), and any word is one.
            let method = visit.request.method.as_str();
            let method = &method[..method.len().min(LOGGED_METHOD)];
            let raw = visit.request.uri.path();
            let path = &raw[..raw.floor_char_boundary(LOGGED_PATH)];
            // Its words may repeat what was sent, and stay with the sender.
            let told = response.extensions().get::<Told>();
            let field = told.and_then(|told| told.field.as_deref());
            let fields = VisitFields {
                method,
                path,
                status: status.as_u16(),
                duration_ms: took.as_micros() as f64 / 1000.0,
                release: visit.served.release,
                route: response.extensions().get().map(|Taken(route)| route.as_str()),
                code: told.map(|told| told.code.as_str()),
                field: field.map(|field| &field[..field.floor_char_boundary(LOGGED_FIELD)]),
            };
            let message = format!("{method} {path} {}", status.as_u16());
            Visited { at: Timestamp::now(), level, message, request_id: visit.id, fields }
        });
    }
}

/// Makes an answer to `GET` one to `HEAD`. Servers do so by themselves for HTTP/1 alone.
pub fn empty(response: &mut Response) {
    // The length that GET would send (RFC 9110 §8.6); the server would write that of the empty body.
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

fn redirect(
    visit: &Visit<'_>,
    asked: &RequestPath,
    mut location: String,
    status: RedirectStatus,
) -> Response {
    // The visitor's query goes along, unless the rule has one of its own.
    if let Some(query) = visit.request.uri.query()
        && query.is_ascii()
        && !location.contains('?')
    {
        let at = location.find('#').unwrap_or(location.len());
        location.insert_str(at, &format!("?{query}"));
    }
    let status = StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::FOUND);
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(ASK_FIRST));
    add_own_headers(&mut headers, visit.served, asked, status);
    set(&mut headers, LOCATION, &location);
    respond(status, headers, Body::empty())
}

/// Adds the site's own headers for this path. Only what was found is kept as long as the site says: a missing
/// file below `/assets/*` must not stay missing for a year.
fn add_own_headers(headers: &mut HeaderMap, served: &Served, asked: &RequestPath, status: StatusCode) {
    for rule in served.site.headers.iter().filter(|rule| rule.matches(asked.as_str())) {
        for (name, value) in rule.headers() {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
            if status == StatusCode::OK || name != CACHE_CONTROL {
                set(headers, name, value);
            }
        }
    }
}

/// Sets a header whose value was checked to be one; another value sets nothing.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
