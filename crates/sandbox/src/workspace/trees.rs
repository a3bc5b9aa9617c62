//! Workspaces that are one directory each, on whatever medium can make, double and bound one.

use std::path::{Path, PathBuf};

use hand::jail::Tree;
use kernel::{Result, WorkspaceId, WorkspaceSnapshotId};
use serde::{Deserialize, Serialize};

use super::shelf::{self, Clear, Sharing, Shelf, Staged, step};
use super::{Caps, Driver, Error, Files, Fullness, LEAST_QUOTA, Mounted, Origin, Workspaces, copying, files};

const WORKSPACES: &str = "workspaces";
const SNAPSHOTS: &str = "snapshots";
const FILES: &str = "files";

/// What trees are made on.
pub(super) trait Medium: Clear {
    fn driver(&self) -> Driver;

    fn sharing(&self) -> Sharing;

    /// Makes an empty tree, which the user of sandboxes owns.
    fn make(&self, at: &Path) -> Result<(), Error>;

    /// Doubles a tree that nobody writes in meanwhile; `OverQuota` where it takes more than `quota`.
    fn double(&self, from: &Path, to: &Path, quota: u64) -> Result<(), Error>;

    /// From here on nobody writes in the tree.
    fn seal(&self, at: &Path) -> Result<(), Error>;

    /// Bounds what the tree takes, and says whether that is enforced.
    fn bound(&self, at: &Path, quota: u64) -> Result<bool, Error>;
}

/// Workspaces that are one directory each.
#[derive(Debug)]
pub struct Trees {
    shelf: Shelf,
    medium: Box<dyn Medium>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    quota_bytes: u64,
    enforced: bool,
    /// Which of the directories beside this it is that holds the files.
    tree: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {}

impl Trees {
    pub(super) fn over(root: &Path, medium: Box<dyn Medium>) -> Result<Self, Error> {
        let shelf = Shelf::open(root, medium.sharing(), &medium)?;
        let trees = Self { shelf, medium };
        // On a shared file system another machine may be about to put a tree there.
        if trees.medium.sharing() == Sharing::Alone {
            for id in trees.shelf.list::<WorkspaceId>(WORKSPACES)? {
                trees.tidy(id)?;
            }
        }
        Ok(trees)
    }

    /// Removes trees of a workspace that are not its own any more, or not yet.
    fn tidy(&self, id: WorkspaceId) -> Result<(), Error> {
        let place = self.shelf.workspace(id);
        let current = self.about(id)?.tree.to_string();
        let failed = || Error::io("the workspaces cannot be listed");
        for entry in std::fs::read_dir(&place).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            if name != current.as_str() && name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()) {
                self.shelf.discard(&entry.path(), &self.medium)?;
            }
        }
        Ok(())
    }

    fn about(&self, id: WorkspaceId) -> Result<About, Error> {
        let about = self.shelf.about(&self.shelf.workspace(id))?;
        about.ok_or_else(|| Error::Missing(format!("workspace {id}")))
    }

    fn path(&self, id: WorkspaceId, about: &About) -> PathBuf {
        self.shelf.workspace(id).join(about.tree.to_string())
    }

    fn kept(&self, snapshot: WorkspaceSnapshotId) -> Result<PathBuf, Error> {
        let place = self.shelf.snapshot(snapshot);
        let kept: Option<Kept> = self.shelf.about(&place)?;
        kept.map(|Kept {}| place.join(FILES)).ok_or_else(|| missing(snapshot))
    }

    /// Doubles a snapshot's files into a place that nobody sees.
    fn bring(&self, snapshot: WorkspaceSnapshotId, to: &Path, quota: u64) -> Result<(), Error> {
        let from = self.kept(snapshot)?;
        let doubled = self.medium.double(&from, to, quota);
        step();
        // Whoever removes a snapshot takes it from its place first: it was whole if it is still there.
        self.kept(snapshot)?;
        doubled
    }

    fn stage(&self) -> Result<Staged<'_>, Error> {
        self.shelf.stage(&self.medium)
    }

    fn put_snapshot(&self, staged: Staged<'_>, snapshot: WorkspaceSnapshotId) -> Result<(), Error> {
        step();
        self.medium.seal(&staged.path().join(FILES))?;
        staged.note(&Kept {})?;
        staged.put(&self.shelf.snapshot(snapshot), snapshot)
    }
}

fn missing(snapshot: WorkspaceSnapshotId) -> Error {
    Error::Missing(format!("workspace snapshot {snapshot}"))
}

impl Workspaces for Trees {
    fn driver(&self) -> Driver {
        self.medium.driver()
    }

