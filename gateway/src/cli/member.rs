//! `steading member`: the people of the tenant.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, segment};
use super::output::{cell, table};
use super::{Context, Failure};

/// List, invite, change and remove the people of the tenant
#[derive(Debug, clap::Args)]
pub struct Member {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the members
    List,
    /// Invite somebody, and show the address to send to them, once
    Invite {
        /// Their address
        email: String,
        /// What they are to be: owner, developer or viewer
        #[arg(long, default_value = "developer")]
        role: String,
        /// What they are called
        #[arg(long)]
        name: Option<String>,
    },
    /// Show another invitation for a member, who sets another password with it
    InviteAgain {
        /// Its id, mem_…
        id: String,
    },
    /// Give a member another role; they sign in again
    Change {
        /// Its id, mem_…
        id: String,
        /// What they are to be: owner, developer or viewer
        #[arg(long)]
        role: String,
    },
    /// Remove a member, at once
    Remove {
        /// Its id, mem_…
        id: String,
    },
}

impl Member {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.command.run(&mut client).await;
        client.close().await;
        let (answer, words) = outcome?;
        context.output.result(&answer, words);
        Ok(())
    }
}

type Words = fn(&Value) -> String;

impl Command {
    async fn run(self, client: &mut Client) -> Result<(Value, Words), Failure> {
        let at = |id: &str| format!("/v1/members/{}", segment(id));
        Ok(match self {
            Self::List => (client.pages("/v1/members", "members").await?, listed),
            Self::Invite { email, role, name } => {
                let mut body = Map::new();
                body.insert("email".to_owned(), email.into());
                body.insert("role".to_owned(), role.into());
                if let Some(name) = name {
                    body.insert("name".to_owned(), name.into());
                }
                (client.call(Method::POST, "/v1/members", Some(&body.into())).await?, invited)
            }
            Self::InviteAgain { id } => {
                (client.call(Method::POST, &format!("{}/invitation", at(&id)), None).await?, invited)
            }
            Self::Change { id, role } => {
                let body = json!({ "role": role });
                let words: Words =
                    |member| format!("{} is {} now.", cell(&member["name"]), cell(&member["role"]));
                (client.call(Method::PATCH, &at(&id), Some(&body)).await?, words)
            }
            Self::Remove { id } => {
                (client.call(Method::DELETE, &at(&id), None).await?, |_| "Removed.".to_owned())
            }
        })
    }
}

fn invited(member: &Value) -> String {
    format!(
        "{}\n\nSend it to {}: it is not shown again, and is good once, until {}.",
        cell(&member["invitation"]["url"]),
        cell(&member["email"]),
        cell(&member["invitation"]["expires_at"])
    )
}

fn listed(answer: &Value) -> String {
    let rows: Vec<_> = answer["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|member| {
            ["id", "name", "email", "role", "state", "last_used_at"].map(|name| cell(&member[name])).to_vec()
        })
        .collect();
    table(&["ID", "NAME", "ADDRESS", "ROLE", "STATE", "LAST USED"], &rows)
}
