//! The rows of users, in the environment's own database.

use kernel::{Env, Error, Result, Secret, Timestamp, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::address::Address;
use super::factors::{ACTIVE, FactorKind};
use super::password;
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
    /// The phone number, where the user signs in by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Whether it was confirmed that the address is the user's; left out where it was not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub email_verified: bool,
    /// `user`, `admin`, or another.
    pub role: String,
    /// What the app notes about the user.
    pub claims: Map<String, Value>,
    /// Who else vouches for the user: providers, and `custom`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// Whether the user has no way to come back: no address, number or passkey, and nobody who vouches.
    pub anonymous: bool,
    /// Whether the user cannot sign in.
    pub disabled: bool,
    /// The second factors that the user has; left out where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mfa: Vec<FactorKind>,
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
    /// The phone number, where the user signs in by one.
    pub phone: Option<String>,
    /// Whether it was confirmed that the address is the user's; only then rules see it.
    pub email_verified: bool,
    /// The role.
    pub role: String,
    /// Whether the user has no account yet: neither an address nor another way to come back.
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
            phone: None,
            email_verified: false,
            role: "user".to_owned(),
            claims: Map::new(),
            providers: Vec::new(),
            anonymous: email.is_none(),
            disabled: false,
            mfa: Vec::new(),
            created_at: Timestamp::now(),
            last_seen_at: None,
        }
    }

    /// Notes that somebody vouches for the user.
    pub(super) fn note(&mut self, provider: &str) {
        self.anonymous = false;
        if let Err(at) = self.providers.binary_search_by(|known| known.as_str().cmp(provider)) {
            self.providers.insert(at, provider.to_owned());
        }
    }

    pub(super) fn profile(&self) -> Profile {
        let Self { id, email, phone, email_verified, role, anonymous, created_at, .. } = self.clone();
        Profile { id, email, phone, email_verified, role, anonymous, created_at }
    }

    /// The user as rules see it: an address that anybody could have typed is none.
    pub(super) fn user(&self) -> User {
        let Self { id, role, email, email_verified, claims, .. } = self.clone();
        User { id, role, email: email.filter(|_| email_verified), claims }
    }
}

/// A user's row.
pub(super) struct Stored {
    pub account: Account,
    pub password: Option<Secret>,
}

/// Whether the address of the user `u` was confirmed.
const VERIFIED: &str = "EXISTS (SELECT 1 FROM _steading_identity i \
    WHERE i.provider = 'email' AND i.subject = u.email AND i.user = u.id)";

/// Who vouches for the user `u`, in order.
const PROVIDERS: &str = "(SELECT group_concat(provider, ' ') FROM (SELECT DISTINCT i.provider FROM _steading_identity i \
    WHERE i.user = u.id AND i.provider NOT IN ('email', 'phone') ORDER BY i.provider))";

/// The phone number of the user `u`.
const PHONE: &str =
    "(SELECT min(i.subject) FROM _steading_identity i WHERE i.provider = 'phone' AND i.user = u.id)";

/// Reads the user `?1` as rules see it, for [`seen`]; one who is disabled too.
pub(crate) fn seen_sql() -> String {
    format!(
        "SELECT u.role, CASE WHEN {VERIFIED} THEN u.email END, u.claims, u.disabled FROM _steading_user u \
         WHERE u.id = ?1"
    )
}

/// The user of a row of [`seen_sql`], and whether it is disabled.
pub(crate) fn seen(id: UserId, row: &[Value]) -> (User, bool) {
    let text = |at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
    let claims = text(2).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let user = User { id, role: text(0).unwrap_or_default(), email: text(1), claims };
    (user, row.get(3).and_then(Value::as_i64) != Some(0))
}

pub(super) fn columns() -> String {
    format!(
        "u.id, u.email, u.role, u.claims, u.disabled, u.created_at, u.last_seen_at, u.password, {VERIFIED}, \
         {ACTIVE}, {PHONE}, {PROVIDERS}"
    )
}

