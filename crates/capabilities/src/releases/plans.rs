//! Plans that were shown to somebody and can be applied as they were shown.

use std::collections::HashSet;
use std::time::Duration;

use kernel::{BlobHash, Code, Error, PlanId, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::change::Effect;
use super::goal::Goal;
use super::observed::Observed;
use super::rehearsal::Rehearsal;
use crate::database::{Durability, Role, Writer};

/// How long a plan can be applied.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How many plans an environment keeps.
const KEPT: u32 = 20;

/// How many losses an error names.
const NAMED: usize = 20;

/// A plan as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub goal: Goal,
    pub observed: Observed,
    /// What would be lost, as it was shown.
    pub losses: Vec<Effect>,
    /// What has to be said to lose it; nothing where nothing is lost.
    pub confirm: Option<String>,
}

impl Stored {
    /// A plan for what was rehearsed. The confirmation is 128 random bits: nobody says it who was not shown it.
    pub(crate) fn of(goal: Goal, rehearsal: &Rehearsal) -> Self {
        let losses: Vec<_> = rehearsal.losses().cloned().collect();
        let confirm = (!losses.is_empty()).then(random);
        Self { goal, observed: rehearsal.observed.clone(), losses, confirm }
    }

    pub(crate) async fn save(&self, db: &mut Writer) -> Result<PlanId> {
        let id = PlanId::new();
        let plan = serde_json::to_string(self).map_err(Error::internal)?;
        db.begin(Durability::Normal).await?;
        let row = [json!(id), json!(plan), json!(Timestamp::now().as_micros())];
        db.run(Role::Platform, "INSERT INTO _steading_plan (id, plan, created_at) VALUES (?1, ?2, ?3)", &row)
            .await?;
        let old = "DELETE FROM _steading_plan WHERE created_at < ?1 OR id NOT IN \
                   (SELECT id FROM _steading_plan ORDER BY id DESC LIMIT ?2)";
        let limits = [json!(Timestamp::now().minus(LIFETIME).as_micros()), json!(KEPT)];
        db.run(Role::Platform, old, &limits).await?;
        db.commit().await?;
        Ok(id)
    }

    pub(crate) async fn load(db: &mut Writer, id: PlanId) -> Result<Self> {
        let sql = "SELECT plan FROM _steading_plan WHERE id = ?1 AND created_at >= ?2";
        let since = Timestamp::now().minus(LIFETIME).as_micros();
        let rows = db.run(Role::Platform, sql, &[json!(id), json!(since)]).await?.rows;
        let row = rows.first().ok_or_else(|| {
            Error::not_found("such plan (any more)").field("/plan_id").hint("call app_plan again")
        })?;
        Self::read(row)
    }

    /// A row of (plan).
    pub(crate) fn read(row: &[Value]) -> Result<Self> {
        let text = row.first().and_then(Value::as_str).unwrap_or_default();
        serde_json::from_str(text).map_err(|e| Error::internal(format!("a stored plan does not parse: {e}")))
    }

    /// The blobs that applying it needs.
    pub(crate) fn blobs(&self) -> HashSet<BlobHash> {
        self.goal.blobs()
    }

    /// Refuses where the plan loses data and `confirm` is not what it asked for.
    pub(crate) fn confirmed(&self, confirm: Option<&str>) -> Result<()> {
        let Some(wanted) = &self.confirm else { return Ok(()) };
        match confirm {
            Some(given) if given == wanted => Ok(()),
            Some(_) => Err(lossy(self.losses.iter())
                .field("/confirm")
                .hint("this is not the confirmation of this plan: take `confirm` from app_plan's answer")),
            None => Err(lossy(self.losses.iter())
                .field("/confirm")
                .hint("if that is wanted, pass the `confirm` that the plan returned")),
        }
    }
}

/// The refusal to lose data.
pub(crate) fn lossy<'a>(losses: impl Iterator<Item = &'a Effect>) -> Error {
    let mut words: Vec<_> = losses.map(|loss| format!("{}: {}", loss.target, loss.message)).collect();
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    if more > 0 {
        words.push(format!("and {more} more losses, which app_plan counts"));
    }
    Error::new(Code::Conflict, format!("this would lose data: {}", words.join("; ")))
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
