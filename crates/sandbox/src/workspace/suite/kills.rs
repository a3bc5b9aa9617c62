//! What holds when the process is killed, after each of its steps.

use std::process::Command;

use super::*;

for_each_driver!(a_kill_at_any_step_leaves_nothing_half_made);

/// What a child does to the workspace and the snapshot that it is given, with one id that is free.
const CALLS: [&str; 8] =
    ["create", "fork", "snapshot_paused", "snapshot", "rollback", "receive", "remove", "remove_snapshot"];

/// A variable that makes the test below a child: driver, directory, call, ids and number of steps.
const CHILD: &str = "STEADING_TEST_KILLED";

struct Scene {
    call: &'static str,
    id: WorkspaceId,
    snapshot: WorkspaceSnapshotId,
    new: WorkspaceId,
    new_snapshot: WorkspaceSnapshotId,
}

fn act(workspaces: &dyn Workspaces, scene: &Scene) -> kernel::Result<()> {
    match scene.call {
        "create" => workspaces.create(scene.new, Origin::Empty, DEFAULT_QUOTA),
        "fork" => workspaces.create(scene.new, Origin::Snapshot(scene.snapshot), DEFAULT_QUOTA),
        "snapshot_paused" => workspaces.snapshot(scene.id, scene.new_snapshot, Mounted::Paused),
        "snapshot" => workspaces.snapshot(scene.id, scene.new_snapshot, Mounted::Nowhere),
        "rollback" => workspaces.rollback(scene.id, scene.snapshot),
        "receive" => workspaces.receive(scene.new_snapshot, &mut |to| {
            fill(to);
            step();
            Ok(())
        }),
        "remove" => workspaces.remove(scene.id),
        "remove_snapshot" => workspaces.remove_snapshot(scene.snapshot),
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "it is what the other test starts and kills"]
#[expect(clippy::disallowed_methods, reason = "it is how a test tells its child what to do")]
fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let driver = Driver::ALL.into_iter().find(|driver| driver.as_str() == told[0]).unwrap();
    let scene = Scene {
        call: CALLS.into_iter().find(|call| *call == told[2]).unwrap(),
        id: told[3].parse().unwrap(),
        snapshot: told[4].parse().unwrap(),
        new: told[5].parse().unwrap(),
        new_snapshot: told[6].parse().unwrap(),
    };
    let workspaces = open(driver, Path::new(told[1]));
    STEPS.store(told[7].parse().unwrap(), Ordering::SeqCst);
    act(&*workspaces, &scene).unwrap();
}

/// Whether the child was killed before it was done.
fn killed(ground: &Ground, scene: &Scene, steps: i64) -> bool {
    let Scene { call, id, snapshot, new, new_snapshot } = scene;
    let (driver, root) = (ground.driver, ground.root.display());
    let told = format!("{driver} {root} {call} {id} {snapshot} {new} {new_snapshot} {steps}");
    let name = concat!(module_path!(), "::child").split_once("::").unwrap().1;
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--include-ignored", "--quiet"])
        .env(CHILD, told)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert!(signal == Some(libc::SIGKILL) || status.success(), "{call} {steps}: {status}");
    !status.success()
}

fn a_kill_at_any_step_leaves_nothing_half_made(ground: &Ground) {
    ground.in_memory();
    for call in CALLS {
        let mut steps = 0;
        loop {
            steps += 1;
            let scene = Scene {
                call,
                id: WorkspaceId::new(),
                snapshot: WorkspaceSnapshotId::new(),
                new: WorkspaceId::new(),
                new_snapshot: WorkspaceSnapshotId::new(),
            };
            let (then, now) = prepared(ground, &scene);
            let killed = killed(ground, &scene, steps);
            let workspaces = ground.open();
            whole(ground, &*workspaces, &scene, (&then, &now), killed);
            // It can be done again, or was done.
            let again = act(&*workspaces, &scene);
            assert!(again.is_ok() || code(again) == Code::Conflict, "{call} {steps}");
            let (ids, snapshots) = workspaces.ids().unwrap();
            ids.into_iter().for_each(|id| workspaces.remove(id).unwrap());
            snapshots.into_iter().for_each(|snapshot| workspaces.remove_snapshot(snapshot).unwrap());
            rules::nothing_is_left(ground);
            if !killed {
                assert!(steps > 2, "{call} has no steps at which it could be killed");
                break;
            }
        }
    }
}

type Listing = BTreeMap<String, String>;

/// A workspace that has changed since its snapshot was taken.
fn prepared(ground: &Ground, scene: &Scene) -> (Listing, Listing) {
    let workspaces = ground.open();
    workspaces.create(scene.id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    fill(&ground.mount(&*workspaces, scene.id).path);
    workspaces.snapshot(scene.id, scene.snapshot, Mounted::Nowhere).unwrap();
    let mount = ground.mount(&*workspaces, scene.id);
    std::fs::write(mount.path.join("since"), "then").unwrap();
    std::fs::remove_dir_all(mount.path.join("src/deep")).unwrap();
    let now = listing_of(&mount.path);
    (listing(&workspaces.snapshot_files(scene.snapshot).unwrap()), now)
}

fn whole(
    ground: &Ground,
    workspaces: &dyn Workspaces,
    scene: &Scene,
    (then, now): (&Listing, &Listing),
    killed: bool,
) {
    let of_workspace = |id| listing_of(&ground.mount(workspaces, id).path);
    let of_snapshot = |id| listing(&workspaces.snapshot_files(id).unwrap());
    let (ids, snapshots) = workspaces.ids().unwrap();
    let mut expected = (vec![scene.id], vec![scene.snapshot]);
    for id in &ids {
        let seen = of_workspace(*id);
        if *id == scene.id {
            let rolled_back = scene.call == "rollback" && (seen == *then || !killed);
            assert_eq!(&seen, if rolled_back { then } else { now });
        } else {
            assert_eq!(*id, scene.new);
            assert_eq!(seen, if scene.call == "fork" { then.clone() } else { Listing::new() });
            expected.0.push(scene.new);
        }
    }
    for snapshot in &snapshots {
        let seen = of_snapshot(*snapshot);
        if *snapshot == scene.snapshot {
            assert_eq!(&seen, then);
        } else {
            assert_eq!(*snapshot, scene.new_snapshot);
            assert_eq!(&seen, if scene.call == "receive" { then } else { now });
            expected.1.push(scene.new_snapshot);
        }
    }
    match scene.call {
        "remove" if !killed || ids.is_empty() => expected.0.clear(),
        "remove_snapshot" if !killed || snapshots.is_empty() => expected.1.clear(),
        "create" | "fork" if !killed => assert_eq!(ids.len(), 2),
        "snapshot" | "snapshot_paused" | "receive" if !killed => assert_eq!(snapshots.len(), 2),
        _ => {}
    }
    expected.0.sort();
    expected.1.sort();
    let (mut ids, mut snapshots) = (ids, snapshots);
    ids.sort();
    snapshots.sort();
    assert_eq!((ids, snapshots), expected);
    let staging = std::fs::read_dir(ground.root.join("staging")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "what was begun is gone");
}
