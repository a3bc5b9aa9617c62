//! What an environment can do, a module each: database, hosting, secrets, logs, releases.

pub mod database;
pub mod hosting;
pub mod logs;
