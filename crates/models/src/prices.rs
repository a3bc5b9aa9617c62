//! What calls cost: prices by the million tokens, and sums of them in whole millionths, rounded up.

use kernel::{Caller, Error, Proof, Result, Scope, Tenant, Timestamp};
use store::{Price, Store};

use crate::Tokens;

/// The tokens that a price is of.
const MILLION: u128 = 1_000_000;

/// The highest price, which keeps sums countable.
const DEAREST: u64 = 1_000_000_000_000;

/// The longest name of a model.
const NAME: usize = 200;

/// Prices on one page.
pub const PAGE: u32 = 100;

/// A price that is to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPrice {
    /// The model, as the provider calls it.
    pub model: String,
    /// From when on; now, where nothing is said.
    pub since: Option<Timestamp>,
    /// A million tokens that are sent, in millionths.
    pub input: u64,
    /// Those of them that the provider has seen before; as much as others, where nothing is said.
    pub cached_input: Option<u64>,
    /// A million tokens that come back.
    pub output: u64,
}

/// What models cost, which the operator says.
pub struct Prices<'a> {
    pub(crate) store: &'a Store,
}

impl Prices<'_> {
    /// Sets a price, in the place of one from the same time on. What is charged already does not change.
    ///
    /// # Errors
    /// `forbidden` for anybody but the operator; `invalid_input` naming the field.
    pub async fn set(&self, caller: &Caller, new: NewPrice) -> Result<Price> {
        Tenant::authorize(caller, &[Scope::TenantAdmin])?;
        if new.model.is_empty() || new.model.len() > NAME || new.model.contains(char::is_control) {
            return Err(Error::invalid("/model", format!("a model's name has 1 to {NAME} bytes"))
                .hint("name it as STEADING_MODEL does"));
        }
        let cached_input = new.cached_input.unwrap_or(new.input);
        for (field, price) in
            [("/input", new.input), ("/cached_input", cached_input), ("/output", new.output)]
        {
            if price > DEAREST {
                return Err(Error::invalid(field, format!("a price is at most {DEAREST}"))
                    .hint("say it in millionths of the currency, by the million tokens"));
            }
        }
        let since = new.since.unwrap_or_else(Timestamp::now);
        let price = Price { model: new.model, since, input: new.input, cached_input, output: new.output };
        self.store.prices().set(&price).await?;
        Ok(price)
    }

    /// The prices, by model and time, those that follow `after`.
    ///
    /// # Errors
    /// `forbidden` without `env:read`, as keys bound to an environment are.
    pub async fn list(&self, caller: &Caller, after: Option<(&str, Timestamp)>) -> Result<Vec<Price>> {
        Tenant::authorize(caller, &[Scope::EnvRead])?;
        Ok(self.store.prices().list(after, PAGE).await?)
    }
}

/// What tokens cost.
pub(crate) fn cost(price: &Price, tokens: Tokens) -> u64 {
    let cached = tokens.cached.min(tokens.prompt);
    let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
    let sum = of(tokens.prompt - cached, price.input)
        + of(cached, price.cached_input)
        + of(tokens.completion, price.output);
    u64::try_from(sum.div_ceil(MILLION)).unwrap_or(u64::MAX)
}

/// The most that they cost, whatever the provider has seen before.
pub(crate) fn most(price: &Price, tokens: Tokens) -> u64 {
    let input = price.input.max(price.cached_input);
    cost(&Price { input, cached_input: input, ..price.clone() }, tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(input: u64, cached_input: u64, output: u64) -> Price {
        Price { model: "small".to_owned(), since: Timestamp::from_micros(0), input, cached_input, output }
    }

    #[test]
    fn what_is_sent_what_was_seen_and_what_comes_back_have_their_prices_and_a_part_is_a_whole() {
        let price = price(3_000_000, 300_000, 15_000_000);
        let of = |prompt, cached, completion| cost(&price, Tokens { prompt, cached, completion });
        assert_eq!(of(1_000_000, 0, 0), 3_000_000);
        assert_eq!(of(1_000_000, 1_000_000, 0), 300_000);
        assert_eq!(of(10, 4, 2), 18 + 2 + 30, "1.2 is 2");
        assert_eq!((of(0, 0, 0), of(1, 1, 0)), (0, 1));
        assert_eq!(of(u64::MAX, 0, u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn nothing_costs_more_than_the_most(
            (input, cached_input, output) in (0..DEAREST, 0..DEAREST, 0..DEAREST),
            (prompt, cached, completion) in (0..1_u64 << 40, 0..1_u64 << 40, 0..1_u64 << 40),
            (fewer_prompt, fewer_completion) in (0.0..=1.0, 0.0..=1.0),
        ) {
            let price = price(input, cached_input, output);
            let part = |of: u64, by: f64| ((of as f64) * by) as u64;
            let used = Tokens {
                prompt: part(prompt, fewer_prompt).min(prompt),
                cached,
                completion: part(completion, fewer_completion).min(completion),
            };
            let bound = most(&price, Tokens { prompt, cached: 0, completion });
            prop_assert!(cost(&price, used) <= bound);
        }
    }
}
