//! App traffic on an environment's own host: its site, and below `/_/` its data plane.

mod apps;
mod cache_control;
mod coding;
mod conditional;
mod contents;
mod data;
mod functions;
mod host;
mod page;
mod routes;
mod serve;
mod ticket;
mod tls;

pub use apps::{Admitted, Apps, AtDomain, Which};
pub use capabilities::releases::Served;
pub use data::{Data, Hangup, ROUTES};
pub use functions::FunctionDoor;
pub use host::{HostKind, Hosts, NotAHost};
pub use serve::{Edge, Of, Unmetered, empty};
pub use tls::{HSTS, Secured, Tls, misdirected};
