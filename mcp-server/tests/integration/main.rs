//! The doors, tested over real sockets with a registry of a few tools.

#![cfg(test)]

mod attacks;
mod conformance;
mod fixture;
mod gate;
mod json_door;
mod mcp_door;
mod plain_calls;
mod skills;
mod stdio;
mod world;
