//! The built binary, from outside.

mod commands;
mod configuration;
mod connect;
mod platform;
mod serving;
mod stdio;
