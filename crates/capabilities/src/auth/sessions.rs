//! The rows of sessions: opened, refreshed, listed and ended.

use std::sync::Arc;

use kernel::{Env, Error, Result, Secret, Timestamp, UserId};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::account::{self, Stored, columns, settle};
use super::factors::Cleared;
use super::token::{self, Refresh};
use super::{Asking, Auth, Ending, How, Inner, Session, tickets, whole};
use crate::database::{Role, Writer};
use crate::logs::Level;

/// How much of what a browser says of itself is kept.
const DEVICE: usize = 200;

/// A session, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// What it is called where it is to end.
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// How the user has signed in.
    pub method: String,
    /// What the browser or program has said of itself then.
    pub device: Option<String>,
    /// When the user has signed in.
    pub created_at: Timestamp,
    /// When it was last refreshed.
    pub used_at: Timestamp,
}

/// A session that was just made.
pub(super) struct Opened {
    pub id: String,
    pub refresh: Refresh,
    /// Sessions of the user that had to end for it.
    pub ended: Vec<String>,
}

/// Opens a session of a user who has shown all that is asked for, and who then has at most `most`; those that have
/// expired go.
pub(super) async fn open(
    db: &mut Writer,
    cleared: &Cleared,
    how: &How,
    expires: Timestamp,
    most: u32,
) -> Result<Opened> {
    let (now, user) = (Timestamp::now(), cleared.user());
    let sql = "DELETE FROM _steading_session WHERE user = ?1 AND (expires_at <= ?2 OR id NOT IN \
               (SELECT id FROM _steading_session WHERE user = ?1 ORDER BY created_at DESC, id DESC LIMIT ?3)) \
               RETURNING id";
    let params = [user.to_string().into(), now.as_micros().into(), most.max(1).saturating_sub(1).into()];
    let ended = ids(&db.run(Role::Platform, sql, &params).await?.rows);
    if !ended.is_empty() {
        forget_begun(db, user).await?;
    }
    let (id, refresh) = (Uuid::now_v7().simple().to_string(), Refresh::first()?);
    let sql = "INSERT INTO _steading_session \
               (id, user, family, refresh, method, device, created_at, used_at, expires_at, second) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9)";
    let params: [Value; 9] = [
        id.clone().into(),
        user.to_string().into(),
        refresh.family().into(),
        refresh.hash().into(),
        how.method.as_ref().into(),
        how.device.as_deref().map(named).into(),
        now.as_micros().into(),
        expires.as_micros().into(),
        cleared.second().map(Timestamp::as_micros).into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(Opened { id, refresh, ended })
}

/// Which sessions of a user end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of<'a> {
    /// All.
    All,
    /// All but this one.
    Others(&'a str),
    /// This one.
    One(&'a str),
    /// Those that one way to sign in has opened, but this one.
    Way(&'a str, &'a str),
}

/// Ends sessions of a user; how many there were. Whatever was begun in any session and is not finished yet, a new address
/// or a passkey in the making, ends with them: nobody knows who has begun it.
pub(super) async fn end(db: &mut Writer, user: UserId, which: Of<'_>) -> Result<u64> {
    forget_begun(db, user).await?;
    if matches!(which, Of::All | Of::Others(_)) {
        // What was mailed or sent before opens the account no more: somebody else may have it.
        let sql = "DELETE FROM _steading_code WHERE email IN (SELECT email FROM _steading_user WHERE id = ?1 \
                   UNION SELECT subject FROM _steading_identity WHERE user = ?1 AND provider = 'phone')";
        db.run(Role::Platform, sql, &[user.to_string().into()]).await?;
    }
    let (sql, params): (_, [Option<&str>; 2]) = match which {
        Of::All => ("user = ?1", [None, None]),
        Of::Others(kept) => ("user = ?1 AND id <> ?2", [Some(kept), None]),
        Of::One(session) => ("user = ?1 AND id = ?2", [Some(session), None]),
        Of::Way(method, kept) => ("user = ?1 AND method = ?2 AND id <> ?3", [Some(method), Some(kept)]),
    };
    let user = user.to_string();
    let params: Vec<Value> =
        [Some(user.as_str())].into_iter().chain(params).flatten().map(Value::from).collect();
    Ok(db.run(Role::Platform, &format!("DELETE FROM _steading_session WHERE {sql}"), &params).await?.changed)
}

/// Nothing that a user has begun is worth anything any more: the second step of a sign-in, an address to change to, a
/// passkey or an authenticator that is being set up.
async fn forget_begun(db: &mut Writer, user: UserId) -> Result<()> {
    tickets::forget(db, user).await?;
    for sql in [
        "DELETE FROM _steading_code WHERE user = ?1 AND purpose = 'change'",
        "DELETE FROM _steading_totp WHERE user = ?1 AND active = 0",
    ] {
        db.run(Role::Platform, sql, &[user.to_string().into()]).await?;
    }
    Ok(())
}

/// Whether a session of a user is still there.
pub(super) async fn is_open(db: &mut Writer, user: UserId, session: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM _steading_session WHERE id = ?1 AND user = ?2";
    Ok(!db.run(Role::Platform, sql, &[session.into(), user.to_string().into()]).await?.rows.is_empty())
}

/// What a browser says of itself, as one line of bounded length.
fn named(device: &str) -> String {
    device.chars().filter(|c| !c.is_control()).take(DEVICE).collect()
}

fn ids(rows: &[Vec<Value>]) -> Vec<String> {
    rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect()
}

impl Auth {
    /// The next pair of tokens of a session. A token that was used before ends the session, for it is in two hands;
    /// except where it comes with the same `attempt` as before and the answer to that was never used: then it was lost,
    /// and its token is replaced by another.
    ///
    /// # Errors
    /// `unauthenticated` where the token is none, was used, has expired, or its session has ended; `invalid_input` at
    /// `/attempt`; `rate_limited`.
    pub async fn refresh(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        attempt: Option<&Secret>,
    ) -> Result<Session> {
        self.0.throttles.refreshes.admit(asking.client())?;
        let attempt = attempt.map(read_attempt).transpose()?;
        let ended = || {
            Error::new(kernel::Code::Unauthenticated, "the refresh token is not valid (any more)")
                .hint("log in again")
        };
        let token = Refresh::parse(token).ok_or_else(ended)?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let refreshed = whole(async move { inner.refresh(&env, &token, attempt).await }).await?;
        refreshed.ok_or_else(ended)
    }

    /// The sessions of an access token's user, the latest first.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold.
    pub async fn sessions(&self, env: &Env, token: &Secret) -> Result<Vec<SessionInfo>> {
        let known = self.0.known(env, token).await?;
        let sql = "SELECT id, method, device, created_at, used_at FROM _steading_session \
                   WHERE user = ?1 AND expires_at > ?2 ORDER BY created_at DESC, id DESC";
        let params = [known.profile.id.to_string().into(), Timestamp::now().as_micros().into()];
        let rows = self.0.databases.platform_query(env, sql, &params).await?;
        let read = |row: &Vec<Value>| {
            let text = |at: usize| row.get(at)?.as_str().map(str::to_owned);
            let time = |at: usize| row.get(at)?.as_i64().map(Timestamp::from_micros);
            let id = text(0)?;
            let current = id == known.session;
            let (method, device) = (text(1)?, text(2));
            Some(SessionInfo { id, current, method, device, created_at: time(3)?, used_at: time(4)? })
        };
        let read = |row| read(row).ok_or_else(|| Error::internal("a row of a session cannot be read"));
        rows.iter().map(read).collect()
    }

    /// Ends sessions of an access token's user. When this returns, none of their tokens opens anything.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `not_found` for a session that is none of the user's.
    pub async fn log_out(&self, env: &Env, token: &Secret, ending: Ending) -> Result<()> {
        let known = self.0.known(env, token).await?;
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let user = known.profile.id;
            let ended = match &ending {
                Ending::This => end(&mut db, user, Of::One(&known.session)).await,
                Ending::Everywhere => end(&mut db, user, Of::All).await,
                Ending::Others => end(&mut db, user, Of::Others(&known.session)).await,
                Ending::One(session) => match end(&mut db, user, Of::One(session)).await {
                    Ok(0) => Err(Error::not_found("such session of yours")),
                    ended => ended,
                },
            };
            settle(db, ended).await?;
            inner.recognized.forget(|other| match &ending {
                Ending::This => other.is_of_session(env.id(), &known.session),
                Ending::Everywhere => other.is_of_user(env.id(), user),
                Ending::Others => other.is_of_user(env.id(), user) && other.session != known.session,
                Ending::One(session) => other.is_of_session(env.id(), session),
            });
            Ok(())
        })
        .await
    }
}

