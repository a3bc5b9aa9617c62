//! The third door of the tools: what runs in a sandbox calls those of its run, through the sandbox's own socket.
//!
//! A run has no rights of its own. What it may do is looked up for each call: what the credential may at that moment whose
//! workspace it runs in, of that only what a run may have, in the one environment, with the tools of its token.

use std::collections::BTreeSet;
use std::sync::Arc;

use control::EgressSecret;
use futures::future::BoxFuture;
use hands::{Lent, Reach};
use kernel::{Caller, Code, Env, Error, Held, KeyId, Principal, Result, SandboxId, Scope, Scopes, Surface};
use sandbox::bridge::Grant;
use sandbox::egress::{Pattern, Unreadable};
use serde_json::{Map, Value};

use crate::doors::Doors;
use crate::mcp::messages::Messages;
use crate::platform::{OPERATOR, Platform, owner_of};

/// The tools of a run: rows, files, logs, and what the app is. Nothing that hands out access, takes a whole thing away, or
/// reaches beyond the environment. A link that `storage_sign` makes would outlive the run.
pub const TOOLS: [&str; 10] = [
    "app_describe",
    "client_code",
    "db_execute",
    "db_load",
    "db_query",
    "logs_query",
    "skill_read",
    "storage_get",
    "storage_list",
    "storage_put",
];

/// The most that a run may do, whatever its credential may.
const SCOPES: [Scope; 6] =
    [Scope::AppRead, Scope::DbRead, Scope::DbWrite, Scope::StorageRead, Scope::StorageWrite, Scope::LogsRead];

/// What a model is told that works inside.
const INSTRUCTIONS: &str = "The data of the app that this sandbox belongs to: its rows, files, logs, and what it is. \
    Call app_describe first. Unknown input fields are refused. A failed call says what to do next in hint.";

/// Answers the calls that come over the bridges of all sandboxes.
pub struct Bridge {
    platform: Arc<Platform>,
    messages: Messages<Platform>,
    tools: Arc<BTreeSet<String>>,
}

impl Bridge {
    /// Answers from the registry of `doors`.
    #[must_use]
    pub fn new(doors: Arc<Doors<Platform>>) -> Self {
        let tools = Arc::new(TOOLS.iter().map(|tool| (*tool).to_owned()).collect());
        Self { platform: Arc::clone(&doors.platform), messages: Messages::new(doors, INSTRUCTIONS), tools }
    }

    pub(crate) async fn caller(&self, grant: &Grant) -> Result<Arc<Caller>> {
        let gone = || {
            Error::new(Code::Unauthenticated, "the credential that the run stands for is not valid any more")
                .hint("nothing can be called from here; the sandbox ends soon")
        };
        let workspace = self.platform.hands.of_sandbox(grant.sandbox).await?;
        let workspace = workspace.filter(|workspace| workspace.env == grant.env).ok_or_else(gone)?;
        let owner = owner_of(&workspace);
        let held = Held::to(grant.tools.iter().cloned());
        let (own, held, above) = if owner == OPERATOR {
            (Scopes::of_environment(), held, Vec::new())
        } else {
            let id: KeyId = owner.parse().map_err(|_| gone())?;
            let standing = self.platform.control.tokens().standing_of_owner(id).await?.filter(|standing| {
                standing.opens(workspace.tenant, workspace.env) && standing.scopes.contains(Scope::SandboxUse)
            });
            let standing = standing.ok_or_else(gone)?;
            // What holds the credential holds what runs for it.
            let above = std::iter::once(standing.root).chain(standing.path).collect();
            (standing.scopes, held.and(&standing.held), above)
        };
        let scopes = SCOPES.into_iter().collect::<Scopes>().intersection(own);
        let run = Principal::Run(grant.run);
        let caller = Caller::new(run, workspace.tenant, grant.run.into(), scopes).by(Surface::Mcp, None);
        let caller = caller.held_to(Some(Arc::new(held))).standing_on(above);
        self.platform.control.select_env(&Arc::new(caller), Some(&grant.env.to_string()), None).await
    }
}

impl sandbox::bridge::Tools for Bridge {
    fn answer<'a>(
        &'a self,
        sandbox: SandboxId,
        token: &'a str,
        message: Map<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(async move {
            let pass = self.platform.hands.pass(sandbox, token)?;
            let caller = self.caller(pass.grant()).await?;
            self.messages.answer(caller, message).await
        })
    }
}

impl hands::Platform for Bridge {
    fn tools(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.tools)
    }

    fn reach<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Reach>> {
        Box::pin(async move {
            let control = &self.platform.control;
            let within = control.store().egress().get(env.id()).await?;
            let within = within.map(|hosts| patterns(&hosts)).transpose()?;
            let lent = |secret: EgressSecret| {
                let EgressSecret { name, hosts, value } = secret;
                Ok(Lent { name, hosts: patterns(&hosts)?, value })
            };
            let secrets = control.secrets().egress(env).await?;
            // What is sent to its hosts may come back in an answer, and be shown.
            self.platform.masks.add(env.id(), secrets.iter().map(|secret| &secret.value));
            let secrets = secrets.into_iter().map(lent).collect::<Result<_>>()?;
            Ok(Reach { within, secrets })
        })
    }
}

/// Hosts as they are written.
///
/// # Errors
/// `invalid_input` for the first that is none.
pub fn patterns(hosts: &[String]) -> Result<Vec<Pattern>> {
    hosts.iter().map(|host| host.parse().map_err(|unreadable: Unreadable| unreadable.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tool::Effect;

    #[test]
    fn a_runs_tools_are_there_and_none_of_them_needs_more_than_a_run_may() {
        let registry = crate::tools::registry();
        let most: Scopes = SCOPES.into_iter().collect();
        for name in TOOLS {
            let doc = registry.doc(name).unwrap();
            assert!(doc.scopes().iter().all(|scope| most.contains(scope)), "{name}");
            assert_ne!(doc.spec.effect, Effect::Destroy, "{name}");
        }
        for beyond in
            [Scope::SandboxUse, Scope::SecretWrite, Scope::AppWrite, Scope::AuthRead, Scope::KeyAdmin]
        {
            assert!(!most.contains(beyond), "{beyond}");
        }
    }
}
