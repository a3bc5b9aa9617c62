//! How often one address, or whoever else is told apart, may do what costs something or guesses, in a table of bounded size.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const ADDRESSES: usize = 4_096;

/// So many times in a window.
pub struct Pace<K = IpAddr> {
    most: u32,
    window: Duration,
    seen: Mutex<HashMap<K, (u32, Instant)>>,
}

impl Pace {
    /// Whether an address has done it as often as it may.
    pub fn is_over(&self, source: Option<IpAddr>) -> bool {
        self.is_over_for(&network(source))
    }

    /// Takes one back that was counted before it was known to be good.
    pub fn forgive_from(&self, source: Option<IpAddr>) {
        self.forgive(&network(source));
    }

    /// Counts once more.
    pub fn count(&self, source: Option<IpAddr>) {
        self.count_for(network(source));
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// At most so many times in each window.
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most, window, seen: Mutex::default() }
    }

    /// Whether this one has done it as often as it may.
    pub fn is_over_for(&self, who: &K) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seen.get(who);
        found.is_some_and(|(times, since)| *times >= self.most && since.elapsed() < self.window)
    }

    /// Takes one back that was counted before it was known to be good.
    pub fn forgive(&self, who: &K) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((times, _)) = seen.get_mut(who) {
            *times = times.saturating_sub(1);
        }
    }

    /// Counts once more.
    pub fn count_for(&self, who: K) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ADDRESSES {
            seen.retain(|_, (_, since)| since.elapsed() < self.window);
        }
        if seen.len() >= ADDRESSES {
            seen.clear();
        }
        let (times, since) = seen.entry(who).or_insert((0, Instant::now()));
        if since.elapsed() >= self.window {
            (*times, *since) = (0, Instant::now());
        }
        *times += 1;
    }
}

/// One customer of a provider has a whole /64 of IPv6. Who is not named is one with all others who are not.
fn network(source: Option<IpAddr>) -> IpAddr {
    match source {
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_held_and_the_others_are_not() {
        let pace = Pace::new(2, Duration::from_secs(60));
        let [one, same, other] = ["2001:db8::1", "2001:db8::2", "2001:db8:1::1"].map(|ip| ip.parse().ok());
        for _ in 0..2 {
            assert!(!pace.is_over(one));
            pace.count(one);
        }
        assert!(pace.is_over(one) && pace.is_over(same) && !pace.is_over(other) && !pace.is_over(None));
        for n in 0..u16::MAX {
            pace.count(Some(IpAddr::from([10, 1, (n >> 8) as u8, n as u8])));
        }
        assert!(pace.seen.lock().unwrap().len() <= ADDRESSES);
    }
}
