//! Functions on real runtimes, in real jails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod build;
mod instance;
mod rig;
mod supervisor;
mod world;
