//! How strongly all sandboxes of an environment must be kept apart at least, as its tenant demands.

use kernel::EnvId;

use crate::of_env::OfEnv;
use crate::{Result, Store};

const LEAST: OfEnv = OfEnv {
    get: "SELECT isolation FROM demands WHERE env = $1",
    remove: "DELETE FROM demands WHERE env = $1",
    add: "INSERT INTO demands (env, isolation) VALUES ($1, $2)",
};

/// The demands of environments that have one.
pub struct Demands<'a>(pub(crate) &'a Store);

impl Demands<'_> {
    /// The least isolation, by its name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, env: EnvId) -> Result<Option<String>> {
        LEAST.get(self.0, env).await
    }

    /// Sets it, or takes it back; `false` where the environment is not a ready one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, env: EnvId, isolation: Option<&str>) -> Result<bool> {
        LEAST.set(self.0, env, isolation).await
    }
}
