//! What holds for one caller after another.

use super::*;

for_each_driver!(
    a_fork_has_what_the_snapshot_has_and_neither_sees_the_other,
    what_is_removed_and_replaced_is_so_in_every_later_snapshot,
    a_return_puts_everything_back_and_the_snapshot_stays,
    ids_are_taken_once_and_unknown_ones_are_not_found,
    a_quota_has_a_least_and_nothing_larger_is_brought_in,
    so_many_snapshots_that_layers_are_made_one_keep_all,
    everything_belongs_to_the_user_of_sandboxes,
    what_is_received_is_a_snapshot_or_nothing,
    directories_of_any_depth_come_and_go,
    a_snapshot_without_its_workspace_and_a_workspace_without_its_snapshot_stay_whole,
    a_second_process_is_kept_out_where_only_one_may_be,
    a_file_of_holes_takes_no_room,
    a_quota_holds_where_it_is_said_to_be_enforced,
    nobody_inside_can_hide_anything_from_a_snapshot,
);

fn a_fork_has_what_the_snapshot_has_and_neither_sees_the_other(ground: &Ground) {
    let workspaces = ground.open();
    let (first, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(first, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, first);
    fill(&mount.path);
    let before = listing_of(&mount.path);
    assert_eq!(before.len(), 52);
    assert_eq!(before["odd \\xff\\n%name"], "file 644 odd");
    workspaces.snapshot(first, snapshot, Mounted::Paused).unwrap();
    assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), before);

    std::fs::write(mount.path.join("run.sh"), "changed").unwrap();
    std::fs::remove_file(mount.path.join("secret")).unwrap();
    let changed = listing_of(&mount.path);
    assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), before);

    workspaces.create(fork, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    let other = ground.mount(&*workspaces, fork);
    assert_eq!(listing_of(&other.path), before);
    let inode = |path: &str| std::fs::metadata(other.path.join(path)).unwrap().ino();
    assert_eq!(inode("run.sh"), inode("shared/run.sh"), "one file with two names");
    std::fs::write(other.path.join("new"), "of the fork").unwrap();
    std::fs::write(other.path.join("src/deep/1.txt"), "of the fork").unwrap();
    assert_eq!(listing_of(&mount.path), changed);
    assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), before);
}

fn what_is_removed_and_replaced_is_so_in_every_later_snapshot(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork) = (WorkspaceId::new(), WorkspaceId::new());
    let snapshots: [WorkspaceSnapshotId; 3] = std::array::from_fn(|_| WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    {
        let mount = ground.mount(&*workspaces, id);
        fill(&mount.path);
        std::fs::create_dir_all(mount.path.join("old/inner")).unwrap();
        std::fs::write(mount.path.join("old/inner/a"), "a").unwrap();
        std::fs::write(mount.path.join("old/b"), "b").unwrap();
    }
    workspaces.snapshot(id, snapshots[0], Mounted::Nowhere).unwrap();
    let mount = ground.mount(&*workspaces, id);
    std::fs::remove_file(mount.path.join("src/deep/1.txt")).unwrap();
    std::fs::remove_dir_all(mount.path.join("shared")).unwrap();
    // A directory of the same name, in which nothing of the old one may be seen.
    std::fs::remove_dir_all(mount.path.join("old")).unwrap();
    std::fs::create_dir_all(mount.path.join("old/inner")).unwrap();
    std::fs::write(mount.path.join("old/inner/c"), "c").unwrap();
    // A directory in place of a file, and a file in place of a directory.
    std::fs::remove_file(mount.path.join("secret")).unwrap();
    std::fs::create_dir(mount.path.join("secret")).unwrap();
    std::fs::remove_dir(mount.path.join("empty")).unwrap();
    std::fs::write(mount.path.join("empty"), "no more").unwrap();
    let second = listing_of(&mount.path);
    workspaces.snapshot(id, snapshots[1], Mounted::Paused).unwrap();
    assert_eq!(listing(&workspaces.snapshot_files(snapshots[1]).unwrap()), second);
    // The other way round again, over what was hidden.
    std::fs::remove_dir(mount.path.join("secret")).unwrap();
    std::fs::write(mount.path.join("secret"), "again").unwrap();
    std::fs::remove_file(mount.path.join("empty")).unwrap();
    std::fs::remove_dir_all(mount.path.join("old")).unwrap();
    std::fs::write(mount.path.join("src/deep/1.txt"), "again").unwrap();
    let third = listing_of(&mount.path);
    drop(mount);
    workspaces.snapshot(id, snapshots[2], Mounted::Nowhere).unwrap();
    assert_eq!(listing(&workspaces.snapshot_files(snapshots[1]).unwrap()), second);
    assert_eq!(listing(&workspaces.snapshot_files(snapshots[2]).unwrap()), third);
    assert_eq!(listing_of(&ground.mount(&*workspaces, id).path), third);
    workspaces.create(fork, Origin::Snapshot(snapshots[1]), DEFAULT_QUOTA).unwrap();
    assert_eq!(listing_of(&ground.mount(&*workspaces, fork).path), second);
}

