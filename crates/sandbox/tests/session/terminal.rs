//! Commands with a terminal.

use sandbox::session::{Exec, Outcome, Process, Reader, Size, Terminal};
use tokio::io::AsyncWriteExt;

use crate::inside::{Inside, LONG, eventually, lives};

const SIZE: Size = Size { rows: 33, cols: 120 };

async fn start(inside: &Inside, line: &str) -> (Process, Reader) {
    let exec = Exec { terminal: Terminal::Of(SIZE), ..Exec::command(line) };
    let mut process = inside.session.exec(exec).await.expect("a command");
    let stdout = process.stdout().expect("output");
    (process, stdout)
}

/// Reads until the text has come.
async fn until(stdout: &mut Reader, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let chunk = tokio::time::timeout(LONG, stdout.chunk()).await.expect("in time");
        seen.extend_from_slice(&chunk.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&seen))));
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn a_command_controls_a_terminal_of_the_size_it_was_given() {
    let inside = Inside::start().await;
    let line = "test -t 0 -a -t 1 -a -t 2 && stty size && echo tty > /dev/tty; echo err >&2; exit 5";
    let (mut process, stdout) = start(&inside, line).await;
    assert_eq!(String::from_utf8_lossy(&stdout.all(1_000).await), "33 120\r\ntty\r\nerr\r\n");
    assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(5));
}

#[tokio::test]
async fn what_is_typed_reaches_who_is_in_the_foreground_and_so_do_its_signals() {
    let inside = Inside::start().await;
    let (mut process, mut stdout) =
        start(&inside, "cat; echo over; trap 'echo caught' INT; echo set; cat").await;
    process.stdin().write_all(b"hello\n").await.expect("a terminal");
    until(&mut stdout, "hello\r\nhello\r\n").await;
    process.stdin().write_all(b"\x04").await.expect("a terminal");
    until(&mut stdout, "set\r\n").await;
    // Only who answers is in the foreground by now.
    process.stdin().write_all(b"again\n").await.expect("a terminal");
    until(&mut stdout, "again\r\nagain\r\n").await;
    process.stdin().write_all(b"\x03").await.expect("a terminal");
    until(&mut stdout, "caught").await;
    let exit = tokio::time::timeout(LONG, process.wait()).await.expect("in time").expect("an end");
    assert_eq!(exit.outcome, Outcome::Code(130));
}

#[tokio::test]
async fn another_size_is_told_to_the_command() {
    let inside = Inside::start().await;
    let (mut process, mut stdout) =
        start(&inside, "trap 'stty size; exit' WINCH; echo ready; while :; do read -t 1; done").await;
    until(&mut stdout, "ready").await;
    process.resize(Size { rows: 7, cols: 11 }).expect("a command that runs");
    until(&mut stdout, "7 11").await;
    assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(0));
}

#[tokio::test]
async fn all_that_was_written_comes_before_the_end() {
    let inside = Inside::start().await;
    for _ in 0..20 {
        let (mut process, stdout) = start(&inside, "stty -onlcr; seq 1 20000").await;
        let seen = stdout.all(1 << 20).await;
        let expected: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
        assert!(seen == expected.as_bytes(), "{} of {} bytes", seen.len(), expected.len());
        assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(0));
    }
}

#[tokio::test]
async fn who_keeps_the_terminal_open_does_not_hold_up_the_end() {
    let inside = Inside::start().await;
    let (mut process, stdout) =
        start(&inside, "trap '' HUP; (trap '' HUP; exec setsid sleep 1000) & echo $! > a; echo x").await;
    let seen = tokio::time::timeout(LONG, stdout.all(1_000)).await.expect("in time");
    assert_eq!(String::from_utf8_lossy(&seen), "x\r\n");
    assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(0));
    let pid: i32 =
        std::fs::read_to_string(inside.home().join("a")).expect("it began").trim().parse().expect("a number");
    assert!(lives(pid));
    inside.bash(&format!("kill -9 {pid}")).await;
    eventually("it is dead", || !lives(pid)).await;
}
