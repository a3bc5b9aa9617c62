//! What an environment can do, a module each: access, auth, database, domains, hosting, logs, mail, outbound, realtime,
//! releases, routes, rows, snapshots, storage.

pub mod access;
pub mod auth;
pub mod database;
pub mod domains;
pub mod hosting;
pub mod logs;
pub mod mail;
pub mod outbound;
mod places;
pub mod realtime;
pub mod releases;
pub mod routes;
pub mod rows;
pub mod snapshots;
pub mod storage;
