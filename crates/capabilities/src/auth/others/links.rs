//! Who is whom: the rows that tie a provider's people to the app's users.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result, Secret, Timestamp, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth::account::{self, Account, Key, Stored, settle};
use crate::auth::address::Address;
use crate::auth::factors::{self, FactorKind, Presence};
use crate::auth::sign_in::{Before, Found, upgraded};
use crate::auth::{Asking, Auth, Inner, Profile, sessions, tickets, whole};
use crate::database::{Role, Writer};
use crate::rows::{Method, SignUp};

/// A way in by somebody else's word, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityInfo {
    /// The provider's name in the manifest; `custom` for the app's own server.
    pub provider: String,
    /// Since when.
    pub created_at: Timestamp,
}

/// Somebody whom another vouches for.
#[derive(Debug)]
pub(in crate::auth) struct Vouched {
    pub provider: String,
    /// The names that the provider has for them; the surest first.
    pub subjects: Vec<String>,
    /// The address that the provider has confirmed.
    pub email: Option<Address>,
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
    pub(in crate::auth) async fn vouched(&self, db: &mut Writer, vouched: Vouched) -> Result<Found> {
        let Vouched { provider, subjects, email, before, signup, aim, role, claims } = vouched;
        let (mut user, changed) = match known(db, &provider, &subjects).await? {
            Some(user) if aim == Aim::Link && before.as_ref().is_none_or(|it| it.user() != user) => {
                return Err(anothers());
            }
            Some(user) => {
                let user = Key::Id(user).find_in(db).await?.filter(|user| !user.account.disabled);
                (user.ok_or_else(disabled)?, false)
            }
            None => (self.newly(db, &provider, email, before, signup, aim).await?, true),
        };
        let given = role.is_some() || claims.is_some();
        user.account.role = role.unwrap_or(user.account.role);
        user.account.claims = claims.unwrap_or(user.account.claims);
        account::put(db, &user).await?;
        add(db, user.account.id, &provider, &subjects).await?;
        user.account.note(&provider);
        Ok(Found { user, changed: changed || given })
    }

