//! What models cost, from a time on.

use kernel::Timestamp;
use sqlx::any::AnyRow;

use crate::budgets::{count, whole};
use crate::rows::{text, time};
use crate::{Result, Store};

/// What a million tokens of a model cost from a time on, in millionths of the operator's currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The model, as the provider calls it.
    pub model: String,
    /// From when on.
    pub since: Timestamp,
    /// Tokens that are sent.
    pub input: u64,
    /// Those of them that the provider has seen before.
    pub cached_input: u64,
    /// Tokens that come back.
    pub output: u64,
}

/// What models cost.
pub struct Prices<'a>(pub(crate) &'a Store);

impl Prices<'_> {
    /// Sets a price, in the place of one from the same time on.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, price: &Price) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO prices (model, since, input, cached_input, output) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (model, since) DO UPDATE SET input = excluded.input, \
             cached_input = excluded.cached_input, output = excluded.output",
        )
        .bind(price.model.as_str())
        .bind(price.since.as_micros())
        .bind(whole(price.input))
        .bind(whole(price.cached_input))
        .bind(whole(price.output))
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// What a model costs at a time, if that is known.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn at(&self, model: &str, at: Timestamp) -> Result<Option<Price>> {
        let found =
            sqlx::query("SELECT * FROM prices WHERE model = $1 AND since <= $2 ORDER BY since DESC LIMIT 1")
                .bind(model)
                .bind(at.as_micros())
                .fetch_optional(self.0.reader())
                .await?;
        found.as_ref().map(read).transpose()
    }

    /// All prices, by model and time, those that follow the given one; at most so many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, after: Option<(&str, Timestamp)>, most: u32) -> Result<Vec<Price>> {
        let (model, since) = after.unwrap_or(("", Timestamp::from_micros(i64::MIN)));
        let rows = sqlx::query(
            "SELECT * FROM prices WHERE model > $1 OR (model = $1 AND since > $2) \
             ORDER BY model, since LIMIT $3",
        )
        .bind(model)
        .bind(since.as_micros())
        .bind(i64::from(most))
        .fetch_all(self.0.reader())
        .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &AnyRow) -> Result<Price> {
    Ok(Price {
        model: text(row, "model")?,
        since: time(row, "since")?,
        input: count(row, "input")?,
        cached_input: count(row, "cached_input")?,
        output: count(row, "output")?,
    })
}
