//! Starts the real engines that tests need, and fails where one is missing.
//!
//! Every engine is found on the machine, started on a free port below a directory of its own, counted as ready
//! when a first real operation reaches *this* process, and killed with its whole group when its value is dropped
//! or the test dies. A missing engine never passes unseen: see [`require`].

mod chromium;
mod directory;
mod environment;
mod http;
mod locate;
mod postgres;
mod process;
mod require;
mod steading;
mod wait;

pub use chromium::Chromium;
pub use postgres::{Fsync, Postgres};
pub use require::{Unavailable, require, skips_are_failures};
pub use steading::{Launch, Ready, Steading};
pub use wait::eventually;
