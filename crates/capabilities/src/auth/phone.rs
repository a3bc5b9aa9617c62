//! Sign-in by a code that the app's own adapter sends to a phone. The platform asks it over HTTP, and signs what it asks
//! (Standard Webhooks 1.0.0).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kernel::{Code, Env, Error, Result, Secret, Timestamp};
use reqwest::Method as Verb;
use serde_json::json;
use sha2::Sha256;
use url::Url;
use uuid::Uuid;

use super::account::{self, Key, Stored, settle};
use super::address::Address;
use super::codes::{self, New, Purpose};
use super::letters::Sender;
use super::proofs::{typed, wrong};
use super::requests::beside;
use super::sign_in::{Before, Found, Who, upgraded};
use super::throttle::network;
use super::{Account, Asking, Auth, Inner, SignIn, ways, whole};
use crate::database::{Durability, Writer};
use crate::logs::Level;
use crate::mail::{self, Letter};
use crate::places::Place;
use crate::rows::{Method, PhoneAdapter, SignUp};

/// What a secret of the library's own form begins with; what comes after it is base64.
const WHSEC: &str = "whsec_";

/// A code that somebody wants on a phone.
struct Wanted {
    phone: Address,
    adapter: PhoneAdapter,
    app: Option<String>,
    domain: Option<String>,
    signup: SignUp,
}

/// What is sent.
struct Text {
    to: String,
    code: Secret,
    text: Secret,
    app: String,
    known: Whose,
}

/// Whether a number has an account. Texts to those that have none are counted by themselves: whoever makes numbers up uses
/// up nothing of those who have signed in before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Somebodys,
    Nobodys,
}

/// Somebody who has read a text.
pub(super) struct Phoned {
    pub phone: Address,
    pub before: Option<Before>,
    pub signup: SignUp,
}

impl Auth {
    /// Has a code sent to a phone. Nothing tells whether the number has an account.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method; `invalid_input` at `/phone`; `rate_limited`;
    /// `unavailable`.
    pub async fn ask_text(&self, asking: &Asking<'_>, phone: &str) -> Result<()> {
        asking.by(Method::Phone)?;
        let phone = Address::phone("/phone", phone)?;
        let adapter = asking.settings.phone.clone().ok_or_else(|| {
            Error::new(Code::Forbidden, "this app has nobody who sends texts")
                .hint("set auth.phone in the manifest")
        })?;
        let (throttles, env) = (&self.0.throttles, asking.env);
        let place = self.0.place(env)?;
        // The narrower bounds come first, so that one who asks too often uses nobody else's up.
        throttles.texts_from.admit(asking.client())?;
        throttles.texts.admit(env.id(), phone.clone(), network(asking.client))?;
        let (app, signup) = (asking.settings.name.clone(), asking.settings.signup);
        let wanted = Wanted { phone, adapter, app, domain: asking.domain.map(str::to_owned), signup };
        let (inner, env) = (Arc::clone(&self.0), env.clone());
        beside(asking.env, async move { inner.text(&env, &wanted, place).await });
        Ok(())
    }

    /// Opens a session for who shows what was sent to a phone. With the access token of an anonymous user, and a number
    /// without an account, it is that user who gets it.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method; `unauthenticated` with the same words for whatever is wrong;
    /// `invalid_input` at `/phone` or `/code`; `rate_limited`.
    pub async fn verify_text(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        phone: &str,
        code: &Secret,
    ) -> Result<SignIn> {
        asking.by(Method::Phone)?;
        let before = match token {
            Some(token) => Before::of(&*self.0.known(asking.env, token).await?),
            None => None,
        };
        self.0.throttles.passwords.admit(asking.client())?;
        let (phone, code) = (Address::phone("/phone", phone)?, typed(code)?);
        let (codes, network) = (&self.0.throttles.codes, network(asking.client));
        let guess = codes.admit(asking.env.id(), phone.clone(), network)?;
        let (inner, env, how) = (Arc::clone(&self.0), asking.env.clone(), asking.how("phone"));
        let phoned = Phoned { phone: phone.clone(), before, signup: asking.settings.signup };
        let entered = whole(async move {
            let mut db = inner.begin(&env).await?;
            let entered = async {
                let spent = codes::by_code(&mut db, &env, &phoned.phone, &code, &[Purpose::Phone]).await?;
                if spent.is_none() {
                    return Ok(None);
                }
                inner.signed_in(&mut db, &env, Who::Phoned(phoned), &how).await.map(Some)
            }
            .await;
            Ok(settle(db, entered).await?.map(|entered| inner.announce(&env, entered)))
        })
        .await?;
        let entered = entered.ok_or_else(wrong)?;
        codes.give_back(&guess);
        codes.familiar(asking.env.id(), phone, network);
        Ok(entered)
    }
}

