//! Codes and links that were mailed, and codes that were sent to phones, as rows of the environment's own database:
//! hashed, short-lived, and used once.

use std::time::Duration;

use kernel::{Env, Error, Result, Secret, Timestamp, UserId};
use serde_json::Value;
use uuid::Uuid;

use super::address::Address;
use super::token::{self, hexadecimal, random};
use super::upkeep::few;
use crate::database::{Role, Writer};

/// What links end with begins so. An app's users read it: it names nobody.
const PREFIX: &str = "lt_";

/// How many digits a code has.
pub(super) const DIGITS: usize = 6;

/// How often a code may be tried before it is worth nothing: more often than all strangers together may try in its life,
/// so that nobody takes somebody else's code away; less often than a guess would need, also where what is kept in mind of
/// tries is lost with the process.
const TRIES: u32 = 40;

/// How many codes there may be in one environment.
const MOST: u64 = 20_000;

/// How many codes of one address are good at once; the oldest goes for a new one.
const AT_ONCE: u32 = 5;

/// What a code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    SignIn,
    SignUp,
    Reset,
    Change,
    Invite,
    /// To a phone.
    Phone,
}

impl Purpose {
    const ALL: [Purpose; 6] =
        [Purpose::SignIn, Purpose::SignUp, Purpose::Reset, Purpose::Change, Purpose::Invite, Purpose::Phone];

    const fn as_str(self) -> &'static str {
        match self {
            Purpose::SignIn => "sign_in",
            Purpose::SignUp => "sign_up",
            Purpose::Reset => "reset",
            Purpose::Change => "change",
            Purpose::Invite => "invite",
            Purpose::Phone => "phone",
        }
    }
}

/// A code that is to be mailed.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub purpose: Purpose,
    pub email: &'a Address,
    /// Whose address it becomes, for `Change`; else who was here without an account when it was asked for.
    pub user: Option<UserId>,
    /// What is stored of the password that the account gets; for `SignUp`.
    pub password: Option<&'a Secret>,
    /// Where the link leads on to.
    pub redirect: Option<&'a str>,
    pub life: Duration,
}

/// What is mailed. It is known nowhere else.
pub(super) struct Mailed {
    pub code: Secret,
    pub link: Secret,
}

/// A code that was shown, and is worth nothing any more.
#[derive(Debug)]
pub(super) struct Spent {
    pub purpose: Purpose,
    pub email: Address,
    pub user: Option<UserId>,
    pub password: Option<Secret>,
    pub redirect: Option<String>,
}

/// Writes down a new code and its link.
pub(super) async fn make(db: &mut Writer, env: &Env, new: &New<'_>) -> Result<Mailed> {
    let now = Timestamp::now();
    // An invitation is good until the next one: it lives for days, and nobody types what is in it.
    let sql = "DELETE FROM _steading_code WHERE expires_at <= ?2 \
               OR email = ?1 AND purpose = 'invite' AND ?4 = 'invite' OR email = ?1 AND purpose <> 'invite' AND id NOT IN \
               (SELECT id FROM _steading_code WHERE email = ?1 AND purpose <> 'invite' ORDER BY id DESC LIMIT ?3)";
    let (email, purpose) = (new.email.as_str(), new.purpose.as_str());
    let params = [email.into(), now.as_micros().into(), (AT_ONCE - 1).into(), purpose.into()];
    db.run(Role::Platform, sql, &params).await?;
    // Codes of addresses that nobody is here by go first: whoever asks for many holds up nobody else.
    let sql = "DELETE FROM _steading_code WHERE (SELECT count(*) FROM _steading_code) >= ?1 AND id = \
               (SELECT c.id FROM _steading_code c WHERE c.purpose <> 'invite' \
               AND NOT EXISTS (SELECT 1 FROM _steading_user u WHERE u.email = c.email) \
               AND NOT EXISTS (SELECT 1 FROM _steading_identity i WHERE i.provider = 'phone' AND i.subject = c.email) \
               ORDER BY c.id LIMIT 1)";
    db.run(Role::Platform, sql, &[MOST.into()]).await?;
    few(db, "_steading_code", MOST).await?;
    // Of 2^64 numbers each code has the same share, but for one in 10^13.
    let code = format!("{:0DIGITS$}", u64::from_le_bytes(random()?) % 10_u64.pow(DIGITS as u32));
    let link = format!("{PREFIX}{}", token::text(&random::<32>()?));
    let id = Uuid::now_v7().to_string();
    let sql = "INSERT INTO _steading_code \
               (id, purpose, email, user, code, link, password, redirect, tries, created_at, expires_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10)";
    let params: [Value; 10] = [
        id.clone().into(),
        new.purpose.as_str().into(),
        new.email.as_str().into(),
        new.user.map(|user| user.to_string()).into(),
        hash(env, &id, &code).into(),
        hash(env, "", &link).into(),
        new.password.map(|password| password.expose().to_owned()).into(),
        new.redirect.into(),
        now.as_micros().into(),
        now.plus(new.life).as_micros().into(),
    ];
    db.run(Role::Platform, sql, &params).await?;
    Ok(Mailed { code: Secret::new(code), link: Secret::new(link) })
}

