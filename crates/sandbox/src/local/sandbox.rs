//! One sandbox: made whole or not at all, and ended once.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hand::jail::{JailSpec, Told, Tree, Users};
use kernel::SandboxId;

use super::directory::{RunDir, SandboxDir};
use super::error::Error;
use super::groups::{Group, Layout};
use super::jail::{self, First, Program};
use super::spawner::Spawner;
use crate::runner::{Spec, Usage};

/// What every sandbox is made with.
pub struct Workshop {
    /// What of sandboxes is on disk.
    pub directory: RunDir,
    /// The control groups.
    pub layout: Layout,
    /// The hand, to be started.
    pub program: Program,
    /// The hand, to be mounted.
    pub hand: PathBuf,
    /// Below which everything lies that may be mounted.
    pub trees: Vec<PathBuf>,
    /// Makes processes.
    pub spawner: Spawner,
}

/// What the gateway gets of a sandbox.
pub struct Ends {
    /// The connection to its hand.
    pub hand: UnixStream,
    /// Where it asks for the network, and where it calls tools.
    pub sockets: [UnixListener; 2],
}

/// A sandbox that runs, or has run.
#[derive(Debug)]
pub struct Sandbox {
    first: First,
    group: Group,
    directory: SandboxDir,
    ended: Mutex<bool>,
}

impl Sandbox {
    /// Makes it. Its users are nobody else's on this machine as long as nobody else is given `users`.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::Taken`], [`Error::Jail`]; nothing is left behind.
    pub fn make(workshop: &Workshop, spec: &Spec, users: Users) -> Result<(Self, Ends), Error> {
        let inside = |path: &PathBuf| inside(&workshop.trees, path);
        let workspace = match &spec.workspace {
            Tree::Directory { path } => Tree::Directory { path: inside(path)? },
            Tree::Overlay { lowers, upper, work } => Tree::Overlay {
                lowers: lowers.iter().map(inside).collect::<Result<_, _>>()?,
                upper: inside(upper)?,
                work: inside(work)?,
            },
        };
        let layers = spec.layers.iter().map(inside).collect::<Result<_, _>>()?;

        let directory = workshop.directory.of(spec.id);
        directory.make()?;
        let made = Self::furnish(workshop, spec, users, workspace, layers, &directory);
        if made.is_err() {
            // Why it could not be made says more than why it could not be removed, which the next start does.
            let _ = Group::named(&workshop.layout, &spec.id.to_string()).destroy();
            let _ = directory.remove();
        }
        made
    }

    fn furnish(
        workshop: &Workshop,
        spec: &Spec,
        users: Users,
        workspace: Tree,
        layers: Vec<PathBuf>,
        directory: &SandboxDir,
    ) -> Result<(Self, Ends), Error> {
        let owner = match users {
            Users::Range { first } => Some(first + hand::jail::USER),
            Users::Single => None,
        };
        let sockets = directory.listen(owner)?;
        let group =
            Group::create(&workshop.layout, &spec.id.to_string(), &spec.limits).map_err(Error::Groups)?;
        let [egress, bridge] = directory.sockets();
        let jail = JailSpec {
            workspace,
            layers,
            tmp_bytes: spec.limits.tmp_bytes,
            memory_bytes: spec.limits.memory_bytes,
            pids: spec.limits.pids,
            egress,
            bridge,
            hand: workshop.hand.clone(),
            scratch: directory.scratch(),
            groups: group.to_join(),
            users,
            disks: Told::AtOnce,
            without: Vec::new(),
        };
        let (hand, inside) =
            UnixStream::pair().map_err(|error| Error::Files("making a connection", error))?;
        let first = jail::make(&workshop.spawner, &workshop.program, &jail, inside.into())?;
        let sandbox = Self { first, group, directory: directory.clone(), ended: Mutex::new(false) };
        Ok((sandbox, Ends { hand, sockets }))
    }

    /// Readable when its first process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.first.pidfd().as_fd()
    }

    /// Stops every process where it is.
    ///
    /// # Errors
    /// [`Error::Freezer`], [`Error::Groups`].
    pub fn pause(&self) -> Result<(), Error> {
        self.group.freeze().map_err(unsupported)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Sandbox::pause`].
    pub fn resume(&self) -> Result<(), Error> {
        self.group.thaw().map_err(unsupported)
    }

    /// What it uses.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.group.usage()
    }

    /// Ends it and removes all of it. Once more waits for the first time and is no error.
    ///
    /// # Errors
    /// Where something cannot be removed; then the next time tries again.
    pub fn end(&self) -> Result<(), Error> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Ok(());
        }
        self.first.end();
        self.group.destroy().map_err(Error::Groups)?;
        self.directory.remove()?;
        *ended = true;
        Ok(())
    }
}

/// The connection and the sockets, to be sent along.
impl Ends {
    /// In the order in which they are sent.
    #[must_use]
    pub fn files(self) -> Vec<OwnedFd> {
        let [egress, bridge] = self.sockets;
        vec![self.hand.into(), egress.into(), bridge.into()]
    }
}

/// What a sandbox has left behind whose maker is gone.
///
/// # Errors
/// Where something cannot be removed.
pub fn remove_orphan(directory: &RunDir, layouts: &[Layout], id: SandboxId) -> Result<(), Error> {
    for layout in layouts {
        Group::named(layout, &id.to_string()).destroy().map_err(Error::Groups)?;
    }
    directory.of(id).remove()
}

/// Where the path leads, as long as that is below one of the trees: nobody has other files of this machine mounted.
fn inside(trees: &[PathBuf], path: &Path) -> Result<PathBuf, Error> {
    let outside = || Error::Outside(path.display().to_string());
    let real = fs::canonicalize(path).map_err(|_| outside())?;
    if trees.iter().any(|tree| real.starts_with(tree) && real != *tree) { Ok(real) } else { Err(outside()) }
}

fn unsupported(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::Unsupported => Error::Freezer,
        _ => Error::Groups(error),
    }
}
