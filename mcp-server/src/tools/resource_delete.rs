//! `resource_delete`: removes one thing from an environment.

use capabilities::releases::Removal;
use kernel::{Env, Error, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use super::confirm::{Confirm, Deletion, LOSSES, unconfirmed};
use super::outcome::lines;
use crate::platform::Platform;

pub struct ResourceDelete;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    kind: Kind,
    /// Its name; none for the site.
    name: Option<String>,
    dry_run: Option<bool>,
    /// From the dry run.
    confirm: Option<String>,
}

// What can be deleted, which models are told by the names.
#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Table,
    Bucket,
    Function,
    Service,
    Site,
    Secret,
    Domain,
    Snapshot,
}

impl Tool<Platform> for ResourceDelete {
    type Proof = Env;
    type Input = Input;
    type Output = Deletion;

    const SPEC: Spec = Spec {
        title: "Delete a resource",
        about: "Deletes a table, a bucket, a function, a service, the site, a secret, a domain or a snapshot. Needs a dry run first.",
        scopes: &[Scope::ResourceDelete],
        effect: Effect::Destroy,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Deletion> {
        let (platform, env) = (cx.platform(), cx.env());
        let name = input.name.as_deref();
        let named =
            || name.ok_or_else(|| Error::invalid("/name", "this kind needs the name of what to delete"));
        let removal = match input.kind {
            Kind::Table => Removal::Table(named()?.to_owned()),
            Kind::Bucket => Removal::Bucket(named()?.to_owned()),
            Kind::Function => Removal::Function(named()?.to_owned()),
            Kind::Service => Removal::Service(named()?.to_owned()),
            Kind::Site => Removal::Site,
            Kind::Snapshot => {
                let found = platform.snapshots.find(env, named()?).await.map_err(|e| e.field("/name"))?;
                let subject = format!("{} snapshot {}", env.id(), found.snapshot);
                let effects = vec![format!("the state of {} cannot be restored any more", found.created_at)];
                let snapshot = found.snapshot.to_string();
                let gone = async || platform.snapshots.remove(env, &snapshot).await.map(drop);
                return confirmed(platform, &input, subject, effects, gone).await;
            }
            Kind::Secret => {
                let name = named()?;
                if !platform.secrets(env).await?.iter().any(|have| have == name) {
                    return Err(Error::not_found(format!("secret {name:?}")).field("/name"));
                }
                let subject = format!("{} secret {name}", env.id());
                let mut effects = vec![format!("the value of {name} is deleted")];
                if let Some(at) = platform.releases.use_of_secret(env, name).await? {
                    effects.push(format!(
                        "{at} of the live manifest names it, which fails until it is set again"
                    ));
                }
                let gone = async || {
                    platform.control.secrets().delete(env, name).await?;
                    platform.reach_changed(env).await;
                    Ok(())
                };
                return confirmed(platform, &input, subject, effects, gone).await;
            }
            Kind::Domain => {
                let name = platform.domains.name(named()?).map_err(|error| error.field("/name"))?;
                if !platform.domains.list(env).await?.iter().any(|have| have.domain == name.as_str()) {
                    return Err(Error::not_found(format!("domain {name} in this environment")).field("/name"));
                }
                let subject = format!("{} domain {name}", env.id());
                let effects =
                    vec![format!("the app stops to answer at {name}, whose certificate is deleted")];
                let gone = async || platform.domains.remove(env, &name).await;
                return confirmed(platform, &input, subject, effects, gone).await;
            }
        };
        let words = |effects: &[capabilities::releases::Effect]| {
            let words = effects.iter().map(|e| format!("{}: {}", e.target, e.message)).collect();
            lines(words, LOSSES)
        };
        match (input.dry_run.unwrap_or_default(), input.confirm) {
            (false, Some(confirm)) => {
                let applied = platform.releases.remove(env, &removal, &confirm, cx.cancel()).await?;
                Ok(Deletion { deleted: applied.changed, effects: words(&applied.effects), confirm: None })
            }
            (dry, _) => {
                let plan = platform.releases.plan_removal(env, removal).await?;
                let effects = words(&plan.effects);
                if dry {
                    return Ok(Deletion { deleted: false, effects, confirm: Some(plan.confirmation()) });
                }
                Err(unconfirmed(&effects))
            }
        }
    }
}

/// Deletes by `gone`, after a dry run has named `effects`.
async fn confirmed(
    platform: &Platform,
    input: &Input,
    subject: String,
    effects: Vec<String>,
    gone: impl AsyncFnOnce() -> Result<()>,
) -> Result<Deletion> {
    let confirm = Confirm { action: "resource_delete", subject: &subject, losses: &effects };
    if input.dry_run.unwrap_or_default() {
        let confirm = Some(confirm.issue(platform));
        return Ok(Deletion { deleted: false, effects, confirm });
    }
    confirm.redeem(platform, input.confirm.as_deref()).await?;
    gone().await?;
    Ok(Deletion { deleted: true, effects, confirm: None })
}
