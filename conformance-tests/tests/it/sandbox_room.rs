//! Who has room, who has to wait, and what is left of a sandbox when something went wrong in it.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Client, Launch, Steading, eventually, require};

const LIMIT: Duration = Duration::from_secs(90);

struct Machine {
    server: Steading,
    client: Client,
}

impl Machine {
    fn new(with: impl FnOnce(Launch) -> Launch) -> Self {
        let server = require(with(Steading::launch()).start());
        let client = server.client().in_env("default");
        Self { server, client }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.request(method, &format!("/v1/sandboxes{path}"));
        let answer = if body.is_null() { request } else { request.json(body) }.send().unwrap();
        let lines = answer.text().unwrap_or_default().trim_end();
        // The last line of a command says how it ended.
        let last = lines.lines().last().filter(|_| path.ends_with("/exec") && answer.status == 200);
        (answer.status, serde_json::from_str(last.unwrap_or(lines)).unwrap_or_default())
    }

    fn made(&self, name: &str) {
        let (status, made) = self.ask("POST", "", &json!({ "name": name }));
        assert_eq!(status, 201, "{made}");
    }

    fn exec(&self, sandbox: &str, command: &str) -> (u16, Value) {
        self.ask("POST", &format!("/{sandbox}/exec"), &json!({ "command": command }))
    }

    fn done(&self, sandbox: &str, command: &str) {
        let (status, ended) = self.exec(sandbox, command);
        assert_eq!((status, &ended["code"]), (200, &json!(0)), "{sandbox}: {command}: {ended}");
    }

    fn shown(&self, sandbox: &str) -> Value {
        let (status, shown) = self.ask("GET", &format!("/{sandbox}"), &Value::Null);
        assert_eq!(status, 200, "{shown}");
        shown
    }

    /// The names of a sandbox's snapshots.
    fn kept(&self, sandbox: &str) -> Vec<String> {
        let (_, there) = self.ask("GET", &format!("/{sandbox}/snapshots"), &Value::Null);
        let there = there["snapshots"].as_array().unwrap().iter();
        there.map(|it| it["name"].as_str().unwrap_or("").to_owned()).collect()
    }
}

#[test]
fn what_is_at_work_goes_on_and_what_rests_makes_room() {
    let machine = Machine::new(|launch| launch.env("STEADING_SANDBOX_AWAKE_OF_TENANT", "2"));
    for name in ["a", "b", "c"] {
        machine.made(name);
    }
    for name in ["a", "b"] {
        machine.done(name, "(sleep 1000 >/dev/null 2>&1 &)");
    }
    let (status, refused) = machine.exec("c", "true");
    assert_eq!((status, &refused["code"]), (503, &json!("unavailable")), "{refused}");
    for name in ["a", "b"] {
        machine.done(name, "pgrep -fx 'sleep 1000'");
    }
    // Its owner may say which one is not needed; where nothing runs nobody need say so.
    assert_eq!(machine.ask("POST", "/a/pause", &Value::Null).0, 200);
    machine.done("c", "true");
    machine.done("b", "pgrep -fx 'sleep 1000'");
    machine.done("a", "! pgrep -fx 'sleep 1000'");
}

