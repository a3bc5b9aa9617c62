//! Untrusted code runs here and nowhere else: in a jail, with files that outlive it, and with one way out.

pub mod bridge;
pub mod egress;
pub mod preview;
mod relay;
pub mod runner;
pub mod workspace;
