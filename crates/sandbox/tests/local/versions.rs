//! What stays the same from run to run, and what changes beneath it.

use std::collections::BTreeSet;
use std::time::Instant;

use kernel::{BlobHash, Code, SandboxId, WorkspaceId, WorkspaceSnapshotId};
use sandbox::local::Swap;
use sandbox::runner::{Limits, Runner, Spec};
use sandbox::workspace::{LEAST_QUOTA, Mounted, Origin};

use super::every::on_every_runner;
use super::rig::{Cell, Rig, rig_with_spares};

/// A runner that says which version it is.
async fn runner(rig: &Rig, version: u32) -> BlobHash {
    let program = format!("#!/bin/sh\n[ \"$1\" = check ] || echo version {version}\n");
    rig.local.add_runner(&[("hand", program.as_bytes())]).await.unwrap()
}

async fn current(cell: &Cell) -> String {
    cell.shell("/run/steading/runner/current/hand").await
}

on_every_runner![
    a_runner_is_swapped_beneath_what_runs_and_one_that_fails_its_check_is_not,
    programs_of_a_builder_lie_beside_the_hand_and_their_check_is_the_versions,
];

async fn a_runner_is_swapped_beneath_what_runs_and_one_that_fails_its_check_is_not(rig: Rig) {
    let cell = rig.cell().await;
    assert_eq!(cell.shell("/run/steading/runner/current/hand check && echo whole").await, "whole");
    let [first, second] = [runner(&rig, 1).await, runner(&rig, 2).await];
    assert_eq!(runner(&rig, 1).await, first, "the same files are the same version");
    assert_ne!(first, second);
    assert_eq!(rig.local.swap_runner(cell.id, &cell.session, first).await.unwrap(), Swap::Done);
    assert_eq!(current(&cell).await, "version 1");
    // What has begun goes on with the file that it has.
    let begins =
        "sleep 1000 < /run/steading/runner/current/hand & until [ $(cat /proc/$!/comm) = sleep ]; do :; done";
    cell.shell(begins).await;
    let old = "f=$(pgrep -x sleep); grep -c 'version 1' /proc/$f/fd/0; readlink /proc/$f/fd/0";
    let begun = Instant::now();
    rig.local.swap_runner(cell.id, &cell.session, second).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(current(&cell).await, "version 2");
    assert_eq!(cell.shell(old).await, format!("1\n/run/steading/runners/{first}/hand"));
    assert!(took.as_secs() < 10, "{took:?}");
    // One that fails, and one that is not there.
    let bad = rig.local.add_runner(&[("hand", b"#!/bin/sh\nexit 3\n")]).await.unwrap();
    for bad in [bad, BlobHash::of(b"none")] {
        let refused = rig.local.swap_runner(cell.id, &cell.session, bad).await.unwrap();
        assert_eq!((refused, current(&cell).await), (Swap::Reverted, "version 2".to_owned()));
    }
    assert_eq!(rig.local.use_runner(BlobHash::of(b"none")).await.unwrap_err().code(), Code::NotFound);
    // Nobody inside changes what it is.
    let attempts = "cd /run/steading; ln -sf /bin/false runner/current; rm -rf runner runners; mv runner x; mv runners x; \
                    echo x > runner/current/hand; touch runners/x; chmod 777 runners; true";
    assert!(!cell.shell(attempts).await.is_empty());
    assert_eq!(current(&cell).await, "version 2");
    for name in ["../x", ".x", "", "a/b"] {
        assert!(rig.local.add_runner(&[(name, b"x")]).await.is_err(), "{name}");
    }
    assert_eq!(cell.shell("ls -A").await, "", "nothing of it lies in the workspace");
}

/// Programs that a builder has put beside the hand.
async fn beside(rig: &Rig, agent: &str, check: &str) -> BlobHash {
    let [agent, check] = [agent, check].map(|text| format!("#!/bin/sh\n{text}\n"));
    rig.local.add_runner(&[("agent", agent.as_bytes()), ("check", check.as_bytes())]).await.unwrap()
}

