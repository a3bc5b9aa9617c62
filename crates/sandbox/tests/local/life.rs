//! From the making of sandboxes to the end of all that was made for them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use hand::jail::Tree;
use kernel::{Code, SandboxId, WorkspaceId};
use sandbox::local::{Finding, Verdict};
use sandbox::runner::{Limiting, Limits, Runner, Spec};
use sandbox::workspace::{LEAST_QUOTA, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::every::on_every_runner;
use super::rig::{Rig, eventually, nothing_is_left, plainly, rig, rig_in, rig_of_gvisor_at, traces};

on_every_runner![
    a_sandbox_runs_is_used_and_leaves_nothing,
    a_paused_sandbox_stands_still_until_it_is_resumed_and_can_be_destroyed,
    only_the_sandbox_reaches_its_sockets,
    two_sandboxes_see_nothing_of_each_other,
    what_cannot_be_made_is_refused_and_leaves_nothing,
    a_sandbox_whose_connection_closes_or_whose_first_process_dies_is_removed,
    everything_ends_with_the_gateway,
    what_a_killed_process_leaves_is_removed_by_the_next,
    workspaces_are_kept_by_the_same_process,
];

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn a_sandbox_runs_is_used_and_leaves_nothing(rig: Rig) {
    let cell = rig.cell().await;
    assert_eq!(cell.limiting, Limiting::Enforced);
    assert_eq!(cell.shell("id -un; echo kept > file; ls").await, "agent\nfile");
    let usage = rig.local.usage(cell.id).await.unwrap();
    assert!(usage.memory_bytes > 0 && usage.pids >= 1 && usage.cpu > Duration::ZERO, "{usage:?}");
    let before = traces(rig.directory.path(), &[cell.id]);
    assert!(!before["groups"].is_empty() && !before["processes"].is_empty() && !before["files"].is_empty());
    rig.local.destroy(cell.id).await.unwrap();
    rig.local.destroy(cell.id).await.unwrap();
    let after = traces(rig.directory.path(), &[cell.id]);
    assert!(after.values().all(Vec::is_empty), "{after:#?}");
    assert_eq!(rig.local.usage(cell.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rig.local.pause(cell.id).await.unwrap_err().code(), Code::NotFound);
    let file = rig.directory.path().join("workspaces").join(cell.id.to_string()).join("file");
    assert_eq!(fs::read_to_string(file).unwrap(), "kept\n");
}

async fn a_paused_sandbox_stands_still_until_it_is_resumed_and_can_be_destroyed(rig: Rig) {
    let cell = rig.cell().await;
    assert_eq!(cell.shell("while :; do echo >> ticks; sleep 0.01; done > /dev/null 2>&1 &").await, "");
    let ticks = rig.directory.path().join("workspaces").join(cell.id.to_string()).join("ticks");
    let count = || fs::metadata(&ticks).map(|data| data.len()).unwrap_or(0);
    eventually("the first ticks", || count() > 3).await;
    rig.local.pause(cell.id).await.unwrap();
    let paused = count();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count(), paused);
    rig.local.resume(cell.id).await.unwrap();
    eventually("more ticks", || count() > paused).await;
    rig.local.pause(cell.id).await.unwrap();
    rig.local.destroy(cell.id).await.unwrap();
    nothing_is_left(rig.directory.path(), &[cell.id]).await;
}

async fn only_the_sandbox_reaches_its_sockets(rig: Rig) {
    let cell = rig.cell().await;
    let script = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('/run/steading/egress.sock')\ns.send(b'hello')\nprint(s.recv(9).decode())";
    let answer = async {
        let (mut stream, _) = cell.egress.accept().await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
    };
    let argv = ["/usr/bin/python3", "-c", script];
    let (said, ()) = tokio::join!(cell.run(&argv), answer);
    assert_eq!(said.unwrap(), (0, "hello\n".to_owned(), String::new()));
    for path in [rig.directory.path().join("run"), rig.directory.path().join("run").join(cell.id.to_string())]
    {
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777, 0o700);
    }
}

async fn two_sandboxes_see_nothing_of_each_other(rig: Rig) {
    let (one, other) = (rig.cell().await, rig.cell().await);
    let script = "echo secret > /workspace/secret; echo secret > /tmp/secret; (exec -a hidden sleep 1000) > /dev/null 2>&1 &";
    one.shell(script).await;
    let seen = "ls -A /workspace /tmp; grep -l hid[d]en /proc/[0-9]*/cmdline; echo end";
    assert_eq!(other.shell(seen).await, "/tmp:\n\n/workspace:\nend");
    assert!(one.shell(seen).await.contains("secret"));
    let users = |id: SandboxId| {
        let processes = &traces(rig.directory.path(), &[id])["processes"];
        let of = |process: &String| {
            let pid = process.split(' ').next().unwrap();
            fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap()
        };
        processes.iter().map(of).find(|map| map.contains("65536")).unwrap()
    };
    assert_ne!(users(one.id), users(other.id));
}

