//! A jail for a test, and what its first process answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::MemfdFlags;

use hand::jail::{Disks, Groups, JailSpec, Kernel, Protection, Report, Told, Tree, Users};
use hand::wire::{self, MAX_HEAD_AND_TAIL};

/// The host's number for user 0 of the jails of these tests.
pub const FIRST: u32 = 1_900_000_000;

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

/// A jail that runs, with its directory on the host.
pub struct Cell {
    stream: UnixStream,
    decoder: wire::Decoder,
    last: u32,
    pub directory: tempfile::TempDir,
    pub pid: u32,
    _sockets: [UnixListener; 2],
}

/// A jail with everything on.
pub fn cell() -> Cell {
    without(&[])
}

/// A jail that lacks `protections`.
pub fn without(protections: &[Protection]) -> Cell {
    cell_with(|spec| spec.without = protections.to_vec())
}

/// A jail whose description `change` has changed.
pub fn cell_with(change: impl FnOnce(&mut JailSpec)) -> Cell {
    try_cell(change).unwrap_or_else(|report| panic!("no jail: {report:?}"))
}

/// The same, or why there is none.
pub fn try_cell(change: impl FnOnce(&mut JailSpec)) -> Result<Cell, Report> {
    make(None, change)
}

/// A jail made by the user `nobody`, who has no privileges.
pub fn cell_of_nobody() -> Cell {
    make(Some(65534), |spec| spec.users = Users::Single)
        .unwrap_or_else(|report| panic!("no jail: {report:?}"))
}

fn make(maker: Option<u32>, change: impl FnOnce(&mut JailSpec)) -> Result<Cell, Report> {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["workspace", "scratch", "runners", "runner"] {
        fs::create_dir(at(name)).unwrap();
    }
    chown(at("workspace"), Some(1000), Some(1000)).unwrap();
    let sockets = ["egress", "bridge"].map(|name| {
        let listener = UnixListener::bind(at(name)).unwrap();
        chown(at(name), Some(FIRST + 1000), Some(FIRST + 1000)).unwrap();
        listener
    });
    let mut spec = JailSpec {
        workspace: Tree::Directory { path: at("workspace") },
        layers: Vec::new(),
        tmp_bytes: 16 << 20,
        memory_bytes: 512 << 20,
        pids: 256,
        egress: at("egress"),
        bridge: at("bridge"),
        hand: env!("CARGO_BIN_EXE_hand").into(),
        runners: at("runners"),
        runner: at("runner"),
        base: None,
        scratch: at("scratch"),
        groups: Groups::default(),
        users: Users::Range { first: FIRST },
        disks: Told::AtOnce,
        kernel: Kernel::default(),
        without: Vec::new(),
    };
    change(&mut spec);
    let (stream, inside) = UnixStream::pair().unwrap();
    let program = program();
    if let Some(nobody) = maker {
        copy_program(env!("CARGO_BIN_EXE_hand"), at("hand"));
        spec.hand = at("hand");
        for name in ["", "workspace", "scratch", "egress", "bridge"] {
            chown(at(name), Some(nobody), Some(nobody)).unwrap();
        }
    }
    let mut maker = start(
        maker,
        Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())).arg("jail"),
        inside.into(),
    );
    let disks = Disks { workspace: spec.workspace.clone(), layers: spec.layers.clone() };
    if spec.disks == Told::Later {
        spec.workspace = Tree::Directory { path: directory.path().to_owned() };
        spec.layers.clear();
    }
    let mut words = maker.stdin.take();
    let mut tell =
        |line: Vec<u8>| words.as_mut().unwrap().write_all(&[line, b"\n".to_vec()].concat()).unwrap();
    tell(serde_json::to_vec(&spec).unwrap());
    let mut reports = Vec::new();
    for line in BufReader::new(maker.stdout.take().unwrap()).lines() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            Report::Waits => tell(serde_json::to_vec(&disks).unwrap()),
            other => reports.push(other),
        }
    }
    maker.wait().unwrap();
    match reports.as_slice() {
        [Report::Made { pid }] => Ok(Cell {
            stream,
            decoder: wire::Decoder::default(),
            last: 0,
            directory,
            pid: *pid,
            _sockets: sockets,
        }),
        _ => Err(reports.into_iter().last().unwrap()),
    }
}

