//! What holds when many do it at once.

use super::*;

for_each_driver!(
    whatever_happens_at_once_everything_that_is_seen_is_whole,
    one_of_many_that_take_an_id_has_it,
);

/// Two files that are only ever written together.
fn write_pair(root: &Path, value: usize) {
    std::fs::write(root.join("a"), value.to_string()).unwrap();
    for number in 0..20 {
        std::fs::write(root.join(format!("b{number}")), value.to_string()).unwrap();
    }
}

fn whole(files: &Files) -> Option<String> {
    let seen = listing(files);
    let value = seen.get("a").cloned();
    let others = seen.iter().filter(|(path, _)| path.starts_with('b'));
    let same: Vec<_> = others.filter(|(_, said)| Some(*said) == value.as_ref()).collect();
    assert_eq!((seen.len(), same.len()), (21, 20), "{seen:?}");
    value
}

fn whatever_happens_at_once_everything_that_is_seen_is_whole(ground: &Ground) {
    let workspaces = ground.open();
    let workspaces = &*workspaces;
    let roots: Vec<(WorkspaceId, WorkspaceSnapshotId)> =
        (0..3).map(|_| (WorkspaceId::new(), WorkspaceSnapshotId::new())).collect();
    for (number, (id, snapshot)) in roots.iter().enumerate() {
        workspaces.create(*id, Origin::Empty, DEFAULT_QUOTA).unwrap();
        write_pair(&ground.mount(workspaces, *id).path, number);
        workspaces.snapshot(*id, *snapshot, Mounted::Nowhere).unwrap();
    }
    std::thread::scope(|scope| {
        for (id, snapshot) in &roots {
            // Three do different things with one workspace and its snapshot; nobody mounts it.
            scope.spawn(|| {
                // The snapshot is there in the end, so this ends.
                let mut forked = 0;
                while forked < 4 {
                    let fork = WorkspaceId::new();
                    match workspaces.create(fork, Origin::Snapshot(*snapshot), DEFAULT_QUOTA) {
                        Ok(()) => {
                            whole(&Files::of(ground.mount(workspaces, fork).path.clone())).unwrap();
                            forked += 1;
                            workspaces.remove(fork).unwrap();
                        }
                        Err(error) => assert_eq!(error.code(), Code::NotFound, "{error:?}"),
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..12 {
                    let passing = WorkspaceSnapshotId::new();
                    workspaces.snapshot(*id, passing, Mounted::Nowhere).unwrap();
                    whole(&workspaces.snapshot_files(passing).unwrap()).unwrap();
                    workspaces.rollback(*id, passing).unwrap();
                    workspaces.remove_snapshot(passing).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..12 {
                    workspaces.remove_snapshot(*snapshot).unwrap();
                    workspaces.snapshot(*id, *snapshot, Mounted::Nowhere).unwrap();
                }
            });
        }
    });
    for (number, (id, snapshot)) in roots.iter().enumerate() {
        let value = Some(format!("file 644 {number}"));
        assert_eq!(whole(&workspaces.snapshot_files(*snapshot).unwrap()), value);
        assert_eq!(whole(&Files::of(ground.mount(workspaces, *id).path.clone())), value);
        workspaces.remove(*id).unwrap();
        workspaces.remove_snapshot(*snapshot).unwrap();
    }
    rules::nothing_is_left(ground);
}

fn one_of_many_that_take_an_id_has_it(ground: &Ground) {
    let workspaces = ground.open();
    let (id, snapshot) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
    let outcomes = |call: &(dyn Fn() -> kernel::Result<()> + Sync)| {
        let results: Vec<kernel::Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(call)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (1, 5));
        assert!(refused.into_iter().all(|result| code(result) == Code::Conflict));
    };
    outcomes(&|| workspaces.create(id, Origin::Empty, DEFAULT_QUOTA));
    write_pair(&ground.mount(&*workspaces, id).path, 7);
    outcomes(&|| workspaces.snapshot(id, snapshot, Mounted::Nowhere));
    assert_eq!(whole(&workspaces.snapshot_files(snapshot).unwrap()), Some("file 644 7".to_owned()));
    let workspaces = &*workspaces;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                workspaces.remove(id).unwrap();
                workspaces.remove_snapshot(snapshot).unwrap();
            });
        }
    });
    rules::nothing_is_left(ground);
}