async fn what_cannot_be_made_is_refused_and_leaves_nothing(rig: Rig) {
    let cell = rig.cell().await;
    let ours = rig.directory.path().join("workspaces").join(cell.id.to_string());
    std::os::unix::fs::symlink("/etc", ours.join("link")).unwrap();
    let mut ids = vec![];
    for path in [
        "/etc".into(),
        "/".into(),
        ours.join("../../run"),
        ours.join("link"),
        ours.join(".."),
        ours.join("none"),
    ] {
        let spec = Spec {
            id: SandboxId::new(),
            workspace: Tree::Directory { path },
            layers: vec![],
            limits: Limits::default(),
        };
        assert_eq!(rig.local.create(&spec).await.unwrap_err().code(), Code::Internal);
        ids.push(spec.id);
        let workspace = Tree::Directory { path: ours.clone() };
        let layers = vec!["/etc".into()];
        let spec = Spec { id: SandboxId::new(), workspace, layers, limits: Limits::default() };
        assert_eq!(rig.local.create(&spec).await.unwrap_err().code(), Code::Internal);
        ids.push(spec.id);
    }
    // A limit that the kernel does not take, in the middle of making groups.
    let limits = Limits { pids: u32::MAX, ..Limits::default() };
    let failed = rig.try_cell(limits).await.map(|cell| cell.id).unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    let again = Spec {
        id: cell.id,
        workspace: Tree::Directory { path: ours },
        layers: vec![],
        limits: Limits::default(),
    };
    assert_eq!(rig.local.create(&again).await.unwrap_err().code(), Code::Conflict);
    nothing_is_left(rig.directory.path(), &ids).await;
}

async fn a_sandbox_whose_connection_closes_or_whose_first_process_dies_is_removed(rig: Rig) {
    let (one, other) = (rig.cell().await, rig.cell().await);
    let first = traces(rig.directory.path(), &[other.id])["processes"][0].clone();
    drop(one.session);
    kill(first.split(' ').next().unwrap().parse().unwrap());
    nothing_is_left(rig.directory.path(), &[one.id, other.id]).await;
    // What it had used is known until it is destroyed.
    assert!(rig.local.usage(one.id).await.unwrap().cpu > Duration::ZERO);
    rig.local.destroy(one.id).await.unwrap();
    assert_eq!(rig.local.usage(one.id).await.unwrap_err().code(), Code::NotFound);
}

async fn everything_ends_with_the_gateway(rig: Rig) {
    let cells = [rig.cell().await, rig.cell().await, rig.cell().await];
    let ids = cells.each_ref().map(|cell| cell.id);
    rig.local.pause(ids[0]).await.unwrap();
    let host = rig.host().unwrap();
    drop(rig.local);
    nothing_is_left(rig.directory.path(), &ids).await;
    let gone = || !fs::exists(format!("/proc/{host}/cwd")).unwrap_or(false);
    eventually("the end of the process", gone).await;
}

async fn what_a_killed_process_leaves_is_removed_by_the_next(rig: Rig) {
    let mut cells = vec![];
    for _ in 0..3 {
        let cell = rig.cell().await;
        cell.shell("setsid sleep 1000 > /dev/null 2>&1 & mkdir /tmp/x").await;
        cells.push(cell);
    }
    let mut ids: Vec<SandboxId> = cells.iter().map(|cell| cell.id).collect();
    rig.local.pause(ids[2]).await.unwrap();
    kill(rig.host().unwrap());
    // The next call finds nobody, and the one after it a new process.
    let cell = loop {
        if let Ok(cell) = rig.try_cell(Limits::default()).await {
            break cell;
        }
    };
    assert_eq!(cell.shell("echo again").await, "again");
    nothing_is_left(rig.directory.path(), &ids).await;
    ids.push(cell.id);
    rig.local.close().await;
    nothing_is_left(rig.directory.path(), &ids).await;
}

#[tokio::test]
async fn a_second_process_for_the_same_directory_is_refused() {
    let one = rig();
    one.cell().await;
    let directory = one.directory;
    let other = rig_in(directory, plainly);
    let refused = other.local.probe().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.advice().unwrap().contains("stop the other process"), "{refused:?}");
    one.local.close().await;
    assert!(!other.local.probe().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_probe_makes_a_sandbox_and_says_what_works() {
    let rig = rig();
    let findings = rig.local.probe().await.unwrap();
    assert_eq!(findings.len(), 5);
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::Works, "{}", finding.about);
    }
}

