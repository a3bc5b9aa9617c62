//! Signing up and in: every way ends in one function, which opens the session or asks for the second factor.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use kernel::{Code, Env, EnvId, Error, Result, Secret, Timestamp, UserId};

use super::account::{self, Account, Key, Stored, settle};
use super::address::Address;
use super::codes::Purpose;
use super::factors::{self, Cleared, Clearing, Strength};
use super::others::{Vouched, links};
use super::password::{Password, Tried};
use super::phone::Phoned;
use super::recognized::Known;
use super::requests::Wanted;
use super::sessions::{self, Of, Opened};
use super::throttle::network;
use super::tickets::{self, For};
use super::token::{Claims, Refresh};
use super::{Asking, Auth, Challenge, Credentials, Inner, Session, SignIn, SignedUp, whole};
use crate::database::{Durability, Role, Writer};
use crate::rows::{Method, Mfa, SignUp};

impl Asking<'_> {
    pub(super) fn by(&self, method: Method) -> Result<()> {
        if self.settings.methods.contains(&method) {
            return Ok(());
        }
        let message = format!("this app has no sign-in by {}", method.as_str());
        Err(Error::new(Code::Forbidden, message)
            .hint("list it in auth.methods of the manifest, or with auth_configure"))
    }

    /// That everybody may make an account.
    pub(super) fn open(&self) -> Result<()> {
        match self.settings.signup {
            SignUp::Open => Ok(()),
            SignUp::Invite | SignUp::Closed => Err(Error::new(Code::Forbidden, "this app takes no sign-ups")
                .hint("auth.signup of the manifest says who may; auth_user_set with `invite` invites")),
        }
    }

    pub(super) fn client(&self) -> (EnvId, Option<IpAddr>) {
        (self.env.id(), network(self.client))
    }

    pub(super) fn how(&self, method: &'static str) -> How {
        How {
            method: method.into(),
            strength: Strength::One,
            mfa: self.settings.mfa,
            device: self.device.map(str::to_owned),
        }
    }
}

/// How somebody has signed in, for the list of sessions.
#[derive(Debug, Clone)]
pub(super) struct How {
    /// The way.
    pub method: Cow<'static, str>,
    /// How much was shown by it.
    pub strength: Strength,
    /// What the app asks for beside.
    pub mfa: Mfa,
    /// What the browser or program says of itself.
    pub device: Option<String>,
}

/// The one answer to whatever is wrong with an address or a password.
fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "the address or the password is wrong")
}

pub(super) fn taken() -> Error {
    Error::new(Code::Conflict, "this address has an account")
        .field("/email")
        .hint("log in, or use another address")
}

/// The session of somebody without an account, who is to get one.
#[derive(Debug)]
pub(super) struct Before {
    session: String,
    user: UserId,
}

impl Before {
    /// The session that is known, where its user has no account.
    pub fn of(known: &Known) -> Option<Self> {
        let user = known.profile.id;
        known.profile.anonymous.then(|| Self { session: known.session.clone(), user })
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Whose it is, and which.
    pub fn into_asker(self) -> (UserId, String) {
        (self.user, self.session)
    }
}

/// A user for whom a session is to be opened.
pub(super) enum Who {
    /// One who is not there yet.
    New(Stored),
    /// Somebody without an address, who gets one and a password.
    Upgraded { before: Before, email: Address, password: Secret },
    /// One whose password was tried; what is stored of it is as it was then, or becomes `rehashed`.
    Tried { user: Stored, rehashed: Option<Secret> },
    /// The user who holds something that only this user can hold.
    Holds(UserId),
    /// Whoever reads the texts of a phone: the user with it, the one of an anonymous session, or a new one.
    Phoned(Phoned),
    /// Whoever reads the mail of an address: the user with it, the one of `before`, or a new one.
    Reads(Reads),
    /// Whomever somebody else vouches for.
    Vouched(Vouched),
}

/// What was shown by a mailed code.
pub(super) struct Reads {
    pub email: Address,
    pub before: Option<Before>,
    /// The password that the account has from now on; what is stored of it.
    pub password: Option<Secret>,
    /// Whether there may be a new account.
    pub signup: SignUp,
    /// Whether all sessions from before end.
    pub alone: Alone,
}

/// Whether the other sessions of a user stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// They end.
    Yes,
    /// They stay.
    No,
}

/// A user who is about to be signed in.
pub(super) struct Found {
    pub user: Stored,
    /// Whether what is remembered of the user does not hold any more.
    pub changed: bool,
    /// Whether an account that was there has one more way in.
    pub linked: bool,
}

impl Found {
    /// A user by a way in that was there before, or is the only one.
    pub fn of(user: Stored, changed: bool) -> Self {
        Self { user, changed, linked: false }
    }
}

impl Auth {
    /// Makes a user without an address, and a session.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method, or takes no sign-ups; `rate_limited`.
    pub async fn anonymous(&self, asking: &Asking<'_>) -> Result<SignIn> {
        asking.by(Method::Anonymous)?;
        asking.open()?;
        self.0.throttles.anonymous.admit(asking.client())?;
        self.0.throttles.anonymous_users.admit(asking.client())?;
        let user = Stored { account: Account::new(None), password: None };
        self.signed_in(asking.env, Who::New(user), asking.how("anonymous")).await
    }

