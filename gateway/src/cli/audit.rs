//! `steading audit`: what was done in a tenant, and whether the log of it is whole.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use control::AUDIT_CHECKPOINTS;
use control::audit::{Tampered, Verification, Verified};
use futures::StreamExt as _;
use kernel::{Code, Error};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::archive::unusable;
use super::client::Client;
use super::output::{cell, table};
use super::{Context, Failure};

/// The longest line of a log, in bytes.
const LINE: usize = 1 << 20;

/// Read, export and verify the audit log of a tenant
#[derive(Debug, clap::Args)]
pub struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what was done, latest first
    List {
        /// Entries at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Write the whole log to a file, to be kept and verified elsewhere
    Export {
        /// The file, which is not there yet; - is standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Verify that nothing was changed in a log and nothing taken out of it
    Verify {
        /// An exported log, - for standard input [default: the platform's own]
        file: Option<PathBuf>,
        /// The public key that it has to be signed with, as `steading audit key` said it once
        #[arg(long)]
        key: Option<String>,
        /// A file of checkpoints that the log has to agree with [default: this data directory's, where there is one]
        #[arg(long, value_name = "FILE")]
        checkpoints: Option<PathBuf>,
    },
    /// Print the public key that logs are signed with
    Key,
}

impl Audit {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        if let Command::Verify { file: Some(file), key, checkpoints } = &self.command {
            let mut verification = begun(&context, key.clone(), checkpoints.as_deref())?;
            read(&mut verification, file).await?;
            return told(&context, verification.end(), key.is_some());
        }
        let mut client = Client::connect_to_tenant(&context).await?;
        let outcome = self.with(&context, &mut client).await;
        client.close().await;
        outcome
    }

    async fn with(&self, context: &Context, client: &mut Client) -> Result<(), Failure> {
        match &self.command {
            Command::List { limit } => {
                let found = listed(context, client, *limit).await?;
                context.output.result(&found, shown);
            }
            Command::Key => {
                let found = client.call(Method::GET, "/v1/audit/key", None).await?;
                context.output.result(&found, |found| cell(&found["key"]));
            }
            Command::Export { file } => {
                let lines = export(client, file).await?;
                if file.as_os_str() != "-" {
                    let written = json!({ "file": file, "lines": lines });
                    context.output.result(&written, |_| format!("{lines} lines in {}", file.display()));
                }
            }
            Command::Verify { key, checkpoints, .. } => {
                let mut verification = begun(context, key.clone(), checkpoints.as_deref())?;
                let mut lines = Lines::default();
                let mut stream = client.download("/v1/audit/export").await?;
                while let Some(chunk) = stream.next().await {
                    for line in lines.take(&chunk?) {
                        verification.line(&line).map_err(|found| refused(&found))?;
                    }
                }
                return told(context, verification.end(), key.is_some());
            }
        }
        Ok(())
    }
}

async fn listed(context: &Context, client: &mut Client, limit: usize) -> Result<Value, Failure> {
    let env = context.surroundings.env.as_deref();
    let env = env.map(|env| {
        format!("env={}&", url::form_urlencoded::byte_serialize(env.as_bytes()).collect::<String>())
    });
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    while entries.len() < limit {
        let path = format!("/v1/audit?{}{cursor}", env.as_deref().unwrap_or_default());
        let page = client.call(Method::GET, path.trim_end_matches(['?', '&']), None).await?;
        entries.extend(page["entries"].as_array().into_iter().flatten().cloned());
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("cursor={next}");
    }
    entries.truncate(limit);
    Ok(json!({ "entries": entries }))
}

