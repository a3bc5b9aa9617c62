//! Which files the gateway reaches. Root owns most of a machine, also without a capability: its disks, its programs, what
//! is run by itself. None of that is the gateway's to write.

use std::io;
use std::path::Path;

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};

/// The rules that are asked for: those on writing, moving and cutting off. An older kernel holds those that it knows.
const RULES: ABI = ABI::V3;

/// Devices that anybody may have; the others are not opened at all.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty"];

/// From here on this process, with all threads that it begins and all that it starts, writes files only below `directories`,
/// and opens no device that is not anybody's. What is not there is left out. A kernel without Landlock is no error.
///
/// # Errors
/// Where a kernel that has it refuses. This process must then not go on.
pub fn write_only_below(directories: &[&Path]) -> io::Result<()> {
    let (write, read) = (AccessFs::from_write(RULES), AccessFs::ReadFile);
    let ruleset = Ruleset::default().handle_access(write | read).and_then(Ruleset::create);
    let mut rules = ruleset.map_err(io::Error::other)?;
    for entry in std::fs::read_dir("/")?.flatten().filter(|entry| entry.file_name() != "dev") {
        rules = allow(rules, &entry.path(), read)?;
    }
    for device in DEVICES {
        rules = allow(rules, Path::new(device), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for directory in directories {
        rules = allow(rules, directory, write | read)?;
    }
    rules.restrict_self().map_err(io::Error::other)?;
    Ok(())
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: impl Into<landlock::BitFlags<AccessFs>>,
) -> io::Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(at) => rules.add_rule(PathBeneath::new(at, access)).map_err(io::Error::other),
        Err(_) => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::thread;

    use super::*;

    #[test]
    fn files_are_written_where_they_may_be_and_no_device_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| directory.path().join(name));
        for path in [&own, &other] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), "before").unwrap();
        }
        // Only the thread that asks, and what it begins, is held to it.
        let held = thread::spawn({
            let (own, other) = (own.clone(), other.clone());
            move || {
                write_only_below(&[&own, Path::new("/nowhere")]).unwrap();
                let refused =
                    |done: io::Result<()>| done.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
                assert!(refused(fs::write(other.join("new"), "x")));
                assert!(refused(OpenOptions::new().append(true).open(other.join("file")).map(drop)));
                assert!(refused(fs::remove_file(other.join("file"))));
                assert!(refused(fs::create_dir(other.join("new"))));
                assert!(fs::rename(own.join("file"), other.join("moved")).is_err());
                assert!(fs::hard_link(own.join("file"), other.join("linked")).is_err());
                assert!(refused(File::open("/dev/full").map(drop)));
                assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "before");
                fs::create_dir(own.join("new")).unwrap();
                fs::rename(own.join("file"), own.join("new/file")).unwrap();
                fs::hard_link(own.join("new/file"), own.join("linked")).unwrap();
                fs::write(own.join("new/file"), "after").unwrap();
                File::open("/dev/urandom").unwrap();
                OpenOptions::new().write(true).open("/dev/null").unwrap();
                thread::spawn(move || assert!(fs::write(other.join("new"), "x").is_err())).join().unwrap();
            }
        });
        held.join().unwrap();
        fs::write(other.join("file"), "after").unwrap();
        assert_eq!(fs::read_to_string(own.join("linked")).unwrap(), "after");
        File::open("/dev/full").unwrap();
    }
}
