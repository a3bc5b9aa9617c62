//! What code in a sandbox must not get done, tried through `shell_run`, and that each attempt would succeed without the
//! protection that is against it. The tests of the jail try the same table.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::{Client, Steading, eventually, require, temporary};

#[expect(dead_code, reason = "the attempts themselves are made inside")]
#[path = "../../../crates/hand/tests/jail/attempts.rs"]
pub mod attempts;

/// Runs a command, and gives its result.
pub fn run(client: &Client, command: &str) -> Value {
    client.output("shell_run", &json!({ "command": command, "timeout_s": 300 })).unwrap()
}

/// Runs a command that succeeds, and gives its output.
#[track_caller]
pub fn says(client: &Client, command: &str) -> String {
    let ran = run(client, command);
    assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
    ran["stdout"].as_str().unwrap().to_owned()
}

/// The program of the attempts, as text, without what only a debugger needs.
fn program() -> String {
    let directory = temporary().unwrap();
    let plain = directory.path().join("attempt");
    let mut strip = Command::new("strip");
    assert!(strip.arg("-o").arg(&plain).arg(env!("CARGO_BIN_EXE_attempt")).status().unwrap().success());
    let packed = Command::new("gzip").args(["-9", "-c"]).arg(&plain).output().unwrap();
    assert!(packed.status.success());
    STANDARD.encode(packed.stdout)
}

/// The file of that name that a sandbox of this server has made, on the host.
pub fn on_host(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() == name {
            return Some(entry.path());
        }
        let below = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some(found) = below.then(|| on_host(&entry.path(), name)).flatten() {
            return Some(found);
        }
    }
    None
}

