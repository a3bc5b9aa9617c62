//! What it costs to snapshot, fork, archive and restore a workspace of 30,000 files, held against its targets.
//!
//! `cargo xtask bench sandbox` runs it, as root. Each time stands beside how often a walk over all of the files, measured
//! in the same run, would fit into it: that is what machines can be compared by.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hand::jail::Tree;
use kernel::{WorkspaceId, WorkspaceSnapshotId};
use sandbox::workspace::archive::{self, LeftOut};
use sandbox::workspace::restoring::restore;
use sandbox::workspace::{Caps, DEFAULT_QUOTA, Driver, Mounted, Origin, Workspaces, open, open_as, pool};

const DIRECTORIES: usize = 3_000;
const FILES_EACH: usize = 10;
const TIMES: usize = 15;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        println!("the pool is mounted by root: run this as root");
        return ExitCode::FAILURE;
    }
    let place = tempfile::tempdir().unwrap();
    let (pooled, layered) = (place.path().join("pooled"), place.path().join("layered"));
    let mounted = pool::prepare(&pooled, 8 << 30).unwrap();
    let missed = Cell::new(0);
    measure(&*open(&pooled).unwrap(), &missed);
    measure(&*open_as(Driver::Overlay, &layered).unwrap(), &missed);
    rustix::mount::unmount(mounted, rustix::mount::UnmountFlags::DETACH).unwrap();
    println!("\n{}", if missed.get() == 0 { "all targets are met" } else { "targets are missed" });
    if missed.get() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(workspaces: &dyn Workspaces, missed: &Cell<u32>) {
    let (id, driver) = (WorkspaceId::new(), workspaces.driver());
    workspaces.create(id, Origin::Empty, DEFAULT_QUOTA).unwrap();
    write(workspaces, id, 0..DIRECTORIES * FILES_EACH, "first");
    let first = WorkspaceSnapshotId::new();
    workspaces.snapshot(id, first, Mounted::Nowhere).unwrap();
    let files = workspaces.snapshot_files(first).unwrap();
    let walk = median(TIMES, || {
        files.walk(b"", &Caps::default(), &mut |_| Ok(())).unwrap();
    });
    println!("\n{driver}: {} files; a walk over all takes {walk:.1} ms", DIRECTORIES * FILES_EACH);
    let tell = |what: &str, took: f64, most: Option<f64>| {
        let said = match most {
            Some(most) if took > most => {
                missed.set(missed.get() + 1);
                format!("at most {most} MISSED")
            }
            Some(most) => format!("at most {most}"),
            None => String::new(),
        };
        println!("{what:<44} {took:>9.1} ms  {:>7.2} walks  {said}", took / walk);
    };
    // An upper layer that is mounted is copied; one that is not only becomes another layer.
    let snapshot = median(TIMES, || {
        workspaces.snapshot(id, WorkspaceSnapshotId::new(), Mounted::Nowhere).unwrap();
    });
    tell("snapshot", snapshot, Some(25.0));
    let fork = || {
        let fork = WorkspaceId::new();
        workspaces.create(fork, Origin::Snapshot(first), DEFAULT_QUOTA).unwrap();
    };
    fork();
    tell("fork", median(TIMES, fork), Some(25.0));
    tell("return to a snapshot", median(TIMES, || workspaces.rollback(id, first).unwrap()), Some(100.0));
    tell("digest", median(3, || drop(archive::scan(&files, &Caps::default()).unwrap())), None);

    let mut archives = HashMap::new();
    let mut keep = |snapshot, base| {
        let mut bytes = Vec::new();
        let files = workspaces.snapshot_files(snapshot).unwrap();
        let (caps, left_out) = (Caps::default(), LeftOut::Caches);
        let manifest = archive::write(&files, snapshot, base, left_out, &caps, &mut bytes).unwrap();
        archives.insert(snapshot, bytes);
        manifest
    };
    let full = keep(first, None);
    tell("checkpoint, full", median(3, || drop(keep(first, None))), Some(1_500.0));
    write(workspaces, id, 0..100, "second");
    let second = WorkspaceSnapshotId::new();
    workspaces.snapshot(id, second, Mounted::Nowhere).unwrap();
    let later = keep(second, Some(&full));
    tell("checkpoint, 100 files changed", median(3, || drop(keep(second, Some(&full)))), Some(300.0));
    println!("{:<44} {:>9.1} MB", "the full archive", archives[&first].len() as f64 / 1e6);
    println!("{:<44} {:>9.1} MB", "the later archive", archives[&second].len() as f64 / 1e6);
    let bring = || {
        let mut open = |snapshot| Ok(Box::new(Cursor::new(archives[&snapshot].clone())) as Box<dyn Read>);
        let mut fill = |to: &Path| restore(&later, &mut open, &Caps::default(), to);
        workspaces.receive(WorkspaceSnapshotId::new(), &mut fill).unwrap();
    };
    tell("restore of both archives", median(3, bring), Some(3_000.0));
    let (ids, snapshots) = workspaces.ids().unwrap();
    let all = ids.len() + snapshots.len();
    let began = Instant::now();
    ids.into_iter().for_each(|id| workspaces.remove(id).unwrap());
    snapshots.into_iter().for_each(|snapshot| workspaces.remove_snapshot(snapshot).unwrap());
    tell("removal, each of all", began.elapsed().as_secs_f64() * 1e3 / all as f64, None);
}

/// Writes the files with these numbers, each of some kilobytes of text.
fn write(workspaces: &dyn Workspaces, id: WorkspaceId, numbers: std::ops::Range<usize>, word: &str) {
    let root = match workspaces.tree(id).unwrap() {
        Tree::Directory { path } | Tree::Fixed { path } => path,
        Tree::Overlay { upper, .. } => upper,
    };
    for number in numbers {
        let directory = root.join(format!("package-{}/lib", number / FILES_EACH));
        if number % FILES_EACH == 0 {
            std::fs::create_dir_all(&directory).unwrap();
        }
        let mut state = number as u64 + word.len() as u64;
        let mut text = String::new();
        for line in 0..10 + number % 60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("export const {word}{line} = require('./{:x}');\n", state >> 24));
        }
        std::fs::write(directory.join(format!("{}.js", number % FILES_EACH)), text).unwrap();
    }
    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
}

/// The middle of so many times, in milliseconds.
fn median(times: usize, mut call: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..times)
        .map(|_| {
            let began = Instant::now();
            call();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[times / 2]
}