    /// Makes a user with an address and a password, and a session. With the access token of an anonymous user it is
    /// that user who gets them; all sessions from before end.
    ///
    /// Where the app confirms addresses, nothing is made before the mailed code is shown, and an address that has an
    /// account is answered like one that has none. Elsewhere that it is taken is said: there is no other way to tell its
    /// owner. How often it can be asked from one network address is bounded.
    ///
    /// # Errors
    /// `forbidden`, `rate_limited`; `invalid_input` at `/email`, `/password` or `/redirect`; `conflict` where the address
    /// has an account, or the token's user has an address; `unauthenticated` where the token does not hold.
    pub async fn sign_up(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        typed: &Credentials,
        redirect: Option<&str>,
    ) -> Result<SignedUp> {
        asking.by(Method::Password)?;
        asking.open()?;
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
        if asking.settings.confirms() {
            let password = Some(self.0.passwords.hash(env.id(), password).await?);
            let wanted = self.wanted(asking, Purpose::SignUp, email, redirect).await?;
            let user = before.as_deref().and_then(Before::of).map(Before::into_asker);
            self.0.request(env, Wanted { password, user, ..wanted });
            return Ok(SignedUp::Mailed);
        }
        if Key::Email(&email).find(&self.0.databases, env).await?.is_some() {
            return Err(taken());
        }
        let named = email.clone();
        let password = self.0.passwords.hash(env.id(), password).await?;
        let who = match before.as_deref().and_then(Before::of) {
            None => Who::New(Stored { account: Account::new(Some(&email)), password: Some(password) }),
            Some(before) => Who::Upgraded { before, email, password },
        };
        let entered = self.signed_in(env, who, asking.how("password")).await?;
        self.0.throttles.guesses.familiar(env.id(), named, network(asking.client));
        Ok(SignedUp::Entered(entered))
    }

    /// Opens a session for who knows an account's password, or asks for the second factor.
    ///
    /// # Errors
    /// `forbidden`, `rate_limited`; `unauthenticated` with the same words, after the same work, whatever is wrong:
    /// the password, the address, or that the user is disabled. `forbidden` to who knows the password of an address that
    /// must be confirmed first, after a code was mailed there.
    pub async fn log_in(&self, asking: &Asking<'_>, typed: &Credentials) -> Result<SignIn> {
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
        guesses.familiar(env.id(), email.clone(), network);
        if asking.settings.confirms() && !user.account.email_verified {
            let wanted = self.wanted(asking, Purpose::SignUp, email, None).await?;
            // The code does not bring back the password, which anybody may have typed who was here first: whoever reads
            // the mail says it again.
            inner.request(env, wanted);
            return Err(Error::new(
                Code::Forbidden,
                "the address must be confirmed first: a code was mailed to it",
            )
            .hint("send it to /_/auth/otp/verify with the address"));
        }
        let rehashed = match tried {
            Tried::Outdated => Some(inner.passwords.hash(env.id(), password).await?),
            Tried::Right | Tried::Wrong => None,
        };
        self.signed_in(env, Who::Tried { user, rehashed }, asking.how("password")).await
    }

    async fn signed_in(&self, env: &Env, who: Who, how: How) -> Result<SignIn> {
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let opened = inner.signed_in(&mut db, &env, who, &how).await;
            let opened = settle(db, opened).await?;
            Ok(inner.announce(&env, opened))
        })
        .await
    }
}

/// What a first factor has come to, with what it has changed, to be told after the commit.
pub(super) struct SignedIn {
    outcome: SignIn,
    user: UserId,
    changed: bool,
    ended: Vec<String>,
    /// The account, where it was there before and has one more way in.
    pub linked: Option<Account>,
}