#[test]
fn whoever_gives_up_while_a_sandbox_wakes_leaves_its_place_free() {
    let machine = Machine::new(|launch| launch.env("STEADING_SANDBOX_AWAKE_OF_TENANT", "4"));
    let key = machine.server.ready().key.clone();
    for round in 0..12_u64 {
        let names: Vec<_> = (0..4).map(|n| format!("s{round}-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            machine.made(name);
            let body = r#"{"command":"true"}"#;
            let mut stream = TcpStream::connect(machine.server.authority()).unwrap();
            write!(
                stream,
                "POST /v1/sandboxes/{name}/exec HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
                 steading-env: default\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            std::thread::sleep(Duration::from_millis(round * 3 + n as u64));
        }
        for name in &names {
            let ran = eventually(LIMIT, || (machine.exec(name, "true").0 == 200).then_some(()));
            assert!(ran.is_some(), "{name} in round {round}: {:?}", machine.exec(name, "true"));
        }
        for name in &names {
            assert_eq!(machine.ask("DELETE", &format!("/{name}"), &Value::Null).0, 204);
        }
    }
}

#[test]
fn what_was_there_is_kept_when_memory_was_short_and_when_a_sandbox_crashed() {
    let machine = Machine::new(|launch| launch.env("STEADING_SANDBOX_MEMORY_BYTES", "268435456"));
    machine.made("box");
    machine.done("box", "echo mine > file");
    machine.exec("box", "python3 -c 'x = bytearray(1 << 30)'");
    let short = eventually(LIMIT, || machine.kept("box").contains(&"out_of_memory".to_owned()).then_some(()));
    assert!(short.is_some(), "{}\n{}", machine.shown("box"), machine.server.log());
    assert_eq!(machine.shown("box")["ended"], "out_of_memory");
    // The process that makes sandboxes ends, and with it every one.
    let hosts = std::process::Command::new("pkill")
        .args(["-9", "-f", &format!("sandbox-host .*{}", machine.server.ready().data_dir.display())])
        .status();
    assert!(hosts.unwrap().success());
    let crashed = eventually(LIMIT, || machine.kept("box").contains(&"crashed".to_owned()).then_some(()));
    assert!(crashed.is_some(), "{}\n{}", machine.shown("box"), machine.server.log());
    assert_eq!(machine.shown("box")["ended"], "crashed");
    machine.done("box", "grep mine file && rm file");
    let (status, _) = machine.ask("POST", "/box/restore", &json!({ "snapshot": "crashed" }));
    assert_eq!(status, 200);
    machine.done("box", "grep mine file");
}

#[test]
fn a_frozen_sandbox_begins_with_the_same_files_each_time() {
    let machine = Machine::new(|launch| {
        let launch = launch.env("STEADING_SANDBOX_FREEZE_AFTER_S", "1");
        launch.env("STEADING_SANDBOX_PARK_AFTER_S", "2")
    });
    machine.made("box");
    machine.done("box", "mkdir -p d && echo one > d/f && ln -s d/f l");
    let (status, frozen) = machine.ask("POST", "/box/freeze", &json!({ "name": "base" }));
    assert_eq!(status, 201, "{frozen}");
    for round in 0..3 {
        machine.done("box", "test \"$(ls -A)\" = \"$(printf 'd\\nl')\" && grep -x one l");
        machine.done("box", "echo changed > d/f && rm l && touch more");
        let parked = eventually(LIMIT, || (machine.shown("box")["state"] == "parked").then_some(()));
        assert!(parked.is_some(), "round {round}: {}", machine.shown("box"));
        assert_eq!(machine.shown("box")["ended"], Value::Null);
    }
    // Whoever thaws it goes on with what the last one left.
    assert_eq!(machine.ask("POST", "/box/thaw", &Value::Null).0, 204);
    machine.done("box", "grep -x changed d/f && test -e more");
    let (status, again) = machine.ask("POST", "/box/restore", &json!({ "snapshot": "base" }));
    assert_eq!(status, 200, "{again}");
    let (_, second) = machine.ask("POST", "/box/freeze", &Value::Null);
    assert_eq!(second["digest"], frozen["digest"]);
}

#[test]
fn snapshots_of_a_tenant_hold_no_more_than_they_may() {
    let machine = Machine::new(|launch| launch.env("STEADING_SANDBOX_SNAPSHOT_BYTES_OF_TENANT", "30000000"));
    machine.made("box");
    machine.done("box", "head -c 12000000 /dev/urandom > f");
    let keep = |name: &str| machine.ask("POST", "/box/snapshots", &json!({ "name": name }));
    assert_eq!((keep("one").0, keep("two").0), (201, 201));
    let (status, refused) = keep("three");
    assert_eq!((status, &refused["code"]), (429, &json!("quota_exceeded")), "{refused}");
    assert_eq!(machine.ask("POST", "/box/fork", &json!({ "name": "copy" })).0, 429);
    assert_eq!(machine.ask("DELETE", "/box/snapshots/one", &Value::Null).0, 204);
    assert_eq!(keep("three").0, 201);
    assert_eq!(machine.kept("box"), ["three", "two"]);
}

#[test]
fn a_fork_that_is_refused_for_its_bytes_removes_nobodys_files() {
    let machine = Machine::new(|launch| launch.env("STEADING_SANDBOX_SNAPSHOT_BYTES_OF_TENANT", "1000000"));
    let operator = machine.server.client().without_env();
    let wanted = json!({ "name": "left", "env": "default", "scopes": ["sandbox:use"] });
    let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
    let owner = Client::new(&machine.server.ready().url).with_key(made["key"].as_str().unwrap());
    let put = owner.request("PUT", "/v1/sandboxes/default/files?path=left-behind").body("mine");
    assert_eq!(put.send().unwrap().status, 200);
    let key = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(operator.request("DELETE", &key).send().unwrap().status, 200);
    machine.made("box");
    machine.done("box", "head -c 2000000 /dev/urandom > f");
    for _ in 0..3 {
        let (status, refused) = machine.ask("POST", "/box/fork", &json!({ "name": "copy" }));
        assert_eq!((status, &refused["code"]), (429, &json!("quota_exceeded")), "{refused}");
    }
    let files = machine.server.ready().data_dir.join("sandboxes/workspaces");
    let found =
        std::process::Command::new("find").arg(files).args(["-name", "left-behind"]).output().unwrap();
    assert!(!found.stdout.is_empty(), "it is gone");
}

#[test]
fn a_credential_has_no_more_sandboxes_than_it_may_however_many_it_asks_for_at_once() {
    let machine = Machine::new(|launch| launch);
    let made = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20)
            .map(|n| {
                let wanted = json!({ "name": format!("box-{n}") });
                let machine = &machine;
                scope.spawn(move || machine.ask("POST", "", &wanted))
            })
            .collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect::<Vec<_>>()
    });
    let (well, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(|(status, _)| *status == 201);
    assert_eq!((well.len(), refused.len()), (8, 12));
    for (status, refused) in refused {
        assert_eq!((status, &refused["code"]), (429, &json!("quota_exceeded")), "{refused}");
    }
}

