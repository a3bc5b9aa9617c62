//! Where sandboxes of an environment may go, of what the operator allows to all.

use kernel::EnvId;

use crate::of_env::OfEnv;
use crate::{Result, Store};

const HOSTS: OfEnv = OfEnv {
    get: "SELECT allow FROM egress WHERE env = $1",
    remove: "DELETE FROM egress WHERE env = $1",
    add: "INSERT INTO egress (env, allow) VALUES ($1, $2)",
};

/// The lists of environments that have one.
pub struct Egress<'a>(pub(crate) &'a Store);

impl Egress<'_> {
    /// The hosts, a line each; `None` where all that the operator allows are allowed.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn get(&self, env: EnvId) -> Result<Option<Vec<String>>> {
        let hosts = HOSTS.get(self.0, env).await?;
        Ok(hosts.map(|hosts| hosts.lines().map(str::to_owned).collect()))
    }

    /// Sets them, or goes back to all; `false` where the environment is not a ready one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn set(&self, env: EnvId, allow: Option<&[String]>) -> Result<bool> {
        let hosts = allow.map(|allow| allow.join("\n"));
        HOSTS.set(self.0, env, hosts.as_deref()).await
    }
}
