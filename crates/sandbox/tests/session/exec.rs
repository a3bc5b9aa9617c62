//! Commands: streams, ends, time, and what they leave behind.

use std::collections::BTreeMap;
use std::time::Duration;

use hand::wire::{Cause, Failure};
use sandbox::session::{Error, Exec, Outcome, Process, Ran, Run, Stdin, Text, Watched};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::inside::{Inside, LONG, eventually, lives};

fn said(stdout: &str) -> Ran {
    let text = |text: &str| Text { head: text.to_owned(), ..Text::default() };
    Ran { outcome: Outcome::Code(0), stdout: text(stdout), stderr: text("") }
}

async fn all(process: &mut Process) -> Vec<u8> {
    let mut all = Vec::new();
    let mut stdout = process.stdout().expect("standard output");
    tokio::time::timeout(LONG, stdout.read_to_end(&mut all)).await.expect("in time").expect("bytes");
    all
}

#[tokio::test]
async fn a_command_says_what_it_wrote_and_how_it_ended() {
    let inside = Inside::start().await;
    let ran = inside.bash("echo out; echo err >&2; exit 3").await;
    let text = |text: &str| Text { head: text.to_owned(), ..Text::default() };
    assert_eq!(ran, Ran { outcome: Outcome::Code(3), stdout: text("out\n"), stderr: text("err\n") });
    assert_eq!(inside.bash("kill -TERM $$").await.outcome, Outcome::Signal(15));
}

#[tokio::test]
async fn a_command_sees_its_directory_and_the_variables_it_was_given_and_no_others() {
    let inside = Inside::start().await;
    let env = BTreeMap::from([("GIVEN".to_owned(), "a b=c".to_owned()), ("LANG".to_owned(), "C".to_owned())]);
    let exec = Exec { env, cwd: Some("/usr".to_owned()), ..Exec::argv(["env"]) };
    let mut seen: Vec<String> = inside.run(exec).await.stdout.head.lines().map(str::to_owned).collect();
    seen.sort();
    let home = format!("HOME={}", inside.home().display());
    assert_eq!(seen, ["GIVEN=a b=c", &home, "LANG=C", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    let exec = Exec { cwd: Some("/usr".to_owned()), ..Exec::argv(["pwd"]) };
    assert_eq!(inside.run(exec).await, said("/usr\n"));
    std::fs::create_dir(inside.home().join("sub")).expect("a directory");
    let exec = Exec { cwd: Some("sub".to_owned()), ..Exec::argv(["pwd"]) };
    assert_eq!(inside.run(exec).await, said(&format!("{}/sub\n", inside.home().display())));
}

#[tokio::test]
async fn a_command_has_three_descriptors_and_default_signals() {
    let inside = Inside::start().await;
    assert_eq!(inside.bash("cd /proc/self/fd; echo *").await, said("0 1 2 3\n"), "3 is the listed directory");
    assert_eq!(inside.bash("grep SigBlk /proc/self/status").await, said("SigBlk:\t0000000000000000\n"));
    assert_eq!(
        inside.bash("yes | head -1; echo ${PIPESTATUS[0]}").await,
        said("y\n141\n"),
        "SIGPIPE ends it"
    );
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let inside = Inside::start().await;
    std::fs::write(inside.home().join("plain"), "text").expect("a file");
    let refused = async |exec: Exec| match inside.session.exec(exec).await {
        Err(Error::Refused(Failure { cause, message })) => (cause, message),
        other => panic!("{other:?}"),
    };
    let at = |path: &str| Exec { cwd: Some(path.to_owned()), ..Exec::argv(["true"]) };
    let cases = [
        (Exec::argv(["no-such-program"]), Cause::NotFound, "the program cannot be run: No such file"),
        (Exec::argv(["./plain"]), Cause::Denied, "the program cannot be run: Permission denied"),
        (Exec::argv(Vec::<String>::new()), Cause::Invalid, "no program is named"),
        (Exec::argv(["a\0b"]), Cause::Invalid, "a zero byte"),
        (at("/nowhere"), Cause::NotFound, "there is no such working directory"),
        (
            Exec { timeout: Some(Duration::from_millis(999)), ..Exec::argv(["true"]) },
            Cause::Invalid,
            "one second",
        ),
        (
            Exec { timeout: Some(Duration::from_secs(3_601)), ..Exec::argv(["true"]) },
            Cause::Invalid,
            "sixty minutes",
        ),
    ];
    for (exec, cause, words) in cases {
        let shown = format!("{exec:?}");
        let (seen, message) = refused(exec).await;
        assert!(seen == cause && message.contains(words), "{shown}: {seen:?} {message}");
    }
    assert_eq!(inside.bash("echo still").await, said("still\n"));
}

#[tokio::test]
async fn input_goes_in_under_credit_and_its_end_is_seen() {
    let inside = Inside::start().await;
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let exec = Exec { stdin: Stdin::Stream, ..Exec::argv(["cat"]) };
    let mut process = inside.session.exec(exec).await.expect("cat");
    let mut stdin = process.stdin_writer();
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&sent).await.expect("a reader");
        stdin.shutdown().await.expect("an end");
    });
    assert!(all(&mut process).await == bytes, "what cat wrote is not what it read");
    writing.await.expect("a writer");
    let exit = process.wait().await.expect("an end");
    assert_eq!((exit.outcome, exit.stdout.bytes), (Outcome::Code(0), bytes.len() as u64));
}