/// A file system of its own, as long as this lives, of which all but so much is what the platform keeps for itself.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(room: u64) -> Self {
        let directory = testkit::temporary().unwrap();
        let options = format!("size={},mode=700", (2 << 30) + room);
        let mut mount = std::process::Command::new("mount");
        let mounted =
            mount.args(["-t", "tmpfs", "-o", &options, "steading-test"]).arg(directory.path()).status();
        assert!(mounted.unwrap().success(), "a file system of its own needs root");
        Self(directory)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn on_a_disk_without_room_who_writes_is_ended_and_who_has_written_long_before_is_not() {
    let disk = Disk::of(400 << 20);
    let launch = |launch: Launch| launch.data_dir(disk.0.path().join("data"));
    let mut machine = Machine::new(launch);
    for name in ["quiet", "greedy"] {
        machine.made(name);
        machine.done(name, "head -c 20000000 /dev/urandom > old");
    }
    assert!(machine.server.stop().is_some_and(|status| status.success()));
    let machine = Machine::new(launch);
    // Both wake where there is room, and nobody has looked how much they hold.
    machine.done("quiet", "(sleep 1000 > /dev/null 2>&1 &)");
    machine.done("greedy", "(while sleep 0.5; do head -c 3000000 /dev/zero >> new; done > /dev/null 2>&1 &)");
    let filler = disk.0.path().join("filler");
    let filled = std::process::Command::new("fallocate").args(["-l", "350M"]).arg(&filler).status();
    assert!(filled.unwrap().success());
    let ended = |name: &str| machine.shown(name)["ended"].clone();
    let greedy = eventually(LIMIT, || (ended("greedy") == "disk_full").then_some(()));
    assert!(greedy.is_some(), "{}\n{}", machine.shown("greedy"), machine.server.log());
    assert_eq!(ended("quiet"), Value::Null);
    std::fs::remove_file(filler).unwrap();
    machine.done("quiet", "pgrep -fx 'sleep 1000'");
    machine.done("greedy", "rm new");
}

#[test]
fn a_workspace_that_is_copied_all_the_time_is_weighed_all_the_same() {
    let machine = Machine::new(|launch| {
        let launch = launch.env("STEADING_SANDBOX_WORKSPACE_BYTES", "536870912");
        launch.env("STEADING_SANDBOX_SNAPSHOT_BYTES_OF_TENANT", "1000000")
    });
    machine.made("box");
    machine.done("box", "mkdir many && cd many && for i in $(seq 20000); do echo $i > $i; done");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Somebody has its place, or waits for it, at every moment, also where nothing comes of it in the end.
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    machine.ask("POST", "/box/snapshots", &Value::Null);
                }
            });
        }
        let fill = "(while :; do head -c 20000000 /dev/zero > f$RANDOM$RANDOM || sleep 0.2; done > /dev/null 2>&1 &)";
        machine.done("box", fill);
        let bounded = eventually(LIMIT, || {
            let shown = machine.shown("box");
            // Its file system says no, or it is ended.
            let held = shown["usage"]["disk_bytes"].as_u64().is_some_and(|bytes| bytes > 500_000_000);
            (held || shown["ended"] == "over_quota").then_some(())
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(bounded.is_some(), "{}\n{}", machine.shown("box"), machine.server.log());
    });
}

#[test]
fn a_row_of_bad_bounds_stops_the_program_before_it_serves() {
    for (name, value) in
        [("STEADING_SANDBOX_WORKSPACE_BYTES", "1000"), ("STEADING_SANDBOX_PARK_AFTER_S", "3")]
    {
        let refused = Steading::launch().env(name, value).start().err();
        assert!(refused.is_some(), "{name}={value}");
    }
}
