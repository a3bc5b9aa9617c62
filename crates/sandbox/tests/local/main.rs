//! Sandboxes of this machine, made for real. They need root; without it they fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod door;
mod every;
mod life;
mod limits;
mod rig;
mod spares;
mod unprivileged;
mod versions;
