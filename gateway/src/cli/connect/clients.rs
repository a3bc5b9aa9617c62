//! The clients: where each keeps its MCP settings, and how it wants them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::cli::output::pretty;
use crate::config::Surroundings;

/// The name of our entry.
pub const NAME: &str = "steading";

/// A program that calls tools over MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    Vscode,
    Codex,
    Gemini,
    Opencode,
}

/// The door that a client uses.
pub enum Door {
    /// Streamable HTTP.
    Http {
        /// The address of the MCP endpoint.
        url: String,
    },
    /// A program that the client starts.
    Stdio {
        /// Its path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// The platform, where it is not on this machine.
        url: Option<String>,
    },
}

/// What has to be in a client's file, and nothing else.
pub enum Settings {
    /// An object to be merged into the file's.
    Json(Value),
    /// A table below `mcp_servers`.
    Toml(Map<String, Value>),
}

impl Client {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Client::ClaudeCode => "claude-code",
            Client::ClaudeDesktop => "claude-desktop",
            Client::Cursor => "cursor",
            Client::Vscode => "vscode",
            Client::Codex => "codex",
            Client::Gemini => "gemini",
            Client::Opencode => "opencode",
        }
    }

    /// Whether its settings can name an HTTP endpoint with a credential.
    pub const fn speaks_http(self) -> bool {
        !matches!(self, Client::ClaudeDesktop)
    }

    /// The file to write: the project's, or the user's where there is no other. `None` without a home.
    pub fn file(self, surroundings: &Surroundings) -> Option<PathBuf> {
        let home = surroundings.home.as_ref();
        match self {
            Client::ClaudeCode => Some(".mcp.json".into()),
            Client::Cursor => Some(".cursor/mcp.json".into()),
            Client::Vscode => Some(".vscode/mcp.json".into()),
            Client::Gemini => Some(".gemini/settings.json".into()),
            Client::Opencode => Some("opencode.json".into()),
            Client::Codex => {
                let codex = surroundings.codex_home.clone().or_else(|| Some(home?.join(".codex")))?;
                Some(codex.join("config.toml"))
            }
            Client::ClaudeDesktop => {
                let settings = match (cfg!(target_os = "macos"), &surroundings.config_home) {
                    (true, _) => home?.join("Library/Application Support"),
                    (false, Some(dir)) => dir.clone(),
                    (false, None) => home?.join(".config"),
                };
                Some(settings.join("Claude/claude_desktop_config.json"))
            }
        }
    }

    /// What the file has to say to use `door`.
    pub fn settings(self, door: &Door) -> Settings {
        match self {
            Client::ClaudeCode | Client::ClaudeDesktop | Client::Cursor | Client::Gemini => {
                Settings::Json(json!({ "mcpServers": { NAME: self.entry(door) } }))
            }
            Client::Vscode => {
                let mut settings = json!({ "servers": { NAME: self.entry(door) } });
                if matches!(door, Door::Http { .. }) {
                    settings["inputs"] = json!([{
                        "type": "promptString",
                        "id": "steading-key",
                        "description": "Key for Steading",
                        "password": true,
                    }]);
                }
                Settings::Json(settings)
            }
            Client::Opencode => Settings::Json(json!({
                "$schema": "https://opencode.ai/config.json",
                "mcp": { NAME: self.entry(door) },
            })),
            Client::Codex => match self.entry(door) {
                Value::Object(entry) => Settings::Toml(entry),
                _ => Settings::Toml(Map::new()),
            },
        }
    }

    /// Our entry, as this client writes entries.
    fn entry(self, door: &Door) -> Value {
        match (self, door) {
            (Client::ClaudeCode, Door::Http { url }) => {
                json!({ "type": "http", "url": url, "headers": { "Authorization": "Bearer ${STEADING_KEY}" } })
            }
            (Client::Cursor | Client::ClaudeDesktop, Door::Http { url }) => {
                json!({ "url": url, "headers": { "Authorization": "Bearer ${env:STEADING_KEY}" } })
            }
            // Asked for once and kept in the editor's own secret store.
            (Client::Vscode, Door::Http { url }) => {
                json!({ "type": "http", "url": url, "headers": { "Authorization": "Bearer ${input:steading-key}" } })
            }
            (Client::Gemini, Door::Http { url }) => {
                json!({ "httpUrl": url, "headers": { "Authorization": "Bearer $STEADING_KEY" } })
            }
            (Client::Codex, Door::Http { url }) => {
                json!({ "url": url, "bearer_token_env_var": "STEADING_KEY" })
            }
            (Client::Opencode, Door::Http { url }) => json!({
                "type": "remote",
                "url": url,
                "enabled": true,
                "headers": { "Authorization": "Bearer {env:STEADING_KEY}" },
            }),
            (Client::Opencode, Door::Stdio { program, args, url }) => {
                let command: Vec<_> = std::iter::once(program).chain(args).collect();
                let mut entry = json!({ "type": "local", "command": command, "enabled": true });
                if let Some(url) = url {
                    entry["environment"] = json!({ "STEADING_URL": url });
                }
                entry
            }
            (_, Door::Stdio { program, args, url }) => {
                let mut entry = json!({ "command": program, "args": args });
                if matches!(self, Client::ClaudeCode | Client::Vscode) {
                    entry["type"] = "stdio".into();
                }
                if let Some(url) = url {
                    entry["env"] = json!({ "STEADING_URL": url });
                }
                entry
            }
        }
    }

    /// What is left for the user to do; `key_file` holds the operator's key.
    pub fn note(self, settings: &Settings, key_file: &Path) -> String {
        let text = settings.text();
        match self {
            Client::Vscode if text.contains("${input:") => {
                "VS Code asks for the key once and keeps it.".to_owned()
            }
            _ if text.contains("STEADING_KEY") => format!(
                "Start the client with STEADING_KEY set to a key: `steading key create` makes one, and {} holds the operator's.",
                key_file.display()
            ),
            _ if text.contains("STEADING_URL") => {
                "Start the client with STEADING_KEY set to a key of that platform.".to_owned()
            }
            _ => "No key is needed: the client starts steading on this machine.".to_owned(),
        }
    }
}

impl Settings {
    /// The settings alone, in the format of the client's file.
    pub fn text(&self) -> String {
        match self {
            Settings::Json(value) => pretty(value),
            Settings::Toml(entry) => toml_table(entry),
        }
    }

    /// The settings as JSON, whatever the format of the file.
    pub fn to_json(&self) -> Value {
        match self {
            Settings::Json(value) => value.clone(),
            Settings::Toml(entry) => json!({ "mcp_servers": { NAME: entry } }),
        }
    }
}

/// Our table in TOML. Values are texts, arrays of texts and one level of objects, all of which TOML writes as
/// JSON does but for the objects' signs.
fn toml_table(entry: &Map<String, Value>) -> String {
    let mut text = format!("[mcp_servers.{NAME}]\n");
    for (key, value) in entry {
        let value = match value.as_object() {
            Some(object) => {
                let pairs: Vec<_> = object.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!("{{ {} }}", pairs.join(", "))
            }
            None => value.to_string(),
        };
        text.push_str(&format!("{key} = {value}\n"));
    }
    text
}
