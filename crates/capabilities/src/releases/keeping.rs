//! What is kept of an app, and for how long: the manifest's `backups` and `lifecycle`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kernel::{Env, Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Releases;
use super::change::{Action, Draft, EffectKind};
use super::manifest::Manifest;
use super::rehearsal::Release;
use crate::database::{Durability, Role};
use crate::hosting::DEFAULT_GRACE;

/// The manifest's `backups`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupSpec {
    /// How often the whole environment is backed up: `6h`, `1d`; never where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// How many backups are kept (default 7, at most 100); an older one goes when a newer one has been read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// None is older but the newest: `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Period>,
}

/// The manifest's `lifecycle`: when what is old goes. What is live never does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleSpec {
    /// Releases, and the files that only they need (default: 100 are kept).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<Keep>,
    /// Contents of sites and functions that no release, plan or snapshot needs; `age` is how long an upload may wait for its release
    /// (default 1h, at most 30d).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Keep>,
    /// Snapshots without a name; those with one stay until somebody removes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Keep>,
    /// Lines of the log; `keep` is not for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Keep>,
}

/// Which of many stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// At most so many, the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// None that is older: `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Period>,
    /// Snapshots that are older are packed away, those with a name too: they take little, and a return takes longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Period>,
}

/// A number of hours or days, `6h` or `30d`: 1 hour to 10 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    hours: u32,
}

const BACKUPS: u32 = 7;
const MOST_BACKUPS: u32 = 100;

/// How many releases are kept where nothing is said, and how many may be.
const RELEASES: u32 = 100;
const MOST: u32 = 1_000;

const LONGEST: u32 = 24 * 365 * 10;

/// How many hours an upload may wait for its release.
const BLOBS: u32 = 24 * 30;

impl Period {
    /// How long that is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.hours as u64 * 3_600)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hours.is_multiple_of(24) {
            write!(f, "{}d", self.hours / 24)
        } else {
            write!(f, "{}h", self.hours)
        }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("h", 1), ("d", 24)];
        let found = units.iter().find_map(|(unit, hours)| {
            let number = text.strip_suffix(unit)?.parse::<u32>().ok()?;
            number.checked_mul(*hours)
        });
        match found {
            Some(hours) if (1..=LONGEST).contains(&hours) => Ok(Self { hours }),
            _ => Err("expected hours or days, such as 6h or 30d, from 1h to 3650d".to_owned()),
        }
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> String {
        period.to_string()
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+[hd]$" })
    }
}

