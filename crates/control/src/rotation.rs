//! Another key-encryption key, other data keys, and what older ones have sealed.

use kernel::{Code, EnvId, Error, Result, Timestamp};
use store::{Rewrapped, SealedIn, SealedValue};

use crate::data_keys::{DataKeys, refused};
use crate::key_command::KeyCommand;
use crate::key_encryption::{Kek, Unwrappable};
use crate::secrets::place as secret_place;
use crate::signing::place as signing_place;
use crate::{OpenError, SecretKind};

/// Values that are sealed anew before it is the turn of others.
const BATCH: u32 = 100;
/// Batches in one round of upkeep.
const BATCHES: usize = 20;
/// Batches that whoever rotates waits for.
const BATCHES_AT_ONCE: usize = 5;
/// Tenants whose data keys cannot be had, after which a round ends: nobody has them, it seems.
const LACKING: usize = 3;
/// How often a rewrap begins again that a new data key has come between.
const ATTEMPTS: usize = 10;

/// Where it goes on: by table, what the last value that was looked at is known by.
#[derive(Debug, Default)]
pub(crate) struct Places {
    secrets: (String, String),
    signing_keys: (String, String),
}

/// What may be known of a data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyInfo {
    /// What sealed values call it.
    pub id: String,
    /// The tenant whose values it seals, or `platform`, or `root`: what the platform's other keys are derived from.
    pub owner: String,
    /// When it was made.
    pub created: Timestamp,
    /// Since when it only opens, where it does.
    pub retired: Option<Timestamp>,
}

/// What may be known of how values are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionKeys {
    /// The key-encryption key in force, by its name: `command`, or what tells the file's from another.
    pub in_force: String,
    /// Whether this gateway has it.
    pub is_here: bool,
    /// The data keys.
    pub data_keys: Vec<DataKeyInfo>,
    /// How many values are sealed by older keys than the ones that seal.
    pub older_values: i64,
}

impl DataKeys {
    /// What may be known of the keys.
    pub(crate) async fn shown(&self) -> Result<EncryptionKeys> {
        let rows = self.store.data_keys();
        let in_force = rows.in_force().await?.unwrap_or_default();
        let info = |row: store::DataKeyRow| DataKeyInfo {
            id: row.id,
            owner: row.owner,
            created: row.created,
            retired: row.retired,
        };
        Ok(EncryptionKeys {
            is_here: self.kek_named(&in_force).is_ok(),
            in_force,
            data_keys: rows.all().await?.into_iter().map(info).collect(),
            older_values: rows.count_older().await?,
        })
    }

    /// Puts another key-encryption key in force, under which all data keys are wrapped at once, and has every tenant's next
    /// value sealed by another data key. Whoever dies over it leaves either all as it was or all under the new one, whose file
    /// lies beside the old one until it takes its place.
    pub(crate) async fn rotate(&self) -> Result<EncryptionKeys> {
        let mut places = self.turns.lock().await;
        let in_force = self.store.data_keys().in_force().await?.unwrap_or_default();
        let from = self.kek_named(&in_force).map_err(refused)?;
        if from.is_command() {
            self.rewrap(&from, &from, Some(Timestamp::now())).await?;
        } else {
            // Where the file beside it is the only one that has the key in force, it takes its place before there is another.
            if self.file.find(from.id()).map_err(unwritten)?.is_none() {
                let message = "the file of the key-encryption key does not have the one in force";
                return Err(Error::new(Code::Unavailable, message)
                    .hint("bring keys/master back to the server's disk before anything else: only its memory has it"));
            }
            let next = self.file.prepare().map_err(unwritten)?;
            let to = Kek::of(&next);
            if let Err(failed) = self.rewrap_all(&from, &to, Some(Timestamp::now())).await {
                // What the database has done, or does yet, without saying so needs the key: it stays beside the file, and the
                // next attempt is made with it.
                let is_unknown = matches!(failed, Failed::Store(_));
                let in_force = self.store.data_keys().in_force().await;
                if !is_unknown && in_force.is_ok_and(|id| id.as_deref() != Some(to.id())) {
                    self.file.forget_next();
                }
                return Err(failed.into());
            }
            let id = to.id().to_owned();
            self.set_kek(to);
            if let Err(error) = self.file.follow() {
                // Whoever asked for the key a moment ago has put it there.
                if !self.file.read().is_ok_and(|there| there.is_some_and(|key| key.fingerprint() == id)) {
                    return Err(unwritten(error));
                }
            }
        }
        self.forget_all_current();
        self.reseal(&mut places, BATCHES_AT_ONCE).await?;
        drop(places);
        self.shown().await
    }

    /// From here on the operator's command has what data keys are wrapped under.
    pub(crate) async fn give_to_command(&self, command: KeyCommand) -> Result<(), OpenError> {
        let to = Kek::Command(command);
        let from = self.kek();
        self.rewrap_all(&from, &to, None).await.map_err(|failed| match failed {
            Failed::Key(why) => OpenError::from(why),
            Failed::Store(error) => OpenError::DataKey(error.to_string()),
            Failed::Other | Failed::Moved => {
                OpenError::DataKey("another gateway is changing them: start again".into())
            }
        })?;
        tracing::warn!(
            path = %self.file.path().display(),
            "the command of keys.command has wrapped every data key: data keys are not opened by this file any more; older backups are: keep it elsewhere"
        );
        self.set_kek(to);
        Ok(())
    }

