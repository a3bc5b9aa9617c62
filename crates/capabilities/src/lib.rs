//! What an environment can do, a module each: access, auth, database, hosting, logs, releases, rows, snapshots.

pub mod access;
pub mod auth;
pub mod database;
pub mod hosting;
pub mod logs;
pub mod releases;
pub mod rows;
pub mod snapshots;
