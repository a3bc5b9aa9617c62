//! The memory of calls made under an idempotency key.

use std::time::Duration;

use futures::future::BoxFuture;
use kernel::{Code, Error, Result, Timestamp};
use serde_json::Value;
use store::{Claim, ClaimKey, Store};
use tool::{Attempt, ReplayKey};

const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than any call may run: a claim that is older was given up.
const GIVEN_UP: Duration = Duration::from_secs(15 * 60);

/// Remembers calls for 24 hours.
pub struct Replays {
    store: Store,
    /// This life of this program: a claim of another life will not be finished.
    owner: String,
}

impl Replays {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, owner: kernel::CallId::new().to_string() }
    }
}

impl tool::Replays for Replays {
    fn begin<'a>(&'a self, key: &'a ReplayKey) -> BoxFuture<'a, Result<Attempt>> {
        Box::pin(async move {
            let now = Timestamp::now();
            let (stale, expires) = (now.minus(GIVEN_UP), now.plus(LIFETIME));
            let claim = self.store.replays().claim(&claim_key(key), &self.owner, now, stale, expires).await?;
            match claim {
                Claim::First => Ok(Attempt::First),
                Claim::Unfinished => Ok(Attempt::Unknown),
                Claim::Done(output) => {
                    serde_json::from_str(&output).map(Attempt::Done).map_err(Error::internal)
                }
                Claim::Running => {
                    let message = "the first call with this idempotency key is still running";
                    Err(Error::new(Code::Conflict, message)
                        .retry_after(Duration::from_secs(1))
                        .hint("repeat it a little later"))
                }
                Claim::Other => {
                    let message = "this idempotency key was used for another request";
                    Err(Error::idempotency_misuse(message).hint("use a new key for each request"))
                }
            }
        })
    }

    fn finish<'a>(&'a self, key: &'a ReplayKey, output: Option<&'a Value>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let output = output.map(Value::to_string);
            Ok(self.store.replays().finish(&claim_key(key), output.as_deref()).await?)
        })
    }
}

fn claim_key(key: &ReplayKey) -> ClaimKey<'_> {
    ClaimKey { tenant: key.tenant, credential: key.credential, name: &key.key, digest: &key.digest }
}