/// Puts the program of the attempts into the sandbox.
fn arm(steading: &Steading, program: &str) {
    let client = steading.client();
    client.output("file_write", &json!({ "path": "attempt.b64", "text": program })).unwrap();
    says(
        &client,
        "base64 -d attempt.b64 | gzip -d > try && chmod +x try && cp /usr/bin/id suid && cp /usr/bin/cat capable",
    );
    // A program that is root's and makes its user root, as a restore or another tool of root might leave one, and one
    // whose file has a privilege.
    let suid = on_host(&steading.ready().data_dir.join("sandboxes/workspaces"), "suid").unwrap();
    std::os::unix::fs::chown(&suid, Some(0), Some(0)).unwrap();
    fs::set_permissions(&suid, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let set =
        "import os, sys; os.setxattr(sys.argv[1], 'security.capability', bytes(map(int, sys.argv[2:])))";
    let mut python = Command::new("python3");
    let python = python.args(["-c", set]).arg(suid.with_file_name("capable"));
    assert!(python.args(attempts::CAPABLE.map(|byte| byte.to_string())).status().unwrap().success());
}

/// Tries all of the table in a sandbox of this server, and gives what came of each.
pub fn tried(steading: &Steading) -> Vec<(String, String)> {
    let client = steading.client();
    arm(steading, &program());
    let mut names: Vec<&str> = attempts::TABLE.iter().flat_map(|(_, names)| *names).copied().collect();
    names.push("x32");
    let list = names.join("\n") + "\n";
    client.output("file_write", &json!({ "path": "names", "text": list })).unwrap();
    let each = "while read -r name; do rm -f result; printf %s \"$name\" > attempt; ./try >/dev/null 2>&1; \
                echo \"$name: $(cat result)\"; done < names > results; cat results";
    let results = says(&client, each);
    let result = |line: &str| {
        let (name, result) = line.split_once(": ").unwrap_or((line, ""));
        (name.to_owned(), result.to_owned())
    };
    let tried: Vec<_> = results.lines().map(result).collect();
    assert_eq!(tried.len(), names.len(), "{results}");
    tried
}

#[test]
fn every_attempt_of_the_table_is_denied() {
    let steading = require(Steading::start());
    let client = steading.client();
    let through: Vec<_> =
        tried(&steading).into_iter().filter(|(_, result)| !attempts::denied(result)).collect();
    assert_eq!(through, []);
    let other = "printf int80 > attempt; rm -f result; ./try; echo \"$? $(cat result 2>&1)\"";
    assert!(says(&client, other).starts_with("159 "), "a system call of another kind ends its program");
    // The attempts are real: what everybody may do, the same program does.
    let allowed = "printf 'open /etc/passwd' > attempt; ./try; cat result";
    assert_eq!(says(&client, allowed), "done");
}

/// What came of one attempt, or why nothing did.
fn result(client: &Client, name: &str, place: &str) -> String {
    let each = format!(
        "cd {place}; rm -f result; printf %s '{name}' > attempt; /workspace/try > /dev/null 2>&1; printf %s \"$(<result)\""
    );
    let ran = client.call("shell_run", &json!({ "command": each, "timeout_s": 60 })).unwrap();
    let said = ran.body["stdout"].as_str().unwrap_or_default();
    if said.is_empty() { format!("nothing: {}", ran.body) } else { said.to_owned() }
}

/// A server whose sandboxes are without these protections, with the program of the attempts in one. Only a program that is
/// built to be tested starts so.
fn weakened(off: &[&str], program: &str) -> Steading {
    let steading = require(Steading::start());
    arm(&steading, program);
    steading.client().output("workspace_snapshot", &json!({ "name": "armed" })).unwrap();
    let told = steading.ready().data_dir.join("sandboxes/run/without.json");
    fs::write(told, json!(off).to_string()).unwrap();
    steading.restart().unwrap()
}

/// Addresses that are nobody's, of a cloud's own service, of other networks, and of those who know names.
const AWAY: [&str; 5] =
    ["192.0.2.1:80", "169.254.169.254:80", "10.0.0.1:53", "8.8.8.8:53", "[2001:db8::1]:80"];

fn ways() -> Vec<(&'static str, &'static str)> {
    AWAY.into_iter().flat_map(|target| [("connect", target), ("udp", target)]).collect()
}

fn has_way(target: &str) -> bool {
    let own = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    UdpSocket::bind(own).is_ok_and(|socket| socket.connect(target).is_ok())
}

#[test]
fn what_is_out_of_reach_is_reached_where_its_protection_is_off() {
    let program = program();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let loopback = format!("connect {}", listener.local_addr().unwrap());
    let name = format!("abstract-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let name = format!("abstract {name}");
    let core = "grep 'core file' /proc/self/limits | tr -s ' '";
    let shown = |client: &Client| {
        let shows = |name: &&&str| {
            let read = format!("timeout 5 head -c 100 /proc/{name} 2>/dev/null | wc -c");
            says(client, &read).trim() != "0"
        };
        ["cmdline"].iter().chain(&SECRET).filter(shows).count()
    };
    let plain = weakened(&[], &program);
    let client = plain.client();
    for target in [&loopback, &name] {
        assert_eq!(result(&client, target, "/tmp"), "errno 111", "{target}");
    }
    for (way, target) in ways() {
        assert_eq!(result(&client, &format!("{way} {target}"), "/tmp"), "errno 101", "{way} {target}");
    }
    let resolved = "getent hosts example.com || echo \"nobody knows: $?\"";
    assert_eq!(says(&client, resolved), "nobody knows: 2\n");
    assert_eq!((shown(&client), says(&client, core).as_str()), (0, "Max core file size 1 1 bytes \n"));
    let open = weakened(&["users", "privileges", "seccomp", "landlock", "network"], &program);
    for target in [&loopback, &name] {
        assert_eq!(result(&open.client(), target, "/tmp"), "done", "{target}");
    }
    // Where this machine itself has a way, what is in no network of its own has it too; nothing is sent.
    let mut reached = 0;
    for (_, target) in ways().into_iter().filter(|(way, target)| *way == "udp" && has_way(target)) {
        assert_eq!(result(&open.client(), &format!("udp {target}"), "/tmp"), "done", "{target}");
        reached += 1;
    }
    assert!(reached > 0, "this machine has a way to nowhere");
    assert!(shown(&weakened(&["proc"], &program).client()) > 4, "the host tells more than nothing");
    assert_ne!(says(&weakened(&["core"], &program).client(), core), "Max core file size 1 1 bytes \n");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(result(&weakened(&["seccomp"], &program).client(), "int80", "/workspace"), "done");
}

#[test]
fn every_attempt_of_the_table_gets_through_where_its_protection_is_off() {
    let program = program();
    let (mut strange, mut denied) = (Vec::new(), Vec::new());
    for (off, names) in attempts::TABLE {
        let steading = weakened(off, &program);
        let client = steading.client();
        // The host's root is nobody whom a workspace knows.
        let place = if off.contains(&"users") { "/tmp" } else { "/workspace" };
        assert_eq!(result(&client, "open /etc/passwd", place), "done", "without {off:?}");
        for name in *names {
            let result = result(&client, name, place);
            if attempts::denied(&result) {
                denied.push(*name);
            } else if result != "done" && !result.starts_with("errno ") {
                strange.push(format!("{name}: {result} without {off:?}"));
            }
            // An attempt that gets through may leave its sandbox in any state: the next one has another.
            let restore = client.request("POST", "/v1/sandboxes/default/restore");
            assert_eq!(restore.json(&json!({ "snapshot": "armed" })).send().unwrap().status, 200, "{name}");
        }
    }
    // Those that nothing is against and that fail all the same are these, and no other.
    assert_eq!((strange, denied), (Vec::new(), attempts::beyond_root()));
}

/// What the host tells of itself below `/proc`, and a sandbox does not.
pub const SECRET: [&str; 8] =
    ["config.gz", "diskstats", "interrupts", "kallsyms", "kcore", "keys", "kmsg", "partitions"];

pub fn shows_nothing(client: &Client, name: &str) {
    let read = format!("timeout 5 head -c 100 /proc/{name} 2>/dev/null | wc -c");
    assert_eq!(says(client, &read).trim(), "0", "{name}");
}

#[test]
fn nothing_of_the_machine_is_shown_or_changed() {
    let place = Place::new("sandbox-machine").unwrap();
    let client = &place.client;
    // What the host's root reads, or could write; a sandbox reads nothing of it.
    let told = ["cmdline", "diskstats", "interrupts", "kallsyms", "keys", "meminfo", "modules", "partitions"];
    let control =
        told.iter().filter(|name| fs::read(format!("/proc/{name}")).is_ok_and(|all| !all.is_empty()));
    assert!(control.count() > 4, "the host shows what a sandbox must not");
    shows_nothing(client, "cmdline");
    SECRET.iter().for_each(|name| shows_nothing(client, name));
    let switches =
        ["kernel/core_pattern", "kernel/hostname", "kernel/sysrq", "net/ipv4/ip_forward", "vm/drop_caches"];
    let open = |path: &str| fs::OpenOptions::new().write(true).open(path).is_ok();
    let mut writable = 0;
    for path in switches.map(|name| format!("/proc/sys/{name}")) {
        writable += u32::from(open(&path));
        assert_ne!(run(client, &format!("echo 1 > {path}"))["exit_code"], 0, "{path}");
    }
    assert!(writable > 2, "the host's root may not write what a sandbox must not");
    let devices = "ls /dev/kvm /dev/vda /dev/sda /dev/fuse /dev/net/tun /dev/loop-control /dev/loop0 /dev/vsock /dev/mem /dev/kmsg 2>/dev/null; ls -A /sys; true";
    assert_eq!(says(client, devices), "");
    let own = "ls /proc/self/fd | head -3 | tr '\\n' ' '; env | cut -d= -f1 | grep -ci steading; true";
    assert_eq!(says(client, own), "0 1 2 0\n");
    // Nothing is held back from a command that the process above it holds back for itself.
    assert_eq!(says(client, "grep ^SigBlk /proc/self/status"), "SigBlk:\t0000000000000000\n");
    // Those whose parents are gone are waited for by the first process.
    let orphans = "for i in $(seq 50); do (setsid sh -c 'sh -c true &' &); done; \
                   for i in $(seq 300); do grep -h ^State /proc/[0-9]*/status 2>/dev/null | grep -q Z || exit 0; sleep 0.1; done; exit 1";
    says(client, orphans);
}

/// A server for two who have nothing to do with each other but the machine.
fn neighbours() -> (Steading, Client, Client) {
    let steading = require(Steading::launch().env("STEADING_SANDBOX_WORKSPACE_BYTES", "536870912").start());
    let client = steading.client();
    for slug in ["greedy", "quiet"] {
        client.output("env_create", &json!({ "slug": slug })).unwrap();
    }
    let (greedy, quiet) = (client.clone().in_env("greedy"), client.in_env("quiet"));
    says(&quiet, "echo kept > file");
    (steading, greedy, quiet)
}

/// As many open files as there are to be had, by as many processes as there may be.
const FILES: &str = "for i in $(seq 100); do python3 -c '\nimport os, time\ntry:\n  while True: os.open(\"/dev/null\", 0)\nexcept OSError: time.sleep(600)' & done >/dev/null 2>&1";

/// Pipes and sockets that are full, and nobody reads.
const PIPES: &str = "for i in $(seq 20); do python3 -c '\nimport os, time\ntry:\n  while True:\n    r, w = os.pipe2(os.O_NONBLOCK)\n    try:\n      while True: os.write(w, bytes(65536))\n    except BlockingIOError: pass\nexcept OSError: time.sleep(600)' & done >/dev/null 2>&1";
const SOCKETS: &str = "for i in $(seq 20); do python3 -c '\nimport socket, time\nkept = []\ntry:\n  while True:\n    kept.append(socket.socketpair())\n    kept[-1][0].setblocking(False)\n    try:\n      while True: kept[-1][0].send(bytes(65536))\n    except BlockingIOError: pass\nexcept OSError: time.sleep(600)' & done >/dev/null 2>&1";

#[test]
fn one_who_takes_all_there_is_takes_it_from_nobody_else() {
    let (_steading, greedy, quiet) = neighbours();
    let unharmed = |attack: &str| {
        for _ in 0..5 {
            assert_eq!(says(&quiet, "cat file; echo more | cat"), "kept\nmore\n", "{attack}");
        }
    };
    // Of the machine's processes it has as many as it may, and is told how to be rid of them.
    let bombed = run(&greedy, "bomb() { bomb | bomb & }; bomb 2>/dev/null >/dev/null; sleep 2");
    let hint = bombed["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("kill -9 -1") && hint.contains("512"), "{bombed}");
    unharmed("fork bomb");
    assert_eq!(says(&greedy, "kill -9 -1; echo healed"), "healed\n");
    let healed = run(&greedy, "echo one | cat");
    assert_eq!((&healed["stdout"], &healed["hint"]), (&json!("one\n"), &Value::Null), "{healed}");
    for attack in [
        "(while :; do python3 -c 'x = bytearray(4 << 30)'; done) >/dev/null 2>&1 &",
        "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) >/dev/null 2>&1 & done",
        "(while :; do head -c 1G /dev/zero > /tmp/x; rm /tmp/x; done) >/dev/null 2>&1 &",
        "(while :; do for i in $(seq 20000); do : > /tmp/$i; done; rm -f /tmp/*; done) >/dev/null 2>&1 &",
        "(while :; do head -c 1G /dev/zero > /dev/shm/x; rm /dev/shm/x; done) >/dev/null 2>&1 &",
        FILES,
        PIPES,
        SOCKETS,
    ] {
        run(&greedy, attack);
        unharmed(attack);
        assert_eq!(says(&greedy, "kill -9 -1; rm -rf /tmp/* /dev/shm/*; echo alive"), "alive\n", "{attack}");
    }
    // More than a hundred megabytes a second, as long as the neighbour looks.
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| run(&greedy, "head -c 2G /dev/zero; echo end >&2"));
        unharmed("a flood of output");
        let flooded = flood.join().unwrap();
        assert_eq!((&flooded["exit_code"], &flooded["stderr"]), (&json!(0), &json!("end\n")), "{flooded}");
        assert!(flooded["stdout"].as_str().unwrap().len() < 20_000);
    });
}