async fn programs_of_a_builder_lie_beside_the_hand_and_their_check_is_the_versions(rig: Rig) {
    let cell = rig.cell().await;
    let own = rig.local.runner().await.unwrap();
    let good = beside(&rig, "echo one", "exec \"${0%/*}/agent\" >/dev/null").await;
    assert_eq!(rig.local.swap_runner(cell.id, &cell.session, good).await.unwrap(), Swap::Done);
    let both = "cd /run/steading/runner/current; ./agent; ./hand check && ls";
    assert_eq!(cell.shell(both).await, "one\nagent\ncheck\nhand");
    for (agent, check) in
        [("echo two", "exit 3"), ("echo three", "exec /run/nothing"), ("echo four", "kill $$")]
    {
        let bad = beside(&rig, agent, check).await;
        assert_eq!(
            rig.local.swap_runner(cell.id, &cell.session, bad).await.unwrap(),
            Swap::Reverted,
            "{check}"
        );
        assert_eq!(cell.shell("/run/steading/runner/current/agent").await, "one");
    }
    // Versions that nobody has do not pile up, and the one that a sandbox has stays.
    for version in 0..8 {
        beside(&rig, &format!("echo {version}"), "true").await;
    }
    assert_eq!(
        cell.shell("ls /run/steading/runners | wc -l").await,
        "6",
        "four, the one that is in use, and the first"
    );
    assert_eq!(cell.shell("/run/steading/runner/current/agent").await, "one");
    assert_eq!(rig.local.swap_runner(cell.id, &cell.session, own).await.unwrap(), Swap::Done);
    assert_eq!(cell.shell("ls /run/steading/runner/current").await, "hand");
}

#[tokio::test]
async fn a_hundred_runs_of_a_frozen_workspace_begin_with_the_same_bytes_across_two_runners() {
    let rig = rig_with_spares(1);
    let (id, frozen) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
    let start = async |id: WorkspaceId| {
        let workspace = rig.local.tree(id).await.unwrap();
        let spec = Spec { id: SandboxId::new(), workspace, layers: Vec::new(), limits: Limits::default() };
        rig.create(&spec).await.unwrap()
    };
    rig.local.create_workspace(id, Origin::Empty, LEAST_QUOTA).await.unwrap();
    let maker = start(id).await;
    let fill = "mkdir -p src/deep && for i in $(seq 50); do echo $i > src/deep/$i; done; ln -s deep src/link; \
                printf '#!/bin/sh\necho run\n' > run; chmod 755 run; ln run again";
    assert_eq!(maker.shell(fill).await, "");
    rig.local.destroy(maker.id).await.unwrap();
    rig.local.snapshot(id, frozen, Mounted::Nowhere).await.unwrap();
    let digest = rig.local.digest(frozen).await.unwrap();
    // It is edited on purpose, which changes nothing of what is frozen.
    let editor = start(id).await;
    assert_eq!(editor.shell("echo more >> run").await, "");
    rig.local.destroy(editor.id).await.unwrap();
    let edited = WorkspaceSnapshotId::new();
    rig.local.snapshot(id, edited, Mounted::Nowhere).await.unwrap();
    assert_ne!(rig.local.digest(edited).await.unwrap(), digest);

    let runners = [runner(&rig, 1).await, runner(&rig, 2).await];
    let (mut digests, mut versions, mut listings) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for run in 0..100 {
        rig.local.use_runner(runners[run / 50]).await.unwrap();
        let (fork, before) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
        rig.local.create_workspace(fork, Origin::Snapshot(frozen), LEAST_QUOTA).await.unwrap();
        rig.local.snapshot(fork, before, Mounted::Nowhere).await.unwrap();
        digests.insert(rig.local.digest(before).await.unwrap());
        let cell = start(fork).await;
        let said = cell.shell("/run/steading/runner/current/hand; (find . -printf '%p %m %y %l\n' | sort; find . -type f | sort | xargs cat) | sha256sum; \
                               rm -r src; echo run > run").await;
        let (version, listing) = said.split_once('\n').unwrap();
        versions.insert(version.to_owned());
        listings.insert(listing.to_owned());
        rig.local.destroy(cell.id).await.unwrap();
        rig.local.remove_workspace(fork).await.unwrap();
        rig.local.remove_snapshot(before).await.unwrap();
    }
    assert_eq!(digests, BTreeSet::from([digest]));
    assert_eq!(versions, BTreeSet::from(["version 1".to_owned(), "version 2".to_owned()]));
    assert_eq!(listings.len(), 1, "{listings:?}");
    assert_eq!(rig.local.digest(frozen).await.unwrap(), digest);
}
