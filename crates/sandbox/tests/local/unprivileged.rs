//! The same without privileges: as the user `nobody`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Command;

use kernel::Code;
use sandbox::local::Verdict;
use sandbox::runner::{Limiting, Limits, Runner};

use super::rig::{Rig, nothing_is_left, plainly, rig_in};

const NOBODY: u32 = 65534;

fn rig_of_nobody() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("workspaces")).unwrap();
    for path in [directory.path().to_owned(), directory.path().join("workspaces")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    rig_in(directory, |program, arguments| {
        let mut command: Command = plainly(program, arguments);
        command.uid(NOBODY).gid(NOBODY);
        command
    })
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
