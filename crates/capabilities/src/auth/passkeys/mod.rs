//! Passkeys (Web Authentication Level 3): made by who has an account, and the way in for who holds one. One that was
//! shown with a finger, a face or a PIN stands for two factors.

mod cose;
mod webauthn;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, Env, Error, Result, Secret, Timestamp, UserId};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::account::settle;
use super::factors::{Presence, Strength};
use super::letters::News;
use super::proofs::session_user;
use super::recognized::Known;
use super::second::named;
use super::sessions::{self, Of};
use super::sign_in::{How, Who};
use super::tickets::{self, For};
use super::{Asking, Auth, Inner, SignIn, factors, ways, whole};
use crate::database::{Role, Writer};
use crate::logs::Level;
use crate::rows::{Method, Mfa};
use webauthn::{Ceremony, Place, Refusal};

/// What a session by a passkey is called in the list of sessions.
const METHOD: &str = "passkey";

/// How many passkeys one user may have.
const MOST: u64 = 20;

/// A passkey, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passkey {
    /// What it is called where it is renamed or removed.
    pub id: String,
    /// What its user calls it.
    pub name: Option<String>,
    /// At which host of the app it opens the account.
    pub host: String,
    /// Whether it is kept elsewhere too, by the maker of the device.
    pub backed_up: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last shown.
    pub used_at: Option<Timestamp>,
}

/// A passkey that a browser has made, as it sends it: in base64url.
#[derive(Debug, Clone)]
pub struct NewPasskey {
    /// What its user calls it.
    pub name: Option<String>,
    /// What the browser has collected.
    pub client_data: String,
    /// What the authenticator says.
    pub attestation: String,
}

/// A passkey that is shown, as a browser sends it: in base64url.
#[derive(Debug, Clone)]
pub struct ShownPasskey {
    /// What the authenticator calls it.
    pub credential: String,
    /// What the browser has collected.
    pub client_data: String,
    /// What the authenticator says.
    pub authenticator_data: String,
    /// Both, signed.
    pub signature: String,
    /// Whose it is, as the authenticator knows it.
    pub user: Option<String>,
}

/// The one answer to a passkey that opens nothing.
pub(super) fn refused() -> Error {
    Error::new(Code::Unauthenticated, "the passkey does not open an account here")
        .hint("ask for new options and try again, or sign in another way")
}

impl Auth {
    /// What a browser is to make a passkey by (§5.4), for who is there in person.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `forbidden` where the app does not list the method or has no
    /// name for a host, or the user is not there in person; `conflict` where the user has no account,
    /// or enough passkeys; `rate_limited`.
    pub async fn passkey_creation(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        presence: &Presence,
    ) -> Result<Value> {
        let (known, place) = self.may_make(asking, token).await?;
        self.0.present(asking, &known, presence).await?;
        let (user, env) = (known.profile.id, asking.env);
        let sql = "SELECT credential FROM _steading_passkey WHERE user = ?1 AND host = ?2";
        let params = [user.to_string().into(), place.party.clone().into()];
        let found = self.0.databases.platform_query(env, sql, &params).await?;
        let excluded: Vec<Value> =
            found.iter().map(|row| json!({ "type": "public-key", "id": row.first() })).collect();
        let challenge = self.0.challenge(env, user, &place).await?;
        let sender = self.0.sender(env, asking.settings.name.as_deref(), asking.domain.into()).await?;
        let name = known.profile.email.clone().unwrap_or_else(|| user.to_string());
        let parameters = cose::ALGORITHMS.map(|alg| json!({ "type": "public-key", "alg": alg }));
        Ok(json!({
            "challenge": challenge,
            "rp": { "id": place.party, "name": sender.name },
            "user": { "id": handle(user), "name": name, "displayName": name },
            "pubKeyCredParams": parameters,
            "timeout": self.0.limits.ticket.as_millis(),
            "excludeCredentials": excluded,
            "authenticatorSelection": {
                "residentKey": "required", "requireResidentKey": true, "userVerification": "preferred",
            },
            "attestation": "none",
        }))
    }

