//! The way to a provider and back: begun by a page, taken up by the same page.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Env, Error, Result, Secret, Timestamp};

use super::links::{Aim, Vouched};
use super::pending::{self, AWAY, Away, BACK, Back, Stage};
use super::providers::Provider;
use super::vouching::{Brought, Vouching};
use super::{Failed, jose};
use crate::auth::account::settle;
use crate::auth::address::Address;
use crate::auth::factors::Presence;
use crate::auth::letters::{News, Sender};
use crate::auth::redirects::allowed;
use crate::auth::sign_in::{Before, How, Who};
use crate::auth::token::{hash, random, text};
use crate::auth::ways::method;
use crate::auth::{Asking, Auth, Inner, Profile, SignIn, whole};
use crate::database::Durability;
use crate::logs::Level;
use crate::rows::Method;

/// What stands before a provider's name in the path that it sends back to. Each has its own, so that none gets what another
/// has sent (RFC 9700 §4.4.2).
pub const CALLBACK: &str = "/_/auth/oauth/callback/";

/// What a page wants when it sends somebody to a provider.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Where it goes on afterwards.
    pub redirect: Option<String>,
    /// SHA-256 of what the page keeps to itself, in base64url.
    pub challenge: String,
    /// The page that sends the browser, as the browser says it.
    pub from: Option<String>,
}

/// Where the browser goes, and what it keeps meanwhile.
#[derive(Debug, Clone)]
pub struct Departure {
    /// The address.
    pub location: String,
    /// The cookie; none where it goes back at once.
    pub cookie: Option<Cookie>,
}

/// A cookie that ties a way to one browser.
#[derive(Debug, Clone)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// Whether it is kept from plain connections.
    pub secure: bool,
    /// Whether it must come along with what another site posts.
    pub posted: bool,
    /// How long it is good for, in seconds; 0 where it is taken back.
    pub life: u64,
}

/// What a browser comes back with.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// To which provider's path.
    pub provider: String,
    /// The parameters of the answer, each at most once.
    pub state: String,
    /// The code.
    pub code: Option<Secret>,
    /// The word for what went wrong.
    pub error: Option<String>,
    /// Who answers (RFC 9207).
    pub iss: Option<String>,
    /// The cookies that came along.
    pub cookies: Vec<(String, Secret)>,
}

/// Where the browser goes on, and what it keeps from there on.
#[derive(Debug, Clone)]
pub struct Landing {
    /// The address, with what the page takes up after #.
    pub location: String,
    /// The cookie that is worth nothing any more, and the one for what the page takes up.
    pub cookies: Vec<Cookie>,
}

/// What a page shows to take up a provider's word.
#[derive(Debug, Clone)]
pub struct Handover {
    /// What it found in its address.
    pub code: Secret,
    /// What it has kept to itself.
    pub verifier: Secret,
    /// Whether it is one more way in for who is signed in.
    pub link: bool,
    /// The cookies that came along.
    pub cookies: Vec<(String, Secret)>,
}

/// What has come of it.
#[derive(Debug, Clone)]
pub enum Taken {
    /// Somebody is signed in, or still to show something.
    SignedIn(SignIn),
    /// The one who is signed in has one more way in.
    Linked(Profile),
}

/// What the names of our cookies begin with: a prefix that browsers hold to (RFC 6265bis §4.1.3.2), and our own.
const HOST: &str = "__Host-";
const WAY: &str = "oauth-";

/// How many characters of a name tell one way from another.
const NAMED: usize = 16;

/// Whether a cookie of this name ties a way to its browser: such a one is for nobody but the platform.
#[must_use]
pub fn is_of_a_way(name: &str) -> bool {
    // Browsers compare the prefix without case (RFC 6265bis §4.1.3).
    let prefix = name.get(..HOST.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(HOST));
    let rest = if prefix { &name[HOST.len()..] } else { name };
    rest.strip_prefix(WAY).is_some_and(|state| state.len() == NAMED)
}

/// What the cookie of a code is called by.
fn named(env: &Env, code: &Secret) -> String {
    pending::hash(env, "code", code.expose())
}

/// Where what is kept of somebody who is away is sealed for.
fn place(env: &Env, state: &str) -> String {
    format!("away of {} {state}", env.id())
}

/// That a way that leads to a page of another origin begins at one: such a page has no cookie of ours, and whoever sends
/// somebody else's browser there would find out what it comes back with.
fn begins_there(redirect: &str, from: Option<&str>) -> Result<()> {
    let origin = |text: &str| url::Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
    if redirect.starts_with('/') || from.and_then(origin).is_some_and(|from| Some(from) == origin(redirect)) {
        return Ok(());
    }
    Err(Error::new(
        Code::Forbidden,
        "this sign-in leads to a page of another origin, and did not begin there",
    )
    .hint("call signInWith on a page of that origin, with a referrer policy that sends its origin"))
}

