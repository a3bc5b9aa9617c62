//! `secret_set`: stores a secret that can be used and never read.

use kernel::{Code, Env, Error, Result, Scope, Secret};
use sandbox::egress::{Bound, Places, Unbindable, placeholder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tool::{Cx, Effect, Spec, Tool};

use crate::bridge::patterns;
use crate::platform::Platform;

pub struct SecretSet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Such as STRIPE_KEY.
    name: String,
    /// Its value.
    #[schemars(with = "String")]
    value: Secret,
    /// Only for what sandboxes send to these: they get a placeholder as the variable of that name.
    hosts: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// How often it has been set.
    version: i64,
}

impl Tool<Platform> for SecretSet {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Set a secret",
        about: "Stores a value for the app's server side. It cannot be read back.",
        scopes: &[Scope::SecretWrite],
        effect: Effect::Idempotent,
        examples: &[
            r#"{"name":"EXAMPLE_KEY","value":"s3cret"}"#,
            r#"{"name":"GIT_TOKEN","value":"s3cret-s3cret","hosts":["git.example.com"]}"#,
        ],
    };

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let (secrets, name) = (platform.control.secrets(), input.name.as_str());
        let set = match input.hosts {
            None => secrets.set(env, name, &input.value).await?,
            Some(hosts) => {
                bindable(name, &input.value, &hosts)?;
                if let Some(at) = platform.releases.use_of_secret(env, name).await? {
                    let message = format!("the app uses {name}, in {at} of its manifest");
                    return Err(Error::new(Code::Conflict, message).field("/hosts").hint(
                        "an app cannot use one that is bound to hosts: set another one for sandboxes",
                    ));
                }
                secrets.set_egress(env, name, hosts, &input.value).await?
            }
        };
        platform.reach_changed(env).await;
        Ok(Output { version: set.version })
    }
}

/// That the way out of sandboxes can use it.
fn bindable(name: &str, value: &Secret, hosts: &[String]) -> Result<()> {
    let patterns = patterns(hosts).map_err(|error| error.field("/hosts"))?;
    let bound = Bound::new(name, placeholder(name)?, value.clone(), patterns, Places::Headers);
    bound.map(drop).map_err(|unbindable| {
        let field = match unbindable {
            Unbindable::Value(_) => "/value",
            Unbindable::Placeholder(_) => "/name",
            Unbindable::Hosts(_) => "/hosts",
        };
        Error::from(unbindable).field(field)
    })
}
