//! `steading setup`: fetches what functions, services and sandboxes run on, so that the first of them waits for nothing.

use std::path::PathBuf;

use capabilities::functions::Runtime;
use kernel::Result;
use sandbox::workspace::templates::{Template, Templates};
use serde_json::json;

use super::output::table;
use super::{Context, Failure};
use crate::sandboxes;

/// Fetch what functions, services and sandboxes run on; the directory can be brought along to a machine without a network
#[derive(Debug, clap::Args)]
pub struct Setup {}

/// Fetches the directories of one.
type Fetch = fn(&Templates) -> Result<Vec<PathBuf>>;

/// What is fetched, by name. Functions do not do without the first two.
const PARTS: [(&str, Fetch); 3] = [
    ("bun", |templates| functions::layers(Runtime::Bun, templates)),
    ("node", |templates| functions::layers(Runtime::Node, templates)),
    ("python", |templates| templates.layers(Template::Python)),
];
const NEEDED: usize = 2;

impl Setup {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let templates = sandboxes::layers(&context.config)?;
        let (mut made, mut missing) = (Vec::new(), Vec::new());
        for (at, (name, fetch)) in PARTS.into_iter().enumerate() {
            let own = templates.clone();
            let fetched = tokio::task::spawn_blocking(move || fetch(&own)).await;
            match fetched.map_err(kernel::Error::internal)? {
                Ok(layers) => made.push((name, layers)),
                Err(error) if at < NEEDED => return Err(error.into()),
                Err(error) => missing.push((name, error.message().to_owned())),
            }
        }
        let shown = |layers: &[PathBuf]| layers.iter().map(|it| it.display().to_string()).collect::<Vec<_>>();
        let result = json!({
            "made": made.iter().map(|(name, layers)| json!({ "name": name, "directories": shown(layers) })).collect::<Vec<_>>(),
            "missing": missing.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect::<Vec<_>>(),
        });
        context.output.result(&result, |_| {
            let rows = made.iter().map(|(name, layers)| vec![(*name).to_owned(), shown(layers).join(" ")]);
            let lacking =
                missing.iter().map(|(name, why)| vec![(*name).to_owned(), format!("not here: {why}")]);
            table(&["RUNTIME", "DIRECTORY"], &rows.chain(lacking).collect::<Vec<_>>())
        });
        Ok(())
    }
}
