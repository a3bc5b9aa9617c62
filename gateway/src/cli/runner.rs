//! `steading runner`: the programs that all sandboxes have beside the platform's own, for the operator.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kernel::Error;
use reqwest::{Body, Method};
use sandbox::local::programs::pack;
use serde_json::Value;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// What is on its way at once.
const PIECE: usize = 256 << 10;

/// Show and replace the programs that you have in all sandboxes
#[derive(Debug, clap::Args)]
pub struct Runner {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which there are
    Show,
    /// Have all sandboxes use the programs of a directory, also those that run; none where it is empty
    Use {
        /// The directory
        directory: PathBuf,
    },
}

impl Runner {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = match &self.command {
            Command::Show => client.call(Method::GET, "/v1/runner", None).await,
            Command::Use { directory } => replace(&client, directory).await,
        };
        client.close().await;
        context.output.result(&outcome?, |answer| match &self.command {
            Command::Show => shown(answer),
            Command::Use { .. } => told(answer),
        });
        Ok(())
    }
}

async fn replace(client: &Client, directory: &Path) -> Result<Value, Failure> {
    // What cannot be packed is not begun to be sent.
    pack(directory, &mut std::io::sink())?;
    let (sending, packed) = tokio::io::duplex(PIECE);
    let directory = directory.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&directory, &mut SyncIoBridge::new(sending)));
    // What changes meanwhile breaks it off.
    let end = async move {
        packing.await.map_err(Error::internal).flatten().map_err(std::io::Error::other)?;
        Ok(None)
    };
    let end = stream::once(end).try_filter_map(async |end| Ok(end));
    let body = Body::wrap_stream(ReaderStream::with_capacity(packed, PIECE).chain(end));
    client.send(Method::PUT, "/v1/runner", "application/x-tar", body).await
}

fn shown(answer: &Value) -> String {
    let programs = answer["programs"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> =
        programs.iter().map(|program| ["name", "bytes"].map(|name| cell(&program[name])).to_vec()).collect();
    let version = cell(&answer["version"]);
    if rows.is_empty() {
        return format!("version {version}, without programs of yours");
    }
    format!("version {version}\n\n{}", table(&["PROGRAM", "BYTES"], &rows))
}

fn told(answer: &Value) -> String {
    let [version, before, swapped, reverted] =
        ["version", "before", "swapped", "reverted"].map(|name| cell(&answer[name]));
    let mut told = format!("version {version}, before {before}\n{swapped} sandboxes that were awake have it");
    if answer["reverted"] != 0 {
        told += &format!(", {reverted} in which its check fails go on with what they had");
    }
    told
}
