//! `steading env`: the environments of the tenant.

use clap::Subcommand;
use kernel::{Code, Error};
use serde_json::{Map, Value, json};

use super::apply::asked;
use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure, Output};

/// List, create and delete environments
#[derive(Debug, clap::Args)]
pub struct Env {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the environments
    List,
    /// Create an environment
    Create {
        /// Its slug, the first label of its address [default: made from the name]
        slug: Option<String>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// Your own id for it: the same one twice is the same environment
        #[arg(long, value_name = "ID")]
        external_id: Option<String>,
    },
    /// Delete an environment with everything in it
    Delete {
        /// Its slug or id
        // Not by the name of the option that every command takes: clap would take one for the other.
        #[arg(id = "environment", value_name = "ENV")]
        env: String,
        /// Accept that everything in it is lost
        #[arg(long)]
        yes: bool,
        /// The confirmation that a dry run of env_delete gave
        #[arg(long, value_name = "TOKEN", conflicts_with = "yes")]
        confirm: Option<String>,
    },
}

impl Env {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client, context.output).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

type Words = fn(&Value) -> String;

impl Command {
    async fn run(self, client: &mut Client, output: Output) -> Result<(Value, Words), Failure> {
        match self {
            Command::List => Ok((all(client).await?, listed)),
            Command::Create { slug, name, external_id } => {
                let mut input = Map::new();
                for (field, value) in [("slug", slug), ("name", name), ("external_id", external_id)] {
                    if let Some(value) = value {
                        input.insert(field.to_owned(), value.into());
                    }
                }
                Ok((client.tool("env_create", &input.into()).await?, |made| {
                    format!("{} is at {}", cell(&made["slug"]), cell(&made["url"]))
                }))
            }
            Command::Delete { env, yes, confirm } => {
                let token = match confirm {
                    Some(token) => token,
                    None => agreement(client, &env, yes.then_some(Agreed), output).await?,
                };
                let input = json!({ "env": env, "confirm": token });
                Ok((client.tool("env_delete", &input).await?, |_| "Deleted.".to_owned()))
            }
        }
    }
}

/// Somebody agreed to a loss on the command line.
struct Agreed;

/// Shows what would be lost, and gives the confirmation where somebody agrees to it.
async fn agreement(
    client: &mut Client,
    env: &str,
    agreed: Option<Agreed>,
    output: Output,
) -> Result<String, Failure> {
    let dry = client.tool("env_delete", &json!({ "env": env, "dry_run": true })).await?;
    for effect in dry["effects"].as_array().into_iter().flatten() {
        output.progress(&cell(effect));
    }
    let token = dry["confirm"].as_str().unwrap_or_default();
    if agreed.is_some() || asked(&format!("Type yes to delete {env}: ")) {
        return Ok(token.to_owned());
    }
    Err(Error::new(Code::Conflict, format!("everything in {env} would be lost, and nobody agreed to it"))
        .hint(format!("pass --yes, or --confirm {token}"))
        .into())
}

/// Every page as one.
async fn all(client: &mut Client) -> Result<Value, Failure> {
    let mut environments = Vec::new();
    let mut input = json!({});
    loop {
        let mut page = client.tool("env_list", &input).await?;
        if let Value::Array(items) = page["environments"].take() {
            environments.extend(items);
        }
        match page["cursor"].take() {
            Value::Null => return Ok(json!({ "environments": environments })),
            cursor => input["cursor"] = cursor,
        }
    }
}

fn listed(answer: &Value) -> String {
    let rows: Vec<_> = answer["environments"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|env| ["slug", "env", "name", "url"].map(|name| cell(&env[name])).to_vec())
        .collect();
    table(&["SLUG", "ID", "NAME", "URL"], &rows)
}
