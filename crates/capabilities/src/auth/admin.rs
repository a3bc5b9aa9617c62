//! Users, as an app's makers list and change them.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result, Secret, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::account::{self, Account, Key, Stored, columns, settle};
use super::address::Address;
use super::codes::{self, New, Purpose};
use super::letters::Sender;
use super::password::Password;
use super::sessions::{self, Of};
use super::{Auth, Inner, factors, ways, whole};
use crate::database::{COUNTED, Databases, Writer};
use crate::mail::{self, At, Kept, Letter};

const MOST: u32 = 100;
const ROLE: usize = 32;

/// What to do where there is no such user.
const FIND: &str = "auth_users lists users, with `query` those whose address has it in it";

/// What may be noted about one user, in bytes of JSON.
const CLAIMS: usize = 3_000;

/// What an [`Account`] costs a model at most, in tokens.
pub const COSTLIEST: usize = 3_700;

/// Which users to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Users {
    /// The one with this id or address.
    pub user: Option<String>,
    /// Those whose address contains this.
    pub query: Option<String>,
    /// At most this many, and at most 100.
    pub limit: Option<u32>,
    /// Where the page begins.
    pub cursor: Option<String>,
}

/// A page of users.
#[derive(Debug, Clone, PartialEq)]
pub struct UserPage {
    /// The users.
    pub users: Vec<Account>,
    /// Where the next page begins; none on the last.
    pub cursor: Option<String>,
}

/// What becomes of a user. What is none stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// The user's id or address. An address that has no account yet gets one.
    pub user: String,
    /// The role.
    pub role: Option<String>,
    /// What is noted about the user, all of it.
    pub claims: Option<Map<String, Value>>,
    /// Whether the user cannot sign in; then all sessions end.
    pub disabled: Option<bool>,
    /// Another address; like that of a new user it counts as confirmed.
    pub email: Option<String>,
    /// Another phone number, or an empty text for none; sessions by the one before end.
    pub phone: Option<String>,
    /// A password; all sessions end.
    pub password: Option<Secret>,
    /// Whether all sessions end.
    pub sign_out: bool,
    /// Whether the user is mailed a link to sign in with.
    pub invite: Option<Invitation>,
    /// What becomes of the second factors.
    pub mfa: Option<MfaChange>,
}

/// What becomes of a user's second factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MfaChange {
    /// They are taken away, and all sessions end.
    Reset,
}

/// What an invitation says.
#[derive(Debug, Clone, Default)]
pub struct Invitation {
    /// What the app is called.
    pub app: Option<String>,
}

/// What has become of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserSet {
    /// The user.
    pub user: Account,
    /// Whether the user is new.
    pub created: bool,
    /// How many sessions have ended.
    pub signed_out: u64,
}

/// Whom a text names.
enum Named {
    Id(UserId),
    Email(Address),
    Phone(Address),
}

impl Named {
    fn parse(text: &str) -> Result<Self> {
        match text.trim().parse() {
            Ok(id) => Ok(Named::Id(id)),
            Err(_) => match (Address::parse("/user", text), Address::phone("/user", text)) {
                (Ok(email), _) => Ok(Named::Email(email)),
                (Err(_), Ok(phone)) => Ok(Named::Phone(phone)),
                (Err(_), Err(_)) => Err(Error::invalid(
                    "/user",
                    "this is neither a user's id nor an address nor a phone number",
                )
                .hint("write usr_…, name@example.org, or +4915123456789")),
            },
        }
    }

    fn key(&self) -> Key<'_> {
        match self {
            Named::Id(id) => Key::Id(*id),
            Named::Email(address) => Key::Email(address),
            Named::Phone(number) => Key::Phone(number),
        }
    }
}

impl Auth {
    /// A page of users.
    ///
    /// # Errors
    /// `invalid_input` at `/user` or `/cursor`.
    pub async fn users(&self, env: &Env, wanted: &Users) -> Result<UserPage> {
        if let Some(user) = &wanted.user {
            let found = Named::parse(user)?.key().find(&self.0.databases, env).await?;
            return Ok(UserPage {
                users: found.into_iter().map(|found| found.account).collect(),
                cursor: None,
            });
        }
        let before = match &wanted.cursor {
            Some(cursor) => {
                let id: UserId = cursor.parse().map_err(|_| {
                    Error::invalid("/cursor", "this is not a cursor that a page of users returned")
                })?;
                Value::from(id.to_string())
            }
            None => Value::Null,
        };
        let limit = wanted.limit.unwrap_or(50).clamp(1, MOST);
        let sql = format!(
            "SELECT {} FROM _steading_user u WHERE (?1 IS NULL OR u.id < ?1) \
             AND (?2 IS NULL OR instr(u.email, ?2) > 0) ORDER BY u.id DESC LIMIT ?3",
            columns()
        );
        let query = wanted.query.as_ref().map(|query| query.trim().to_lowercase());
        let params = [before, query.into(), (limit + 1).into()];
        let rows = self.0.databases.platform_query(env, &sql, &params).await?;
        let users = rows.iter().map(|row| Ok(Stored::read(row)?.account));
        let mut users: Vec<Account> = users.collect::<Result<_>>()?;
        let more = users.len() > limit as usize;
        users.truncate(limit as usize);
        let cursor = users.last().filter(|_| more).map(|user| user.id.to_string());
        Ok(UserPage { users, cursor })
    }

