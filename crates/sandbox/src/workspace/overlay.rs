//! Workspaces made of layers that overlayfs lays over each other, on any file system.
//!
//! A layer takes what is written until a snapshot freezes it; from then on it is only read, by any number of workspaces
//! and snapshots, and goes with the last of them. What a workspace consists of is one list, which is replaced in one step.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hand::jail::Tree;
use kernel::{Result, WorkspaceId, WorkspaceSnapshotId};
use serde::{Deserialize, Serialize};

use super::shelf::{Clear, Sharing, Shelf, private, step};
use super::trees::{count, quota};
use super::{
    Caps, Driver, Error, Files, Fullness, Mounted, Origin, Workspaces, beneath, copying, plain, removal,
};

/// So many layers are laid over each other before they are made one.
const MOST_LAYERS: usize = 32;

const WORKSPACES: &str = "workspaces";
const SNAPSHOTS: &str = "snapshots";
const LAYERS: &str = "layers";
/// Lies under what has no layers yet, so that it is always overlayfs that is written to.
const NOTHING: &str = "nothing";

type Layer = u64;

/// Workspaces made of layers.
#[derive(Debug)]
pub struct Overlay {
    shelf: Shelf,
    layers: Mutex<Layers>,
}

/// Which layers there are, and how many workspaces and snapshots need each.
#[derive(Debug, Default)]
struct Layers {
    next: Layer,
    needed: HashMap<Layer, usize>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    quota_bytes: u64,
    /// Takes what is written.
    upper: Layer,
    /// Only read, the topmost first.
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    layers: Vec<Layer>,
}

/// Layers that are not removed while this lives.
struct Held<'a> {
    overlay: &'a Overlay,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Removal;

impl Clear for Removal {
    fn clear(&self, directory: &Path) -> Result<(), Error> {
        removal::empty(directory)
    }
}

impl Overlay {
    /// Workspaces in `root`. Whether overlayfs can be mounted is for the caller to know.
    ///
    /// # Errors
    /// `unavailable` where another process has them; of the file system.
    pub fn open(root: &Path) -> kernel::Result<Self> {
        let shelf = Shelf::open(root, Sharing::Alone, &Removal)?;
        let made = Error::io("the directory of the workspaces cannot be made ready");
        private(&root.join(LAYERS)).and_then(|()| private(&root.join(NOTHING))).map_err(made)?;
        let overlay = Self { shelf, layers: Mutex::default() };
        overlay.count_needs()?;
        Ok(overlay)
    }

    /// Reads what needs which layer, and removes those that nothing needs.
    fn count_needs(&self) -> Result<(), Error> {
        let mut needed = HashMap::new();
        for id in self.shelf.list(WORKSPACES)? {
            let about = self.about(id)?;
            about.all().for_each(|layer| *needed.entry(layer).or_insert(0) += 1);
        }
        for id in self.shelf.list(SNAPSHOTS)? {
            self.kept(id)?.layers.into_iter().for_each(|layer| *needed.entry(layer).or_insert(0) += 1);
        }
        let mut next = 0;
        for layer in self.shelf.list::<Layer>(LAYERS)? {
            next = next.max(layer + 1);
            if !needed.contains_key(&layer) {
                self.shelf.discard(&self.place(layer), &Removal)?;
            }
        }
        *self.layers() = Layers { next, needed };
        Ok(())
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn about(&self, id: WorkspaceId) -> Result<About, Error> {
        let about = self.shelf.about(&self.shelf.workspace(id))?;
        about.ok_or_else(|| Error::Missing(format!("workspace {id}")))
    }

    fn kept(&self, snapshot: WorkspaceSnapshotId) -> Result<Kept, Error> {
        let kept = self.shelf.about(&self.shelf.snapshot(snapshot))?;
        kept.ok_or_else(|| Error::Missing(format!("workspace snapshot {snapshot}")))
    }

    fn place(&self, layer: Layer) -> PathBuf {
        self.shelf.root().join(LAYERS).join(layer.to_string())
    }

    fn path(&self, layer: Layer) -> PathBuf {
        self.place(layer).join("files")
    }

    fn files(&self, layers: impl IntoIterator<Item = Layer>) -> Files {
        Files { layers: layers.into_iter().map(|layer| self.path(layer)).collect() }
    }

    /// A new layer that `fill` has filled; it goes with what is returned unless something has come to need it.
    fn layer(&self, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<Held<'_>, Error> {
        let staged = self.shelf.stage(&Removal)?;
        plain::make(&staged.path().join("files"))?;
        private(&staged.path().join("work")).map_err(Error::io("a directory cannot be made"))?;
        step();
        fill(&staged.path().join("files"))?;
        let layer = {
            let mut layers = self.layers();
            let layer = layers.next;
            layers.next += 1;
            layers.needed.insert(layer, 1);
            layer
        };
        let held = Held { overlay: self, layers: vec![layer] };
        staged.put(&self.place(layer), layer)?;
        Ok(held)
    }

    fn empty(&self) -> Result<Held<'_>, Error> {
        self.layer(|_| Ok(()))
    }

