//! What the benches share: a client that costs little, processor times, and a table of measures and targets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Launch, Steading, require};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The results, printed as they come.
#[derive(Default)]
pub struct Table {
    /// How many targets are missed.
    pub missed: u32,
}

impl Table {
    /// A number that must not be above its target.
    pub fn most(&mut self, what: &str, measured: f64, target: f64, unit: &str) {
        self.row(what, measured, &format!("<= {target}"), unit, measured <= target);
    }

    /// A number that explains another, and has no target.
    pub fn note(&self, what: &str, measured: f64, unit: &str) {
        println!("{what:<58} {measured:>10.2} {unit:<8}");
    }

    /// A number and whether its target is met.
    pub fn row(&mut self, what: &str, measured: f64, target: &str, unit: &str, met: bool) {
        self.missed += u32::from(!met);
        let verdict = if met { "pass" } else { "FAIL" };
        println!("{what:<58} {measured:>10.2} {unit:<8} {target:>8}  {verdict}");
    }
}

/// A platform whose limits let everything through.
pub fn unlimited() -> Steading {
    let mut launch: Launch = Steading::launch();
    for limit in ["KEY", "TOKEN", "TENANT"] {
        launch = launch
            .env(format!("STEADING_LIMITS_{limit}_PER_SECOND"), "100000000")
            .env(format!("STEADING_LIMITS_{limit}_BURST"), "100000000");
    }
    require(launch.start())
}

/// The app of this name below `examples` with its site inline, as `steading apply` sends it.
pub fn example(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    let text = std::fs::read_to_string(directory.join("steading.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    let site = manifest["site"].as_object_mut().unwrap();
    let directory = directory.join(site.remove("dir").unwrap().as_str().unwrap());
    let files: BTreeMap<String, String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    site.insert("files".to_owned(), json!(files));
    manifest
}

/// A keep-alive connection, which reads no more of an answer than it must.
pub struct Connection {
    socket: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, answer: Vec::with_capacity(16 * 1024) }
    }

    /// Sends a request and reads its whole answer, up to the length it announces or to its last chunk: the status
    /// line with the headers, and the body as it came.
    pub async fn call(&mut self, request: &[u8]) -> (&str, &str) {
        self.socket.write_all(request).await.unwrap();
        self.answer.clear();
        loop {
            let read = self.socket.read_buf(&mut self.answer).await.unwrap();
            assert_ne!(read, 0, "the server closed the connection");
            let Some(head) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let (head, body) = (&self.answer[..head], &self.answer[head + 4..]);
            let whole = match announced(std::str::from_utf8(head).unwrap()) {
                Some(length) => body.len() >= length,
                None => body.ends_with(b"0\r\n\r\n"),
            };
            if whole {
                break;
            }
        }
        std::str::from_utf8(&self.answer).unwrap().split_once("\r\n\r\n").unwrap()
    }
}

/// The length that an answer announces.
fn announced(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

/// User and system time of a process in seconds, all its threads (proc_pid_stat(5), fields 14 and 15).
pub fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / 100.0
}

/// Milliseconds that `call` takes.
pub fn timed(call: impl FnOnce()) -> f64 {
    let began = Instant::now();
    call();
    milliseconds(began.elapsed())
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle one; sorts them.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
