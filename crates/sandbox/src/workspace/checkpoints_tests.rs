//! Checkpoints in a store on the disk, where a test can look and do harm.

use std::path::PathBuf;

use super::super::Files;
use super::super::archive::{self, LeftOut};
use super::super::restoring::restore;
use super::super::suite::{fill, listing_of};
use super::*;

struct Scene {
    directory: tempfile::TempDir,
    checkpoints: Checkpoints,
    workspace: WorkspaceId,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        fill(&directory.path().join("tree"));
        let checkpoints = Checkpoints::local(&directory.path().join("store")).unwrap();
        Self { directory, checkpoints, workspace: WorkspaceId::new() }
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    async fn keep(&self, base: Option<WorkspaceSnapshotId>) -> Result<Checkpoint> {
        let (files, snapshot) = (Files::of(self.tree()), WorkspaceSnapshotId::new());
        let archive = move |base: Option<&Manifest>, out: &mut dyn Write| {
            Ok(archive::write(&files, snapshot, base, LeftOut::Nothing, &Caps::default(), out)?)
        };
        self.checkpoints.keep(self.workspace, snapshot, base, archive).await
    }

    async fn bring(
        &self,
        snapshot: WorkspaceSnapshotId,
    ) -> Result<std::collections::BTreeMap<String, String>> {
        let to = self.directory.path().join(format!("to-{}", WorkspaceId::new()));
        std::fs::create_dir(&to).unwrap();
        let restore = move |manifest: &Manifest, open: &mut Open<'_>| {
            restore(manifest, open, &Caps::default(), &to)?;
            Ok(listing_of(&to))
        };
        self.checkpoints.bring(self.workspace, snapshot, restore).await
    }

    /// The names of what lies in the store, by kind.
    fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let directory = self.directory.path().join("store").join(self.workspace.to_string()).join(kind);
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_checkpoint_can_be_restored_until_it_is_removed_whatever_else_is() {
    let scene = Scene::new();
    let mut kept = Vec::new();
    let mut base = None;
    for round in 0..4 {
        std::fs::write(scene.tree().join(round.to_string()), vec![round; 100_000]).unwrap();
        let checkpoint = scene.keep(base).await.unwrap();
        base = Some(checkpoint.snapshot);
        kept.push((checkpoint, listing_of(&scene.tree())));
    }
    let listed = scene.checkpoints.list(scene.workspace).await.unwrap();
    assert_eq!(listed, kept.iter().map(|(checkpoint, _)| checkpoint.clone()).collect::<Vec<_>>());
    assert_eq!(kept.iter().map(|(checkpoint, _)| checkpoint.needs.len()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(kept[3].0.archive.bytes < kept[0].0.archive.bytes);
    // The first and the third go; the fourth still needs their archives.
    for gone in [0, 2] {
        for _ in 0..2 {
            scene.checkpoints.remove(scene.workspace, kept[gone].0.snapshot).await.unwrap();
        }
        assert_eq!(scene.bring(kept[gone].0.snapshot).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!((scene.objects(ARCHIVES).len(), scene.objects(MANIFESTS).len()), (4, 2));
    for whole in [1, 3] {
        assert_eq!(scene.bring(kept[whole].0.snapshot).await.unwrap(), kept[whole].1);
    }
    scene.checkpoints.remove(scene.workspace, kept[3].0.snapshot).await.unwrap();
    assert_eq!((scene.objects(ARCHIVES).len(), scene.objects(MANIFESTS).len()), (2, 1));
    assert_eq!(scene.bring(kept[1].0.snapshot).await.unwrap(), kept[1].1);
    // A base that is gone makes the next one whole by itself.
    let again = scene.keep(Some(kept[3].0.snapshot)).await.unwrap();
    assert_eq!(again.needs, [again.snapshot]);
    scene.checkpoints.forget(scene.workspace).await.unwrap();
    assert_eq!([ARCHIVES, MANIFESTS, CHECKPOINTS].map(|kind| scene.objects(kind).len()), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_halfway_is_no_checkpoint_and_goes_with_the_next_removal() {
    let scene = Scene::new();
    let first = scene.keep(None).await.unwrap();
    let before = listing_of(&scene.tree());
    // Whoever archives fails after much has been uploaded.
    let failing = |_: Option<&Manifest>, out: &mut dyn Write| {
        out.write_all(&vec![7; 40 << 20]).map_err(Error::internal)?;
        Err(Error::new(Code::Timeout, "too slow"))
    };
    let new = WorkspaceSnapshotId::new();
    let failed = scene.checkpoints.keep(scene.workspace, new, Some(first.snapshot), failing).await;
    assert_eq!(failed.unwrap_err().code(), Code::Timeout);
    assert_eq!(scene.checkpoints.list(scene.workspace).await.unwrap(), std::slice::from_ref(&first));
    // The last write of all fails.
    let place = scene.directory.path().join("store").join(scene.workspace.to_string()).join(CHECKPOINTS);
    let away = place.with_extension("away");
    std::fs::rename(&place, &away).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    let failed = scene.keep(None).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    assert_eq!(scene.checkpoints.list(scene.workspace).await.unwrap(), std::slice::from_ref(&first));
    scene.checkpoints.remove(scene.workspace, WorkspaceSnapshotId::new()).await.unwrap();
    assert_eq!((scene.objects(ARCHIVES).len(), scene.objects(MANIFESTS).len()), (1, 1));
    assert_eq!(scene.bring(first.snapshot).await.unwrap(), before);
    let twice = scene.checkpoints.keep(scene.workspace, first.snapshot, None, |_, _| unreachable!()).await;
    assert_eq!(twice.unwrap_err().code(), Code::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_in_the_store_is_found_when_it_is_restored() {
    let scene = Scene::new();
    let checkpoint = scene.keep(None).await.unwrap();
    for kind in [ARCHIVES, MANIFESTS] {
        let path = scene.objects(kind).remove(0);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            std::fs::write(&path, changed).unwrap();
            let restored = scene.bring(checkpoint.snapshot).await;
            std::fs::write(&path, &whole[..at]).unwrap();
            let cut = scene.bring(checkpoint.snapshot).await;
            // A changed or missing byte may say nothing to whoever reads, but then nothing else comes back.
            for outcome in [restored, cut] {
                match outcome {
                    Ok(tree) => assert_eq!(tree, listing_of(&scene.tree()), "{kind} {at}"),
                    Err(error) => assert_eq!(error.code(), Code::Internal, "{kind} {at} {error:?}"),
                }
            }
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        scene.bring(checkpoint.snapshot).await.unwrap_err();
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(scene.bring(checkpoint.snapshot).await.unwrap(), listing_of(&scene.tree()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_that_come_and_go_at_once_leave_nothing_that_cannot_be_restored() {
    let scene = Scene::new();
    let mut base = scene.keep(None).await.unwrap().snapshot;
    for _ in 0..6 {
        let (kept, removed) =
            tokio::join!(scene.keep(Some(base)), scene.checkpoints.remove(scene.workspace, base),);
        removed.unwrap();
        base = kept.unwrap().snapshot;
        let listed = scene.checkpoints.list(scene.workspace).await.unwrap();
        assert_eq!(listed.iter().map(|checkpoint| checkpoint.snapshot).collect::<Vec<_>>(), [base]);
        assert_eq!(scene.bring(base).await.unwrap(), listing_of(&scene.tree()));
    }
}
