//! Signing in, staying signed in, and signing out.

use std::net::IpAddr;
use std::sync::Arc;

use kernel::{Code, Env, EnvId, Error, Result, Secret, Timestamp};

use super::account::{self, Account, COLUMNS, Key, Opened, Stored, settle};
use super::address::Address;
use super::password::{Password, Tried};
use super::throttle::network;
use super::token::{Claims, ISSUER, Refresh};
use super::{Asking, Auth, Credentials, Ending, Inner, Session, whole};
use crate::database::{Durability, Role, Writer};
use crate::rows::Method;

impl Asking<'_> {
    fn by(&self, method: Method) -> Result<()> {
        if self.methods.contains(&method) {
            return Ok(());
        }
        let message = format!("this app has no sign-in by {}", method.as_str());
        Err(Error::new(Code::Forbidden, message)
            .hint("list it in auth.methods of the manifest, or with auth_configure"))
    }

    fn client(&self) -> (EnvId, Option<IpAddr>) {
        (self.env.id(), network(self.client))
    }
}

/// The one answer to whatever is wrong with an address or a password.
fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "the address or the password is wrong")
}

fn taken() -> Error {
    Error::new(Code::Conflict, "this address has an account")
        .field("/email")
        .hint("log in, or use another address")
}

/// A user for whom a session is to be opened.
enum Who {
    /// One who is not there yet.
    New(Stored),
    /// Somebody anonymous with this session, who gets an address and a password.
    Upgraded { session: String, user: Key<'static>, email: Address, password: Secret },
    /// One whose password was tried; what is stored of it is as it was then, or becomes `rehashed`.
    Tried { user: Stored, rehashed: Option<Secret> },
}

impl Auth {
    /// Makes a user without an address, and a session.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method; `rate_limited`.
    pub async fn anonymous(&self, asking: &Asking<'_>) -> Result<Session> {
        asking.by(Method::Anonymous)?;
        self.0.throttles.anonymous.admit(asking.client())?;
        let user = Stored { account: Account::new(None), password: None };
        self.open(asking.env, Who::New(user)).await
    }

    /// Makes a user with an address and a password, and a session. With the access token of an anonymous user it is
    /// that user who gets them; all sessions from before end.
    ///
    /// That an address is taken is said, unlike in [`Auth::log_in`]: without mail there is no other way to tell its owner.
    /// How often it can be asked from one network address is bounded.
    ///
    /// # Errors
    /// `forbidden`, `rate_limited`; `invalid_input` at `/email` or `/password`; `conflict` where the address has an
    /// account, or the token's user has an address; `unauthenticated` where the token does not hold.
    pub async fn sign_up(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        typed: &Credentials,
    ) -> Result<Session> {
        asking.by(Method::Password)?;
        let env = asking.env;
        let before = match token {
            Some(token) => Some(self.0.known(env, token).await?),
            None => None,
        };
        self.0.throttles.passwords.admit(asking.client())?;
        let email = Address::parse("/email", &typed.email)?;
        let password = Password::new(&typed.password, Some(&email))?;
        if before.as_ref().is_some_and(|known| !known.profile.anonymous) {
            return Err(
                Error::new(Code::Conflict, "this session is of an account already").hint("log out first")
            );
        }
        if Key::Email(&email).find(&self.0.databases, env).await?.is_some() {
            return Err(taken());
        }
        let named = email.clone();
        let password = self.0.passwords.hash(env.id(), password).await?;
        let who = match before {
            None => Who::New(Stored { account: Account::new(Some(&email)), password: Some(password) }),
            Some(known) => Who::Upgraded {
                session: known.session.clone(),
                user: Key::Id(known.profile.id),
                email,
                password,
            },
        };
        let session = self.open(env, who).await?;
        self.0.throttles.guesses.familiar(env.id(), named, network(asking.client));
        Ok(session)
    }