#[tokio::test]
async fn a_command_that_reads_nothing_does_not_stop_its_writer() {
    let inside = Inside::start().await;
    let run = Run { exec: Exec::argv(["true"]), stdin: vec![0; 4 << 20], head: 10, tail: 0 };
    let ran = tokio::time::timeout(LONG, inside.session.run(run)).await.expect("in time").expect("a command");
    assert_eq!(ran, said(""));
}

#[tokio::test]
async fn who_does_not_read_stops_the_writer_and_nobody_else() {
    let inside = Inside::start().await;
    let mut process = inside.session.exec(Exec::command("yes | head -c 50000000")).await.expect("a command");
    assert_eq!(inside.bash("echo meanwhile").await, said("meanwhile\n"));
    assert_eq!(all(&mut process).await.len(), 50_000_000);
    assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(0));
}

#[tokio::test]
async fn output_beyond_the_cap_keeps_both_ends_and_the_whole_in_a_file() {
    let inside = Inside::start().await;
    let run =
        Run { exec: Exec::command("seq 1 1000000; echo € >&2"), stdin: Vec::new(), head: 10, tail: 15 };
    let ran = tokio::time::timeout(LONG, inside.session.run(run)).await.expect("in time").expect("a command");
    let Text { head, omitted, tail, file, file_bytes } = ran.stdout;
    let all = inside.bash("seq 1 1000000 | wc -c").await.stdout.head.trim().parse::<u64>().expect("a number");
    assert_eq!((head.as_str(), tail.as_str()), ("1\n2\n3\n4\n5\n", "999999\n1000000\n"));
    assert_eq!((omitted, file_bytes), (all - 25, all));
    let file = file.expect("a file");
    assert_eq!(inside.bash(&format!("seq 1 1000000 | cmp - {file} && rm {file}")).await, said(""));
    assert_eq!(ran.stderr, Text { head: "€\n".to_owned(), ..Text::default() });
}

#[tokio::test]
async fn a_command_that_runs_out_of_time_takes_all_it_began_along() {
    let inside = Inside::start().await;
    // One that has left its session, one that was orphaned by two forks and does not mind being asked, one in a pipe.
    let line = "
        setsid bash -c 'echo $$ > a; exec sleep 1000' &
        bash -c '(trap \"\" TERM HUP INT; nohup setsid bash -c \"echo \\$\\$ > b; sleep 1000; sleep 1000\" &) & wait'
        sleep 1000 | cat & echo $! > c
        bash -c 'echo $$ > outsider' # ends
        until [ -s a -a -s b -a -s c ]; do sleep 0.01; done
        echo ready; sleep 1000";
    let outsider = inside.session.exec(Exec::argv(["sleep", "1000"])).await.expect("another command");
    let exec = Exec { timeout: Some(Duration::from_secs(10)), ..Exec::command(line) };
    let mut process = inside.session.exec(exec).await.expect("a command");
    let exit = tokio::time::timeout(LONG, process.wait()).await.expect("in time").expect("an end");
    assert_eq!(exit.outcome, Outcome::TimedOut);
    for name in ["a", "b", "c"] {
        let pid = std::fs::read_to_string(inside.home().join(name))
            .expect("it began")
            .trim()
            .parse()
            .expect("a number");
        eventually(&format!("{name} is dead"), || !lives(pid)).await;
    }
    assert!(lives(outsider.pid()), "another command was killed");
}

