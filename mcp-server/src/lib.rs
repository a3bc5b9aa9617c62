//! The tools, and their two doors: MCP and JSON over HTTP.

pub mod auth;
pub mod body;
mod doors;
pub mod gate;
mod guard;
pub mod http;
pub mod mcp;
pub mod problem;

pub use doors::{BODY_LIMIT, Doors};
pub use guard::Guard;
