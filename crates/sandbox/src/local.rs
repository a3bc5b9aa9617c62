//! Sandboxes of this machine: jails of namespaces, made by a process that has the privileges for it and nothing else.
//!
//! [`Local`] is the gateway's end: it has that process started and speaks with it over one socket. [`Gvisor`] asks it for
//! jails with a kernel of their own. [`host_main`] is the process. When the socket closes it ends every sandbox and itself.
//! [`starter_main`] is what starts it, so that the gateway need not have its privileges.

mod base;
mod carrying;
mod client;
mod directory;
mod door;
mod error;
pub mod groups;
mod gvisor;
mod host;
mod jail;
mod message;
mod metering;
mod packets;
mod pieces;
pub mod privileges;
mod probe;
pub mod programs;
pub mod reach;
mod reaper;
mod runners;
mod sandbox;
mod spawner;
mod starter;
mod swapping;
mod weak;

pub use client::Local;
pub use door::Door;
pub use error::Error;
pub use gvisor::Gvisor;
pub use host::{Keeper, Parts, host_main};
pub use message::{Settings, Spares};
pub use probe::{Finding, Verdict};
pub use starter::{Starter, starter_main};
pub use swapping::{Swap, not_whole};
