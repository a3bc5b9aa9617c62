//! One sandbox: made whole or not at all, and ended once.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hand::jail::{Disks, JailSpec, Kernel, Protection, Told, Tree, Users};
use kernel::{BlobHash, SandboxId};

use super::base::{Base, Held};
use super::directory::{RunDir, SandboxDir};
use super::error::Error;
use super::groups::{Group, Layout};
use super::gvisor;
use super::jail::{self, First, Half, Program};
use super::runners::Runners;
use super::spawner::Spawner;
use crate::runner::{Limits, Spec, Usage};

/// What every sandbox is made with.
pub struct Workshop {
    /// What of sandboxes is on disk.
    pub directory: RunDir,
    /// The control groups.
    pub layout: Layout,
    /// What the roots of jails have in common, where somebody mounts it for them.
    pub base: Option<Base>,
    /// The hand, to be started.
    pub program: Program,
    /// The hand, to be mounted.
    pub hand: PathBuf,
    /// Versions of the platform's own programs in sandboxes.
    pub runners: Runners,
    /// The one that new sandboxes have.
    pub runner: Mutex<BlobHash>,
    /// Below which everything lies that may be mounted.
    pub trees: Vec<PathBuf>,
    /// Makes processes.
    pub spawner: Spawner,
    /// Where gVisor's program is, unless where it usually is.
    pub runsc: Option<PathBuf>,
    /// What jails do without: nothing, but in tests.
    pub without: Vec<Protection>,
}

impl Workshop {
    /// The version that new sandboxes have.
    pub fn newest_runner(&self) -> BlobHash {
        *self.runner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a jail of that kernel is made on.
    fn base(&self, kernel: &Kernel) -> Result<Option<Held<'_>>, Error> {
        let base = self.base.as_ref().filter(|_| *kernel == Kernel::Host);
        base.map(|base| base.hold(&self.spawner, &self.program)).transpose()
    }

    /// Changes it.
    ///
    /// # Errors
    /// [`Error::Runner`].
    pub fn use_runner(&self, runner: BlobHash) -> Result<(), Error> {
        self.runners.known(runner)?;
        *self.runner.lock().unwrap_or_else(PoisonError::into_inner) = runner;
        Ok(())
    }
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

/// A sandbox that waits for whose it is to be: everything of it is there but its files.
#[derive(Debug)]
pub struct Spare {
    half: Half,
    group: Group,
    directory: SandboxDir,
    hand: UnixStream,
    sockets: [UnixListener; 2],
    limits: Limits,
    /// Whose numbers it has.
    pub users: Users,
}

impl Spare {
    /// Makes one under a name of its own.
    ///
    /// # Errors
    /// As [`Sandbox::make`].
    pub fn make(workshop: &Workshop, limits: Limits, users: Users) -> Result<Self, Error> {
        let id = SandboxId::new();
        let mut like = workshop.trees.iter().filter(|tree| tree.is_dir()).cloned();
        let path = like.next().ok_or_else(|| Error::Outside("nothing".to_owned()))?;
        let disks = Disks { workspace: Tree::Directory { path }, layers: like.collect() };
        furnished(workshop, id, limits, users, |outfit| {
            let Outfit { group, directory, hand, inside, sockets } = outfit;
            let told = (disks, Told::Later);
            let base = workshop.base(&Kernel::Host)?;
            let on = (Kernel::Host, base.as_ref());
            let jail = jail_spec(workshop, &group, &directory, limits, users, told, on);
            let half = jail::begin(&workshop.spawner, &workshop.program, &jail, inside.into())?;
            Ok(Self { half, group, directory, hand, sockets, limits, users })
        })
    }

    /// Has it use the version that new sandboxes have.
    ///
    /// # Errors
    /// As [`Workshop::use_runner`].
    pub fn use_newest_runner(&self, workshop: &Workshop) -> Result<(), Error> {
        workshop.runners.point(&self.directory.runner(), workshop.newest_runner()).map(drop)
    }

    /// Whether a sandbox with these limits is the same.
    #[must_use]
    pub fn fits(&self, limits: &Limits) -> bool {
        self.limits == *limits
    }

    /// Makes it the sandbox that `spec` describes.
    ///
    /// # Errors
    /// As [`Sandbox::make`]; nothing is left behind.
    pub fn give(self, workshop: &Workshop, spec: &Spec) -> Result<(Sandbox, Ends), Error> {
        let Self { half, group, directory, hand, sockets, .. } = self;
        let first = match disks(workshop, spec) {
            Ok(disks) => half.finish(&disks),
            Err(error) => {
                half.end();
                Err(error)
            }
        };
        match first {
            Ok(first) => {
                Ok((Sandbox { first, group, directory, ended: Mutex::new(false) }, Ends { hand, sockets }))
            }
            Err(error) => {
                let _ = group.destroy();
                let _ = directory.remove();
                Err(error)
            }
        }
    }

