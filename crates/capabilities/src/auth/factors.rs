//! What an account asks for beside the first factor. No session is opened without a [`Cleared`], and only this module
//! makes one.

use kernel::{Code, Env, Error, Result, Secret, Timestamp, UserId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::recognized::Known;
use super::sign_in::How;
use super::{Asking, Inner, Profile, recovery, tickets, totp};
use crate::database::{Databases, Role, Writer};
use crate::rows::Mfa;

/// What somebody can show beside the first factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactorKind {
    /// A code of an authenticator app.
    Totp,
    /// One of the codes that were given out with it.
    RecoveryCode,
    /// A passkey, by which its holder signs in anew.
    Passkey,
}

/// A second factor, as somebody shows it.
#[derive(Debug, Clone)]
pub enum Second {
    /// A code of an authenticator app.
    Code(Secret),
    /// A recovery code.
    Recovery(Secret),
}

/// By what somebody shows to be there in person.
#[derive(Debug, Clone)]
pub enum Presence {
    /// By having signed in a moment ago.
    Fresh,
    /// By the password; where there is a second factor it is not enough.
    Password(Secret),
    /// By the second factor.
    Second(Second),
}

/// How much somebody has shown by signing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    /// One factor.
    One,
    /// Two of them, by a passkey and what verifies its user.
    Two,
}

/// That somebody has shown all that the account asks for.
pub(super) struct Cleared {
    user: UserId,
    second: Option<Timestamp>,
}

impl Cleared {
    /// Whose account.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// When the second factor was shown, where it was.
    pub fn second(&self) -> Option<Timestamp> {
        self.second
    }
}

/// What comes after a first factor that was right.
pub(super) enum Clearing {
    /// Nothing more is asked for.
    Cleared(Cleared),
    /// One of these.
    Asked(Vec<FactorKind>),
}

/// Decides whether the first factor by `how` is enough for `user`.
pub(super) async fn clear(db: &mut Writer, user: UserId, how: &How) -> Result<Clearing> {
    let asked = asked(db, user, how.mfa).await?;
    Ok(match how.strength {
        Strength::Two => Clearing::Cleared(Cleared { user, second: Some(Timestamp::now()) }),
        Strength::One if asked.is_empty() => Clearing::Cleared(Cleared { user, second: None }),
        Strength::One => Clearing::Asked(asked),
    })
}

/// What is asked of a user beside the first factor, where the app says `mfa`; nothing where one factor is enough.
pub(super) async fn asked(db: &mut Writer, user: UserId, mfa: Mfa) -> Result<Vec<FactorKind>> {
    Ok(Guard::read(&db.run(Role::Platform, GUARD, &[user.to_string().into()]).await?.rows).asks(mfa))
}

/// That what a session has begun may be finished in it: where the account asks for a second factor by now, the session has
/// shown it.
///
/// # Errors
/// `forbidden`.
pub(super) async fn may_finish(db: &mut Writer, user: UserId, session: &str, mfa: Mfa) -> Result<()> {
    let sql = "SELECT 1 FROM _steading_session WHERE id = ?1 AND second IS NOT NULL";
    if asked(db, user, mfa).await?.is_empty()
        || !db.run(Role::Platform, sql, &[session.into()]).await?.rows.is_empty()
    {
        return Ok(());
    }
    Err(needs_second())
}

/// That the address of somebody who wants a second factor is theirs, where they have one. Else who reads its mail would be
/// taken for its owner, and could not be let in without leading them around the second factor.
///
/// # Errors
/// `conflict`.
pub(super) fn may_guard(profile: &Profile) -> Result<()> {
    if profile.email.is_none() || profile.email_verified {
        return Ok(());
    }
    Err(Error::new(Code::Conflict, "a second factor needs an address that is confirmed").hint(
        "POST /_/auth/email with the address of the account mails a code, and /_/auth/email/verify takes it",
    ))
}

fn needs_second() -> Error {
    Error::new(Code::Forbidden, "this needs the second factor, or to have shown it a moment ago")
        .hint("send it as `code` or `recovery_code`, or sign in again")
}

