//! Reads `steading.json` for `plan` and `apply`, and shows what they would do.

use std::path::Path;

use kernel::{Code, Error};
use serde_json::Value;

use super::bundle::{self, Bundle};
use super::client::Client;
use super::output::{cell, table};
use super::{Failure, Output};

/// The manifest's name.
const FILE: &str = "steading.json";

/// Reads the manifest in `dir` and uploads the directories that its site, its functions and its services name.
///
/// # Errors
/// `invalid_input` where it is missing or no JSON object; what uploads answer.
pub async fn read(client: &mut Client, dir: &Path, output: Output) -> Result<Value, Failure> {
    let path = dir.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::new(Code::InvalidInput, format!("{} cannot be read: {e}", path.display()))
            .hint("name the directory that holds the app's steading.json")
    })?;
    let mut manifest: Value = serde_json::from_str(&text)
        .map_err(|e| Error::new(Code::InvalidInput, format!("{} is not JSON: {e}", path.display())))?;
    if let Some(site) = manifest.get_mut("site") {
        bring(client, dir, ("/site", site), Bundle::Site, output).await?;
    }
    for kind in ["functions", "services"] {
        let all = manifest.get_mut(kind).and_then(Value::as_object_mut);
        for (name, code) in all.into_iter().flatten() {
            let at = format!("/{kind}/{}", name.replace('~', "~0").replace('/', "~1"));
            bring(client, dir, (&at, code), Bundle::Code, output).await?;
        }
    }
    Ok(manifest)
}

/// Puts the files of the directory that `part` of a manifest names in its place, where it names one.
async fn bring(
    client: &mut Client,
    home: &Path,
    (at, part): (&str, &mut Value),
    bundle: Bundle,
    output: Output,
) -> Result<(), Failure> {
    let Some(part) = part.as_object_mut() else { return Ok(()) };
    let Some(dir) = part.get("dir").and_then(Value::as_str).map(|inner| home.join(inner)) else {
        return Ok(());
    };
    if part.contains_key("files") {
        return Err(Error::invalid(at, "it has either dir or files, and this has both").into());
    }
    client.settle_env().await?;
    let files = bundle::upload(client, &dir, bundle, output).await?;
    part.remove("dir");
    part.insert("files".to_owned(), files);
    Ok(())
}

/// A plan in words.
pub fn words(plan: &Value) -> String {
    let list = |name: &str| plan[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = String::new();
    if list("changes").is_empty() {
        text.push_str("Nothing changes.\n");
    } else {
        let rows: Vec<_> = list("changes")
            .iter()
            .map(|change| vec![cell(&change["action"]), cell(&change["target"]), cell(&change["detail"])])
            .collect();
        text.push_str(&table(&["CHANGE", "OF", "HOW"], &rows));
    }
    if !list("effects").is_empty() {
        text.push_str("\nEffects:\n");
    }
    for effect in list("effects") {
        let (kind, target) = (cell(&effect["kind"]).replace('_', " "), cell(&effect["target"]));
        text.push_str(&format!("  {kind}: {target}: {}\n", cell(&effect["message"])));
    }
    text
}