    /// Keeps a passkey that a browser has made (§7.1). Where the user was verified with it, the session has shown a
    /// second factor.
    ///
    /// # Errors
    /// As [`Auth::passkey_creation`]; `invalid_input` at `/name`; `unauthenticated` where what came is not what was asked
    /// for; `conflict` where it is known already.
    pub async fn make_passkey(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        new: &NewPasskey,
    ) -> Result<Passkey> {
        self.0.throttles.passwords.admit(asking.client())?;
        let (known, place) = self.may_make(asking, token).await?;
        let name = new.name.as_deref().map(named).transpose()?;
        let read = || -> std::result::Result<_, Refusal> {
            let challenge =
                webauthn::challenge(&webauthn::bytes(&new.client_data)?, Ceremony::Create, &place)?;
            Ok((challenge, webauthn::made(&webauthn::bytes(&new.attestation)?, &place)?))
        };
        let (challenge, (said, made)) = read().map_err(|why| self.0.unfit(asking.env, why))?;
        let (inner, env, mfa) = (Arc::clone(&self.0), asking.env.clone(), asking.settings.mfa);
        let (app, domain) = (asking.settings.name.clone(), asking.domain.map(str::to_owned));
        whole(async move {
            let sender = inner.sender(&env, app.as_deref(), domain.as_deref().into()).await?;
            let (user, now) = (known.profile.id, Timestamp::now());
            let id = Uuid::now_v7().simple().to_string();
            let mut db = inner.begin(&env).await?;
            let kept = async {
                let ticket = tickets::find(&mut db, &env, For::Passkey, &challenge).await?;
                let ticket = ticket.filter(|it| it.user == Some(user) && it.about == place.party);
                tickets::spend(&mut db, ticket.ok_or_else(refused)?).await?;
                let (session, stored) = session_user(&mut db, &known.session).await?;
                factors::may_finish(&mut db, user, &session, mfa).await?;
                let guarded = !factors::asked(&mut db, user, mfa).await?.is_empty();
                let credential = URL_SAFE_NO_PAD.encode(&made.id);
                room(&mut db, user, &credential).await?;
                let sql = "INSERT INTO _steading_passkey \
                           (id, credential, user, name, key, counter, host, verified, backed_up, created_at) \
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
                let params: [Value; 10] = [
                    id.clone().into(),
                    credential.into(),
                    user.to_string().into(),
                    name.clone().into(),
                    URL_SAFE_NO_PAD.encode(&made.key).into(),
                    said.counter.into(),
                    place.party.clone().into(),
                    said.verified.into(),
                    said.backed_up.into(),
                    now.as_micros().into(),
                ];
                db.run(Role::Platform, sql, &params).await?;
                if said.verified {
                    let sql = "UPDATE _steading_session SET second = ?2 WHERE id = ?1";
                    db.run(Role::Platform, sql, &[session.as_str().into(), now.as_micros().into()]).await?;
                }
                if !guarded && !factors::asked(&mut db, user, mfa).await?.is_empty() {
                    // Whoever is in by one factor alone is out.
                    sessions::end(&mut db, user, Of::Others(&session)).await?;
                }
                inner.keep(&mut db, sender.news_of(&stored.account, News::Passkey)?).await
            }
            .await;
            let letter = settle(db, kept).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            inner.dispatch(&env, letter);
            let (host, backed_up) = (place.party, said.backed_up);
            Ok(Passkey { id, name, host, backed_up, created_at: now, used_at: None })
        })
        .await
    }

