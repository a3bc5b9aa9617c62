//! What two apps that were one have become, as one again: each part is taken from the side that has changed it.

use kernel::{BlobHash, Env, Error, Result};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::entrusting::SET_FIRST;
use super::goal::Goal;
use super::manifest::{Manifest, MigrationSpec};
use super::{Applied, Plan, Releases};
use crate::functions::Functions;
use crate::hosting::Site;

/// What the two sides have come from, and what the other has become.
#[derive(Debug)]
pub(crate) struct Sides {
    /// The manifest, the site and the functions that both began with.
    pub base: [Value; 3],
    /// Those of the other side now.
    pub theirs: [Value; 3],
    /// The migrations that have run on the other side: name, digest, SQL.
    pub migrations: Vec<[String; 3]>,
}

/// Both sides as one.
#[derive(Debug)]
pub(crate) struct Merged {
    pub goal: Goal,
    /// What both have changed, each differently; nothing is done where there is any.
    pub conflicts: Vec<String>,
}

/// Reads the migrations that have run, for [`Sides`].
pub(crate) const MIGRATIONS: &str =
    "SELECT name, digest, sql FROM _steading_migration ORDER BY applied_at, rowid";

impl Releases {
    /// Takes what the other side has changed since `sides.base` into the app of `env` as it is now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) async fn merge(&self, env: &Env, sides: Sides, secrets: &[String]) -> Result<Merged> {
        let current = self.current(env).await?;
        let ours = [json!(current.manifest), json!(current.site), json!(current.functions)];
        let mut merge = Merge::default();
        let mut merged = Vec::new();
        for (at, part) in ["", "/site", "/functions"].into_iter().enumerate() {
            let [base, ours, theirs] = [&sides.base[at], &ours[at], &sides.theirs[at]].map(some);
            let place: Vec<String> = part.split('/').skip(1).map(str::to_owned).collect();
            merged.push(merge.value(&place, base, ours, theirs).unwrap_or_default());
        }
        let functions: Option<Functions> =
            serde_json::from_value(merged.pop().unwrap_or_default()).map_err(Error::internal)?;
        let functions = functions.unwrap_or_default();
        let site: Option<Site> =
            serde_json::from_value(merged.pop().unwrap_or_default()).map_err(Error::internal)?;
        let manifest = merged.pop().filter(|it| !it.is_null()).unwrap_or_else(|| json!({}));
        let mut manifest: Manifest = serde_json::from_value(manifest).map_err(Error::internal)?;
        self.migrations(env, &mut manifest, sides.migrations, &mut merge.conflicts).await?;
        for name in manifest.secrets.iter().flatten().filter(|name| !secrets.contains(name)) {
            merge.conflicts.push(format!("/secrets: {name} is not set here: {SET_FIRST}"));
        }
        if let Some(Err(missing)) = manifest.auth.as_ref().map(|auth| auth.has_secrets(secrets)) {
            let at = missing.pointer().unwrap_or_default();
            merge.conflicts.push(format!("/auth{at}: {}: {SET_FIRST}", missing.message()));
        }
        for (name, function) in &functions {
            if let Err(missing) = function.settings.has_secrets(secrets) {
                let at = missing.pointer().unwrap_or_default();
                merge.conflicts.push(format!(
                    "{}{at}: {}: {SET_FIRST}",
                    function.place(name),
                    missing.message()
                ));
            }
        }
        // Domains belong to the place, not to the app: a branch has none of its parent's, and brings none.
        manifest.domains = current.manifest.domains;
        let site = site.filter(|site| *site != Site::default());
        let goal = Goal::Whole { manifest: Box::new(manifest), site, functions };
        Ok(Merged { goal, conflicts: merge.conflicts })
    }

    /// Adds the migrations that have run there and not here.
    async fn migrations(
        &self,
        env: &Env,
        manifest: &mut Manifest,
        theirs: Vec<[String; 3]>,
        conflicts: &mut Vec<String>,
    ) -> Result<()> {
        let here = self.databases.migrations(env).await?;
        for [name, digest, sql] in theirs {
            if here.iter().any(|it| it.digest == digest) {
                continue;
            }
            if here.iter().any(|it| it.name == name) {
                conflicts.push(format!("migration {name}: it has run on both sides with another text"));
                continue;
            }
            let migrations = &mut manifest.database.get_or_insert_default().migrations;
            if !migrations.iter().any(|it| BlobHash::of(it.sql.as_bytes()).to_string() == digest) {
                migrations.push(MigrationSpec { name, sql });
            }
        }
        Ok(())
    }

    /// What a goal would do.
    ///
    /// # Errors
    /// As [`Releases::plan`].
    pub(crate) async fn plan_merged(&self, env: &Env, merged: Merged) -> Result<Plan> {
        self.plan_goal(env, merged.goal).await
    }

    /// Applies a plan of [`Releases::plan_merged`]; `confirm` is [`Plan::confirmation`].
    ///
    /// # Errors
    /// As [`Releases::apply`]; `conflict` where the confirmation is for something else.
    pub(crate) async fn apply_merged(
        &self,
        env: &Env,
        merged: &Merged,
        confirm: &str,
        cancel: &CancellationToken,
    ) -> Result<Applied> {
        self.apply_confirmed(env, &merged.goal, confirm, cancel).await
    }
}

impl Merged {
    /// The blobs that its site and its functions need.
    pub fn blobs(&self) -> std::collections::HashSet<BlobHash> {
        self.goal.blobs()
    }
}

fn some(value: &Value) -> Option<&Value> {
    Some(value).filter(|value| !value.is_null())
}

#[derive(Default)]
struct Merge {
    conflicts: Vec<String>,
}

