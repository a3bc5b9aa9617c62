//! Reads `steading.json` for `plan` and `apply`, and shows what they would do.

use std::path::Path;

use kernel::{Code, Error};
use serde_json::Value;

use super::client::Client;
use super::output::{cell, table};
use super::{Failure, Output, bundle};

/// The manifest's name.
const FILE: &str = "steading.json";

/// Reads the manifest in `dir` and uploads the directory that its `site.dir` names.
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
    let Some(site) = manifest.get_mut("site").and_then(Value::as_object_mut) else { return Ok(manifest) };
    let Some(site_dir) = site.get("dir").and_then(Value::as_str).map(|inner| dir.join(inner)) else {
        return Ok(manifest);
    };
    if site.contains_key("files") {
        return Err(Error::invalid("/site", "a site has either dir or files, and this one has both").into());
    }
    client.settle_env().await?;
    let files = bundle::upload(client, &site_dir, output).await?;
    site.remove("dir");
    site.insert("files".to_owned(), files);
    Ok(manifest)
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