#[tokio::test]
async fn a_probe_of_gvisor_makes_one_and_without_its_program_says_how_to_have_it() {
    let findings = rig().local.probe_gvisor().await.unwrap();
    assert_eq!(findings.iter().map(|finding| &finding.verdict).collect::<Vec<_>>(), [&Verdict::Works]);
    let without = rig_of_gvisor_at("/nowhere/runsc");
    let findings = without.local.probe_gvisor().await.unwrap();
    let [Finding { verdict: Verdict::Fails { why, mend }, .. }] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert!(why.contains("not installed") && mend.contains("`apt install runsc`"), "{findings:?}");
    // Nothing weaker is made in its place.
    let refused = without.try_cell(Limits::default()).await.map(|cell| cell.id).unwrap_err();
    assert_eq!((refused.code(), refused.advice()), (Code::Unavailable, Some(mend.as_str())));
    // A program that is none says so, and leaves nothing.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("runsc");
    fs::write(&program, sandbox::hand_binary()).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let broken = rig_of_gvisor_at(program.to_str().unwrap());
    let refused = broken.try_cell(Limits::default()).await.map(|cell| cell.id).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.chain().contains("gVisor did not start"), "{}", refused.chain());
    for rig in [without, broken] {
        nothing_is_left(rig.directory.path(), &rig.ids()).await;
    }
}

#[test]
fn what_is_shipped_makes_no_jail_that_lacks_a_protection_or_has_a_field_nobody_knows() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("hand");
    fs::write(&program, sandbox::hand_binary()).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let whole = serde_json::json!({
        "workspace": { "directory": { "path": "/nowhere" } }, "layers": [], "tmp_bytes": 1, "memory_bytes": 1, "pids": 1,
        "egress": "/nowhere", "bridge": "/nowhere", "hand": "/nowhere", "scratch": "/nowhere",
        "runners": "/nowhere", "runner": "/nowhere",
        "groups": { "hand": [], "commands": [] }, "users": { "range": { "first": 2_000_000_000 } },
    });
    for (field, value, step) in [
        ("without", serde_json::json!(["seccomp"]), "spec"),
        ("more", serde_json::json!(1), "spec"),
        ("layers", serde_json::json!([]), "workspace"),
    ] {
        let mut spec = whole.clone();
        spec[field] = value;
        let mut maker = Command::new(&program);
        maker.arg("jail").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut maker = maker.spawn().unwrap();
        maker.stdin.take().unwrap().write_all(spec.to_string().as_bytes()).unwrap();
        let said: serde_json::Value =
            serde_json::from_slice(&maker.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(said["failed"]["step"], step, "{said}");
    }
}

#[tokio::test]
async fn the_process_that_makes_sandboxes_has_no_network_no_credential_and_few_privileges() {
    let rig = rig();
    let cell = rig.cell().await;
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", rig.host().unwrap())).unwrap();
    assert_eq!(read("environ"), "");
    assert_eq!(read("net/dev").lines().count(), 3, "two of headings, one for a loopback that is down");
    let effective =
        read("status").lines().find_map(|line| line.strip_prefix("CapEff:\t").map(str::to_owned)).unwrap();
    let effective = u64::from_str_radix(&effective, 16).unwrap();
    // Modules, raw input and output, boot, raw sockets, time.
    for capability in [16, 17, 22, 13, 25] {
        assert_eq!(effective & (1 << capability), 0, "{capability}");
    }
    assert_eq!(cell.shell("echo works").await, "works");
}

async fn workspaces_are_kept_by_the_same_process(rig: Rig) {
    let id = WorkspaceId::new();
    rig.local.create_workspace(id, Origin::Empty, LEAST_QUOTA).await.unwrap();
    assert_eq!(
        rig.local.create_workspace(id, Origin::Empty, LEAST_QUOTA).await.unwrap_err().code(),
        Code::Conflict
    );
    let workspace = rig.local.tree(id).await.unwrap();
    let spec = Spec { id: SandboxId::new(), workspace, layers: vec![], limits: Limits::default() };
    let cell = rig.create(&spec).await.unwrap();
    assert_eq!(cell.shell("echo kept > file; stat -c %U file").await, "agent");
    assert_eq!(rig.local.fullness(id).await.unwrap().quota_bytes, LEAST_QUOTA);
    assert_eq!(rig.local.ids().await.unwrap(), (vec![id], vec![]));
    rig.local.destroy(spec.id).await.unwrap();
    rig.local.remove_workspace(id).await.unwrap();
    assert_eq!(rig.local.tree(id).await.unwrap_err().code(), Code::NotFound);
}
