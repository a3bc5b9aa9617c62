//! Sandboxes made and ended over and over, while the processes that make them and those in them are killed at random.
//! They need root; without it they fail. Nothing else runs beside them, for they count what their own process holds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../local/rig.rs"]
mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sandbox::runner::{Limits, Runner};

use rig::{nothing_is_left, rig, traces};

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn kill(pid: u32) {
    // It may have ended by itself, which is as good.
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// What this process and the kernel hold as a whole. Other work on the machine moves the numbers of the kernel.
fn own() -> BTreeMap<&'static str, usize> {
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap();
    BTreeMap::from([
        ("open files", fs::read_dir("/proc/self/fd").unwrap().count()),
        ("mounts", fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()),
        ("children", children.split_whitespace().count()),
    ])
}

/// Namespaces of any process that has a workspace of one of these mounted.
fn namespaces(directory: &Path) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mounts = entries.filter_map(|entry| fs::read_to_string(entry.path().join("mountinfo")).ok());
    mounts.filter(|mounts| mounts.lines().any(|line| line.contains(directory.to_str().unwrap()))).count()
}

async fn cycles(count: usize) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let rig = rig();
    // What is opened once, by the runtime and the first process, is no leak.
    let first = rig.cell().await;
    rig.local.destroy(first.id).await.unwrap();
    rig.local.close().await;
    let before = own();
    let mut living = Vec::new();
    for _ in 0..count {
        let cell = match rig.try_cell(Limits::default()).await {
            Ok(cell) => {
                // It may be killed meanwhile, with whoever made it.
                let _ = cell.run(&["/bin/sh", "-c", "sleep 100 > /dev/null 2>&1 & echo x > /tmp/x"]).await;
                cell
            }
            // The process was killed before; the next call finds another one.
            Err(_) => continue,
        };
        match dice.roll(10) {
            0 => {
                if let Some(host) = rig.host() {
                    kill(host);
                }
                living.clear();
            }
            1 => {
                let processes = traces(rig.directory.path(), &[cell.id]).remove("processes").unwrap();
                if let Some(first) = processes.first() {
                    kill(first.split(' ').next().unwrap().parse().unwrap());
                }
            }
            2 => drop(cell),
            3 => {
                let _ = rig.local.pause(cell.id).await;
                living.push(cell);
            }
            4 => living.push(cell),
            _ => {
                let _ = rig.local.destroy(cell.id).await;
            }
        }
        if living.len() > 8 {
            for cell in living.drain(..) {
                let _ = rig.local.destroy(cell.id).await;
            }
        }
    }
    // A process that was killed last has left things to the next one.
    while rig.try_cell(Limits::default()).await.is_err() {}
    rig.local.close().await;
    drop(living);
    nothing_is_left(rig.directory.path(), &rig.ids()).await;
    assert_eq!(namespaces(rig.directory.path()), 0);
    let after = own();
    assert_eq!(after, before);
}

/// Several are made at once, and whoever makes them is killed in the middle of it.
async fn storms(count: usize) {
    let mut dice = Dice(0xD1B5_4A32_D192_ED03);
    let rig = rig();
    rig.cell().await;
    for _ in 0..count {
        let made = async {
            tokio::join!(
                rig.try_cell(Limits::default()),
                rig.try_cell(Limits::default()),
                rig.try_cell(Limits::default()),
                rig.try_cell(Limits::default()),
            )
        };
        let delay = std::time::Duration::from_micros(dice.roll(40_000));
        let killed = async {
            tokio::time::sleep(delay).await;
            if let Some(host) = rig.host() {
                kill(host);
            }
        };
        // Some are made, some are not.
        let _ = tokio::join!(made, killed);
    }
    while rig.try_cell(Limits::default()).await.is_err() {}
    rig.local.close().await;
    nothing_is_left(rig.directory.path(), &rig.ids()).await;
    assert_eq!(namespaces(rig.directory.path()), 0);
}

#[tokio::test]
async fn nothing_is_left_of_sandboxes_that_are_made_and_killed() {
    cycles(50).await;
    storms(15).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn soak_nothing_is_left_of_a_thousand_sandboxes() {
    cycles(1000).await;
    storms(300).await;
}
