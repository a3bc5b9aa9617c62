//! When a certificate is ordered again, and how much of a tenant's share an order may take.

use std::time::Duration;

use kernel::{Error, Result, Timestamp};

use crate::domains::Chain;
use crate::domains::ports::Owner;

/// How soon an order that has failed is tried again, first and at last.
const FIRST_RETRY: Duration = Duration::from_secs(60);
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many orders of a tenant leave room for one more of `owner`. Whoever knows the address of an app makes the first
/// order for it; what somebody has proven, and what is renewed, has the other half to itself.
pub(super) fn share(most: u32, owner: &Owner, renewed: bool) -> i64 {
    let most = i64::from(most);
    match owner {
        Owner::App(_) | Owner::Preview(_) if !renewed => most - most / 2,
        _ => most,
    }
}

/// After two thirds of its life, and up to a twentieth earlier: not all at once.
pub(super) fn renewal(chain: &Chain) -> Result<Timestamp> {
    let life = (chain.ends.as_micros() - chain.begins.as_micros()).unsigned_abs();
    let early = life / 20 * u64::from(chance()?) / 256;
    Ok(chain.begins.plus(Duration::from_micros(life / 3 * 2 - early)))
}

/// A minute, doubled by each failure up to a day, with up to a quarter more.
pub(super) fn retry(failures: i64) -> Result<Duration> {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.clamp(0, 12));
    let after = doubled.min(LONGEST_RETRY);
    Ok(after + after / 4 * u32::from(chance()?) / 256)
}

fn chance() -> Result<u8> {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_err(Error::internal)?;
    Ok(byte[0])
}
