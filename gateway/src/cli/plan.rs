//! `steading plan`: what `apply` would do.

use std::path::PathBuf;

use serde_json::json;

use super::client::Client;
use super::output::cell;
use super::{Context, Failure, manifest};

/// Show what applying an app's steading.json would change
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// The directory that holds steading.json
    #[arg(default_value = ".")]
    dir: PathBuf,
}

impl Plan {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect(&context).await?;
        let plan = self.plan(&mut client, &context).await;
        client.close().await;
        context.output.result(&plan?, |plan| {
            let id = cell(&plan["plan_id"]);
            let apply = match plan["confirm"].as_str() {
                Some(token) => format!(
                    "Data would be lost. To accept that: steading apply --plan {id} --confirm {token}"
                ),
                None => format!("To apply it: steading apply --plan {id}"),
            };
            format!("{}\n{apply}", manifest::words(plan))
        });
        Ok(())
    }

    async fn plan(&self, client: &mut Client, context: &Context) -> Result<serde_json::Value, Failure> {
        let manifest = manifest::read(client, &self.dir, context.output).await?;
        client.tool("app_plan", &json!({ "manifest": manifest })).await
    }
}
