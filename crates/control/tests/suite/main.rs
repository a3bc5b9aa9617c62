//! The control plane from outside, on real databases and a real disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod app_keys;
mod encryption;
mod environments;
mod keys;
mod metering;
mod plans;
mod platform;
mod records;
mod secrets;
mod speed;
mod start;
