//! The port to whoever checks credentials.

use std::net::IpAddr;
use std::sync::Arc;

use control::Control;
use futures::FutureExt;
use futures::future::BoxFuture;
use kernel::{Caller, Code, Error, Result, Surface};

/// What a request says of who sends it, and of where it wants to go.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The credential.
    pub bearer: Option<&'a str>,
    /// The environment, by slug or id.
    pub env: Option<&'a str>,
    /// The tenant, by slug or id.
    pub tenant: Option<&'a str>,
    /// The door.
    pub surface: Surface,
    /// The address it comes from, proxies of ours looked through.
    pub source: Option<IpAddr>,
    /// The address of the platform that was dialled.
    pub at: Option<&'a Arc<str>>,
}

/// Turns a request's credential and its choice of environment into a caller.
pub trait Gate: Send + Sync + 'static {
    /// The caller behind the credential, in the environment and the tenant that are named.
    ///
    /// Without an environment, a credential of a whole tenant gives a caller without an environment.
    ///
    /// # Errors
    /// `unauthenticated` where the credential is missing or not valid; `not_found` where the environment or the
    /// tenant does not exist or is not the credential's.
    fn caller<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Arc<Caller>>>;

    /// What a caller without an environment is told when it calls a tool that needs one: `invalid_input` with
    /// the slugs it may choose from.
    fn missing_env<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, Error>;
}

impl Gate for Control {
    fn caller<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Arc<Caller>>> {
        async move {
            let Some(bearer) = shown.bearer else {
                return Err(Error::new(Code::Unauthenticated, "there is no credential")
                    .hint("send Authorization: Bearer with a key; `steading key create` makes one"));
            };
            let caller = self.authenticate_at(bearer, shown.surface, shown.source, shown.at).await?;
            self.select_env(&caller, shown.env, shown.tenant).await
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