fn a_return_puts_everything_back_and_the_snapshot_stays(ground: &Ground) {
    let workspaces = ground.open();
    let (id, snapshot) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    fill(&ground.mount(&*workspaces, id).path);
    workspaces.snapshot(id, snapshot, Mounted::Nowhere).unwrap();
    let before = listing(&workspaces.snapshot_files(snapshot).unwrap());
    for round in 0..3 {
        {
            let mount = ground.mount(&*workspaces, id);
            std::fs::write(mount.path.join("added"), "x").unwrap();
            std::fs::remove_dir_all(mount.path.join("src")).unwrap();
        }
        workspaces.rollback(id, snapshot).unwrap();
        assert_eq!(listing_of(&ground.mount(&*workspaces, id).path), before, "round {round}");
    }
    assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), before);
    assert_eq!(code(workspaces.rollback(id, WorkspaceSnapshotId::new())), Code::NotFound);
    assert_eq!(listing_of(&ground.mount(&*workspaces, id).path), before);
}

fn ids_are_taken_once_and_unknown_ones_are_not_found(ground: &Ground) {
    let workspaces = ground.open();
    let (id, other) = (WorkspaceId::new(), WorkspaceId::new());
    let (snapshot, unknown) = (WorkspaceSnapshotId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    workspaces.snapshot(id, snapshot, Mounted::Nowhere).unwrap();
    assert_eq!(code(workspaces.create(id, Origin::Empty, DEFAULT_QUOTA)), Code::Conflict);
    assert_eq!(code(workspaces.snapshot(id, snapshot, Mounted::Nowhere)), Code::Conflict);
    assert_eq!(code(workspaces.receive(snapshot, &mut |_| Ok(()))), Code::Conflict);
    assert_eq!(code(workspaces.create(other, Origin::Snapshot(unknown), DEFAULT_QUOTA)), Code::NotFound);
    assert_eq!(code(workspaces.tree(other)), Code::NotFound);
    assert_eq!(code(workspaces.fullness(other)), Code::NotFound);
    assert_eq!(code(workspaces.snapshot(other, unknown, Mounted::Nowhere)), Code::NotFound);
    assert_eq!(code(workspaces.rollback(other, snapshot)), Code::NotFound);
    assert_eq!(code(workspaces.snapshot_files(unknown)), Code::NotFound);
    assert_eq!(workspaces.ids().unwrap(), (vec![id], vec![snapshot]));
    for _ in 0..2 {
        workspaces.remove(id).unwrap();
        workspaces.remove_snapshot(snapshot).unwrap();
    }
    assert_eq!(workspaces.ids().unwrap(), (vec![], vec![]));
}

fn a_quota_has_a_least_and_nothing_larger_is_brought_in(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    let small = workspaces.create(id, Origin::Empty, LEAST_QUOTA - 1).unwrap_err();
    assert_eq!((small.code(), small.to_string().contains("536870912")), (Code::InvalidInput, true));
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, id);
    std::fs::create_dir(mount.path.join("d")).unwrap();
    std::fs::write(mount.path.join("d/three"), vec![7u8; 3 << 20]).unwrap();
    std::fs::hard_link(mount.path.join("d/three"), mount.path.join("again")).unwrap();
    rustix::fs::syncfs(std::fs::File::open(&mount.path).unwrap()).unwrap();
    let full = workspaces.fullness(id).unwrap();
    assert_eq!((full.files, full.quota_bytes), (3, DEFAULT_QUOTA));
    assert!((3 << 20..4 << 20).contains(&full.bytes), "{full:?}");
    assert_eq!(full.enforced, ground.driver == Driver::Btrfs);

    let large = std::fs::File::create(mount.path.join("large")).unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&large, flags, 0, LEAST_QUOTA).unwrap();
    // Copies keep what is written, and leave out what is only reserved.
    for at in (0..LEAST_QUOTA).step_by(64 << 20) {
        std::os::unix::fs::FileExt::write_all_at(&large, &[1; 1 << 20], at).unwrap();
    }
    drop((large, mount));
    if ground.driver == Driver::Overlay || ground.driver == Driver::Btrfs {
        workspaces.snapshot(id, snapshot, Mounted::Nowhere).unwrap();
        let refused = workspaces.create(fork, Origin::Snapshot(snapshot), LEAST_QUOTA);
        assert_eq!(code(refused), Code::QuotaExceeded);
        assert_eq!(workspaces.ids().unwrap().0, [id]);
        workspaces.create(fork, Origin::Snapshot(snapshot), LEAST_QUOTA * 2).unwrap();
    }
}