    /// Keeps layers from being removed; those of a workspace or a snapshot that is being looked at.
    fn hold(&self, read: impl FnOnce() -> Result<Vec<Layer>, Error>) -> Result<Held<'_>, Error> {
        // Read under the lock: whoever removes something first makes it unseen, then counts.
        let mut all = self.layers();
        let layers = read()?;
        layers.iter().for_each(|layer| *all.needed.entry(*layer).or_insert(0) += 1);
        Ok(Held { overlay: self, layers })
    }

    /// Says that one workspace or snapshot needs these layers no more.
    fn release(&self, layers: &[Layer]) -> Result<(), Error> {
        let gone: Vec<Layer> = {
            let mut all = self.layers();
            let unneeded = layers.iter().filter(|layer| {
                let count = all.needed.entry(**layer).or_insert(1);
                *count -= 1;
                *count == 0
            });
            let gone: Vec<Layer> = unneeded.copied().collect();
            all.needed.retain(|_, count| *count > 0);
            gone
        };
        gone.iter().try_for_each(|layer| self.shelf.discard(&self.place(*layer), &Removal))
    }

    /// The same files in fewer layers, where there are too many.
    fn flat(&self, held: Held<'_>) -> Result<Held<'_>, Error> {
        if held.layers.len() <= MOST_LAYERS {
            return Ok(Held { overlay: self, layers: held.take() });
        }
        let files = self.files(held.layers.iter().copied());
        self.layer(|to| {
            let root = beneath::root(to).map_err(Error::os("a directory cannot be opened"))?;
            copying::merged(&files, root.as_fd(), copying::How::Linked, &Caps::default(), u64::MAX)?;
            synced(&root)
        })
    }

    fn put_snapshot(&self, held: Held<'_>, snapshot: WorkspaceSnapshotId) -> Result<(), Error> {
        let staged = self.shelf.stage(&Removal)?;
        staged.note(&Kept { layers: held.layers.clone() })?;
        staged.put(&self.shelf.snapshot(snapshot), snapshot)?;
        held.take();
        Ok(())
    }

    fn unused(&self, snapshot: WorkspaceSnapshotId) -> Result<(), Error> {
        if self.shelf.snapshot(snapshot).exists() {
            return Err(Error::Taken(snapshot.to_string()));
        }
        Ok(())
    }

    /// Holds the layers of a snapshot, and refuses it where they take more than `quota_bytes`.
    fn bring(&self, snapshot: WorkspaceSnapshotId, quota_bytes: u64) -> Result<Held<'_>, Error> {
        let held = self.hold(|| Ok(self.kept(snapshot)?.layers))?;
        let about: Vec<Layer> = held.layers.clone();
        if self.weight(&about)? > quota_bytes && count(&self.files(about))?.0 > quota_bytes {
            return Err(Error::OverQuota { quota_bytes });
        }
        Ok(held)
    }

    /// At most so many bytes are in the layers; what lies in several of them counts several times.
    fn weight(&self, layers: &[Layer]) -> Result<u64, Error> {
        let mut all = 0;
        for layer in layers {
            all += match self.shelf.about::<Weight>(&self.place(*layer))? {
                Some(weight) => weight.bytes,
                None => {
                    let (bytes, _) = count(&self.files([*layer]))?;
                    self.shelf.note(&self.place(*layer), &Weight { bytes })?;
                    bytes
                }
            };
        }
        Ok(all)
    }
}

/// What a layer takes, counted once it is only read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weight {
    bytes: u64,
}

impl About {
    fn all(&self) -> impl Iterator<Item = Layer> + '_ {
        std::iter::once(self.upper).chain(self.layers.iter().copied())
    }
}

impl Held<'_> {
    /// Leaves them held.
    fn take(mut self) -> Vec<Layer> {
        std::mem::take(&mut self.layers)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let layers = std::mem::take(&mut self.layers);
        if let Err(error) = self.overlay.release(&layers) {
            tracing::warn!(%error, "a layer that nothing needs goes at the next start");
        }
    }
}

fn synced(root: &std::os::fd::OwnedFd) -> Result<(), Error> {
    rustix::fs::syncfs(root).map_err(Error::os("the copy cannot be brought to the disk"))
}

impl Workspaces for Overlay {
    fn driver(&self) -> Driver {
        Driver::Overlay
    }

