//! What a command costs through a session, beside fork and exec by the standard library in the same run. The hand runs
//! unjailed. `cargo xtask bench sandbox`.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and says so")]

use std::fs::{File, Permissions};
use std::future::Future;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::session::{Exec, Run, Session};
use tokio::net::UnixStream;

const ROUNDS: usize = 500;

/// Durations of one thing, the shortest first.
struct Sample(Vec<Duration>);

impl Sample {
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    fn say(&self, name: &str, base: &Sample) {
        let ratio = |percent| self.at(percent).as_secs_f64() / base.at(percent).as_secs_f64();
        let ms = |percent| self.at(percent).as_secs_f64() * 1e3;
        println!(
            "{name:<28} p50 {:>7.3} ms  ×{:<6.2} p99 {:>7.3} ms  ×{:.2}",
            ms(50),
            ratio(50),
            ms(99),
            ratio(99)
        );
    }
}

async fn measure<F: Future>(mut step: impl FnMut() -> F) -> Duration {
    let begun = Instant::now();
    step().await;
    begun.elapsed()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let home = tempfile::tempdir().expect("a directory");
    let program = home.path().join("hand");
    let mut file = File::create(&program).expect("a file");
    file.write_all(sandbox::hand_binary()).expect("room");
    file.set_permissions(Permissions::from_mode(0o755)).expect("a program");
    drop(file);
    let (near, far) = StdStream::pair().expect("sockets");
    let mut hand = Command::new(&program)
        .args(["pid1", "--fd", "0", "--confinement", "{}", "--run"])
        .arg(home.path())
        .args(["--proxy", "0"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path())
        .stdin(Stdio::from(OwnedFd::from(far)))
        .spawn()
        .expect("a hand");
    near.set_nonblocking(true).expect("a socket");
    let session = Session::open(UnixStream::from_std(near).expect("a socket")).await.expect("a session");
    std::fs::write(home.path().join("file"), vec![7; 4_096]).expect("a file");

    // Turn by turn, so that whatever else the machine does falls on all of them alike.
    let mut samples: [Vec<Duration>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let fork = async || {
            Command::new("/bin/true").status().expect("a command");
        };
        let run = |exec: Exec| Run { exec, stdin: Vec::new(), head: 4_096, tail: 4_096 };
        let exec = async |exec: Exec| drop(session.run(run(exec)).await.expect("a command"));
        samples[0].push(measure(fork).await);
        samples[1].push(measure(async || drop(session.processes().await.expect("a list"))).await);
        samples[2].push(measure(async || exec(Exec::argv(["/bin/true"])).await).await);
        samples[3].push(measure(async || exec(Exec::command("true")).await).await);
        samples[4].push(
            measure(async || drop(session.files().read("file", 0, 4_096).await.expect("a file"))).await,
        );
    }
    let samples = samples.map(|mut sample| {
        sample.sort();
        Sample(sample)
    });
    let names =
        ["fork and exec of true", "a question", "exec of true", "exec of bash -c true", "read of 4 KiB"];
    for (name, sample) in names.iter().zip(&samples) {
        sample.say(name, &samples[0]);
    }
    drop(session);
    hand.wait().expect("its end");
}