    /// How many users there are, counted up to 100,000, and how many mails in the outbox.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub(crate) async fn count(databases: &Databases, env: &Env) -> Result<(u64, u64)> {
        let sql = "SELECT (SELECT count(*) FROM (SELECT 1 FROM _steading_user LIMIT ?1)), \
                   (SELECT count(*) FROM _steading_mail)";
        let rows = databases.platform_query(env, sql, &[COUNTED.into()]).await?;
        let count = |at: usize| rows.first().and_then(|row| row.get(at)?.as_u64()).unwrap_or_default();
        Ok((count(0), count(1)))
    }

    /// The mails in the outbox, newest first: where no mail server is set, they are all that an app's users get.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn mails(&self, env: &Env, to: Option<&str>, limit: u32) -> Result<Vec<Kept>> {
        let to = to.map(|to| to.trim().to_lowercase());
        mail::kept(&self.0.databases, env, to.as_deref(), limit).await
    }

    /// Changes a user, or makes one. When this returns, no access token opens what the user may not do any more.
    ///
    /// # Errors
    /// `not_found` for an id that is no user's; `invalid_input` naming the field; `conflict` where another user has
    /// the address; `rate_limited` where the address or the app has had as many invitations as it may.
    pub async fn set_user(&self, env: &Env, change: UserChange) -> Result<UserSet> {
        let named = Named::parse(&change.user)?;
        check(&change)?;
        let email = change.email.as_deref().map(|email| Address::parse("/email", email)).transpose()?;
        let before = named.key().find(&self.0.databases, env).await?.map(|found| found.account);
        let address = match (&email, &named, before.and_then(|account| account.email)) {
            (Some(email), _, _) => Some(email.clone()),
            (None, Named::Email(address), _) => Some(address.clone()),
            (None, Named::Id(_) | Named::Phone(_), Some(email)) => Some(Address::parse("/user", &email)?),
            (None, Named::Id(_) | Named::Phone(_), None) => None,
        };
        let password = match &change.password {
            Some(password) => {
                Some(self.0.passwords.hash(env.id(), Password::new(password, address.as_ref())?).await?)
            }
            None => None,
        };
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        whole(async move { inner.set_user(&env, &named, change, email, password).await }).await
    }
}

