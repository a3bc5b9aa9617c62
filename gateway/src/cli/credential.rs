//! `steading credential`: short credentials, minted out of the rights of the one that this command has.

use clap::Subcommand;
use kernel::{Code, Error};
use reqwest::Method;
use serde_json::{Map, Value};

use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure};

/// Mint, list and revoke short credentials
#[derive(Debug, clap::Args)]
pub struct Credential {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mint a credential for the environment of --env, and show its token, once
    Mint {
        /// A tool that it is for; repeat for more
        #[arg(long = "tool", value_name = "TOOL", required_unless_present = "scopes")]
        tools: Vec<String>,
        /// What it may do, such as db:read, instead of or beside tools; repeat for more
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Seconds until it ends, at most a day
        #[arg(long, value_name = "SECONDS")]
        expires_in: u64,
        /// A network that it is good in, such as 10.0.0.0/8; repeat for more [default: wherever its maker is]
        #[arg(long = "source", value_name = "NETWORK")]
        sources: Vec<String>,
        /// What tools' inputs are held to: {"TOOL": {"/FIELD": {"max": 10}}}, with const, enum, prefix or max
        #[arg(long, value_name = "JSON")]
        args: Option<String>,
    },
    /// List those that live; their tokens are never shown again
    List,
    /// Revoke one with all that stand on it, at once
    Revoke {
        /// Its id, key_…
        id: String,
    },
}

impl Credential {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let env = context.surroundings.env.clone();
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client, env).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

type Words = fn(&Value) -> String;

impl Command {
    async fn run(self, client: &mut Client, env: Option<String>) -> Result<(Value, Words), Failure> {
        const PATH: &str = "/v1/credentials";
        match self {
            Command::Mint { tools, scopes, expires_in, sources, args } => {
                let mut body = Map::from_iter([("expires_in".to_owned(), expires_in.into())]);
                if let Some(env) = env {
                    body.insert("env".to_owned(), env.into());
                }
                for (name, list) in [("tools", tools), ("scopes", scopes), ("source", sources)] {
                    if !list.is_empty() {
                        body.insert(name.to_owned(), list.into());
                    }
                }
                if let Some(args) = args {
                    let read = serde_json::from_str(&args);
                    let read: Value =
                        read.map_err(|e| Error::new(Code::InvalidInput, format!("--args is no JSON: {e}")))?;
                    body.insert("args".to_owned(), read);
                }
                Ok((client.call(Method::POST, PATH, Some(&body.into())).await?, |made| cell(&made["token"])))
            }
            Command::List => Ok((client.pages(PATH, "credentials").await?, listed)),
            Command::Revoke { id } => {
                let path = format!("{PATH}/{}", segment(&id));
                Ok((client.call(Method::DELETE, &path, None).await?, |_| "Revoked.".to_owned()))
            }
        }
    }
}

fn listed(answer: &Value) -> String {
    let words = |list: &Value| -> String {
        let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(" ")
    };
    let rows: Vec<_> = answer["credentials"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let what = if one["tools"].is_null() { words(&one["scopes"]) } else { words(&one["tools"]) };
            vec![cell(&one["id"]), cell(&one["env"]), what, words(&one["source"]), cell(&one["expires_at"])]
        })
        .collect();
    table(&["ID", "ENVIRONMENT", "FOR", "FROM", "ENDS"], &rows)
}
