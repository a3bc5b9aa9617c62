//! Who is whom: the rows that tie a provider's people to the app's users.

use kernel::{Code, Env, Error, Result, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::auth::account::{self, Account, Key, Stored, settle};
use crate::auth::address::Address;
use crate::auth::factors;
use crate::auth::letters::{News, Sender};
use crate::auth::sessions::{self, Of};
use crate::auth::sign_in::{Before, Found, upgraded};
use crate::auth::{Inner, Profile};
use crate::database::{Role, Writer};
use crate::rows::{Mfa, SignUp};

/// Somebody whom another vouches for.
#[derive(Debug)]
pub(in crate::auth) struct Vouched {
    pub provider: String,
    /// The names that the provider has for them; the surest first.
    pub subjects: Vec<String>,
    /// The address that the provider has confirmed.
    pub email: Option<(Address, Surety)>,
    /// Who was here without an address, and becomes this.
    pub before: Option<Before>,
    /// Whether there may be a new account.
    pub signup: SignUp,
    /// Whether an account that is there already will do.
    pub aim: Aim,
    /// The role and the claims that the user has from now on.
    pub role: Option<String>,
    pub claims: Option<Map<String, Value>>,
}

/// How sure a provider is that an address is somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::auth) enum Surety {
    /// Its mail is read by whom the provider speaks for.
    Today,
    /// It was, at some time; it may be somebody else's by now.
    Once,
}

/// What somebody wants of another's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Aim {
    /// To be let in, as whoever it is.
    SignIn,
    /// One more way in for who is there already.
    Link,
}

/// The refusal of a way in that is somebody else's.
fn anothers() -> Error {
    Error::new(Code::Conflict, "this identity is another user's").hint("sign in with it instead")
}

fn has_account() -> Error {
    Error::new(Code::Conflict, "the address of this identity has an account")
        .hint("sign in to that account, and link the identity there")
}

fn disabled() -> Error {
    Error::new(Code::Forbidden, "this account cannot sign in")
}

impl Inner {
    /// The user whom somebody else's word is about. An address ties an identity to an account only where the provider has
    /// confirmed it and we have: whoever took the address before, without showing that it is theirs, keeps no way in.
    pub(in crate::auth) async fn vouched(
        &self,
        db: &mut Writer,
        mut vouched: Vouched,
        mfa: Mfa,
    ) -> Result<Found> {
        let (role, claims) = (vouched.role.take(), vouched.claims.take());
        let (provider, subjects) = (vouched.provider.clone(), std::mem::take(&mut vouched.subjects));
        let elsewhere = |user| vouched.before.as_ref().is_none_or(|it| it.user() != user);
        let (mut user, changed, linked) = match known(db, &provider, &subjects).await? {
            Some(user) if vouched.aim == Aim::Link && elsewhere(user) => return Err(anothers()),
            Some(user) => {
                let user = Key::Id(user).find_in(db).await?.filter(|user| !user.account.disabled);
                (user.ok_or_else(disabled)?, false, false)
            }
            None => {
                let (user, linked) = self.newly(db, vouched, mfa).await?;
                (user, true, linked)
            }
        };
        let given = role.is_some() || claims.is_some();
        user.account.role = role.unwrap_or(user.account.role);
        user.account.claims = claims.unwrap_or(user.account.claims);
        account::put(db, &user).await?;
        add(db, user.account.id, &provider, &subjects).await?;
        user.account.note(&provider);
        Ok(Found { user, changed: changed || given, linked })
    }

