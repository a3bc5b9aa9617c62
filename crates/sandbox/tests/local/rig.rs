//! A process that makes sandboxes, for a test, and what it leaves on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hand::jail::Tree;
use kernel::SandboxId;
use sandbox::local::{Local, Settings, Spares};
use sandbox::runner::{Isolation, Limiting, Limits, Runner, Spec, Started};
use sandbox::session::{self, Exec, Outcome, Run, Session};
use testkit::{Engine, Unavailable, require};
use tokio::net::UnixListener;

/// Sandboxes below a directory of their own.
pub struct Rig {
    pub local: Local,
    /// How its sandboxes are kept from their host.
    isolation: Isolation,
    pub directory: tempfile::TempDir,
    /// Of every sandbox that was ever asked for.
    ids: Mutex<Vec<SandboxId>>,
}

/// A rig whose process is started by `start`, given the program and its arguments.
pub fn rig_started(start: impl Fn(&Path, [PathBuf; 1]) -> Command + Send + Sync + 'static) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    rig_in(directory, start)
}

/// The same below a directory that is there already.
pub fn rig_in(
    directory: tempfile::TempDir,
    start: impl Fn(&Path, [PathBuf; 1]) -> Command + Send + Sync + 'static,
) -> Rig {
    rig_with(directory, (Vec::new(), None), start)
}

/// A rig with sandboxes that are made before they are asked for.
pub fn rig_with_spares(count: usize) -> Rig {
    let spares = vec![Spares { count, limits: Limits::default() }];
    rig_with(tempfile::tempdir().unwrap(), (spares, None), plainly)
}

/// A rig that looks for gVisor there.
pub fn rig_of_gvisor_at(runsc: &str) -> Rig {
    let rig = rig_with(tempfile::tempdir().unwrap(), (Vec::new(), Some(runsc.into())), plainly);
    Rig { isolation: Isolation::Gvisor, ..rig }
}

fn rig_with(
    directory: tempfile::TempDir,
    (spares, runsc): (Vec<Spares>, Option<PathBuf>),
    start: impl Fn(&Path, [PathBuf; 1]) -> Command + Send + Sync + 'static,
) -> Rig {
    let workspaces = directory.path().join("workspaces");
    fs::create_dir_all(&workspaces).unwrap();
    let settings =
        Settings { run_dir: directory.path().join("run"), trees: vec![workspaces.clone()], spares, runsc };
    let arguments = [workspaces];
    let program = Path::new(env!("CARGO_BIN_EXE_sandbox-host"));
    Rig {
        local: Local::new(move || start(program, arguments.clone()), settings),
        directory,
        isolation: Isolation::Namespaces,
        ids: Mutex::default(),
    }
}

/// A rig with every privilege of this test.
pub fn rig() -> Rig {
    rig_started(plainly)
}

/// A rig whose sandboxes gVisor keeps from their host. Where it is not installed the test fails.
pub fn rig_of_gvisor() -> Rig {
    require(Engine::Gvisor.is_present().then_some(()).ok_or(Unavailable::Missing(Engine::Gvisor)));
    Rig { isolation: Isolation::Gvisor, ..rig() }
}

/// What sandboxes of one runner can do, and those of another cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// A command that takes more memory than there is ends alone.
    MemoryByCommand,
    /// The processes that the host counts are those inside.
    ProcessesOfTheHost,
}

