//! How the files of sandboxes are kept, and a better way to keep them where there are none yet.

use std::path::{Path, PathBuf};

use sandbox::workspace::{Driver, best, pool, used};

use super::{Check, Verdict};
use crate::config::Config;

const NAME: &str = "workspaces";

/// The largest file that a pool is made in. It takes room on the disk only as it fills.
const MOST: u64 = 1 << 40;

/// How they are kept, or would be.
pub(super) fn check(config: &Config) -> Check {
    let directory = directory(config);
    if pool::is_there(&directory) {
        return Check::new(NAME, Verdict::Ok, "in a pool of btrfs, which holds each to its size");
    }
    let used = used(&directory);
    let driver = match *used {
        [] => best(&existing(&directory)),
        [driver] => driver,
        _ => {
            return Check::new(NAME, Verdict::Failed, "they are kept in several ways at once")
                .hint(format!("move all but one of the directories in {} away", directory.display()));
        }
    };
    let finding = format!("kept by the driver \"{}\"", driver.as_str());
    match driver {
        Driver::Btrfs => Check::new(NAME, Verdict::Ok, finding),
        Driver::Directory => {
            Check::new(NAME, Verdict::Ok, format!("{finding}, for a disk that several machines share"))
        }
        Driver::Overlay | Driver::Copy => {
            let finding = format!(
                "{finding}: degraded, their size is looked at every few seconds instead of being held by the disk"
            );
            let check = Check::new(NAME, Verdict::Warning, finding);
            match used.is_empty() {
                true => check.hint("run `steading doctor --fix` as root while the platform is stopped"),
                false => check.hint(
                    "a pool of btrfs is made for a platform that has no workspaces yet; these stay as they are",
                ),
            }
        }
    }
}

/// Makes a pool of btrfs in a file where that can be, and says what was done.
pub(super) fn fix(config: &Config, stopped: bool) -> Check {
    let directory = directory(config);
    if pool::is_there(&directory) {
        return check(config);
    }
    if !stopped {
        return Check::new(NAME, Verdict::Failed, "the platform runs, and keeps workspaces already")
            .hint("stop it, and run `steading doctor --fix` again");
    }
    match *used(&directory) {
        [] if best(&existing(&directory)) == Driver::Btrfs => return check(config),
        [] => {}
        _ => return check(config),
    }
    let free = rustix::fs::statvfs(existing(&directory))
        .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
        .unwrap_or_default();
    // As much as leaves the rest of the platform some of the disk.
    let bytes = (free / 4 * 3).min(MOST);
    match pool::prepare(&directory, bytes) {
        Ok(at) => {
            let finding = format!("made a pool of btrfs of at most {} MiB, at {}", bytes >> 20, at.display());
            Check::new(NAME, Verdict::Ok, finding)
        }
        Err(error) => {
            let check = Check::new(NAME, Verdict::Failed, format!("no pool was made: {}", error.message()));
            match error.advice() {
                Some(hint) => check.hint(hint.to_owned()),
                None => check,
            }
        }
    }
}

fn directory(config: &Config) -> PathBuf {
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    data_dir.join("sandboxes/workspaces")
}

/// The directory, or the one in which it would be made.
fn existing(directory: &Path) -> PathBuf {
    directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}
