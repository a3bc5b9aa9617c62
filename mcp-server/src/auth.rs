//! From request headers to a caller.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Uri};
use kernel::{Caller, Code, Error, Result, Surface};
use tool::Selection;

use crate::gate::Gate;
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
        Ok(Self(caller(&*gate, &parts.headers, env, Surface::Http).await?))
    }
}

/// The caller behind `headers`, in the environment `env`.
pub(crate) async fn caller(
    gate: &dyn Gate,
    headers: &HeaderMap,
    env: Option<&str>,
    surface: Surface,
) -> Result<Arc<Caller>> {
    gate.caller(bearer(headers)?, env, text(headers, TENANT)?, surface).await
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
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
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
