//! What archives bring back, from whatever keeps workspaces to whatever else does.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use super::super::archive::{self, LeftOut};
use super::super::manifest::Manifest;
use super::super::restoring::restore;
use super::*;

for_each_driver!(
    an_archive_brings_everything_back_elsewhere,
    a_later_archive_holds_only_what_has_changed_however_it_is_hidden,
    a_chain_of_archives_has_a_bound_and_every_link_can_be_restored,
    a_tree_has_the_same_digest_wherever_it_lies,
);

/// Archives by the snapshots that they were made of.
#[derive(Default)]
pub struct Archives(HashMap<WorkspaceSnapshotId, Vec<u8>>);

impl Archives {
    /// Writes an archive of `files`, and reads its manifest back as it would be on another machine.
    pub fn keep(&mut self, files: &Files, base: Option<&Manifest>, left_out: LeftOut) -> Manifest {
        let snapshot = WorkspaceSnapshotId::new();
        let mut bytes = Vec::new();
        let caps = Caps::default();
        let manifest = archive::write(files, snapshot, base, left_out, &caps, &mut bytes).unwrap();
        self.0.insert(snapshot, bytes);
        let mut written = Vec::new();
        manifest.write(&mut written).unwrap();
        assert_eq!(Manifest::read(&mut &*written, &caps).unwrap(), manifest);
        manifest
    }

    /// Restores on a driver's store, and returns the files.
    pub fn bring(&self, manifest: &Manifest, workspaces: &dyn Workspaces) -> Files {
        let snapshot = WorkspaceSnapshotId::new();
        workspaces.receive(snapshot, &mut |to| self.restore(manifest, to)).unwrap();
        workspaces.snapshot_files(snapshot).unwrap()
    }

    pub fn restore(&self, manifest: &Manifest, to: &Path) -> kernel::Result<()> {
        let mut open = |snapshot| Ok(Box::new(Cursor::new(self.0[&snapshot].clone())) as Box<dyn Read>);
        restore(manifest, &mut open, &Caps::default(), to)
    }

    fn bytes(&self, manifest: &Manifest) -> usize {
        self.0[&manifest.archives.last().unwrap().snapshot].len()
    }
}

/// Times of the last change of everything, which a restore brings back too.
fn times(files: &Files) -> BTreeMap<Vec<u8>, (i64, u64)> {
    let mut times = BTreeMap::new();
    let mut add = |seen: &Seen<'_>| {
        if seen.kind != Kind::Special {
            times.insert(seen.path.to_vec(), (seen.stat.st_mtime, seen.stat.st_mtime_nsec));
        }
        Ok(())
    };
    files.walk(b"", &Caps::default(), &mut add).unwrap();
    times
}

fn snapshot_of(workspaces: &dyn Workspaces, id: WorkspaceId) -> Files {
    let snapshot = WorkspaceSnapshotId::new();
    workspaces.snapshot(id, snapshot, Mounted::Nowhere).unwrap();
    workspaces.snapshot_files(snapshot).unwrap()
}

fn an_archive_brings_everything_back_elsewhere(ground: &Ground) {
    let workspaces = ground.open();
    let (id, again) = (WorkspaceId::new(), WorkspaceId::new());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    {
        let mount = ground.mount(&*workspaces, id);
        fill(&mount.path);
        std::fs::create_dir_all(mount.path.join("x".repeat(200)).join("y".repeat(200))).unwrap();
        std::fs::write(mount.path.join("x".repeat(200)).join("y".repeat(200)).join("deep"), "deep").unwrap();
        let holes = std::fs::File::create(mount.path.join("holes")).unwrap();
        holes.write_all_at(b"middle", 5 << 20).unwrap();
        holes.set_len(64 << 20).unwrap();
        std::fs::File::create(mount.path.join("nothing")).unwrap();
        given_away(&mount.path);
    }
    let files = snapshot_of(&*workspaces, id);
    let mut archives = Archives::default();
    let manifest = archives.keep(&files, None, LeftOut::Nothing);
    assert_eq!(manifest.digest(), archive::scan(&files, &Caps::default()).unwrap().digest());
    assert!(archives.bytes(&manifest) < 64 << 10, "{}", archives.bytes(&manifest));
    let (listed, changed) = (listing(&files), times(&files));
    for driver in [Driver::Overlay, Driver::Directory, Driver::Copy] {
        let elsewhere = open(driver, &ground.beside(driver.as_str()));
        let brought = archives.bring(&manifest, &*elsewhere);
        assert_eq!(listing(&brought), listed);
        assert_eq!(times(&brought), changed);
        assert_eq!(archive::scan(&brought, &Caps::default()).unwrap().digest(), manifest.digest());
    }
    let snapshot = WorkspaceSnapshotId::new();
    workspaces.receive(snapshot, &mut |to| archives.restore(&manifest, to)).unwrap();
    workspaces.create(again, Origin::Snapshot(snapshot), DEFAULT_QUOTA).unwrap();
    let mount = ground.mount(&*workspaces, again);
    assert_eq!(listing_of(&mount.path), listed);
    let about = |path: &str| std::fs::metadata(mount.path.join(path)).unwrap();
    assert_eq!(about("run.sh").ino(), about("shared/run.sh").ino(), "one file with two names");
    assert_eq!((about("run.sh").uid(), about("src/deep").uid()), (OWNER, OWNER));
    assert!(about("holes").blocks() < 2048, "holes are holes again");
}

