//! `steading env`: the environments of the tenant.

use std::path::PathBuf;

use clap::Subcommand;
use kernel::{Code, Error};
use reqwest::Method;
use serde_json::{Value, json};

use super::apply::asked;
use super::archive;
use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure, Output};

/// List, create, keep, branch and delete environments
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
    /// Keep an environment as it is now
    Snapshot {
        /// A name for it
        #[arg(long)]
        name: Option<String>,
        /// What it is for
        #[arg(long)]
        note: Option<String>,
    },
    /// Put an environment back to a snapshot
    Restore {
        /// The snapshot's id or name
        snapshot: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a copy of an environment, to try changes in
    Branch {
        /// Its slug, the first label of its address [default: made up]
        slug: Option<String>,
        /// Make it of a snapshot instead of now
        #[arg(long)]
        snapshot: Option<String>,
        /// Leave rows, users and files out
        #[arg(long)]
        without_data: bool,
    },
    /// Take a branch's app into the environment that it is a branch of
    Merge {
        /// The branch's slug or id
        from: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Write everything in an environment to a file, but for the values of secrets
    Export {
        /// Its slug or id
        #[arg(id = "environment", value_name = "ENV")]
        env: String,
        /// The file [default: <ENV>.steading.tar]
        file: Option<PathBuf>,
    },
    /// Make a backup of an environment now
    Backup {
        /// Its slug or id
        #[arg(id = "environment", value_name = "ENV")]
        env: String,
    },
    /// List the backups of an environment
    Backups {
        /// Its slug or id
        #[arg(id = "environment", value_name = "ENV")]
        env: String,
    },
    /// Make an environment out of such a file
    Import {
        /// The file
        file: PathBuf,
        /// The environment's slug, which must be free
        slug: String,
    },
    /// Delete an environment with everything in it
    Delete {
        /// Its slug or id
        // Not by the name of the option that every command takes: clap would take one for the other.
        #[arg(id = "environment", value_name = "ENV")]
        env: String,
        #[command(flatten)]
        consent: Consent,
    },
}

/// Whether somebody has agreed to what cannot be undone.
#[derive(Debug, clap::Args)]
struct Consent {
    /// Accept what a dry run says would be lost
    #[arg(long)]
    yes: bool,
    /// The confirmation that a dry run gave
    #[arg(long, value_name = "TOKEN", conflicts_with = "yes")]
    confirm: Option<String>,
}

impl Env {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = match self.command {
            Command::List
            | Command::Create { .. }
            | Command::Delete { .. }
            | Command::Export { .. }
            | Command::Backup { .. }
            | Command::Backups { .. }
            | Command::Import { .. } => Client::connect_to_tenant(&context).await?,
            Command::Snapshot { .. }
            | Command::Restore { .. }
            | Command::Branch { .. }
            | Command::Merge { .. } => Client::connect(&context).await?,
        };
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
                let input = given([("slug", slug), ("name", name), ("external_id", external_id)]);
                Ok((client.tool("env_create", &input).await?, |made| {
                    format!("{} is at {}", cell(&made["slug"]), cell(&made["url"]))
                }))
            }
            Command::Delete { env, consent } => {
                let deed =
                    Deed { tool: "env_delete", input: json!({ "env": env }), what: format!("delete {env}") };
                Ok((deed.run(client, consent, output).await?, |_| "Deleted.".to_owned()))
            }
            Command::Snapshot { name, note } => {
                let input = given([("name", name), ("note", note)]);
                let words = |made: &Value| format!("Kept as {}", cell(&made["snapshot"]));
                Ok((client.tool("env_snapshot", &input).await?, words))
            }
            Command::Restore { snapshot, consent } => {
                let input = json!({ "snapshot": snapshot });
                let deed = Deed { tool: "env_restore", input, what: format!("return to {snapshot}") };
                let words = |done: &Value| {
                    format!("Returned. To undo it: steading env restore {}", cell(&done["undo"]))
                };
                Ok((deed.run(client, consent, output).await?, words))
            }
            Command::Branch { slug, snapshot, without_data } => {
                let data = without_data.then(|| "none".to_owned());
                let input = given([("slug", slug), ("snapshot", snapshot), ("data", data)]);
                let words = |made: &Value| format!("{} is at {}", cell(&made["slug"]), cell(&made["url"]));
                Ok((client.tool("env_branch", &input).await?, words))
            }
            Command::Merge { from, consent } => {
                let deed =
                    Deed { tool: "env_merge", input: json!({ "from": from }), what: format!("merge {from}") };
                let words = |done: &Value| {
                    format!("Release {} is live: {}", cell(&done["release"]), cell(&done["url"]))
                };
                Ok((deed.run(client, consent, output).await?, words))
            }
            Command::Export { env, file } => {
                let words =
                    |done: &Value| format!("{} bytes are in {}", cell(&done["bytes"]), cell(&done["file"]));
                Ok((archive::export(client, &env, file).await?, words))
            }
            Command::Backup { env } => {
                let path = format!("/v1/envs/{}/backups", segment(&env));
                let words = |made: &Value| format!("Backed up as {}", cell(&made["backup"]));
                Ok((client.call(Method::POST, &path, None).await?, words))
            }
            Command::Backups { env } => {
                let path = format!("/v1/envs/{}/backups", segment(&env));
                Ok((client.call(Method::GET, &path, None).await?, backups))
            }
            Command::Import { file, slug } => {
                let words = |made: &Value| {
                    let effects = made["effects"].as_array().into_iter().flatten();
                    let effects: String = effects.map(|effect| format!("\n{}", cell(effect))).collect();
                    format!("{} is at {}{effects}", cell(&made["slug"]), cell(&made["url"]))
                };
                Ok((archive::import(client, &file, &slug).await?, words))
            }
        }
    }
}