/// The program in memory, as a jail wants it: no rule for files is about it.
fn program() -> OwnedFd {
    let memory = rustix::fs::memfd_create("hand", MemfdFlags::CLOEXEC).unwrap();
    let mut file = fs::File::from(memory);
    file.write_all(&fs::read(env!("CARGO_BIN_EXE_hand")).unwrap()).unwrap();
    file.into()
}

fn start(user: Option<u32>, command: &mut Command, stream: OwnedFd) -> Child {
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stream).spawn().unwrap()
}

impl Cell {
    /// Runs a command.
    pub fn run(&mut self, argv: &[&str]) -> Output {
        let argv = argv.iter().map(|&argument| argument.into()).collect();
        self.exec(wire::Program::Argv(argv), wire::Terminal::None)
    }

    /// Does work with files.
    pub fn files(&mut self, request: wire::FileRequest) -> Output {
        self.exec(wire::Program::Files(request), wire::Terminal::None)
    }

    /// Runs a program, with a terminal or without.
    pub fn exec(&mut self, program: wire::Program, terminal: wire::Terminal) -> Output {
        let output = wire::Output::Capped { head: MAX_HEAD_AND_TAIL, tail: 0 };
        let exec = wire::Exec {
            program,
            cwd: None,
            env: BTreeMap::new(),
            terminal,
            stdin: wire::Stdin::Empty,
            timeout_ms: None,
            mode: wire::Mode::Foreground(output),
        };
        self.request(&wire::Request::Exec(exec))
    }

    /// Asks for anything; what is no command's end is code -1, with the answer as standard output.
    pub fn request(&mut self, request: &wire::Request) -> Output {
        self.last += 1;
        let mut frame = Vec::new();
        let request = serde_json::to_vec(request).unwrap();
        wire::encode(&mut frame, self.last, wire::Kind::Open, &request);
        self.stream.write_all(&frame).unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = loop {
            let frame = self.next_frame();
            match frame.kind {
                wire::Kind::Data => stdout.extend(frame.payload),
                wire::Kind::ErrData => stderr.extend(frame.payload),
                wire::Kind::Fail => {
                    stderr.extend(frame.payload);
                    break -2;
                }
                wire::Kind::Reply => match serde_json::from_slice(&frame.payload).unwrap() {
                    wire::Reply::Exited(wire::Exit { outcome: wire::Outcome::Code(code), .. }) => {
                        break code.into();
                    }
                    _ => {
                        stdout.extend(frame.payload);
                        break -1;
                    }
                },
                _ => {}
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code, stdout: text(stdout), stderr: text(stderr) }
    }

    fn next_frame(&mut self) -> wire::Frame {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let mut buffer = [0; 65_536];
            let count = self.stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the jail has ended");
            self.decoder.feed(&buffer[..count]);
        }
    }

    /// What a shell says, standard error with it.
    pub fn shell(&mut self, script: &str) -> String {
        let output = self.run(&["/bin/bash", "-c", &format!("exec 2>&1; {script}")]);
        output.stdout.trim_end().to_owned() + &output.stderr
    }
}

/// Waits until a process that this one has inherited is gone.
pub fn reap(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap());
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
}

/// Copies a program by another process: one that another test starts in this moment would inherit what this one writes
/// with, and a program that somebody writes is not run.
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg("-p").arg(from.as_ref()).arg(to.as_ref()).status().unwrap();
    assert!(copied.success(), "{}", to.as_ref().display());
}