impl BackupSpec {
    /// How many are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.keep.unwrap_or(BACKUPS) as usize
    }

    /// Refuses what cannot be, with its place below `/backups`.
    pub(crate) fn check(&self) -> Result<()> {
        match self.keep {
            Some(keep) if !(1..=MOST_BACKUPS).contains(&keep) => {
                Err(Error::invalid("/keep", format!("1 to {MOST_BACKUPS} backups can be kept")))
            }
            _ if self.every.is_none() && (self.keep.is_some() || self.age.is_some()) => {
                Err(Error::invalid("/every", "say how often: `6h`, `1d`")
                    .hint("or leave `keep` and `age` out"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for BackupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.every {
            Some(every) => {
                write!(f, "every {every}, {} kept", self.kept())?;
                self.age.map_or(Ok(()), |age| write!(f, ", none older than {age}"))
            }
            None => f.write_str("none"),
        }
    }
}

impl LifecycleSpec {
    /// How many releases are kept, the current one among them.
    pub(crate) fn kept_releases(&self) -> u32 {
        self.releases.and_then(|it| it.keep).unwrap_or(RELEASES)
    }

    /// How long contents stay that nothing needs.
    pub(crate) fn blobs_grace(&self) -> Duration {
        self.blobs.and_then(|it| it.age).map_or(DEFAULT_GRACE, Period::duration)
    }

    fn parts(&self) -> [(&'static str, Option<Keep>); 4] {
        [
            ("releases", self.releases),
            ("blobs", self.blobs),
            ("snapshots", self.snapshots),
            ("logs", self.logs),
        ]
    }

    /// Refuses what cannot be, with its place below `/lifecycle`.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, keep) in self.parts() {
            let Some(Keep { keep, age, archive }) = keep else { continue };
            if name == "blobs" && age.is_some_and(|age| age.hours > BLOBS) {
                return Err(Error::invalid(
                    "/blobs/age",
                    "an upload waits for its release for 30 days at most",
                ));
            }
            if archive.is_some() && name != "snapshots" {
                return Err(Error::invalid(format!("/{name}/archive"), "only snapshots are packed away"));
            }
            let Some(keep) = keep else { continue };
            let at = format!("/{name}/keep");
            if matches!(name, "logs" | "blobs") {
                return Err(Error::invalid(at, format!("{name} are kept by their age")));
            }
            if !(1..=MOST).contains(&keep) {
                return Err(Error::invalid(at, format!("1 to {MOST} can be kept")));
            }
        }
        Ok(())
    }
}

impl fmt::Display for LifecycleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, keep) in self.parts() {
            let Some(Keep { keep, age, archive }) = keep else { continue };
            let keep = keep.map(|keep| format!("at most {keep}"));
            let age = age.map(|age| format!("none older than {age}"));
            let archive = archive.map(|age| format!("packed away after {age}"));
            let both: Vec<_> = keep.into_iter().chain(age).chain(archive).collect();
            if !both.is_empty() {
                parts.push(format!("{name}: {}", both.join(", ")));
            }
        }
        f.write_str(if parts.is_empty() { "as usual" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// What changes in a plan of what is kept.
pub(crate) fn changes(before: &Manifest, after: &Manifest, draft: &mut Draft) {
    let backups = |manifest: &Manifest| manifest.backups.clone().unwrap_or_default();
    let (was, is) = (backups(before), backups(after));
    if was != is {
        draft.change(Action::Alter, "backups", Some(format!("{was} → {is}")));
        let fewer = is.kept() < was.kept() && was.every.is_some() || is.every.is_none();
        let message =
            if fewer { "fewer moments can be returned to" } else { "backups take space where they are kept" };
        draft.effect(EffectKind::Cost, "backups", message);
    }
    let lifecycle = |manifest: &Manifest| manifest.lifecycle.clone().unwrap_or_default();
    let (was, is) = (lifecycle(before), lifecycle(after));
    if was != is {
        let detail = format!("{was} → {is}");
        draft.change(Action::Alter, "lifecycle", Some(detail.clone()));
        draft.effect(EffectKind::Cost, "lifecycle", detail);
    }
}

impl Releases {
    /// What the live release says of backups and of what is old.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn keeping(&self, env: &Env) -> Result<(BackupSpec, LifecycleSpec)> {
        let rows = self.databases.platform_query(env, Release::CURRENT, &[]).await?;
        let manifest = rows.into_iter().next().map_or(Ok(Release::default()), Release::read)?.manifest;
        Ok((manifest.backups.unwrap_or_default(), manifest.lifecycle.unwrap_or_default()))
    }

    /// Since when releases without a gap ask for backups by themselves, where the live one does.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn backed_up_since(&self, env: &Env) -> Result<Option<Timestamp>> {
        let live = "(SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";
        let sql = format!(
            "SELECT min(created_at) FROM _steading_release WHERE number <= {live} AND number > \
             coalesce((SELECT max(number) FROM _steading_release WHERE number <= {live} \
             AND json_extract(manifest, '$.backups.every') IS NULL), 0)"
        );
        let found = self.databases.platform_query(env, &sql, &[]).await?;
        Ok(found.first().and_then(|row| row.first()?.as_i64()).map(Timestamp::from_micros))
    }

    /// Removes releases that are older than `lifecycle` says, but for the live one; how many.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub async fn expire(&self, env: &Env, lifecycle: &LifecycleSpec) -> Result<u64> {
        let Some(age) = lifecycle.releases.and_then(|it| it.age) else { return Ok(0) };
        let before = Timestamp::now().minus(age.duration());
        let old = "SELECT count(*) FROM _steading_release WHERE created_at < ?1";
        let found = self.databases.platform_query(env, old, &[before.as_micros().into()]).await?;
        if found.first().and_then(|row| row[0].as_u64()).unwrap_or_default() == 0 {
            return Ok(0);
        }
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Normal).await?;
        let sql = "DELETE FROM _steading_release WHERE created_at < ?1 AND number <> \
                   (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";
        let removed = db.run(Role::Platform, sql, &[json!(before.as_micros())]).await?.changed;
        db.commit().await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::Period;

    #[test]
    fn a_period_is_hours_or_days() {
        let read = |text: &str| text.parse::<Period>().ok().map(|it| it.to_string());
        assert_eq!(
            ["1h", "24h", "36h", "30d", "3650d"].map(read),
            ["1h", "1d", "36h", "30d", "3650d"].map(|it| Some(it.to_owned()))
        );
        for wrong in ["", "h", "0h", "-1h", "1", "1m", "1.5d", "3651d", "99999999999d", " 1d", "1 d", "+1d "]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
