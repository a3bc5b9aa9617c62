//! Jails, made for real and looked at from inside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cell;
mod shape;
