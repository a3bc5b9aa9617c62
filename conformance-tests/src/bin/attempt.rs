//! What an attacker tries, as a program for a sandbox: one attempt, which the file `attempt` names.

#![expect(clippy::unwrap_used, reason = "an attempt that cannot be made has failed")]

#[expect(dead_code, reason = "the tables are for whoever starts this")]
#[path = "../../../crates/hand/tests/jail/attempts.rs"]
mod attempts;

fn main() {
    attempts::attempt();
}
