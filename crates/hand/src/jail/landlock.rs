//! A second wall around files, should a mount ever show more than it is to.

use std::io;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

/// The newest rules that are asked for; an older kernel holds those that it knows.
const NEWEST: ABI = ABI::V6;

/// Programs and what they read.
const READ: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/run"];

/// What commands write.
const WRITE: [&str; 6] = ["/workspace", "/tmp", "/dev", "/proc", "/run/steading", "/var/tmp"];

/// Whether this kernel has it.
#[must_use]
pub fn is_there() -> bool {
    let asked =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Execute);
    asked.is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// Confines this process and all that come from it. A kernel without Landlock is no error: it is the second wall.
///
/// # Errors
/// Where a kernel that has it refuses.
pub fn restrict() -> io::Result<()> {
    let all = AccessFs::from_all(NEWEST);
    let ruleset = Ruleset::default().handle_access(all).map_err(io::Error::other)?;
    let ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(io::Error::other)?;
    let mut created = ruleset.create().map_err(io::Error::other)?;
    let read = AccessFs::from_read(NEWEST);
    let rules: [(&[&str], BitFlags<AccessFs>); 2] = [(&READ, read), (&WRITE, all)];
    for (paths, access) in rules {
        for path in paths {
            // Not every machine has each of them.
            if let Ok(directory) = PathFd::new(path) {
                created = created.add_rule(PathBeneath::new(directory, access)).map_err(io::Error::other)?;
            }
        }
    }
    let root = PathFd::new("/").map_err(io::Error::other)?;
    created = created.add_rule(PathBeneath::new(root, AccessFs::ReadDir)).map_err(io::Error::other)?;
    created.restrict_self().map_err(io::Error::other)?;
    Ok(())
}
