//! The tools, and their two doors: MCP and JSON over HTTP.

pub mod app_addresses;
pub mod app_keys;
pub mod auth;
pub mod bridge;
mod covering;
mod disguises;
mod doors;
pub mod extract;
pub mod gate;
mod guard;
pub mod http;
pub mod masks;
pub mod mcp;
pub mod planned;
pub mod platform;
pub mod sandboxes;
pub mod seal;
pub mod serving;
pub mod skills;
pub mod stdio;
pub mod tenancy;
pub mod tools;

pub use doors::{BODY_LIMIT, Doors};
pub use guard::Guard;
pub use sandboxes::name_of;

use std::sync::Arc;

/// The routes of both doors, for the platform's host. To be called within a tokio runtime.
///
/// Unknown paths are left to the router this is merged into; [`web::problem::unknown_route`] answers them.
pub fn router<P: tool::Host>(doors: Arc<Doors<P>>, options: mcp::McpOptions) -> axum::Router {
    http::router(Arc::clone(&doors)).merge(mcp::router(doors, options))
}