    /// The user who is tied to an identity for the first time.
    async fn newly(
        &self,
        db: &mut Writer,
        provider: &str,
        email: Option<Address>,
        before: Option<Before>,
        signup: SignUp,
        aim: Aim,
    ) -> Result<Stored> {
        let found = match &email {
            Some(email) => Key::Email(email).find_in(db).await?,
            None => None,
        };
        let mut user = match (found, before) {
            (Some(_), _) if aim == Aim::Link => return Err(has_account()),
            (Some(found), _) if found.account.disabled => return Err(disabled()),
            // An address may be given to somebody else there, who is not to find the account of who had it.
            (Some(found), _) if found.account.providers.iter().any(|known| known == provider) => {
                return Err(has_account());
            }
            (Some(mut found), _) => {
                if !found.account.email_verified {
                    oust(db, &mut found).await?;
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
        Ok(user)
    }
}

/// Whoever made this account has not shown that its address is theirs: they keep no way in, nor keep its owner out.
pub(in crate::auth) async fn oust(db: &mut Writer, user: &mut Stored) -> Result<()> {
    user.password = None;
    user.account.providers.clear();
    user.account.mfa.clear();
    let id = user.account.id;
    factors::reset(db, id).await?;
    db.run(Role::Platform, "DELETE FROM _steading_identity WHERE user = ?1", &[id.to_string().into()])
        .await?;
    sessions::end_all(db, id, None).await.map(drop)
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

impl Auth {
    /// The ways in by others' word that an access token's user has, in the order of their names.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold.
    pub async fn identities(&self, env: &Env, token: &Secret) -> Result<Vec<IdentityInfo>> {
        let user = self.0.known(env, token).await?.profile.id;
        let sql = "SELECT provider, min(created_at) FROM _steading_identity WHERE user = ?1 AND provider <> 'email' \
                   GROUP BY provider ORDER BY provider";
        let rows = self.0.databases.platform_query(env, sql, &[user.to_string().into()]).await?;
        let read = |row: &Vec<Value>| {
            let created_at = Timestamp::from_micros(row.get(1)?.as_i64()?);
            Some(IdentityInfo { provider: row.first()?.as_str()?.to_owned(), created_at })
        };
        rows.iter()
            .map(|row| read(row).ok_or_else(|| Error::internal("a row of an identity cannot be read")))
            .collect()
    }

    /// Takes a way in away from an access token's user, and ends the other sessions that it has opened.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `forbidden` where its session is not of a moment ago; `not_found`
    /// where there is no such way in; `conflict` where it is the only one.
    pub async fn unlink(&self, asking: &Asking<'_>, token: &Secret, provider: &str) -> Result<()> {
        let known = self.0.known(asking.env, token).await?;
        known.admitted(asking.settings.mfa)?;
        self.0.present(asking, &known, &Presence::Fresh).await?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let (provider, settings) = (provider.to_owned(), asking.settings.clone());
        let ways = move |user: &Stored, rest: &[String]| {
            let on = |method| settings.methods.contains(&method);
            let by_mail = user.account.email_verified && (on(Method::Otp) || on(Method::Password));
            let by_password = user.account.email.is_some() && user.password.is_some() && on(Method::Password);
            let by_other = |other: &String| match other.as_str() {
                "custom" => on(Method::Custom),
                other => on(Method::OAuth) && settings.providers.contains_key(other),
            };
            let by_passkey = user.account.mfa.contains(&FactorKind::Passkey) && on(Method::Passkey);
            by_mail || by_password || by_passkey || rest.iter().any(by_other)
        };
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let (user, session) = (known.profile.id, known.session.clone());
            let gone = async {
                let user = Key::Id(user).find_in(&mut db).await?.ok_or_else(crate::auth::refused)?;
                let (gone, rest): (Vec<_>, Vec<_>) =
                    user.account.providers.iter().cloned().partition(|other| *other == provider);
                if gone.is_empty() {
                    return Err(Error::not_found("such identity of yours"));
                }
                if !ways(&user, &rest) {
                    return Err(Error::new(Code::Conflict, "this is the only way in to the account")
                        .hint("link another identity first, or set an address and a password"));
                }
                let id = user.account.id.to_string();
                let sql = "DELETE FROM _steading_identity WHERE user = ?1 AND provider = ?2";
                db.run(Role::Platform, sql, &[id.clone().into(), provider.as_str().into()]).await?;
                tickets::forget(&mut db, user.account.id).await?;
                let sql = "DELETE FROM _steading_session WHERE user = ?1 AND method = ?2 AND id <> ?3";
                let params = [id.into(), super::flow::method(&provider).into(), session.into()];
                db.run(Role::Platform, sql, &params).await.map(drop).map_err(Error::from)
            }
            .await;
            settle(db, gone).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            Ok(())
        })
        .await
    }
}

impl Inner {
    /// One more way in for the user of a session, who has an account.
    pub(super) async fn link(
        &self,
        env: &Env,
        session: &str,
        user: UserId,
        vouched: Vouched,
    ) -> Result<Profile> {
        let mut db = self.begin(env).await?;
        let linked = async {
            let alive = "SELECT 1 FROM _steading_session WHERE id = ?1 AND user = ?2";
            let params = [session.into(), user.to_string().into()];
            let alive = !db.run(Role::Platform, alive, &params).await?.rows.is_empty();
            let found = Key::Id(user).find_in(&mut db).await?.filter(|user| alive && !user.account.disabled);
            let mut found = found.ok_or_else(crate::auth::refused)?;
            if known(&mut db, &vouched.provider, &vouched.subjects).await?.is_some_and(|other| other != user)
            {
                return Err(anothers());
            }
            add(&mut db, user, &vouched.provider, &vouched.subjects).await?;
            found.account.note(&vouched.provider);
            Ok(found.account.profile())
        }
        .await;
        let profile = settle(db, linked).await?;
        self.recognized.forget(|other| other.is_of_user(env.id(), user));
        Ok(profile)
    }
}