fn a_later_archive_holds_only_what_has_changed_however_it_is_hidden(ground: &Ground) {
    let workspaces = ground.open();
    let id = WorkspaceId::new();
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let mut noise = vec![0; 3 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    {
        let mount = ground.mount(&*workspaces, id);
        fill(&mount.path);
        std::fs::write(mount.path.join("large"), &noise).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::open(mount.path.join("secret")).unwrap().set_modified(long_ago).unwrap();
    }
    let mut archives = Archives::default();
    let first = archives.keep(&snapshot_of(&*workspaces, id), None, LeftOut::Nothing);
    assert!(archives.bytes(&first) > noise.len());
    {
        let mount = ground.mount(&*workspaces, id);
        let path = mount.path.join("secret");
        // As long as before and, as it says itself, as old.
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "MINE").unwrap();
        std::fs::File::open(&path).unwrap().set_modified(before).unwrap();
        std::fs::remove_file(mount.path.join("src/deep/3.txt")).unwrap();
        std::fs::rename(mount.path.join("src/deep/4.txt"), mount.path.join("src/deep/3.txt")).unwrap();
        std::fs::set_permissions(mount.path.join("large"), std::fs::Permissions::from_mode(0o400)).unwrap();
        std::fs::remove_file(mount.path.join("src/run")).unwrap();
        std::fs::create_dir(mount.path.join("src/run")).unwrap();
        std::fs::remove_dir(mount.path.join("empty")).unwrap();
        symlink("src", mount.path.join("empty")).unwrap();
        given_away(&mount.path);
    }
    let files = snapshot_of(&*workspaces, id);
    let second = archives.keep(&files, Some(&first), LeftOut::Nothing);
    assert_eq!(second.archives.len(), 2);
    assert!(archives.bytes(&second) < 32 << 10, "{}", archives.bytes(&second));
    let elsewhere = Trees::copy(&ground.beside("elsewhere")).unwrap();
    let brought = archives.bring(&second, &elsewhere);
    assert_eq!(listing(&brought), listing(&files));
    assert_eq!(times(&brought), times(&files));
    assert_eq!(listing(&brought)["secret"], "file 600 MINE");
    assert_ne!(second.digest(), first.digest());
    // The earlier one is as it was.
    assert_eq!(listing(&archives.bring(&first, &elsewhere))["secret"], "file 600 mine");
    // Nothing is needed of an archive of which everything was replaced.
    std::fs::write(ground.mount(&*workspaces, id).path.join("large"), "small").unwrap();
    let mount = ground.mount(&*workspaces, id);
    for name in ["src", "shared", "run.sh", "secret", "odd"] {
        let path = mount.path.join(name);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"odd \xff\n%name");
    std::fs::remove_file(mount.path.join(odd)).unwrap();
    drop(mount);
    let third = archives.keep(&snapshot_of(&*workspaces, id), Some(&second), LeftOut::Nothing);
    assert_eq!(third.archives.len(), 1);
}

fn a_chain_of_archives_has_a_bound_and_every_link_can_be_restored(ground: &Ground) {
    let workspaces = ground.open();
    let id = WorkspaceId::new();
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let (mut archives, mut kept) = (Archives::default(), Vec::<(Manifest, _)>::new());
    let elsewhere = Trees::copy(&ground.beside("elsewhere")).unwrap();
    for round in 0..20 {
        let mount = ground.mount(&*workspaces, id);
        std::fs::write(mount.path.join(round.to_string()), format!("round {round}")).unwrap();
        drop(mount);
        let files = snapshot_of(&*workspaces, id);
        let base = kept.last().map(|(manifest, _)| manifest);
        let manifest = archives.keep(&files, base, LeftOut::Nothing);
        kept.push((manifest, listing(&files)));
    }
    let lengths: Vec<usize> = kept.iter().map(|(manifest, _)| manifest.archives.len()).collect();
    assert_eq!(lengths, (1..=16).chain(1..=4).collect::<Vec<_>>());
    for (manifest, then) in &kept {
        assert_eq!(listing(&archives.bring(manifest, &elsewhere)), *then);
    }
}

fn a_tree_has_the_same_digest_wherever_it_lies(ground: &Ground) {
    let workspaces = ground.open();
    let id = WorkspaceId::new();
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    let digest = |files: &Files| archive::scan(files, &Caps::default()).unwrap().digest().to_string();
    fill(&ground.mount(&*workspaces, id).path);
    let first = snapshot_of(&*workspaces, id);
    // What every driver, every machine and every version of Steading has to say of this tree.
    assert_eq!(digest(&first), "3ccae94b4366b7be5c56d06f8570d2510395f5aa78ce0969578eb68e8ff5c739");
    let change = |change: &dyn Fn(&Path)| {
        change(&ground.mount(&*workspaces, id).path);
        digest(&snapshot_of(&*workspaces, id))
    };
    let same = change(&|root| {
        std::fs::File::open(root.join("secret")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        std::fs::write(root.join("passing"), "").unwrap();
        std::fs::remove_file(root.join("passing")).unwrap();
    });
    assert_eq!(same, digest(&first));
    let mut seen = vec![same];
    let open = || std::fs::Permissions::from_mode(0o644);
    for what in [
        &|root| std::fs::set_permissions(root.join("secret"), open()).unwrap(),
        &|root| std::fs::write(root.join("secret"), "mine!").unwrap(),
        &|root| std::fs::rename(root.join("secret"), root.join("secret2")).unwrap(),
        &|root| std::fs::create_dir(root.join("secret")).unwrap(),
        &|root| std::fs::remove_file(root.join("src/run")).unwrap(),
        &|root| symlink("../run.s", root.join("src/run")).unwrap(),
    ] as [&dyn Fn(&Path); 6]
    {
        let now = change(what);
        assert!(!seen.contains(&now));
        seen.push(now);
    }
}
