//! One transaction that takes an environment from the release it has to the one that is wanted.

use kernel::{Code, Error, Result, Timestamp};
use serde_json::{Value, json};

use super::Applied;
use super::beside;
use super::buckets::{self, Buckets};
use super::change::{Action, Change, Draft, Effect, EffectKind};
use super::domains::Moved;
use super::entrusting::{self, Entrusted};
use super::events;
use super::functions;
use super::goal::Goal;
use super::manifest::{DatabaseSpec, Manifest, Table};
use super::migrations::run_migrations;
use super::observed::Observed;
use super::routes;
use super::schedules;
use super::tables::{self, Surplus, count};
use crate::access;
use crate::database::{self, Durability, Role, Schema, Switch, Table as LiveTable, Writer, quoted};
use crate::functions::{Functions, Kind};
use crate::hosting::Site;
use crate::rows::TableModel;

/// A release as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Release {
    /// Its number; 0 stands for what an environment is before its first.
    pub number: u64,
    /// Its manifest, without what is beside it here.
    pub manifest: Manifest,
    /// Its site, where it has one.
    pub site: Option<Site>,
    /// Its functions and services.
    pub functions: Functions,
}

/// What has been done inside the transaction, and is not committed yet.
pub(crate) struct Rehearsal {
    pub observed: Observed,
    pub changes: Vec<Change>,
    pub effects: Vec<Effect>,
    /// The names of contents of files that go.
    pub gone: Vec<String>,
    /// The release that is current once this is committed.
    pub release: Release,
    /// The secrets that are sent where they were not sent before.
    pub entrusted: Entrusted,
    /// What functions are told of that not everybody may have them be told of.
    pub told: events::Told,
    /// The domains that a manifest adds, and those that it names no longer.
    pub domains: Moved,
}

impl Rehearsal {
    /// Whether there is anything to commit.
    pub(crate) fn changed(&self) -> bool {
        self.observed.release != self.release.number
    }

    /// What would come of it, where it is not committed.
    pub(crate) fn planned(self) -> Applied {
        let Rehearsal { observed, changes, effects, .. } = self;
        Applied { release: observed.release, changed: false, changes, effects }
    }

    /// What would be lost.
    pub(crate) fn losses(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().filter(|e| e.kind == EffectKind::DataLoss)
    }
}

impl Release {
    /// Reads the number of the release that is current.
    pub(crate) const POINTER: &str =
        "SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release'";

    /// Reads the release that is current, for [`Release::read`].
    pub(crate) const CURRENT: &str = "SELECT number, manifest, site, functions FROM _steading_release \
        WHERE number = (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";

    /// Reads the release of the number `?1`, for [`Release::read`].
    pub(crate) const NUMBERED: &str =
        "SELECT number, manifest, site, functions FROM _steading_release WHERE number = ?1";

    /// The release that is current.
    pub(crate) async fn current(db: &mut Writer) -> Result<Release> {
        let rows = db.run(Role::Platform, Release::CURRENT, &[]).await?.rows;
        rows.into_iter().next().map_or(Ok(Release::default()), Release::read)
    }

    pub(crate) async fn numbered(db: &mut Writer, number: u64) -> Result<Release> {
        let rows = db.run(Role::Platform, Release::NUMBERED, &[number.into()]).await?.rows;
        if let Some(row) = rows.into_iter().next() {
            return Release::read(row);
        }
        let all = "SELECT min(number), max(number) FROM _steading_release";
        let all = db.run(Role::Platform, all, &[]).await?.rows;
        let at = |i: usize| all.first().and_then(|row| row.get(i)?.as_u64()).unwrap_or_default();
        let missing = if (1..at(1)).contains(&number) {
            let message =
                format!("release {number} is not kept any more; the oldest that is left is {}", at(0));
            Error::new(Code::NotFound, message).hint(
                "roll back to one that is left, or restore a snapshot or a backup; `lifecycle` says how many are kept",
            )
        } else {
            Error::not_found(format!("release {number}")).hint("app_describe lists the releases")
        };
        Err(missing.field("/release"))
    }

