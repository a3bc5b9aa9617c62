//! Who is at the console. A key is shown once; from then on a browser has two halves of a visit, of which neither opens
//! anything alone: a cookie that no script can read, and a proof that pages of this very origin keep and send in a header.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use control::oauth::User;
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kernel::{Caller, Code, Error, KeyId, Principal, Result, Secret, Surface, Timestamp};
use mcp_server::auth;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use crate::api::{answer, members};
use crate::oauth::{Door, Typed, base, cookie, takes_keys};

/// Has the proof.
const PROOF: HeaderName = HeaderName::from_static("steading-console");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a visit lasts, whatever is done in it.
const LIFETIME: Duration = Duration::from_secs(8 * 60 * 60);
/// How long one lasts in which nothing is done.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// How old a cookie becomes before a request brings the next one.
const RENEWED: Duration = Duration::from_secs(5 * 60);
/// As many visits that have ended are remembered, each for an hour at most.
const ENDED: usize = 16_384;
/// The largest form.
const FORM: usize = 8 << 10;

/// What the console's routes share.
pub struct Console {
    door: Arc<Door>,
    /// Visits that were ended here, and until when their cookies would have been good.
    ended: Mutex<HashMap<String, i64>>,
}

/// A visit, as its cookie says.
struct Visit {
    nonce: String,
    key: KeyId,
    /// In seconds, as the next.
    began: i64,
    seen: i64,
}

impl Visit {
    fn until(&self) -> i64 {
        (self.began + secs(LIFETIME)).min(self.seen + secs(IDLE))
    }
}

fn secs(duration: Duration) -> i64 {
    duration.as_secs().cast_signed()
}

/// What the cookie is called, and where it is sent: to this host alone.
fn named(base: &str) -> (&'static str, &'static str) {
    if base.starts_with("https://") {
        ("__Host-steading-console", "Path=/; Secure; HttpOnly; SameSite=Strict")
    } else {
        ("steading-console", "Path=/; HttpOnly; SameSite=Strict")
    }
}

impl Console {
    /// The console beside the authorization server.
    pub fn new(door: Arc<Door>) -> Self {
        Self { door, ended: Mutex::default() }
    }

    fn proof(&self, base: &str, nonce: &str) -> String {
        self.door.oauth().tag("console page", &[base, nonce].map(str::as_bytes))
    }

    /// The visit that a request belongs to, where it has both halves and comes from a page of this origin.
    fn visit(&self, parts: &Parts, base: &str) -> Result<Visit> {
        is_from(&parts.headers, base)?;
        let proof = auth::text(&parts.headers, "steading-console")?.unwrap_or_default();
        let cookie = cookie(parts, named(base).0).ok_or_else(over)?;
        let fields: Vec<&str> = cookie.split('.').collect();
        let [nonce, key, began, seen, tag] = fields[..] else { return Err(over()) };
        let oauth = self.door.oauth();
        let is_ours = oauth.has_tag("console", &[base, nonce, key, began, seen].map(str::as_bytes), tag)
            && oauth.has_tag("console page", &[base, nonce].map(str::as_bytes), proof);
        let (Ok(key), Ok(began), Ok(seen)) = (key.parse(), began.parse(), seen.parse()) else {
            return Err(over());
        };
        let visit = Visit { nonce: nonce.to_owned(), key, began, seen };
        let has_ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains_key(nonce);
        if !is_ours || has_ended || visit.until() <= Timestamp::now().as_secs() {
            return Err(over());
        }
        Ok(visit)
    }

    /// The cookie of a visit from now on.
    fn kept(&self, base: &str, visit: &Visit) -> Option<HeaderValue> {
        let seen = Timestamp::now().as_secs();
        let (key, began, seen) = (visit.key.to_string(), visit.began.to_string(), seen.to_string());
        let fields = [base, &visit.nonce, &key, &began, &seen].map(str::as_bytes);
        let tag = self.door.oauth().tag("console", &fields);
        let (name, rest) = named(base);
        let cookie = format!("{name}={}.{key}.{began}.{seen}.{tag}", visit.nonce);
        let mut cookie =
            HeaderValue::try_from(format!("{cookie}; Max-Age={}; {rest}", LIFETIME.as_secs())).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }

    /// Remembers that a visit has ended for as long as its cookie would be good.
    fn forget(&self, visit: &Visit) {
        let now = Timestamp::now().as_secs();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= ENDED {
            ended.retain(|_, until| *until > now);
        }
        let first = ended.iter().min_by_key(|(_, until)| **until).map(|(nonce, _)| nonce.clone());
        if let Some(first) = first.filter(|_| ended.len() >= ENDED) {
            ended.remove(&first);
        }
        // Another cookie of the visit may be on its way to the browser.
        ended.insert(visit.nonce.clone(), (now + secs(IDLE)).min(visit.began + secs(LIFETIME)));
    }