/// Whether the user `u` has an authenticator, and a passkey.
pub(super) const ACTIVE: &str = "EXISTS (SELECT 1 FROM _steading_totp t WHERE t.user = u.id AND t.active = 1), \
                                 EXISTS (SELECT 1 FROM _steading_passkey p WHERE p.user = u.id)";

const GUARD: &str = "SELECT (SELECT count(*) FROM _steading_totp WHERE user = ?1 AND active = 1), \
                     (SELECT count(*) FROM _steading_recovery WHERE user = ?1), \
                     (SELECT count(*) FROM _steading_passkey WHERE user = ?1 AND verified = 1)";

/// What a user has beside the first factor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Guard {
    /// Whether there is an authenticator.
    pub totp: bool,
    /// How many recovery codes are left.
    pub recovery: u64,
    /// How many passkeys there are that verify their user.
    pub passkeys: u64,
}

impl Guard {
    /// As last committed.
    pub async fn find(databases: &Databases, env: &Env, user: UserId) -> Result<Self> {
        Ok(Self::read(&databases.platform_query(env, GUARD, &[user.to_string().into()]).await?))
    }

    fn read(rows: &[Vec<Value>]) -> Self {
        // What cannot be read is not there, and that there is something can be read of every count.
        let count = |at: usize| rows.first().and_then(|row| row.get(at)?.as_u64()).unwrap_or_default();
        Self { totp: count(0) > 0, recovery: count(1), passkeys: count(2) }
    }

    /// What is asked for where the app says `mfa`; nothing where one factor is enough. Also where an app has turned
    /// second factors off, who has one is asked for it: its owner relies on it. A passkey is a way in beside others,
    /// and asked for where there must be a second factor: else who knows the password could set up another one.
    pub fn asks(self, mfa: Mfa) -> Vec<FactorKind> {
        let mut asked = Vec::new();
        if self.totp {
            asked.push(FactorKind::Totp);
            if self.recovery > 0 {
                asked.push(FactorKind::RecoveryCode);
            }
        }
        if self.passkeys > 0 && (self.totp || mfa == Mfa::Required) {
            asked.push(FactorKind::Passkey);
        }
        asked
    }
}

/// A second factor in its form.
pub(super) enum Typed {
    Code(Secret),
    Recovery(Secret),
}

impl Second {
    /// # Errors
    /// `invalid_input` at `/code` or `/recovery_code`.
    pub(super) fn typed(&self) -> Result<Typed> {
        Ok(match self {
            Second::Code(code) => Typed::Code(digits(code)?),
            Second::Recovery(code) => Typed::Recovery(recovery::typed(code)?),
        })
    }
}

/// A code as the authenticator shows it; people may type blanks between the digits.
pub(super) fn digits(code: &Secret) -> Result<Secret> {
    let digits: String =
        code.expose().chars().filter(|c| !c.is_whitespace() && *c != '-').take(totp::DIGITS + 1).collect();
    if digits.len() == totp::DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(Secret::new(digits));
    }
    Err(Error::invalid("/code", format!("a code has {} digits", totp::DIGITS)))
}

/// The one answer to a second factor that is wrong, or was used before.
pub(super) fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "the code is wrong, or was used before")
        .hint("wait for the authenticator's next code, or use a recovery code")
}

/// Where the secret of a user's authenticator is sealed for.
pub(super) fn place(user: UserId) -> String {
    format!("authenticator of {user}")
}

