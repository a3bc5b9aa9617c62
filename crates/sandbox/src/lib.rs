//! Untrusted code runs here and nowhere else: in a jail, with files that outlive it, and with one way out.

pub mod bridge;
pub mod egress;
pub mod local;
pub mod preview;
pub mod relay;
pub mod runner;
pub mod session;
pub mod workspace;

/// The hand: the static program that runs inside each sandbox, for the machine that this one was built for.
#[must_use]
pub fn hand_binary() -> &'static [u8] {
    include_bytes!(env!("STEADING_HAND"))
}
