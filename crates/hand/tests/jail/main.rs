//! Jails, made for real, looked at and attacked from inside. They need root; without it they fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abuse;
mod attempts;
mod cell;
mod serving;
mod shape;

/// The program that is started inside.
#[test]
#[ignore = "runs inside a jail, started by the others"]
fn attempt() {
    attempts::attempt();
}