impl Inner {
    async fn set_user(
        &self,
        env: &Env,
        named: &Named,
        change: UserChange,
        email: Option<Address>,
        password: Option<Secret>,
    ) -> Result<UserSet> {
        let phone = change.phone.as_deref().map(|text| match text.trim() {
            "" => Ok(None),
            text => Address::phone("/phone", text).map(Some),
        });
        let phone = phone.transpose()?;
        let mut db = self.begin(env).await?;
        let set = async {
            let (mut user, created) = match (named.key().find_in(&mut db).await?, named) {
                (Some(found), _) => (found, false),
                (None, Named::Email(address)) if email.as_ref().is_none_or(|email| email == address) => {
                    (Stored { account: Account::new(Some(address)), password: None }, true)
                }
                (None, Named::Email(_)) => {
                    return Err(Error::invalid("/email", "a new user has the address in `user`"));
                }
                (None, Named::Phone(_)) => {
                    return Err(Error::not_found("user with this number").field("/user").hint(FIND));
                }
                (None, Named::Id(id)) => {
                    return Err(Error::not_found(format!("user {id}")).field("/user").hint(FIND));
                }
            };
            let by_address = matches!(named, Named::Email(_)) && email.is_none();
            let rights = change.role.is_some() || change.claims.is_some();
            if by_address && rights && !created && !user.account.email_verified {
                let message = "nobody has shown that this address is theirs, and anybody could have typed it";
                return Err(Error::new(Code::Conflict, message).field("/user").hint(format!(
                    "name the user by the id {} if you know who it is, or send `invite` to the address first",
                    user.account.id
                )));
            }
            if let Some(email) = email {
                let other = Key::Email(&email).find_in(&mut db).await?;
                if other.is_some_and(|other| other.account.id != user.account.id) {
                    return Err(Error::new(Code::Conflict, "another user has this address").field("/email"));
                }
                user.account.email = Some(email.as_str().to_owned());
                user.account.anonymous = false;
                user.account.email_verified = false;
            }
            let ends = change.sign_out
                || password.is_some()
                || change.disabled == Some(true)
                || change.mfa == Some(MfaChange::Reset);
            user.account.role = change.role.unwrap_or(user.account.role);
            user.account.claims = change.claims.unwrap_or(user.account.claims);
            user.account.disabled = change.disabled.unwrap_or(user.account.disabled);
            user.password = password.or(user.password);
            account::put(&mut db, &user).await?;
            if created || change.email.is_some() {
                // The app's makers vouch for it.
                account::confirm(&mut db, &mut user.account).await?;
            }
            let by_phone = match phone {
                Some(number) => {
                    let ended = ways::set_phone(&mut db, user.account.id, number.as_ref()).await?;
                    let found = Key::Id(user.account.id).find_in(&mut db).await?;
                    user = found.ok_or_else(|| Error::internal("a user that was written is not there"))?;
                    ended
                }
                None => 0,
            };
            if let Some(number) = user.account.phone.as_deref().filter(|_| ends) {
                codes::forget(&mut db, &Address::stored(number)?).await?;
            }
            let address =
                user.account.email.as_deref().map(|email| Address::parse("/user", email)).transpose()?;
            // What a stranger has asked for with this address opens nothing that the app's makers have made.
            let vouched = created || change.email.is_some();
            if let Some(address) = address.as_ref().filter(|_| ends || vouched) {
                codes::forget(&mut db, address).await?;
            }
            if change.mfa == Some(MfaChange::Reset) {
                factors::reset(&mut db, user.account.id).await?;
                user.account.mfa = Vec::new();
            }
            let ended = if ends { sessions::end(&mut db, user.account.id, Of::All).await? } else { 0 };
            let signed_out = by_phone + ended;
            let letter = match &change.invite {
                Some(invitation) => {
                    let sender = self.sender(env, invitation.app.as_deref(), At::Best).await?;
                    Some(self.invitation(&mut db, env, &user.account, address.as_ref(), &sender).await?)
                }
                None => None,
            };
            let letter = self.keep(&mut db, letter).await?;
            Ok((UserSet { user: user.account, created, signed_out }, letter))
        }
        .await;
        let (set, letter) = settle(db, set).await?;
        self.dispatch(env, letter);
        self.recognized.forget(|known| known.is_of_user(env.id(), set.user.id));
        Ok(set)
    }

    async fn invitation(
        &self,
        db: &mut Writer,
        env: &Env,
        user: &Account,
        address: Option<&Address>,
        sender: &Sender,
    ) -> Result<Letter> {
        let refuse = |why| Err(Error::invalid("/invite", why));
        let Some(email) = address else { return refuse("a user without an address cannot be invited") };
        if user.disabled {
            return refuse("a disabled user cannot be invited");
        }
        let (throttles, to) = (&self.throttles, (env.id(), email.clone()));
        throttles.invitations.admit(to.clone())?;
        if let Err(refused) = throttles.invitations_of_app.admit(env.id()) {
            throttles.invitations.give_back(&to);
            return Err(refused);
        }
        let (purpose, life) = (Purpose::Invite, self.limits.invitation);
        let new = New { purpose, email, user: None, password: None, redirect: None, life };
        let mailed = codes::make(db, env, &new).await?;
        Ok(sender.code(email, purpose, &mailed, None, life))
    }
}

fn check(change: &UserChange) -> Result<()> {
    change.role.as_deref().map_or(Ok(()), check_role)?;
    change.claims.as_ref().map_or(Ok(()), check_claims)
}

/// Refuses what is no role.
pub(super) fn check_role(role: &str) -> Result<()> {
    let plain = role.starts_with(|c: char| c.is_ascii_lowercase())
        && role.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if plain && role.len() <= ROLE {
        return Ok(());
    }
    let message =
        format!("a role is a lower-case letter, then letters, digits, - and _, at most {ROLE} together");
    Err(Error::invalid("/role", message))
}

/// Refuses more than may be noted about one user.
pub(super) fn check_claims(claims: &Map<String, Value>) -> Result<()> {
    let bytes = serde_json::to_string(claims).map_err(Error::internal)?.len();
    if bytes > CLAIMS {
        let message = format!("the claims are {bytes} bytes of JSON and at most {CLAIMS} are allowed");
        return Err(Error::new(Code::TooLarge, message).field("/claims"));
    }
    Ok(())
}
