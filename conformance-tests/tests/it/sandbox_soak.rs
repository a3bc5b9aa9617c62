//! Sandboxes made, used, copied and removed over and over through the API, and what the processes that make them hold
//! after it; and the same while those processes are killed. It needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Steading, eventually, require, temporary};

use super::app_doctor::{Mounted, doctor};
use super::assault_kill::minutes;
use super::assault_privileges::{Processes, field};

const LIMIT: Duration = Duration::from_secs(60);

/// The processes of the sandboxes that are made and were not asked for: one waits for a workspace, one for a function.
const SPARE: usize = 4;

fn ask(server: &Steading, method: &str, path: &str, body: &Value) -> u16 {
    let client = server.client().in_env("default");
    let request = client.request(method, &format!("/v1/sandboxes{path}"));
    let answer = if body.is_null() { request } else { request.json(body) }.send();
    // Whoever was killed answers nothing.
    answer.map_or(0, |answer| answer.status)
}

/// One is made, runs something, is kept and copied, and both are removed.
fn cycle(server: &Steading, name: &str) {
    let copy = format!("{name}-copy");
    let steps = [
        ("POST", String::new(), json!({ "name": name }), 201),
        (
            "POST",
            format!("/{name}/exec"),
            json!({ "command": "echo mine > file; sleep 100 >/dev/null 2>&1 &" }),
            200,
        ),
        ("POST", format!("/{name}/snapshots"), json!({ "name": "kept" }), 201),
        ("POST", format!("/{name}/fork"), json!({ "name": copy, "snapshot": "kept" }), 201),
        ("POST", format!("/{copy}/exec"), json!({ "command": "cat file" }), 200),
        ("DELETE", format!("/{copy}"), Value::Null, 204),
        ("DELETE", format!("/{name}"), Value::Null, 204),
    ];
    for (method, path, body, status) in steps {
        assert_eq!(ask(server, method, &path, &body), status, "{method} {path}: {}", server.log());
    }
}

/// The processes below one, by what each says of its parent.
fn below(root: u32) -> BTreeSet<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> = pids
        .filter_map(|pid| Some((pid, field(&format!("/proc/{pid}/status"), "PPid")?.parse().ok()?)))
        .collect();
    let is_below = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid).filter(|parent| **parent != 0) {
            if *parent == root {
                return true;
            }
            pid = *parent;
        }
        false
    };
    parents.keys().copied().filter(|pid| is_below(*pid)).collect()
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// What lies in a directory, down to so many levels.
fn lying(path: &Path, levels: usize) -> usize {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| 1 + if levels == 0 { 0 } else { lying(&entry.path(), levels - 1) }).sum()
}

/// Every group of these names.
fn groups(directory: &Path, named: &BTreeSet<String>) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let count = |entry: fs::DirEntry| {
        let own = named.contains(&*entry.file_name().to_string_lossy());
        usize::from(own) + groups(&entry.path(), named)
    };
    directories.map(count).sum()
}

/// What the server's processes and the kernel hold for its sandboxes.
fn held(server: &Steading) -> BTreeMap<&'static str, usize> {
    let Processes { gateway, host, .. } = Processes::of(server);
    let data = &server.ready().data_dir;
    let log = fs::read_to_string(server.log_file()).unwrap_or_default();
    let words = log.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let ids: BTreeSet<_> = words.filter(|word| word.starts_with("sbx_")).map(str::to_owned).collect();
    assert!(!ids.is_empty(), "the log names no sandbox");
    let processes = below(host);
    let namespaces: BTreeSet<_> = processes
        .iter()
        .chain([&host])
        .flat_map(|pid| {
            ["net", "mnt", "pid", "user"].map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")))
        })
        .flatten()
        .collect();
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let loops = loops.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    BTreeMap::from([
        ("open files of the gateway", entries(&format!("/proc/{gateway}/fd"))),
        ("open files", entries(&format!("/proc/{host}/fd"))),
        ("threads", entries(&format!("/proc/{host}/task"))),
        ("mounts", fs::read_to_string(format!("/proc/{host}/mountinfo")).unwrap().lines().count()),
        ("processes", processes.len()),
        ("namespaces", namespaces.len()),
        ("loops", loops.filter(|file| file.contains(data.to_str().unwrap())).count()),
        ("groups", groups(Path::new("/sys/fs/cgroup"), &ids)),
        ("workspaces", lying(&data.join("sandboxes/workspaces"), 2)),
        ("places of sandboxes", lying(&data.join("sandboxes/run"), 1)),
    ])
}

/// Waits until no more is held than before.
fn no_more_than(server: &Steading, before: &BTreeMap<&str, usize>) {
    let more = || {
        let now = held(server);
        now.into_iter().filter(|(what, count)| *count > before[what]).collect::<Vec<_>>()
    };
    assert!(eventually(LIMIT, || more().is_empty().then_some(())).is_some(), "{:?} after {before:?}", more());
}

