//! The numbered list of what has been done to the tables.

use kernel::Timestamp;
use sqlx::Row;

use crate::connection::Engine;
use crate::{Error, Result, Store};

/// Entry n makes version n + 1. An entry that has been released is never edited; append another.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_ground.sql"),
    include_str!("migrations/0002_app_keys.sql"),
    include_str!("migrations/0003_domains.sql"),
    include_str!("migrations/0004_workspaces.sql"),
    include_str!("migrations/0005_tiers.sql"),
    include_str!("migrations/0006_egress.sql"),
    include_str!("migrations/0007_snapshot_sizes.sql"),
    include_str!("migrations/0008_public_ports.sql"),
    include_str!("migrations/0009_isolation.sql"),
    include_str!("migrations/0010_served_ports.sql"),
    include_str!("migrations/0011_schedules.sql"),
    include_str!("migrations/0012_model_usage.sql"),
    include_str!("migrations/0013_events.sql"),
    include_str!("migrations/0014_runs.sql"),
    include_str!("migrations/0015_budgets.sql"),
    include_str!("migrations/0016_tenants.sql"),
    include_str!("migrations/0017_oauth.sql"),
    include_str!("migrations/0018_audit.sql"),
    include_str!("migrations/0019_plans.sql"),
    include_str!("migrations/0020_metering.sql"),
    include_str!("migrations/0021_data_keys.sql"),
    include_str!("migrations/0022_members.sql"),
];

/// Two programs that start at once on one Postgres take turns by this lock; any constant would do.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310305461923)";

/// The others' turn may be long.
const PATIENT: &str = "SET LOCAL lock_timeout = 0";

pub(crate) async fn apply(store: &Store) -> Result<()> {
    let mut write = store.begin_write().await?;
    if store.engine() == Engine::Postgres {
        sqlx::raw_sql(PATIENT).execute(write.connection()).await?;
        sqlx::raw_sql(LOCK).execute(write.connection()).await?;
    }
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, applied BIGINT NOT NULL)",
    )
    .execute(write.connection())
    .await?;
    let found: Option<i64> = sqlx::query("SELECT MAX(version) FROM schema_versions")
        .fetch_one(write.connection())
        .await?
        .try_get(0)?;
    let (found, known) = (found.unwrap_or(0), MIGRATIONS.len() as i64);
    if found > known {
        return Err(Error::Newer { found, known });
    }
    for (version, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        sqlx::raw_sql(*migration).execute(write.connection()).await?;
        sqlx::query("INSERT INTO schema_versions (version, applied) VALUES ($1, $2)")
            .bind(version)
            .bind(Timestamp::now().as_micros())
            .execute(write.connection())
            .await?;
    }
    write.commit().await
}
