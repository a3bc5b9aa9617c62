//! A second wall around files, should a mount ever show more than it is to.

use std::io;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};

/// The newest rules that are asked for; an older kernel holds those that it knows.
const NEWEST: ABI = ABI::V6;

/// Programs and what they read.
const READ: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/run"];

/// What commands write beside the workspace.
const WRITE: [&str; 5] = ["/tmp", "/dev", "/proc", "/run/steading", "/var/tmp"];

/// Whether this kernel has it.
#[must_use]
pub fn is_there() -> bool {
    let asked =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Execute);
    asked.is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// One that is not closed yet.
pub struct Wall(RulesetCreated);

impl Wall {
    /// Prepares it, but for the workspace. A kernel without Landlock is no error: it is the second wall.
    ///
    /// # Errors
    /// Where a kernel that has it refuses.
    pub fn prepare() -> io::Result<Self> {
        let all = AccessFs::from_all(NEWEST);
        let ruleset = Ruleset::default().handle_access(all).map_err(io::Error::other)?;
        let ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(io::Error::other)?;
        let mut wall = Self(ruleset.create().map_err(io::Error::other)?);
        let read = AccessFs::from_read(NEWEST);
        for (paths, access) in [(READ.as_slice(), read), (&WRITE, all), (&["/"], AccessFs::ReadDir.into())] {
            for path in paths {
                wall = wall.allow(path, access)?;
            }
        }
        Ok(wall)
    }

    /// Confines this process and all that come from it. The workspace is there.
    ///
    /// # Errors
    /// As [`Wall::prepare`].
    pub fn close(self) -> io::Result<()> {
        let Self(rules) = self.allow("/workspace", AccessFs::from_all(NEWEST))?;
        rules.restrict_self().map_err(io::Error::other).map(drop)
    }

    /// Not every machine has each of the directories.
    fn allow(self, path: &str, access: BitFlags<AccessFs>) -> io::Result<Self> {
        let Ok(directory) = PathFd::new(path) else { return Ok(self) };
        Ok(Self(self.0.add_rule(PathBeneath::new(directory, access)).map_err(io::Error::other)?))
    }
}
