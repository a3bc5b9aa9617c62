//! `steading site`: deploys a directory as the environment's site.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::bundle::{self, Bundle};
use super::client::Client;
use super::output::cell;
use super::{Context, Failure};

/// Deploy sites
#[derive(Debug, clap::Args)]
pub struct Site {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Deploy a directory as the environment's site
    Deploy {
        /// The directory, built: what is in it is served
        dir: PathBuf,
        /// Answer unknown paths with index.html, for apps that route in the browser
        #[arg(long)]
        spa: bool,
    },
}

impl Site {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let Command::Deploy { dir, spa } = self.command;
        let mut client = Client::connect(&context).await?;
        let deployed = deploy(&mut client, &dir, spa.then_some(true), &context).await;
        client.close().await;
        context.output.result(&deployed?, |done| {
            format!("Release {} is live: {}", cell(&done["release"]), cell(&done["url"]))
        });
        Ok(())
    }
}

async fn deploy(
    client: &mut Client,
    dir: &std::path::Path,
    spa: Option<bool>,
    context: &Context,
) -> Result<Value, Failure> {
    client.settle_env().await?;
    let files = bundle::upload(client, dir, Bundle::Site, context.output).await?;
    let mut input = json!({ "files": files });
    if let Some(spa) = spa {
        input["spa"] = spa.into();
    }
    client.tool("site_deploy", &input).await
}
