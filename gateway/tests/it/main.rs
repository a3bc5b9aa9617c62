//! The built binary, from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod configuration;
mod connect;
mod platform;
mod real;
mod serving;
mod stdio;
