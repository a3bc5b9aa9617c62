//! Rows of tables, by rules.

use axum::body::Body;
use axum::response::Response;
use kernel::Result;

use super::{Ask, Data, unknown};

pub(super) async fn answer(_data: &Data, _ask: &Ask<'_>, _body: Body) -> Result<Response> {
    Err(unknown())
}

pub(super) async fn batch(_data: &Data, _ask: &Ask<'_>, _body: Body) -> Result<Response> {
    Err(unknown())
}