/// What is given, as a tool's input.
fn given<const N: usize>(fields: [(&str, Option<String>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?.into())));
    Value::Object(fields.collect())
}

/// What is done only after a dry run.
struct Deed {
    tool: &'static str,
    input: Value,
    what: String,
}

impl Deed {
    /// Shows what would be done and lost, and does it where somebody agrees.
    async fn run(mut self, client: &mut Client, consent: Consent, output: Output) -> Result<Value, Failure> {
        let confirm = match &consent.confirm {
            Some(token) => token.clone(),
            None => self.agreement(client, &consent, output).await?,
        };
        self.input["confirm"] = confirm.into();
        client.tool(self.tool, &self.input).await
    }

    async fn agreement(
        &mut self,
        client: &mut Client,
        consent: &Consent,
        output: Output,
    ) -> Result<String, Failure> {
        self.input["dry_run"] = true.into();
        let dry = client.tool(self.tool, &self.input).await?;
        self.input["dry_run"] = false.into();
        for part in ["changes", "effects", "conflicts"] {
            for line in dry[part].as_array().into_iter().flatten() {
                output.progress(&said(line));
            }
        }
        let Some(token) = dry["confirm"].as_str() else {
            return Err(Error::new(
                Code::Conflict,
                "both sides have changed the same, and nothing was merged",
            )
            .hint("make the parts above alike on one of the sides, then merge again")
            .into());
        };
        if consent.yes || asked(&format!("Type yes to {}: ", self.what)) {
            return Ok(token.to_owned());
        }
        Err(Error::new(Code::Conflict, format!("nobody agreed to {}", self.what))
            .hint(format!("pass --yes, or --confirm {token}"))
            .into())
    }
}

/// A change, an effect or a conflict in words.
fn said(line: &Value) -> String {
    let parts = ["action", "kind", "target", "detail", "message"];
    match line {
        Value::Object(line) => {
            let parts: Vec<_> = parts.iter().filter_map(|part| line.get(*part)).map(cell).collect();
            parts.join(" ")
        }
        line => cell(line),
    }
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

fn backups(answer: &Value) -> String {
    let rows: Vec<_> = answer["backups"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|backup| ["backup", "created_at", "bytes"].map(|name| cell(&backup[name])).to_vec())
        .collect();
    table(&["BACKUP", "MADE", "BYTES"], &rows)
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
