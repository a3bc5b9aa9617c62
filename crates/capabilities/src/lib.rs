//! What an environment can do, a module each: access, auth, database, domains, events, functions, hosting, logs, mail, outbound, realtime,
//! releases, routes, rows, schedules, snapshots, storage.

pub mod access;
pub mod auth;
pub mod database;
pub mod domains;
pub mod events;
pub mod functions;
pub mod hosting;
pub mod logs;
pub mod mail;
pub mod outbound;
mod places;
pub mod quotas;
pub mod realtime;
pub mod releases;
pub mod routes;
pub mod rows;
pub mod schedules;
pub mod snapshots;
pub mod storage;