fn shown(found: &Value) -> String {
    let rows: Vec<_> = found["entries"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| {
            let about = it["about"].as_object().map(|about| {
                about
                    .iter()
                    .map(|(name, value)| format!("{name}={}", cell(value)))
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            let who = format!("{} {}", cell(&it["who"]), cell(&it["credential"]));
            [
                cell(&it["seq"]),
                cell(&it["at"]),
                who,
                cell(&it["from"]),
                cell(&it["act"]),
                cell(&it["outcome"]),
            ]
            .into_iter()
            .chain([about.unwrap_or_default()])
            .collect()
        })
        .collect();
    table(&["SEQ", "AT", "WHO", "FROM", "ACT", "OUTCOME", "ABOUT"], &rows)
}

/// Writes the log whole or not at all, and gives how many lines it has.
async fn export(client: &Client, file: &Path) -> Result<usize, Failure> {
    let mut stream = client.download("/v1/audit/export").await?;
    let mut lines = 0;
    let mut count = |bytes: &[u8]| lines += bytes.iter().filter(|byte| **byte == b'\n').count();
    if file.as_os_str() == "-" {
        let mut out = tokio::io::stdout();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            count(&chunk);
            out.write_all(&chunk).await.map_err(|e| unusable(file, e))?;
        }
        out.flush().await.map_err(|e| unusable(file, e))?;
        return Ok(lines);
    }
    let open = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).await;
    let mut out = open.map_err(|e| unusable(file, e))?;
    let mut copied = async || {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            count(&chunk);
            out.write_all(&chunk).await.map_err(|e| unusable(file, e))?;
        }
        out.sync_all().await.map_err(|e| unusable(file, e))
    };
    if let Err(failure) = copied().await {
        let _ = tokio::fs::remove_file(file).await;
        return Err(failure);
    }
    Ok(lines)
}

/// A verification that knows the checkpoints which were kept.
fn begun(
    context: &Context,
    key: Option<String>,
    checkpoints: Option<&Path>,
) -> Result<Verification, Failure> {
    let mut verification = Verification::new(key);
    let own = context.config.data_dir.join(AUDIT_CHECKPOINTS);
    let path = match checkpoints {
        Some(path) => path,
        // Of another platform, those of this directory say nothing.
        None if context.surroundings.url.is_none() && own.exists() => &own,
        None => return Ok(verification),
    };
    let text = std::fs::read_to_string(path).map_err(|e| unusable(path, e))?;
    // An earlier export has its marks among other lines, and a crash may have cut one off.
    let marks = text.lines().filter(|line| line.starts_with(r#"{"mark":"#));
    for line in marks {
        if verification.checkpoint(line).is_err() {
            context.output.progress(&format!("a line of {} is none and was passed over", path.display()));
        }
    }
    Ok(verification)
}

async fn read(verification: &mut Verification, file: &Path) -> Result<(), Failure> {
    let mut lines: Box<dyn tokio::io::AsyncBufRead + Unpin + Send> = if file.as_os_str() == "-" {
        Box::new(BufReader::new(tokio::io::stdin()))
    } else {
        let opened = tokio::fs::File::open(file).await.map_err(|e| unusable(file, e))?;
        Box::new(BufReader::new(opened))
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = tokio::io::AsyncReadExt::take(&mut lines, LINE as u64);
        if part.read_until(b'\n', &mut line).await.map_err(|e| unusable(file, e))? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        verification.line(text.trim_end_matches('\n')).map_err(|found| refused(&found))?;
    }
}

fn refused(found: &Tampered) -> Failure {
    Error::new(Code::Conflict, format!("the audit log is not what was written: {found}"))
        .hint("compare it with an earlier export, and find out who can write to the control database")
        .into()
}

fn told(context: &Context, end: Result<Verified, Tampered>, pinned: bool) -> Result<(), Failure> {
    let Verified { tenant, key, first, last, at, checkpoints } = end.map_err(|found| refused(&found))?;
    let found = json!({
        "verified": true, "tenant": tenant, "first": first, "last": last, "signed_at": at.to_string(),
        "checkpoints": checkpoints, "key": key, "key_expected": pinned,
    });
    context.output.result(&found, |_| {
        let entries =
            if last < first { "no entries".to_owned() } else { format!("entries {first} to {last}") };
        let mut words = format!(
            "whole: {entries} of {tenant}, held against {checkpoints} checkpoints, signed with {key}"
        );
        if !pinned {
            words
                .push_str("\nthe key is what the log itself says: keep it elsewhere, and give it with --key");
        }
        words
    });
    Ok(())
}

/// Lines out of pieces that end anywhere.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, piece: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(piece);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}
