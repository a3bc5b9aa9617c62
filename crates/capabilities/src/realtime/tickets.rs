//! Tickets: what a page shows in an address instead of its token, once and soon.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, EnvId, Error, Result, Secret};
use sha2::{Digest as _, Sha256};

/// What tickets begin with, so that secret scanners find them.
const PREFIX: &str = "stead_tk_";

/// The tickets that were given out and not used.
pub(super) struct Tickets {
    life: Duration,
    most: usize,
    known: Mutex<HashMap<[u8; 32], Ticket>>,
}

struct Ticket {
    env: EnvId,
    origin: Option<String>,
    token: Option<Secret>,
    until: Instant,
}

impl Tickets {
    pub fn new(life: Duration, most: usize) -> Self {
        Self { life, most, known: Mutex::default() }
    }

    /// A ticket for who has this token, or none, and for pages of this origin.
    ///
    /// # Errors
    /// `unavailable` where too many are not used yet.
    pub fn issue(&self, env: EnvId, origin: Option<&str>, token: Option<&Secret>) -> Result<Secret> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let (now, mut known) = (Instant::now(), self.known());
        if known.len() >= self.most {
            known.retain(|_, ticket| ticket.until > now);
        }
        if known.len() >= self.most {
            return Err(Error::new(Code::Unavailable, "too many tickets wait to be used")
                .hint("try again in a moment")
                .retry_after(self.life));
        }
        let token = token.map(|token| Secret::new(token.expose().to_owned()));
        let ticket = Ticket { env, origin: origin.map(str::to_owned), token, until: now + self.life };
        known.insert(Sha256::digest(text.as_bytes()).into(), ticket);
        Ok(Secret::new(text))
    }

    /// The token that a ticket stands for; the ticket is spent, whatever comes of it.
    ///
    /// # Errors
    /// `unauthenticated` where it is none, was used, is too old, or another environment's or origin's.
    pub fn redeem(&self, env: EnvId, origin: Option<&str>, ticket: &str) -> Result<Option<Secret>> {
        let found = self.known().remove(&<[u8; 32]>::from(Sha256::digest(ticket.as_bytes())));
        // A browser that asks its own origin does not always say so.
        let fits = |ticket: &Ticket| {
            ticket.env == env
                && ticket.until > Instant::now()
                && (origin.is_none() || ticket.origin.as_deref() == origin)
        };
        found.filter(fits).map(|ticket| ticket.token).ok_or_else(|| {
            Error::new(Code::Unauthenticated, "the ticket is not valid (any more)")
                .hint("get another one with POST /_/realtime/ticket; each is used once, at once")
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Ticket>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once_for_its_environment_and_origin_and_not_for_long() {
        let (env, other) = (EnvId::new(), EnvId::new());
        let tickets = Tickets::new(Duration::from_secs(30), 10);
        let token = Secret::new("t");
        let issue = || tickets.issue(env, Some("https://a.example"), Some(&token)).unwrap();
        let redeem = |env, origin, ticket: &Secret| {
            tickets
                .redeem(env, origin, ticket.expose())
                .map(|token| token.map(|token| token.expose().to_owned()))
        };
        let ticket = issue();
        assert_eq!(redeem(env, Some("https://a.example"), &ticket).unwrap(), Some("t".to_owned()));
        assert!(redeem(env, Some("https://a.example"), &ticket).is_err());
        assert!(redeem(other, Some("https://a.example"), &issue()).is_err());
        assert!(redeem(env, Some("https://b.example"), &issue()).is_err());
        assert!(redeem(env, None, &issue()).is_ok());
        let none = tickets.issue(env, None, None).unwrap();
        assert!(redeem(env, Some("https://b.example"), &none).is_err());
        let old = Tickets::new(Duration::ZERO, 10);
        let ticket = old.issue(env, None, None).unwrap();
        assert!(old.redeem(env, None, ticket.expose()).is_err());
    }

    #[test]
    fn tickets_that_nobody_uses_do_not_pile_up() {
        let tickets = Tickets::new(Duration::from_secs(30), 2);
        let issue = || tickets.issue(EnvId::new(), None, None).map(drop).map_err(|error| error.code());
        assert_eq!([issue(), issue(), issue()], [Ok(()), Ok(()), Err(Code::Unavailable)]);
        let short = Tickets::new(Duration::ZERO, 2);
        let issue = || short.issue(EnvId::new(), None, None).is_ok();
        assert_eq!([issue(), issue(), issue()], [true, true, true]);
    }
}
