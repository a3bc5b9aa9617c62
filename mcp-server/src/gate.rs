//! The port to whoever checks credentials.

use std::sync::Arc;

use control::Control;
use futures::FutureExt;
use futures::future::BoxFuture;
use kernel::{Caller, Code, Error, Result, Surface};

/// Turns a request's credential and its choice of environment into a caller.
pub trait Gate: Send + Sync + 'static {
    /// The caller behind `bearer`, in the environment `env` (a slug or an id) of the tenant `tenant`.
    ///
    /// Without `env`, a credential of a whole tenant gives a caller without an environment.
    ///
    /// # Errors
    /// `unauthenticated` where the credential is missing or not valid; `not_found` where the environment or the
    /// tenant does not exist or is not the credential's.
    fn caller<'a>(
        &'a self,
        bearer: Option<&'a str>,
        env: Option<&'a str>,
        tenant: Option<&'a str>,
        surface: Surface,
    ) -> BoxFuture<'a, Result<Arc<Caller>>>;

    /// What a caller without an environment is told when it calls a tool that needs one: `invalid_input` with
    /// the slugs it may choose from.
    fn missing_env<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Error>;
}

impl Gate for Control {
    fn caller<'a>(
        &'a self,
        bearer: Option<&'a str>,
        env: Option<&'a str>,
        tenant: Option<&'a str>,
        surface: Surface,
    ) -> BoxFuture<'a, Result<Arc<Caller>>> {
        async move {
            let Some(bearer) = bearer else {
                return Err(Error::new(Code::Unauthenticated, "there is no credential")
                    .hint("send Authorization: Bearer with a key; `steading key create` makes one"));
            };
            let caller = self.authenticate(bearer, surface).await?;
            self.select_env(&caller, env, tenant).await
        }
        .boxed()
    }

    fn missing_env<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Error> {
        async move {
            let there = match self.env_slugs(caller).await {
                Ok(slugs) if slugs.is_empty() => "there is none yet: make one with env_create".to_owned(),
                Ok(slugs) => format!("there are: {}", slugs.join(", ")),
                Err(error) => return error,
            };
            Error::new(Code::InvalidInput, format!("this call needs an environment; {there}"))
                .hint("name one with the header Steading-Env, or use /mcp/<environment>")
        }
        .boxed()
    }
}
