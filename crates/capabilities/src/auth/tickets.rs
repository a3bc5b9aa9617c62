//! Tickets: what somebody holds between two steps of signing in. Each is for one thing, in one environment, for a few
//! minutes.

use std::time::Duration;

use kernel::{Env, Error, Result, Secret, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TokenKeys;
use super::token::{self, hexadecimal, random};
use crate::database::{Role, Writer};

/// Tickets begin so, and nobody takes one for another token. An app's users read it: it names nobody.
const PREFIX: &str = "mt_";

/// How many there may be in one environment, and of one user for one thing; the oldest goes for a new one.
const MOST: u64 = 20_000;
const OF_USER: u64 = 20;

/// How often something may be tried with one before it is worth nothing.
const TRIES: u32 = 5;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The second factor, after the first was right.
    Second,
    /// A passkey that is made: a challenge.
    Passkey,
    /// A passkey that was shown: its challenge is answered.
    Shown,
}

impl For {
    const fn as_str(self) -> &'static str {
        match self {
            For::Second => "second",
            For::Passkey => "passkey",
            For::Shown => "shown",
        }
    }
}

/// A ticket that is good.
pub(super) struct Ticket {
    /// What is stored of it.
    id: String,
    /// Whose it is.
    pub user: Option<UserId>,
    /// What goes along with it: by what its holder has signed in so far, or the host that a passkey is for.
    pub about: String,
}

/// Writes a ticket.
pub(super) async fn issue(
    db: &mut Writer,
    env: &Env,
    purpose: For,
    user: UserId,
    about: &str,
    life: Duration,
) -> Result<Secret> {
    let text = Secret::new(format!("{PREFIX}{}", token::text(&random::<32>()?)));
    let now = Timestamp::now();
    db.run(Role::Platform, EXPIRED, &[now.as_micros().into()]).await?;
    let whose = user.to_string();
    let sql = "DELETE FROM _steading_ticket WHERE user = ?1 AND purpose = ?2 AND id NOT IN \
               (SELECT id FROM _steading_ticket WHERE user = ?1 AND purpose = ?2 ORDER BY expires_at DESC LIMIT ?3)";
    let params = [whose.clone().into(), purpose.as_str().into(), (OF_USER - 1).into()];
    db.run(Role::Platform, sql, &params).await?;
    let sql = "DELETE FROM _steading_ticket WHERE id IN \
               (SELECT id FROM _steading_ticket WHERE purpose <> 'shown' ORDER BY expires_at DESC LIMIT -1 OFFSET ?1)";
    db.run(Role::Platform, sql, &[(MOST - 1).into()]).await?;
    let sql = "INSERT INTO _steading_ticket (id, purpose, user, about, tries, expires_at) \
               VALUES (?1, ?2, ?3, ?4, 0, ?5)";
    let params: [Value; 5] = [
        hash(env, purpose, &text).into(),
        purpose.as_str().into(),
        whose.into(),
        about.into(),
        now.plus(life).as_micros().into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(text)
}

/// A challenge to whoever holds a passkey, as it is sealed: whoever never answers takes no room here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    /// Until when it is good, in microseconds since the Unix epoch.
    until: i64,
    /// The host that the passkey is for.
    party: String,
}

/// A challenge to whoever holds a passkey for `party`. Nothing is stored of it.
pub(super) fn challenge(keys: &dyn TokenKeys, env: &Env, party: &str, life: Duration) -> Result<Secret> {
    let open = Open { until: Timestamp::now().plus(life).as_micros(), party: party.to_owned() };
    let open = serde_json::to_vec(&open).map_err(Error::internal)?;
    Ok(Secret::new(keys.seal(&place(env), &open)?))
}

/// Until when the challenge with this text is good, where it was given for `party`.
pub(super) fn given(keys: &dyn TokenKeys, env: &Env, party: &str, text: &Secret) -> Option<i64> {
    let opened = (text.expose().len() <= 1_000).then(|| keys.open(&place(env), text.expose()).ok())??;
    let open: Open = serde_json::from_slice(&opened).ok()?;
    (open.party == party && open.until > Timestamp::now().as_micros()).then_some(open.until)
}

/// Notes that `user` has answered a challenge; whether nobody had before.
pub(super) async fn answered(
    db: &mut Writer,
    env: &Env,
    text: &Secret,
    user: UserId,
    until: i64,
) -> Result<bool> {
    db.run(Role::Platform, EXPIRED, &[Timestamp::now().as_micros().into()]).await?;
    let sql = "INSERT INTO _steading_ticket (id, purpose, user, about, tries, expires_at) \
               VALUES (?1, ?2, ?3, '', 0, ?4) ON CONFLICT DO NOTHING";
    let params: [Value; 4] = [
        hash(env, For::Shown, text).into(),
        For::Shown.as_str().into(),
        user.to_string().into(),
        until.into(),
    ];
    Ok(db.run(Role::Platform, sql, &params).await?.changed > 0)
}

/// Where challenges are sealed for.
fn place(env: &Env) -> String {
    format!("challenge of {}", env.id())
}

/// The ticket with this text, where it is still good for `purpose`.
pub(super) async fn find(db: &mut Writer, env: &Env, purpose: For, text: &Secret) -> Result<Option<Ticket>> {
    if text.expose().len() > 200 {
        return Ok(None);
    }
    let sql = "SELECT id, user, about FROM _steading_ticket \
               WHERE id = ?1 AND purpose = ?2 AND expires_at > ?3 AND tries < ?4";
    let params = [
        hash(env, purpose, text).into(),
        purpose.as_str().into(),
        Timestamp::now().as_micros().into(),
        TRIES.into(),
    ];
    let found = db.run(Role::Platform, sql, &params).await?.rows;
    let Some(row) = found.first() else { return Ok(None) };
    let unreadable = || Error::internal("a row of a ticket cannot be read");
    let text = |at: usize| row.get(at).and_then(Value::as_str);
    Ok(Some(Ticket {
        id: text(0).ok_or_else(unreadable)?.to_owned(),
        user: text(1).map(|user| user.parse().map_err(|_| unreadable())).transpose()?,
        about: text(2).ok_or_else(unreadable)?.to_owned(),
    }))
}

/// Counts a try that has failed.
pub(super) async fn tried(db: &mut Writer, ticket: &Ticket) -> Result<()> {
    let sql = "UPDATE _steading_ticket SET tries = tries + 1 WHERE id = ?1";
    db.run(Role::Platform, sql, &[ticket.id.clone().into()]).await?;
    Ok(())
}

/// Uses a ticket up.
pub(super) async fn spend(db: &mut Writer, ticket: Ticket) -> Result<()> {
    db.run(Role::Platform, "DELETE FROM _steading_ticket WHERE id = ?1", &[ticket.id.into()]).await?;
    Ok(())
}

/// No ticket of a user is worth anything any more.
pub(super) async fn forget(db: &mut Writer, user: UserId) -> Result<()> {
    let sql = "DELETE FROM _steading_ticket WHERE user = ?1 AND purpose <> 'shown'";
    db.run(Role::Platform, sql, &[user.to_string().into()]).await?;
    Ok(())
}

/// Those that nobody has used in time, by `?1`.
pub(super) const EXPIRED: &str = "DELETE FROM _steading_ticket WHERE expires_at <= ?1";

/// What is stored: it holds in this environment and for this purpose alone.
fn hash(env: &Env, purpose: For, text: &Secret) -> String {
    let said = format!("ticket\n{}\n{}\n{}", env.id(), purpose.as_str(), text.expose());
    hexadecimal(&token::hash(said.as_bytes()))
}
