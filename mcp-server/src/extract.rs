//! What routes take from a request's path and query, with refusals that are problems like all others.

use axum::extract::FromRequestParts;
use http::request::Parts;
use kernel::{Code, Error};
use serde::de::DeserializeOwned;

use web::problem::Problem;

/// The parameters of the path, as `axum::extract::Path`.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

/// The query string, as `axum::extract::Query`.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(found) =
            found.map_err(|e| refusal("path", &e.body_text(), "write it in UTF-8"))?;
        Ok(Self(found))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(found) = found
            .map_err(|e| refusal("query", &e.body_text(), "GET /v1/openapi.json lists what it takes"))?;
        Ok(Self(found))
    }
}

fn refusal(what: &str, why: &str, hint: &str) -> Problem {
    let why: String = why.rsplit(": ").next().unwrap_or(why).chars().take(200).collect();
    Problem::from(Error::new(Code::InvalidInput, format!("the {what} cannot be read: {why}")).hint(hint))
}
