//! What is done in a sandbox, with the real hand, unjailed.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod background;
mod exec;
mod files;
mod inside;
mod ports;
mod terminal;