#[test]
fn one_who_fills_the_disk_with_bytes_or_with_files_is_ended_and_its_neighbour_is_not() {
    let (steading, greedy, quiet) = neighbours();
    let bytes = "while head -c 20000000 /dev/zero > f$RANDOM$RANDOM; do sleep 0.1; done; exit 7";
    let files = "python3 -c '\nimport os\nfor i in range(10**9):\n  if i % 1000 == 0: os.mkdir(f\"/workspace/f{i}\"); d = f\"/workspace/f{i}/\"\n  os.close(os.open(d + str(i), os.O_CREAT))\n' 2>/dev/null; exit 7";
    for fill in [bytes, files] {
        let ended = greedy.call("shell_run", &json!({ "command": fill, "timeout_s": 600 })).unwrap();
        // Either the file system says no, or the sandbox is ended.
        assert!(ended.code() == "unavailable" || ended.body["exit_code"] == 7, "{ended:?}");
        assert_eq!(says(&quiet, "cat file && echo more > other && cat other"), "kept\nmore\n");
        // It may be looked at again before a great many files are gone; who calls again gets further.
        let remove = json!({ "command": "rm -rf f* && echo empty", "timeout_s": 300 });
        let emptied = eventually(Duration::from_secs(300), || {
            let ran = greedy.call("shell_run", &remove).unwrap();
            (ran.body["stdout"] == "empty\n").then_some(())
        });
        assert!(emptied.is_some(), "it cannot be emptied");
    }
    steading.client().output("app_describe", &json!({})).unwrap();
}
