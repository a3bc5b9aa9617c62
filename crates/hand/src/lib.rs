//! The hand: what is inside a sandbox and moves there, and the words it is spoken to with.

pub mod files;
pub mod jail;
pub mod mcp;
pub mod pid1;
pub mod wire;
