//! Who calls: the gate of both doors, on the control plane.

use std::sync::Arc;

use control::Control;
use futures::future::BoxFuture;
use kernel::{Caller, Code, Error, Result, Surface};
use mcp_server::gate::Gate;

/// Checks keys and tokens, and chooses environments.
pub struct KeyGate(pub Arc<Control>);

impl Gate for KeyGate {
    fn caller<'a>(
        &'a self,
        bearer: Option<&'a str>,
        env: Option<&'a str>,
        tenant: Option<&'a str>,
        surface: Surface,
    ) -> BoxFuture<'a, Result<Arc<Caller>>> {
        Box::pin(async move {
            let bearer = bearer.ok_or_else(|| {
                Error::new(Code::Unauthenticated, "there is no credential")
                    .hint("send Authorization: Bearer with a key; `steading key create` makes one")
            })?;
            let caller = self.0.authenticate(bearer, surface).await?;
            self.0.select_env(&caller, env, tenant).await
        })
    }

    fn missing_env<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Error> {
        Box::pin(async move {
            let slugs = match self.0.env_slugs(caller).await {
                Ok(slugs) => slugs,
                Err(error) => return error,
            };
            let there = match slugs.as_slice() {
                [] => "there is none yet: make one with env_create".to_owned(),
                slugs => format!("there are: {}", slugs.join(", ")),
            };
            Error::new(Code::InvalidInput, format!("this call needs an environment; {there}"))
                .hint("name one with the header Steading-Env, or use /mcp/<environment>")
        })
    }
}
