//! What is under way between the app, the browser and a provider: sealed in the browser until it comes back, then as rows of
//! the environment's own database, hashed, short-lived, and used once.

use std::time::Duration;

use kernel::{Env, Error, Result, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::links::Surety;
use crate::auth::Inner;
use crate::auth::token::{self, hexadecimal};
use crate::auth::upkeep::few;
use crate::database::{Role, Writer};

/// How long somebody may be away.
pub(super) const AWAY: Duration = Duration::from_secs(10 * 60);

/// How long the page that has begun may take to take up what a provider has said.
pub(super) const BACK: Duration = Duration::from_secs(2 * 60);

/// How much of each kind may be under way in one environment.
const MOST: u64 = 20_000;

/// How many custom tokens that were used are kept in mind until they end.
const MOST_USED: u64 = 100_000;

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Somebody has come back from a provider with this state.
    Home,
    /// A provider has said who it is; the page that has begun may take it up with this code.
    Back,
    /// A custom token with this name was used.
    Used,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Stage::Home => "home",
            Stage::Back => "back",
            Stage::Used => "used",
        }
    }

    /// How many there may be.
    const fn most(self) -> u64 {
        match self {
            Stage::Home | Stage::Back => MOST,
            Stage::Used => MOST_USED,
        }
    }
}

/// Somebody who is away, as their browser keeps it, sealed: whoever never comes back takes no room here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Away {
    /// Until when, in microseconds since the Unix epoch.
    pub until: i64,
    pub provider: String,
    /// The address that the provider sends back to.
    pub callback: String,
    /// Where it goes on from there, checked.
    pub redirect: String,
    /// The hash of what the page that has begun keeps to itself.
    pub challenge: String,
}

/// What a provider has said, for the page that has begun.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    pub provider: String,
    pub subjects: Vec<String>,
    /// The address, where the provider has confirmed it.
    pub email: Option<(String, Surety)>,
    pub challenge: String,
    /// The hash of the cookie that the page's browser holds, where the page is the app's own: what its address has brought
    /// may have gone on to another site by a redirect.
    pub browser: Option<String>,
}

/// What is stored of a name: it holds in this environment and stage alone.
pub(super) fn hash(env: &Env, label: &str, text: &str) -> String {
    hexadecimal(&token::hash(format!("{}\n{label}\n{text}", env.id()).as_bytes()))
}

/// Writes down what is under way until then; whether there was nothing of that name.
pub(super) async fn put(
    db: &mut Writer,
    env: &Env,
    stage: Stage,
    (name, until): (&str, Timestamp),
    what: &impl Serialize,
) -> Result<bool> {
    let now = Timestamp::now();
    let expired = "DELETE FROM _steading_oauth WHERE expires_at <= ?1";
    db.run(Role::Platform, expired, &[now.as_micros().into()]).await?;
    few(db, &format!("_steading_oauth WHERE stage = '{}'", stage.as_str()), stage.most()).await?;
    let sql = "INSERT INTO _steading_oauth (id, stage, said, expires_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let params: [Value; 4] = [
        hash(env, stage.as_str(), name).into(),
        stage.as_str().into(),
        serde_json::to_string(what).map_err(Error::internal)?.into(),
        until.as_micros().into(),
    ];
    Ok(db.run(Role::Platform, sql, &params).await?.changed > 0)
}

/// Whether there is something under way by that name.
pub(super) async fn is_there(inner: &Inner, env: &Env, stage: Stage, name: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM _steading_oauth WHERE id = ?1 AND stage = ?2 AND expires_at > ?3";
    let params: [Value; 3] =
        [hash(env, stage.as_str(), name).into(), stage.as_str().into(), Timestamp::now().as_micros().into()];
    Ok(!inner.databases.platform_query(env, sql, &params).await?.is_empty())
}

/// Takes what is under way by that name; from then on there is nothing.
pub(super) async fn take<T: DeserializeOwned>(
    db: &mut Writer,
    env: &Env,
    stage: Stage,
    name: &str,
) -> Result<Option<T>> {
    let sql = "DELETE FROM _steading_oauth WHERE id = ?1 AND stage = ?2 AND expires_at > ?3 RETURNING said";
    let params: [Value; 3] =
        [hash(env, stage.as_str(), name).into(), stage.as_str().into(), Timestamp::now().as_micros().into()];
    let found = db.run(Role::Platform, sql, &params).await?.rows;
    let said = found.first().and_then(|row| row.first()?.as_str().map(str::to_owned));
    said.map(|said| serde_json::from_str(&said).map_err(Error::internal)).transpose()
}
