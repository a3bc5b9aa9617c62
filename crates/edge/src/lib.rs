//! App traffic: an environment's site, served on its own host.

mod apps;
mod cache_control;
mod coding;
mod conditional;
mod contents;
mod host;
mod page;
mod serve;

pub use apps::{Apps, Which};
pub use capabilities::releases::Served;
pub use host::{HostKind, Hosts, NotAHost};
pub use serve::Edge;