impl Inner {
    /// Tries a second factor and uses it up; none where it is not the user's. Wrong codes count for the user, wherever
    /// they are tried.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) async fn shown(
        &self,
        db: &mut Writer,
        env: &Env,
        user: UserId,
        second: &Typed,
    ) -> Result<Option<Cleared>> {
        let now = Timestamp::now();
        let right = match second {
            Typed::Recovery(code) => recovery::spend(db, user, code).await?,
            Typed::Code(code) => {
                let guess = (env.id(), user);
                self.throttles.seconds.admit(guess)?;
                let right = self.uses(db, env, user, code, now).await?;
                if right {
                    self.throttles.seconds.give_back(&guess);
                }
                right
            }
        };
        Ok(right.then_some(Cleared { user, second: Some(now) }))
    }

    async fn uses(
        &self,
        db: &mut Writer,
        env: &Env,
        user: UserId,
        code: &Secret,
        now: Timestamp,
    ) -> Result<bool> {
        let sql = "SELECT secret, step FROM _steading_totp WHERE user = ?1 AND active = 1";
        let found = db.run(Role::Platform, sql, &[user.to_string().into()]).await?.rows;
        let row = found.first().map(Vec::as_slice);
        let Some([Value::String(sealed), last]) = row else { return Ok(false) };
        let Ok(secret) = self.keys.open(&place(user), sealed) else {
            // It came with an archive of another installation.
            tracing::warn!(env.id = %env.id(), "an authenticator's secret does not open: reset the user's factors");
            return Ok(false);
        };
        let last = last.as_i64().unwrap_or(i64::MAX);
        let Some(step) = totp::accepts(&secret, code.expose(), now, last) else { return Ok(false) };
        let sql = "UPDATE _steading_totp SET step = ?2, used_at = ?3 WHERE user = ?1";
        let params = [user.to_string().into(), step.into(), now.as_micros().into()];
        db.run(Role::Platform, sql, &params).await?;
        Ok(true)
    }

    /// That the user of a session is there in person.
    ///
    /// # Errors
    /// `forbidden` where more is to be shown; `unauthenticated` where a second factor is wrong; `invalid_input`;
    /// `rate_limited`.
    pub(super) async fn present(
        &self,
        asking: &Asking<'_>,
        known: &Known,
        presence: &Presence,
    ) -> Result<()> {
        let env = asking.env;
        let guard = Guard::find(&self.databases, env, known.profile.id).await?;
        let guarded = !guard.asks(asking.settings.mfa).is_empty();
        match presence {
            Presence::Second(second) => {
                self.throttles.passwords.admit(asking.client())?;
                let typed = second.typed()?;
                let mut db = self.begin(env).await?;
                let shown = self.shown(&mut db, env, known.profile.id, &typed).await;
                super::settle(db, shown).await?.map(drop).ok_or_else(wrong)
            }
            Presence::Password(current) if !guarded => self.knows(asking, known, current).await,
            Presence::Fresh if self.is_fresh_by(env, &known.session, guarded).await? => Ok(()),
            Presence::Password(_) | Presence::Fresh if guarded => Err(needs_second()),
            Presence::Password(_) | Presence::Fresh => Err(super::proofs::not_in_person()),
        }
    }

    async fn is_fresh_by(&self, env: &Env, session: &str, guarded: bool) -> Result<bool> {
        if !guarded {
            return self.is_fresh(env, session).await;
        }
        let since = Timestamp::now().minus(self.limits.fresh).as_micros();
        let sql = "SELECT 1 FROM _steading_session WHERE id = ?1 AND second > ?2";
        Ok(!self.databases.platform_query(env, sql, &[session.into(), since.into()]).await?.is_empty())
    }
}

/// Takes a user's second factors away, with what is open because of them.
pub(super) async fn reset(db: &mut Writer, user: UserId) -> Result<()> {
    remove_totp(db, user).await?;
    db.run(Role::Platform, "DELETE FROM _steading_passkey WHERE user = ?1", &[user.to_string().into()])
        .await?;
    settle_sessions(db, user).await
}

/// Takes a user's authenticator away, with its recovery codes.
pub(super) async fn remove_totp(db: &mut Writer, user: UserId) -> Result<()> {
    recovery::forget(db, user).await?;
    tickets::forget(db, user).await?;
    db.run(Role::Platform, "DELETE FROM _steading_totp WHERE user = ?1", &[user.to_string().into()]).await?;
    Ok(())
}

/// Where there is no second factor any more, no session has shown one.
pub(super) async fn settle_sessions(db: &mut Writer, user: UserId) -> Result<()> {
    let guard = Guard::read(&db.run(Role::Platform, GUARD, &[user.to_string().into()]).await?.rows);
    if !guard.totp && guard.passkeys == 0 {
        let sql = "UPDATE _steading_session SET second = NULL WHERE user = ?1";
        db.run(Role::Platform, sql, &[user.to_string().into()]).await?;
    }
    Ok(())
}
