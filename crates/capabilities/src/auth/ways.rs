//! The ways in to an account: what counts as one, and how one is taken away.

use std::sync::Arc;

use kernel::{Code, Env, Error, Result, Secret, Timestamp, UserId};
use serde::Serialize;
use serde_json::Value;

use super::account::{Key, Stored, settle};
use super::address::Address;
use super::factors::{FactorKind, Presence};
use super::letters::News;
use super::proofs::session_user;
use super::sessions::{self, Of};
use super::{Asking, Auth, codes, whole};
use crate::database::{Role, Writer};
use crate::rows::{AuthSettings, Method};

/// A way in beside the address and passkeys, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityInfo {
    /// The provider's name in the manifest; `custom` for the app's own server, `phone` for a number.
    pub provider: String,
    /// Since when.
    pub created_at: Timestamp,
}

/// What a session by an identity is called in the list of sessions.
pub(super) fn method(provider: &str) -> String {
    match provider {
        "custom" | "phone" => provider.to_owned(),
        provider => format!("oauth:{provider}"),
    }
}

/// Whether anything opens an account, in an app that signs people in so.
fn opens(user: &Stored, settings: &AuthSettings) -> bool {
    let on = |method| settings.methods.contains(&method);
    let account = &user.account;
    let by_mail = account.email_verified && (on(Method::Otp) || on(Method::Password));
    let by_password = account.email.is_some() && user.password.is_some() && on(Method::Password);
    let by_passkey = account.mfa.contains(&FactorKind::Passkey) && on(Method::Passkey);
    let by_phone = account.phone.is_some() && on(Method::Phone);
    let by_other = |other: &String| match other.as_str() {
        "custom" => on(Method::Custom),
        other => on(Method::OAuth) && settings.providers.contains_key(other),
    };
    by_mail || by_password || by_passkey || by_phone || account.providers.iter().any(by_other)
}

/// That something still opens the account of a user from whom a way in was taken.
///
/// # Errors
/// `conflict`; the transaction is to be rolled back.
pub(super) async fn still_opens(db: &mut Writer, user: UserId, settings: &AuthSettings) -> Result<()> {
    let found = Key::Id(user).find_in(db).await?.ok_or_else(super::refused)?;
    if opens(&found, settings) {
        return Ok(());
    }
    Err(Error::new(Code::Conflict, "this is the only way in to the account")
        .hint("add another first, or set an address and a password"))
}

/// Takes a phone number away from a user, with the codes that were sent to it; whether there was one.
pub(super) async fn remove_phone(db: &mut Writer, user: UserId) -> Result<bool> {
    let sql = "DELETE FROM _steading_identity WHERE user = ?1 AND provider = 'phone' RETURNING subject";
    let gone = db.run(Role::Platform, sql, &[user.to_string().into()]).await?.rows;
    for number in gone.iter().filter_map(|row| row.first()?.as_str()) {
        codes::forget(db, &Address::stored(number)?).await?;
    }
    Ok(!gone.is_empty())
}

/// Gives a user another phone number, or none; how many sessions by the one before have ended.
///
/// # Errors
/// `conflict` at `/phone` where it is another user's.
pub(super) async fn set_phone(db: &mut Writer, user: UserId, number: Option<&Address>) -> Result<u64> {
    if let Some(number) = number {
        match Key::Phone(number).find_in(db).await? {
            Some(found) if found.account.id == user => return Ok(0),
            Some(_) => return Err(Error::new(Code::Conflict, "another user has this number").field("/phone")),
            None => {}
        }
    }
    remove_phone(db, user).await?;
    if let Some(number) = number {
        // What a stranger has asked for with it opens nothing that the app's makers have made.
        codes::forget(db, number).await?;
        add_phone(db, user, number).await?;
    }
    sessions::end(db, user, Of::Way("phone", "")).await
}

/// Notes that a phone number is a user's.
pub(super) async fn add_phone(db: &mut Writer, user: UserId, number: &Address) -> Result<()> {
    let sql =
        "INSERT INTO _steading_identity (provider, subject, user, created_at) VALUES ('phone', ?1, ?2, ?3)";
    let params = [number.as_str().into(), user.to_string().into(), Timestamp::now().as_micros().into()];
    db.run(Role::Platform, sql, &params).await?;
    Ok(())
}

impl Auth {
    /// The identities of an access token's user, providers' and a number, in the order of their names.
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

    /// Takes an identity away from an access token's user, and ends the other sessions that it has opened. The user is
    /// told by mail.
    ///
    /// # Errors
    /// `unauthenticated` where the token does not hold; `forbidden` where its session is not of a moment ago; `not_found`
    /// where there is no such way in; `conflict` where it is the only one.
    pub async fn unlink(&self, asking: &Asking<'_>, token: &Secret, provider: &str) -> Result<()> {
        let known = self.0.known(asking.env, token).await?;
        known.admitted(asking.settings.mfa)?;
        self.0.present(asking, &known, &Presence::Fresh).await?;
        let (inner, env, settings) = (Arc::clone(&self.0), asking.env.clone(), asking.settings.clone());
        let (provider, domain) = (provider.to_owned(), asking.domain.map(str::to_owned));
        whole(async move {
            let sender = inner.sender(&env, settings.name.as_deref(), domain.as_deref().into()).await?;
            let mut db = inner.begin(&env).await?;
            let gone = async {
                let (session, stored) = session_user(&mut db, &known.session).await?;
                let user = stored.account.id;
                let there = match provider.as_str() {
                    // What confirms an address is no way in by itself.
                    "email" => false,
                    "phone" => remove_phone(&mut db, user).await?,
                    provider => {
                        let sql = "DELETE FROM _steading_identity WHERE user = ?1 AND provider = ?2";
                        let params = [user.to_string().into(), provider.into()];
                        db.run(Role::Platform, sql, &params).await?.changed > 0
                    }
                };
                if !there {
                    return Err(Error::not_found("such identity of yours"));
                }
                still_opens(&mut db, user, &settings).await?;
                sessions::end(&mut db, user, Of::Way(&method(&provider), &session)).await?;
                inner.keep(&mut db, sender.news_of(&stored.account, News::Unlinked)?).await
            }
            .await;
            let letter = settle(db, gone).await?;
            inner.recognized.forget(|other| other.is_of_user(env.id(), known.profile.id));
            inner.dispatch(&env, letter);
            Ok(())
        })
        .await
    }
}
