//! The rows of users and sessions, in the environment's own database.

use kernel::{Code, Env, Error, Result, Secret, Timestamp, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::address::Address;
use super::password;
use super::token::Refresh;
use crate::access::User;
use crate::database::{Databases, Role, Writer};

/// A user, as the app's makers see one. What is stored of the password is no part of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Account {
    /// The user's id; what `owner` holds.
    #[schemars(with = "String")]
    pub id: UserId,
    /// The address; none for who has signed in anonymously.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `user`, `admin`, or another.
    pub role: String,
    /// What the app notes about the user.
    pub claims: Map<String, Value>,
    /// Whether the user has no address.
    pub anonymous: bool,
    /// Whether the user cannot sign in.
    pub disabled: bool,
    /// When the user was made.
    pub created_at: Timestamp,
    /// When the user last signed in or refreshed a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// A user, as the user sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// The user's id.
    pub id: UserId,
    /// The address; none for who has signed in anonymously.
    pub email: Option<String>,
    /// The role.
    pub role: String,
    /// Whether the user has no address.
    pub anonymous: bool,
    /// When the user was made.
    pub created_at: Timestamp,
}

impl Account {
    /// A new user; nothing is stored yet.
    pub(super) fn new(email: Option<&Address>) -> Self {
        Self {
            id: UserId::new(),
            email: email.map(|address| address.as_str().to_owned()),
            role: "user".to_owned(),
            claims: Map::new(),
            anonymous: email.is_none(),
            disabled: false,
            created_at: Timestamp::now(),
            last_seen_at: None,
        }
    }

    pub(super) fn profile(&self) -> Profile {
        let Self { id, email, role, anonymous, created_at, .. } = self.clone();
        Profile { id, email, role, anonymous, created_at }
    }

    /// The user as rules see it.
    pub(super) fn user(&self) -> User {
        let Self { id, role, email, claims, .. } = self.clone();
        User { id, role, email, claims }
    }
}

/// A user's row.
pub(super) struct Stored {
    pub account: Account,
    pub password: Option<Secret>,
}

pub(super) const COLUMNS: &str =
    "u.id, u.email, u.role, u.claims, u.disabled, u.created_at, u.last_seen_at, u.password";

impl Stored {
    /// Reads a row of [`COLUMNS`].
    pub fn read(row: &[Value]) -> Result<Self> {
        let unreadable = || Error::internal("a row of a user cannot be read");
        let [id, email, role, claims, disabled, created, seen, password, ..] = row else {
            return Err(unreadable());
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let time = |value: &Value| value.as_i64().map(Timestamp::from_micros);
        let email = text(email);
        let account = Account {
            id: id.as_str().and_then(|id| id.parse().ok()).ok_or_else(unreadable)?,
            anonymous: email.is_none(),
            email,
            role: text(role).ok_or_else(unreadable)?,
            claims: serde_json::from_str(claims.as_str().ok_or_else(unreadable)?).map_err(Error::internal)?,
            disabled: disabled.as_i64() != Some(0),
            created_at: time(created).ok_or_else(unreadable)?,
            last_seen_at: time(seen),
        };
        Ok(Self { account, password: password.as_str().map(Secret::new) })
    }
}

/// Reads every user, for [`check_stored`].
pub(crate) const STORED_USERS: &str = "SELECT u.id, u.email, u.role, u.claims, u.disabled, u.created_at, \
                                       u.last_seen_at, u.password FROM _steading_user u";

/// Refuses a row that no user of ours has.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_stored(row: &[Value]) -> Result<()> {
    let stored = Stored::read(row)?;
    if let Some(email) = &stored.account.email {
        Address::parse("", email)?;
    }
    match stored.password {
        Some(password) if !password::is_harmless(password.expose()) => {
            Err(Error::new(Code::InvalidInput, "what is stored of a password is none"))
        }
        _ => Ok(()),
    }
}

/// How a user is looked for.
pub(super) enum Key<'a> {
    Id(UserId),
    Email(&'a Address),
}

