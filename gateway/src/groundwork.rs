//! What a platform has before its first thread: its ports, whoever starts the process that makes sandboxes, and no
//! privilege any more.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kernel::Code;
use rustix::fs::{Access, access};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use sandbox::local::{Starter, privileges, reach};

use crate::config::Config;
use crate::lockfile;
use crate::ports::{IfTaken, Ports};
use crate::sandboxes;
use crate::serve::Error;

/// What the platform is started with.
#[derive(Debug)]
pub struct Groundwork {
    /// Its ports.
    pub ports: Ports,
    /// What starts the process that makes sandboxes, where this process has no privileges to do so.
    pub starter: Option<Starter>,
}

impl Groundwork {
    /// Has the ports and gives up every capability and, where this is root, every file but those of the data directory, for good. What takes one is done by two processes that are apart from
    /// this one, and begin before it does. Called before this process has threads.
    ///
    /// # Errors
    /// Nothing is changed on disk where the ports or the data directory cannot be had.
    pub fn lay(config: &Config, if_taken: IfTaken) -> Result<Self, Error> {
        let Self { ports, .. } = Self::ports(config, if_taken)?;
        // Who starts it may be allowed to make them here; what cannot be made is told by whoever needs it.
        for path in std::iter::once(&config.data_dir).chain(&config.sandbox.templates_dir) {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(path);
        }
        let starter = sandboxes::starter(config)?;
        privileges::give_up().map_err(|error| {
            kernel::Error::new(Code::Unavailable, "the privileges of this process cannot be given up")
                .hint("start it with all of them or with none")
                .source(error)
        })?;
        leave_no_core().map_err(kernel::Error::internal)?;
        usable(&config.data_dir)?;
        stay_in(config).map_err(kernel::Error::internal)?;
        Ok(Self { ports, starter: Some(starter) })
    }

    /// Has the ports, and nothing else: for as long as one command.
    ///
    /// # Errors
    /// As [`Groundwork::lay`].
    pub fn ports(config: &Config, if_taken: IfTaken) -> Result<Self, Error> {
        if let Some(holder) = lockfile::holder(&config.data_dir)? {
            return Err(lockfile::Error::Held { dir: config.data_dir.clone(), holder: Some(holder) }.into());
        }
        Ok(Self { ports: Ports::bind(config, if_taken)?, starter: None })
    }
}

/// Has no core of this process be written: it holds every key. Nobody of the same user traces it from now on, either.
fn leave_no_core() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Leaves the data directory, templates and temporary files to write to, where this is root: who owns the machine's files
/// needs no capability to change them.
fn stay_in(config: &Config) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let temporary = std::env::temp_dir();
    let mut written = vec![&*config.data_dir, &*temporary, Path::new("/tmp"), Path::new("/var/tmp")];
    written.extend(config.sandbox.templates_dir.as_deref());
    reach::write_only_below(&written)
}

/// Holds that root can use the data directory as any other user would: what is another's it cannot.
fn usable(dir: &Path) -> Result<(), kernel::Error> {
    if !rustix::process::geteuid().is_root() || !dir.is_dir() {
        return Ok(());
    }
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let inside = std::fs::read_dir(&whole).into_iter().flatten().flatten().map(|entry| entry.path());
    let closed = std::iter::once(whole.clone()).chain(inside).find(|path| !is_open(path));
    match closed {
        None => Ok(()),
        Some(path) => Err(others(&path)),
    }
}

fn is_open(path: &PathBuf) -> bool {
    let wanted = match path.is_dir() {
        true => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        false => Access::READ_OK,
    };
    access(path, wanted) != Err(rustix::io::Errno::ACCESS)
}

fn others(path: &Path) -> kernel::Error {
    let message = format!("{} belongs to another user", path.display());
    kernel::Error::new(Code::Unavailable, message).hint(
        "run the platform as the data directory's owner, or give the directory to root with chown -R: \
         the platform gives up root's power over what others own",
    )
}