    fn create(&self, id: WorkspaceId, origin: Origin, quota_bytes: u64) -> Result<()> {
        quota(quota_bytes)?;
        let place = self.shelf.workspace(id);
        if place.exists() {
            return Err(Error::Taken(id.to_string()).into());
        }
        let staged = self.stage()?;
        let tree = staged.path().join("0");
        match origin {
            Origin::Empty => self.medium.make(&tree)?,
            Origin::Snapshot(snapshot) => self.bring(snapshot, &tree, quota_bytes)?,
        }
        step();
        let enforced = self.medium.bound(&tree, quota_bytes)?;
        staged.note(&About { quota_bytes, enforced, tree: 0 })?;
        Ok(staged.put(&place, id)?)
    }

    fn tree(&self, id: WorkspaceId) -> Result<Tree> {
        Ok(Tree::Directory { path: self.path(id, &self.about(id)?) })
    }

    fn snapshot(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId, _mounted: Mounted) -> Result<()> {
        let _turn = self.shelf.turn(id);
        let from = self.path(id, &self.about(id)?);
        if self.shelf.snapshot(snapshot).exists() {
            return Err(Error::Taken(snapshot.to_string()).into());
        }
        let staged = self.stage()?;
        self.medium.double(&from, &staged.path().join(FILES), u64::MAX)?;
        Ok(self.put_snapshot(staged, snapshot)?)
    }

    fn rollback(&self, id: WorkspaceId, snapshot: WorkspaceSnapshotId) -> Result<()> {
        let _turn = self.shelf.turn(id);
        let about = self.about(id)?;
        let staged = self.stage()?;
        let tree = staged.path().join(FILES);
        self.bring(snapshot, &tree, about.quota_bytes)?;
        step();
        let enforced = self.medium.bound(&tree, about.quota_bytes)?;
        let next = About { enforced, tree: about.tree + 1, ..about };
        let place = self.path(id, &next);
        // One that was killed here before has left its tree.
        self.shelf.discard(&place, &self.medium)?;
        std::fs::rename(&tree, &place).map_err(Error::io("it cannot be put into its place"))?;
        shelf::sync(&self.shelf.workspace(id))?;
        step();
        self.shelf.note(&self.shelf.workspace(id), &next)?;
        Ok(self.shelf.discard(&self.path(id, &about), &self.medium)?)
    }

    fn snapshot_files(&self, snapshot: WorkspaceSnapshotId) -> Result<Files> {
        Ok(Files::of(self.kept(snapshot)?))
    }

    fn receive(
        &self,
        snapshot: WorkspaceSnapshotId,
        fill: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        if self.shelf.snapshot(snapshot).exists() {
            return Err(Error::Taken(snapshot.to_string()).into());
        }
        let staged = self.stage()?;
        let tree = staged.path().join(FILES);
        self.medium.make(&tree)?;
        fill(&tree)?;
        Ok(self.put_snapshot(staged, snapshot)?)
    }

    fn remove(&self, id: WorkspaceId) -> Result<()> {
        let _turn = self.shelf.turn(id);
        Ok(self.shelf.discard(&self.shelf.workspace(id), &self.medium)?)
    }

    fn remove_snapshot(&self, snapshot: WorkspaceSnapshotId) -> Result<()> {
        Ok(self.shelf.discard(&self.shelf.snapshot(snapshot), &self.medium)?)
    }

    fn fullness(&self, id: WorkspaceId) -> Result<Fullness> {
        let about = self.about(id)?;
        let (bytes, files) = count(&Files::of(self.path(id, &about)))?;
        Ok(Fullness { bytes, files, quota_bytes: about.quota_bytes, enforced: about.enforced })
    }

    fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)> {
        Ok((self.shelf.list(WORKSPACES)?, self.shelf.list(SNAPSHOTS)?))
    }
}

/// Refuses a quota below the least.
pub(super) fn quota(quota_bytes: u64) -> Result<(), Error> {
    if quota_bytes < LEAST_QUOTA {
        return Err(Error::QuotaTooSmall { given: quota_bytes, least: LEAST_QUOTA });
    }
    Ok(())
}

/// The bytes that files take, one with several names once, and how many entries there are.
pub(super) fn count(files: &Files) -> Result<(u64, u64), Error> {
    let caps = Caps { entries: 10_000_000, paths_bytes: 4 << 30, ..Caps::default() };
    let (mut bytes, mut entries) = (0, 0);
    let mut seen_before = std::collections::HashSet::new();
    files.walk(b"", &caps, &mut |seen| {
        entries += 1;
        let several = seen.kind != files::Kind::Directory && seen.stat.st_nlink > 1;
        if !several || seen_before.insert((seen.stat.st_dev, seen.stat.st_ino)) {
            bytes += copying::taken(seen.stat);
        }
        Ok(())
    })?;
    Ok((bytes, entries))
}