/// Cycles in which nobody is killed, so that whatever is kept for each of them adds up.
fn quiet(server: &Steading, count: usize) {
    for warm in 0..3 {
        cycle(server, &format!("warm-{warm}"));
    }
    let resting = eventually(LIMIT, || (held(server)["processes"] == SPARE).then(|| held(server)));
    let before = resting.unwrap_or_else(|| panic!("{:?}", held(server)));
    for number in 0..count {
        cycle(server, &format!("box-{number}"));
    }
    no_more_than(server, &before);
}

/// Cycles in which the process that makes sandboxes is killed, or the one that starts it, or, seldom, the gateway.
fn storms(mut server: Steading, count: usize, goes_on: impl Fn() -> bool) {
    cycle(&server, "warm");
    let resting = eventually(LIMIT, || (held(&server)["processes"] == SPARE).then(|| held(&server)));
    let before = resting.unwrap_or_else(|| panic!("{:?}", held(&server)));
    for number in (0..count).take_while(|_| goes_on()) {
        let name = format!("storm-{number}");
        std::thread::scope(|scope| {
            let (server, name) = (&server, &name);
            // It may end at any of these.
            let using = scope.spawn(move || {
                ask(server, "POST", "", &json!({ "name": name }));
                ask(
                    server,
                    "POST",
                    &format!("/{name}/exec"),
                    &json!({ "command": "sleep 100 >/dev/null 2>&1 &" }),
                );
                ask(server, "POST", &format!("/{name}/snapshots"), &Value::Null);
            });
            // Later in each round, so that each of the steps is met.
            std::thread::sleep(Duration::from_millis((number as u64 * 7) % 60));
            let parts = std::panic::catch_unwind(|| Processes::of(server));
            if let (true, Ok(parts)) = (number % 3 < 2, parts) {
                let pid = if number % 3 == 0 { parts.host } else { parts.starter };
                // It may have ended by itself.
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
            using.join().unwrap();
        });
        // Without the one that starts it nobody makes sandboxes until the platform starts again.
        if number % 3 == 1 || number % 50 == 5 {
            server.kill();
            server = server.restart().unwrap();
        }
        let gone = eventually(LIMIT, || {
            [204, 404].contains(&ask(&server, "DELETE", &format!("/{name}"), &Value::Null)).then_some(())
        });
        assert!(gone.is_some(), "{name}: {}", server.log());
    }
    // Whatever the last one left is the next one's to remove.
    let exec = json!({ "command": "true" });
    let again = eventually(LIMIT, || {
        ask(&server, "POST", "", &json!({ "name": "again" }));
        (ask(&server, "POST", "/again/exec", &exec) == 200).then_some(())
    });
    assert!(again.is_some(), "{}", server.log());
    assert_eq!(ask(&server, "DELETE", "/again", &Value::Null), 204);
    cycle(&server, "last");
    let server = server.restart().unwrap();
    cycle(&server, "after");
    let before: BTreeMap<_, _> = before
        .into_iter()
        .map(|(what, count)| (what, count + usize::from(what.starts_with("open files")) * 4))
        .collect();
    no_more_than(&server, &before);
}

/// A server on the file system that tests are on, or on a pool of btrfs.
fn server(directory: &Path, pool: &str) -> (Option<Mounted>, Steading) {
    let data = directory.join("data");
    let mounted = (pool == "pool").then(|| {
        assert_eq!(doctor(&data, &["--fix"]).1, 0);
        Mounted(data.join("sandboxes/workspaces/pool"))
    });
    (mounted, require(Steading::launch().data_dir(data).env("STEADING_SANDBOX_SPARES", "1").start()))
}

#[test]
fn nothing_adds_up_where_sandboxes_come_and_go() {
    for place in ["here", "pool"] {
        let directory = temporary().unwrap();
        let (_mounted, mut server) = server(directory.path(), place);
        quiet(&server, 8);
        server.stop();
    }
}

#[test]
fn nothing_is_left_where_whoever_makes_sandboxes_is_killed() {
    let directory = temporary().unwrap();
    storms(server(directory.path(), "here").1, 8, || true);
}

#[test]
#[ignore = "takes minutes"]
fn soak_a_thousand_sandboxes_by_the_product() {
    let began = Instant::now();
    for place in ["here", "pool"] {
        let directory = temporary().unwrap();
        let (_mounted, mut server) = server(directory.path(), place);
        quiet(&server, 500);
        server.stop();
    }
    let directory = temporary().unwrap();
    storms(server(directory.path(), "here").1, 1000, || began.elapsed() < minutes());
}