    /// Opens a session for who knows an account's password.
    ///
    /// # Errors
    /// `forbidden`, `rate_limited`; `unauthenticated` with the same words, after the same work, whatever is wrong:
    /// the password, the address, or that the user is disabled.
    pub async fn log_in(&self, asking: &Asking<'_>, typed: &Credentials) -> Result<Session> {
        asking.by(Method::Password)?;
        let (env, inner) = (asking.env, &self.0);
        inner.throttles.passwords.admit(asking.client())?;
        let email = Address::parse("/email", &typed.email)?;
        let password = Password::typed(&typed.password)?;
        let (guesses, network) = (&inner.throttles.guesses, network(asking.client));
        let guess = guesses.admit(env.id(), email.clone(), network)?;
        let tried = async {
            let found = Key::Email(&email).find(&inner.databases, env).await?;
            let found = found.filter(|found| !found.account.disabled);
            let stored = found.as_ref().and_then(|found| found.password.clone());
            let tried = inner.passwords.try_out(env.id(), password.clone(), stored).await?;
            Ok((tried, found))
        }
        .await;
        let (tried, found) = tried.inspect_err(|_: &Error| {
            // Nothing was tried.
            guesses.give_back(&guess);
        })?;
        let (Tried::Right | Tried::Outdated, Some(user)) = (&tried, found) else { return Err(wrong()) };
        guesses.give_back(&guess);
        guesses.familiar(env.id(), email, network);
        let rehashed = match tried {
            Tried::Outdated => Some(inner.passwords.hash(env.id(), password).await?),
            Tried::Right | Tried::Wrong => None,
        };
        self.open(env, Who::Tried { user, rehashed }).await
    }

    async fn open(&self, env: &Env, who: Who) -> Result<Session> {
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        whole(async move { inner.open(&env, who).await }).await
    }

    /// The next pair of tokens of a session. A token that was used before ends the session: it is in two hands.
    ///
    /// # Errors
    /// `unauthenticated` where the token is none, was used, has expired, or its session has ended; `rate_limited`.
    pub async fn refresh(&self, asking: &Asking<'_>, token: &Secret) -> Result<Session> {
        self.0.throttles.refreshes.admit(asking.client())?;
        let ended = || {
            Error::new(Code::Unauthenticated, "the refresh token is not valid (any more)")
                .hint("log in again")
        };
        let token = Refresh::parse(token).ok_or_else(ended)?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let refreshed = whole(async move { inner.refresh(&env, &token).await }).await?;
        refreshed.ok_or_else(ended)
    }

    /// Ends the session of an access token, or all of its user. When this returns, none of their tokens opens
    /// anything.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold.
    pub async fn log_out(&self, env: &Env, token: &Secret, ending: Ending) -> Result<()> {
        let known = self.0.known(env, token).await?;
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let user = known.profile.id;
            let ended = match ending {
                Ending::This => account::end_session(&mut db, &known.session).await,
                Ending::Everywhere => account::end_sessions(&mut db, user).await.map(drop),
            };
            settle(db, ended).await?;
            inner.recognized.forget(|other| match ending {
                Ending::This => other.is_of_session(env.id(), &known.session),
                Ending::Everywhere => other.is_of_user(env.id(), user),
            });
            Ok(())
        })
        .await
    }
}

impl Auth {
    /// Removes sessions that have expired, whose users may never come back to do it; how many.
    ///
    /// # Errors
    /// Where the database cannot be written.
    pub async fn tidy(&self, env: &Env) -> Result<u64> {
        let now = Timestamp::now();
        let sql = "SELECT 1 FROM _steading_session WHERE expires_at <= ?1 LIMIT 1";
        // Most environments have none, and nobody has to wait for a writer of theirs.
        if self.0.databases.platform_query(env, sql, &[now.as_micros().into()]).await?.is_empty() {
            return Ok(0);
        }
        let mut db = self.0.begin(env).await?;
        let expired = account::expire_sessions(&mut db, now).await;
        settle(db, expired).await
    }
}