impl Inner {
    /// Writes a code down and has it sent. The same is written for who gets none, so that what follows takes as long.
    async fn text(&self, env: &Env, wanted: &Wanted, place: Place) -> Result<()> {
        let sender = self.sender(env, wanted.app.as_deref(), wanted.domain.as_deref().into()).await?;
        let mut db = self.databases.writer(env).await?;
        db.begin(Durability::Normal).await?;
        let written = self.write_text(&mut db, env, wanted, &sender).await;
        let written = settle(db, written).await?;
        // Others who want a code need not wait for who sends this one.
        drop(place);
        let Some(text) = written else { return Ok(()) };
        if self.throttles.texts_of_app.admit((env.id(), text.known)).is_err() {
            let whose = match text.known {
                Whose::Somebodys => "numbers that have an account",
                Whose::Nobodys => "numbers that have no account",
            };
            let message = format!("a text was not sent: there were too many to {whose}");
            self.post.note(env, Level::Warn, &message, &[]);
            return Ok(());
        }
        if let Err(why) = self.hand_over(env, &wanted.adapter, &text).await {
            self.post.note(env, Level::Error, &format!("a text was not sent: {why}"), &[]);
        }
        Ok(())
    }

    async fn write_text(
        &self,
        db: &mut Writer,
        env: &Env,
        wanted: &Wanted,
        sender: &Sender,
    ) -> Result<Option<Text>> {
        let phone = &wanted.phone;
        let found = Key::Phone(phone).find_in(db).await?;
        let life = self.limits.code;
        let new =
            New { purpose: Purpose::Phone, email: phone, user: None, password: None, redirect: None, life };
        let made = codes::make(db, env, &new).await?;
        let known = if found.is_some() { Whose::Somebodys } else { Whose::Nobodys };
        let gets = found.map_or(wanted.signup == SignUp::Open, |found| !found.account.disabled);
        if !gets {
            return Ok(None);
        }
        let text = sender.text(&made.code, life);
        if self.is_branch(db).await? {
            // Its users are copies of people who know nothing of it.
            let subject = format!("A code for {}", sender.name);
            let letter = Letter { to: phone.as_str().to_owned(), from: sender.name.clone(), subject, text };
            mail::keep(db, &letter).await?;
            return Ok(None);
        }
        let (to, app) = (phone.as_str().to_owned(), sender.name.clone());
        Ok(Some(Text { to, code: made.code, text, app, known }))
    }

    /// Gives a text to the app's adapter; why not, in words that name no secret.
    async fn hand_over(&self, env: &Env, adapter: &PhoneAdapter, text: &Text) -> Result<(), String> {
        let secret = self.outside.secrets.value(env, &adapter.secret).await.map_err(|e| e.to_string())?;
        let secret = secret.ok_or_else(|| format!("the secret {} is not set", adapter.secret))?;
        let url = Url::parse(&adapter.webhook).map_err(|_| "the webhook is no address".to_owned())?;
        let Text { to, code, text, app, known: _ } = text;
        let body = json!({ "to": to, "code": code.expose(), "text": text.expose(), "app": app }).to_string();
        let (id, at) = (format!("msg_{}", Uuid::now_v7().simple()), Timestamp::now().as_secs());
        let signature = signature(&secret, &id, at, &body)
            .ok_or_else(|| format!("the secret {} begins with {WHSEC} and is not base64", adapter.secret))?;
        let request = self.outside.http.request(Verb::POST, &url).map_err(|why| why.to_string())?;
        let request = request
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature)
            .body(body);
        let answer = self.outside.http.send(request).await.map_err(|why| why.to_string())?;
        match answer.status {
            200..=299 => Ok(()),
            status => Err(format!("the webhook answers {status}")),
        }
    }

    /// The user with a number, the one of `before`, or a new one.
    pub(super) async fn phoned(&self, db: &mut Writer, phoned: Phoned) -> Result<Found> {
        let Phoned { phone, before, signup } = phoned;
        let mut user = match (Key::Phone(&phone).find_in(db).await?, before) {
            (Some(found), _) if found.account.disabled => return Err(wrong()),
            (Some(user), _) => return Ok(Found::of(user, false)),
            (None, _) if signup != SignUp::Open => return Err(wrong()),
            (None, Some(before)) => upgraded(db, &before, None).await?,
            (None, None) => Stored { account: Account::new(None), password: None },
        };
        user.account.note("phone");
        user.account.phone = Some(phone.as_str().to_owned());
        account::put(db, &user).await?;
        ways::add_phone(db, user.account.id, &phone).await?;
        Ok(Found::of(user, true))
    }
}

/// The signature of Standard Webhooks over what is sent: `v1,` and a code by HMAC-SHA256; none where the secret is not
/// what it says it is.
fn signature(secret: &Secret, id: &str, at: i64, body: &str) -> Option<String> {
    let key = match secret.expose().strip_prefix(WHSEC) {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.expose().as_bytes().to_vec(),
    };
    let mut mac = <Hmac<Sha256>>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_standard_webhooks_comes_out() {
        // https://github.com/standard-webhooks/standard-webhooks, the example of its libraries.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(signature(&Secret::new("whsec_!"), "a", 1, "{}"), None);
        assert!(signature(&Secret::new("any other secret"), "a", 1, "{}").is_some());
    }
}
