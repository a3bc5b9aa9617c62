//! What clients were given for their users' consent: codes, families of tokens, and devices that wait. Hashes, never the
//! secrets themselves.

use kernel::{EnvId, KeyId, Timestamp};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rows::{hex, number, parsed, parsed_or_null, text, time};
use crate::{Error, Result, Store};

/// What a user has consented to, and who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthGrant {
    /// The client's id.
    pub client: String,
    /// What it calls itself.
    pub name: String,
    /// The scopes as they were asked for, in words of their own.
    pub words: String,
    /// The address that its tokens are good at.
    pub resource: String,
}

/// A code that a client may change into tokens, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthCode {
    /// What for.
    pub grant: OAuthGrant,
    /// The key that the user has shown.
    pub owner: KeyId,
    /// The environment that the user has chosen.
    pub env: EnvId,
    /// Where the user was sent back to.
    pub redirect: String,
    /// The hash of what the client will show with it (RFC 7636).
    pub challenge: String,
    /// When it ends.
    pub expires: Timestamp,
    /// The family that came of it.
    pub family: Option<KeyId>,
}

/// A consent that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthFamily {
    /// The minted credential that its tokens stand on.
    pub id: KeyId,
    /// What for.
    pub grant: OAuthGrant,
    /// Which of its refresh tokens is good.
    pub generation: i64,
}

/// What became of a device's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// Nobody has answered.
    Waiting,
    /// With this key, for this environment.
    Approved(KeyId, EnvId),
    /// A user has refused.
    Denied,
    /// It has got its tokens.
    Done,
}

/// A device that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthDevice {
    /// What the user types.
    pub user_code: String,
    /// What for.
    pub grant: OAuthGrant,
    /// When it has begun.
    pub begun: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// What became of it.
    pub state: DeviceState,
}

/// The codes, families and devices.
pub struct OAuth<'a>(pub(crate) &'a Store);