    /// Whose visit it is, as long as the key is good.
    async fn user(&self, parts: &Parts, visit: &Visit) -> Result<User> {
        self.door.oauth().user(visit.key, auth::source(parts)).await?.ok_or_else(over)
    }

    /// What pages are told of who is there, and from when on no more.
    async fn told(&self, base: &str, visit: &Visit, user: &User) -> Result<Value> {
        let member = match user.caller.principal {
            Principal::Member => self.door.control().members().of_key(user.key.id).await?,
            _ => None,
        };
        let mut told = json!({
            "who": user.caller.principal.kind(),
            "key": { "id": user.key.id, "name": user.key.name, "scopes": user.key.scopes },
            "tenant": { "id": user.tenant.id, "slug": user.tenant.slug.to_string(), "name": user.tenant.name },
            "env": user.key.env,
            "url": base,
            "ends_at": time(visit.began + secs(LIFETIME)),
            "idle_s": IDLE.as_secs(),
        });
        if let Some(member) = member {
            told["member"] = members::shown(&member);
        }
        Ok(told)
    }
}

fn time(secs: i64) -> String {
    Timestamp::from_micros(secs.saturating_mul(1_000_000)).to_string()
}

/// Whether the browser says that a page of this very origin sends this: one of another port, or of an app, does not.
fn is_from(headers: &HeaderMap, base: &str) -> Result<()> {
    let all_are = |name: &HeaderName, expected: &str| {
        headers.get_all(name).iter().all(|value| value.as_bytes() == expected.as_bytes())
    };
    let is_said = headers.contains_key(ORIGIN) || headers.contains_key(FETCH_SITE);
    if is_said && all_are(&ORIGIN, base) && all_are(&FETCH_SITE, "same-origin") {
        return Ok(());
    }
    Err(Error::new(Code::Forbidden, "a visit of the console is for its own pages alone")
        .hint("programs send Authorization: Bearer with a key"))
}

fn over() -> Error {
    Error::new(Code::Unauthenticated, "nobody is signed in here, or not any more").hint("sign in at /console")
}

/// Lets the requests of a visit into the platform's own routes as its key, and into nothing else. A request that shows a
/// credential by itself is let in by that alone.
pub async fn let_in(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let is_of_visit = request.headers().contains_key(PROOF)
        && request.uri().path().starts_with("/v1/")
        && !request.headers().contains_key(AUTHORIZATION);
    if !is_of_visit {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let found = base(&parts).and_then(|base| Ok((console.visit(&parts, &base)?, base)));
    let (visit, base) = match found {
        Ok(found) => found,
        Err(error) => return Problem::from(error).into_response(),
    };
    let until = Timestamp::from_micros(visit.until().saturating_mul(1_000_000));
    let stands = console.door.control().visit(visit.key, until);
    let Ok(mut bearer) = HeaderValue::try_from(format!("Bearer {}", stands.expose())) else {
        return Problem::from(Error::internal("a visit is no header")).into_response();
    };
    bearer.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, bearer);
    // What is behind these routes has no use for either half.
    parts.headers.remove(COOKIE);
    parts.headers.remove(PROOF);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if Timestamp::now().as_secs() - visit.seen > secs(RENEWED)
        && response.status() != StatusCode::UNAUTHORIZED
        && let Some(cookie) = console.kept(&base, &visit)
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    key: Option<String>,
    tenant: Option<String>,
    email: Option<String>,
    password: Option<Secret>,
    ticket: Option<Secret>,
}

/// Says how somebody may sign in, beside by a key and by a password.
pub async fn ways(State(console): State<Arc<Console>>) -> Response {
    let directory = console.door.directory_name().map(|name| json!({ "name": name }));
    let told = answer(StatusCode::OK, &json!({ "directory": directory }));
    ([(CACHE_CONTROL, "no-store")], told).into_response()
}

/// Takes a key, once; or a member's address and password; or the ticket of somebody for whom a directory vouches.
pub async fn begin(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let base = base(&parts)?;
    is_from(&parts.headers, &base)?;
    takes_keys(&base)?;
    let (source, door) = (auth::source(&parts), &console.door);
    let refused =
        |why: String, hint: &str| Error::new(Code::Unauthenticated, why.trim_end_matches('.')).hint(hint);
    let key = match read(&parts, body).await? {
        Shown { key: None, tenant: None, email: None, password: None, ticket: Some(ticket) } => {
            let (key, next) = door.ticketed(&parts, &base, ticket.expose())?;
            let response = entered(&console, &parts, &base, key, ("console.sign_in", Some(&next))).await?;
            return Ok(Door::without_ticket(response, &base));
        }
        Shown { key: Some(key), tenant: None, email: None, password: None, ticket: None } => {
            let hint = "paste a key that is good, without spaces around it";
            door.shown(&key, source).await?.map_err(|why| refused(why, hint))?.credential
        }
        Shown {
            key: None,
            tenant: Some(tenant),
            email: Some(email),
            password: Some(password),
            ticket: None,
        } => {
            let hint = "look at all three; an owner of the tenant can send another invitation, which sets another password";
            let typed = Typed { tenant: &tenant, email: &email, password };
            door.signed_in(typed, source).await?.map_err(|why| refused(why, hint))?
        }
        _ => {
            return Err(Error::invalid("", "a key is to be shown, or who a member is")
                .hint("send {key}, {tenant, email, password} or {ticket}")
                .into());
        }
    };
    entered(&console, &parts, &base, key, ("console.sign_in", None)).await
}

