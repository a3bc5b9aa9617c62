//! The workspaces of environments' sandboxes, and the snapshots of them.

use kernel::{BlobHash, EnvId, PlaceId, SandboxId, TenantId, Timestamp, WorkspaceId, WorkspaceSnapshotId};
use sqlx::Any;
use sqlx::any::AnyRow;

use crate::rows::{number, parsed, parsed_or_null, text, text_or_null, time};
use crate::{Error, Result, Store};

/// A workspace, and the sandbox that has it when it is awake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// The environment.
    pub env: EnvId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name, of which the environment has one.
    pub name: String,
    /// The sandbox, by the same id each time that it wakes.
    pub sandbox: SandboxId,
    /// The most bytes it may hold.
    pub quota_bytes: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last awake.
    pub used: Timestamp,
    /// Where its files are.
    pub kept: Kept,
    /// The checkpoint that was made of it last; all of it where it is archived.
    pub archive: Option<WorkspaceSnapshotId>,
    /// What lies below `/usr/local` in its sandbox, by the template's name.
    pub template: String,
    /// The least that its sandbox must be kept apart by, where whoever made it has demanded that.
    pub isolation: Option<String>,
    /// The snapshot that its sandbox begins with each time.
    pub frozen: Option<WorkspaceSnapshotId>,
    /// Why its sandbox ended the last time, unless that was for want of use.
    pub ended: Option<Ended>,
}

/// Where the files of a workspace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nobody has noted it: where they were always, or nowhere yet.
    Unsaid,
    /// On that machine, in that directory, and nowhere else.
    At(PlaceId),
    /// In the store of checkpoints. What lies on a machine is of no use any more, or not yet.
    Archived,
}

const ARCHIVED: &str = "archive";

impl Kept {
    fn text(self) -> Option<String> {
        match self {
            Self::Unsaid => None,
            Self::At(place) => Some(place.to_string()),
            Self::Archived => Some(ARCHIVED.to_owned()),
        }
    }

    fn read(row: &AnyRow) -> Result<Self> {
        Ok(match text_or_null(row, "kept")?.as_deref() {
            None => Self::Unsaid,
            Some(ARCHIVED) => Self::Archived,
            Some(_) => Self::At(parsed(row, "kept")?),
        })
    }
}

/// What ended a sandbox other than that nobody needed it. Its files are as they were at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its first process ended by itself, or with the process that makes sandboxes.
    Crashed,
    /// Its memory was full, and the kernel has ended a process of it.
    OutOfMemory,
    /// Its files took more than they may.
    OverQuota,
    /// Its files took more and more of a disk that had no room.
    DiskFull,
}

impl Ended {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Crashed, Self::OutOfMemory, Self::OverQuota, Self::DiskFull];

    /// Its name, in texts and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::OutOfMemory => "out_of_memory",
            Self::OverQuota => "over_quota",
            Self::DiskFull => "disk_full",
        }
    }

    fn read(row: &AnyRow) -> Result<Option<Self>> {
        let Some(name) = text_or_null(row, "ended")? else { return Ok(None) };
        let known = Self::ALL.into_iter().find(|it| it.as_str() == name);
        known.map(Some).ok_or_else(|| Error::Unreadable { what: "ended", source: name.into() })
    }
}

/// What a workspace held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSnapshot {
    /// Its id.
    pub id: WorkspaceSnapshotId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// What whoever took it calls it.
    pub name: Option<String>,
    /// When it was taken.
    pub created: Timestamp,
    /// The hash of all that it holds, of one that was frozen. Such a one stays until somebody removes it.
    pub digest: Option<BlobHash>,
    /// The layer of the template that it was frozen with, where that has one.
    pub layer: Option<String>,
    /// How much the workspace held then.
    pub bytes: u64,
}

impl WorkspaceSnapshot {
    /// Whether it is the one of that id or name. No name could be an id.
    #[must_use]
    pub fn is(&self, id_or_name: &str) -> bool {
        match id_or_name.parse::<WorkspaceSnapshotId>() {
            Ok(id) => self.id == id,
            Err(_) => self.name.as_deref() == Some(id_or_name),
        }
    }
}

/// How many workspaces there may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// In an environment.
    pub of_env: i64,
    /// Of those in it whose names begin with the same text up to `/`, as those of one owner do.
    pub of_owner: i64,
}

/// The workspaces.
pub struct Workspaces<'a>(pub(crate) &'a Store);

const COLUMNS: &str = "SELECT id, env, tenant, name, sandbox, quota, created, used, kept, archive, template, \
                       isolation, frozen, ended FROM workspaces";