fn so_many_snapshots_that_layers_are_made_one_keep_all(ground: &Ground) {
    let workspaces = ground.open();
    let id = WorkspaceId::new();
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    fill(&ground.mount(&*workspaces, id).path);
    let mut kept = Vec::new();
    for round in 0..36 {
        let mount = ground.mount(&*workspaces, id);
        std::fs::write(mount.path.join("round"), round.to_string()).unwrap();
        std::fs::write(mount.path.join(format!("src/{round}")), "x").unwrap();
        if round > 3 {
            std::fs::remove_file(mount.path.join(format!("src/{}", round - 3))).unwrap();
        }
        std::fs::remove_file(mount.path.join(format!("src/deep/{round}.txt"))).unwrap();
        let now = listing_of(&mount.path);
        let snapshot = WorkspaceSnapshotId::new();
        let mounted = if round % 7 == 0 { Mounted::Paused } else { Mounted::Nowhere };
        drop((mounted == Mounted::Nowhere).then_some(mount));
        workspaces.snapshot(id, snapshot, mounted).unwrap();
        kept.push((snapshot, now));
    }
    if let Tree::Overlay { lowers, .. } = workspaces.tree(id).unwrap() {
        assert!(lowers.len() <= 32, "{}", lowers.len());
    }
    // The layers that several need are there as long as one of them is.
    for (snapshot, _) in kept.extract_if(.., |(_, now)| now["round"].ends_with('3')).collect::<Vec<_>>() {
        workspaces.remove_snapshot(snapshot).unwrap();
    }
    let last = kept.last().unwrap().1.clone();
    assert_eq!(listing_of(&ground.mount(&*workspaces, id).path), last);
    drop(workspaces);
    let workspaces = ground.open();
    for (snapshot, then) in kept {
        assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), then);
        workspaces.remove_snapshot(snapshot).unwrap();
    }
    assert_eq!(listing_of(&ground.mount(&*workspaces, id).path), last);
    workspaces.remove(id).unwrap();
    nothing_is_left(ground);
}

fn everything_belongs_to_the_user_of_sandboxes(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    fill(&ground.mount(&*workspaces, id).path);
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    workspaces.create(fork, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    for id in [id, fork] {
        let mount = ground.mount(&*workspaces, id);
        let top = std::fs::metadata(&mount.path).unwrap();
        assert_eq!((top.uid(), top.gid(), top.mode() & 0o777), (OWNER, OWNER, 0o755));
        let mut add = |seen: &Seen<'_>| {
            assert_eq!(
                (seen.stat.st_uid, seen.stat.st_gid),
                (OWNER, OWNER),
                "{:?}",
                seen.path.escape_ascii()
            );
            Ok(())
        };
        Files::of(mount.path.clone()).walk(b"", &Caps::default(), &mut add).unwrap();
    }
    // Nobody else on the host may look inside.
    let above = std::fs::metadata(ground.root.join("workspaces")).unwrap();
    assert_eq!(above.mode() & 0o777, 0o700);
}