impl Stored {
    /// Reads a row of [`columns`].
    pub fn read(row: &[Value]) -> Result<Self> {
        let unreadable = || Error::internal("a row of a user cannot be read");
        let [
            id,
            email,
            role,
            claims,
            disabled,
            created,
            seen,
            password,
            verified,
            totp,
            passkey,
            phone,
            providers,
            ..,
        ] = row
        else {
            return Err(unreadable());
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let time = |value: &Value| value.as_i64().map(Timestamp::from_micros);
        let (email, phone) = (text(email), text(phone));
        let providers = text(providers).unwrap_or_default();
        let providers: Vec<String> = providers.split_whitespace().map(str::to_owned).collect();
        let there = |(there, kind): (&Value, FactorKind)| (there.as_i64() == Some(1)).then_some(kind);
        let mfa = [(totp, FactorKind::Totp), (passkey, FactorKind::Passkey)]
            .into_iter()
            .filter_map(there)
            .collect();
        let account = Account {
            id: id.as_str().and_then(|id| id.parse().ok()).ok_or_else(unreadable)?,
            anonymous: email.is_none()
                && phone.is_none()
                && providers.is_empty()
                && passkey.as_i64() != Some(1),
            email,
            phone,
            providers,
            email_verified: verified.as_i64() == Some(1),
            role: text(role).ok_or_else(unreadable)?,
            claims: serde_json::from_str(claims.as_str().ok_or_else(unreadable)?).map_err(Error::internal)?,
            disabled: disabled.as_i64() != Some(0),
            mfa,
            created_at: time(created).ok_or_else(unreadable)?,
            last_seen_at: time(seen),
        };
        Ok(Self { account, password: password.as_str().map(Secret::new) })
    }
}

/// Reads every user, for [`check_stored`].
pub(crate) const STORED_USERS: &str = "SELECT u.id, u.email, u.role, u.claims, u.disabled, u.created_at, \
                                       u.last_seen_at, u.password, 0, 0, 0, NULL, NULL FROM _steading_user u";

/// Refuses a row that no user of ours has.
///
/// # Errors
/// What is wrong with it, at the column.
pub(crate) fn check_stored(row: &[Value]) -> Result<()> {
    let cell = |at: usize| row.get(at).unwrap_or(&Value::Null);
    let text = |at: usize| cell(at).as_str();
    let is_claims = |text: &str| serde_json::from_str::<Map<String, Value>>(text).is_ok();
    for (column, is_good, what) in [
        ("id", text(0).is_some_and(|id| id.parse::<UserId>().is_ok()), "the id of a user"),
        ("role", text(2).is_some(), "a role"),
        ("claims", text(3).is_some_and(is_claims), "an object of JSON"),
        ("created_at", cell(5).is_i64(), "a time"),
    ] {
        if !is_good {
            return Err(Error::invalid(format!("/{column}"), format!("this is not {what}")));
        }
    }
    let stored = Stored::read(row)?;
    if let Some(email) = &stored.account.email
        && Address::parse("/email", email)?.as_str() != email
    {
        return Err(Error::invalid("/email", "an address is not written as addresses are kept"));
    }
    match stored.password {
        Some(password) if !password::is_harmless(password.expose()) => {
            Err(Error::invalid("/password", "what is stored of a password is none"))
        }
        _ => Ok(()),
    }
}

/// How a user is looked for.
pub(super) enum Key<'a> {
    Id(UserId),
    Email(&'a Address),
    Phone(&'a Address),
}

impl Key<'_> {
    fn sql(&self) -> (String, [Value; 1]) {
        let (column, value) = match self {
            Key::Id(id) => ("id", id.to_string()),
            Key::Email(address) => ("email", address.as_str().to_owned()),
            Key::Phone(number) => ("id", number.as_str().to_owned()),
        };
        let is = match self {
            Key::Id(_) | Key::Email(_) => "?1",
            Key::Phone(_) => {
                "(SELECT user FROM _steading_identity WHERE provider = 'phone' AND subject = ?1)"
            }
        };
        (format!("SELECT {} FROM _steading_user u WHERE u.{column} = {is}", columns()), [value.into()])
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

/// Notes that an address was confirmed to be a user's, and no other one is any more.
pub(super) async fn confirm(db: &mut Writer, user: &mut Account) -> Result<()> {
    let Some(email) = &user.email else { return Ok(()) };
    let sql = "DELETE FROM _steading_identity WHERE provider = 'email' AND (user = ?1 OR subject = ?2)";
    db.run(Role::Platform, sql, &[user.id.to_string().into(), email.clone().into()]).await?;
    let sql =
        "INSERT INTO _steading_identity (provider, subject, user, created_at) VALUES ('email', ?1, ?2, ?3)";
    let params: [Value; 3] =
        [email.clone().into(), user.id.to_string().into(), Timestamp::now().as_micros().into()];
    db.run(Role::Platform, sql, &params).await?;
    user.email_verified = true;
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