impl Workspaces<'_> {
    /// The workspace of that name, made as `new` says where there is none; none where the environment is no ready one,
    /// or it or the owner has `most` already.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert(&self, new: &Workspace, most: Most) -> Result<Option<Workspace>> {
        let mut write = self.0.begin_write().await?;
        // The row of the environment is held, so that of two at once the second one counts the first.
        let ready = sqlx::query("UPDATE environments SET state = state WHERE id = $1 AND state = 'ready'")
            .bind(new.env.to_string())
            .execute(write.connection())
            .await?;
        if ready.rows_affected() == 0 {
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO workspaces (id, env, tenant, name, sandbox, quota, created, used, kept, template, \
             isolation) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $13 \
             WHERE (SELECT COUNT(*) FROM workspaces WHERE env = $2) < $10 AND ($11 = '' OR (SELECT COUNT(*) \
             FROM workspaces WHERE env = $2 AND SUBSTR(name, 1, LENGTH($11)) = $11) < $12) ON CONFLICT DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.env.to_string())
        .bind(new.tenant.to_string())
        .bind(new.name.as_str())
        .bind(new.sandbox.to_string())
        .bind(i64::try_from(new.quota_bytes).unwrap_or(i64::MAX))
        .bind(new.created.as_micros())
        .bind(new.kept.text())
        .bind(new.template.as_str())
        .bind(most.of_env)
        .bind(new.name.find('/').map_or("", |at| &new.name[..=at]))
        .bind(most.of_owner)
        .bind(new.isolation.as_deref())
        .execute(write.connection())
        .await?;
        let found = named(new.env, &new.name).fetch_optional(write.connection()).await?;
        write.commit().await?;
        found.as_ref().map(workspace).transpose()
    }

    /// The environment's workspace of that name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, env: EnvId, name: &str) -> Result<Option<Workspace>> {
        named(env, name).fetch_optional(self.0.reader()).await?.as_ref().map(workspace).transpose()
    }

    /// The workspace of that sandbox.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn of_sandbox(&self, sandbox: SandboxId) -> Result<Option<Workspace>> {
        let sql = format!("{COLUMNS} WHERE sandbox = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sandbox.to_string());
        query.fetch_optional(self.0.reader()).await?.as_ref().map(workspace).transpose()
    }

    /// The environment's workspaces, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, env: EnvId) -> Result<Vec<Workspace>> {
        let sql = format!("{COLUMNS} WHERE env = $1 ORDER BY name");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(env.to_string());
        query.fetch_all(self.0.reader()).await?.iter().map(workspace).collect()
    }

    /// Every workspace and every snapshot whose files are not in the store of checkpoints alone.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)> {
        let workspaces = "SELECT id FROM workspaces WHERE kept IS NULL OR kept <> 'archive'";
        let workspaces = sqlx::query(workspaces).fetch_all(self.0.reader()).await?;
        let snapshots = "SELECT s.id AS id FROM workspace_snapshots s JOIN workspaces w ON w.id = s.workspace \
                         WHERE w.kept IS NULL OR w.kept <> 'archive'";
        let snapshots = sqlx::query(snapshots).fetch_all(self.0.reader()).await?;
        Ok((
            workspaces.iter().map(|row| parsed(row, "id")).collect::<Result<_>>()?,
            snapshots.iter().map(|row| parsed(row, "id")).collect::<Result<_>>()?,
        ))
    }

    /// Notes that a workspace is in use.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn touch(&self, id: WorkspaceId, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("UPDATE workspaces SET used = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(now.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Notes that a workspace was in use until now, and what ended that.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn ended(&self, id: WorkspaceId, why: Option<Ended>, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("UPDATE workspaces SET used = $2, ended = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(now.as_micros())
            .bind(why.map(Ended::as_str))
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Notes where the files of a workspace are from now on, and the checkpoint that goes with it, as long as they were
    /// `before`; whether they were.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn keep(
        &self,
        id: WorkspaceId,
        before: Kept,
        now: Kept,
        archive: Option<WorkspaceSnapshotId>,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let sql = "UPDATE workspaces SET kept = $2, archive = $3 \
                   WHERE id = $1 AND COALESCE(kept, '') = COALESCE($4, '')";
        let changed = sqlx::query(sql)
            .bind(id.to_string())
            .bind(now.text())
            .bind(archive.map(|it| it.to_string()))
            .bind(before.text())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Notes the snapshot that a workspace's sandbox begins with each time, or that there is none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn freeze(&self, id: WorkspaceId, snapshot: Option<WorkspaceSnapshotId>) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("UPDATE workspaces SET frozen = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(snapshot.map(|it| it.to_string()))
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Notes that everybody may see what a port of a workspace's sandbox shows; whether they may, which they may not where
    /// the workspace is gone or `most` of its ports are public already.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn publish(&self, id: WorkspaceId, port: u16, most: i64) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        // The row is held, so that of two at once the second one counts the first.
        sqlx::query("UPDATE workspaces SET name = name WHERE id = $1")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        let sql = "INSERT INTO public_ports (workspace, port) SELECT id, $2 FROM workspaces WHERE id = $1 \
                   AND (SELECT COUNT(*) FROM public_ports WHERE workspace = $1) < $3 ON CONFLICT DO NOTHING";
        sqlx::query(sql)
            .bind(id.to_string())
            .bind(i64::from(port))
            .bind(most)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(self.public_ports(id).await?.contains(&port))
    }

    /// Notes that not everybody may see it any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unpublish(&self, id: WorkspaceId, port: u16) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM public_ports WHERE workspace = $1 AND port = $2")
            .bind(id.to_string())
            .bind(i64::from(port))
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The ports of a workspace's sandbox that everybody may see, in order.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn public_ports(&self, id: WorkspaceId) -> Result<Vec<u16>> {
        let query = sqlx::query("SELECT port FROM public_ports WHERE workspace = $1 ORDER BY port");
        let rows = query.bind(id.to_string()).fetch_all(self.0.reader()).await?;
        let port = |row| Ok(u16::try_from(number(row, "port")?).unwrap_or_default());
        rows.iter().map(port).collect()
    }

    /// Workspaces whose files are at `place` and that nobody has used since `before`, the longest unused first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unused(&self, place: PlaceId, before: Timestamp, most: i64) -> Result<Vec<Workspace>> {
        let sql = format!("{COLUMNS} WHERE kept = $1 AND used < $2 ORDER BY used, id LIMIT $3");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(place.to_string()).bind(before.as_micros());
        query.bind(most).fetch_all(self.0.reader()).await?.iter().map(workspace).collect()
    }

    /// Forgets a workspace, with its snapshots and what is noted of its ports.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, id: WorkspaceId) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        for sql in [
            "DELETE FROM workspace_snapshots WHERE workspace = $1",
            "DELETE FROM public_ports WHERE workspace = $1",
            "DELETE FROM served_ports WHERE workspace = $1",
            "DELETE FROM workspaces WHERE id = $1",
        ] {
            sqlx::query(sql).bind(id.to_string()).execute(write.connection()).await?;
        }
        write.commit().await
    }

    /// Notes a snapshot.
    ///
    /// # Errors
    /// Where the database fails, or the workspace is gone.
    pub async fn insert_snapshot(&self, snapshot: &WorkspaceSnapshot) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        let sql = "INSERT INTO workspace_snapshots (id, workspace, name, created, digest, layer, bytes) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(snapshot.id.to_string())
            .bind(snapshot.workspace.to_string())
            .bind(snapshot.name.clone())
            .bind(snapshot.created.as_micros())
            .bind(snapshot.digest.map(|digest| digest.to_string()))
            .bind(snapshot.layer.clone())
            .bind(i64::try_from(snapshot.bytes).unwrap_or(i64::MAX))
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The snapshots of a workspace, newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn snapshots(&self, workspace: WorkspaceId) -> Result<Vec<WorkspaceSnapshot>> {
        let sql = format!("{SNAPSHOT_COLUMNS} WHERE workspace = $1 ORDER BY created DESC, id DESC");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(workspace.to_string());
        query.fetch_all(self.0.reader()).await?.iter().map(snapshot).collect()
    }

    /// How many bytes the snapshots of a tenant's workspaces held when they were taken, in all.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn snapshot_bytes(&self, tenant: TenantId) -> Result<u64> {
        let sql = "SELECT CAST(COALESCE(SUM(s.bytes), 0) AS BIGINT) AS bytes FROM workspace_snapshots s \
                   JOIN workspaces w ON w.id = s.workspace WHERE w.tenant = $1";
        let row = sqlx::query(sql).bind(tenant.to_string()).fetch_one(self.0.reader()).await?;
        Ok(u64::try_from(number(&row, "bytes")?).unwrap_or_default())
    }

    /// Forgets a snapshot.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove_snapshot(&self, id: WorkspaceSnapshotId) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM workspace_snapshots WHERE id = $1")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        write.commit().await
    }
}

