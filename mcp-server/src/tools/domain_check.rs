//! `domain_check`: looks a domain up and says what is missing.

use capabilities::domains::Checked;
use kernel::{Env, Result, Scope};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DomainCheck;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    domain: String,
}

impl Tool<Platform> for DomainCheck {
    type Proof = Env;
    type Input = Input;
    type Output = Checked;

    const SPEC: Spec = Spec {
        title: "Check a domain",
        about: "Looks a domain's records and certificate up: what is wrong, and the next step.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Checked> {
        let platform = cx.platform();
        let name = platform.domains.name(&input.domain)?;
        let slug = platform.slug(cx.env()).await?;
        platform.domains.check(cx.env(), &slug, &name).await
    }
}