    /// The release that was made under `note`, where it is the current one.
    pub(crate) async fn applied_as(db: &mut Writer, note: &str) -> Result<Option<u64>> {
        let sql = "SELECT number FROM _steading_release WHERE note = ?1 AND number = \
                   (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";
        let rows = db.run(Role::Platform, sql, &[note.into()]).await?.rows;
        Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_u64))
    }

    /// A row of (number, manifest, site, functions).
    pub(crate) fn read(row: Vec<Value>) -> Result<Release> {
        let text = |i: usize| row.get(i).and_then(Value::as_str).unwrap_or("null");
        let wrong = |e: serde_json::Error| Error::internal(format!("a stored release does not parse: {e}"));
        Ok(Release {
            number: row.first().and_then(Value::as_u64).unwrap_or_default(),
            manifest: serde_json::from_str(text(1)).map_err(wrong)?,
            site: serde_json::from_str(text(2)).map_err(wrong)?,
            // Releases of before there were functions say nothing.
            functions: serde_json::from_str::<Option<Functions>>(text(3)).map_err(wrong)?.unwrap_or_default(),
        })
    }

    pub(super) fn tables(&self) -> Result<Vec<Table>> {
        self.manifest.database.as_ref().map_or(Ok(Vec::new()), DatabaseSpec::tables)
    }

    pub(super) fn buckets(&self) -> Result<Buckets> {
        let Some(storage) = &self.manifest.storage else { return Ok(Buckets::new()) };
        let tables: Vec<_> = self.tables()?.iter().map(Table::model).collect();
        storage.models(&tables)
    }
}

/// Does everything that leads to `goal` in a transaction, which stays open; the caller commits it or rolls it
/// back. `note` is kept with the release. Rolled back already where an error comes.
pub(crate) async fn rehearse(db: &mut Writer, goal: &Goal, note: &str) -> Result<Rehearsal> {
    let outcome = attempt(db, goal, note).await;
    if outcome.is_err() {
        db.rollback().await?;
    }
    outcome.map_err(|e| goal.placed(e))
}

async fn attempt(db: &mut Writer, goal: &Goal, note: &str) -> Result<Rehearsal> {
    db.begin(Durability::Full).await?;
    // What a release does to rows is no event of theirs.
    db.lift_events().await?;
    let base = Release::current(db).await?;
    let observed = Observed::now(db, base.number).await?;
    let (mut release, surplus) = wanted(db, &base, goal).await?;
    let mut draft = draft(db, &base, &release, goal, surplus).await?;
    if draft.foreign_keys_off {
        // The engine takes this between transactions only. The writer is ours, so nothing moves meanwhile.
        db.rollback().await?;
        db.foreign_keys(Switch::Off).await?;
        db.legacy_alter_table(Switch::On).await?;
        db.begin(Durability::Full).await?;
        db.lift_events().await?;
    }
    for (place, step) in &draft.steps {
        db.run(Role::Platform, step, &[]).await.map_err(|e| match e {
            database::Error::Check(column) => {
                let code = if surplus == Surplus::Keep { Code::Conflict } else { Code::InvalidInput };
                let message = format!("rows that are there do not meet the check of {column}");
                Error::new(code, message)
                    .field(format!("{place}/columns/{column}/check"))
                    .hint("find them with db_query and change them first")
            }
            e => {
                let e = Error::from(e);
                // It points into SQL that the caller did not write.
                if e.pointer().is_some() { e.field(place) } else { e }
            }
        })?;
    }
    if surplus == Surplus::Drop && goal.has_tables() {
        let migrations = release.manifest.database.as_ref().map_or(&[][..], |database| &database.migrations);
        run_migrations(db, migrations, &mut draft).await.map_err(|e| e.under("/database"))?;
    }
    if draft.foreign_keys_off {
        dangling(db).await?;
    }
    access::run_tests(db, &release.app()?, release.manifest.tests.as_deref().unwrap_or_default()).await?;
    match goal {
        Goal::Back { .. } => point_at(db, release.number).await?,
        _ if !draft.changes.is_empty() => release.number = store(db, &release, note).await?,
        _ => {}
    }
    events::lay(db).await?;
    let domains = Moved::by(goal, &base, &release);
    let entrusted = Entrusted::by(&base, &release);
    let told = events::Told::by(goal, &base, &release);
    let Draft { changes, effects, gone, .. } = draft;
    Ok(Rehearsal { observed, changes, effects, gone, release, entrusted, told, domains })
}

