//! Which hierarchies of control groups this machine has, and where in them this process is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hierarchy::{Hierarchy, Kind};

/// Where processes go that are in a group of version 2 which is to have groups below it.
const ASIDE: &str = "steading";

/// The hierarchies in which sandboxes' groups are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// In the order in which they are joined.
    pub hierarchies: Vec<Hierarchy>,
}

/// A mounted hierarchy as `/proc/self/mountinfo` tells of it.
struct Mounted {
    root: PathBuf,
    at: PathBuf,
    /// Empty for version 2.
    controllers: Vec<String>,
}

impl Layout {
    /// Finds every hierarchy in which this process can make groups, by making one.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn find() -> io::Result<Self> {
        let mounted = mounted(&fs::read_to_string("/proc/self/mountinfo")?);
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let unified = mounted.iter().find(|mount| mount.controllers.is_empty());
        if let Some((mount, parent)) = unified.and_then(|mount| Some((mount, parent(mount, "", &own)?))) {
            // A group that others are in, as a login's, stays as it is; then the sandboxes' groups are beside it.
            let places = [(Kind::V2, &parent), (Kind::V2, &mount.at), (Kind::Unified, &parent)];
            let enabled = |kind: Kind, place: &Path| kind != Kind::V2 || enable_controllers(place).is_ok();
            let mut found = places.into_iter().filter(|(kind, place)| enabled(*kind, place));
            hierarchies.extend(found.find_map(|(kind, place)| usable(kind, place.clone())));
        }
        for (controller, kind, instead) in [
            ("memory", Kind::Memory, [Kind::V2].as_slice()),
            ("pids", Kind::Pids, &[Kind::V2]),
            ("cpu", Kind::Cpu, &[Kind::V2]),
            ("cpuacct", Kind::Cpuacct, &[Kind::V2, Kind::Unified]),
            ("freezer", Kind::Freezer, &[Kind::V2, Kind::Unified]),
        ] {
            if hierarchies.iter().any(|one| instead.contains(&one.kind)) {
                continue;
            }
            let mount = mounted.iter().find(|mount| mount.controllers.iter().any(|name| name == controller));
            if let Some(parent) = mount.and_then(|mount| parent(mount, controller, &own)) {
                // Two controllers may share one hierarchy, which has each group once.
                if !hierarchies.iter().any(|one| one.parent == parent) {
                    hierarchies.extend(usable(kind, parent));
                }
            }
        }
        Ok(Self { hierarchies })
    }

    /// Whether memory and processes of a sandbox can be bounded as a whole.
    #[must_use]
    pub fn limits(&self) -> bool {
        let has = |kind: Kind| self.hierarchies.iter().any(|hierarchy| hierarchy.kind == kind);
        has(Kind::V2) || has(Kind::Memory) && has(Kind::Pids)
    }

    /// Whether sandboxes can be paused.
    #[must_use]
    pub fn freezes(&self) -> bool {
        self.hierarchies.iter().any(Hierarchy::freezes)
    }
}

/// The hierarchy, where a group can be made in it.
fn usable(kind: Kind, parent: PathBuf) -> Option<Hierarchy> {
    let trial = parent.join(format!("probe-{}", std::process::id()));
    fs::create_dir(&trial).ok()?;
    let writable = fs::write(trial.join("cgroup.procs"), "");
    fs::remove_dir(&trial).ok()?;
    // Writing nothing is refused for being nothing, or not at all; where the file is another's it is not opened.
    let denied = writable.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    (!denied).then_some(Hierarchy { kind, parent })
}

/// Lets groups below `parent` have controllers. A group of version 2 that is not the root has either processes or groups
/// with controllers, so that this process and its relatives step aside first.
fn enable_controllers(parent: &Path) -> io::Result<()> {
    let available = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let wanted = ["memory", "pids", "cpu"];
    if !wanted.iter().all(|name| available.split_whitespace().any(|one| one == *name)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let enable = || fs::write(parent.join("cgroup.subtree_control"), "+memory +pids +cpu");
    let Err(error) = enable() else {
        return Ok(());
    };
    if error.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error()) {
        return Err(error);
    }
    let members = fs::read_to_string(parent.join("cgroup.procs"))?;
    if !members.lines().all(is_relative) {
        return Err(error);
    }
    let aside = parent.join(ASIDE);
    if !aside.is_dir() {
        fs::create_dir(&aside)?;
    }
    for pid in members.lines() {
        fs::write(aside.join("cgroup.procs"), pid)?;
    }
    enable()
}

/// Whether a process is this one, the one that started it, or another that this or that one started.
fn is_relative(pid: &str) -> bool {
    let own = [Some(rustix::process::getpid()), rustix::process::getppid()];
    let own = own.map(|pid| pid.map(|pid| pid.as_raw_nonzero().to_string()));
    let is_own = |pid: &str| own.iter().flatten().any(|one| one == pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim);
    is_own(pid) || parent.is_some_and(is_own)
}

/// The directory of the group that this process is in, as far as it can be seen from here. Processes that have stepped
/// aside are where they were.
fn parent(mount: &Mounted, controller: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let found = if controller.is_empty() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|one| one == controller)
        };
        found.then(|| PathBuf::from(path))
    })?;
    let below = path.strip_prefix(&mount.root).ok()?;
    let directory = mount.at.join(below);
    Some(match directory.file_name() {
        Some(name) if controller.is_empty() && name == ASIDE => directory.parent()?.to_owned(),
        _ => directory,
    })
}

fn mounted(mountinfo: &str) -> Vec<Mounted> {
    mountinfo.lines().filter_map(mounted_line).collect()
}

/// `36 35 98:0 /root /at options … - type source options` (proc(5)).
fn mounted_line(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, at) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => options.split(',').filter(|option| *option != "rw").map(str::to_owned).collect(),
        _ => return None,
    };
    Some(Mounted { root: root.into(), at: at.into(), controllers })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /proc rw,relatime - proc proc rw";

    #[test]
    fn the_own_group_is_found_in_each_hierarchy() {
        let own = "4:memory:/docker/abc/x\n3:cpu,cpuacct:/\n0::/system.slice/steading.service/steading\n";
        let mounted = mounted(HYBRID);
        assert_eq!(mounted.len(), 3);
        let found = |controller: &str| {
            let mount = mounted.iter().find(|mount| match controller {
                "" => mount.controllers.is_empty(),
                name => mount.controllers.iter().any(|one| one == name),
            });
            parent(mount.unwrap(), controller, own).unwrap()
        };
        assert_eq!(found("memory"), Path::new("/sys/fs/cgroup/memory/x"));
        assert_eq!(found("cpu"), Path::new("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(found("cpuacct"), Path::new("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(found(""), Path::new("/sys/fs/cgroup/unified/system.slice/steading.service"));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_not_guessed() {
        let mounted = mounted(HYBRID);
        let memory = mounted.iter().find(|mount| mount.controllers == ["memory"]).unwrap();
        assert_eq!(parent(memory, "memory", "4:memory:/elsewhere\n"), None);
        assert_eq!(parent(memory, "memory", "4:cpu:/docker/abc\n"), None);
    }
}
