//! Code that a release brings: who may bring it, and that it starts before it answers.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kernel::{Code, Env, Error, Result, Scope};

use super::Releases;
use super::building::BUILDS_AT_ONCE;
use super::entrusting::{Among, Entrusted};
use super::events;
use super::goal::Goal;
use super::manifest::Manifest;
use super::rehearsal::Release;
use crate::functions::{FunctionName, Functions, Handlers};
use crate::schedules::Schedules;

/// How far functions are brought before a release has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// They are built, and nothing of theirs has run.
    Built,
    /// Those that have changed have started.
    Started,
}

/// That who acts may bring what a manifest says of functions.
///
/// # Errors
/// `forbidden` at it.
pub(super) fn may_bring(env: &Env, manifest: &Manifest) -> Result<()> {
    let functions = manifest.functions.as_ref().map(|_| FUNCTIONS);
    let code = functions.or_else(|| manifest.services.as_ref().map(|_| SERVICES));
    let code = code.or_else(|| manifest.schedules.as_ref().map(|_| SCHEDULES));
    may(env, code.or_else(|| manifest.variables.as_ref().map(|_| VARIABLES)))
}

/// The same of what has been prepared, over what is there.
///
/// # Errors
/// `forbidden` at it.
pub(super) fn may_lead(env: &Env, goal: &Goal, base: &Release) -> Result<()> {
    let variables = |manifest: &Manifest| manifest.variables.clone().unwrap_or_default();
    let schedules = |manifest: &Manifest| manifest.schedules.clone().unwrap_or_default();
    let at = match goal {
        Goal::Apply { functions: Some(_), .. } => Some(FUNCTIONS),
        Goal::Apply { services: Some(_), .. } => Some(SERVICES),
        Goal::Apply { manifest, .. } => {
            let schedules = manifest.schedules.as_ref().map(|_| SCHEDULES);
            schedules.or_else(|| manifest.variables.as_ref().map(|_| VARIABLES))
        }
        Goal::Whole { functions, .. } if *functions != base.functions => Some(FUNCTIONS),
        Goal::Whole { manifest, .. } if schedules(manifest) != schedules(&base.manifest) => Some(SCHEDULES),
        Goal::Whole { manifest, .. } => {
            (variables(manifest) != variables(&base.manifest)).then_some(VARIABLES)
        }
        // What has no manifest is asked for by the tools that make it, with their own scopes.
        Goal::Access { .. }
        | Goal::DropTable { .. }
        | Goal::Bucket { .. }
        | Goal::DropBucket { .. }
        | Goal::Function { .. }
        | Goal::DropFunction { .. }
        | Goal::DropService { .. }
        | Goal::Back { .. } => None,
    };
    may(env, at)
}

const FUNCTIONS: &str = "/functions";
const SERVICES: &str = "/services";
const VARIABLES: &str = "/variables";
const SCHEDULES: &str = "/schedules";

fn may(env: &Env, at: Option<&str>) -> Result<()> {
    let Some(at) = at else { return Ok(()) };
    env.permits(&[Scope::FunctionWrite]).map_err(|lacking| {
        let what = match at {
            FUNCTIONS => "functions run code",
            SERVICES => "services run code",
            SCHEDULES => "schedules run code",
            _ => "variables change what functions do",
        };
        Error::new(Code::Forbidden, format!("{what}: {}", lacking.message()))
            .field(at)
            .hint("use a credential with function:write, or leave them as they are")
    })
}

/// Refuses a function that a schedule names and that cannot be asked by one, where that is known.
///
/// # Errors
/// `invalid_input` without its place.
pub(super) fn answers(name: &FunctionName, handlers: &Option<Handlers>) -> Result<()> {
    let can = |handlers: &Handlers| handlers.iter().any(|it| it == "scheduled" || it == "main");
    if handlers.as_ref().is_none_or(can) {
        return Ok(());
    }
    let message = format!("the function {name} has no handler that a schedule could ask");
    Err(Error::invalid("", message)
        .hint("export default { async scheduled(event, env, ctx) { … } }, or exports.main, and deploy it"))
}

impl Releases {
    /// Sees that the functions of a goal start, and that those have a handler which its schedules name: who has planned them
    /// has not run them.
    ///
    /// # Errors
    /// As [`Releases::started`].
    pub(super) async fn planned_started(&self, env: &Env, goal: &Goal, base: &Release) -> Result<()> {
        let Goal::Apply { manifest, functions, .. } = goal else { return Ok(()) };
        let timed = manifest.schedules.as_ref().or(base.manifest.schedules.as_ref());
        for brought in goal.brought() {
            self.all_started(env, brought, manifest.variables.as_ref(), timed, base).await?;
        }
        if functions.is_none() && manifest.schedules.is_some() {
            self.all_started(env, &base.functions, None, timed, base).await?;
        }
        Ok(())
    }

    /// Sees that those of `functions` start that are not as in `base`, with the variables that come with them, and those that
    /// the schedules name anew.
    ///
    /// # Errors
    /// As [`Releases::started`]; `invalid_input` at a schedule whose function has no handler for it.
    async fn all_started(
        &self,
        env: &Env,
        functions: &Functions,
        variables: Option<&BTreeMap<String, String>>,
        schedules: Option<&Schedules>,
        base: &Release,
    ) -> Result<()> {
        let was = base.manifest.variables.clone().unwrap_or_default();
        let was = &was;
        let app = variables.unwrap_or(was);
        let mut starts: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for (name, function) in functions {
            let before = base.functions.get(name);
            let timed = schedules.and_then(|all| all.iter().find(|(_, it)| it.function == *name));
            let known = base.manifest.schedules.iter().flatten().any(|(_, it)| it.function == *name);
            if before != Some(function) || app != was || (timed.is_some() && !known) {
                starts.push(Box::pin(async move {
                    let before = before.map(|function| Among { function, app: was });
                    let started = self.started(env, name, Among { function, app }, before).await;
                    let handlers = started.map_err(|e| e.under(&function.place(name)))?;
                    events::answers(name, &function.settings.events, &handlers)
                        .map_err(|e| e.under(&function.place(name)))?;
                    match timed {
                        Some((schedule, _)) => answers(name, &handlers)
                            .map_err(|e| e.field(format!("/schedules/{schedule}/function"))),
                        None => Ok(()),
                    }
                }));
            }
        }
        stream::iter(starts).buffer_unordered(BUILDS_AT_ONCE).try_collect().await
    }

    /// Sees that a function starts, where anything here can start it, in place of what it was `before`, and tells its handlers;
    /// none where nothing can.
    ///
    /// # Errors
    /// `forbidden` where it would be given a secret, or other code would, by somebody who may not; of [`crate::functions::Builder::start`].
    pub(super) async fn started(
        &self,
        env: &Env,
        name: &FunctionName,
        function: Among<'_>,
        before: Option<Among<'_>>,
    ) -> Result<Option<Handlers>> {
        // When it starts it has them.
        Entrusted::to(name, before, function).may_start(env)?;
        match &self.builder {
            Some(builder) => builder.start(env, name, function.function, function.app).await.map(Some),
            None => Ok(None),
        }
    }
}