    /// What a browser is to show a passkey by (§5.5), whoever holds one.
    ///
    /// # Errors
    /// `forbidden` where the app does not list the method, or has no name for a host;
    /// `rate_limited`.
    pub async fn passkey_request(&self, asking: &Asking<'_>) -> Result<Value> {
        asking.by(Method::Passkey)?;
        self.0.throttles.passwords.admit(asking.client())?;
        let place = self.place(asking).await?;
        let (inner, life) = (&self.0, self.0.limits.ticket);
        let challenge = tickets::challenge(&*inner.keys, asking.env, &place.party, life)?;
        Ok(json!({
            "challenge": URL_SAFE_NO_PAD.encode(challenge.expose()),
            "rpId": place.party,
            "timeout": life.as_millis(),
            "userVerification": "preferred",
        }))
    }

    /// Signs in by a passkey (§7.2).
    ///
    /// # Errors
    /// As [`Auth::passkey_request`]; `unauthenticated` with the same words whatever is wrong.
    pub async fn show_passkey(&self, asking: &Asking<'_>, shown: &ShownPasskey) -> Result<SignIn> {
        asking.by(Method::Passkey)?;
        self.0.throttles.passwords.admit(asking.client())?;
        let place = self.place(asking).await?;
        let read = || -> std::result::Result<_, Refusal> {
            let client_data = webauthn::bytes(&shown.client_data)?;
            let challenge = webauthn::challenge(&client_data, Ceremony::Get, &place)?;
            let data = webauthn::bytes(&shown.authenticator_data)?;
            Ok((client_data, challenge, data, webauthn::bytes(&shown.signature)?))
        };
        let (client_data, challenge, data, signature) =
            read().map_err(|why| self.0.unfit(asking.env, why))?;
        let (inner, env, how) = (Arc::clone(&self.0), asking.env.clone(), asking.how(METHOD));
        let until = tickets::given(&*inner.keys, &env, &place.party, &challenge).ok_or_else(refused)?;
        let (credential, claimed) = (shown.credential.clone(), shown.user.clone());
        let entered = whole(async move {
            let mut db = inner.begin(&env).await?;
            let entered = async {
                let Some(held) = Held::find(&mut db, &credential, &place).await? else { return Ok(None) };
                // §7.2 step 6: the authenticator and we mean the same user.
                if claimed.is_some_and(|claimed| claimed.trim_end_matches('=') != handle(held.user)) {
                    return Ok(None);
                }
                let said = webauthn::shown(&held.key, held.counter, &client_data, &data, &signature, &place);
                let said = match said {
                    Ok(said) => said,
                    Err(why) => {
                        inner.unfit(&env, why);
                        return Ok(None);
                    }
                };
                // A challenge is answered once.
                if !tickets::answered(&mut db, &env, &challenge, held.user, until).await? {
                    return Ok(None);
                }
                let sql = "UPDATE _steading_passkey SET counter = ?2, backed_up = ?3, used_at = ?4, \
                     verified = max(verified, ?5) WHERE id = ?1";
                let params = [
                    held.id.into(),
                    said.counter.into(),
                    said.backed_up.into(),
                    Timestamp::now().as_micros().into(),
                    said.verified.into(),
                ];
                db.run(Role::Platform, sql, &params).await?;
                let strength = if said.verified { Strength::Two } else { Strength::One };
                let how = How { strength, ..how };
                inner.signed_in(&mut db, &env, Who::Holds(held.user), &how).await.map(Some)
            }
            .await;
            let entered = settle(db, entered).await?;
            Ok(entered.map(|entered| inner.announce(&env, entered)))
        });
        entered.await?.ok_or_else(refused)
    }

    /// The passkeys of an access token's user, oldest first.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold.
    pub async fn passkeys(&self, env: &Env, token: &Secret) -> Result<Vec<Passkey>> {
        let known = self.0.known(env, token).await?;
        self.0.passkeys_of(env, known.profile.id).await
    }

