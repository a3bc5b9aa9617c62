//! The gateway has no privilege, and sandboxes end with each of the processes that they are made by. Root only: without it
//! there is no privilege to give up, and these tests fail.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::http::Request;
use testkit::{Answer, Steading, built_binary, eventually, finish, require, temporary};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A user that has no privileges, and whose files these are.
const NOBODY: u32 = 65_534;

/// The processes of a server: itself, what starts the process that makes sandboxes, and that process.
pub struct Processes {
    pub gateway: u32,
    pub starter: u32,
    pub host: u32,
}

impl Processes {
    pub fn of(steading: &Steading) -> Self {
        let gateway = steading.id();
        let starter = child(gateway, "sandbox-starter").expect("nobody starts what makes sandboxes");
        let host = child(starter, "sandbox-host").expect("nobody makes sandboxes");
        Self { gateway, starter, host }
    }
}

fn child(parent: u32, part: &str) -> Option<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let above = field(&format!("/proc/{pid}/status"), "PPid");
        arguments.split('\0').nth(1) == Some(part) && above.is_some_and(|above| above == parent.to_string())
    })
}

/// A line of a status file (proc(5)).
pub fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|line| line.trim().to_owned())
}

pub fn kill(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    assert!(Command::new("kill").arg(signal).args(pids).status().unwrap().success());
}

fn run(steading: &Steading, command: &str) -> Answer {
    steading.client().call("shell_run", &json!({ "command": command, "timeout_s": 60 })).unwrap()
}

/// Runs a command, which must work.
fn runs(steading: &Steading, command: &str) -> String {
    let ran = run(steading, command);
    assert_eq!((ran.status, &ran.body["exit_code"]), (200, &json!(0)), "{ran:?}");
    ran.body["stdout"].as_str().unwrap().to_owned()
}

/// What there is of a server's sandboxes on the machine: their directories, their groups, every process in those.
fn traces(sandboxes: &BTreeSet<String>, data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_str().is_some_and(|name| sandboxes.contains(name)) {
                found.push(entry.path().display().to_string());
            }
            directories.push(entry.path());
        }
    }
    found.extend(awake(data));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if sandboxes.iter().any(|id| groups.contains(id.as_str())) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// The sandboxes that have a directory.
fn awake(data: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(data.join("sandboxes/run")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("sbx_")).collect()
}

/// A server with a sandbox in which something hides, and all that there is of it.
fn busy() -> (Steading, Processes, BTreeSet<String>) {
    let steading = require(Steading::start());
    runs(&steading, "(setsid nohup sleep 4000 >/dev/null 2>&1 &); mkdir -p /tmp/x");
    let sandboxes = awake(&steading.ready().data_dir);
    let processes = Processes::of(&steading);
    assert!(traces(&sandboxes, &steading.ready().data_dir).len() > 3);
    (steading, processes, sandboxes)
}

#[track_caller]
fn gone(sandboxes: &BTreeSet<String>, data: &Path, pids: &[u32]) {
    let left = || {
        let mut left = traces(sandboxes, data);
        left.extend(pids.iter().map(|pid| format!("/proc/{pid}")).filter(|path| Path::new(path).exists()));
        left
    };
    let ended = eventually(LIMIT, || left().is_empty().then_some(()));
    assert!(ended.is_some(), "{:#?}", left());
}