/// The one answer to a way back that was not begun here, or is over.
fn astray() -> Error {
    Error::new(Code::Forbidden, "this sign-in was not begun in this browser, or is over")
        .hint("go back to the app, and begin again")
}

/// The cookie of a way by its state, or by the hash of its code. Each way has its own, so that two at once do not end each
/// other.
fn cookie(base: &str, state: &str, life: Duration, value: Secret) -> Cookie {
    let host =
        url::Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    // Browsers take their own machine for secure.
    let secure = base.starts_with("https://") || host == "localhost" || host.ends_with(".localhost");
    let prefix = if secure { HOST } else { "" };
    let name = format!("{prefix}{WAY}{}", state.get(..NAMED).unwrap_or_default());
    Cookie { name, value, secure, posted: false, life: life.as_secs() }
}

impl Auth {
    /// Where to send the browser of a page of the app to sign in with a provider.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method; `not_found` for a provider that it does not name;
    /// `invalid_input` at `/redirect` or `/challenge`; `forbidden` where it leads to another origin than it begins at;
    /// `rate_limited`.
    pub async fn depart(&self, asking: &Asking<'_>, name: &str, wish: &Wish) -> Result<Departure> {
        asking.by(Method::OAuth)?;
        let provider = asking.settings.providers.get(name);
        let provider = provider.ok_or_else(|| Error::not_found("such provider of this app"))?;
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if wish.challenge.len() != 43 || !wish.challenge.bytes().all(good) {
            return Err(Error::invalid("/challenge", "this is not SHA-256 in base64url")
                .hint("use signInWith of /_/sdk.js"));
        }
        let base = self.0.post.url(asking.env, asking.domain.into()).await?;
        let redirect = allowed(wish.redirect.as_deref().unwrap_or("/"), &base, &asking.settings.redirects)?;
        begins_there(&redirect, wish.from.as_deref())?;
        self.0.throttles.others.admit(asking.client())?;
        let (inner, env) = (&self.0, asking.env);
        // The cookie is the one secret of the way: what goes to the provider is made of it, and of what goes to the
        // provider it cannot be made.
        let held = text(&random::<32>()?);
        let Trip { state, nonce, verifier } = Trip::of(env, &held);
        let callback = format!("{base}{CALLBACK}{name}");
        let vouching = match inner.vouching(env, name, provider).await {
            Ok(vouching) => vouching,
            Err(failed) => return Ok(inner.nowhere(env, name, &redirect, &failed)),
        };
        let endpoints = match vouching.endpoints().await {
            Ok(endpoints) => endpoints,
            Err(failed) => return Ok(inner.nowhere(env, name, &redirect, &failed)),
        };
        let challenge = text(&hash(verifier.as_bytes()));
        let location = vouching.departure(&endpoints, &callback, &state, &nonce, &challenge);
        let (until, challenge) = (Timestamp::now().plus(AWAY).as_micros(), wish.challenge.clone());
        let away = Away { until, provider: name.to_owned(), callback, redirect, challenge };
        let away = serde_json::to_vec(&away).map_err(Error::internal)?;
        let held = Secret::new(format!("{held}.{}", inner.keys.seal(&place(env, &state), &away)?));
        let cookie = Cookie { posted: name == "apple", ..cookie(&base, &state, AWAY, held) };
        Ok(Departure { location: location.into(), cookie: Some(cookie) })
    }