impl Inner {
    /// The right to write, in a transaction that waits for the disk.
    pub(super) async fn begin(&self, env: &Env) -> Result<Writer> {
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Full).await?;
        Ok(db)
    }

    async fn open(&self, env: &Env, who: Who) -> Result<Session> {
        let mut db = self.begin(env).await?;
        let upgraded = matches!(who, Who::Upgraded { .. });
        let opened = self.open_in(&mut db, env, who).await;
        let (session, ended) = settle(db, opened).await?;
        let user = session.user.id;
        if upgraded {
            self.recognized.forget(|other| other.is_of_user(env.id(), user));
        } else if !ended.is_empty() {
            self.recognized
                .forget(|other| other.is_of_user(env.id(), user) && ended.contains(&other.session));
        }
        Ok(session)
    }

    async fn open_in(&self, db: &mut Writer, env: &Env, who: Who) -> Result<(Session, Vec<String>)> {
        let now = Timestamp::now();
        let mut user = match who {
            Who::New(user) => user,
            Who::Upgraded { session, user, email, password } => {
                let sql = "SELECT 1 FROM _steading_session WHERE id = ?1";
                let alive = !db.run(Role::Platform, sql, &[session.into()]).await?.rows.is_empty();
                let before = user.find_in(db).await?.filter(|user| alive && user.account.anonymous);
                let Some(mut user) = before else {
                    return Err(
                        Error::new(Code::Conflict, "this session has changed meanwhile").hint("log in again")
                    );
                };
                account::end_sessions(db, user.account.id).await?;
                user.account.email = Some(email.as_str().to_owned());
                user.account.anonymous = false;
                user.password = Some(password);
                user
            }
            Who::Tried { user, rehashed } => {
                let current = Key::Id(user.account.id).find_in(db).await?;
                // While the password was tried it may have been changed, or the user disabled.
                let same = |found: &Stored| {
                    !found.account.disabled
                        && found.password == user.password
                        && found.account.email == user.account.email
                };
                let mut user = current.filter(same).ok_or_else(wrong)?;
                user.password = rehashed.or(user.password);
                user
            }
        };
        if let Some(email) = &user.account.email {
            let sql = "SELECT 1 FROM _steading_user WHERE email = ?1 AND id <> ?2";
            let params = [email.clone().into(), user.account.id.to_string().into()];
            if !db.run(Role::Platform, sql, &params).await?.rows.is_empty() {
                return Err(taken());
            }
        }
        user.account.last_seen_at = Some(now);
        account::put(db, &user).await?;
        let expires = now.plus(self.limits.session);
        let opened = account::open_session(db, user.account.id, expires, self.limits.sessions).await?;
        let Opened { id, refresh, ended } = opened;
        Ok((self.session(env, &user.account, id, &refresh).await?, ended))
    }

    /// None where the token does not hold.
    async fn refresh(&self, env: &Env, token: &Refresh) -> Result<Option<Session>> {
        let mut db = self.begin(env).await?;
        let refreshed = self.refresh_in(&mut db, env, token).await;
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
    ) -> Result<Result<Session, Option<String>>> {
        let now = Timestamp::now();
        let sql = format!(
            "SELECT {COLUMNS}, s.id, s.refresh, s.expires_at FROM _steading_session s \
             JOIN _steading_user u ON u.id = s.user WHERE s.family = ?1"
        );
        let found = db.run(Role::Platform, &sql, &[token.family().into()]).await?.rows;
        let Some([user @ .., id, current, expires]) = found.first().map(Vec::as_slice) else {
            return Ok(Err(None));
        };
        let mut user = Stored::read(user)?;
        let id = id.as_str().unwrap_or_default().to_owned();
        let live =
            expires.as_i64().is_some_and(|expires| expires > now.as_micros()) && !user.account.disabled;
        if !live || current.as_str() != Some(token.hash().as_str()) {
            account::end_session(db, &id).await?;
            if live {
                tracing::warn!(
                    env.id = %env.id(),
                    "a spent refresh token was shown again: its session ends"
                );
            }
            return Ok(Err(Some(id)));
        }
        let next = token.next()?;
        let sql = "UPDATE _steading_session SET refresh = ?2, expires_at = ?3 WHERE id = ?1";
        let expires = now.plus(self.limits.session).as_micros();
        db.run(Role::Platform, sql, &[id.clone().into(), next.hash().into(), expires.into()]).await?;
        user.account.last_seen_at = Some(now);
        account::put(db, &user).await?;
        Ok(Ok(self.session(env, &user.account, id, &next).await?))
    }

    async fn session(&self, env: &Env, account: &Account, id: String, refresh: &Refresh) -> Result<Session> {
        let now = Timestamp::now();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: env.id().to_string(),
            sub: account.id,
            sid: id,
            role: account.role.clone(),
            anonymous: account.anonymous,
            iat: now.as_secs(),
            exp: now.plus(self.limits.access).as_secs(),
        };
        Ok(Session {
            access_token: self.keys.sign(env, &claims).await?,
            refresh_token: refresh.to_secret(),
            expires_in: self.limits.access,
            user: account.profile(),
        })
    }
}