    async fn rewrap(&self, from: &Kek, to: &Kek, retire: Option<Timestamp>) -> Result<()> {
        self.rewrap_all(from, to, retire).await.map_err(Error::from)
    }

    async fn rewrap_all(&self, from: &Kek, to: &Kek, retire: Option<Timestamp>) -> Result<(), Failed> {
        let rows = self.store.data_keys();
        for _ in 0..ATTEMPTS {
            let mut wrapped = Vec::new();
            for row in rows.all().await.map_err(Failed::Store)? {
                let key = match from.unwrap(&row).await {
                    Ok(key) => key,
                    Err(Unwrappable::Other(_)) => return Err(Failed::Other),
                    Err(why) => {
                        tracing::error!(
                            data_key = row.id,
                            owner = row.owner,
                            "a data key cannot be wrapped anew"
                        );
                        return Err(Failed::Key(why));
                    }
                };
                wrapped.push((row.id, to.wrap(&key).await.map_err(Failed::Key)?));
            }
            match rows.rewrap(from.id(), to.id(), &wrapped, retire).await.map_err(Failed::Store)? {
                Rewrapped::All => return Ok(()),
                Rewrapped::Other => return Err(Failed::Other),
                Rewrapped::Moved => {}
            }
        }
        Err(Failed::Moved)
    }

    /// Seals anew some of what older keys have sealed, and drops the keys that nothing needs any more.
    pub(crate) async fn upkeep(&self) -> Result<()> {
        let Ok(mut places) = self.turns.try_lock() else { return Ok(()) };
        self.reseal(&mut places, BATCHES).await
    }

    async fn reseal(&self, places: &mut Places, batches: usize) -> Result<()> {
        let mut lacking = Vec::new();
        for (table, place) in
            [(SealedIn::Secrets, &mut places.secrets), (SealedIn::SigningKeys, &mut places.signing_keys)]
        {
            for _ in 0..batches {
                let some = self.store.data_keys().older(table, (&place.0, &place.1), BATCH).await?;
                for value in &some {
                    if lacking.contains(&value.tenant) {
                        continue;
                    }
                    match self.reseal_one(table, value).await {
                        Ok(()) => {}
                        Err(error) if error.code() == Code::Internal => {
                            tracing::error!(
                                of = value.of,
                                name = value.name,
                                error = error.chain(),
                                "a sealed value does not open"
                            );
                        }
                        // Its data key cannot be had: that holds up no other tenant's.
                        Err(error) => {
                            tracing::warn!(
                                tenant.id = %value.tenant,
                                error = error.chain(),
                                "a tenant's values are not sealed anew"
                            );
                            lacking.push(value.tenant);
                        }
                    }
                    if lacking.len() >= LACKING {
                        break;
                    }
                }
                match some.last() {
                    Some(last) => *place = (last.of.clone(), last.name.clone()),
                    None => {
                        *place = Default::default();
                        break;
                    }
                }
                if lacking.len() >= LACKING {
                    return Ok(());
                }
            }
        }
        let gone = self.store.data_keys().purge().await?;
        if gone > 0 {
            tracing::info!(keys = gone, "data keys went that had sealed nothing that is there");
        }
        Ok(())
    }

    async fn reseal_one(&self, table: SealedIn, value: &SealedValue) -> Result<()> {
        let place = match table {
            SealedIn::Secrets => {
                let env: EnvId = value.of.parse().map_err(Error::internal)?;
                let kind: SecretKind = value.kind.parse().map_err(Error::internal)?;
                secret_place(env, &value.name, kind)
            }
            SealedIn::SigningKeys => signing_place(&value.of, &value.name),
        };
        let opened = self.open_value(value.tenant, &place, &value.sealed).await?;
        // Another gateway may have rotated the keys since this one was remembered; the next round has the one that seals.
        let key = self.current(value.tenant).await?;
        let sealed = key.seal(&place, &opened)?;
        if !self.store.data_keys().reseal(table, value, &sealed, key.id()).await? {
            self.forget(value.tenant);
        }
        Ok(())
    }
}

enum Failed {
    Key(Unwrappable),
    Store(store::Error),
    Other,
    Moved,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Key(why) => refused(why),
            Failed::Store(error) => error.into(),
            Failed::Other => Error::new(Code::Conflict, "another gateway has just rotated the keys"),
            Failed::Moved => Error::new(Code::Unavailable, "new data keys come too fast").hint("try again"),
        }
    }
}

fn unwritten(error: OpenError) -> Error {
    Error::new(Code::Unavailable, "the key-encryption key cannot be written")
        .hint("look at the directory keys on the server's disk")
        .source(error)
}
