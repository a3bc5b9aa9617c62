//! Who may try the passwords and codes of an account, and how often: strangers who guess run out, and its owner gets in.

use std::net::IpAddr;

use kernel::{EnvId, Result};
use quick_cache::sync::Cache;

use super::address::Address;
use super::limits::{AuthLimits, Rate};
use super::throttle::Throttle;

/// An account, or what would be one.
type Named = (EnvId, Address);
/// The same, as tried from one network.
type Tried = (Named, Option<IpAddr>);

/// Counts wrong ones for each address: those from one network, and those from all that a right one never came from. So nobody can lock somebody else out by guessing, wherever the guesses come from.
pub(super) struct Guesses {
    of_network: Throttle<Tried>,
    of_strangers: Throttle<Named>,
    familiar: Cache<Tried, ()>,
}

/// One try that was admitted, and counts as wrong until it is given back.
pub(super) struct Guess {
    tried: Tried,
    stranger: bool,
}

impl Guesses {
    /// Of passwords.
    pub fn passwords(limits: &AuthLimits) -> Self {
        Self::new("wrong-passwords", limits.wrong_passwords, limits.strangers_passwords, limits)
    }

    /// Of mailed codes.
    pub fn codes(limits: &AuthLimits) -> Self {
        Self::new("wrong-codes", limits.wrong_codes, limits.strangers_codes, limits)
    }

    fn new(name: &'static str, of_network: Rate, of_strangers: Rate, limits: &AuthLimits) -> Self {
        Self {
            of_network: Throttle::new(name, of_network, limits.minded),
            of_strangers: Throttle::new(name, of_strangers, limits.minded),
            familiar: Cache::new(limits.remembered),
        }
    }

    /// Lets a network try one for an address.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn admit(&self, env: EnvId, address: Address, network: Option<IpAddr>) -> Result<Guess> {
        let tried = ((env, address), network);
        self.of_network.admit(tried.clone())?;
        let stranger = self.familiar.get(&tried).is_none();
        let guess = Guess { tried, stranger };
        if stranger && let Err(refused) = self.of_strangers.admit(guess.tried.0.clone()) {
            self.of_network.give_back(&guess.tried);
            return Err(refused);
        }
        Ok(guess)
    }

    /// It was right, or nothing was tried.
    pub fn give_back(&self, guess: &Guess) {
        self.of_network.give_back(&guess.tried);
        if guess.stranger {
            self.of_strangers.give_back(&guess.tried.0);
        }
    }

    /// Somebody in this network has shown a right one of the address.
    pub fn familiar(&self, env: EnvId, address: Address, network: Option<IpAddr>) {
        self.familiar.insert(((env, address), network), ());
    }
}
