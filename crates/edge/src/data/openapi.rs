//! The interface as an OpenAPI document.

use axum::response::Response;
use kernel::Result;

use super::{Ask, unknown};

pub(super) fn answer(_ask: &Ask<'_>) -> Result<Response> {
    Err(unknown())
}
