//! The workspaces of environments' sandboxes, and the snapshots of them.

use kernel::{EnvId, SandboxId, TenantId, Timestamp, WorkspaceId, WorkspaceSnapshotId};
use sqlx::any::AnyRow;
use sqlx::{Any, Row};

use crate::rows::{number, parsed, text, time};
use crate::{Result, Store};

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
}

/// The workspaces.
pub struct Workspaces<'a>(pub(crate) &'a Store);

const COLUMNS: &str = "SELECT id, env, tenant, name, sandbox, quota, created, used FROM workspaces";

impl Workspaces<'_> {
    /// The workspace of that name, made as `new` says where there is none; none where the environment is no ready one
    /// or has `most` already.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get_or_insert(&self, new: &Workspace, most: i64) -> Result<Option<Workspace>> {
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
            "INSERT INTO workspaces (id, env, tenant, name, sandbox, quota, created, used) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $7 \
             WHERE (SELECT COUNT(*) FROM workspaces WHERE env = $2) < $8 ON CONFLICT DO NOTHING",
        )
        .bind(new.id.to_string())
        .bind(new.env.to_string())
        .bind(new.tenant.to_string())
        .bind(new.name.as_str())
        .bind(new.sandbox.to_string())
        .bind(i64::try_from(new.quota_bytes).unwrap_or(i64::MAX))
        .bind(new.created.as_micros())
        .bind(most)
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

    /// Every workspace and every snapshot there is.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn ids(&self) -> Result<(Vec<WorkspaceId>, Vec<WorkspaceSnapshotId>)> {
        let workspaces = sqlx::query("SELECT id FROM workspaces").fetch_all(self.0.reader()).await?;
        let snapshots = sqlx::query("SELECT id FROM workspace_snapshots").fetch_all(self.0.reader()).await?;
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

    /// Forgets a workspace, with its snapshots.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn remove(&self, id: WorkspaceId) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        for sql in
            ["DELETE FROM workspace_snapshots WHERE workspace = $1", "DELETE FROM workspaces WHERE id = $1"]
        {
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
        sqlx::query("INSERT INTO workspace_snapshots (id, workspace, name, created) VALUES ($1, $2, $3, $4)")
            .bind(snapshot.id.to_string())
            .bind(snapshot.workspace.to_string())
            .bind(snapshot.name.clone())
            .bind(snapshot.created.as_micros())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The snapshots of a workspace, newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn snapshots(&self, workspace: WorkspaceId) -> Result<Vec<WorkspaceSnapshot>> {
        let sql = "SELECT id, workspace, name, created FROM workspace_snapshots WHERE workspace = $1 \
                   ORDER BY created DESC, id DESC";
        let rows = sqlx::query(sql).bind(workspace.to_string()).fetch_all(self.0.reader()).await?;
        let read = |row: &AnyRow| {
            Ok(WorkspaceSnapshot {
                id: parsed(row, "id")?,
                workspace: parsed(row, "workspace")?,
                name: row.try_get("name")?,
                created: time(row, "created")?,
            })
        };
        rows.iter().map(read).collect()
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
    })
}
