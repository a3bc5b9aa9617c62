//! The client for browsers.

use axum::response::Response;
use http::request::Parts;
use kernel::Result;

use super::unknown;

pub(super) fn script(_parts: &Parts) -> Result<Response> {
    Err(unknown())
}

pub(super) fn types(_parts: &Parts) -> Result<Response> {
    Err(unknown())
}
