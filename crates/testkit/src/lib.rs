//! Starts the real engines that tests need, and fails where one is missing.
//!
//! Every engine is found on the machine, started on a free port below a directory of its own, counted as ready
//! when a first real operation reaches *this* process, and killed with its whole group when its value is dropped
//! or the test dies. A missing engine fails its test: see [`require`].

mod chromium;
mod client;
mod directory;
mod engine;
mod environment;
pub mod http;
mod https;
mod locate;
mod mailbox;
mod openid;
mod pebble;
mod pocketbase;
mod postgres;
mod process;
mod provider;
mod require;
mod seaweed;
mod steading;
mod tools;
mod wait;

pub use chromium::{Chromium, PasskeyUser, Passkeys};
pub use client::{Answer, Client};
pub use directory::temporary;
pub use engine::Engine;
pub use https::{Https, Secured};
pub use mailbox::{Mail, Mailbox};
pub use openid::OpenId;
pub use pebble::{NameServer, Pebble, free};
pub use pocketbase::PocketBase;
pub use postgres::{Fsync, Postgres};
pub use process::{Finished, finish};
pub use provider::{Provider, Question, Turn};
pub use require::{Unavailable, require};
pub use seaweed::SeaweedFs;
pub use steading::{Launch, Ready, Steading, built_binary};
pub use tools::{NodeTool, PythonTool};
pub use wait::eventually;
