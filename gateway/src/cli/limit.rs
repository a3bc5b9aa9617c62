//! `steading limit`: what holds for a tenant and an environment, and the plans that say so.

use clap::Subcommand;
use kernel::Error;
use reqwest::Method;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure};

/// Show limits and what is left of them; list and set plans
#[derive(Debug, clap::Args)]
pub struct Limit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the limits of the tenant, and of the environment of --env
    Show,
    /// List the plans
    Plans,
    /// Set a plan, all of it, for all that have it at once
    Set {
        /// Its name
        plan: String,
        /// A limit, as tenant.environments=50 or environment.database_bytes=1073741824; what is not named is as configured
        #[arg(value_name = "NAME=NUMBER")]
        limits: Vec<String>,
    },
    /// Remove a plan that nobody has
    Remove {
        /// Its name
        plan: String,
    },
}

impl Limit {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client, &context).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

type Words = fn(&Value) -> String;

impl Command {
    async fn run(self, client: &mut Client, context: &Context) -> Result<(Value, Words), Failure> {
        let path = |plan: &str| format!("/v1/plans/{}", segment(plan));
        Ok(match self {
            Self::Show => {
                let mut query = Serializer::new(String::new());
                query.extend_pairs(context.surroundings.env.as_deref().map(|env| ("env", env)));
                let query = query.finish();
                let query = if query.is_empty() { query } else { format!("?{query}") };
                (client.call(Method::GET, &format!("/v1/limits{query}"), None).await?, shown)
            }
            Self::Plans => (client.call(Method::GET, "/v1/plans", None).await?, listed),
            Self::Set { plan, limits } => {
                let set = client.call(Method::PUT, &path(&plan), Some(&bounds(&limits)?)).await?;
                (set, |it| format!("{}: {}", cell(&it["plan"]), in_words(it)))
            }
            Self::Remove { plan } => {
                let removed = client.call(Method::DELETE, &path(&plan), None).await?;
                (removed, |it| format!("{} is removed", cell(&it["plan"])))
            }
        })
    }
}

/// Limits that are written as `tenant.environments=50`.
pub fn bounds(limits: &[String]) -> Result<Value, Failure> {
    let mut bounds = json!({});
    for limit in limits {
        let read = limit.split_once('=').and_then(|(name, number)| {
            let (part, name) = name.split_once('.')?;
            Some((part, name, number.parse::<u64>().ok()?))
        });
        let Some((part, name, number)) = read else {
            let message = format!("{limit:?} is no limit");
            return Err(Error::invalid("/limit", message).hint("write it as tenant.environments=50").into());
        };
        bounds[part][name] = number.into();
    }
    Ok(bounds)
}

fn in_words(plan: &Value) -> String {
    let parts = ["tenant", "environment"].into_iter().flat_map(|part| {
        let limits = plan[part].as_object().into_iter().flatten();
        limits.map(move |(name, number)| format!("{part}.{name}={number}"))
    });
    let words: Vec<_> = parts.collect();
    if words.is_empty() { "as configured".to_owned() } else { words.join(" ") }
}

fn listed(answer: &Value) -> String {
    let plans = answer["plans"].as_array().into_iter().flatten();
    table(&["PLAN", "LIMITS"], &plans.map(|it| vec![cell(&it["plan"]), in_words(it)]).collect::<Vec<_>>())
}

fn shown(answer: &Value) -> String {
    let mut rows = Vec::new();
    for (of, limits) in [("tenant", &answer["limits"]), ("environment", &answer["environment_limits"])] {
        for (name, it) in limits.as_object().into_iter().flatten() {
            rows.push(vec![format!("{of}.{name}"), cell(&it["limit"]), cell(&it["used"]), cell(&it["left"])]);
        }
    }
    format!("plan {}\n{}", cell(&answer["plan"]), table(&["LIMIT", "VALUE", "USED", "LEFT"], &rows))
}