/// What is stored of an attempt's name.
fn read_attempt(attempt: &Secret) -> Result<String> {
    if (16..=200).contains(&attempt.expose().len()) {
        return Ok(token::hexadecimal(&token::hash(attempt.expose().as_bytes())));
    }
    Err(Error::invalid("/attempt", "an attempt is named by 16 to 200 random characters"))
}

/// What a refresh token has shown itself to be.
enum Shown {
    /// The session's current one.
    Current,
    /// The one before, again, since its answer was lost.
    Again,
    /// One that was spent.
    Spent,
}

impl Inner {
    /// None where the token does not hold.
    async fn refresh(&self, env: &Env, token: &Refresh, attempt: Option<String>) -> Result<Option<Session>> {
        let mut db = self.begin(env).await?;
        let refreshed = self.refresh_in(&mut db, env, token, attempt).await;
        match settle(db, refreshed).await? {
            Ok(session) => Ok(Some(session)),
            Err(None) => Ok(None),
            Err(Some(stolen)) => {
                self.recognized.forget(|other| other.is_of_session(env.id(), &stolen));
                Ok(None)
            }
        }
    }

    /// The session, or the one that has ended because of this, where there was one.
    async fn refresh_in(
        &self,
        db: &mut Writer,
        env: &Env,
        token: &Refresh,
        attempt: Option<String>,
    ) -> Result<Result<Session, Option<String>>> {
        let now = Timestamp::now();
        let sql = format!(
            "SELECT {}, s.id, s.refresh, s.spent, s.attempt, s.expires_at FROM _steading_session s \
             JOIN _steading_user u ON u.id = s.user WHERE s.family = ?1",
            columns()
        );
        let found = db.run(Role::Platform, &sql, &[token.family().into()]).await?.rows;
        let Some([user @ .., id, current, spent, before, expires]) = found.first().map(Vec::as_slice) else {
            return Ok(Err(None));
        };
        let mut user = Stored::read(user)?;
        let id = id.as_str().unwrap_or_default().to_owned();
        let live =
            expires.as_i64().is_some_and(|expires| expires > now.as_micros()) && !user.account.disabled;
        let hash = token.hash();
        let shown = if current.as_str() == Some(hash.as_str()) {
            Shown::Current
        } else if spent.as_str() == Some(hash.as_str())
            && before.is_string()
            && before.as_str() == attempt.as_deref()
        {
            // The token after it was never shown: had it been, it would be the spent one.
            Shown::Again
        } else {
            Shown::Spent
        };
        let (spent, attempt) = match shown {
            Shown::Current if live => (hash, attempt),
            Shown::Again if live => (hash, before.as_str().map(str::to_owned)),
            _ => {
                end(db, user.account.id, Of::One(&id)).await?;
                if live {
                    let user = user.account.id.to_string();
                    // Not beside what anybody causes: it may be a theft.
                    let message = "a spent refresh token was shown again: its session ends";
                    self.post.note(env, Level::Error, message, &[("user", &user)]);
                }
                return Ok(Err(Some(id)));
            }
        };
        let next = token.next()?;
        let sql = "UPDATE _steading_session SET refresh = ?2, spent = ?3, attempt = ?4, used_at = ?5, \
                   expires_at = ?6 WHERE id = ?1";
        let params: [Value; 6] = [
            id.clone().into(),
            next.hash().into(),
            spent.into(),
            attempt.into(),
            now.as_micros().into(),
            now.plus(self.limits.session).as_micros().into(),
        ];
        db.run(Role::Platform, sql, &params).await?;
        user.account.last_seen_at = Some(now);
        account::put(db, &user).await?;
        Ok(Ok(self.session(env, &user.account, id, &next).await?))
    }
}
