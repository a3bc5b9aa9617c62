//! A server that dies on purpose: at its n-th write, in the middle of it, or at any moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Answer, Client, Steading, Unavailable, require, temporary};

/// The shared page of `assault_crash.c`: three counters, then the place.
const COUNT: u64 = 16;
const PLACE: u64 = 24;
const PAGE: usize = 24 + 256;

/// When the server dies.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// Before its n-th write, counted from 1.
    Before(i64),
    /// When half of its n-th write is done.
    Amid(i64),
    /// When so much time has passed.
    After(Duration),
}

/// What came of a call during which the server died.
#[derive(Debug)]
pub struct Fate {
    /// What it answered, where it came to that.
    pub answer: Option<Answer>,
    /// What it was about to write, in short.
    pub place: String,
}

/// A server on a data directory that outlives it.
pub struct Doomed {
    steading: Steading,
    directory: TempDir,
    page: File,
}

impl Doomed {
    pub fn start() -> Self {
        let directory = temporary().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/assault_crash.c");
        let built = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(directory.path().join("crash.so"))
            .arg(source)
            .status()
            .expect("a C compiler, which the product's own build needs too");
        assert!(built.success());
        let page = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(directory.path().join("page"))
            .unwrap();
        page.write_all_at(&[0; PAGE], 0).unwrap();
        let steading = require(launch(&directory));
        Self { steading, directory, page }
    }

    pub fn data(&self) -> PathBuf {
        data(&self.directory)
    }

    /// The operator's client in the default environment.
    pub fn client(&self) -> Client {
        self.steading.client()
    }

    pub fn port(&self) -> &str {
        self.steading.authority().rsplit(':').next().unwrap()
    }

    /// How many writes `call` takes, and its answer.
    pub fn count(&self, call: impl FnOnce(&Client) -> anyhow::Result<Answer>) -> (i64, Value) {
        self.arm(i64::MAX, false);
        let answer = call(&self.client()).unwrap();
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        let count = self.read(COUNT);
        self.arm(0, false);
        (count, answer.body)
    }

    /// Makes `call` while the server dies, and starts it again on what it left behind.
    pub fn die(
        &mut self,
        moment: Moment,
        call: impl FnOnce(&Client) -> anyhow::Result<Answer> + Send,
    ) -> Fate {
        let client = self.client();
        let answer = match moment {
            Moment::Before(n) => self.call_armed(n, false, || call(&client)),
            Moment::Amid(n) => self.call_armed(n, true, || call(&client)),
            Moment::After(delay) => std::thread::scope(|scope| {
                let answer = scope.spawn(|| call(&client));
                // Any moment will do, and so there is nothing to wait for but time.
                std::thread::sleep(delay);
                self.steading.kill();
                answer.join().unwrap()
            }),
        };
        self.steading.kill();
        let place = self.place();
        self.arm(0, false);
        self.steading = require(launch(&self.directory));
        Fate { answer: answer.ok(), place }
    }

    /// Dies at the n-th write of its next start, then starts. `false` where the start takes fewer writes.
    pub fn die_starting(&mut self, n: i64) -> bool {
        self.steading.kill();
        self.arm(n, false);
        let started = launch(&self.directory);
        let died = started.is_err();
        drop(started);
        self.arm(0, false);
        self.steading = require(launch(&self.directory));
        died
    }

    fn call_armed(
        &self,
        at: i64,
        torn: bool,
        call: impl FnOnce() -> anyhow::Result<Answer>,
    ) -> anyhow::Result<Answer> {
        self.arm(at, torn);
        call()
    }

    fn arm(&self, at: i64, torn: bool) {
        let mut page = [0; PAGE];
        page[8..16].copy_from_slice(&i64::from(torn).to_ne_bytes());
        self.page.write_all_at(&page, 0).unwrap();
        self.page.write_all_at(&at.to_ne_bytes(), 0).unwrap();
    }

    fn read(&self, at: u64) -> i64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, at).unwrap();
        i64::from_ne_bytes(bytes)
    }

    /// The place without what differs from run to run.
    fn place(&self) -> String {
        let mut bytes = [0; PAGE - PLACE as usize];
        self.page.read_exact_at(&mut bytes, PLACE).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\0');
        let Some((call, path)) = text.split_once(' ') else { return "between writes".to_owned() };
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_hash = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        match name.split_once('#') {
            Some(_) => format!("{call} staged blob"),
            None if is_hash(name) => format!("{call} blob"),
            None if name.starts_with("socket:") => format!("{call} a socket"),
            None if name.starts_with("env_") => format!("{call} an environment's directory"),
            None if name.starts_with("main.db.new-") => format!("{call} environment's half-written main.db"),
            None if path.contains("/logs/") => format!("{call} log"),
            None if path.contains("/envs/") => format!("{call} environment's {name}"),
            None => format!("{call} {name}"),
        }
    }

    /// Every file of the data directory whose name no part of the product answers for.
    pub fn strangers(&self) -> Vec<String> {
        let mut strangers = Vec::new();
        let mut directories = vec![self.data()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                    continue;
                }
                let path = entry.path();
                let path = path.strip_prefix(self.data()).unwrap().to_str().unwrap();
                if !is_known(path) {
                    strangers.push(path.to_owned());
                }
            }
        }
        strangers
    }
}

fn is_known(path: &str) -> bool {
    let database = |name: &str| matches!(name.split_once(".db"), Some((_, "" | "-wal" | "-shm")));
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["operator.key" | "lock" | "audit-checkpoints.ndjson"] | ["keys", "master"] => true,
        ["sandboxes", "place"] => true,
        ["control.db" | "control.db-wal" | "control.db-shm"] => true,
        ["envs", env, rest @ ..] if env.starts_with("env_") => match rest {
            [file] => database(file),
            ["blobs", hash] => hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
            ["logs", ..] => true,
            ["snapshots", snapshot, rest @ ..] if snapshot.starts_with("snap_") => match rest {
                ["main.db" | "snapshot.json"] => true,
                ["blobs", hash] => hash.len() == 64,
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

fn data(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

fn launch(directory: &TempDir) -> Result<Steading, Unavailable> {
    Steading::launch()
        .data_dir(data(directory))
        .env("LD_PRELOAD", directory.path().join("crash.so"))
        .env("CRASH_PAGE", directory.path().join("page"))
        .start()
}

/// How often what was found where.
#[derive(Debug, Default)]
pub struct Histogram(BTreeMap<(String, &'static str), u32>);

impl Histogram {
    pub fn add(&mut self, place: String, found: &'static str) {
        *self.0.entry((place, found)).or_default() += 1;
    }

    pub fn deaths(&self) -> u32 {
        self.0.values().sum()
    }

    #[expect(clippy::print_stdout, reason = "the soak's result is this table")]
    pub fn print(&self, title: &str) {
        println!("{title}: {} deaths", self.deaths());
        for ((place, found), times) in &self.0 {
            println!("{times:>6}  {place:<44} {found}");
        }
    }
}
