//! Who is behind something that lasts longer than a request, and when that is over.

use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Env, Error, Result, Scope, Secret, Timestamp};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::recognized::{Hold, Known};
use super::{Auth, Inner, SERVICE, refused, token};
use crate::access::Guest;
use crate::rows::{LiveApps, Mfa};

/// A token that is held on to. What hangs on it ends with [`Held::ended`] and at [`Held::expires`].
pub struct Held {
    guest: Guest,
    session: Option<Arc<Hold>>,
}

impl Held {
    /// Who it is.
    #[must_use]
    pub const fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Cancelled when the session has ended or its user has changed; never for who has none.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.session.as_ref().map_or_else(CancellationToken::new, |hold| hold.overtaken.clone())
    }

    /// When the token ends; never for who has none.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        let hold = self.session.as_ref()?;
        Some(Timestamp::from_micros(hold.known.expires.saturating_mul(1_000_000)))
    }
}

impl Auth {
    /// As [`Auth::recognize`], for as long as the token holds. A platform key is to be recognized again from time to
    /// time.
    ///
    /// # Errors
    /// As [`Auth::recognize`].
    pub async fn hold(&self, env: &Env, live: &dyn LiveApps, token: Option<&Secret>) -> Result<Held> {
        self.hold_for(env, live, token, &[Scope::DbRead, Scope::DbWrite]).await
    }

    /// As [`Auth::hold`], where a key must carry the scopes `wanted`.
    ///
    /// # Errors
    /// The same.
    pub async fn hold_for(
        &self,
        env: &Env,
        live: &dyn LiveApps,
        token: Option<&Secret>,
        wanted: &[Scope],
    ) -> Result<Held> {
        let Some(token) = token else {
            return Ok(Held { guest: Guest::visitor(env.clone()), session: None });
        };
        if token.expose().starts_with(SERVICE) {
            return Ok(Held {
                guest: self.recognize_for(env, Mfa::Off, token, wanted).await?,
                session: None,
            });
        }
        let hold = self.0.recognized.hold(self.0.known(env, token).await?);
        // What has ended before it was held is seen now, what ends later is told.
        let known = self.0.known(env, token).await?;
        // A release that comes after this lets go of whom it does not admit.
        known.admitted(live.app(env).await?.auth.mfa)?;
        Ok(Held { guest: known.guest.clone(), session: Some(hold) })
    }

    /// As [`Auth::recognize_for`], for what has begun while `token` held and still goes on: its session has to hold, however
    /// old the token is.
    ///
    /// # Errors
    /// The same.
    pub async fn recognize_lasting(
        &self,
        env: &Env,
        mfa: Mfa,
        token: &Secret,
        wanted: &[Scope],
    ) -> Result<Guest> {
        if token.expose().starts_with(SERVICE) {
            return self.recognize_for(env, mfa, token, wanted).await;
        }
        let known = self.0.lasting(env, token).await?;
        known.admitted(mfa)?;
        Ok(known.guest.clone())
    }

    /// Comes when what was begun with `token` is to end: its session has ended or expired, its user may not sign in any more or is
    /// not who they were told to be, or the live app asks for more than the session has shown; of a key, within a few seconds.
    /// That nobody can tell just now ends nothing.
    pub async fn ended(&self, env: &Env, live: &dyn LiveApps, token: &Secret, wanted: &[Scope]) {
        let (mut hold, mut told): (Option<Arc<Hold>>, Option<Guest>) = (None, None);
        loop {
            let looked = self.looked(env, live, token, wanted).await;
            if let Ok(Some(known)) = &looked
                && told.get_or_insert_with(|| known.guest.clone()) != &known.guest
            {
                return;
            }
            match (looked, &hold) {
                (Err(error), _) if is_refusal(&error) => return,
                // What has ended before it was held is seen when it is looked at again, what ends later is told.
                (Ok(Some(known)), None) => hold = Some(self.0.recognized.hold(known)),
                (Ok(Some(_)), Some(held)) => {
                    if timeout(self.0.limits.lasting, held.overtaken.cancelled()).await.is_ok() {
                        hold = None;
                    }
                }
                (Ok(None) | Err(_), _) => sleep(LOOKED).await,
            }
        }
    }

    /// Whose the session is, where it is one.
    async fn looked(
        &self,
        env: &Env,
        live: &dyn LiveApps,
        token: &Secret,
        wanted: &[Scope],
    ) -> Result<Option<Arc<Known>>> {
        let mfa = live.app(env).await?.auth.mfa;
        if token.expose().starts_with(SERVICE) {
            self.recognize_for(env, mfa, token, wanted).await?;
            return Ok(None);
        }
        let known = self.0.lasting(env, token).await?;
        known.admitted(mfa)?;
        Ok(Some(known))
    }
}

/// How often it is looked whether a key still holds, and what could not be told the last time.
const LOOKED: Duration = Duration::from_secs(10);

fn is_refusal(error: &Error) -> bool {
    matches!(error.code(), Code::Unauthenticated | Code::Forbidden)
}

impl Inner {
    /// Whose the session is that a token was signed for, however long ago.
    async fn lasting(&self, env: &Env, token: &Secret) -> Result<Arc<Known>> {
        match self.known(env, token).await {
            Err(error) if is_refusal(&error) && token.expose().len() <= token::LONGEST => {}
            known => return known,
        }
        let claims = self.keys.verify(env, token).await?.filter(|claims| claims.are_of(env));
        Ok(Arc::new(self.behind(env, claims.ok_or_else(refused)?, Timestamp::now()).await?))
    }
}
