//! `domain_set`: gives the app a domain of its own.

use capabilities::domains::{Given, Set};
use kernel::{Env, Error, Result, Scope, Secret};
use schemars::JsonSchema;
use serde::Deserialize;
use tool::{Cx, Effect, Spec, Tool};

use crate::platform::Platform;

pub struct DomainSet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    domain: String,
    /// Browsers come by HTTPS only.
    hsts: Option<bool>,
    /// One's own, as PEM, once proven; with its key.
    certificate: Option<String>,
    #[schemars(with = "Option<String>")]
    key: Option<Secret>,
}

impl Tool<Platform> for DomainSet {
    type Proof = Env;
    type Input = Input;
    type Output = Set;

    const SPEC: Spec = Spec {
        title: "Set a domain",
        about: "Claims a domain for the app and returns the DNS records to make; domain_check then proves it.",
        scopes: &[Scope::AppWrite],
        effect: Effect::Idempotent,
        examples: &[r#"{"domain":"shop.example.com"}"#],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Set> {
        let (platform, env) = (cx.platform(), cx.env());
        let name = platform.domains.name(&input.domain)?;
        let certificate = match (input.certificate, input.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Error::invalid("/key", "a certificate needs its key")),
            (None, Some(_)) => return Err(Error::invalid("/certificate", "a key needs its certificate")),
        };
        let slug = platform.slug(env).await?;
        platform.domains.set(env, &slug, &name, Given { hsts: input.hsts, certificate }).await
    }
}
