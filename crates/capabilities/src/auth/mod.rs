//! The users of an app: how they sign in, and how their requests are recognized.
//!
//! Users and sessions are rows of the environment's own database; the key that signs its access tokens lies behind
//! [`TokenKeys`]. An access token is a short-lived JWT that is looked up in the database when it is first seen and then
//! remembered, until it ends or something about its user changes. A refresh token is used once; one that is shown again
//! ends its session.
//!
//! Somebody else's word opens an account, too: `others`.
//!
//! What is mailed opens an account once, for a few minutes. A request for mail is answered before anybody has looked whose
//! address it is.

mod account;
mod address;
mod admin;
mod codes;
mod factors;
mod guesses;
mod held;
mod leaving;
mod letters;
mod limits;
mod origin;
mod others;
mod passkeys;
mod password;
mod phone;
mod proofs;
mod recognized;
mod recovery;
mod redirects;
mod requests;
mod second;
mod sessions;
mod sign_in;
mod throttle;
mod tickets;
mod token;
mod totp;
pub(crate) mod turns;
mod upkeep;
mod ways;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kernel::{
    CallId, Code, Env, EnvId, Error, LimitScope, Networks, Result, Scope, Secret, Timestamp, UserId,
};
use serde_json::Value;

pub use account::{Account, Profile};
pub(crate) use account::{STORED_USERS, check_stored, seen, seen_sql};
pub use admin::{COSTLIEST, Invitation, MfaChange, UserChange, UserPage, UserSet, Users};
pub use factors::{FactorKind, Presence, Second};
pub use held::Held;
pub use leaving::Holdings;
pub use limits::{AuthLimits, Rate};
pub use origin::origin;
pub(crate) use others::check as check_providers;
pub use others::{
    Arrival, CALLBACK, Cookie, Custom, CustomToken, Departure, Directory, DirectorySettings, Entry, Handover,
    Landing, Provider, Return, Taken, TrustedIssuer, Wish, is_of_a_way,
};
pub use passkeys::{NewPasskey, Passkey, ShownPasskey};
pub use proofs::{Entered, Shown};
pub use redirects::redirect;
pub use second::{Enrolment, Factor, Factors};
pub use sessions::SessionInfo;
pub(crate) use throttle::Throttle;
pub use throttle::network;
pub use token::{Claims, TokenKeys};
pub use ways::IdentityInfo;

use crate::access::{Guest, Subject};
use crate::database::Databases;
use crate::mail::Post;
use crate::outbound::{NoSecrets, Outbound, SecretValues};
use crate::places::Places;
use crate::rows::{AuthSettings, Mfa};
use account::{Stored, columns, settle};
use address::Address;
use guesses::{Familiar, Guesses};
use others::Issuers;
pub use password::{Password, Passwords, Tried};
use recognized::{Known, Recognized};
use sign_in::How;
pub use turns::{Turn, Turns};

/// The users of every environment's app. Clones share everything.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    databases: Arc<Databases>,
    keys: Arc<dyn TokenKeys>,
    post: Post,
    outside: Outside,
    issuers: Issuers,
    limits: AuthLimits,
    recognized: Recognized,
    passwords: Passwords,
    throttles: Throttles,
    /// For requests for codes that are worked off.
    requests: Places,
    /// For users who take their data along.
    exports: Turns,
}

/// What signing in by others' word needs.
#[derive(Clone)]
pub struct Outside {
    /// Asks them.
    pub http: Outbound,
    /// What the app is known to them by.
    pub secrets: Arc<dyn SecretValues>,
}

impl Outside {
    /// The public world, to which apps are known by nothing.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn unknown() -> Result<Self> {
        Ok(Self { http: Outbound::new(Networks::default())?, secrets: Arc::new(NoSecrets) })
    }
}

/// How many requests for codes are worked off at once: nearly all of them wait for the writers of their environments.
const REQUESTS: usize = 4_096;

/// How many of one environment, whose writer may be busy for long.
const OF_ONE: usize = 32;

/// Who is behind a request that has no session yet.
type Client = (EnvId, Option<IpAddr>);

struct Throttles {
    guesses: Guesses,
    codes: Guesses,
    mails: Guesses,
    mails_from: Throttle<Client>,
    invitations: Throttle<(EnvId, Address)>,
    invitations_of_app: Throttle<EnvId>,
    passwords: Throttle<Client>,
    anonymous: Throttle<Client>,
    anonymous_users: Throttle<Client>,
    others: Throttle<Client>,
    customs: Throttle<(EnvId, [u8; 32])>,
    refreshes: Throttle<Client>,
    seconds: Throttle<(EnvId, UserId)>,
    texts: Guesses,
    texts_from: Throttle<Client>,
    texts_of_app: Throttle<(EnvId, phone::Whose)>,
}