impl Merge {
    /// One value of three. Where both sides have changed it, its parts are looked at, down to those that mean something
    /// only as a whole.
    fn value(
        &mut self,
        place: &[String],
        base: Option<&Value>,
        ours: Option<&Value>,
        theirs: Option<&Value>,
    ) -> Option<Value> {
        if theirs == base || theirs == ours {
            return ours.cloned();
        }
        if ours == base {
            return theirs.cloned();
        }
        let (ours_now, theirs_now) = (ours, theirs);
        match (base, ours, theirs) {
            (Some(Value::Object(_)) | None, Some(Value::Object(ours)), Some(Value::Object(theirs)))
                if !is_whole(place) =>
            {
                let none = Map::new();
                let base = base.and_then(Value::as_object).unwrap_or(&none);
                Some(Value::Object(self.object(place, base, ours, theirs)))
            }
            (Some(Value::Array(_)) | None, Some(Value::Array(ours)), Some(Value::Array(theirs)))
                if is_set(place) =>
            {
                let none = Vec::new();
                let base = base.and_then(Value::as_array).unwrap_or(&none);
                let mut merged: Vec<Value> =
                    ours.iter().filter(|it| theirs.contains(it) || !base.contains(it)).cloned().collect();
                merged.extend(theirs.iter().filter(|it| !ours.contains(it) && !base.contains(it)).cloned());
                Some(Value::Array(merged))
            }
            _ => {
                let did = |side: Option<&Value>| match (base, side) {
                    (_, None) => "removed",
                    (None, Some(_)) => "added",
                    (Some(_), Some(_)) => "changed",
                };
                let (here, there) = (did(ours_now), did(theirs_now));
                self.conflicts.push(format!("{}: {here} here, {there} in the branch", pointer(place)));
                ours_now.cloned()
            }
        }
    }

    fn object(
        &mut self,
        place: &[String],
        base: &Map<String, Value>,
        ours: &Map<String, Value>,
        theirs: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut merged = Map::new();
        let added = theirs.keys().filter(|name| !ours.contains_key(*name));
        for name in ours.keys().chain(added) {
            let place: Vec<String> = place.iter().chain([name]).cloned().collect();
            let value = self.value(&place, base.get(name), ours.get(name), theirs.get(name));
            if let Some(value) = value {
                merged.insert(name.clone(), value);
            }
        }
        merged
    }
}

fn pointer(place: &[String]) -> String {
    place.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Whether half of one side's and half of the other's would be something that nobody has written.
fn is_whole(place: &[String]) -> bool {
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    matches!(
        place.as_slice(),
        ["database", "tables", _, "columns", _, ..]
            | ["database", "tables", _, "access", ..]
            | ["storage", "buckets", _, ..]
            | ["realtime", _, _, ..]
            | ["routes", _, ..]
            | ["site", "files", _, ..]
            | ["functions" | "schedules", _, ..]
    )
}

/// Whether a list says only what is in it.
fn is_set(place: &[String]) -> bool {
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    matches!(
        place.as_slice(),
        ["database", "migrations"]
            | ["database", "tables", _, "indexes" | "unique"]
            | ["auth", "methods" | "origins"]
            | ["secrets" | "tests"]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Merge, some};

    fn merged(base: Value, ours: Value, theirs: Value) -> (Value, Vec<String>) {
        let mut merge = Merge::default();
        let merged = merge.value(&[], some(&base), some(&ours), some(&theirs));
        (merged.unwrap_or_default(), merge.conflicts)
    }

    fn tables(tables: Value) -> Value {
        json!({ "database": { "tables": tables } })
    }

    #[test]
    fn each_part_is_taken_from_the_side_that_has_changed_it() {
        let base = tables(json!({
            "a": { "columns": { "x": "text", "y": "int" }, "access": "private", "indexes": ["x"] },
            "gone": {},
        }));
        let ours = tables(json!({
            "a": { "columns": { "x": "text!", "y": "int" }, "access": "private", "indexes": ["x", "y"] },
            "gone": {},
            "ours": {},
        }));
        let theirs = tables(json!({
            "a": { "columns": { "x": "text", "z": "bool" }, "access": "public_read", "indexes": [] },
            "theirs": {},
        }));
        let expected = tables(json!({
            "a": { "columns": { "x": "text!", "z": "bool" }, "access": "public_read", "indexes": ["y"] },
            "ours": {},
            "theirs": {},
        }));
        assert_eq!(merged(base, ours, theirs), (expected, Vec::new()));
    }

    #[test]
    fn what_both_have_changed_is_named_and_the_same_change_is_none() {
        let base = json!({
            "name": "app",
            "database": { "tables": { "a": { "columns": { "x": "text" }, "access": { "get": "true" } }, "b": {} } },
        });
        let ours = json!({
            "name": "same",
            "database": { "tables": { "a": { "columns": { "x": "int" }, "access": { "get": "false" } } } },
            "site": { "files": { "a/b.html": { "sha256": "1" } } },
        });
        let theirs = json!({
            "name": "same",
            "database": { "tables": {
                "a": { "columns": { "x": "bool" }, "access": { "get": "true", "list": "true" } },
                "b": { "columns": { "n": "int" } },
            } },
            "site": { "files": { "a/b.html": { "sha256": "2" } } },
        });
        let (_, conflicts) = merged(base, ours, theirs);
        assert_eq!(
            conflicts,
            [
                "/database/tables/a/columns/x: changed here, changed in the branch",
                "/database/tables/a/access: changed here, changed in the branch",
                "/database/tables/b: removed here, changed in the branch",
                "/site/files/a~1b.html: added here, added in the branch",
            ]
        );
    }
}
