//! The schedules of a release: what changes with them, and whether they run in this place.

use indexmap::IndexMap;
use kernel::{Env, Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Releases;
use super::change::{Action, Draft, EffectKind};
use super::goal::Goal;
use super::rehearsal::Release;
use crate::database::{Role, Writer};
use crate::functions::FunctionName;
use crate::schedules::Schedules;

/// Has the schedules of a copy of an environment not run, until a manifest brings some to the copy itself: what the original
/// does is not done twice.
pub(crate) const HOLD: &str = "INSERT INTO _steading_state (key, value) VALUES ('schedules', 'held'), ('events', 'held') \
     ON CONFLICT (key) DO NOTHING";

const IS_HELD: &str = "SELECT 1 FROM _steading_state WHERE key = 'schedules' AND value = 'held'";
const RELEASE: &str = "DELETE FROM _steading_state WHERE key = 'schedules'";

const CURRENT: &str = "SELECT json_extract(manifest, '$.schedules'), \
    EXISTS (SELECT 1 FROM _steading_state WHERE key = 'schedules' AND value = 'held') FROM _steading_release \
    WHERE number = (SELECT CAST(value AS INTEGER) FROM _steading_state WHERE key = 'release')";

/// The schedules of the release that is live.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scheduled {
    /// All of them.
    pub all: Schedules,
    /// Whether none of them runs, for they came along with a copy of another environment.
    pub held: bool,
}

/// One schedule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ScheduleInfo {
    /// The function.
    #[schemars(with = "String")]
    pub function: FunctionName,
    /// When.
    pub cron: String,
    /// In which time zone, where that is not UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Whether it does not run: it is not enabled, or this is a copy of another environment.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// When it runs next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What has become of the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// Whether it is off for want of a manifest that has brought it here.
    #[serde(skip)]
    pub held: bool,
}

impl Scheduled {
    /// Those that run.
    #[must_use]
    pub fn running(self) -> Schedules {
        if self.held {
            return Schedules::new();
        }
        self.all.into_iter().filter(|(_, it)| it.enabled).collect()
    }

    pub(super) fn described(self) -> IndexMap<String, ScheduleInfo> {
        let (now, held) = (Timestamp::now(), self.held);
        let described = self.all.into_iter().map(|(name, it)| {
            let off = held || !it.enabled;
            let next = it.timing().ok().filter(|_| !off).and_then(|timing| timing.next(now));
            let next = next.map(|at| at.to_string());
            let info = ScheduleInfo {
                function: it.function,
                cron: it.cron,
                timezone: it.timezone,
                off,
                next,
                last: None,
                held: held && it.enabled,
            };
            (name.to_string(), info)
        });
        described.collect()
    }
}

impl Releases {
    /// The schedules of the release that is live.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn scheduled(&self, env: &Env) -> Result<Scheduled> {
        let rows = self.databases.platform_query(env, CURRENT, &[]).await?;
        let Some(row) = rows.first() else { return Ok(Scheduled::default()) };
        let wrong = |e: serde_json::Error| Error::internal(format!("a stored release does not parse: {e}"));
        let all = match row.first().and_then(Value::as_str) {
            Some(text) => serde_json::from_str(text).map_err(wrong)?,
            None => Schedules::new(),
        };
        Ok(Scheduled { all, held: row.get(1).and_then(Value::as_i64) == Some(1) })
    }
}

/// Refuses schedules whose function is not there.
pub(super) fn check(release: &Release) -> Result<()> {
    for (name, schedule) in release.manifest.schedules.iter().flatten() {
        if !release.functions.contains_key(&schedule.function) {
            let message = format!("there is no function {}", schedule.function);
            return Err(Error::invalid(format!("/schedules/{name}/function"), message)
                .hint("deploy it first, put it under `functions`, or leave the schedule out"));
        }
    }
    Ok(())
}

/// What changes between two releases.
pub(super) fn diff(base: &Release, release: &Release, draft: &mut Draft) {
    let of = |release: &'_ Release| release.manifest.schedules.clone().unwrap_or_default();
    let (before, after) = (of(base), of(release));
    for (name, schedule) in &after {
        let target = format!("schedule {name}");
        match before.get(name) {
            Some(old) if old == schedule => {}
            Some(old) => {
                let (was, is) = (old.to_string(), schedule.to_string());
                let detail = if was == is { "its payload".to_owned() } else { format!("{was} → {is}") };
                draft.change(Action::Alter, target, Some(detail));
            }
            None => draft.change(Action::Create, target, Some(schedule.to_string())),
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        draft.change(Action::Drop, format!("schedule {name}"), None);
    }
}

/// Has the schedules of a copy run where a manifest brings some, and says so.
pub(super) async fn begin(db: &mut Writer, goal: &Goal, base: &Release, draft: &mut Draft) -> Result<()> {
    let Goal::Apply { manifest, .. } = goal else { return Ok(()) };
    if manifest.schedules.is_none() || db.run(Role::Platform, IS_HELD, &[]).await?.rows.is_empty() {
        return Ok(());
    }
    draft.step(RELEASE);
    if base.manifest.schedules.as_ref().is_some_and(|all| !all.is_empty()) {
        draft.change(Action::Alter, "schedules", Some("run in this copy".to_owned()));
        let message = "they run here from now on, beside those of the environment that this is a copy of";
        draft.effect(EffectKind::Cost, "schedules", message);
    }
    Ok(())
}
