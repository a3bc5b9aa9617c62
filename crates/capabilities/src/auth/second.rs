//! Second factors of users: set up, shown after the first, and taken away.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Env, Error, Result, Secret, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::account::{self, Key, settle};
use super::factors::{self, FactorKind, Guard, Presence, Second, digits};
use super::letters::News;
use super::proofs::session_user;
use super::recognized::Known;
use super::sessions::{self, Of};
use super::tickets::{self, For};
use super::token::random;
use super::{Asking, Auth, Session, recovery, totp, whole};
use crate::database::Role;
use crate::rows::Mfa;

/// How long the name of an authenticator may be, in characters.
const NAME: usize = 60;

/// What an authenticator is to be given, shown once.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// What the factor is called where it is taken away.
    pub id: String,
    /// The secret, as people type it.
    pub secret: Secret,
    /// The same as an address, to be shown as a picture.
    pub uri: Secret,
    /// How long until a code of it is to be shown.
    pub expires_in: Duration,
}

/// A second factor, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// What it is called where it is taken away.
    pub id: String,
    /// What it is.
    pub kind: FactorKind,
    /// What its user calls it.
    pub name: Option<String>,
    /// When it was set up.
    pub created_at: Timestamp,
    /// When it was last shown.
    pub used_at: Option<Timestamp>,
}

/// The second factors of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Factors {
    /// What the app asks for: `off`, `optional` or `required`.
    pub mode: Mfa,
    /// Whether this session opens the app's data: it does not where a second factor is required and was not shown.
    pub open: bool,
    /// Those that are set up.
    pub factors: Vec<Factor>,
    /// How many recovery codes are left.
    pub recovery_codes: u64,
}

