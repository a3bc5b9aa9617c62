//! What an environment can do, a module each: database, hosting, logs, releases.

pub mod database;
pub mod hosting;
pub mod logs;
pub mod releases;