    /// The user who is tied to an identity for the first time, and whether there was an account before.
    async fn newly(&self, db: &mut Writer, vouched: Vouched, mfa: Mfa) -> Result<(Stored, bool)> {
        let Vouched { provider, email, before, signup, aim, .. } = vouched;
        let (email, surety) = email.unzip();
        let found = match &email {
            Some(email) => Key::Email(email).find_in(db).await?,
            None => None,
        };
        let linked = found.is_some();
        let mut user = match (found, before) {
            (Some(_), _) if aim == Aim::Link => return Err(has_account()),
            (Some(found), _) if found.account.disabled => return Err(disabled()),
            (Some(found), _) if found.account.email_verified && surety == Some(Surety::Once) => {
                return Err(has_account());
            }
            // An address may be given to somebody else there, who is not to find the account of who had it.
            (Some(found), _) if found.account.providers.contains(&provider) => {
                return Err(has_account());
            }
            (Some(mut found), _) => {
                if !found.account.email_verified {
                    oust(db, &mut found, mfa).await?;
                }
                found
            }
            (None, _) if signup != SignUp::Open => {
                return Err(Error::new(Code::Forbidden, "this app takes no sign-ups"));
            }
            (None, Some(before)) => upgraded(db, &before, email.as_ref()).await?,
            (None, None) => Stored { account: Account::new(email.as_ref()), password: None },
        };
        account::put(db, &user).await?;
        if email.is_some() {
            account::confirm(db, &mut user.account).await?;
        }
        Ok((user, linked))
    }
}

/// Whoever made this account has not shown that its address is theirs: they keep no way in, nor keep its owner out. But
/// what asks for a second factor stays as it is: nobody is let around it.
pub(in crate::auth) async fn oust(db: &mut Writer, user: &mut Stored, mfa: Mfa) -> Result<()> {
    if !factors::asked(db, user.account.id, mfa).await?.is_empty() {
        return Err(Error::new(
            Code::Forbidden,
            "this account has a second factor, and nobody has confirmed that its address is theirs",
        )
        .hint("sign in with both factors and confirm the address there, or ask those who run the app"));
    }
    user.password = None;
    user.account.providers.clear();
    user.account.mfa.clear();
    user.account.phone = None;
    let id = user.account.id;
    factors::reset(db, id).await?;
    db.run(Role::Platform, "DELETE FROM _steading_identity WHERE user = ?1", &[id.to_string().into()])
        .await?;
    sessions::end(db, id, Of::All).await.map(drop)
}

/// Whose identity it is, under the surest of its names that is known.
async fn known(db: &mut Writer, provider: &str, subjects: &[String]) -> Result<Option<UserId>> {
    let sql = "SELECT user FROM _steading_identity WHERE provider = ?1 AND subject = ?2";
    for subject in subjects {
        let found = db.run(Role::Platform, sql, &[provider.into(), subject.as_str().into()]).await?.rows;
        if let Some(user) = found.first().and_then(|row| row.first()?.as_str()?.parse().ok()) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

async fn add(db: &mut Writer, user: UserId, provider: &str, subjects: &[String]) -> Result<()> {
    let sql = "INSERT INTO _steading_identity (provider, subject, user, created_at) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT DO NOTHING";
    for subject in subjects {
        let params: [Value; 4] = [
            provider.into(),
            subject.as_str().into(),
            user.to_string().into(),
            Timestamp::now().as_micros().into(),
        ];
        db.run(Role::Platform, sql, &params).await?;
    }
    Ok(())
}

impl Inner {
    /// One more way in for the user of a session, who has an account and is told by mail.
    pub(super) async fn link(
        &self,
        env: &Env,
        session: &str,
        user: UserId,
        vouched: Vouched,
        sender: &Sender,
    ) -> Result<Profile> {
        let mut db = self.begin(env).await?;
        let linked = async {
            let alive = sessions::is_open(&mut db, user, session).await?;
            let found = Key::Id(user).find_in(&mut db).await?.filter(|user| alive && !user.account.disabled);
            let mut found = found.ok_or_else(crate::auth::refused)?;
            if known(&mut db, &vouched.provider, &vouched.subjects).await?.is_some_and(|other| other != user)
            {
                return Err(anothers());
            }
            add(&mut db, user, &vouched.provider, &vouched.subjects).await?;
            found.account.note(&vouched.provider);
            let letter = self.keep(&mut db, sender.news_of(&found.account, News::Linked)?).await?;
            Ok((found.account.profile(), letter))
        }
        .await;
        let (profile, letter) = settle(db, linked).await?;
        self.recognized.forget(|other| other.is_of_user(env.id(), user));
        self.dispatch(env, letter);
        Ok(profile)
    }
}
