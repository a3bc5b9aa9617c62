//! Tickets: what a page shows in an address instead of its token, once and soon.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, EnvId, Error, Result, Secret};
use sha2::{Digest as _, Sha256};

/// What tickets begin with, so that secret scanners find them.
const PREFIX: &str = "stead_tk_";

/// Whether a text looks like a ticket.
#[must_use]
pub fn is_ticket(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// So few environments are never worth a walk.
const FEW: usize = 1_024;

/// The tickets that were given out and not used.
pub(super) struct Tickets {
    life: Duration,
    /// Of an environment, and of one network there.
    most: (usize, usize),
    known: Mutex<HashMap<EnvId, HashMap<[u8; 32], Ticket>>>,
}

struct Ticket {
    client: Option<IpAddr>,
    origin: Option<String>,
    token: Option<Secret>,
    until: Instant,
}

impl Tickets {
    pub fn new(life: Duration, most: (usize, usize)) -> Self {
        Self { life, most, known: Mutex::default() }
    }

    /// A ticket for who has this token, or none, and for pages of this origin. A network that has too many loses its
    /// oldest.
    ///
    /// # Errors
    /// `unavailable` where too many of the environment are not used yet.
    pub fn issue(
        &self,
        env: EnvId,
        client: Option<IpAddr>,
        origin: Option<&str>,
        token: Option<&Secret>,
    ) -> Result<Secret> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let (now, mut known) = (Instant::now(), self.known());
        let (most, most_of_client) = self.most;
        let own = known.entry(env).or_default();
        own.retain(|_, ticket| ticket.until > now);
        let of_client = own.iter().filter(|(_, ticket)| ticket.client == client);
        if of_client.clone().count() >= most_of_client {
            let oldest = of_client.min_by_key(|(_, ticket)| ticket.until).map(|(hash, _)| *hash);
            oldest.and_then(|oldest| own.remove(&oldest));
        }
        if own.len() >= most {
            return Err(Error::new(Code::Unavailable, "too many tickets wait to be used")
                .hint("try again in a moment")
                .retry_after(self.life));
        }
        let token = token.map(|token| Secret::new(token.expose().to_owned()));
        let ticket = Ticket { client, origin: origin.map(str::to_owned), token, until: now + self.life };
        own.insert(Sha256::digest(text.as_bytes()).into(), ticket);
        if known.len() > FEW {
            known.retain(|_, own| own.values().any(|ticket| ticket.until > now));
        }
        Ok(Secret::new(text))
    }

    /// The token that a ticket stands for; the ticket is spent, whatever comes of it.
    ///
    /// # Errors
    /// `unauthenticated` where it is none, was used, is too old, or another environment's or origin's.
    pub fn redeem(&self, env: EnvId, origin: Option<&str>, ticket: &str) -> Result<Option<Secret>> {
        let hash: [u8; 32] = Sha256::digest(ticket.as_bytes()).into();
        let mut known = self.known();
        let found = known.get_mut(&env).and_then(|own| own.remove(&hash));
        if found.is_none() {
            // Who shows it elsewhere may have got hold of it.
            known.values_mut().find_map(|own| own.remove(&hash));
        }
        drop(known);
        // A browser that asks its own origin does not always say so.
        let fits = |ticket: &Ticket| {
            ticket.until > Instant::now() && (origin.is_none() || ticket.origin.as_deref() == origin)
        };
        found.filter(fits).map(|ticket| ticket.token).ok_or_else(|| {
            Error::new(Code::Unauthenticated, "the ticket is not valid (any more)")
                .hint("get another one with POST /_/realtime/ticket; each is used once, at once")
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<EnvId, HashMap<[u8; 32], Ticket>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once_for_its_environment_and_origin_and_not_for_long() {
        let (env, other) = (EnvId::new(), EnvId::new());
        let tickets = Tickets::new(Duration::from_secs(30), (10, 10));
        let token = Secret::new("t");
        let issue = || tickets.issue(env, None, Some("https://a.example"), Some(&token)).unwrap();
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
        let none = tickets.issue(env, None, None, None).unwrap();
        assert!(redeem(env, Some("https://b.example"), &none).is_err());
        let old = Tickets::new(Duration::ZERO, (10, 10));
        let ticket = old.issue(env, None, None, None).unwrap();
        assert!(old.redeem(env, None, ticket.expose()).is_err());
    }

    #[test]
    fn tickets_that_nobody_uses_do_not_pile_up_nor_keep_others_out() {
        let [env, other] = [EnvId::new(), EnvId::new()];
        let [one, two, three] = [1, 2, 3].map(|n| Some(IpAddr::from([192, 0, 2, n])));
        let tickets = Tickets::new(Duration::from_secs(30), (4, 2));
        let issue = |env, client| tickets.issue(env, client, None, None).map_err(|error| error.code());
        let first = issue(env, one).unwrap();
        let held: Vec<Secret> = (0..2).map(|_| issue(env, one).unwrap()).collect();
        assert!(tickets.redeem(env, None, first.expose()).is_err(), "its own oldest has gone");
        assert!(issue(env, two).is_ok() && issue(env, two).is_ok());
        assert_eq!(issue(env, three).err(), Some(Code::Unavailable));
        assert!(issue(other, three).is_ok(), "another app's are its own");
        for ticket in held {
            assert!(tickets.redeem(env, None, ticket.expose()).is_ok());
        }
        let short = Tickets::new(Duration::ZERO, (2, 2));
        let issue = || short.issue(env, None, None, None).is_ok();
        assert_eq!([issue(), issue(), issue()], [true, true, true]);
    }
}
