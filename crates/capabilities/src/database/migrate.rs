//! Migrations: scripts that change the schema once, whole or not at all, and are remembered.

use kernel::{BlobHash, Env, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::connection::Kind;
use super::effects::{self, Effect, Lineage};
use super::error::Error;
use super::policy::Role;
use super::schema::{self, Counting};
use super::writer::{Durability, Script, Switch, Writer};
use super::{Databases, or_cancelled};

/// A script that changes the schema.
#[derive(Debug, Clone)]
pub struct Migrate {
    /// Its name for people, 1 to 200 characters, taken once.
    pub name: String,
    /// Its statements.
    pub sql: String,
    /// Whether to apply it, or to tell what it would do.
    pub mode: Mode,
    /// The release it belongs to, where it does.
    pub release: Option<i64>,
    /// The losses that are accepted, as a dry run told them; any, where nothing is said.
    pub accepted: Option<Vec<Effect>>,
}

/// Whether a migration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Apply it.
    Apply,
    /// Run it, tell its effects, and undo it.
    DryRun,
}

/// What a migration did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migrated {
    /// Whether it was applied by this call: not in a dry run, and not when it was there before.
    pub applied: bool,
    /// What it did or would do, in the order of the tables' names; nothing when it was there before.
    pub effects: Vec<Effect>,
    /// How many rows its statements insert, change or delete.
    pub changed: u64,
    /// The migrations of this environment, oldest first, this one with them when it is there.
    pub history: Vec<Applied>,
}

/// A migration that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// The SHA-256 of its SQL.
    pub digest: String,
    /// When.
    pub applied_at: Timestamp,
    /// The release it belongs to, where it does.
    pub release: Option<i64>,
}

impl Databases {
    /// Applies a migration, once: it is known again by its text, whatever it is called then. References between
    /// rows are not enforced while it runs, so that tables can be rebuilt, and are checked at its end.
    ///
    /// # Errors
    /// What the guard or the engine holds against one of its statements, its name with other content, rows
    /// that it would leave without the row they refer to, losses that were not accepted; then nothing is changed.
    pub async fn migrate(
        &self,
        env: &Env,
        migrate: &Migrate,
        cancel: &CancellationToken,
    ) -> Result<Migrated, Error> {
        if !(1..=200).contains(&migrate.name.chars().count()) {
            return Err(Error::MigrationName);
        }
        let mut writer = self.writer(env).await?;
        writer.heed(cancel);
        let watch = writer.lease()?.connection()?.watch();
        let work = async {
            writer.foreign_keys(Switch::Off).await?;
            writer.begin(Durability::Full).await?;
            let result = self.in_transaction(env, migrate, &mut writer).await;
            writer.rollback().await?;
            writer.foreign_keys(Switch::On).await?;
            result
        };
        or_cancelled(cancel, &watch, work).await
    }

    /// The migrations that were applied, oldest first.
    ///
    /// # Errors
    /// Of the engine alone.
    pub async fn migrations(&self, env: &Env) -> Result<Vec<Applied>, Error> {
        Ok(applied(&self.platform_query(env, HISTORY, &[]).await?))
    }

    /// Commits what is to stay; the caller rolls back the rest.
    async fn in_transaction(
        &self,
        env: &Env,
        migrate: &Migrate,
        writer: &mut Writer,
    ) -> Result<Migrated, Error> {
        let digest = BlobHash::of(migrate.sql.as_bytes()).to_string();
        let history = applied(&writer.run(Role::Platform, HISTORY, &[]).await?.rows);
        if history.iter().any(|before| before.digest == digest) {
            return Ok(Migrated { applied: false, effects: Vec::new(), changed: 0, history });
        }
        if history.iter().any(|before| before.name == migrate.name) {
            return Err(Error::MigrationChanged(migrate.name.clone()));
        }
        let (effects, changed) = self.run_script(env, &migrate.sql, writer).await?;
        if let Some((table, rows)) = writer.broken_references().await?.into_iter().next() {
            return Err(Error::MigrationBreaksReferences { table, rows });
        }
        if migrate.mode == Mode::DryRun {
            schema::sealed(writer.lease()?.connection()?).await?;
            return Ok(Migrated { applied: false, effects, changed, history });
        }
        let losses = effects.iter().filter(|effect| effect.loses());
        if migrate.accepted.as_ref().is_some_and(|accepted| !losses.eq(accepted)) {
            return Err(Error::MoreLost);
        }
        let row = [
            Value::from(migrate.name.as_str()),
            Value::from(digest),
            Value::from(migrate.sql.as_str()),
            Value::from(Timestamp::now().as_micros()),
            Value::from(migrate.release),
        ];
        writer
            .run(Role::Platform, "INSERT INTO _steading_migration VALUES (?1, ?2, ?3, ?4, ?5)", &row)
            .await?;
        let history = applied(&writer.run(Role::Platform, HISTORY, &[]).await?.rows);
        writer.commit().await?;
        Ok(Migrated { applied: true, effects, changed, history })
    }

    async fn run_script(
        &self,
        env: &Env,
        sql: &str,
        writer: &mut Writer,
    ) -> Result<(Vec<Effect>, u64), Error> {
        // A migration's own changes are no events, and columns may go that events are made of.
        writer.lift_events().await?;
        let before = writer.schema_counting(Counting::All).await?;
        let mut shape = effects::shape(&before);
        let mut lineage = Lineage::new(&shape);
        let mut changed = 0;
        let mut script = Script::new(sql)?;
        while let Some(done) = writer.next(Role::Migrator, &mut script).await? {
            changed += done.changed;
            if done.changes_schema {
                let after = schema::shape(writer.lease()?.connection()?).await?;
                lineage.follow(&done, &shape, &after);
                shape = after;
            }
        }
        if script.is_empty() {
            return Err(Error::Empty);
        }
        let after = writer.schema_counting(Counting::All).await?;
        // A reader still sees the committed state, and the writer is held: that state stays as it is.
        let mut reader = self.environments.reader(env.id(), Kind::Reader).await?;
        let effects = effects::between(&before, &after, &lineage, reader.connection()?).await;
        reader.settle();
        Ok((effects?, changed))
    }
}

const HISTORY: &str = "SELECT name, digest, applied_at, release FROM _steading_migration ORDER BY rowid";

fn applied(rows: &[Vec<Value>]) -> Vec<Applied> {
    rows.iter()
        .map(|row| Applied {
            name: row[0].as_str().unwrap_or_default().to_owned(),
            digest: row[1].as_str().unwrap_or_default().to_owned(),
            applied_at: Timestamp::from_micros(row[2].as_i64().unwrap_or_default()),
            release: row[3].as_i64(),
        })
        .collect()
}
