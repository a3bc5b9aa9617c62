//! `steading tenant`: the tenants of the platform, for its operator.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::limit::bounds;
use super::output::{cell, table};
use super::{Context, Failure};

/// List, create, suspend and delete tenants
#[derive(Debug, clap::Args)]
pub struct Tenant {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tenants
    List {
        /// Those with this tag, as name=value; more than one may be given
        #[arg(long = "tag")]
        tags: Vec<String>,
        /// The one that your own system calls so
        #[arg(long)]
        external_id: Option<String>,
    },
    /// Show a tenant
    Show {
        /// Its slug or id
        tenant: String,
    },
    /// Create a tenant
    Create {
        /// Its slug
        slug: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// What your own system calls it: the same again is the same tenant
        #[arg(long)]
        external_id: Option<String>,
        /// A tag, as name=value; more than one may be given
        #[arg(long = "tag")]
        tags: Vec<String>,
        /// Its plan [default: default]
        #[arg(long)]
        plan: Option<String>,
    },
    /// Change what a tenant is called, or what it may
    Change {
        /// Its slug or id
        tenant: String,
        /// Its name for people
        #[arg(long)]
        name: Option<String>,
        /// Its plan
        #[arg(long)]
        plan: Option<String>,
        /// Limits of its own, beside those of its plan, as tenant.environments=50 or environment.database_bytes=1073741824
        #[arg(long = "limit", value_name = "NAME=NUMBER", conflicts_with = "no_limits")]
        limits: Vec<String>,
        /// No limits of its own
        #[arg(long)]
        no_limits: bool,
    },
    /// Refuse all credentials of a tenant and close its apps
    Suspend {
        /// Its slug or id
        tenant: String,
    },
    /// Undo a suspension
    Resume {
        /// Its slug or id
        tenant: String,
    },
    /// Delete a tenant, which can be restored for seven days
    Delete {
        /// Its slug
        tenant: String,
        /// Remove it for good at once, with all that is its
        #[arg(long)]
        purge: bool,
    },
    /// Undo a deletion
    Restore {
        /// Its slug or id
        tenant: String,
    },
}

type Words = fn(&Value) -> String;

impl Tenant {
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

impl Command {
    async fn run(self, client: &mut Client) -> Result<(Value, Words), Failure> {
        let path = |tenant: &str, rest: &str| format!("/v1/tenants/{}{rest}", segment(tenant));
        Ok(match self {
            Command::List { tags, external_id } => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                if !tags.is_empty() {
                    query.append_pair("tags", &tags.join(","));
                }
                if let Some(external_id) = external_id {
                    query.append_pair("external_id", &external_id);
                }
                let query = query.finish();
                let path = if query.is_empty() { String::new() } else { format!("?{query}") };
                (client.pages(&format!("/v1/tenants{path}"), "tenants").await?, listed)
            }
            Command::Show { tenant } => {
                (client.call(Method::GET, &path(&tenant, ""), None).await?, |it| table_of(&[it]))
            }
            Command::Change { tenant, name, plan, limits, no_limits } => {
                let mut body = json!({});
                for (field, value) in [("name", name), ("plan", plan)] {
                    if let Some(value) = value {
                        body[field] = value.into();
                    }
                }
                if no_limits || !limits.is_empty() {
                    body["limits"] = bounds(&limits)?;
                }
                (client.call(Method::PATCH, &path(&tenant, ""), Some(&body)).await?, |it| table_of(&[it]))
            }
            Command::Create { slug, name, external_id, tags, plan } => {
                let tags: serde_json::Map<_, _> = tags
                    .iter()
                    .map(|tag| tag.split_once('=').unwrap_or((tag, "")))
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect();
                let mut body = json!({ "slug": slug, "tags": tags });
                for (field, value) in [("name", name), ("external_id", external_id), ("plan", plan)] {
                    if let Some(value) = value {
                        body[field] = value.into();
                    }
                }
                let made = client.call(Method::POST, "/v1/tenants", Some(&body)).await?;
                (made, |it| format!("{} is {}", cell(&it["slug"]), cell(&it["tenant"])))
            }
            Command::Suspend { tenant } => {
                (client.call(Method::POST, &path(&tenant, "/suspend"), None).await?, state)
            }
            Command::Resume { tenant } => {
                (client.call(Method::POST, &path(&tenant, "/resume"), None).await?, state)
            }
            Command::Restore { tenant } => {
                (client.call(Method::POST, &path(&tenant, "/restore"), None).await?, state)
            }
            Command::Delete { tenant, purge } => {
                let confirm: String = url::form_urlencoded::byte_serialize(tenant.as_bytes()).collect();
                let query = format!("?confirm={confirm}&purge={purge}");
                let words: Words = if purge {
                    |it| format!("{} is removed for good", cell(&it["slug"]))
                } else {
                    |it| {
                        let (slug, until) = (cell(&it["slug"]), cell(&it["purge_after"]));
                        format!("{slug} is deleted; until {until}: steading tenant restore {slug}")
                    }
                };
                (client.call(Method::DELETE, &path(&tenant, &query), None).await?, words)
            }
        })
    }
}

fn state(tenant: &Value) -> String {
    format!("{} is {}", cell(&tenant["slug"]), cell(&tenant["state"]))
}

fn listed(answer: &Value) -> String {
    table_of(&answer["tenants"].as_array().into_iter().flatten().collect::<Vec<_>>())
}

fn table_of(tenants: &[&Value]) -> String {
    let columns = ["slug", "tenant", "state", "plan", "name"];
    let row = |tenant: &&Value| columns.map(|name| cell(&tenant[name])).to_vec();
    table(&["SLUG", "ID", "STATE", "PLAN", "NAME"], &tenants.iter().map(row).collect::<Vec<_>>())
}