impl Key<'_> {
    fn sql(&self) -> (String, [Value; 1]) {
        let (column, value) = match self {
            Key::Id(id) => ("id", id.to_string()),
            Key::Email(address) => ("email", address.as_str().to_owned()),
        };
        (format!("SELECT {COLUMNS} FROM _steading_user u WHERE u.{column} = ?1"), [value.into()])
    }

    /// The user as last committed.
    pub async fn find(&self, databases: &Databases, env: &Env) -> Result<Option<Stored>> {
        let (sql, params) = self.sql();
        databases.platform_query(env, &sql, &params).await?.first().map(|row| Stored::read(row)).transpose()
    }

    /// The user as the open transaction sees it.
    pub async fn find_in(&self, db: &mut Writer) -> Result<Option<Stored>> {
        let (sql, params) = self.sql();
        let found = db.run(Role::Platform, &sql, &params).await?;
        found.rows.first().map(|row| Stored::read(row)).transpose()
    }
}

/// Writes a user's row, new or not.
pub(super) async fn put(db: &mut Writer, stored: &Stored) -> Result<()> {
    let Stored { account, password } = stored;
    let claims = serde_json::to_string(&account.claims).map_err(Error::internal)?;
    let sql = "INSERT INTO _steading_user \
               (id, email, password, role, claims, disabled, created_at, last_seen_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
               ON CONFLICT (id) DO UPDATE SET email = ?2, password = ?3, role = ?4, claims = ?5, disabled = ?6, \
               last_seen_at = ?8";
    let params: [Value; 8] = [
        account.id.to_string().into(),
        account.email.clone().into(),
        password.as_ref().map(|hash| hash.expose().to_owned()).into(),
        account.role.clone().into(),
        claims.into(),
        account.disabled.into(),
        account.created_at.as_micros().into(),
        account.last_seen_at.map(Timestamp::as_micros).into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(())
}

/// A session that was just made.
pub(super) struct Opened {
    pub id: String,
    pub refresh: Refresh,
    /// Sessions of the user that had to end for it.
    pub ended: Vec<String>,
}

/// Opens a session of a user, who then has at most `most`; those that have expired go.
pub(super) async fn open_session(
    db: &mut Writer,
    user: UserId,
    expires: Timestamp,
    most: u32,
) -> Result<Opened> {
    let now = Timestamp::now();
    let sql = "DELETE FROM _steading_session WHERE user = ?1 AND (expires_at <= ?2 OR id NOT IN \
               (SELECT id FROM _steading_session WHERE user = ?1 ORDER BY created_at DESC, id DESC LIMIT ?3)) \
               RETURNING id";
    let params = [user.to_string().into(), now.as_micros().into(), most.max(1).saturating_sub(1).into()];
    let ended = ids(&db.run(Role::Platform, sql, &params).await?.rows);
    let (id, refresh) = (Uuid::now_v7().simple().to_string(), Refresh::first()?);
    let sql = "INSERT INTO _steading_session (id, user, family, refresh, created_at, expires_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let params: [Value; 6] = [
        id.clone().into(),
        user.to_string().into(),
        refresh.family().into(),
        refresh.hash().into(),
        now.as_micros().into(),
        expires.as_micros().into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(Opened { id, refresh, ended })
}

/// Ends all sessions of a user; how many there were.
pub(super) async fn end_sessions(db: &mut Writer, user: UserId) -> Result<u64> {
    let sql = "DELETE FROM _steading_session WHERE user = ?1";
    Ok(db.run(Role::Platform, sql, &[user.to_string().into()]).await?.changed)
}

/// Ends one session.
pub(super) async fn end_session(db: &mut Writer, session: &str) -> Result<()> {
    db.run(Role::Platform, "DELETE FROM _steading_session WHERE id = ?1", &[session.into()]).await?;
    Ok(())
}

/// Makes what was done permanent where it has succeeded.
pub(super) async fn settle<T>(mut db: Writer, outcome: Result<T>) -> Result<T> {
    match outcome {
        Ok(value) => {
            db.commit().await?;
            Ok(value)
        }
        Err(error) => {
            db.rollback().await?;
            Err(error)
        }
    }
}

fn ids(rows: &[Vec<Value>]) -> Vec<String> {
    rows.iter().filter_map(|row| row.first()?.as_str().map(str::to_owned)).collect()
}
