//! Schedules of an app: what a manifest says of when its functions are asked without anybody asking.

mod name;
mod timing;

use std::collections::BTreeMap;
use std::fmt;

use kernel::{Code, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use name::ScheduleName;
pub use timing::Timing;

use crate::functions::FunctionName;

/// The schedules of a release.
pub type Schedules = BTreeMap<ScheduleName, ScheduleSpec>;

/// How many schedules an app has at most.
const MOST: usize = 50;

/// The largest payload, in bytes of JSON.
const PAYLOAD: usize = 8 << 10;

/// How often a run may be tried again.
const RETRIES: u8 = 3;

/// One schedule: when a function is asked without anybody asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// The function: its `scheduled`, or `exports.main`.
    pub function: FunctionName,
    /// When: minute hour day month weekday; or with seconds before and the year behind; or @hourly, @daily and the like.
    pub cron: String,
    /// The time zone of `cron`, like Asia/Shanghai; UTC where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What the function gets as `event.payload`; up to 8 KB of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// What comes of a time at which the last run is not over.
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    /// What comes of times that have passed while nothing ran here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub missed: Missed,
    /// How often a run that fails is tried again, 0 to 3: after 10 s, 1 min and 5 min.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u8,
    /// Whether it runs.
    #[serde(default = "on", skip_serializing_if = "is_on")]
    pub enabled: bool,
}

/// What comes of a time at which the last run is not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Nothing.
    #[default]
    Skip,
    /// One more run, beside it.
    Allow,
}

/// What comes of times that have passed while nothing ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Nothing.
    #[default]
    Skip,
    /// One run, for the last of them.
    Once,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn on() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_on(enabled: &bool) -> bool {
    *enabled
}

impl ScheduleSpec {
    /// When it is time.
    ///
    /// # Errors
    /// `invalid_input` at `/cron` or `/timezone`.
    pub fn timing(&self) -> Result<Timing> {
        Timing::read(&self.cron, self.timezone.as_deref())
    }

    /// What the function gets, as text in JSON; empty where it gets nothing.
    #[must_use]
    pub fn body(&self) -> String {
        self.payload.as_ref().map(Value::to_string).unwrap_or_default()
    }

    /// Refuses what cannot be, with its place below the schedule.
    fn check(&self) -> Result<()> {
        self.timing()?;
        if self.retries > RETRIES {
            return Err(Error::invalid("/retries", format!("retries is 0 to {RETRIES}")));
        }
        let bytes = self.body().len();
        if bytes > PAYLOAD {
            let message = format!("the payload has {bytes} bytes; the limit is {PAYLOAD} for each schedule");
            return Err(Error::new(Code::TooLarge, message)
                .field("/payload")
                .hint("keep it in a row or a file, and name that in the payload"));
        }
        Ok(())
    }
}

impl fmt::Display for ScheduleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.function, self.cron)?;
        if let Some(timezone) = &self.timezone {
            write!(f, " in {timezone}")?;
        }
        if let Some(payload) = &self.payload {
            write!(f, ", payload of {} bytes", payload.to_string().len())?;
        }
        if self.overlap == Overlap::Allow {
            f.write_str(", overlap allow")?;
        }
        if self.missed == Missed::Once {
            f.write_str(", missed once")?;
        }
        if self.retries > 0 {
            write!(f, ", retries {}", self.retries)?;
        }
        f.write_str(if self.enabled { "" } else { ", not enabled" })
    }
}

/// Refuses schedules that cannot be, with the place of the first.
pub(crate) fn check(schedules: &Schedules) -> Result<()> {
    if schedules.len() > MOST {
        let message = format!("an app has at most {MOST} schedules; these are {}", schedules.len());
        return Err(
            Error::invalid("", message).hint("let one schedule's function do what several do at one time")
        );
    }
    let mut checks = schedules.iter().map(|(name, it)| it.check().map_err(|e| e.under(&format!("/{name}"))));
    checks.try_for_each(|checked| checked)
}

/// Refuses those whose time never comes.
pub(crate) fn come(schedules: &Schedules) -> Result<()> {
    for (name, schedule) in schedules {
        if !schedule.timing()?.may_come() {
            let message = format!("there is no such time: {:?}", schedule.cron);
            return Err(
                Error::invalid(format!("/{name}/cron"), message).hint("look at its day and its month")
            );
        }
    }
    Ok(())
}