impl Inner {
    /// The right to write, in a transaction that waits for the disk.
    pub(super) async fn begin(&self, env: &Env) -> Result<Writer> {
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Full).await?;
        Ok(db)
    }

    /// Drops what is remembered and does not hold any more; to be called after the commit.
    pub(super) fn announce(&self, env: &Env, opened: SignedIn) -> SignIn {
        let SignedIn { outcome, user, changed, ended, linked: _ } = opened;
        if changed {
            self.recognized.forget(|other| other.is_of_user(env.id(), user));
        }
        self.ended(env, user, &ended);
        outcome
    }

    /// Drops what is remembered of sessions of a user; to be called after the commit that has ended them.
    pub(super) fn ended(&self, env: &Env, user: UserId, ended: &[String]) {
        if !ended.is_empty() {
            self.recognized
                .forget(|other| other.is_of_user(env.id(), user) && ended.contains(&other.session));
        }
    }

    /// The end of every way to sign in: somebody has shown who they are by `how`, and gets a session, or is asked for
    /// the second factor.
    pub(super) async fn signed_in(
        &self,
        db: &mut Writer,
        env: &Env,
        who: Who,
        how: &How,
    ) -> Result<SignedIn> {
        let now = Timestamp::now();
        let Found { mut user, changed, linked } = self.found(db, who, how.mfa).await?;
        if let Some(email) = &user.account.email {
            let sql = "SELECT 1 FROM _steading_user WHERE email = ?1 AND id <> ?2";
            let params = [email.clone().into(), user.account.id.to_string().into()];
            if !db.run(Role::Platform, sql, &params).await?.rows.is_empty() {
                return Err(taken());
            }
        }
        let id = user.account.id;
        let linked = linked.then(|| user.account.clone());
        let cleared = match factors::clear(db, id, how).await? {
            Clearing::Cleared(cleared) => cleared,
            Clearing::Asked(factors) => {
                account::put(db, &user).await?;
                let expires_in = self.limits.ticket;
                let ticket = tickets::issue(db, env, For::Second, id, &how.method, expires_in).await?;
                let outcome = SignIn::Second(Challenge { ticket, factors, expires_in });
                return Ok(SignedIn { outcome, user: id, changed, ended: Vec::new(), linked });
            }
        };
        user.account.last_seen_at = Some(now);
        account::put(db, &user).await?;
        let (session, ended) = self.opened(db, env, &cleared, &user.account, how).await?;
        Ok(SignedIn { outcome: SignIn::Session(session), user: id, changed, ended, linked })
    }

    /// The session of somebody who has shown all that is asked for, and which others had to end for it.
    pub(super) async fn opened(
        &self,
        db: &mut Writer,
        env: &Env,
        cleared: &Cleared,
        account: &Account,
        how: &How,
    ) -> Result<(Session, Vec<String>)> {
        let expires = Timestamp::now().plus(self.limits.session);
        let Opened { id, refresh, ended } =
            sessions::open(db, cleared, how, expires, self.limits.sessions).await?;
        Ok((self.session(env, account, id, &refresh).await?, ended))
    }

    /// The user as the transaction finds it, with what the proof changes about it.
    async fn found(&self, db: &mut Writer, who: Who, mfa: Mfa) -> Result<Found> {
        match who {
            Who::New(user) => Ok(Found::of(user, false)),
            Who::Upgraded { before, email, password } => {
                let mut user = upgraded(db, &before, Some(&email)).await?;
                user.password = Some(password);
                Ok(Found::of(user, true))
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
                Ok(Found::of(user, false))
            }
            Who::Holds(user) => {
                let user = Key::Id(user).find_in(db).await?.filter(|user| !user.account.disabled);
                Ok(Found::of(user.ok_or_else(super::passkeys::refused)?, false))
            }
            Who::Phoned(phoned) => self.phoned(db, phoned).await,
            Who::Reads(reads) => self.reader(db, reads, mfa).await,
            Who::Vouched(vouched) => self.vouched(db, vouched, mfa).await,
        }
    }

    async fn reader(&self, db: &mut Writer, reads: Reads, mfa: Mfa) -> Result<Found> {
        let Reads { email, before, password, signup, alone } = reads;
        let found = Key::Email(&email).find_in(db).await?;
        let mut user = match (found, before) {
            (Some(found), _) if found.account.disabled => return Err(super::proofs::wrong()),
            (Some(mut found), _) => {
                if !found.account.email_verified {
                    links::oust(db, &mut found, mfa).await?;
                } else if alone == Alone::Yes {
                    sessions::end(db, found.account.id, Of::All).await?;
                }
                found
            }
            (None, _) if signup != SignUp::Open => return Err(super::proofs::wrong()),
            (None, Some(before)) => upgraded(db, &before, Some(&email)).await?,
            (None, None) => Stored { account: Account::new(Some(&email)), password: None },
        };
        // Whoever has typed a password to sign up with need not be who reads the mail: it is none for an account that
        // was somebody's by then.
        let password = password.filter(|_| alone == Alone::Yes || !user.account.email_verified);
        user.password = password.or(user.password);
        account::put(db, &user).await?;
        account::confirm(db, &mut user.account).await?;
        Ok(Found::of(user, true))
    }

    /// The tokens of a session.
    pub(super) async fn session(
        &self,
        env: &Env,
        account: &Account,
        id: String,
        refresh: &Refresh,
    ) -> Result<Session> {
        let now = Timestamp::now();
        let claims = Claims {
            iss: env.id().to_string(),
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

/// Somebody who had no account, with one; the sessions from before are over.
pub(super) async fn upgraded(db: &mut Writer, before: &Before, email: Option<&Address>) -> Result<Stored> {
    let sql = "SELECT 1 FROM _steading_session WHERE id = ?1";
    let alive = !db.run(Role::Platform, sql, &[before.session.clone().into()]).await?.rows.is_empty();
    let user = Key::Id(before.user).find_in(db).await?.filter(|user| alive && user.account.anonymous);
    let Some(mut user) = user else {
        return Err(Error::new(Code::Conflict, "this session has changed meanwhile").hint("log in again"));
    };
    sessions::end(db, user.account.id, Of::All).await?;
    user.account.email = email.map(|email| email.as_str().to_owned());
    user.account.anonymous = false;
    Ok(user)
}