#[tokio::test]
async fn a_command_that_is_given_up_is_killed_with_all_it_began() {
    let inside = Inside::start().await;
    let process =
        inside.session.exec(Exec::command("setsid sleep 1000 & echo $! > a; wait")).await.expect("a command");
    let pid = process.pid();
    eventually("it began", || {
        std::fs::read_to_string(inside.home().join("a")).is_ok_and(|a| a.ends_with('\n'))
    })
    .await;
    let below =
        std::fs::read_to_string(inside.home().join("a")).expect("it began").trim().parse().expect("a number");
    drop(process);
    eventually("both are dead", || !lives(pid) && !lives(below)).await;
}

#[tokio::test]
async fn what_a_command_leaves_running_lives_on_and_may_go_on_writing() {
    let inside = Inside::start().await;
    let line = "(while :; do echo noise || touch broken; sleep 0.01; done) & echo $! > a; echo done";
    let ran = tokio::time::timeout(LONG, inside.bash(line)).await.expect("it does not wait");
    assert_eq!((ran.outcome, ran.stdout.head.contains("done\n")), (Outcome::Code(0), true));
    let pid =
        std::fs::read_to_string(inside.home().join("a")).expect("it began").trim().parse().expect("a number");
    for _ in 0..20 {
        inside.bash("sleep 0.01").await;
    }
    assert!(lives(pid), "it was killed");
    assert!(!inside.home().join("broken").exists(), "its output was closed");
    inside.bash(&format!("kill {pid}")).await;
    eventually("it is dead", || !lives(pid)).await;
}

#[tokio::test]
async fn signals_reach_the_whole_group_of_a_command() {
    let inside = Inside::start().await;
    let line = "trap 'echo caught; exit 7' INT; echo ready; sleep 1000 & wait";
    let mut process = inside.session.exec(Exec::command(line)).await.expect("a command");
    let mut stdout = process.stdout().expect("standard output");
    assert_eq!(stdout.chunk().await.as_deref(), Some(&b"ready\n"[..]));
    process.signal(2).expect("a command that runs");
    assert_eq!(stdout.all(100).await, b"caught\n");
    assert_eq!(process.wait().await.expect("an end").outcome, Outcome::Code(7));
}

#[tokio::test]
async fn nothing_is_left_of_commands_that_ended_and_orphans_are_reaped() {
    let inside = Inside::start().await;
    let line = "for i in $(seq 50); do (setsid bash -c 'sleep 0.05' &) ; done; setsid -f true; exit 0";
    inside.bash(line).await;
    let hand = inside.hand.id();
    let children = || {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        all.filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
            parent == Some(hand.to_string().as_str())
        })
        .count()
    };
    eventually("no child is left, dead or alive", || children() == 0).await;
    let fds = std::fs::read_dir(format!("/proc/{hand}/fd")).expect("its descriptors").count();
    assert!(fds < 12, "{fds} descriptors are left");
}

#[tokio::test]
async fn many_commands_run_at_once() {
    let inside = Inside::start().await;
    let runs = (0..100).map(|i| {
        let inside = &inside;
        async move { assert_eq!(inside.bash(&format!("echo {i}")).await, said(&format!("{i}\n"))) }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn files_of_output_make_way_for_later_ones() {
    let inside = Inside::start().await;
    let mut files = Vec::new();
    for _ in 0..40 {
        files.push(inside.bash("seq 1 10000").await.stdout.file.expect("a file"));
    }
    // Of commands that have ended; that the last one has may not be known yet.
    let there: Vec<bool> = files.iter().map(|file| std::path::Path::new(file).exists()).collect();
    assert_eq!(there[..7], [false; 7]);
    assert_eq!(there[8..], [true; 32]);
}

#[tokio::test]
async fn whoever_watches_a_command_is_told_the_last_of_what_it_writes() {
    let inside = Inside::start().await;
    let go = inside.home().join("go");
    let line = "seq 1 100000; echo last; echo wrong >&2; until [ -e go ]; do sleep 0.01; done; echo over";
    let run = Run { exec: Exec::command(line), stdin: Vec::new(), head: 100, tail: 100 };
    let mut longest = 0;
    let mut say = |stdout: &str, stderr: &str| {
        longest = longest.max(stdout.len()).max(stderr.len());
        if stdout.ends_with("100000\nlast\n") && stderr == "wrong\n" {
            std::fs::write(&go, "").expect("a file");
        }
    };
    let watched = Watched { every: Duration::from_millis(20), say: &mut say };
    let ran = tokio::time::timeout(LONG, inside.session.run_watched(run, Some(watched)));
    let ran = ran.await.expect("in time").expect("it runs");
    assert_eq!(ran.outcome, Outcome::Code(0));
    assert!(ran.stdout.tail.ends_with("last\nover\n"), "{ran:?}");
    assert!(longest <= hand::wire::MAX_LAST, "{longest}");
}