const COLUMNS: &str = "id, purpose, email, user, password, redirect, code";

/// Spends the code that was mailed to an address for one of these purposes; none where it is wrong, which counts.
pub(super) async fn by_code(
    db: &mut Writer,
    env: &Env,
    email: &Address,
    code: &str,
    purposes: &[Purpose],
) -> Result<Option<Spent>> {
    let live = "email = ?1 AND expires_at > ?2 AND tries < ?3 AND purpose <> 'invite'";
    let sql = format!("SELECT {COLUMNS} FROM _steading_code WHERE {live}");
    let params = [email.as_str().into(), Timestamp::now().as_micros().into(), TRIES.into()];
    for row in &db.run(Role::Platform, &sql, &params).await?.rows {
        let (id, spent) = read(row)?;
        let is_it = row.get(6).and_then(Value::as_str) == Some(hash(env, &id, code).as_str());
        if is_it && purposes.contains(&spent.purpose) {
            return last(db, spent).await.map(Some);
        }
    }
    let sql = format!("UPDATE _steading_code SET tries = tries + 1 WHERE {live}");
    db.run(Role::Platform, &sql, &params).await?;
    Ok(None)
}

/// Spends the link that ends so, where it is for one of these purposes.
pub(super) async fn by_link(
    db: &mut Writer,
    env: &Env,
    link: &Secret,
    purposes: &[Purpose],
) -> Result<Option<Spent>> {
    let sql = format!("SELECT {COLUMNS} FROM _steading_code WHERE link = ?1 AND expires_at > ?2");
    let params = [hash(env, "", link.expose()).into(), Timestamp::now().as_micros().into()];
    let found = db.run(Role::Platform, &sql, &params).await?.rows;
    let Some((_, spent)) = found.first().map(|row| read(row)).transpose()? else { return Ok(None) };
    if !purposes.contains(&spent.purpose) {
        return Ok(None);
    }
    last(db, spent).await.map(Some)
}

/// What was shown, as the last that is worth anything of its address. Where people have typed several passwords to sign up
/// with, nobody knows which of them is the reader's: it is none.
async fn last(db: &mut Writer, spent: Spent) -> Result<Spent> {
    let sql = "SELECT count(DISTINCT password) > 1 FROM _steading_code WHERE email = ?1 AND expires_at > ?2";
    let params = [spent.email.as_str().into(), Timestamp::now().as_micros().into()];
    let found = db.run(Role::Platform, sql, &params).await?.rows;
    let several = found.first().and_then(|row| row.first()?.as_i64()) == Some(1);
    forget(db, &spent.email).await?;
    Ok(Spent { password: spent.password.filter(|_| !several), ..spent })
}

/// Nothing that was mailed to an address is worth anything any more.
pub(super) async fn forget(db: &mut Writer, email: &Address) -> Result<()> {
    db.run(Role::Platform, "DELETE FROM _steading_code WHERE email = ?1", &[email.as_str().into()]).await?;
    Ok(())
}

fn read(row: &[Value]) -> Result<(String, Spent)> {
    let unreadable = || Error::internal("a row of a code cannot be read");
    let text = |at: usize| row.get(at).and_then(Value::as_str);
    let purpose = Purpose::ALL.into_iter().find(|purpose| text(1) == Some(purpose.as_str()));
    let spent = Spent {
        purpose: purpose.ok_or_else(unreadable)?,
        email: Address::stored(text(2).ok_or_else(unreadable)?)?,
        user: text(3).map(|user| user.parse().map_err(|_| unreadable())).transpose()?,
        password: text(4).map(Secret::new),
        redirect: text(5).map(str::to_owned),
    };
    Ok((text(0).ok_or_else(unreadable)?.to_owned(), spent))
}

/// What is stored: it holds in this environment alone.
fn hash(env: &Env, salt: &str, secret: &str) -> String {
    hexadecimal(&token::hash(format!("{}\n{salt}\n{secret}", env.id()).as_bytes()))
}