    /// Gives a passkey of an access token's user another name.
    ///
    /// # Errors
    /// `unauthenticated`; `invalid_input` at `/name`; `not_found` for one that is none of the user's.
    pub async fn rename_passkey(&self, env: &Env, token: &Secret, id: &str, name: &str) -> Result<()> {
        let known = self.0.known(env, token).await?;
        let name = named(name)?;
        let mut db = self.0.begin(env).await?;
        let sql = "UPDATE _steading_passkey SET name = ?3 WHERE id = ?1 AND user = ?2";
        let params = [id.into(), known.profile.id.to_string().into(), name.into()];
        let renamed = async {
            match db.run(Role::Platform, sql, &params).await?.changed {
                0 => Err(unknown()),
                _ => Ok(()),
            }
        }
        .await;
        settle(db, renamed).await
    }

    /// Removes a passkey, for who is there in person, and ends the other sessions that passkeys have opened: it may be who
    /// has found the device that is in one of them. The user is told by mail.
    ///
    /// # Errors
    /// `unauthenticated`; `forbidden` where more is to be shown; `not_found` for one that is none of the user's; `conflict`
    /// where it is the only way in; `rate_limited`.
    pub async fn remove_passkey(
        &self,
        asking: &Asking<'_>,
        token: &Secret,
        id: &str,
        presence: &Presence,
    ) -> Result<()> {
        let known = self.0.known(asking.env, token).await?;
        let user = known.profile.id;
        if !self.0.passkeys_of(asking.env, user).await?.iter().any(|passkey| passkey.id == id) {
            return Err(unknown());
        }
        self.0.present(asking, &known, presence).await?;
        let (inner, env, id) = (Arc::clone(&self.0), asking.env.clone(), id.to_owned());
        let (settings, domain) = (asking.settings.clone(), asking.domain.map(str::to_owned));
        whole(async move {
            let sender = inner.sender(&env, settings.name.as_deref(), domain.as_deref().into()).await?;
            let mut db = inner.begin(&env).await?;
            let removed = async {
                let (session, stored) = session_user(&mut db, &known.session).await?;
                let sql = "DELETE FROM _steading_passkey WHERE id = ?1 AND user = ?2";
                let params = [id.into(), user.to_string().into()];
                if db.run(Role::Platform, sql, &params).await?.changed == 0 {
                    return Err(unknown());
                }
                ways::still_opens(&mut db, user, &settings).await?;
                sessions::end(&mut db, user, Of::Way(METHOD, &session)).await?;
                factors::settle_sessions(&mut db, user).await?;
                inner.keep(&mut db, sender.news_of(&stored.account, News::Unlinked)?).await
            }
            .await;
            let letter = settle(db, removed).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), user));
            inner.dispatch(&env, letter);
            Ok(())
        })
        .await
    }

    async fn may_make(&self, asking: &Asking<'_>, token: &Secret) -> Result<(Arc<Known>, Place)> {
        asking.by(Method::Passkey)?;
        let known = self.0.known(asking.env, token).await?;
        if known.profile.anonymous {
            return Err(Error::new(Code::Conflict, "this user has no account yet").hint("sign up first"));
        }
        if asking.settings.mfa == Mfa::Required {
            // There it is a second factor.
            factors::may_guard(&known.profile)?;
        }
        Ok((known, self.place(asking).await?))
    }

    /// The origin of the app's pages at the address that was asked: never what a request says.
    async fn place(&self, asking: &Asking<'_>) -> Result<Place> {
        let origin = self.0.post.url(asking.env, asking.domain.into()).await?;
        Place::at(&origin).ok_or_else(|| {
            Error::new(Code::Forbidden, "passkeys are for apps that have a name for a host")
                .hint("serve apps below a domain, or at localhost")
        })
    }
}

impl Inner {
    /// A challenge that its user answers once, at one place, in the form in which browsers take it.
    async fn challenge(&self, env: &Env, user: UserId, place: &Place) -> Result<String> {
        let mut db = self.begin(env).await?;
        let (purpose, life) = (For::Passkey, self.limits.ticket);
        let issued = tickets::issue(&mut db, env, purpose, user, &place.party, life).await;
        Ok(URL_SAFE_NO_PAD.encode(settle(db, issued).await?.expose()))
    }

