//! Who may try the passwords and codes of an account, and how often: strangers who guess run out, and its owner gets in.

use std::net::IpAddr;
use std::sync::Arc;

use kernel::{EnvId, LimitScope, Result};
use quick_cache::sync::Cache;

use super::address::Address;
use super::limits::{AuthLimits, Rate};
use super::throttle::Throttle;

/// An account, or what would be one.
type Named = (EnvId, Address);
/// The same, as tried from one network.
type Tried = (Named, Option<IpAddr>);

/// Counts for each address: what comes from one network, and what comes from all that nothing right ever came from. So
/// nobody can lock somebody else out, wherever they are.
pub(super) struct Guesses {
    of_network: Throttle<Tried>,
    of_strangers: Throttle<Named>,
    familiar: Familiar,
}

/// From which networks something right came before: the password of an address, or a code. Clones are the same.
#[derive(Clone)]
pub(super) struct Familiar(Arc<Cache<Tried, ()>>);

impl Familiar {
    /// Nobody is known yet.
    pub fn new(limits: &AuthLimits) -> Self {
        Self(Arc::new(Cache::new(limits.remembered)))
    }
}

/// One try that was admitted, and counts as wrong until it is given back.
pub(super) struct Guess {
    tried: Tried,
    stranger: bool,
}

impl Guesses {
    /// Of passwords, wrong ones.
    pub fn passwords(limits: &AuthLimits, familiar: &Familiar) -> Self {
        Self::new("wrong-passwords", limits.wrong_passwords, limits.strangers_passwords, limits, familiar)
    }

    /// Of mailed codes, wrong ones.
    pub fn codes(limits: &AuthLimits, familiar: &Familiar) -> Self {
        Self::new("wrong-codes", limits.wrong_codes, limits.strangers_codes, limits, familiar)
    }

    /// Of mails.
    pub fn mails(limits: &AuthLimits, familiar: &Familiar) -> Self {
        Self::new("mails", limits.mails, limits.strangers_mails, limits, familiar)
    }

    /// Of texts to phones.
    pub fn texts(limits: &AuthLimits, familiar: &Familiar) -> Self {
        Self::new("texts", limits.texts, limits.strangers_texts, limits, familiar)
    }

    fn new(
        name: &'static str,
        of_network: Rate,
        of_strangers: Rate,
        limits: &AuthLimits,
        familiar: &Familiar,
    ) -> Self {
        Self {
            of_network: Throttle::new(name, LimitScope::Address, of_network, limits.minded),
            of_strangers: Throttle::new(name, LimitScope::User, of_strangers, limits.minded),
            familiar: familiar.clone(),
        }
    }

    /// Lets a network try one for an address.
    ///
    /// # Errors
    /// `rate_limited` with the time to wait.
    pub fn admit(&self, env: EnvId, address: Address, network: Option<IpAddr>) -> Result<Guess> {
        let tried = ((env, address), network);
        self.of_network.admit(tried.clone())?;
        let stranger = self.familiar.0.get(&tried).is_none();
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
        self.familiar.0.insert(((env, address), network), ());
    }
}