    /// Ends it and removes all of it.
    pub fn end(self) {
        self.half.end();
        // What stays is found by the next process.
        let _ = self.group.destroy();
        let _ = self.directory.remove();
    }
}

/// What a sandbox has before it is a jail.
struct Outfit {
    group: Group,
    directory: SandboxDir,
    /// The connection to its hand, and the end that the hand has.
    hand: UnixStream,
    inside: UnixStream,
    sockets: [UnixListener; 2],
}

/// Prepares what is on the host, and removes it where `make` fails.
fn furnished<T>(
    workshop: &Workshop,
    id: SandboxId,
    limits: Limits,
    users: Users,
    make: impl FnOnce(Outfit) -> Result<T, Error>,
) -> Result<T, Error> {
    let directory = workshop.directory.of(id);
    directory.make()?;
    let outfit = || {
        let owner = match users {
            Users::Range { first } => Some(first + hand::jail::USER),
            Users::Single => None,
        };
        let sockets = directory.listen(owner)?;
        workshop.runners.point(&directory.runner(), workshop.newest_runner())?;
        let group = Group::create(&workshop.layout, &id.to_string(), &limits).map_err(Error::Groups)?;
        let (hand, inside) =
            UnixStream::pair().map_err(|error| Error::Files("making a connection", error))?;
        Ok(Outfit { group, directory: directory.clone(), hand, inside, sockets })
    };
    let made = outfit().and_then(make);
    if made.is_err() {
        // Why it could not be made says more than why it could not be removed, which the next start does.
        let _ = Group::named(&workshop.layout, &id.to_string()).destroy();
        let _ = directory.remove();
    }
    made
}

fn jail_spec(
    workshop: &Workshop,
    group: &Group,
    directory: &SandboxDir,
    limits: Limits,
    users: Users,
    (disks, told): (Disks, Told),
    (kernel, base): (Kernel, Option<&Held<'_>>),
) -> JailSpec {
    let [egress, bridge] = directory.sockets();
    JailSpec {
        workspace: disks.workspace,
        layers: disks.layers,
        tmp_bytes: limits.tmp_bytes,
        memory_bytes: limits.memory_bytes,
        pids: limits.pids,
        egress,
        bridge,
        hand: workshop.hand.clone(),
        runners: workshop.runners.path().to_owned(),
        runner: directory.runner(),
        base: base.map(|base| base.path().to_owned()),
        scratch: directory.scratch(),
        groups: group.to_join(&kernel),
        users,
        disks: told,
        kernel,
        without: workshop.without.clone(),
    }
}

/// What is mounted, which lies where it may.
fn disks(workshop: &Workshop, spec: &Spec) -> Result<Disks, Error> {
    let inside = |path: &PathBuf| inside(&workshop.trees, path);
    let workspace = match &spec.workspace {
        Tree::Directory { path } => Tree::Directory { path: inside(path)? },
        Tree::Fixed { path } => Tree::Fixed { path: inside(path)? },
        Tree::Overlay { lowers, upper, work } => Tree::Overlay {
            lowers: lowers.iter().map(inside).collect::<Result<_, _>>()?,
            upper: inside(upper)?,
            work: inside(work)?,
        },
    };
    Ok(Disks { workspace, layers: spec.layers.iter().map(inside).collect::<Result<_, _>>()? })
}

impl Sandbox {
    /// Makes it. Its users are nobody else's on this machine as long as nobody else is given `users`.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::Taken`], [`Error::Jail`], [`Error::Gvisor`]; nothing is left behind.
    pub fn make(
        workshop: &Workshop,
        spec: &Spec,
        users: Users,
        kernel: Kernel,
    ) -> Result<(Self, Ends), Error> {
        let told = (disks(workshop, spec)?, Told::AtOnce);
        let bounds = if kernel == Kernel::Host { spec.limits } else { gvisor::around(spec.limits) };
        furnished(workshop, spec.id, bounds, users, |outfit| {
            let Outfit { group, directory, hand, inside, sockets } = outfit;
            let base = workshop.base(&kernel)?;
            let on = (kernel, base.as_ref());
            let jail = jail_spec(workshop, &group, &directory, spec.limits, users, told, on);
            let (spawner, program) = (&workshop.spawner, &workshop.program);
            let first = match jail.kernel {
                Kernel::Host => jail::make(spawner, program, &jail, inside.into())?,
                Kernel::Gvisor { .. } => jail::spoken::make(spawner, program, &jail, (inside.into(), &hand))?,
            };
            Ok((Self { first, group, directory, ended: Mutex::new(false) }, Ends { hand, sockets }))
        })
    }

    /// Readable when its first process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.first.pidfd().as_fd()
    }

    /// The directory in which what runs inside listens for the gateway: the one that it may write, which is as small as its
    /// memory is.
    ///
    /// # Errors
    /// [`Error::Door`].
    pub fn door(&self) -> Result<OwnedFd, Error> {
        self.first.open_inside(Path::new("run/steading")).map_err(Error::Door)
    }

    /// Has what starts in it from here on use this version of the runner, and returns the one before.
    ///
    /// # Errors
    /// [`Error::Runner`]; of the file system.
    pub fn use_runner(&self, workshop: &Workshop, runner: BlobHash) -> Result<BlobHash, Error> {
        Ok(workshop.runners.point(&self.directory.runner(), runner)?.unwrap_or(runner))
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