/// A request to sign in: to which app, how it wants that, from where.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The environment of the app.
    pub env: &'a Env,
    /// What its live release says of signing in.
    pub settings: &'a AuthSettings,
    /// The network address that the request comes from, where it is known.
    pub client: Option<IpAddr>,
    /// What the browser or program says of itself, where it does.
    pub device: Option<&'a str>,
    /// The domain of the app's own that was asked, where it was one; links lead back there.
    pub domain: Option<&'a str>,
}

/// An address and a password, as somebody has typed them.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The address.
    pub email: String,
    /// The password.
    pub password: Secret,
}

/// A session that was opened or refreshed.
#[derive(Debug, Clone)]
pub struct Session {
    /// Opens the data plane, for a short time.
    pub access_token: Secret,
    /// Gets the next pair of tokens, once.
    pub refresh_token: Secret,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// Whose it is.
    pub user: Profile,
}

/// What has come of a first factor that was right: no way to sign in ends in anything else.
#[derive(Debug, Clone)]
#[must_use]
pub enum SignIn {
    /// It was enough.
    Session(Session),
    /// The account has a second factor, and there is no session before it was shown.
    Second(Challenge),
}

/// What is asked of somebody whose first factor was right.
#[derive(Debug, Clone)]
pub struct Challenge {
    /// To be shown with the second factor, to [`Auth::second`]; it opens nothing else.
    pub ticket: Secret,
    /// What can be shown.
    pub factors: Vec<FactorKind>,
    /// How long the ticket is good for.
    pub expires_in: Duration,
}

/// What has come of signing up.
#[derive(Debug, Clone)]
pub enum SignedUp {
    /// The account is there.
    Entered(SignIn),
    /// The owner of the address was mailed; a code from there makes the account.
    Mailed,
}

/// Which sessions end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The one whose access token is shown.
    This,
    /// All of its user.
    Everywhere,
    /// All of its user but the one whose access token is shown.
    Others,
    /// The one with this id, where it is its user's.
    One(String),
}

impl Auth {
    /// The users in `databases`, with access tokens that `keys` sign, mail by `post`, and others' word from `outside`.
    #[must_use]
    pub fn new(
        databases: Arc<Databases>,
        keys: Arc<dyn TokenKeys>,
        post: Post,
        outside: Outside,
        limits: AuthLimits,
    ) -> Self {
        let familiar = Familiar::new(&limits);
        let throttles = Throttles {
            guesses: Guesses::passwords(&limits, &familiar),
            codes: Guesses::codes(&limits, &familiar),
            mails: Guesses::mails(&limits, &familiar),
            mails_from: Throttle::new("mails", LimitScope::Address, limits.mails_from, limits.minded),
            invitations: Throttle::new("invitations", LimitScope::User, limits.invitations, limits.minded),
            invitations_of_app: Throttle::new(
                "invitations-of-app",
                LimitScope::Environment,
                limits.invitations_of_app,
                limits.minded,
            ),
            passwords: Throttle::new("passwords", LimitScope::Address, limits.passwords, limits.minded),
            anonymous: Throttle::new("anonymous", LimitScope::Address, limits.anonymous, limits.minded),
            anonymous_users: Throttle::new(
                "anonymous-users",
                LimitScope::Address,
                limits.anonymous_users,
                limits.minded,
            ),
            others: Throttle::new("sign-ins", LimitScope::Address, limits.others, limits.minded),
            customs: Throttle::new("sign-ins", LimitScope::User, limits.customs, limits.minded),
            refreshes: Throttle::new("refreshes", LimitScope::Address, limits.refreshes, limits.minded),
            texts: Guesses::texts(&limits, &familiar),
            texts_from: Throttle::new("texts", LimitScope::Address, limits.texts_from, limits.minded),
            texts_of_app: Throttle::new(
                "texts-of-app",
                LimitScope::Environment,
                limits.texts_of_app,
                limits.minded,
            ),
            seconds: Throttle::new(
                "wrong-second-factors",
                LimitScope::User,
                limits.wrong_seconds,
                limits.minded,
            ),
        };
        Self(Arc::new(Inner {
            recognized: Recognized::new(limits.remembered),
            passwords: Passwords::new(limits.hashing, limits.hashing_wait),
            throttles,
            databases,
            keys,
            post,
            issuers: Issuers::new(outside.http.clone()),
            outside,
            limits,
            requests: Places::new(REQUESTS, OF_ONE),
            exports: Turns::new(1),
        }))
    }

    /// Who sends `token`: an access token of this environment, or a platform key that is bound to it; `mfa` is what the
    /// app's live release says of second factors.
    ///
    /// # Errors
    /// `unauthenticated` where it does not hold (any more), or is of another environment; `forbidden` where a key
    /// may not read and write rows, or a session has not shown the second factor that the app requires.
    pub async fn recognize(&self, env: &Env, mfa: Mfa, token: &Secret) -> Result<Guest> {
        self.recognize_for(env, mfa, token, &[Scope::DbRead, Scope::DbWrite]).await
    }

