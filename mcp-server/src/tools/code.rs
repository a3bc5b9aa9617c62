//! What the tools have in common that deploy code, of a function or of a service.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use capabilities::functions::{Access, FunctionName};
use capabilities::releases::CodeChange;
use kernel::{Env, Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use tool::Cx;

use crate::platform::Platform;

/// Steps of a deployment, about.
const STEPS: u32 = 5;

/// What has been deployed.
#[derive(Serialize, JsonSchema)]
pub struct Deployed {
    /// What runs; the same for the same code that is run in the same way.
    version: String,
    /// Where it answers.
    url: String,
    /// Who may ask it there.
    access: Access,
    /// The current release.
    release: u64,
    /// Whether anything was done.
    changed: bool,
}

/// What a function or a service is called.
///
/// # Errors
/// `invalid_input` at the field.
pub fn named(name: &str) -> Result<FunctionName> {
    name.parse().map_err(|error| Error::invalid("/name", format!("{error}")))
}

/// Deploys a function or a service; its steps are told as progress. With `of_workspace` its files lie in the caller's sandbox.
///
/// # Errors
/// As `Releases::deploy_code`, at the fields of the tools.
pub async fn deploy(
    cx: &Cx<'_, Platform, Env>,
    name: FunctionName,
    change: CodeChange,
    of_workspace: bool,
) -> Result<Deployed> {
    let (platform, env) = (cx.platform(), cx.env());
    let done = AtomicU32::new(0);
    let note = |said: &str| {
        let step = done.fetch_add(1, Ordering::Relaxed) + 1;
        cx.progress(step.min(STEPS), STEPS, said.to_owned());
    };
    let secrets = platform.app_secrets(env).await?;
    let base = platform.url(env).await?;
    let deployed =
        platform.releases.deploy_code(env, name.clone(), change, &secrets, &note, cx.cancel()).await;
    // What lies in the sandbox is not in the input, and what is one field of the input may be deeper in what is deployed.
    let (applied, code) = deployed.map_err(|error| {
        let error = platform.masks.covered(env.id(), error);
        match error.pointer() {
            Some(at) if of_workspace && at.starts_with("/files") => error.field("/workspace_path"),
            Some("/health/path") => error.field("/health_path"),
            _ => error,
        }
    })?;
    Ok(Deployed {
        version: code.version(),
        url: format!("{base}{}", code.path(&name)),
        access: code.settings.access,
        release: applied.release,
        changed: applied.changed,
    })
}

/// Who may ask it, to a model.
pub fn access(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["public", "signed_in", "service"] })
}

/// Variables, to a model.
pub fn variables(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// Names, each once and in order.
pub fn distinct(names: Vec<String>) -> Vec<String> {
    names.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}