/// What has to be done between two releases.
async fn draft(
    db: &mut Writer,
    base: &Release,
    release: &Release,
    goal: &Goal,
    surplus: Surplus,
) -> Result<Draft> {
    let mut draft = Draft::default();
    if goal.has_tables() {
        let live = db.schema().await?;
        if let Goal::DropTable { name } = goal {
            unreferred(&live, name)?;
        }
        let mut tables = release.tables().map_err(|e| e.under("/database"))?;
        let mut managed = base.tables()?;
        tables.retain(|table| goal.is_about(&table.name));
        managed.retain(|table| goal.is_about(&table.name));
        draft = tables::diff(db, &live, &managed, &tables, surplus)
            .await
            .map_err(|e| if e.pointer().is_some() { e.under("/database") } else { e })?;
        if let Goal::DropTable { name } = goal {
            drop_unmanaged(db, &live, name, &mut draft).await?;
        }
    }
    let after = release.tables().map_err(|e| e.under("/database"))?;
    let models: Vec<TableModel> = after.iter().map(Table::model).collect();
    if let Some(realtime) = &release.manifest.realtime {
        realtime.rules(&models).map_err(|e| e.under("/realtime"))?;
    }
    tables::privileges(&base.tables()?, &after, &mut draft);
    buckets::diff(db, base, release, surplus, &mut draft).await?;
    if let Goal::DropBucket { name } = goal {
        buckets::drop_unmanaged(db, base, name, &mut draft).await?;
    }
    routes::diff(base, release, &mut draft)?;
    functions::check(release)?;
    functions::diff(base, release, &mut draft);
    schedules::check(release)?;
    schedules::diff(base, release, &mut draft);
    schedules::begin(db, goal, base, &mut draft).await?;
    events::check(release)?;
    events::begin(db, goal, release, &mut draft).await?;
    beside::changes(base, release, &mut draft);
    entrusting::effects(&Entrusted::by(base, release), &mut draft);
    Moved::by(goal, base, release).draft(&mut draft);
    Ok(draft)
}

async fn wanted(db: &mut Writer, base: &Release, goal: &Goal) -> Result<(Release, Surplus)> {
    Ok(match goal {
        Goal::Apply { manifest, site, functions, services } => {
            let manifest = Manifest::clone(manifest).over(&base.manifest);
            let functions =
                crate::functions::replaced(&base.functions, functions.as_ref(), services.as_ref())?;
            let site = match site {
                Some(site) if *site == Site::default() => None,
                Some(site) => Some(site.clone()),
                None => base.site.clone(),
            };
            (Release { number: base.number, manifest, site, functions }, Surplus::Drop)
        }
        Goal::Whole { manifest, site, functions } => {
            let (manifest, site, functions) = (Manifest::clone(manifest), site.clone(), functions.clone());
            (Release { number: base.number, manifest, site, functions }, Surplus::Drop)
        }
        Goal::Access { table, access } => {
            let mut release = base.clone();
            let tables = release.manifest.database.iter_mut().flat_map(|database| &mut database.tables);
            let mut found = tables.filter(|(name, _)| name.as_str().eq_ignore_ascii_case(table));
            match found.next() {
                Some((_, spec)) => spec.access = Some(access.clone()),
                None => return Err(unmanaged(&db.schema().await?, table)),
            }
            (release, Surplus::Keep)
        }
        Goal::DropTable { name } => {
            let mut release = base.clone();
            if let Some(database) = &mut release.manifest.database {
                database.tables.retain(|table, _| !table.as_str().eq_ignore_ascii_case(name));
            }
            if let Some(tests) = &mut release.manifest.tests {
                tests.retain(|test| !test.on.eq_ignore_ascii_case(name));
            }
            (release, Surplus::Drop)
        }
        Goal::Bucket { name, bucket } => {
            let mut release = base.clone();
            let name = buckets::name(name)?;
            release.manifest.storage.get_or_insert_default().buckets.insert(name, bucket.clone());
            (release, Surplus::Keep)
        }
        Goal::DropBucket { name } => {
            let mut release = base.clone();
            let name = buckets::name(name)?;
            if let Some(storage) = release.manifest.storage.as_mut() {
                storage.buckets.remove(&name);
            }
            (release, Surplus::Drop)
        }
        Goal::Function { name, function } => (functions::with(base, name, function)?, Surplus::Keep),
        Goal::DropFunction { name } => (functions::without(base, Kind::Function, name)?, Surplus::Keep),
        Goal::DropService { name } => (functions::without(base, Kind::Service, name)?, Surplus::Keep),
        Goal::Back { release } => (Release::numbered(db, *release).await?, Surplus::Keep),
    })
}

