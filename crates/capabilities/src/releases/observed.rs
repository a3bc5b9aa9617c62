//! What a plan saw of an environment, and what has moved since.

use std::collections::BTreeMap;

use kernel::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::database::{Role, Writer};

/// The state that a plan is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// The release that was current; 0 before the first.
    pub release: u64,
    /// `table todos` → a digest of its SQL, for everything that is not ours; migrations by their name.
    objects: BTreeMap<String, String>,
}

impl Observed {
    pub(crate) async fn now(db: &mut Writer, release: u64) -> Result<Self> {
        let sql = "SELECT type || ' ' || name, sql FROM sqlite_schema \
                   WHERE sql IS NOT NULL AND substr(name, 1, 10) <> '_steading_' \
                   UNION ALL SELECT 'migration ' || name, digest FROM _steading_migration";
        let rows = db.run(Role::Platform, sql, &[]).await?.rows;
        let text = |value: Option<&serde_json::Value>| {
            value.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let digest = |sql: String| {
            Sha256::digest(sql).iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
        };
        let objects = rows.iter().map(|row| (text(row.first()), digest(text(row.get(1))))).collect();
        Ok(Self { release, objects })
    }

    /// Refuses where `now` differs, and says in what.
    pub(crate) fn unmoved(&self, now: &Observed) -> Result<()> {
        if self == now {
            return Ok(());
        }
        let mut drift = Vec::new();
        if self.release != now.release {
            drift.push(format!("release {} is current, the plan saw {}", now.release, self.release));
        }
        for (name, digest) in &now.objects {
            match self.objects.get(name) {
                None => drift.push(format!("{name} was added")),
                Some(before) if before != digest => drift.push(format!("{name} was changed")),
                Some(_) => {}
            }
        }
        let gone = self.objects.keys().filter(|name| !now.objects.contains_key(*name));
        drift.extend(gone.map(|name| format!("{name} was removed")));
        let more = drift.len().saturating_sub(10);
        drift.truncate(10);
        if more > 0 {
            drift.push(format!("and {more} more"));
        }
        let message = format!("the environment has moved since the plan was made: {}", drift.join("; "));
        Err(Error::new(Code::Conflict, message)
            .field("/plan_id")
            .hint("call app_plan again and look at the new plan"))
    }
}
