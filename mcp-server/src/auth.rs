//! From request headers to a caller.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Uri};
use kernel::{Caller, Code, Error, Result, Surface};
use tool::Selection;

use crate::gate::{Gate, Shown};
use web::problem::Problem;

/// Chooses the environment, by slug or id, for credentials that are not bound to one.
pub const ENV: &str = "steading-env";

/// Chooses the tenant, for the operator.
pub const TENANT: &str = "steading-tenant";

/// The caller of a platform route, from `Authorization`, `Steading-Env` and `Steading-Tenant`; for routes
/// whose state holds the gate.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Arc<Caller>);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    Arc<dyn Gate>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let gate = Arc::<dyn Gate>::from_ref(state);
        let env = text(&parts.headers, ENV)?;
        let whence = Whence::of(parts, None);
        Ok(Self(caller(&*gate, &parts.headers, env, Surface::Http, whence).await?))
    }
}

/// Beside the address that a request comes from: it is a proxy's that does not say who asks. What is good from some
/// addresses alone is not good from there.
#[derive(Debug, Clone, Copy)]
pub struct Unnamed;

/// Beside a request: the address of the platform that was dialled, `https://cloud.example` for example.
#[derive(Debug, Clone)]
pub struct Dialled(pub Arc<str>);

/// Where a request comes from, and where it went.
#[derive(Debug, Clone)]
pub struct Whence {
    /// The address it comes from, proxies of ours looked through.
    pub source: Option<IpAddr>,
    /// The address of the platform that it asked.
    pub at: Option<Arc<str>>,
}

impl Whence {
    /// Of a request: to the platform as a whole, or to the MCP door of this path.
    #[must_use]
    pub fn of(parts: &Parts, door: Option<&str>) -> Self {
        let dialled = parts.extensions.get::<Dialled>().map(|dialled| &dialled.0);
        let at =
            dialled.map(|base| door.map_or_else(|| Arc::clone(base), |path| format!("{base}{path}").into()));
        Self { source: source(parts), at }
    }

    fn again(caller: &Caller) -> Self {
        Self { source: caller.source, at: caller.at.clone() }
    }
}

/// The address that a request comes from: that of the client, where the listener has looked through its proxies; none
/// where one of those does not name it.
#[must_use]
pub fn source(parts: &Parts) -> Option<IpAddr> {
    if parts.extensions.get::<Unnamed>().is_some() {
        return None;
    }
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip().to_canonical())
}

/// The caller behind `headers`, in the environment `env`.
pub(crate) async fn caller(
    gate: &dyn Gate,
    headers: &HeaderMap,
    env: Option<&str>,
    surface: Surface,
    Whence { source, at }: Whence,
) -> Result<Arc<Caller>> {
    let (bearer, tenant) = (bearer(headers)?, text(headers, TENANT)?);
    gate.caller(Shown { bearer, env, tenant, surface, source, at: at.as_ref() }).await
}

/// How long a body may take until it is asked again who has sent it.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Reads the body of a request of `first`. Where it took a while, its sender may not be let in any more, or not as much:
/// the caller is the one of the moment when all of it is here.
///
/// # Errors
/// As of [`web::body::read`]; `unauthenticated` where the credential has been revoked meanwhile.
pub async fn body_of(
    gate: &dyn Gate,
    first: Arc<Caller>,
    headers: &HeaderMap,
    env: Option<&str>,
    body: Body,
    limit: usize,
) -> Result<(Arc<Caller>, Bytes)> {
    let began = Instant::now();
    let bytes = web::body::read(headers, body, limit).await?;
    if began.elapsed() < AT_ONCE {
        return Ok((first, bytes));
    }
    Ok((caller(gate, headers, env, first.surface, Whence::again(&first)).await?, bytes))
}

impl Authenticated {
    /// The same as `first`, from the same address at the same one, asked for again.
    ///
    /// # Errors
    /// `unauthenticated` where the credential has been revoked meanwhile.
    pub async fn again(gate: &dyn Gate, headers: &HeaderMap, first: &Caller) -> Result<Self> {
        Ok(Self(caller(gate, headers, text(headers, ENV)?, Surface::Http, Whence::again(first)).await?))
    }
}

/// The bearer token (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), rest) = (values.next(), values.next()) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|v| v.split_once(' '));
    match (token, rest) {
        (Some((scheme, token)), None) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Error::new(Code::Unauthenticated, "the Authorization header cannot be read")
            .hint("send one header Authorization: Bearer <key>")),
    }
}

/// A header that may be given once, as text.
///
/// # Errors
/// `invalid_input` where it is given twice, or is no text.
pub fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), rest) = (values.next(), values.next()) else { return Ok(None) };
    match (value.to_str(), rest) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(Error::new(Code::InvalidInput, format!("the header {name} cannot be read"))
            .hint("send it once, in ASCII")),
    }
}

/// The selection that `?tools=` asks for.
pub(crate) fn selection(uri: &Uri) -> Result<Selection> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut asked = pairs.filter_map(|pair| pair.strip_prefix("tools="));
    match (asked.next(), asked.next()) {
        (None, _) | (Some("full"), None) => Ok(Selection::Full),
        (Some("safe"), None) => Ok(Selection::Safe),
        (Some("readonly"), None) => Ok(Selection::ReadOnly),
        _ => Err(Error::new(Code::InvalidInput, "tools must be readonly, safe or full")
            .hint("write ?tools=readonly, ?tools=safe or ?tools=full, once")),
    }
}