    /// Where the browser goes on that comes back from a provider. What the provider says is written down; the
    /// page takes it up with the code in its address.
    ///
    /// # Errors
    /// `forbidden` where it was not sent from here, or was here before.
    pub async fn arrive(&self, asking: &Asking<'_>, arrival: &Arrival) -> Result<Landing> {
        let (env, inner) = (asking.env, &self.0);
        let state = arrival.state.as_str();
        if state.len() != 64 || !state.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(astray());
        }
        let base = inner.post.url(env, asking.domain.into()).await?;
        let mut spent = cookie(&base, state, AWAY, Secret::new(""));
        let held = arrival.cookies.iter().find(|(name, _)| *name == spent.name).map(|(_, held)| held);
        let (held, sealed) = held.and_then(|held| held.expose().split_once('.')).ok_or_else(astray)?;
        let trip = Trip::of(env, held);
        if trip.state != state {
            return Err(astray());
        }
        let away = inner.keys.open(&place(env, state), sealed).map_err(|_| astray())?;
        let away: Away = serde_json::from_slice(&away).map_err(|_| astray())?;
        let over = away.until <= Timestamp::now().as_micros();
        if over
            || away.provider != arrival.provider
            || pending::is_there(inner, env, Stage::Home, state).await?
        {
            return Err(astray());
        }
        (spent.posted, spent.life) = (away.provider == "apple", 0);
        let mut cookies = vec![spent];
        let found = match asking.settings.providers.get(&away.provider) {
            Some(provider) if asking.settings.methods.contains(&Method::OAuth) => {
                inner.come(env, &away, provider, arrival, &trip).await
            }
            _ => Err(Failed::Said("the app has this provider no more")),
        };
        let outcome = match found {
            Ok(Some((code, kept))) => {
                let kept = kept.map(|kept| cookie(&base, &named(env, &code), BACK, kept));
                cookies.extend(kept);
                format!("auth_oauth={}", code.expose())
            }
            Ok(None) => "auth_oauth_error=denied".to_owned(),
            Err(failed) => format!("auth_oauth_error={}", inner.tell(env, &away.provider, &failed)),
        };
        Ok(Landing { location: format!("{}#{outcome}", away.redirect), cookies })
    }

    /// What a provider's word opens for the page that has begun: a session, or one more way in for the user of `token`.
    ///
    /// # Errors
    /// `unauthenticated` with the same words for whatever is wrong with the code; `conflict` where the identity or its
    /// address is another user's; `forbidden` where the app takes no sign-ups, the user is disabled, or linking needs a
    /// session of a moment ago; `rate_limited`.
    pub async fn take_up(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        shown: &Handover,
    ) -> Result<Taken> {
        asking.by(Method::OAuth)?;
        self.0.throttles.others.admit(asking.client())?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let known = match token {
            Some(token) => Some(inner.known(&env, token).await?),
            None => None,
        };
        if shown.link && known.is_none() {
            return Err(Error::new(Code::Unauthenticated, "there is no session to link to")
                .hint("send its access token"));
        }
        let linking = known.as_ref().filter(|known| shown.link && !known.profile.anonymous).cloned();
        if let Some(known) = &linking {
            known.admitted(asking.settings.mfa)?;
            self.0.present(asking, known, &Presence::Fresh).await?;
        }
        let before = known.as_deref().and_then(Before::of);
        let wrong = || {
            Error::new(Code::Unauthenticated, "the code is wrong, or not valid any more").hint("begin again")
        };
        if shown.code.expose().len() > 100 || shown.verifier.expose().len() > 200 {
            return Err(wrong());
        }
        let base = inner.post.url(&env, asking.domain.into()).await?;
        let (signup, mut how) = (asking.settings.signup, asking.how("oauth"));
        let sender = inner.sender(&env, asking.settings.name.as_deref(), asking.domain.into()).await?;
        let shown = shown.clone();
        whole(async move {
            let mut db = inner.begin(&env).await?;
            // Also what is refused further on is spent.
            let back = pending::take::<Back>(&mut db, &env, Stage::Back, shown.code.expose()).await;
            let back = settle(db, back).await?;
            let kept = text(&hash(shown.verifier.expose().as_bytes()));
            let named = cookie(&base, &named(&env, &shown.code), BACK, Secret::new("")).name;
            let held = shown.cookies.iter().find(|(name, _)| *name == named);
            let held = held.map(|(_, held)| pending::hash(&env, "browser", held.expose()));
            let same =
                |back: &Back| back.challenge == kept && (back.browser.is_none() || back.browser == held);
            let back = back.filter(same).ok_or_else(wrong)?;
            let email = match back.email {
                Some((email, surety)) => Some((Address::parse("/email", &email)?, surety)),
                None => None,
            };
            let aim = if shown.link { Aim::Link } else { Aim::SignIn };
            how.method = method(&back.provider).into();
            let vouched = Vouched {
                provider: back.provider,
                subjects: back.subjects,
                email,
                before,
                signup,
                aim,
                role: None,
                claims: None,
            };
            match linking {
                Some(known) => {
                    let user = known.profile.id;
                    Ok(Taken::Linked(inner.link(&env, &known.session, user, vouched, &sender).await?))
                }
                None => Ok(Taken::SignedIn(inner.enter(&env, vouched, &how, &sender).await?)),
            }
        })
        .await
    }
}

/// What one way shows to the provider, made of what the browser holds.
struct Trip {
    state: String,
    nonce: String,
    verifier: String,
}

impl Trip {
    fn of(env: &Env, held: &str) -> Self {
        let [state, nonce, verifier] =
            ["state", "nonce", "verifier"].map(|label| pending::hash(env, label, held));
        Self { state, nonce, verifier }
    }
}

