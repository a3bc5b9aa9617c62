//! The buckets of a release: what changes with them, and what is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use kernel::{Env, Error, Result};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::change::{Action, Draft, EffectKind};
use super::describe::BucketInfo;
use super::goal::Goal;
use super::rehearsal::{Release, rehearse};
use super::tables::{Guarded, Surplus, privilege};
use super::{Applied, Releases, lossy};
use crate::access::AccessSpec;
use crate::database::{Durability, Role, Writer};
use crate::storage::{Bucket, BucketName, BucketSpec, MAX_SIZE};

/// Bucket name → bucket.
pub(super) type Buckets = BTreeMap<String, Arc<Bucket>>;

/// What is in the buckets: (name, files, bytes).
pub(super) const HELD: &str =
    "SELECT bucket, count(*), sum(size) FROM _steading_object GROUP BY bucket ORDER BY bucket";

/// What shall be otherwise about a bucket; what is none stays, or is what it is without being said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BucketChange {
    /// Its name; there is one of that name afterwards.
    pub name: String,
    /// Who may do what.
    pub access: Option<AccessSpec>,
    /// The largest file, in bytes.
    pub max_size: Option<u64>,
    /// Content types that files may have.
    pub types: Option<Vec<String>>,
}

impl Releases {
    /// Makes a release that has this bucket so, and else is the current one.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to the field; as [`Releases::apply`].
    pub async fn set_bucket(
        &self,
        env: &Env,
        change: BucketChange,
        cancel: &CancellationToken,
    ) -> Result<(Applied, BucketSpec)> {
        let mut db = self.writer(env, cancel).await?;
        db.begin(Durability::Normal).await?;
        let current = Release::current(&mut db).await?;
        db.rollback().await?;
        let known = current.manifest.storage.unwrap_or_default();
        let mut bucket = known.buckets.get(&name(&change.name)?).cloned().unwrap_or_default();
        bucket.access = change.access.or(bucket.access);
        bucket.max_size = change.max_size.or(bucket.max_size);
        bucket.types = change.types.unwrap_or(bucket.types);
        let goal = Goal::Bucket { name: change.name, bucket: bucket.clone() };
        let rehearsal = rehearse(&mut db, &goal, "").await?;
        if rehearsal.losses().next().is_some() {
            db.rollback().await?;
            return Err(lossy(rehearsal.losses()).field("/name"));
        }
        Ok((self.finish(env, db, rehearsal, cancel).await?, bucket))
    }
}

/// A bucket's name that was given apart from a manifest.
pub(super) fn name(text: &str) -> Result<BucketName> {
    BucketName::try_from(text.to_owned()).map_err(|why| Error::invalid("/name", why.to_string()))
}

/// What changes between two releases, and the files that go.
pub(super) async fn diff(
    db: &mut Writer,
    base: &Release,
    release: &Release,
    surplus: Surplus,
    draft: &mut Draft,
) -> Result<()> {
    let specs = |release: &Release| release.manifest.storage.clone().unwrap_or_default().buckets;
    let (before, after) = (specs(base), specs(release));
    let models = release.buckets().map_err(|e| e.under("/storage"))?;
    let old_models = base.buckets()?;
    "/storage/buckets".clone_into(&mut draft.place);
    for (name, spec) in &after {
        let target = format!("bucket {name}");
        match before.get(name) {
            None => draft.change(Action::Create, &target, Some(spec.to_string())),
            Some(old) if (old.max_size, &old.types) != (spec.max_size, &spec.types) => {
                draft.change(Action::Alter, &target, Some(format!("{old} → {spec}")));
            }
            Some(_) => {}
        }
        let Some(model) = models.get(name.as_str()) else { continue };
        let old = before.get(name).zip(old_models.get(name.as_str()));
        let old =
            old.map(|(spec, model)| Guarded { access: spec.access.as_ref(), rules: &model.table.access });
        let new = Guarded { access: spec.access.as_ref(), rules: &model.table.access };
        privilege(&target, "files", old, new, draft);
    }
    let gone: Vec<&BucketName> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let held = held(&db.run(Role::Platform, HELD, &[]).await?.rows);
    for name in gone {
        let target = format!("bucket {name}");
        match (held.get(name.as_str()), surplus) {
            (Some((files, _)), Surplus::Keep) => {
                let detail = format!("it has {files} files that the release does not know");
                draft.change(Action::Keep, target, Some(detail));
            }
            (Some((files, bytes)), Surplus::Drop) => {
                empty(db, name, *files, *bytes, draft).await?;
            }
            (None, _) => draft.change(Action::Drop, target, None),
        }
    }
    Ok(())
}

/// Removes the files of a bucket that no manifest has; nothing where one has it.
///
/// # Errors
/// `not_found` where there are none.
pub(super) async fn drop_unmanaged(
    db: &mut Writer,
    base: &Release,
    name: &str,
    draft: &mut Draft,
) -> Result<()> {
    let name = self::name(name)?;
    if base.manifest.storage.as_ref().is_some_and(|storage| storage.buckets.contains_key(&name)) {
        return Ok(());
    }
    let held = held(&db.run(Role::Platform, HELD, &[]).await?.rows);
    let Some((files, bytes)) = held.get(name.as_str()) else {
        return Err(Error::not_found(format!("bucket {name}")).field("/name"));
    };
    empty(db, &name, *files, *bytes, draft).await
}

async fn empty(db: &mut Writer, name: &BucketName, files: u64, bytes: u64, draft: &mut Draft) -> Result<()> {
    let target = format!("bucket {name}");
    let message = format!("{files} files of {bytes} bytes are deleted with the bucket");
    draft.effect(EffectKind::DataLoss, &target, message);
    draft.change(Action::Drop, target, None);
    let sql = "SELECT content FROM _steading_object WHERE bucket = ?1";
    let rows = db.run(Role::Platform, sql, &[name.to_string().into()]).await?.rows;
    draft.gone.extend(rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)));
    // Names have no quotes.
    draft.step(format!("DELETE FROM _steading_object WHERE bucket = '{name}'"));
    Ok(())
}

/// The buckets of a release with what is in them, and those that hold files of earlier ones.
pub(super) fn describe(release: &Release, rows: &[Vec<Value>]) -> IndexMap<String, BucketInfo> {
    let mut held = held(rows);
    let specs = release.manifest.storage.clone().unwrap_or_default().buckets;
    let mut buckets: IndexMap<String, BucketInfo> = specs
        .into_iter()
        .map(|(name, spec)| {
            let (files, bytes) = held.remove(name.as_str()).unwrap_or_default();
            let max_size = spec.max_size.unwrap_or(MAX_SIZE);
            let BucketSpec { access, types, .. } = spec;
            (name.to_string(), BucketInfo { access, files, bytes, max_size, types, unmanaged: false })
        })
        .collect();
    buckets.extend(held.into_iter().map(|(name, (files, bytes))| {
        let types = Vec::new();
        (name, BucketInfo { access: None, files, bytes, max_size: MAX_SIZE, types, unmanaged: true })
    }));
    buckets
}

fn held(rows: &[Vec<Value>]) -> BTreeMap<String, (u64, u64)> {
    let read = |row: &Vec<Value>| {
        let number = |at: usize| row.get(at).and_then(Value::as_u64);
        Some((row.first()?.as_str()?.to_owned(), (number(1)?, number(2)?)))
    };
    rows.iter().filter_map(read).collect()
}