#[test]
fn no_thread_of_the_gateway_has_a_privilege_or_a_way_to_one() {
    let steading = require(Steading::start());
    assert_eq!(runs(&steading, "echo works"), "works\n");
    let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", steading.id())).unwrap().flatten().collect();
    assert!(threads.len() > 2, "a platform has threads");
    for thread in threads {
        let status = thread.path().join("status").display().to_string();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set).as_deref(), Some("0000000000000000"), "{set} of {status}");
        }
        assert_eq!(field(&status, "NoNewPrivs").as_deref(), Some("1"));
    }
    // It has every key in memory, and leaves none of it on a disk.
    let limits = fs::read_to_string(format!("/proc/{}/limits", steading.id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn what_starts_the_process_that_makes_sandboxes_knows_and_holds_nothing() {
    let (steading, Processes { starter, host, .. }, _) = busy();
    for pid in [starter, host] {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        assert_eq!(read("environ"), "");
        assert!(!read("cmdline").contains(&steading.ready().key));
        let effective = field(&format!("/proc/{pid}/status"), "CapEff").unwrap();
        let effective = u64::from_str_radix(&effective, 16).unwrap();
        // Modules, raw input and output, boot, raw sockets, time.
        for capability in [16, 17, 22, 13, 25] {
            assert_eq!(effective & (1 << capability), 0, "{capability} of {pid}");
        }
        for output in [0, 1, 2] {
            let file = fs::read_link(format!("/proc/{pid}/fd/{output}")).unwrap();
            assert_eq!(file, Path::new("/dev/null"), "{output} of {pid}");
        }
        // Neither a database nor the log nor a port.
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let data = steading.ready().data_dir.clone();
        for file in open.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let own = file.starts_with(data.join("sandboxes"));
            assert!(own || !file.starts_with(&data) && file != steading.log_file(), "{}", file.display());
        }
        let ports = fs::read_to_string("/proc/net/tcp").unwrap();
        let port = steading.authority().rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let line = ports.lines().find(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")));
        let inode = line.unwrap().split_whitespace().nth(9).unwrap();
        let sockets = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let sockets = sockets.filter_map(|entry| fs::read_link(entry.path()).ok());
        assert!(!sockets.into_iter().any(|file| file == Path::new(&format!("socket:[{inode}]"))));
    }
}

#[test]
fn root_without_privileges_looks_into_none_of_the_processes_that_have_some() {
    let (_steading, Processes { starter, host, .. }, _) = busy();
    let looks = |prefix: &[&str], path: &str| {
        let mut command = Command::new(prefix[0]);
        let looked = command.args(&prefix[1..]).args(["head", "-c", "1", path]).output().unwrap();
        looked.status.success() && looked.stdout.len() == 1
    };
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"];
    for pid in [starter, host] {
        for name in ["maps", "environ", "mem", "auxv"] {
            let path = format!("/proc/{pid}/{name}");
            // Their environment is empty, and memory is read at an address.
            let told = !matches!(name, "environ" | "mem");
            assert_eq!((looks(&["env"], &path), looks(&bare, &path)), (told, false), "{path}");
        }
        let file = format!("/proc/{pid}/fd/0");
        let leads = |prefix: &[&str]| {
            let mut command = Command::new(prefix[0]);
            command.args(&prefix[1..]).args(["readlink", &file]).output().unwrap().status.success()
        };
        assert_eq!((leads(&["env"]), leads(&bare)), (true, false), "{file}");
    }
}

#[test]
fn a_process_that_makes_sandboxes_and_is_killed_is_started_again_by_the_next_call() {
    let (steading, Processes { starter, host, .. }, _) = busy();
    runs(&steading, "echo kept > file");
    kill("-KILL", &[host]);
    // A call may still be answered by the sandbox that is about to end.
    let again = eventually(LIMIT, || {
        let ran = run(&steading, "cat file");
        child(starter, "sandbox-host").filter(|next| *next != host)?;
        let there = !awake(&steading.ready().data_dir).is_empty();
        (ran.status == 200 && there).then_some(ran.body)
    });
    let again = again.expect("no sandbox is made any more");
    assert_eq!((&again["exit_code"], &again["stdout"]), (&json!(0), &json!("kept\n")));
    // What the first one left is gone, its processes with it.
    assert_eq!(runs(&steading, "pgrep sleep || echo nothing sleeps"), "nothing sleeps\n");
    gone(&BTreeSet::new(), Path::new("/nonexistent"), &[host]);
}

#[test]
fn everything_ends_with_the_gateway_however_it_ends() {
    let (mut steading, Processes { starter, host, .. }, sandboxes) = busy();
    let data = steading.ready().data_dir.clone();
    steading.kill();
    gone(&sandboxes, &data, &[starter, host]);

    let (mut steading, Processes { starter, host, .. }, sandboxes) = busy();
    let data = steading.ready().data_dir.clone();
    assert!(steading.stop().is_some_and(|status| status.success()));
    gone(&sandboxes, &data, &[starter, host]);
}

#[test]
fn a_service_that_is_stopped_by_a_signal_to_all_of_its_processes_ends_in_order() {
    let (mut steading, Processes { gateway, starter, host }, sandboxes) = busy();
    let data = steading.ready().data_dir.clone();
    kill("-TERM", &[host, starter]);
    assert_eq!(runs(&steading, "pgrep -c sleep"), "1\n");
    kill("-TERM", &[gateway, host, starter]);
    assert!(steading.stop().is_some_and(|status| status.success()));
    gone(&sandboxes, &data, &[starter, host]);
}

#[test]
fn sandboxes_end_with_whoever_starts_what_makes_them_and_all_else_goes_on() {
    let (steading, Processes { starter, host, .. }, sandboxes) = busy();
    kill("-KILL", &[starter]);
    gone(&sandboxes, &steading.ready().data_dir, &[starter, host]);
    let refused = run(&steading, "true");
    assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{refused:?}");
    assert!(refused.body["hint"].as_str().unwrap().contains("started again"), "{refused:?}");
    steading.client().output("app_describe", &json!({})).unwrap();
}

#[test]
fn ports_that_take_a_privilege_are_had_before_it_is_given_up() {
    // An address of this machine that nobody else listens at.
    let id = std::process::id();
    let host = format!("127.{}.{}.{}", 64 + id % 64, id / 64 % 256, 1 + id / 16_384 % 250);
    let steading = require(
        Steading::launch()
            .env("STEADING_TLS_LISTEN", format!("{host}:443"))
            .env("STEADING_TLS_HTTP_REDIRECT", format!("{host}:80"))
            .start(),
    );
    let sent = Request::get(&format!("http://{host}:80/healthz")).header("host", "localhost").send().unwrap();
    assert_eq!(sent.status, 308);
    assert!(std::net::TcpStream::connect(format!("{host}:443")).is_ok());
    let status = format!("/proc/{}/status", steading.id());
    assert_eq!(field(&status, "CapEff").as_deref(), Some("0000000000000000"));
}

#[test]
fn files_that_root_has_no_more_power_over_are_named_with_what_to_do() {
    let any = require(Steading::start());
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let mut first = require(Steading::launch().data_dir(&data).start());
    assert!(first.stop().is_some_and(|status| status.success()));
    let closed = [data.join("keys"), data.clone()];
    for path in &closed {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}", path.display());
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut serve = any.command(&["serve", "--json", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(&data);
        let refused = finish(serve, LIMIT).unwrap();
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert_eq!(refused.status.and_then(|status| status.code()), Some(7), "{said}");
        for word in [&*path.display().to_string(), "another user", "chown"] {
            assert!(said.contains(word), "{word:?} is not said in {said}");
        }
        chown(path, Some(0), Some(0)).unwrap();
    }
    require(Steading::launch().data_dir(&data).start());
}

#[test]
fn a_gateway_without_root_works_as_it_is() {
    let directory = temporary().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where it was built, it may be that nobody else gets to.
    let binary = require(built_binary().ok_or(testkit::Unavailable::NotBuilt));
    if fs::hard_link(&binary, at("steading")).is_err() {
        fs::copy(&binary, at("steading")).unwrap();
    }
    let started = format!(
        "#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups -- {} \"$@\"\n",
        at("steading").display()
    );
    fs::write(at("start"), started).unwrap();
    fs::set_permissions(at("start"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at("data")).unwrap();
    fs::set_permissions(at("data"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(at("data"), Some(NOBODY), Some(NOBODY)).unwrap();
    let steading = require(Steading::launch().binary(at("start")).data_dir(at("data")).start());
    assert_eq!(runs(&steading, "id -un"), "agent\n");
    let status = format!("/proc/{}/status", steading.id());
    let is = |name: &str, wanted: &str| assert_eq!(field(&status, name).as_deref(), Some(wanted), "{name}");
    is("NoNewPrivs", "1");
    is("CapPrm", "0000000000000000");
    let Processes { starter, host, .. } = Processes::of(&steading);
    drop(steading);
    gone(&BTreeSet::new(), &at("data"), &[starter, host]);
}
