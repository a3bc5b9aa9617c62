//! Commands in the background.

use std::time::Duration;

use hand::wire::{Cause, Failure};
use sandbox::session::{Error, Exec, Exit, Outcome, Running, State, Stdin};
use tokio::io::AsyncWriteExt;

use crate::inside::{Inside, LONG, eventually, lives};

async fn one(inside: &Inside) -> Running {
    let mut all = inside.session.processes().await.expect("a list");
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

async fn wait(inside: &Inside, handle: u32) -> Exit {
    let mut attached = inside.session.attach(handle, 0).await.expect("a command");
    tokio::time::timeout(LONG, attached.wait()).await.expect("in time").expect("an end")
}

#[tokio::test]
async fn a_command_lives_on_and_tells_what_it_wrote_to_whoever_asks_and_whenever() {
    let inside = Inside::start().await;
    let exec =
        Exec { stdin: Stdin::Stream, ..Exec::command("echo one; read x; echo got $x >&2; read y; exit 4") };
    let handle = inside.session.spawn(exec).await.expect("a command");
    let running = one(&inside).await;
    assert_eq!(
        (running.handle, running.state, running.command.starts_with("echo one; read")),
        (handle, State::Running, true)
    );
    let mut first = inside.session.attach(handle, 0).await.expect("a command");
    let mut output = first.output().expect("output");
    assert_eq!(output.chunk().await.as_deref(), Some(&b"one\n"[..]));
    drop((first, output));
    let mut second = inside.session.attach(handle, 2).await.expect("a command");
    second.stdin().write_all(b"word\n").await.expect("a reader");
    let mut output = second.output().expect("output");
    let mut seen = Vec::new();
    while seen.len() < 11 {
        seen.extend_from_slice(&output.chunk().await.expect("more"));
    }
    assert_eq!((second.from(), String::from_utf8_lossy(&seen).as_ref()), (2, "e\ngot word\n"));
    second.stdin().write_all(b"\n").await.expect("a reader");
    let exit = tokio::time::timeout(LONG, second.wait()).await.expect("in time").expect("an end");
    assert_eq!((exit.outcome, exit.stdout.bytes), (Outcome::Code(4), 13));
    assert_eq!(
        wait(&inside, handle).await.outcome,
        Outcome::Code(4),
        "the end is told as often as it is asked"
    );
    inside.session.forget(handle).await.expect("it has ended");
    assert_eq!(inside.session.processes().await, Ok(Vec::new()));
    let missing = inside.session.attach(handle, 0).await.expect_err("it is forgotten");
    let message = format!("nothing runs in the background as {handle}");
    assert_eq!(missing, Error::Refused(Failure { cause: Cause::NotFound, message }));
}

#[tokio::test]
async fn much_output_stops_nobody_and_the_last_of_it_is_kept() {
    let inside = Inside::start().await;
    let handle = inside.session.spawn(Exec::command("seq 1 1000000")).await.expect("a command");
    let exit = wait(&inside, handle).await;
    let expected: String = (1..=1_000_000).map(|i| format!("{i}\n")).collect();
    assert_eq!((exit.outcome, exit.stdout.bytes), (Outcome::Code(0), expected.len() as u64));
    let mut attached = inside.session.attach(handle, 0).await.expect("a command");
    let from = attached.from() as usize;
    assert_eq!(expected.len() - from, 1 << 20);
    let kept = attached.output().expect("output").all(2 << 20).await;
    assert!(kept == expected.as_bytes()[from..], "other bytes are kept");
    let file = exit.stdout.file.expect("a file");
    assert_eq!(inside.bash(&format!("seq 1 1000000 | cmp - {file} && rm {file}")).await.stdout.head, "");
}

#[tokio::test]
async fn a_kill_reaches_all_that_it_began_and_nothing_else() {
    let inside = Inside::start().await;
    let other = inside.session.exec(Exec::argv(["sleep", "1000"])).await.expect("another");
    let line = "setsid bash -c 'trap \"\" TERM; echo $$ > a; sleep 1000; sleep 1000' & wait";
    let handle = inside.session.spawn(Exec::command(line)).await.expect("a command");
    eventually("it began", || {
        std::fs::read_to_string(inside.home().join("a")).is_ok_and(|a| a.ends_with('\n'))
    })
    .await;
    let pid =
        std::fs::read_to_string(inside.home().join("a")).expect("it began").trim().parse().expect("a number");
    let busy = inside.session.forget(handle).await.expect_err("it runs");
    assert!(matches!(busy, Error::Refused(Failure { cause: Cause::Busy, .. })), "{busy:?}");
    inside.session.kill(handle, 15).await.expect("a signal");
    assert_eq!(wait(&inside, handle).await.outcome, Outcome::Signal(15));
    assert!(lives(pid), "it ignores that signal");
    inside.session.kill(handle, 9).await.expect("a signal");
    eventually("it is dead", || !lives(pid)).await;
    assert!(lives(other.pid()));
    let wrong = inside.session.kill(handle, 999).await.expect_err("there is no such signal");
    assert!(matches!(wrong, Error::Refused(Failure { cause: Cause::Invalid, .. })), "{wrong:?}");
}

#[tokio::test]
async fn time_runs_out_in_the_background_too_where_it_is_given() {
    let inside = Inside::start().await;
    let exec = Exec { timeout: Some(Duration::from_secs(1)), ..Exec::argv(["sleep", "1000"]) };
    let handle = inside.session.spawn(exec).await.expect("a command");
    assert_eq!(wait(&inside, handle).await.outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn there_is_room_for_so_many_and_those_that_ended_make_way() {
    let inside = Inside::start().await;
    let short = inside.session.spawn(Exec::argv(["true"])).await.expect("a command");
    wait(&inside, short).await;
    for _ in 0..64 {
        inside.session.spawn(Exec::argv(["sleep", "1000"])).await.expect("a command");
    }
    let full = inside.session.spawn(Exec::argv(["true"])).await.expect_err("too many");
    let message = "64 commands run in the background".to_owned();
    assert_eq!(full, Error::Refused(Failure { cause: Cause::Busy, message }));
    assert_eq!(inside.session.processes().await.expect("a list").len(), 64);
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_heard_and_costs_nothing() {
    let inside = Inside::start().await;
    // It ends, and what it has begun writes later, and ends after that.
    let line = "(sleep 0.3; echo late; sleep 0.3) & echo early";
    let handle = inside.session.spawn(Exec::command(line)).await.expect("a command");
    let exit = wait(&inside, handle).await;
    assert_eq!((exit.outcome, exit.stdout.bytes), (Outcome::Code(0), 6));
    // Of this one nobody takes the errors, and what it has begun writes output.
    let much = "(sleep 0.3; echo late; sleep 1000) & head -c 1000000 /dev/zero >&2";
    let _stuck = inside.session.exec(Exec::command(much)).await.expect("a command");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", inside.hand.id())).expect("a hand");
        let fields: Vec<u64> =
            stat.split(' ').skip(13).take(2).map(|it| it.parse().expect("ticks")).collect();
        fields.iter().sum::<u64>()
    };
    let before = used();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // A tick is a hundredth of a second.
    assert!(used() - before < 50, "it is at work where there is none");
    let mut attached = inside.session.attach(handle, 0).await.expect("a command");
    let heard = attached.output().expect("output").all(1_000).await;
    assert_eq!(String::from_utf8_lossy(&heard), "early\nlate\n");
}
