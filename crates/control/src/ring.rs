//! The platform's signing keys: the one that signs, the one that will, and those whose tokens still hold.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kernel::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{KeptSigningKey, SigningKeyRow, SigningState, Store};

use crate::OpenError;
use crate::data_keys::DataKeys;
use crate::signing::{Forged, Public, Signing, place};
use crate::tokens::MAX_LIFETIME;
use crate::vault::Unsealable;

const PURPOSE: &str = "platform";
/// After how long another key signs.
const AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clocks of gateways differ, and a token may be minted while its key retires.
pub(crate) const SLACK: Duration = Duration::from_secs(10 * 60);

/// What becomes of the keys that have signed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// What they have signed holds until it ends.
    Good,
    /// It holds no more: somebody else may have them.
    Forgotten,
}

/// The keys that this gateway knows.
pub(crate) struct Ring {
    store: Store,
    sealing: Arc<DataKeys>,
    keys: RwLock<Arc<Keys>>,
}

struct Keys {
    active: Signing,
    /// The next one and the retired ones: another gateway may sign with the next one already.
    others: Vec<Public>,
}

impl Ring {
    /// The ring as the database has it; on the first start a new one.
    pub(crate) async fn open(
        store: Store,
        sealing: Arc<DataKeys>,
        failed: &impl Fn(store::Error) -> OpenError,
    ) -> Result<Self, OpenError> {
        let keys = store.signing_keys();
        if keys.current(PURPOSE).await.map_err(failed)?.is_none() {
            keys.get_or_insert(&made(&sealing)?).await.map_err(failed)?;
        }
        let all = keys.all(PURPOSE).await.map_err(failed)?;
        if !all.iter().any(|kept| kept.state == SigningState::Next) {
            keys.prepare(&made(&sealing)?).await.map_err(failed)?;
        }
        let all = keys.all(PURPOSE).await.map_err(failed)?;
        let keys = read(&sealing, &all).map_err(|_| OpenError::SigningKey)?;
        Ok(Self { store, sealing, keys: RwLock::new(Arc::new(keys)) })
    }

    /// Reads it anew, after another gateway may have changed it.
    pub(crate) async fn reload(&self) -> Result<()> {
        let all = self.store.signing_keys().all(PURPOSE).await?;
        let keys = read(&self.sealing, &all).map_err(Error::internal)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Has the next key sign.
    pub(crate) async fn rotate(&self, before: Before) -> Result<Vec<KeptSigningKey>> {
        let active = self.keys().active.kid().to_owned();
        let after = made(&self.sealing).map_err(Error::internal)?;
        // Where another gateway was quicker, there is another key: that is all that was wanted.
        let now = Timestamp::now();
        self.store.signing_keys().rotate(&active, &after, now).await?;
        if before == Before::Forgotten {
            self.store.signing_keys().purge(PURPOSE, now).await?;
        }
        self.reload().await?;
        self.all().await
    }

    /// Every key, with where it is in its life.
    pub(crate) async fn all(&self) -> Result<Vec<KeptSigningKey>> {
        Ok(self.store.signing_keys().all(PURPOSE).await?)
    }

    /// Has another key sign where the active one has for long, and forgets those that nothing stands on any more.
    pub(crate) async fn upkeep(&self, now: Timestamp) -> Result<()> {
        let keys = self.store.signing_keys();
        if keys.purge(PURPOSE, now.minus(MAX_LIFETIME + SLACK)).await? > 0 {
            self.reload().await?;
        }
        let all = self.all().await?;
        let active = all.iter().find(|kept| kept.state == SigningState::Active);
        if active.is_some_and(|kept| kept.activated.unwrap_or(kept.key.created) <= now.minus(AGE)) {
            self.rotate(Before::Good).await?;
        }
        Ok(())
    }

    pub(crate) fn sign<T: Serialize>(&self, claims: &T) -> serde_json::Result<String> {
        self.keys().active.sign(claims)
    }

    /// The claims of a token that one of the keys signed.
    pub(crate) fn verify<T: for<'de> Deserialize<'de>>(&self, token: &str) -> Result<T, Forged> {
        let keys = self.keys();
        let kid = Public::kid_of(token)?;
        let mut all = std::iter::once(keys.active.public_half()).chain(&keys.others);
        all.find(|public| public.kid() == kid).ok_or(Forged)?.verify(token)
    }

    /// The public halves as a key set (RFC 7517 §5), the active one first.
    pub(crate) fn jwks(&self) -> Value {
        let keys = self.keys();
        let all = std::iter::once(keys.active.public_half()).chain(&keys.others);
        json!({ "keys": all.map(Public::jwk).collect::<Vec<_>>() })
    }

    #[cfg(test)]
    pub(crate) fn kid(&self) -> String {
        self.keys().active.kid().to_owned()
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn made(sealing: &DataKeys) -> Result<SigningKeyRow, OpenError> {
    let new = Signing::generate().map_err(OpenError::Random)?;
    Ok(SigningKeyRow {
        id: new.kid().to_owned(),
        purpose: PURPOSE.to_owned(),
        public: new.public(),
        sealed: new.seal(sealing.platform(), PURPOSE).map_err(|_| OpenError::SigningKey)?,
        created: Timestamp::now(),
        data_key: Some(sealing.platform().id().to_owned()),
    })
}

fn read(sealing: &DataKeys, all: &[KeptSigningKey]) -> Result<Keys, Unsealable> {
    let active = all.iter().find(|kept| kept.state == SigningState::Active).ok_or(Unsealable)?;
    let seed = sealing.open_platform(&place(PURPOSE, &active.key.id), &active.key.sealed)?;
    let active = Signing::opened(&active.key.id, &seed)?;
    let others = all.iter().filter(|kept| kept.state != SigningState::Active);
    let others = others.map(|kept| Public::read(&kept.key.id, &kept.key.public).map_err(|_| Unsealable));
    Ok(Keys { active, others: others.collect::<Result<_, _>>()? })
}
