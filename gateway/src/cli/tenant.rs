//! `steading tenant`: the tenants of the platform, for its operator.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// List and create tenants
#[derive(Debug, clap::Args)]
pub struct Tenant {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tenants
    List,
    /// Create a tenant
    Create {
        /// Its slug
        slug: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
    },
}

impl Tenant {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = match &self.command {
            Command::List => client.pages("/v1/tenants", "tenants").await,
            Command::Create { slug, name } => {
                let mut body = json!({ "slug": slug });
                if let Some(name) = name {
                    body["name"] = name.as_str().into();
                }
                client.call(Method::POST, "/v1/tenants", Some(&body)).await
            }
        };
        client.close().await;
        context.output.result(&outcome?, |answer| match &self.command {
            Command::List => listed(answer),
            Command::Create { .. } => format!("{} is {}", cell(&answer["slug"]), cell(&answer["tenant"])),
        });
        Ok(())
    }
}

fn listed(answer: &Value) -> String {
    let rows: Vec<_> = answer["tenants"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|tenant| ["slug", "tenant", "name"].map(|name| cell(&tenant[name])).to_vec())
        .collect();
    table(&["SLUG", "ID", "NAME"], &rows)
}