impl Inner {
    /// Opens a session for whom somebody else vouches. Who had an account before is told by mail that there is one more way
    /// in.
    async fn enter(&self, env: &Env, vouched: Vouched, how: &How, sender: &Sender) -> Result<SignIn> {
        let mut db = self.begin(env).await?;
        let opened = async {
            let mut opened = self.signed_in(&mut db, env, Who::Vouched(vouched), how).await?;
            let letter = match opened.linked.take() {
                Some(account) => sender.news_of(&account, News::Linked)?,
                None => None,
            };
            Ok((opened, self.keep(&mut db, letter).await?))
        }
        .await;
        let (opened, letter) = settle(db, opened).await?;
        self.dispatch(env, letter);
        Ok(self.announce(env, opened))
    }

    async fn vouching<'a>(
        &'a self,
        env: &Env,
        name: &'a str,
        provider: &'a Provider,
    ) -> Result<Vouching<'a>, Failed> {
        let secret = match &provider.client_secret {
            Some(secret) => {
                let value = self.outside.secrets.value(env, secret).await?;
                Some(value.ok_or_else(|| Failed::NoSecret(secret.clone()))?)
            }
            None => None,
        };
        Ok(Vouching {
            env: env.id(),
            http: &self.outside.http,
            issuers: &self.issuers,
            name,
            provider,
            secret,
        })
    }

    /// The code for what the provider says, and the cookie of a browser that goes on to a page of the app; none where people have changed their minds there.
    async fn come(
        &self,
        env: &Env,
        away: &Away,
        provider: &Provider,
        arrival: &Arrival,
        trip: &Trip,
    ) -> Result<Option<(Secret, Option<Secret>)>, Failed> {
        let code = match (&arrival.error, &arrival.code) {
            (Some(error), _) if error == "access_denied" || error == "user_cancelled_authorize" => {
                return Ok(None);
            }
            // WeChat says no more than this where people say no.
            (None, None) if away.provider == "wechat" => return Ok(None),
            (None, Some(code)) if (1..=4_096).contains(&code.expose().len()) => code,
            (Some(_), _) => return Err(Failed::Said("the provider answers with an error")),
            (None, _) => return Err(Failed::Said("the provider answers without a code")),
        };
        let vouching = self.vouching(env, &away.provider, provider).await?;
        let brought = Brought {
            code: code.expose(),
            iss: arrival.iss.as_deref(),
            callback: &away.callback,
            verifier: &trip.verifier,
            nonce: &trip.nonce,
        };
        let word = vouching.word(&brought).await?;
        let code = Secret::new(text(&random::<32>()?));
        let kept = match away.redirect.starts_with('/') {
            true => Some(Secret::new(text(&random::<32>()?))),
            // A page of another origin has no cookies of ours.
            false => None,
        };
        let back = Back {
            provider: away.provider.clone(),
            subjects: word.subjects,
            email: word.email.map(|(email, surety)| (email.as_str().to_owned(), surety)),
            challenge: away.challenge.clone(),
            browser: kept.as_ref().map(|kept| pending::hash(env, "browser", kept.expose())),
        };
        let mut db = self.databases.writer(env).await.map_err(Error::from)?;
        db.begin(Durability::Normal).await.map_err(Error::from)?;
        let now = Timestamp::now();
        let put = async {
            // Of two who come back with one state one is taken up.
            let first =
                pending::put(&mut db, env, Stage::Home, (&arrival.state, now.plus(AWAY)), &()).await?;
            pending::put(&mut db, env, Stage::Back, (code.expose(), now.plus(BACK)), &back).await?;
            Ok(first)
        }
        .await;
        match settle(db, put).await? {
            true => Ok(Some((code, kept))),
            false => Err(Failed::Said("the browser was back before")),
        }
    }

    fn nowhere(&self, env: &Env, name: &str, redirect: &str, failed: &Failed) -> Departure {
        let word = self.tell(env, name, failed);
        Departure { location: format!("{redirect}#auth_oauth_error={word}"), cookie: None }
    }

    /// Says why in the app's log; the word for the page.
    pub(super) fn tell(&self, env: &Env, provider: &str, failed: &Failed) -> &'static str {
        if let Failed::Ours(error) = failed {
            tracing::error!(env.id = %env.id(), error = error.chain(), "a sign-in by a provider failed");
        }
        let message = "somebody could not sign in by another's word";
        let why = match failed {
            Failed::Token(jose::Bad::UnknownKey) => {
                "the token is signed by a key that is not known, or a short secret".to_owned()
            }
            failed => failed.to_string(),
        };
        self.post.note(env, Level::Warn, message, &[("provider", provider), ("why", &why)]);
        failed.word()
    }
}
