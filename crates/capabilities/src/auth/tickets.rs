//! Tickets: what somebody holds between two steps of signing in. Each is for one thing, in one environment, for a few
//! minutes.

use std::time::Duration;

use kernel::{Env, Error, Result, Secret, Timestamp, UserId};
use serde_json::Value;

use super::token::{self, hexadecimal, random};
use super::upkeep::few;
use crate::database::{Role, Writer};

/// Tickets begin so, and nobody takes one for another token. An app's users read it: it names nobody.
const PREFIX: &str = "mt_";

/// How many there may be in one environment.
const MOST: u64 = 20_000;

/// How often something may be tried with one before it is worth nothing.
const TRIES: u32 = 5;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The second factor, after the first was right.
    Second,
    /// A passkey that is made or shown: a challenge.
    Passkey,
}

impl For {
    const fn as_str(self) -> &'static str {
        match self {
            For::Second => "second",
            For::Passkey => "passkey",
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
    user: Option<UserId>,
    about: &str,
    life: Duration,
) -> Result<Secret> {
    let text = Secret::new(format!("{PREFIX}{}", token::text(&random::<32>()?)));
    let now = Timestamp::now();
    db.run(Role::Platform, EXPIRED, &[now.as_micros().into()]).await?;
    few(db, "_steading_ticket", MOST).await?;
    let sql = "INSERT INTO _steading_ticket (id, purpose, user, about, tries, expires_at) \
               VALUES (?1, ?2, ?3, ?4, 0, ?5)";
    let params: [Value; 5] = [
        hash(env, purpose, &text).into(),
        purpose.as_str().into(),
        user.map(|user| user.to_string()).into(),
        about.into(),
        now.plus(life).as_micros().into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(text)
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
    db.run(Role::Platform, "DELETE FROM _steading_ticket WHERE user = ?1", &[user.to_string().into()])
        .await?;
    Ok(())
}

/// Those that nobody has used in time, by `?1`.
pub(super) const EXPIRED: &str = "DELETE FROM _steading_ticket WHERE expires_at <= ?1";

/// What is stored: it holds in this environment and for this purpose alone.
fn hash(env: &Env, purpose: For, text: &Secret) -> String {
    let said = format!("ticket\n{}\n{}\n{}", env.id(), purpose.as_str(), text.expose());
    hexadecimal(&token::hash(said.as_bytes()))
}
