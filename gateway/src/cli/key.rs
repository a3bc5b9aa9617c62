//! `steading key`: the keys of the tenant.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure};

/// List, create, rotate and revoke keys
#[derive(Debug, clap::Args)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the keys; their values are never shown again
    List,
    /// Create a key and show it, once
    Create {
        /// A name for people
        name: String,
        /// Bind it to the environment of --env, instead of the whole tenant
        #[arg(long)]
        bound: bool,
        /// What it may do, such as db:read; repeat for more [default: everything there]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Seconds until it ends [default: never]
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u64>,
        /// A network that it is good in, such as 10.0.0.0/8; repeat for more [default: anywhere]
        #[arg(long = "cidr", value_name = "NETWORK")]
        cidrs: Vec<String>,
    },
    /// Make a key in place of another and show it, once
    Rotate {
        /// Its id, key_…; or `operator`, whose key ends at once
        id: String,
        /// Seconds for which the old one is good yet [default: 3600]
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u64>,
    },
    /// Show what signs minted credentials, for the operator
    Signing {
        /// Have another one sign from now on
        #[arg(long)]
        rotate: bool,
        /// Have what was signed before hold no more, where somebody else may have the key
        #[arg(long, requires = "rotate")]
        forget: bool,
    },
    /// Show what values are sealed with, for the operator
    Encryption {
        /// Put another key-encryption key in force, and have other data keys seal from now on
        #[arg(long)]
        rotate: bool,
    },
    /// Revoke a key, at once
    Revoke {
        /// Its id, key_…
        id: String,
    },
}

impl Key {
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
        match self {
            Command::List => Ok((client.pages("/v1/keys", "keys").await?, listed)),
            Command::Create { name, bound, scopes, expires_in, cidrs } => {
                let mut body = Map::new();
                body.insert("name".to_owned(), name.into());
                if bound {
                    body.insert("env".to_owned(), env.unwrap_or_else(|| "default".to_owned()).into());
                }
                if !scopes.is_empty() {
                    body.insert("scopes".to_owned(), scopes.into());
                }
                if let Some(seconds) = expires_in {
                    body.insert("expires_in".to_owned(), seconds.into());
                }
                if !cidrs.is_empty() {
                    body.insert("cidrs".to_owned(), cidrs.into());
                }
                let made = client.call(Method::POST, "/v1/keys", Some(&body.into())).await?;
                Ok((made, kept))
            }
            Command::Rotate { id, overlap } => {
                let path = format!("/v1/keys/{}/rotate", segment(&id));
                let body = overlap.map_or_else(|| json!({}), |overlap| json!({ "overlap_s": overlap }));
                Ok((client.call(Method::POST, &path, Some(&body)).await?, kept))
            }
            Command::Signing { rotate: true, forget } => {
                let body = json!({ "forget": forget });
                Ok((client.call(Method::POST, "/v1/signing-keys/rotate", Some(&body)).await?, signing))
            }
            Command::Signing { rotate: false, .. } => {
                Ok((client.call(Method::GET, "/v1/signing-keys", None).await?, signing))
            }
            Command::Encryption { rotate: true } => {
                let path = "/v1/encryption-keys/rotate";
                Ok((client.call(Method::POST, path, Some(&json!({}))).await?, encryption))
            }
            Command::Encryption { rotate: false } => {
                Ok((client.call(Method::GET, "/v1/encryption-keys", None).await?, encryption))
            }
            Command::Revoke { id } => {
                let path = format!("/v1/keys/{}", segment(&id));
                Ok((client.call(Method::DELETE, &path, None).await?, |_| "Revoked.".to_owned()))
            }
        }
    }
}

fn kept(made: &Value) -> String {
    format!("{}\n\nKeep it: it is not shown again.", cell(&made["key"]))
}

fn signing(answer: &Value) -> String {
    let rows: Vec<_> = answer["signing_keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| ["kid", "state", "activated_at", "retired_at"].map(|name| cell(&key[name])).to_vec())
        .collect();
    table(&["KEY", "STATE", "SIGNS SINCE", "RETIRED"], &rows)
}

fn encryption(answer: &Value) -> String {
    let rows: Vec<_> = answer["data_keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| ["id", "owner", "created_at", "retired_at"].map(|name| cell(&key[name])).to_vec())
        .collect();
    let kek = cell(&answer["key_encryption_key"]["id"]);
    let here =
        if answer["key_encryption_key"]["here"] == true { "" } else { ", which this gateway does not have" };
    let older = cell(&answer["older_values"]);
    let table = table(&["DATA KEY", "OWNER", "MADE", "RETIRED"], &rows);
    format!("Wrapped under {kek}{here}; {older} values are sealed by older keys.\n\n{table}")
}

fn listed(answer: &Value) -> String {
    let rows: Vec<_> = answer["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| {
            let state = if key["revoked"] == true { "revoked".into() } else { key["expires_at"].clone() };
            [&key["id"], &key["name"], &key["env"], &state, &key["last_used_at"]].map(cell).to_vec()
        })
        .collect();
    table(&["ID", "NAME", "ENVIRONMENT", "ENDS", "LAST USED"], &rows)
}