    fn create(&self, id: WorkspaceId, origin: Origin, quota_bytes: u64) -> Result<()> {
        quota(quota_bytes)?;
        let place = self.shelf.workspace(id);
        if place.exists() {
            return Err(Error::Taken(id.to_string()).into());
        }
        let below = match origin {
            Origin::Empty => Held { overlay: self, layers: Vec::new() },
            Origin::Snapshot(snapshot) => self.bring(snapshot, quota_bytes)?,
        };
        let upper = self.empty()?;
        let staged = self.shelf.stage(&Removal)?;
        let about = About { quota_bytes, upper: upper.layers[0], layers: below.layers.clone() };
        staged.note(&about)?;
        staged.put(&place, id)?;
        upper.take();
        below.take();
        Ok(())
    }

    fn tree(&self, id: WorkspaceId) -> Result<Tree> {
        let about = self.about(id)?;
        let mut lowers = self.files(about.layers).layers;
        if lowers.is_empty() {
            lowers.push(self.shelf.root().join(NOTHING));
        }
        Ok(Tree::Overlay {
            lowers,
            upper: self.path(about.upper),
            work: self.place(about.upper).join("work"),
        })
    }

    fn snapshot(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId, mounted: Mounted) -> Result<()> {
        let _turn = self.shelf.turn(id);
        let about = self.about(id)?;
        self.unused(snapshot)?;
        match mounted {
            Mounted::Paused => {
                // What is mounted stays as it is; its changes are copied.
                let below = self.hold(|| Ok(about.layers.clone()))?;
                let top = self.layer(|to| {
                    let root = beneath::root(to).map_err(Error::os("a directory cannot be opened"))?;
                    copying::layer(&self.files([about.upper]), root.as_fd(), &Caps::default())?;
                    synced(&root)
                })?;
                let layers = [top.take(), below.take()].concat();
                let held = self.flat(Held { overlay: self, layers })?;
                Ok(self.put_snapshot(held, snapshot)?)
            }
            Mounted::Nowhere => {
                let frozen = self.flat(self.hold(|| Ok(about.all().collect()))?)?;
                let upper = self.empty()?;
                let place = self.shelf.workspace(id);
                let next = About {
                    quota_bytes: about.quota_bytes,
                    upper: upper.layers[0],
                    layers: frozen.layers.clone(),
                };
                let of_workspace = self.hold(|| Ok(frozen.layers.clone()))?;
                self.shelf.note(&place, &next)?;
                upper.take();
                of_workspace.take();
                self.release(&about.all().collect::<Vec<_>>())?;
                Ok(self.put_snapshot(frozen, snapshot)?)
            }
        }
    }

    fn rollback(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()> {
        let _turn = self.shelf.turn(id);
        let about = self.about(id)?;
        let below = self.bring(snapshot, about.quota_bytes)?;
        let upper = self.empty()?;
        let layers = below.layers.clone();
        let next = About { quota_bytes: about.quota_bytes, upper: upper.layers[0], layers };
        self.shelf.note(&self.shelf.workspace(id), &next)?;
        upper.take();
        below.take();
        Ok(self.release(&about.all().collect::<Vec<_>>())?)
    }

    fn snapshot_files(&self, snapshot: WorkspaceSnapshotId) -> Result<Files> {
        Ok(self.files(self.kept(snapshot)?.layers))
    }

    fn receive(
        &self,
        snapshot: WorkspaceSnapshotId,
        fill: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        self.unused(snapshot)?;
        let mut filled = Ok(());
        let layer = self.layer(|to| {
            filled = fill(to);
            Ok(())
        })?;
        filled?;
        Ok(self.put_snapshot(layer, snapshot)?)
    }

    fn remove(&self, id: WorkspaceId) -> Result<()> {
        let _turn = self.shelf.turn(id);
        let Some(about) = self.shelf.about::<About>(&self.shelf.workspace(id))? else { return Ok(()) };
        self.shelf.discard(&self.shelf.workspace(id), &Removal)?;
        Ok(self.release(&about.all().collect::<Vec<_>>())?)
    }

    fn remove_snapshot(&self, snapshot: WorkspaceSnapshotId) -> Result<()> {
        // Two that remove it at once must not both let go of its layers.
        let place = self.shelf.snapshot(snapshot);
        let kept = {
            let _all = self.layers();
            let Some(kept) = self.shelf.about::<Kept>(&place)? else { return Ok(()) };
            self.shelf.discard(&place, &Removal)?;
            kept
        };
        Ok(self.release(&kept.layers)?)
    }

    fn fullness(&self, id: WorkspaceId) -> Result<Fullness> {
        let about = self.about(id)?;
        let (bytes, files) = count(&self.files(about.all()))?;
        Ok(Fullness { bytes, files, quota_bytes: about.quota_bytes, enforced: false })
    }

    fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)> {
        Ok((self.shelf.list(WORKSPACES)?, self.shelf.list(SNAPSHOTS)?))
    }
}
