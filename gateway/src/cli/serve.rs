//! `steading serve`: runs the platform until it is told to stop.

use kernel::Secret;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::client::operator_key;
use super::{Context, Failure, Output};
use crate::config::{Config, Given};
use crate::serve::{self, Running};

/// Run the platform until it is told to stop (SIGTERM or Ctrl-C)
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The address the platform is reached at from outside
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The domain below which apps live [default: localhost:<port>]
    #[arg(long, value_name = "DOMAIN")]
    apps_domain: Option<String>,
    /// The domain below which sandbox previews live [default: preview.localhost:<port>]
    #[arg(long, value_name = "DOMAIN")]
    preview_domain: Option<String>,
    /// Serve plain HTTP on an address that is not loopback
    #[arg(long)]
    allow_insecure_http: bool,
}

impl Serve {
    /// The settings given by flags.
    pub fn given(&self) -> Vec<Given> {
        let insecure = self.allow_insecure_http.then(|| "true".to_owned());
        [
            ("public_url", "--public-url", &self.public_url),
            ("apps_domain", "--apps-domain", &self.apps_domain),
            ("preview_domain", "--preview-domain", &self.preview_domain),
            ("allow_insecure_http", "--allow-insecure-http", &insecure),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value.clone()?)))
        .collect()
    }

    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        // From the first moment: a signal during the start must not kill what is half made.
        let stop = stop_signal()?;
        let running = serve::start(&context.config, context.groundwork()?).await?;
        say_ready(&context.config, &running, context.output);
        stop.await;
        tracing::info!("stopping");
        context.output.progress("Stopping; calls in flight may end.");
        // A second signal is from someone who does not want to wait.
        let again = stop_signal()?;
        tokio::select! {
            () = running.stop() => {}
            () = again => tracing::warn!("stopped at once"),
        }
        Ok(())
    }
}

/// SIGTERM or SIGINT, from now on.
pub fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(kernel::Error::internal);
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn say_ready(config: &Config, running: &Running, output: Output) {
    let (url, ready) = (&running.listening.url, &running.ready);
    let mcp_url = format!("{url}/mcp/{}", ready.env);
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    // A person is shown the key once; a program that starts the platform needs it each time, and may read the
    // file it is in anyway.
    let kept = operator_key(&config.data_dir).ok();
    let line = json!({
        "url": url,
        "mcp_url": mcp_url,
        "data_dir": data_dir.display().to_string(),
        "env": ready.env,
        "key": ready.key.as_ref().or(kept.as_ref()).map(Secret::expose),
    });
    output.result(&line, |_| {
        let key_file = data_dir.join("operator.key");
        let scheme = url.split(':').next().unwrap_or("http");
        let key = match ready.key.as_ref().map(Secret::expose) {
            Some(key) => format!("  Key      {key}\n           (shown this once; kept in {})", key_file.display()),
            None => format!("  Key      in {}", key_file.display()),
        };
        let https = match running.listening.tls {
            Some(addr) => format!("  HTTPS    on {addr}\n"),
            None => String::new(),
        };
        format!(
            "\n{} is ready.\n\n  URL      {url}\n  MCP      {mcp_url}\n  Apps     {scheme}://<slug>.{}\n{https}{key}\n\n\
             Connect an agent: steading connect claude-code (or cursor, vscode, codex, gemini, opencode)\n\
             Stop with Ctrl-C.\n",
            output.bold("Steading"),
            running.listening.apps_domain,
        )
    });
}
