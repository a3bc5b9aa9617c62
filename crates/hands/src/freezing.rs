//! Frozen workspaces: their sandboxes begin with the same bytes each time, until somebody thaws them; and what sandboxes
//! have below `/usr/local`.

use std::path::PathBuf;

use kernel::{BlobHash, Code, Env, Error, Result, WorkspaceSnapshotId};
use sandbox::workspace::templates::Template;
use sandbox::workspace::{Origin, Tree};
use store::{Kept, Workspace, WorkspaceSnapshot};

use crate::snapshots::How;
use crate::{Hands, Inner};

impl Hands {
    /// Freezes a workspace as it is at this moment, and ends its sandbox: each one after that begins with these files,
    /// and what it changes is gone with it. The snapshot that is returned has the digest of all of them.
    ///
    /// # Errors
    /// As [`Hands::snapshot`]; `quota_exceeded` where all snapshots of the workspace are frozen ones.
    pub async fn freeze(&self, workspace: &Workspace, name: Option<String>) -> Result<WorkspaceSnapshot> {
        let inner = &self.0;
        let _turn = inner.copying.of(workspace.tenant).await;
        let slot = inner.slot(workspace.id);
        let mut held = slot.lock().await;
        let workspace = &self.now(workspace).await?;
        let frozen = inner.store.workspaces().snapshots(workspace.id).await?;
        let frozen = frozen.iter().filter(|snapshot| snapshot.digest.is_some()).count();
        if frozen >= inner.limits.snapshots {
            let message = format!("the workspace has {frozen} frozen snapshots, which is all it may");
            return Err(Error::new(Code::QuotaExceeded, message).hint("remove one that nobody begins with"));
        }
        inner.end(&slot, &mut held).await?;
        let snapshot = self.keep(workspace, &slot, &mut held, name, How::Frozen).await?;
        inner.store.workspaces().freeze(workspace.id, Some(snapshot.id)).await?;
        Ok(snapshot)
    }

    /// Lets a frozen workspace be changed: its next sandbox goes on with the files of the last one.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn thaw(&self, workspace: &Workspace) -> Result<()> {
        let slot = self.0.slot(workspace.id);
        let _held = slot.lock().await;
        Ok(self.0.store.workspaces().freeze(workspace.id, None).await?)
    }

    /// A new workspace of the environment, with what another of its workspaces holds: now, or in that snapshot.
    ///
    /// # Errors
    /// `not_found` where the snapshot is none of the source; `conflict` where there is a workspace of that name;
    /// `quota_exceeded` as [`Hands::workspace_from`] and [`Hands::snapshot`].
    pub async fn fork(
        &self,
        env: &Env,
        source: &Workspace,
        snapshot: Option<WorkspaceSnapshotId>,
        name: &str,
    ) -> Result<Workspace> {
        let inner = &self.0;
        inner.tidy().await?;
        let there = self.workspaces(env).await?;
        if there.iter().any(|there| there.name == name) {
            return Err(taken(name));
        }
        // Nothing is copied for what is refused.
        self.may_have_more(name, &there)?;
        let _turn = inner.copying.of(source.tenant).await;
        let slot = inner.slot(source.id);
        // Nobody archives or removes what it is made of meanwhile.
        let mut held = slot.lock().await;
        let source = self.now(source).await?;
        let Some(snapshot) = snapshot else {
            let (copy, bytes) = self.copied(&source, &slot, &mut held).await?;
            let made = match inner.hold_room(bytes) {
                Ok(()) => self.fork_of(env, &source, copy, name).await,
                Err(error) => Err(error),
            };
            if let Err(error) = inner.local.remove_snapshot(copy).await {
                // What no row names goes at the next start.
                tracing::warn!(snapshot.id = %copy, error = error.chain(), "a copy could not be removed");
            }
            return made;
        };
        let snapshots = self.snapshots(&source).await?;
        let Some(found) = snapshots.iter().find(|it| it.id == snapshot) else {
            return Err(Error::not_found(format!("snapshot \"{snapshot}\" of this workspace")));
        };
        inner.hold_room(found.bytes)?;
        inner.bring(source.id, snapshot).await?;
        self.fork_of(env, &source, snapshot, name).await
    }

    /// A new workspace with what a snapshot holds that is here.
    async fn fork_of(
        &self,
        env: &Env,
        source: &Workspace,
        snapshot: WorkspaceSnapshotId,
        name: &str,
    ) -> Result<Workspace> {
        let inner = &self.0;
        let new = Workspace {
            quota_bytes: source.quota_bytes,
            kept: Kept::At(inner.keeping.place),
            isolation: source.isolation.clone(),
            ..self.new_workspace(env, name.to_owned(), &source.template)
        };
        let id = new.id;
        inner.local.create_workspace(id, Origin::Snapshot(snapshot), source.quota_bytes).await?;
        let made = match self.insert(&new).await {
            Ok(made) if made.id == id => return Ok(made),
            Ok(_) => Err(taken(name)),
            Err(error) => Err(error),
        };
        inner.local.remove_workspace(id).await?;
        made
    }

    /// The digest of what a workspace's sandboxes begin with; none where it is not frozen.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn frozen(&self, workspace: &Workspace) -> Result<Option<BlobHash>> {
        let workspace = self.now(workspace).await?;
        let all = self.snapshots(&workspace).await?;
        Ok(all.into_iter().find(|it| Some(it.id) == workspace.frozen).and_then(|it| it.digest))
    }
}

fn taken(name: &str) -> Error {
    Error::new(Code::Conflict, format!("there is a workspace \"{name}\" already")).hint("give another name")
}

impl Inner {
    /// What a sandbox of the workspace begins with, whose files are here: its tree, and its layers.
    pub(crate) async fn begin(
        self: &std::sync::Arc<Self>,
        workspace: &Workspace,
        tree: Tree,
    ) -> Result<(Tree, Vec<PathBuf>)> {
        let Some(frozen) = workspace.frozen else {
            return Ok((tree, self.layers(&workspace.template).await?));
        };
        let snapshots = self.store.workspaces().snapshots(workspace.id).await?;
        let snapshot = snapshots.into_iter().find(|it| it.id == frozen);
        let snapshot = snapshot.ok_or_else(|| Error::internal("a frozen workspace has lost its snapshot"))?;
        self.bring(workspace.id, frozen).await?;
        self.local.rollback(workspace.id, frozen).await?;
        let layers = match snapshot.layer {
            Some(layer) => vec![self.keeping.templates.made_before(&layer)?],
            None => Vec::new(),
        };
        Ok((self.local.tree(workspace.id).await?, layers))
    }

    /// The directories that a template lays over `/usr/local`, made here where they are not.
    pub(crate) async fn layers(&self, template: &str) -> Result<Vec<PathBuf>> {
        let Some(template) = Template::from_name(template) else {
            return Err(Error::new(
                Code::Unavailable,
                format!("this version has no template \"{template}\""),
            )
            .hint("start the version of Steading that the workspace was made with"));
        };
        let templates = self.keeping.templates.clone();
        tokio::task::spawn_blocking(move || templates.layers(template)).await.map_err(Error::internal)?
    }

    /// The name of the template's layer, which says what is in it; none where it has none.
    pub(crate) async fn layer(&self, template: &str) -> Result<Option<String>> {
        let layers = self.layers(template).await?;
        Ok(layers.first().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()))
    }
}
