//! What may be shown of how calls come out: nothing of what their environment was given in secret.

use std::collections::HashMap;
use std::time::Duration;

use control::SecretKind;
use kernel::{Caller, Code, Env, Proof as _, Result};
use serde_json::Value;
use tool::Effect;

use crate::platform::Platform;

/// So long, calls that read do without a look at which secrets there are.
const LATELY: Duration = Duration::from_secs(5);

impl Platform {
    /// The outcome of a call without the values of its environment's secrets.
    pub(crate) async fn without_secrets(
        &self,
        caller: &Caller,
        effect: Effect,
        outcome: Result<Value>,
    ) -> Result<Value> {
        let Some(env) = caller.env else { return outcome };
        if effect != Effect::Read || !self.masks.were_read(env, LATELY) {
            let learned = match Env::authorize(caller, &[]) {
                Ok(env) => self.learn(&env).await,
                Err(error) => Err(error),
            };
            if let Err(error) = learned {
                tracing::warn!(env.id = %env, error = error.chain(), "not every secret of an environment can be covered");
            }
        }
        match outcome {
            Ok(value) => Ok(self.masks.cover_all(env, value)),
            Err(error) => Err(self.masks.covered(env, error)),
        }
    }

    /// Has every secret of the environment be known here. Only those are opened that were set since the last time.
    async fn learn(&self, env: &Env) -> Result<()> {
        let secrets = self.control.secrets();
        let there = secrets.names(env).await?;
        let unknown = self
            .masks
            .unknown(env.id(), there.iter().map(|info| (info.name.as_str(), info.updated_at.as_micros())));
        let mut values = Vec::new();
        let mut versions: HashMap<_, _> =
            there.iter().map(|info| (info.name.clone(), info.updated_at.as_micros())).collect();
        let mut failed = None;
        let egress = |name: &str| there.iter().any(|it| it.name == name && it.kind == SecretKind::Egress);
        for (n, name) in unknown.iter().enumerate().filter(|(_, name)| !egress(name)) {
            match secrets.reveal(env, name).await {
                Ok(value) => values.push(value),
                // What nobody can open, nobody can say. It is tried again.
                Err(error) => {
                    versions.remove(*name);
                    let is_away = error.code() == Code::Unavailable;
                    failed = Some(error);
                    if is_away {
                        // Nor are the others opened now, and nobody waits for each of them.
                        for name in unknown.get(n..).unwrap_or_default() {
                            versions.remove(*name);
                        }
                        self.masks.add(env.id(), values.iter());
                        self.masks.were_added(env.id(), versions);
                        return failed.map_or(Ok(()), Err);
                    }
                }
            }
        }
        if unknown.iter().any(|name| egress(name)) {
            match secrets.egress(env).await {
                Ok(all) => values.extend(all.into_iter().map(|secret| secret.value)),
                Err(error) => {
                    versions.retain(|name, _| !egress(name));
                    failed = Some(error);
                }
            }
        }
        self.masks.add(env.id(), values.iter());
        self.masks.were_added(env.id(), versions);
        failed.map_or(Ok(()), Err)
    }
}
