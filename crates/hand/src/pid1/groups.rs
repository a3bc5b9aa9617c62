//! Groups of processes that the first process makes itself, where the kernel is the sandbox's own. It has neither
//! processes that orphans fall to but the first one, nor anybody around it who bounds how many there are.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

/// Where they are. Only the first process goes in.
const PLACE: &str = "/dev/groups";

/// The groups of all commands.
#[derive(Debug)]
pub struct Groups {
    /// Below it each command has its own, which says what belongs to it.
    each: PathBuf,
    /// That of all of them, which is bounded.
    all: PathBuf,
}

impl Groups {
    /// Makes them, for commands of at most `pids` processes together, and gives up the privilege for that.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn make(pids: u32) -> io::Result<Self> {
        fs::create_dir(PLACE)?;
        let place = |controller: &str| -> io::Result<PathBuf> {
            let path = Path::new(PLACE).join(controller);
            fs::create_dir(&path)?;
            mount("none", &path, "cgroup", MountFlags::empty(), Some(CString::new(controller)?.as_c_str()))?;
            open_to_own(&path)?;
            Ok(path)
        };
        // Of this kernel's controllers, the one of jobs does nothing but hold processes together. A bound is not held for
        // what is in groups below the one that has it.
        let (each, all) = (place("job")?, place("pids")?.join("commands"));
        fs::create_dir(&all)?;
        open_to_own(&all)?;
        fs::write(all.join("pids.max"), pids.to_string())?;
        fs::set_permissions(PLACE, Permissions::from_mode(0o700))?;
        give_up(CapabilitySet::SYS_ADMIN)?;
        Ok(Self { each, all })
    }

    /// Makes the group of the command with that handle.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn of_command(&self, handle: u32) -> io::Result<Group> {
        let path = self.each.join(handle.to_string());
        fs::create_dir(&path)?;
        let group = |joined: &Path| OpenOptions::new().write(true).open(joined.join("cgroup.procs"));
        open_to_own(&path).and_then(|()| Ok([group(&path)?, group(&self.all)?])).map_or_else(
            |error| {
                let _ = fs::remove_dir(&path);
                Err(error)
            },
            |joined| Ok(Group { path: path.clone(), joined }),
        )
    }
}

/// The group of one command. It goes with this, once nothing is in it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    joined: [File; 2],
}

impl Group {
    /// Files to which a process writes a zero to belong to it.
    pub fn to_join(&self) -> [BorrowedFd<'_>; 2] {
        self.joined.each_ref().map(File::as_fd)
    }

    /// What is in it.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whatever is left in it is about to end.
        let _ = fs::remove_dir(&self.path);
    }
}

/// They are made so that nobody writes in them who has not every file of the machine to write.
fn open_to_own(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

fn give_up(capability: CapabilitySet) -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None::<Pid>)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(capability);
    }
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
