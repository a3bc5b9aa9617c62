//! Who is behind something that lasts longer than a request, and when that is over.

use std::sync::Arc;

use kernel::{Env, Result, Scope, Secret, Timestamp};
use tokio_util::sync::CancellationToken;

use super::recognized::Hold;
use super::{Auth, SERVICE};
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
}
