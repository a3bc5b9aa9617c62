//! What nobody comes back for: contents that no row names, and uploads that were not finished.

use std::collections::HashSet;
use std::time::Duration;

use kernel::{Env, Error, Result, Timestamp};
use serde_json::Value;

use super::{Storage, contents, pins};

/// How long contents that no row names are kept: longer than any upload takes to get its row.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

impl Storage {
    /// Removes contents that neither a row nor a snapshot names and that are old enough, and uploads whose time is over;
    /// how many. No snapshot may be made or restored meanwhile.
    ///
    /// # Errors
    /// The environment's database or the store fails.
    pub async fn tidy(&self, env: &Env) -> Result<u64> {
        self.tidy_older(env, GRACE).await
    }

    pub(crate) async fn tidy_older(&self, env: &Env, grace: Duration) -> Result<u64> {
        // Listed before the store is: what is written meanwhile is too young.
        let rows = self.0.databases.platform_query(env, "SELECT content FROM _steading_object", &[]).await?;
        let named = rows.iter().filter_map(|row| row.first().and_then(Value::as_str));
        let mut keep: HashSet<String> = named.map(str::to_owned).collect();
        let snapshots = self.0.contents.snapshots(env.id());
        let pinned = tokio::task::spawn_blocking(move || pins::all(&snapshots)).await;
        keep.extend(pinned.map_err(Error::internal)?.map_err(Error::internal)?.into_keys());
        let removed = self.0.contents.collect(env.id(), &keep, grace).await?;
        Ok(removed + self.tidy_uploads(env, grace).await?)
    }

    /// Removes uploads whose time is over, and bytes of uploads that there are not any more.
    async fn tidy_uploads(&self, env: &Env, grace: Duration) -> Result<u64> {
        let now = Timestamp::now().as_micros();
        let known = "SELECT id, expires_at FROM _steading_upload";
        let rows = self.0.databases.platform_query(env, known, &[]).await?;
        let mut kept = HashSet::new();
        let mut over = 0;
        for row in &rows {
            let Some(id) = row.first().and_then(Value::as_str) else { continue };
            if row.get(1).and_then(Value::as_i64).is_some_and(|at| at > now) {
                kept.insert(id.to_owned());
            } else {
                self.0.staging.of(env.id(), id).remove().await;
                over += 1;
            }
        }
        if over > 0 {
            let sql = "DELETE FROM _steading_upload WHERE expires_at <= ?1";
            self.0.change(env, sql, &[now.into()]).await?;
        }
        let folder = self.0.staging.folder(env.id());
        let is_left = move |name: &str| !kept.contains(name.split('.').next().unwrap_or_default());
        let left = tokio::task::spawn_blocking(move || contents::stale(&folder, grace, is_left)).await;
        Ok(over + left.map_err(Error::internal)?.map_err(Error::internal)?)
    }
}
