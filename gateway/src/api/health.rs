//! `/healthz`: the process answers. `/readyz`: so does what it stands on.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use web::problem::Problem;

use super::{Api, answer};

pub async fn healthz() -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok" }))
}

pub async fn readyz(State(api): State<Api>) -> Response {
    match api.platform().control.ping().await {
        Ok(()) => answer(StatusCode::OK, &json!({ "status": "ready" })),
        Err(error) => Problem::from(error).into_response(),
    }
}
