//! A hand that runs, and the session with it.

use std::fs::{File, Permissions};
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sandbox::session::{Exec, Ran, Run, Session};
use tempfile::TempDir;
use tokio::net::UnixStream;

/// Longer than anything here takes on any machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A hand, with a home of its own.
pub struct Inside {
    pub session: Session,
    pub hand: Child,
    socket: StdStream,
    home: TempDir,
}

impl Inside {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), 0).await
    }

    /// With the way out at that port, if there is a socket `run/egress.sock` in the directory.
    pub async fn start_in(home: TempDir, proxy: u16) -> Self {
        Self::with(home, proxy, "{}").await
    }

    /// Whose commands are that user's, and the home too. Needs root.
    pub async fn start_as(user: u32) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("run")).expect("a directory");
        for directory in [home.path(), &home.path().join("run")] {
            std::os::unix::fs::chown(directory, Some(user), Some(user)).expect("tests run as root");
        }
        Self::with(home, 0, &format!(r#"{{"user":{user}}}"#)).await
    }

    async fn with(home: TempDir, proxy: u16, confinement: &str) -> Self {
        let (hand, socket) = spawn(home.path(), proxy, confinement);
        let near = socket.try_clone().expect("a descriptor");
        let session = tokio::time::timeout(LONG, Session::open(connect(near))).await;
        Self { session: session.expect("in time").expect("a session"), hand, socket, home }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub async fn bash(&self, line: &str) -> Ran {
        self.run(Exec::command(line)).await
    }

    pub async fn run(&self, exec: Exec) -> Ran {
        let run = Run { exec, stdin: Vec::new(), head: 8_000, tail: 8_000 };
        tokio::time::timeout(LONG, self.session.run(run))
            .await
            .expect("in time")
            .expect("a command that runs")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It ends what it has begun when its connection closes; killed, it could not.
        let _ = self.socket.shutdown(Shutdown::Both);
        let _ = self.hand.wait();
    }
}

/// Starts a hand, with the near side of its connection.
pub fn spawn(home: &Path, proxy: u16, confinement: &str) -> (Child, StdStream) {
    let run = home.join("run");
    std::fs::create_dir_all(&run).expect("a directory");
    let (near, far) = StdStream::pair().expect("a pair of sockets");
    let hand = Command::new(hand())
        .args(["pid1", "--fd", "0", "--confinement", confinement, "--run"])
        .arg(&run)
        .args(["--proxy", &proxy.to_string()])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::from(OwnedFd::from(far)))
        .spawn()
        .expect("a hand that starts");
    (hand, near)
}

pub fn connect(socket: StdStream) -> UnixStream {
    socket.set_nonblocking(true).expect("a socket that does not block");
    UnixStream::from_std(socket).expect("a socket")
}

/// The hand as a file.
fn hand() -> PathBuf {
    static HAND: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = HAND.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hand");
        let mut file = File::create(&path).expect("a file");
        file.write_all(sandbox::hand_binary()).expect("room for the hand");
        file.set_permissions(Permissions::from_mode(0o755)).expect("a program");
        (directory, path)
    });
    path.clone()
}

/// Waits for a condition.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether there is such a process, which is more than its exit status.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
