//! Makes a jail and becomes the first process in it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::gate::{self, say};
use super::namespaces::{self, Disk};
use super::{
    At, Disks, Error, Gate, JailSpec, Kernel, Protection, Report, Step, Told, Users, base, gvisor, mounts,
    privileges, seccomp, sys, tree,
};

/// What every command finds in its environment. Requests leave by the proxy that the first process listens for.
pub const ENVIRONMENT: [&CStr; 14] = [
    c"PATH=/usr/local/bin:/usr/bin:/bin",
    c"HOME=/workspace",
    c"USER=agent",
    c"LANG=C.UTF-8",
    c"HTTP_PROXY=http://127.0.0.1:3128",
    c"HTTPS_PROXY=http://127.0.0.1:3128",
    c"http_proxy=http://127.0.0.1:3128",
    c"https_proxy=http://127.0.0.1:3128",
    c"npm_config_proxy=http://127.0.0.1:3128",
    c"npm_config_https_proxy=http://127.0.0.1:3128",
    c"PIP_PROXY=http://127.0.0.1:3128",
    c"NODE_USE_ENV_PROXY=1",
    c"NO_PROXY=localhost,127.0.0.1,::1",
    c"no_proxy=localhost,127.0.0.1,::1",
];

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// What whoever wants the jail says, a line each.
type Words = BufReader<fs::File>;

/// Reads a [`JailSpec`] from standard input, makes the jail, and runs `hand pid1` as its first process, a child of whoever
/// started this. Standard output takes the [`Report`]s; standard error is the connection that the first process serves.
/// Returns in the process that was started, and in the other only where it failed.
#[must_use]
pub fn make() -> i32 {
    // Standard streams are no names for what they are here, and a panic must not write into the connection.
    let moved = (|| {
        sys::close_others()?;
        let report = keep(io::stdout().as_fd())?;
        let stream = keep(io::stderr().as_fd())?;
        let words = BufReader::new(fs::File::from(keep(io::stdin().as_fd())?));
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok::<_, io::Error>((report, stream, words))
    })();
    let Ok((report, stream, mut words)) = moved else {
        return 1;
    };
    let mut report = fs::File::from(report);
    match read_spec(&mut words).and_then(|spec| begin(spec, stream, words, &mut report)) {
        Ok(()) => 0,
        Err(error) => {
            say(&mut report, &error.into());
            1
        }
    }
}

/// Puts together at `path` what jails have in common. Says on standard output where that fails.
#[must_use]
pub fn make_base(path: &Path) -> i32 {
    let made = base::make(path);
    made.map_or_else(
        |error| {
            let _ = writeln!(io::stdout(), "{}", serde_json::json!(Report::from(error)));
            1
        },
        |()| 0,
    )
}

fn read_spec(words: &mut Words) -> Result<JailSpec, Error> {
    let spec: JailSpec = read(words)?;
    if !cfg!(feature = "weaken") && !spec.without.is_empty() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).at(Step::Spec, "without");
    }
    Ok(spec)
}

fn read<T: serde::de::DeserializeOwned>(words: &mut Words) -> Result<T, Error> {
    let mut line = String::new();
    words.take(MAX_LINE).read_line(&mut line).at(Step::Spec, "standard input")?;
    serde_json::from_str(&line).at(Step::Spec, "JSON")
}

fn begin(spec: JailSpec, stream: OwnedFd, words: Words, report: &mut fs::File) -> Result<(), Error> {
    let program = open(Path::new("/proc/self/exe"), OFlags::PATH).at(Step::Exec, "/proc/self/exe")?;
    // Another kernel is one with what runs on it.
    let (own, others) = match spec.kernel {
        Kernel::Host => (&spec.groups.hand, spec.groups.commands.as_slice()),
        Kernel::Gvisor { .. } => (&spec.groups.commands, [].as_slice()),
    };
    for group in own {
        fs::write(group, "0").at(Step::Groups, group.display())?;
    }
    let open_group = |group: &PathBuf| open(group, OFlags::WRONLY).at(Step::Groups, group.display());
    let groups = others.iter().map(open_group).collect::<Result<Vec<_>, _>>()?;

    if spec.users == Users::Single {
        namespaces::become_own_root()?;
    }
    let mut users = namespaces::make_users(spec.users, Disk::Translated)?;
    let translated = spec.users != Users::Single && tree::translates(&spec, users.as_fd())?;
    if spec.users != Users::Single && !translated {
        users = namespaces::make_users(spec.users, Disk::Plain)?;
    }
    namespaces::leave_most(spec.has(Protection::Network))?;
    let (first, mut maker) = UnixStream::pair().at(Step::Spec, "socketpair")?;
    match make_first(spec.groups.first.as_deref())? {
        sys::Side::Parent(pid) => {
            drop((maker, stream, groups));
            say(report, &Report::Made { pid: pid.unsigned_abs() });
            namespaces::reap();
            bring(spec, words, translated.then(|| users.as_fd()), (pid, first), report)
        }
        sys::Side::Child => {
            drop((first, words));
            namespaces::leave_rest()?;
            mounts::build_root(&spec)?;
            mounts::enter_root(&spec)?;
            gate::open(&mut maker).at(Step::Spec, "maker")?;
            privileges::become_hand(&spec, users.as_fd())?;
            drop(users);
            if spec.kernel != Kernel::Host {
                gate::wait(&mut maker).at(Step::Workspace, "maker")?;
                return Err(gvisor::become_kernel(&stream, report)).at(Step::Exec, "runsc");
            }
            if spec.has(Protection::Seccomp) {
                seccomp::filter().at(Step::Seccomp, "filter")?;
            }
            Err(exec(&spec, &program, (&stream, &maker, report), &groups)).at(Step::Exec, "hand pid1")
        }
    }
}