impl OAuth<'_> {
    /// Keeps a code.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add_code(&self, hash: &[u8; 32], code: &OAuthCode) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        sqlx::query(
            "INSERT INTO oauth_codes (hash, client, name, owner, env, words, resource, redirect, challenge, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(hex(hash))
        .bind(&code.grant.client)
        .bind(&code.grant.name)
        .bind(code.owner.to_string())
        .bind(code.env.to_string())
        .bind(&code.grant.words)
        .bind(&code.grant.resource)
        .bind(&code.redirect)
        .bind(&code.challenge)
        .bind(code.expires.as_micros())
        .execute(write.connection())
        .await?;
        write.commit().await
    }

    /// A code, also one that was used or has ended.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn code(&self, hash: &[u8; 32]) -> Result<Option<OAuthCode>> {
        let row = sqlx::query("SELECT * FROM oauth_codes WHERE hash = $1").bind(hex(hash));
        let row = row.fetch_optional(self.0.reader()).await?;
        let code = |row: &AnyRow| {
            Ok(OAuthCode {
                grant: grant(row)?,
                owner: parsed(row, "owner")?,
                env: parsed(row, "env")?,
                redirect: text(row, "redirect")?,
                challenge: text(row, "challenge")?,
                expires: time(row, "expires")?,
                family: parsed_or_null(row, "family")?,
            })
        };
        row.as_ref().map(code).transpose()
    }

    /// Uses a code up for a family; `false` where it was used before. Of many at once, one is told `true`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn use_code(&self, hash: &[u8; 32], family: KeyId) -> Result<bool> {
        let query = sqlx::query("UPDATE oauth_codes SET family = $2 WHERE hash = $1 AND family IS NULL");
        self.one(query.bind(hex(hash)).bind(family.to_string())).await
    }

    /// Notes that a code was shown a second time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn note_replay(&self, hash: &[u8; 32]) -> Result<()> {
        let query = sqlx::query("UPDATE oauth_codes SET replayed = 1 WHERE hash = $1").bind(hex(hash));
        self.one(query).await.map(drop)
    }

    /// Whether a code was shown a second time.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn was_replayed(&self, hash: &[u8; 32]) -> Result<bool> {
        let row = sqlx::query("SELECT 1 FROM oauth_codes WHERE hash = $1 AND replayed = 1").bind(hex(hash));
        Ok(row.fetch_optional(self.0.reader()).await?.is_some())
    }

    /// Keeps a family, whose minted credential is there.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add_family(&self, family: &OAuthFamily) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO oauth_families (id, client, name, words, resource, generation) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let query = query
            .bind(family.id.to_string())
            .bind(family.grant.client.clone())
            .bind(family.grant.name.clone())
            .bind(family.grant.words.clone())
            .bind(family.grant.resource.clone())
            .bind(family.generation);
        self.one(query).await.map(drop)
    }

    /// A family.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn family(&self, id: KeyId) -> Result<Option<OAuthFamily>> {
        let row = sqlx::query("SELECT * FROM oauth_families WHERE id = $1").bind(id.to_string());
        let row = row.fetch_optional(self.0.reader()).await?;
        let family = |row: &AnyRow| {
            Ok(OAuthFamily {
                id: parsed(row, "id")?,
                grant: grant(row)?,
                generation: number(row, "generation")?,
            })
        };
        row.as_ref().map(family).transpose()
    }

    /// Has the next refresh token of a family be good instead of this one; `false` where it is not this one's turn. Of many
    /// at once, one is told `true`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn advance(&self, id: KeyId, generation: i64) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE oauth_families SET generation = generation + 1 WHERE id = $1 AND generation = $2",
        );
        self.one(query.bind(id.to_string()).bind(generation)).await
    }

    /// Keeps a device, where fewer than `most` wait; `false` where as many do, or its code is another's.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn add_device(&self, hash: &[u8; 32], device: &OAuthDevice, most: u32) -> Result<bool> {
        let query = sqlx::query(
            "INSERT INTO oauth_devices (hash, user_code, client, name, words, resource, begun, expires, state) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, 'waiting' \
             WHERE (SELECT COUNT(*) FROM oauth_devices WHERE expires > $7 AND state = 'waiting') < $9 ON CONFLICT DO NOTHING",
        );
        let query = query
            .bind(hex(hash))
            .bind(device.user_code.clone())
            .bind(device.grant.client.clone())
            .bind(device.grant.name.clone())
            .bind(device.grant.words.clone())
            .bind(device.grant.resource.clone())
            .bind(device.begun.as_micros())
            .bind(device.expires.as_micros())
            .bind(i64::from(most));
        self.one(query).await
    }

    /// The device that asks with this.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn device(&self, hash: &[u8; 32]) -> Result<Option<OAuthDevice>> {
        let row = sqlx::query("SELECT * FROM oauth_devices WHERE hash = $1").bind(hex(hash));
        row.fetch_optional(self.0.reader()).await?.as_ref().map(device).transpose()
    }

    /// The device that a user has typed the code of, where it waits at `now`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn waiting_device(&self, user_code: &str, now: Timestamp) -> Result<Option<OAuthDevice>> {
        let row = sqlx::query(
            "SELECT * FROM oauth_devices WHERE user_code = $1 AND state = 'waiting' AND expires > $2",
        );
        let row = row.bind(user_code).bind(now.as_micros());
        row.fetch_optional(self.0.reader()).await?.as_ref().map(device).transpose()
    }

    /// Answers the question of a device that waits, for these words of those that it asked for; `false` where none does.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn answer_device(
        &self,
        user_code: &str,
        granted: Option<(KeyId, EnvId, &str)>,
        now: Timestamp,
    ) -> Result<bool> {
        let query = sqlx::query(
            "UPDATE oauth_devices SET state = $3, owner = $4, env = $5, words = COALESCE($6, words) \
             WHERE user_code = $1 AND state = 'waiting' AND expires > $2",
        );
        let query = query
            .bind(user_code.to_owned())
            .bind(now.as_micros())
            .bind(if granted.is_some() { "approved" } else { "denied" })
            .bind(granted.map(|(owner, _, _)| owner.to_string()))
            .bind(granted.map(|(_, env, _)| env.to_string()))
            .bind(granted.map(|(_, _, words)| words.to_owned()));
        self.one(query).await
    }

    /// Uses an approved device up; `false` where it is none. Of many at once, one is told `true`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn use_device(&self, hash: &[u8; 32]) -> Result<bool> {
        let query =
            sqlx::query("UPDATE oauth_devices SET state = 'done' WHERE hash = $1 AND state = 'approved'");
        self.one(query.bind(hex(hash))).await
    }

    /// Forgets codes that have ended by `before`, and devices that have by `now`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn purge(&self, before: Timestamp, now: Timestamp) -> Result<()> {
        let mut write = self.0.begin_write().await?;
        for (statement, end) in [
            ("DELETE FROM oauth_codes WHERE expires <= $1", before),
            ("DELETE FROM oauth_devices WHERE expires <= $1", now),
        ] {
            sqlx::query(statement).bind(end.as_micros()).execute(write.connection()).await?;
        }
        write.commit().await
    }

    /// Runs a statement; whether it has changed one row.
    async fn one<'q>(
        &self,
        query: sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>,
    ) -> Result<bool> {
        let mut write = self.0.begin_write().await?;
        let done = query.execute(write.connection()).await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

fn grant(row: &AnyRow) -> Result<OAuthGrant> {
    Ok(OAuthGrant {
        client: text(row, "client")?,
        name: text(row, "name")?,
        words: text(row, "words")?,
        resource: text(row, "resource")?,
    })
}

fn device(row: &AnyRow) -> Result<OAuthDevice> {
    let granted = parsed_or_null(row, "owner")?.zip(parsed_or_null(row, "env")?);
    let state: String = row.try_get("state")?;
    let unreadable = || Error::Unreadable { what: "state", source: "no state of a device".into() };
    Ok(OAuthDevice {
        user_code: text(row, "user_code")?,
        grant: grant(row)?,
        begun: time(row, "begun")?,
        expires: time(row, "expires")?,
        state: match (state.as_str(), granted) {
            ("waiting", _) => DeviceState::Waiting,
            ("approved", Some((owner, env))) => DeviceState::Approved(owner, env),
            ("denied", _) => DeviceState::Denied,
            ("done", _) => DeviceState::Done,
            _ => return Err(unreadable()),
        },
    })
}
