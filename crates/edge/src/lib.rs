//! App traffic: an environment's site, served on its own host.

mod apps;
mod cache_control;
mod coding;
mod conditional;
mod contents;
mod host;
mod page;
mod serve;

pub use apps::{Apps, Served, Which};
pub use host::{HostKind, Hosts, NotAHost};
pub use serve::Edge;