const SNAPSHOT_COLUMNS: &str =
    "SELECT id, workspace, name, created, digest, layer, bytes FROM workspace_snapshots";

fn snapshot(row: &AnyRow) -> Result<WorkspaceSnapshot> {
    Ok(WorkspaceSnapshot {
        id: parsed(row, "id")?,
        workspace: parsed(row, "workspace")?,
        name: text_or_null(row, "name")?,
        created: time(row, "created")?,
        digest: parsed_or_null(row, "digest")?,
        layer: text_or_null(row, "layer")?,
        bytes: u64::try_from(number(row, "bytes")?).unwrap_or_default(),
    })
}

fn named(env: EnvId, name: &str) -> sqlx::query::Query<'_, Any, sqlx::any::AnyArguments> {
    sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE env = $1 AND name = $2")))
        .bind(env.to_string())
        .bind(name)
}

fn workspace(row: &AnyRow) -> Result<Workspace> {
    Ok(Workspace {
        id: parsed(row, "id")?,
        env: parsed(row, "env")?,
        tenant: parsed(row, "tenant")?,
        name: text(row, "name")?,
        sandbox: parsed(row, "sandbox")?,
        quota_bytes: u64::try_from(number(row, "quota")?).unwrap_or_default(),
        created: time(row, "created")?,
        used: time(row, "used")?,
        kept: Kept::read(row)?,
        archive: parsed_or_null(row, "archive")?,
        template: text(row, "template")?,
        isolation: text_or_null(row, "isolation")?,
        frozen: parsed_or_null(row, "frozen")?,
        ended: Ended::read(row)?,
    })
}
