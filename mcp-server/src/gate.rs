//! The port to whoever checks credentials.

use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{Caller, Error, Result, Surface};

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