fn what_is_received_is_a_snapshot_or_nothing(ground: &Ground) {
    let workspaces = ground.open();
    let (snapshot, id) = (WorkspaceSnapshotId::new(), WorkspaceId::new());
    let failed = workspaces.receive(snapshot, &mut |to| {
        std::fs::write(to.join("half"), "").unwrap();
        Err(kernel::Error::new(Code::Timeout, "too slow"))
    });
    assert_eq!(code(failed), Code::Timeout);
    assert_eq!(code(workspaces.snapshot_files(snapshot)), Code::NotFound);
    workspaces
        .receive(snapshot, &mut |to| {
            fill(to);
            Ok(())
        })
        .unwrap();
    workspaces.create(id, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    let seen = listing_of(&ground.mount(&*workspaces, id).path);
    assert_eq!((seen.len(), &*seen["src/deep/7.txt"]), (52, "file 644 number 7"));
}

fn directories_of_any_depth_come_and_go(ground: &Ground) {
    let workspaces = ground.open();
    let (id, snapshot) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, id);
    let deep = |levels: usize, name: &str| {
        let mut at = beneath::root(&mount.path).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, name, 0o755.into()).unwrap();
            at = beneath::directory(&at, name.as_bytes()).unwrap();
        }
        drop(beneath::new_file(&at, b"bottom").unwrap());
    };
    // What is this deep takes its time, and the way is the same for all.
    let levels = if ground.driver == Driver::Copy { 2000 } else { 600 };
    deep(levels, "d");
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    let mut bottom = 0;
    let files = workspaces.snapshot_files(snapshot).unwrap();
    let mut add = |seen: &Seen<'_>| {
        bottom = bottom.max(seen.path.len());
        Ok(())
    };
    files.walk(b"", &Caps::default(), &mut add).unwrap();
    assert_eq!(bottom, 2 * levels + "bottom".len());
    // Deeper than anything is read, but not than anything is removed.
    deep(300, &"e".repeat(250));
    let refused = Files::of(mount.path.clone()).walk(b"", &Caps::default(), &mut |_| Ok(()));
    assert!(refused.unwrap_err().to_string().contains("a path is too long"));
    drop(mount);
    workspaces.remove(id).unwrap();
    workspaces.remove_snapshot(snapshot).unwrap();
    nothing_is_left(ground);
}

fn a_snapshot_without_its_workspace_and_a_workspace_without_its_snapshot_stay_whole(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    fill(&ground.mount(&*workspaces, id).path);
    workspaces.snapshot(id, snapshot, Mounted::Nowhere).unwrap();
    let before = listing(&workspaces.snapshot_files(snapshot).unwrap());
    workspaces.remove(id).unwrap();
    workspaces.create(fork, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    workspaces.remove_snapshot(snapshot).unwrap();
    assert_eq!(listing_of(&ground.mount(&*workspaces, fork).path), before);
    drop(workspaces);
    let workspaces = ground.open();
    assert_eq!(listing_of(&ground.mount(&*workspaces, fork).path), before);
}

fn a_second_process_is_kept_out_where_only_one_may_be(ground: &Ground) {
    let workspaces = ground.open();
    let again = match ground.driver {
        Driver::Overlay => Overlay::open(&ground.root).map(|_| ()),
        Driver::Copy => Trees::copy(&ground.root).map(|_| ()),
        Driver::Btrfs => Trees::btrfs(&ground.root).map(|_| ()),
        Driver::Directory => return,
    };
    assert_eq!(code(again), Code::Unavailable);
    drop(workspaces);
    ground.open();
}

fn a_file_of_holes_takes_no_room(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, id);
    let file = std::fs::File::create(mount.path.join("holes")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (1 << 40) - 3).unwrap();
    drop(file);
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    workspaces.create(fork, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    let copy = std::fs::File::open(ground.mount(&*workspaces, fork).path.join("holes")).unwrap();
    let mut end = [0; 3];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut end, (1 << 40) - 3).unwrap();
    assert_eq!((&end, copy.metadata().unwrap().len()), (b"end", 1 << 40));
    assert!(copy.metadata().unwrap().blocks() < 1024);
}

fn nobody_inside_can_hide_anything_from_a_snapshot(ground: &Ground) {
    let workspaces = ground.open();
    let (id, snapshot) = (WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, id);
    std::fs::create_dir(mount.path.join("d")).unwrap();
    std::fs::write(mount.path.join("d/below"), "seen").unwrap();
    drop(mount);
    workspaces.snapshot(id, WorkspaceSnapshotId::new(), Mounted::Nowhere).unwrap();
    let mount = ground.mount(&*workspaces, id);
    let flags = rustix::fs::XattrFlags::empty();
    for name in [files::OPAQUE, "user.overlay.whiteout", "user.overlay.redirect", "user.overlay.metacopy"] {
        let _ = rustix::fs::setxattr(mount.path.join("d"), name, b"y", flags);
        let _ = rustix::fs::setxattr(mount.path.join("d/below"), name, b"y", flags);
    }
    let hiding = rustix::fs::FileType::CharacterDevice;
    let _ = rustix::fs::mknodat(rustix::fs::CWD, mount.path.join("d/other"), hiding, 0o666.into(), 0);
    std::fs::write(mount.path.join("d/beside"), "seen").unwrap();
    let inside = listing_of(&mount.path);
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    assert_eq!(listing(&workspaces.snapshot_files(snapshot).unwrap()), inside);
    assert_eq!(inside.keys().collect::<Vec<_>>(), ["d", "d/below", "d/beside"]);
}

