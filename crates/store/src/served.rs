//! Which commands serve ports of workspaces' sandboxes.

use kernel::WorkspaceId;

use crate::Result;
use crate::rows::{number, text, text_or_null};
use crate::workspaces::Workspaces;

/// A command that serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The port.
    pub port: u16,
    /// A line for bash.
    pub command: String,
    /// Where it begins.
    pub cwd: Option<String>,
}

impl Workspaces<'_> {
    /// Notes the command that serves a port of a workspace's sandbox; whether it is noted, which it is not where the
    /// workspace is gone or `most` of its ports have one already.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn serve(&self, id: WorkspaceId, served: &Served, most: i64) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        // The row is held, so that of two at once the second one counts the first.
        sqlx::query("UPDATE workspaces SET name = name WHERE id = $1")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        let sql = "INSERT INTO served_ports (workspace, port, command, cwd) SELECT id, $2, $3, $4 FROM workspaces \
                   WHERE id = $1 AND (SELECT COUNT(*) FROM served_ports WHERE workspace = $1 AND port <> $2) < $5 \
                   ON CONFLICT (workspace, port) DO UPDATE SET command = excluded.command, cwd = excluded.cwd";
        let noted = sqlx::query(sql)
            .bind(id.to_string())
            .bind(i64::from(served.port))
            .bind(served.command.as_str())
            .bind(served.cwd.as_deref())
            .bind(most)
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(noted.rows_affected() == 1)
    }

    /// Forgets the command that serves a port.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unserve(&self, id: WorkspaceId, port: u16) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query("DELETE FROM served_ports WHERE workspace = $1 AND port = $2")
            .bind(id.to_string())
            .bind(i64::from(port))
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// The commands that serve ports of a workspace's sandbox, by port.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn served(&self, id: WorkspaceId) -> Result<Vec<Served>> {
        let sql = "SELECT port, command, cwd FROM served_ports WHERE workspace = $1 ORDER BY port";
        let rows = sqlx::query(sql).bind(id.to_string()).fetch_all(self.0.reader()).await?;
        let served = |row| {
            Ok(Served {
                port: u16::try_from(number(row, "port")?).unwrap_or_default(),
                command: text(row, "command")?,
                cwd: text_or_null(row, "cwd")?,
            })
        };
        rows.iter().map(served).collect()
    }
}