    /// As [`Auth::recognize`], where a key must carry the scopes `wanted`.
    ///
    /// # Errors
    /// The same.
    pub async fn recognize_for(
        &self,
        env: &Env,
        mfa: Mfa,
        token: &Secret,
        wanted: &[Scope],
    ) -> Result<Guest> {
        if token.expose().starts_with(SERVICE) {
            let (key, scopes) = Box::pin(self.0.keys.service(env, token)).await?.ok_or_else(refused)?;
            return match scopes.missing(wanted) {
                None => Ok(Guest::new(env.clone(), Subject::Service).with_key(key)),
                Some(scope) => Err(Error::new(Code::Forbidden, format!("the key lacks the scope {scope}"))),
            };
        }
        let known = self.0.known(env, token).await?;
        known.admitted(mfa)?;
        Ok(known.guest.clone())
    }

    /// The user who sends `token`.
    ///
    /// # Errors
    /// As [`Auth::recognize`].
    pub async fn me(&self, env: &Env, token: &Secret) -> Result<Profile> {
        Ok(self.0.known(env, token).await?.profile.clone())
    }

    /// What pages of other origins show with each request: public, and the same for an environment's whole life.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn publishable_key(&self, env: &Env) -> Result<String> {
        Ok(format!("pk_{}", self.0.keys.kid(env).await?))
    }

    /// The path of the app, as asked at `domain` of its own, that a page may go on to after signing in; none for anything that leaves the app.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn own_path(&self, env: &Env, domain: Option<&str>, wanted: &str) -> Result<Option<String>> {
        let app = self.0.post.url(env, domain.into()).await?;
        Ok(redirects::allowed(wanted, &app, &[]).ok())
    }

    /// How long a mailed code is good for.
    #[must_use]
    pub fn code_life(&self) -> Duration {
        self.0.limits.code
    }

    /// Tells an app's makers that somebody was not let in, and why: not who, nor by what.
    pub fn kept_out(&self, env: &Env, way: &str, why: &Error, request: CallId) {
        let code = why.code();
        if matches!(code, Code::Unauthenticated | Code::Forbidden | Code::RateLimited) {
            let fields = [("way", way), ("code", code.as_str())];
            self.0.post.note_of(env, &format!("a log-in by {way} failed"), &fields, request);
        }
    }

    /// The public keys that access tokens are verified by (RFC 7517).
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn jwks(&self, env: &Env) -> Result<Value> {
        self.0.keys.jwks(env).await
    }

    /// Drops what is remembered of an environment; to be called after its database is closed for good.
    pub fn forget(&self, env: EnvId) {
        self.0.recognized.forget(|known| known.guest.env().id() == env);
    }
}

impl Inner {
    /// Whose the token is.
    async fn known(&self, env: &Env, token: &Secret) -> Result<Arc<Known>> {
        if token.expose().len() > token::LONGEST {
            return Err(refused());
        }
        let (now, hash) = (Timestamp::now(), token::hash(token.expose().as_bytes()));
        if let Some(known) = self.recognized.get(env.id(), &hash, now) {
            return Ok(known);
        }
        // Each request has a place for this, and few need it.
        Box::pin(self.looked_up(env, token, hash, now)).await
    }

    async fn looked_up(
        &self,
        env: &Env,
        token: &Secret,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Arc<Known>> {
        let claims = self.keys.verify(env, token).await?.filter(|claims| claims.hold(env, now));
        let claims = claims.ok_or_else(refused)?;
        let asked = self.recognized.asking();
        let known = Arc::new(self.behind(env, claims, now).await?);
        self.recognized.keep(asked, hash, Arc::clone(&known));
        Ok(known)
    }

    /// Whose the session is that a token speaks of, where it goes on.
    async fn behind(&self, env: &Env, claims: Claims, now: Timestamp) -> Result<Known> {
        // What is said of the user comes from here: the token may have been signed before it changed.
        let sql = format!(
            "SELECT {}, s.second FROM _steading_session s JOIN _steading_user u ON u.id = s.user \
             WHERE s.id = ?1 AND s.user = ?2 AND s.expires_at > ?3 AND u.disabled = 0",
            columns()
        );
        let params = [claims.sid.clone().into(), claims.sub.to_string().into(), now.as_micros().into()];
        let rows = self.databases.platform_query(env, &sql, &params).await?;
        let row = rows.first().ok_or_else(refused)?;
        let account = Stored::read(row)?.account;
        Ok(Known {
            guest: Guest::new(env.clone(), Subject::User(account.user())),
            profile: account.profile(),
            session: claims.sid,
            expires: claims.exp,
            second: row.last().is_some_and(Value::is_i64),
        })
    }
}

/// What keys begin with that an app's own server shows.
const SERVICE: &str = "stead_key_";

/// The one answer to a token that opens nothing.
fn refused() -> Error {
    Error::new(Code::Unauthenticated, "the access token is not valid (any more)")
        .hint("get another one with /_/auth/refresh, or log in again")
}

/// Runs `work` to its end, also where its caller goes away: between a commit and what has to follow it nothing comes.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(Error::internal)?
}