    /// The answer to what is not what was asked for. Why is for the app's makers to read.
    fn unfit(&self, env: &Env, why: Refusal) -> Error {
        // A passkey that was copied stands apart from what anybody causes.
        let level = if why == Refusal::Counter { Level::Error } else { Level::Info };
        self.post.note(env, level, &format!("a passkey was refused: {why}"), &[]);
        refused()
    }

    /// The passkeys of a user.
    pub(super) async fn passkeys_of(&self, env: &Env, user: UserId) -> Result<Vec<Passkey>> {
        let sql = "SELECT id, name, host, backed_up, created_at, used_at FROM _steading_passkey \
                   WHERE user = ?1 ORDER BY created_at, id";
        let rows = self.databases.platform_query(env, sql, &[user.to_string().into()]).await?;
        let read = |row: &Vec<Value>| {
            let text = |at: usize| row.get(at)?.as_str().map(str::to_owned);
            let time = |at: usize| row.get(at)?.as_i64().map(Timestamp::from_micros);
            let (host, backed_up) = (text(2)?, row.get(3)?.as_i64() == Some(1));
            Some(Passkey {
                id: text(0)?,
                name: text(1),
                host,
                backed_up,
                created_at: time(4)?,
                used_at: time(5),
            })
        };
        let read = |row| read(row).ok_or_else(|| Error::internal("a row of a passkey cannot be read"));
        rows.iter().map(read).collect()
    }
}

/// A passkey that is kept.
struct Held {
    id: String,
    user: UserId,
    key: Vec<u8>,
    counter: u32,
}

impl Held {
    async fn find(db: &mut Writer, credential: &str, place: &Place) -> Result<Option<Self>> {
        let sql = "SELECT id, user, key, counter FROM _steading_passkey WHERE credential = ?1 AND host = ?2";
        let params = [credential.trim_end_matches('=').into(), place.party.clone().into()];
        let found = db.run(Role::Platform, sql, &params).await?.rows;
        let Some(row) = found.first() else { return Ok(None) };
        let read = || {
            let text = |at: usize| row.get(at)?.as_str();
            let (id, user) = (text(0)?.to_owned(), text(1)?.parse().ok()?);
            let counter = u32::try_from(row.get(3)?.as_u64()?).ok()?;
            Some(Self { id, user, key: URL_SAFE_NO_PAD.decode(text(2)?).ok()?, counter })
        };
        read().map(Some).ok_or_else(|| Error::internal("a row of a passkey cannot be read"))
    }
}

/// That there is room for a passkey that is nobody's yet (§7.1 step 26).
async fn room(db: &mut Writer, user: UserId, credential: &str) -> Result<()> {
    let sql = "SELECT (SELECT count(*) FROM _steading_passkey WHERE user = ?1), \
               (SELECT count(*) FROM _steading_passkey WHERE credential = ?2)";
    let found = db.run(Role::Platform, sql, &[user.to_string().into(), credential.into()]).await?.rows;
    let count = |at: usize| found.first().and_then(|row| row.get(at)?.as_u64()).unwrap_or(u64::MAX);
    if count(1) > 0 {
        return Err(Error::new(Code::Conflict, "this passkey is known already"));
    }
    if count(0) >= MOST {
        return Err(Error::new(Code::Conflict, format!("a user has at most {MOST} passkeys"))
            .hint("remove one: DELETE /_/auth/passkeys/{id}"));
    }
    Ok(())
}

/// What an authenticator knows a user by: nothing about who it is (§14.6.1).
fn handle(user: UserId) -> String {
    URL_SAFE_NO_PAD.encode(user.to_string())
}

fn unknown() -> Error {
    Error::not_found("such passkey of yours")
}