/// Brings what lies on disks to the first process, when that has its root: it has the host's mounts no more then, and
/// this process has both.
fn bring(
    mut spec: JailSpec,
    mut words: Words,
    translation: tree::Translation<'_>,
    (pid, mut first): (i32, UnixStream),
    report: &mut fs::File,
) -> Result<(), Error> {
    // Who ends before it is ready has said why.
    if spec.disks == Told::Later {
        if gate::wait(&mut first).is_err() {
            return Ok(());
        }
        say(report, &Report::Waits);
        Disks { workspace: spec.workspace, layers: spec.layers } = read(&mut words)?;
    }
    let taken = tree::take(&spec, translation)?;
    if spec.disks == Told::AtOnce && gate::wait(&mut first).is_err() {
        return Ok(());
    }
    namespaces::enter_mounts(pid)?;
    if spec.kernel != Kernel::Host {
        rustix::process::chdir(gvisor::INSIDE).at(Step::Workspace, gvisor::INSIDE)?;
    }
    taken.attach(&spec, translation)?;
    gate::open(&mut first).at(Step::Workspace, "the first process")
}

/// Makes the first process, a child of whoever started this, in the group of version 2 if there is one.
fn make_first(group: Option<&Path>) -> Result<sys::Side, Error> {
    let outside = || sys::fork(libc::CLONE_PARENT | libc::SIGCHLD).at(Step::Namespaces, "clone");
    let Some(path) = group else { return outside() };
    let directory = open(path, OFlags::PATH | OFlags::DIRECTORY).at(Step::Groups, path.display())?;
    // Who is made in a group does not have to move there, for which the kernel would wait.
    if let Ok(side) = sys::fork_into(directory.as_fd()) {
        return Ok(side);
    }
    // Profiles around this one may forbid it, and kernels before 5.7 do not have it.
    let side = outside()?;
    if let sys::Side::Child = side {
        let file = path.join("cgroup.procs");
        fs::write(&file, "0").at(Step::Groups, file.display())?;
    }
    Ok(side)
}

/// The connection, what there is of the maker, and the groups that commands join stay open; everything else closes.
fn exec(
    spec: &JailSpec,
    program: &OwnedFd,
    (stream, maker, report): (&OwnedFd, &UnixStream, &fs::File),
    groups: &[OwnedFd],
) -> io::Error {
    let arguments = (|| {
        let open = groups.iter().map(AsFd::as_fd).chain([stream.as_fd(), maker.as_fd(), report.as_fd()]);
        for descriptor in open {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        let gate = Gate::new(maker, report, spec.has(Protection::Landlock));
        let gate = serde_json::to_string(&gate)?;
        let numbers: Vec<RawFd> = groups.iter().map(AsRawFd::as_raw_fd).collect();
        let mut confinement = privileges::of_commands(numbers);
        if !spec.has(Protection::Privileges) {
            confinement.user = None;
        }
        let confinement = serde_json::to_string(&confinement)?;
        let stream = stream.as_raw_fd().to_string();
        let arguments = ["hand", "pid1", "--fd", &stream, "--confinement", &confinement, "--gate", &gate];
        arguments.into_iter().map(sys::c_string).collect::<io::Result<Vec<CString>>>()
    })();
    let environment = ENVIRONMENT.map(CString::from);
    match arguments {
        Ok(arguments) => sys::execute(program.as_fd(), &arguments, &environment),
        Err(error) => error,
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// A copy out of the way of the standard streams.
fn keep(descriptor: std::os::fd::BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?)
}
