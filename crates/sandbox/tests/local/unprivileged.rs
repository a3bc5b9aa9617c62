//! The same without privileges: as the user `nobody`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use kernel::Code;
use sandbox::local::Verdict;
use sandbox::runner::{Limiting, Limits, Runner};

use super::rig::{Rig, nothing_is_left, plainly, rig_in, rig_started};

const NOBODY: u32 = 65534;

fn rig_of_nobody() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("workspaces")).unwrap();
    for path in [directory.path().to_owned(), directory.path().join("workspaces")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // Where this was built, it may be that nobody else gets to.
    let reachable = directory.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_sandbox-host"), &reachable).unwrap();
    rig_in(directory, move |_, arguments| {
        let mut command: Command = plainly(&reachable, arguments);
        command.uid(NOBODY).gid(NOBODY);
        command
    })
}

/// A rig in a namespace of users of which it is root, after a shell there has done `before`.
fn rig_of_a_container(before: &'static str) -> Rig {
    rig_started(move |program, arguments| {
        let mut command = Command::new("/usr/bin/unshare");
        command.args([
            "--user",
            "--map-root-user",
            "/bin/sh",
            "-c",
            &format!("{before}; exec \"$0\" \"$@\""),
        ]);
        command.arg(program).args(arguments);
        command
    })
}

#[tokio::test]
async fn root_of_a_container_without_privileges_is_a_user_like_any_other() {
    let rig = rig_of_a_container("true");
    let findings = rig.local.probe().await.unwrap();
    assert_eq!(findings[0].verdict, Verdict::Works);
    assert!(matches!(findings[3].verdict, Verdict::Degraded { .. }), "{:?}", findings[3]);
}

#[tokio::test]
async fn where_namespaces_are_blocked_nothing_runs_and_the_mend_is_named() {
    let rig = rig_of_a_container("echo 0 > /proc/sys/user/max_user_namespaces");
    let refused = rig.try_cell(Limits::default()).await.map(|cell| cell.id).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.advice(), Some("`sysctl -w user.max_user_namespaces=65536`"));
    let Verdict::Fails { why, mend } = rig.local.probe().await.unwrap()[0].verdict.clone() else {
        panic!("it does not fail");
    };
    assert!(why.starts_with("Users was refused at"), "{why}");
    assert_eq!(mend, "`sysctl -w user.max_user_namespaces=65536`");
    nothing_is_left(rig.directory.path(), &rig.ids()).await;
}

#[tokio::test]
async fn sandboxes_run_and_say_that_their_limits_do_not_hold() {
    let rig = rig_of_nobody();
    let cell = rig.cell().await;
    assert_eq!(cell.limiting, Limiting::Degraded);
    let said = cell
        .shell("id -un; echo kept > file; cat file; cat /proc/1/environ; grep CapEff /proc/self/status")
        .await;
    assert!(said.starts_with("agent\nkept\n"), "{said}");
    assert!(said.contains("CapEff:\t0000000000000000") && said.contains("Permission denied"), "{said}");
    assert_eq!(rig.local.pause(cell.id).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(cell.shell("ulimit -u; ulimit -c").await, format!("{}\n0", Limits::default().pids));
    rig.local.destroy(cell.id).await.unwrap();
    nothing_is_left(rig.directory.path(), &[cell.id]).await;
}

#[tokio::test]
async fn a_probe_says_what_is_missing_and_how_to_have_it() {
    let findings = rig_of_nobody().local.probe().await.unwrap();
    let degraded = findings.iter().filter_map(|finding| match &finding.verdict {
        Verdict::Degraded { mend, .. } => Some((finding.about.as_str(), mend.contains("run as root"))),
        _ => None,
    });
    let expected = ["limits of a sandbox as a whole", "pausing a sandbox", "users of a sandbox's own"];
    assert_eq!(degraded.collect::<Vec<_>>(), expected.map(|about| (about, true)));
    assert_eq!(findings[0].verdict, Verdict::Works);
}
