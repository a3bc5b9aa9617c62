//! Commands that are run to their end, and what they leave behind.

use std::process::Command;
use std::time::Duration;

use testkit::finish;

use crate::{LIMIT, gone};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_finished_command_gives_its_status_and_both_outputs() {
    let finished = finish(shell("echo out; echo err >&2; exit 3"), LIMIT).unwrap();
    assert_eq!(finished.status.unwrap().code(), Some(3));
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    assert!(!finished.success());
}

#[test]
fn outputs_larger_than_a_pipe_do_not_block() {
    let finished = finish(shell("head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero"), LIMIT).unwrap();
    assert!(finished.success());
    assert_eq!((finished.stdout.len(), finished.stderr.len()), (1_000_000, 1_000_000));
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let finished = finish(shell("sleep 1000 & echo $!; wait"), Duration::from_millis(300)).unwrap();
    assert_eq!(finished.status, None);
    assert!(gone(finished.stdout.trim().parse().unwrap()));
}

#[test]
fn what_a_finished_command_left_running_is_killed() {
    let finished = finish(shell("sleep 1000 & echo $!"), LIMIT).unwrap();
    assert!(finished.success());
    assert!(gone(finished.stdout.trim().parse().unwrap()));
}

#[test]
fn a_program_that_does_not_exist_is_an_error() {
    assert!(finish(Command::new("no-such-program"), LIMIT).is_err());
}
