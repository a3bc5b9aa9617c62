//! What is done in a sandbox, with the real hand, unjailed.

mod exec;
mod inside;