impl Auth {
    /// Begins to set up an authenticator, for who is there in person.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `forbidden` where the app has no second factors, or the user is
    /// not there in person; `conflict` where there is one already, or the user has no account, or an address that is not
    /// confirmed; `invalid_input` at `/name`; `rate_limited`.
    pub async fn enrol(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        name: Option<&str>,
        presence: &Presence,
    ) -> Result<Enrolment> {
        let known = self.may_enrol(asking, token).await?;
        let name = name.map(named).transpose()?;
        self.0.present(asking, &known, presence).await?;
        let user = known.profile.id;
        let (id, secret) = (Uuid::now_v7().simple().to_string(), random::<{ totp::SECRET }>()?);
        let sealed = self.0.keys.seal(&factors::place(user), &secret)?;
        let sender = self.0.sender(asking.env, asking.settings.name.as_deref(), asking.domain.into()).await?;
        let account = known.profile.email.clone().unwrap_or_else(|| user.to_string());
        let enrolment = Enrolment {
            id: id.clone(),
            secret: Secret::new(totp::written(&secret).as_str()),
            uri: Secret::new(totp::uri(&secret, &sender.name, &account).as_str()),
            expires_in: self.0.limits.code,
        };
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let begun = async {
                session_user(&mut db, &known.session).await?;
                let sql = "INSERT INTO _steading_totp (user, id, name, secret, step, active, created_at) \
                           VALUES (?1, ?2, ?3, ?4, 0, 0, ?5) ON CONFLICT (user) DO UPDATE SET \
                           id = ?2, name = ?3, secret = ?4, created_at = ?5 WHERE active = 0";
                let params: [Value; 5] = [
                    user.to_string().into(),
                    id.into(),
                    name.into(),
                    sealed.into(),
                    Timestamp::now().as_micros().into(),
                ];
                match db.run(Role::Platform, sql, &params).await?.changed {
                    0 => Err(Error::new(Code::Conflict, "there is an authenticator already")
                        .hint("remove it first: DELETE /_/auth/mfa/{id}")),
                    _ => Ok(()),
                }
            }
            .await;
            settle(db, begun).await
        })
        .await?;
        Ok(enrolment)
    }

    /// Sets up the authenticator that was begun, by one of its codes. Gives recovery codes, shown once. All other
    /// sessions of the user end; this one has shown the second factor.
    ///
    /// # Errors
    /// As [`Auth::enrol`]; `conflict` where none was begun a moment ago; `invalid_input` at `/code`; `unauthenticated`
    /// where the code is wrong.
    pub async fn activate(&self, asking: &Asking<'_>, token: &Secret, code: &Secret) -> Result<Vec<Secret>> {
        let known = self.may_enrol(asking, token).await?;
        self.0.throttles.passwords.admit(asking.client())?;
        let code = digits(code)?;
        let (inner, env, mfa) = (Arc::clone(&self.0), asking.env.clone(), asking.settings.mfa);
        let (name, domain) = (asking.settings.name.clone(), asking.domain.map(str::to_owned));
        whole(async move {
            let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
            let (user, now) = (known.profile.id, Timestamp::now());
            let mut db = inner.begin(&env).await?;
            let activated = async {
                let (session, stored) = session_user(&mut db, &known.session).await?;
                // It was begun when there may have been no second factor.
                factors::may_finish(&mut db, user, &session, mfa).await?;
                let sql =
                    "SELECT secret FROM _steading_totp WHERE user = ?1 AND active = 0 AND created_at > ?2";
                let since = now.minus(inner.limits.code).as_micros();
                let found = db.run(Role::Platform, sql, &[user.to_string().into(), since.into()]).await?.rows;
                let sealed = found.first().and_then(|row| row.first()?.as_str()).ok_or_else(|| {
                    Error::new(Code::Conflict, "no authenticator is being set up").hint(
                        "POST /_/auth/mfa/totp begins; its first code is to be shown within ten minutes",
                    )
                })?;
                let secret = inner.keys.open(&factors::place(user), sealed)?;
                let step = totp::accepts(&secret, code.expose(), now, 0).ok_or_else(factors::wrong)?;
                let sql = "UPDATE _steading_totp SET active = 1, step = ?2, used_at = ?3 WHERE user = ?1";
                let params = [user.to_string().into(), step.into(), now.as_micros().into()];
                db.run(Role::Platform, sql, &params).await?;
                let codes = recovery::renew(&mut db, user).await?;
                // Whoever is in by one factor alone is out.
                sessions::end(&mut db, user, Of::Others(&session)).await?;
                let sql = "UPDATE _steading_session SET second = ?2 WHERE id = ?1";
                db.run(Role::Platform, sql, &[session.into(), now.as_micros().into()]).await?;
                let letter = sender.news_of(&stored.account, News::Guarded)?;
                Ok((codes, inner.keep(&mut db, letter).await?))
            }
            .await;
            let (codes, letter) = settle(db, activated).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            inner.dispatch(&env, letter);
            Ok(codes)
        })
        .await
    }

    /// The second factors of an access token's user.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold.
    pub async fn factors(&self, asking: &Asking<'_>, token: &Secret) -> Result<Factors> {
        let (env, mode) = (asking.env, asking.settings.mfa);
        let known = self.0.known(env, token).await?;
        let user = known.profile.id;
        let guard = Guard::find(&self.0.databases, env, user).await?;
        let factors = self.0.factors_of(env, user).await?;
        Ok(Factors { mode, open: known.opens(mode), factors, recovery_codes: guard.recovery })
    }

    /// Takes a second factor away, for who is there in person by a second factor; the recovery codes go with it.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold, or the second factor is wrong; `forbidden` where it is needed;
    /// `not_found` for a factor that is none of the user's; `rate_limited`.
    pub async fn remove_factor(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        id: &str,
        presence: &Presence,
    ) -> Result<()> {
        let known = self.0.known(asking.env, token).await?;
        let unknown = || Error::not_found("such second factor of yours");
        if !self.0.factors_of(asking.env, known.profile.id).await?.iter().any(|factor| factor.id == id) {
            return Err(unknown());
        }
        self.0.present(asking, &known, presence).await?;
        let (inner, env, id) = (Arc::clone(&self.0), asking.env.clone(), id.to_owned());
        let (name, domain) = (asking.settings.name.clone(), asking.domain.map(str::to_owned));
        whole(async move {
            let sender = inner.sender(&env, name.as_deref(), domain.as_deref().into()).await?;
            let user = known.profile.id;
            let mut db = inner.begin(&env).await?;
            let removed = async {
                let (_, stored) = session_user(&mut db, &known.session).await?;
                let sql = "SELECT 1 FROM _steading_totp WHERE user = ?1 AND id = ?2 AND active = 1";
                let params = [user.to_string().into(), id.into()];
                if db.run(Role::Platform, sql, &params).await?.rows.is_empty() {
                    return Err(unknown());
                }
                factors::remove_totp(&mut db, user).await?;
                factors::settle_sessions(&mut db, user).await?;
                let letter = sender.news_of(&stored.account, News::Unguarded)?;
                inner.keep(&mut db, letter).await
            }
            .await;
            let letter = settle(db, removed).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            inner.dispatch(&env, letter);
            Ok(())
        })
        .await
    }

    /// Gives new recovery codes to who is there in person; those from before are worth nothing.
    ///
    /// # Errors
    /// As [`Auth::remove_factor`]; `conflict` where there is no second factor.
    pub async fn recover(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        presence: &Presence,
    ) -> Result<Vec<Secret>> {
        let known = self.0.known(asking.env, token).await?;
        let user = known.profile.id;
        if !Guard::find(&self.0.databases, asking.env, user).await?.totp {
            return Err(Error::new(Code::Conflict, "there is no authenticator to recover")
                .hint("POST /_/auth/mfa/totp sets one up"));
        }
        self.0.present(asking, &known, presence).await?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let renewed = async {
                session_user(&mut db, &known.session).await?;
                recovery::renew(&mut db, user).await
            }
            .await;
            settle(db, renewed).await
        })
        .await
    }

    /// Opens the session of who has a ticket from the first factor and shows the second.
    ///
    /// # Errors
    /// `unauthenticated` where the ticket is not good (any more), or the second factor is wrong; `invalid_input` at
    /// `/code` or `/recovery_code`; `rate_limited`, also where there were too many wrong codes with other tickets.
    pub async fn second(&self, asking: &Asking<'_>, ticket: &Secret, second: &Second) -> Result<Session> {
        self.0.throttles.passwords.admit(asking.client())?;
        let typed = second.typed()?;
        let (inner, env, ticket) = (Arc::clone(&self.0), asking.env.clone(), ticket.clone());
        let how = asking.how("");
        whole(async move {
            let over = || {
                Error::new(Code::Unauthenticated, "the ticket is not valid (any more)").hint("sign in again")
            };
            let mut db = inner.begin(&env).await?;
            let entered = async {
                let found = tickets::find(&mut db, &env, For::Second, &ticket).await?.ok_or_else(over)?;
                let user = match found.user {
                    Some(user) => Key::Id(user).find_in(&mut db).await?,
                    None => None,
                };
                let mut user = user.filter(|user| !user.account.disabled).ok_or_else(over)?;
                let Some(cleared) = inner.shown(&mut db, &env, user.account.id, &typed).await? else {
                    tickets::tried(&mut db, &found).await?;
                    return Ok(None);
                };
                let how = super::sign_in::How { method: found.about.clone().into(), ..how };
                tickets::spend(&mut db, found).await?;
                let now = Timestamp::now();
                user.account.last_seen_at = Some(now);
                account::put(&mut db, &user).await?;
                inner.opened(&mut db, &env, &cleared, &user.account, &how).await.map(Some)
            }
            .await;
            let (session, ended) = settle(db, entered).await?.ok_or_else(factors::wrong)?;
            inner.ended(&env, session.user.id, &ended);
            Ok(session)
        })
        .await
    }

    /// The session of a token whose user may set up a second factor.
    async fn may_enrol(&self, asking: &Asking<'_>, token: &Secret) -> Result<Arc<Known>> {
        let known = self.0.known(asking.env, token).await?;
        if asking.settings.mfa == Mfa::Off {
            return Err(Error::new(Code::Forbidden, "this app has no second factors")
                .hint("set auth.mfa in the manifest, or with auth_configure"));
        }
        if known.profile.anonymous {
            return Err(Error::new(Code::Conflict, "this user has no account yet").hint("sign up first"));
        }
        factors::may_guard(&known.profile)?;
        Ok(known)
    }
}

impl super::Inner {
    /// The second factors of a user that are set up.
    pub(super) async fn factors_of(&self, env: &Env, user: kernel::UserId) -> Result<Vec<Factor>> {
        let sql = "SELECT id, name, created_at, used_at FROM _steading_totp WHERE user = ?1 AND active = 1";
        let rows = self.databases.platform_query(env, sql, &[user.to_string().into()]).await?;
        let read = |row: &Vec<Value>| {
            let text = |at: usize| row.get(at)?.as_str().map(str::to_owned);
            let time = |at: usize| row.get(at)?.as_i64().map(Timestamp::from_micros);
            let kind = FactorKind::Totp;
            Some(Factor { id: text(0)?, kind, name: text(1), created_at: time(2)?, used_at: time(3) })
        };
        let read = |row| read(row).ok_or_else(|| Error::internal("a row of a second factor cannot be read"));
        rows.iter().map(read).collect()
    }
}

/// What somebody calls a factor.
///
/// # Errors
/// `invalid_input` at `/name`.
pub(super) fn named(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME || name.chars().any(char::is_control) {
        return Err(Error::invalid("/name", format!("a name has 1 to {NAME} characters on one line")));
    }
    Ok(name.to_owned())
}