/// Begins a visit that stands on a key, and says which page it is for, where one is.
async fn entered(
    console: &Console,
    parts: &Parts,
    base: &str,
    key: KeyId,
    (action, next): (&'static str, Option<&str>),
) -> Result<Response, Problem> {
    let began = Timestamp::now().as_secs();
    let nonce = console.door.oauth().nonce()?;
    let visit = Visit { nonce, key, began, seen: began };
    let user = console.user(parts, &visit).await?;
    let caller = user.caller.clone().by(Surface::Http, auth::source(parts));
    acted(console, &caller, action).await?;
    let mut told = console.told(base, &visit, &user).await?;
    told["proof"] = console.proof(base, &visit.nonce).into();
    if let Some(next) = next {
        told["next"] = next.into();
    }
    let cookie = console.kept(base, &visit).ok_or_else(|| Error::internal("a visit is no cookie"))?;
    Ok(private(StatusCode::CREATED, &told, cookie))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invitation {
    invitation: Secret,
}

/// Says whom an invitation is for, and to which tenant.
pub async fn invitation(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    is_from(&parts.headers, &base(&parts)?)?;
    let Invitation { invitation } = read(&parts, body).await?;
    let (member, tenant) = console.door.invited(&invitation, auth::source(&parts)).await?;
    let told = json!({
        "tenant": { "slug": tenant.slug.as_str(), "name": tenant.name },
        "email": member.email, "name": member.name, "role": member.role.as_str(),
        "is_new": member.joined.is_none(),
    });
    Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::OK, &told)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Joining {
    invitation: Secret,
    name: Option<String>,
    password: Secret,
}

/// Takes an invitation up, and signs in who has.
pub async fn join(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let base = base(&parts)?;
    is_from(&parts.headers, &base)?;
    takes_keys(&base)?;
    let Joining { invitation, name, password } = read(&parts, body).await?;
    let source = auth::source(&parts);
    // To its end, and on record, also where whoever joins goes away.
    let joining = tokio::spawn(async move {
        let door = &console.door;
        let (member, _) = door.invited(&invitation, source).await?;
        let user = door.oauth().user(member.key, source).await?.ok_or_else(over)?;
        let caller = user.caller.by(Surface::Http, source);
        let work = door.joined(&invitation, name.as_deref(), &password, source);
        let key = door.api().act(&caller, "members.join", Effect::Write, work).await?;
        entered(&console, &parts, &base, key, ("console.sign_in", None)).await
    });
    joining.await.unwrap_or_else(|error| Err(Error::internal(error).into()))
}

/// Says who is signed in.
pub async fn show(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let base = base(&parts)?;
    let visit = console.visit(&parts, &base)?;
    let user = console.user(&parts, &visit).await?;
    let cookie = console.kept(&base, &visit).ok_or_else(|| Error::internal("a visit is no cookie"))?;
    Ok(private(StatusCode::OK, &console.told(&base, &visit, &user).await?, cookie))
}

/// Ends the visit here, whoever else has its cookie.
pub async fn end(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let base = base(&parts)?;
    let visit = console.visit(&parts, &base)?;
    console.forget(&visit);
    if let Ok(user) = console.user(&parts, &visit).await {
        let caller = user.caller.by(Surface::Http, auth::source(&parts));
        acted(&console, &caller, "console.sign_out").await?;
    }
    let (name, rest) = named(&base);
    let cookie = HeaderValue::try_from(format!("{name}=; Max-Age=0; {rest}"));
    Ok(private(StatusCode::OK, &json!({ "signed_out": true }), cookie.map_err(Error::internal)?))
}

async fn read<T: DeserializeOwned>(parts: &Parts, body: Body) -> Result<T> {
    let bytes = web::body::read(&parts.headers, body, FORM).await?;
    tool::decode(web::body::json(&parts.headers, &bytes)?)
}

/// Counts and records what was done with a visit.
async fn acted(console: &Console, caller: &Caller, action: &'static str) -> Result<()> {
    console.door.api().act(caller, action, Effect::Idempotent, async { Ok(()) }).await
}

fn private(status: StatusCode, body: &Value, cookie: HeaderValue) -> Response {
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-store")), (SET_COOKIE, cookie)];
    (headers, answer(status, body)).into_response()
}