/// Takes this thread's privileges, and nobody else's.
#[expect(unsafe_code, reason = "the calls take numbers; only the library's own would change all threads")]
fn without_privileges() {
    let user = libc::c_long::from(OWNER);
    for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
        assert_eq!(unsafe { libc::syscall(call, -1i64, user, -1i64) }, 0);
    }
    assert_eq!(rustix::process::geteuid().as_raw(), OWNER);
}

#[test]
fn copies_work_without_privileges_too_and_nothing_is_closed_to_who_removes_it() {
    let ground = Ground::new(Driver::Copy);
    std::os::unix::fs::chown(&ground.root, Some(OWNER), Some(OWNER)).unwrap();
    without_privileges();
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let Tree::Directory { path } = workspaces.tree(id).unwrap() else { panic!("a directory") };
    fill(&path);
    std::fs::set_permissions(path.join("src/deep"), std::fs::Permissions::from_mode(0o555)).unwrap();
    let before = listing_of(&path);
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    workspaces.create(fork, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    let Tree::Directory { path: forked } = workspaces.tree(fork).unwrap() else { panic!("a directory") };
    assert_eq!(listing_of(&forked), before);
    for closed in ["src/deep/er", "src/deep", "src"] {
        std::fs::set_permissions(forked.join(closed), std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    workspaces.remove(fork).unwrap();
    workspaces.remove(id).unwrap();
    workspaces.remove_snapshot(snapshot).unwrap();
    nothing_is_left(&ground);
}

/// Nothing but what is always there lies in the store.
pub(super) fn nothing_is_left(ground: &Ground) {
    for directory in ["workspaces", "snapshots", "layers", "staging"] {
        let place = ground.root.join(directory);
        let inner = std::fs::read_dir(&place).into_iter().flatten().map(|entry| entry.unwrap().path());
        for path in inner {
            let empty = directory == "staging" && std::fs::read_dir(&path).unwrap().next().is_none();
            assert!(empty, "{}", path.display());
        }
    }
}

fn a_quota_holds_where_it_is_said_to_be_enforced(ground: &Ground) {
    let workspaces = ground.open();
    let (id, fork, snapshot) = (WorkspaceId::new(), WorkspaceId::new(), WorkspaceSnapshotId::new());
    workspaces.create(id, Origin::Empty, LEAST_QUOTA).unwrap();
    if !workspaces.fullness(id).unwrap().enforced {
        return;
    }
    // What a compressing file system cannot make smaller.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(1 << 20)
    .collect();
    let write = |id: WorkspaceId, name: &str, most: usize| {
        let mount = ground.mount(&*workspaces, id);
        let mut taken = 0;
        let mut fill = || {
            let mut file = std::fs::File::create(mount.path.join(name))?;
            while taken < most {
                std::io::Write::write_all(&mut file, &noise)?;
                taken += 1;
            }
            Ok::<(), std::io::Error>(())
        };
        assert_eq!(fill().unwrap_err().raw_os_error(), Some(libc::EDQUOT));
        taken
    };
    let taken = write(id, "all", 600);
    assert!((480..=512).contains(&taken), "{taken}");
    workspaces.snapshot(id, snapshot, Mounted::Paused).unwrap();
    // What the fork shares counts as its own, and the same bound holds for it and after a return.
    workspaces.create(fork, Origin::Snapshot(snapshot), LEAST_QUOTA).unwrap();
    write(fork, "more", 40);
    workspaces.rollback(fork, snapshot).unwrap();
    assert!(workspaces.fullness(fork).unwrap().enforced);
    write(fork, "more", 40);
    // Who is full can make room.
    std::fs::remove_file(ground.mount(&*workspaces, fork).path.join("all")).unwrap();
    let room = write(fork, "again", 600);
    assert!((440..=512).contains(&room), "{room}");
}
