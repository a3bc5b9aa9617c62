//! Puts settings into a client's file and leaves everything else in it as it was.

use serde_json::{Map, Value};

use super::clients::{NAME, Settings};
use crate::cli::output::pretty;

/// Why settings were not put into a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// JSON with comments, most likely; writing it anew would lose them.
    #[error("it is not plain JSON ({0})")]
    NotJson(String),
    /// Not TOML.
    #[error("it is not TOML ({0})")]
    NotToml(String),
    /// Something else lies where our entry belongs.
    #[error("its {0:?} is not an object")]
    Occupied(String),
    /// The result would say something else about other entries.
    #[error("its layout is one that cannot be changed safely")]
    Unsafe,
}

/// The file's text with `settings` in it. An empty text is an empty file.
///
/// # Errors
/// Where that cannot be done without losing what is there.
pub fn merge(text: &str, settings: &Settings) -> Result<String, Error> {
    match settings {
        Settings::Json(wanted) => json(text, wanted),
        Settings::Toml(_) => toml(text, settings),
    }
}

fn json(text: &str, wanted: &Value) -> Result<String, Error> {
    let mut file = match text.trim() {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).map_err(|e| Error::NotJson(e.to_string()))?,
    };
    let before = file.clone();
    let root = file.as_object_mut().ok_or_else(|| Error::Occupied(String::new()))?;
    for (section, ours) in wanted.as_object().into_iter().flatten() {
        match ours {
            Value::Object(entries) => {
                let there = root.entry(section).or_insert_with(|| Value::Object(Map::new()));
                let there = there.as_object_mut().ok_or_else(|| Error::Occupied(section.clone()))?;
                there.extend(entries.clone());
            }
            Value::Array(items) => {
                let there = root.entry(section).or_insert_with(|| Value::Array(Vec::new()));
                let there = there.as_array_mut().ok_or_else(|| Error::Occupied(section.clone()))?;
                there.retain(|item| !items.iter().any(|ours| ours["id"] == item["id"]));
                there.extend(items.iter().cloned());
            }
            // What a file says of itself, such as its schema, is its own.
            other => drop(root.entry(section).or_insert_with(|| other.clone())),
        }
    }
    if file == before && !text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    Ok(format!("{}\n", pretty(&file)))
}

/// Works on lines, so that comments and layout stay; then checks that nothing else changed in meaning.
fn toml(text: &str, settings: &Settings) -> Result<String, Error> {
    let others = |text: &str| -> Result<::toml::Table, Error> {
        let mut table: ::toml::Table =
            text.parse().map_err(|e: ::toml::de::Error| Error::NotToml(e.message().to_owned()))?;
        if let Some(servers) = table.get_mut("mcp_servers").and_then(::toml::Value::as_table_mut) {
            servers.remove(NAME);
            if servers.is_empty() {
                table.remove("mcp_servers");
            }
        }
        Ok(table)
    };
    let before = others(text)?;
    let mut kept = String::new();
    let mut in_ours = false;
    for line in text.split_inclusive('\n') {
        if let Some(header) = header(line) {
            in_ours = is_ours(header);
        }
        if !in_ours {
            kept.push_str(line);
        }
    }
    let mut after = kept.trim_end().to_owned();
    if !after.is_empty() {
        after.push_str("\n\n");
    }
    after.push_str(&settings.text());
    match others(&after) {
        Ok(table) if table == before => Ok(if same(text, &after) { text.to_owned() } else { after }),
        _ => Err(Error::Unsafe),
    }
}

/// The name in a line that begins a table.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let inner = line.strip_prefix('[')?;
    inner.split(']').next().map(|name| name.trim_start_matches('[').trim())
}

fn is_ours(header: &str) -> bool {
    let plain: String = header.chars().filter(|c| !matches!(c, '"' | '\'' | ' ')).collect();
    let ours = format!("mcp_servers.{NAME}");
    plain == ours || plain.starts_with(&format!("{ours}."))
}

/// Whether both say the same.
fn same(a: &str, b: &str) -> bool {
    matches!((a.parse::<::toml::Table>(), b.parse::<::toml::Table>()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn codex() -> Settings {
        let entry =
            json!({ "url": "http://127.0.0.1:1/mcp/default", "bearer_token_env_var": "STEADING_KEY" });
        Settings::Toml(entry.as_object().unwrap().clone())
    }

    #[test]
    fn other_servers_and_keys_stay_in_their_order() {
        let text = r#"{"theme":"dark","mcpServers":{"other":{"url":"x"},"steading":{"url":"old"}},"z":1}"#;
        let wanted = Settings::Json(json!({ "mcpServers": { "steading": { "url": "new" } } }));
        let merged: Value = serde_json::from_str(&merge(text, &wanted).unwrap()).unwrap();
        let expected =
            r#"{"theme":"dark","mcpServers":{"other":{"url":"x"},"steading":{"url":"new"}},"z":1}"#;
        assert_eq!(merged.to_string(), expected);
    }

    #[test]
    fn the_same_again_leaves_the_text_alone() {
        let wanted =
            Settings::Json(json!({ "servers": { "steading": { "url": "u" } }, "inputs": [{ "id": "k" }] }));
        let text =
            "{\"inputs\":  [{\"id\":\"a\"},{\"id\":\"k\"}], \"servers\":{\"steading\":{\"url\":\"u\"}}}";
        assert_eq!(merge(text, &wanted).unwrap(), text);
        let again = merge("", &codex()).unwrap();
        assert_eq!(merge(&again, &codex()).unwrap(), again);
    }

    #[test]
    fn what_cannot_be_merged_without_loss_is_refused() {
        let wanted = Settings::Json(json!({ "mcpServers": { "steading": {} } }));
        assert!(matches!(merge("{ // mine\n}", &wanted), Err(Error::NotJson(_))));
        assert_eq!(merge("{\"mcpServers\":[]}", &wanted), Err(Error::Occupied("mcpServers".to_owned())));
        assert_eq!(merge("[]", &wanted), Err(Error::Occupied(String::new())));
        assert!(matches!(merge("a = ", &codex()), Err(Error::NotToml(_))));
        let inline = "mcp_servers = { steading = { url = 'x' } }\n";
        assert_eq!(merge(inline, &codex()), Err(Error::Unsafe));
    }

    #[test]
    fn a_toml_file_keeps_its_comments_and_other_tables() {
        let text = "# mine\nmodel = \"x\" # why\n\n[mcp_servers.other]\ncommand = \"y\"\n\n[mcp_servers.\"steading\"]\nurl = \"old\"\n[mcp_servers.steading.env]\nA = \"b\"\n\n[[list]]\na = 1\n";
        expect![[r#"
            # mine
            model = "x" # why

            [mcp_servers.other]
            command = "y"

            [[list]]
            a = 1

            [mcp_servers.steading]
            url = "http://127.0.0.1:1/mcp/default"
            bearer_token_env_var = "STEADING_KEY"
        "#]]
        .assert_eq(&merge(text, &codex()).unwrap());
    }

    #[test]
    fn a_text_that_looks_like_a_table_is_not_taken_for_one() {
        let text = "note = \"\"\"\n[mcp_servers.steading]\nkeep = 1\n\"\"\"\n";
        assert_eq!(merge(text, &codex()), Err(Error::Unsafe));
    }
}