/// Starts the program as it is.
pub fn plainly(program: &Path, arguments: [PathBuf; 1]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A sandbox that runs.
pub struct Cell {
    pub id: SandboxId,
    pub session: Session,
    pub limiting: Limiting,
    pub egress: UnixListener,
    _bridge: UnixListener,
}

impl Rig {
    /// Whether its sandboxes can do that.
    pub fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::MemoryByCommand | Ability::ProcessesOfTheHost => self.isolation == Isolation::Namespaces,
        }
    }

    /// Makes a sandbox with these limits.
    pub async fn cell_with(&self, limits: Limits) -> Cell {
        self.try_cell(limits).await.unwrap()
    }

    /// Makes a sandbox.
    pub async fn cell(&self) -> Cell {
        self.cell_with(Limits::default()).await
    }

    /// Makes a sandbox, or says why not.
    pub async fn try_cell(&self, limits: Limits) -> kernel::Result<Cell> {
        let id = SandboxId::new();
        self.ids.lock().unwrap().push(id);
        let path = self.directory.path().join("workspaces").join(id.to_string());
        fs::create_dir(&path).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(path.parent().unwrap()).unwrap());
        let owner = if owner == 0 { 1000 } else { owner };
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        let spec = Spec { id, workspace: Tree::Directory { path }, layers: Vec::new(), limits };
        self.create(&spec).await
    }

    /// Makes that sandbox.
    pub async fn create(&self, spec: &Spec) -> kernel::Result<Cell> {
        let gvisor = self.local.gvisor();
        let runner: &dyn Runner = if self.isolation == Isolation::Gvisor { &gvisor } else { &self.local };
        assert_eq!(runner.isolation(), self.isolation);
        let Started { isolation, limiting, hand, egress, bridge } = runner.create(spec).await?;
        assert_eq!(isolation, self.isolation);
        let session = Session::open(hand).await?;
        Ok(Cell { id: spec.id, session, limiting, egress, _bridge: bridge })
    }

    /// The id of every sandbox that was asked for, made or not.
    pub fn ids(&self) -> Vec<SandboxId> {
        self.ids.lock().unwrap().clone()
    }

    /// The process that makes this rig's sandboxes.
    pub fn host(&self) -> Option<u32> {
        let workspaces = self.directory.path().join("workspaces");
        processes().into_iter().find_map(|(pid, command)| {
            let own = command.split('\0').nth(1) == workspaces.to_str();
            own.then_some(pid)
        })
    }
}

/// What a command did: its exit code, -1 for a signal, and both of its outputs.
pub type Output = (i32, String, String);

impl Cell {
    /// Runs a command.
    pub async fn run(&self, argv: &[&str]) -> session::Result<Output> {
        let exec = Exec::argv(argv.iter().copied());
        let ran = self.session.run(Run { exec, stdin: Vec::new(), head: 16 << 10, tail: 0 }).await?;
        let code = match ran.outcome {
            Outcome::Code(code) => code,
            _ => -1,
        };
        Ok((code, ran.stdout.head, ran.stderr.head))
    }

    /// What a shell says.
    pub async fn shell(&self, script: &str) -> String {
        let (_, out, err) = self.run(&["/bin/bash", "-c", script]).await.unwrap();
        (out + &err).trim_end().to_owned()
    }
}

/// Every process with its command line.
fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?))).collect()
}

/// Everything on the machine that has the name of one of these sandboxes, or of the directory: control groups, mounts,
/// loops, processes, files of the run directory.
pub fn traces(directory: &Path, ids: &[SandboxId]) -> BTreeMap<&'static str, Vec<String>> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let mut traces = BTreeMap::new();
    let mut groups = Vec::new();
    find_groups(Path::new("/sys/fs/cgroup"), &ids, &mut groups);
    traces.insert("groups", groups);
    let place = directory.to_str().unwrap();
    let lines = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.contains(place)).map(str::to_owned).collect::<Vec<_>>()
    };
    traces.insert("mounts", lines("/proc/self/mountinfo"));
    let of_ids = |text: &str| ids.iter().any(|id| text.contains(id.as_str()));
    let jailed = processes().into_iter().filter(|(pid, _)| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        of_ids(&groups) || mounts.lines().any(|line| line.contains(" /workspace ") && of_ids(line))
    });
    traces.insert("processes", jailed.map(|(pid, command)| format!("{pid} {command}")).collect());
    let run = fs::read_dir(directory.join("run")).into_iter().flatten().flatten();
    let names = run.map(|entry| entry.file_name().to_string_lossy().into_owned());
    traces.insert("files", names.filter(|name| ids.contains(name)).collect());
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = loops.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    traces.insert("loops", backing.filter(|file| file.contains(place)).collect());
    traces
}

fn find_groups(directory: &Path, ids: &[String], found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if ids.iter().any(|id| entry.file_name() == id.as_str()) {
                found.push(entry.path().display().to_string());
            }
            find_groups(&entry.path(), ids, found);
        }
    }
}

/// Waits until nothing is left of the sandboxes.
pub async fn nothing_is_left(directory: &Path, ids: &[SandboxId]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let traces = traces(directory, ids);
        if traces.values().all(Vec::is_empty) {
            return;
        }
        assert!(Instant::now() < deadline, "{traces:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a condition.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
