//! `/v1/blobs/{sha256}`: content that manifests and deploys name by its hash.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use kernel::{BlobHash, Env, Error, Proof, Result, Scope};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use tool::Host as _;
use web::problem::Problem;

use super::Api;

/// The largest blob, in bytes: what a site's file may have.
const LIMIT: u64 = 25 << 20;

/// Stores the body under its hash: 201, or 200 where it was there.
pub async fn put(
    State(api): State<Api>,
    Path(hash): Path<String>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let env = Env::authorize(&caller, &[Scope::SiteWrite])?;
    api.platform().limiter().admit(&caller)?;
    let hash = parse(&hash)?;
    if api.platform().blobs.has(&env, hash).await.map_err(Error::from)? {
        web::body::read(&headers, body, LIMIT as usize).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let stream = body.into_data_stream();
    api.platform().blobs.put_expected(&env, hash, stream, LIMIT).await.map_err(Error::from)?;
    Ok(StatusCode::CREATED.into_response())
}

/// Whether it is there: 200 or 404.
pub async fn head(
    State(api): State<Api>,
    Path(hash): Path<String>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Problem> {
    let env = Env::authorize(&caller, &[Scope::SiteWrite])?;
    api.platform().limiter().admit(&caller)?;
    let there = api.platform().blobs.has(&env, parse(&hash)?).await.map_err(Error::from)?;
    Ok(if there { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response())
}

fn parse(hash: &str) -> Result<BlobHash> {
    hash.parse()
        .map_err(|_| Error::invalid("/sha256", "expected the SHA-256 of the content, 64 hexadecimal digits"))
}