/// The refusal to guard a table that no manifest has.
fn unmanaged(live: &Schema, name: &str) -> Error {
    match tables::find(live, name) {
        Some(table) => Error::new(Code::Conflict, format!("no manifest has the table {}", table.name))
            .field("/table")
            .hint(
                "apply a manifest whose database.tables has it with its columns, as app_describe shows them",
            ),
        None => Error::not_found(format!("table {name}")).field("/table"),
    }
}

/// Refuses to drop a table that another one refers to: nothing could be written there any more.
fn unreferred(live: &Schema, name: &str) -> Result<()> {
    let mut others = live.tables.iter().filter(|table| !table.name.eq_ignore_ascii_case(name));
    let refers =
        |table: &&LiveTable| table.foreign_keys.iter().any(|key| key.table.eq_ignore_ascii_case(name));
    let Some(other) = others.find(refers) else { return Ok(()) };
    Err(Error::new(Code::Conflict, format!("the table {} refers to {name}", other.name))
        .field("/name")
        .hint(format!("delete {} first, or its columns that refer to {name}", other.name)))
}

/// A table that no release made.
async fn drop_unmanaged(db: &mut Writer, live: &Schema, name: &str, draft: &mut Draft) -> Result<()> {
    if draft.changes.iter().any(|c| c.action == Action::Drop && c.target.starts_with("table ")) {
        return Ok(());
    }
    let missing = || Error::not_found(format!("table {name}")).field("/name");
    let table = tables::find(live, name).ok_or_else(missing)?;
    let rows = count(db, &format!("SELECT count(*) FROM {}", quoted(&table.name))).await?;
    let target = format!("table {}", table.name);
    if rows > 0 {
        draft.effect(EffectKind::DataLoss, &target, format!("{rows} rows are deleted with the table"));
    }
    draft.change(Action::Drop, target, None);
    draft.foreign_keys_off = true;
    draft.step(format!("DROP TABLE {}", quoted(&table.name)));
    Ok(())
}

/// Refuses rows that refer to rows that are not there.
async fn dangling(db: &mut Writer) -> Result<()> {
    let broken = db.broken_references().await?;
    let Some((table, rows)) = broken.first() else { return Ok(()) };
    let message = format!("{rows} rows of {table} would refer to rows that are not there");
    Err(Error::new(Code::Conflict, message).hint("delete or change those rows first"))
}

async fn store(db: &mut Writer, release: &Release, note: &str) -> Result<u64> {
    let last = count(db, "SELECT coalesce(max(number), 0) FROM _steading_release").await?;
    let number = last + 1;
    let manifest = serde_json::to_string(&release.manifest).map_err(Error::internal)?;
    let site = serde_json::to_string(&release.site).map_err(Error::internal)?;
    let functions = serde_json::to_string(&release.functions).map_err(Error::internal)?;
    let sql = "INSERT INTO _steading_release (number, manifest, site, functions, created_at, note) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let made = Timestamp::now().as_micros();
    let row = [json!(number), json!(manifest), json!(site), json!(functions), json!(made), json!(note)];
    db.run(Role::Platform, sql, &row).await?;
    point_at(db, number).await?;
    let kept = release.manifest.lifecycle.clone().unwrap_or_default().kept_releases();
    let surplus = "DELETE FROM _steading_release WHERE number NOT IN \
                   (SELECT number FROM _steading_release ORDER BY number DESC LIMIT ?1)";
    db.run(Role::Platform, surplus, &[kept.into()]).await?;
    Ok(number)
}

async fn point_at(db: &mut Writer, number: u64) -> Result<()> {
    let sql = "INSERT INTO _steading_state (key, value) VALUES ('release', ?1) \
               ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    db.run(Role::Platform, sql, &[json!(number.to_string())]).await?;
    Ok(())
}
