//! The settings that `steading connect` gives each client: they parse, they lead to the tools, and clients that are
//! installed read them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::{NodeTool, finish, require};

use crate::golden_tools::listed;

const LIMIT: Duration = Duration::from_secs(90);

/// Each client, its file below home or project, and where in it servers are.
const CLIENTS: [(&str, &str, &str); 7] = [
    ("claude-code", ".mcp.json", "/mcpServers/steading"),
    ("claude-desktop", ".config/Claude/claude_desktop_config.json", "/mcpServers/steading"),
    ("cursor", ".cursor/mcp.json", "/mcpServers/steading"),
    ("vscode", ".vscode/mcp.json", "/servers/steading"),
    ("codex", ".codex/config.toml", "/mcp_servers/steading"),
    ("gemini", ".gemini/settings.json", "/mcpServers/steading"),
    ("opencode", "opencode.json", "/mcp/steading"),
];

/// Runs `steading connect` with `home` as home and project.
fn connect(place: &Place, home: &Path, arguments: &[&str]) -> String {
    let mut connect = place.command(&[&["connect"], arguments].concat());
    connect.current_dir(home).env("HOME", home);
    let finished = finish(connect, LIMIT).unwrap();
    assert!(finished.success(), "{finished:?}");
    finished.stdout
}

fn parsed(client: &str, text: &str) -> Value {
    match client {
        "codex" => serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap(),
        _ => serde_json::from_str(text).unwrap(),
    }
}

/// The credential in an entry: clients write the variable in ways of their own, and none may hold the key itself.
fn credential(place: &Place, entry: &Value) -> String {
    let key = &place.steading.ready().key;
    assert!(!entry.to_string().contains(key), "the key is in the file: {entry}");
    let forms = [
        "${STEADING_KEY}",
        "${env:STEADING_KEY}",
        "${input:steading-key}",
        "$STEADING_KEY",
        "{env:STEADING_KEY}",
    ];
    match entry["headers"]["Authorization"].as_str() {
        Some(header) => {
            let variable = header.strip_prefix("Bearer ").unwrap();
            assert!(forms.contains(&variable), "{header}");
        }
        None => assert_eq!(entry["bearer_token_env_var"], "STEADING_KEY", "{entry}"),
    }
    key.clone()
}

/// Starts what an entry says, as the client would, and asks for the server's name.
fn server_of(entry: &Value, place: &Place) -> Value {
    let (program, arguments) = match entry["command"].as_array() {
        Some(words) => (&words[0], &words[1..]),
        None => (&entry["command"], entry["args"].as_array().unwrap().as_slice()),
    };
    let mut command = Command::new(program.as_str().unwrap());
    command.args(arguments.iter().map(|word| word.as_str().unwrap())).env_clear();
    let variables = entry.get("env").or(entry.get("environment"));
    for (name, value) in variables.and_then(Value::as_object).into_iter().flatten() {
        command.env(name, value.as_str().unwrap());
    }
    // The user has it set: settings name a platform elsewhere, and never its key.
    command.env("STEADING_KEY", &place.steading.ready().key);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let hello = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" },
        },
    });
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{hello}").unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let mut answer: Value = serde_json::from_str(&line).unwrap();
    answer["result"]["serverInfo"]["name"].take()
}

#[test]
fn the_settings_of_every_client_lead_to_the_tools() {
    let place = Place::new("settings").unwrap();
    let home = testkit::temporary().unwrap();
    for (client, file, entry) in CLIENTS {
        let printed = connect(&place, home.path(), &[client]);
        connect(&place, home.path(), &[client, "--write"]);
        let written = std::fs::read_to_string(home.path().join(file)).unwrap();
        let settings = parsed(client, &written);
        assert_eq!(parsed(client, &printed), settings, "{client}: what is printed is not what is written");
        let entry = settings.pointer(entry).unwrap_or_else(|| panic!("{client}: {settings}"));
        let url = ["url", "httpUrl"].iter().find_map(|name| entry[name].as_str());
        let Some(url) = url else {
            assert_eq!((client, server_of(entry, &place)), ("claude-desktop", json!("steading")));
            continue;
        };
        assert_eq!(url, place.mcp_url(), "{client}");
        let key = credential(&place, entry);
        let path = url.strip_prefix(&place.steading.ready().url).unwrap();
        assert!(!listed(&place.client.clone().with_key(&key).without_env(), path).is_empty());
    }
}

#[test]
fn the_settings_of_every_client_start_a_server_on_stdio() {
    let place = Place::new("stdio").unwrap();
    let home = testkit::temporary().unwrap();
    for (client, file, entry) in CLIENTS {
        connect(&place, home.path(), &[client, "--write", "--stdio"]);
        let settings = parsed(client, &std::fs::read_to_string(home.path().join(file)).unwrap());
        let entry = settings.pointer(entry).unwrap_or_else(|| panic!("{client}: {settings}"));
        assert!(
            !settings.to_string().contains(&place.steading.ready().key),
            "{client}: the key is in the file"
        );
        assert_eq!(server_of(entry, &place), "steading", "{client}");
    }
}

/// Whether an installed client, asked for its servers, says `sign` of ours, over each door.
fn connected(client: &str, program: &str, sign: &str, prepare: impl Fn(&Path)) {
    let place = Place::new(client).unwrap();
    for door in [&["--write"][..], &["--write", "--stdio"]] {
        let home = testkit::temporary().unwrap();
        connect(&place, home.path(), &[&[client], door].concat());
        prepare(home.path());
        let mut list = require(NodeTool::install()).command(program, home.path()).unwrap();
        list.args(["mcp", "list"]).env("STEADING_KEY", &place.steading.ready().key);
        let listed = finish(list, LIMIT).unwrap();
        assert!(listed.success() && listed.stdout.contains(sign), "{door:?}: {listed:?}");
    }
}

#[test]
fn claude_code_is_connected_once_its_user_approves() {
    connected("claude-code", "claude", "✔ Connected", |home| {
        let settings = json!({ "enabledMcpjsonServers": ["steading"] });
        std::fs::create_dir(home.join(".claude")).unwrap();
        std::fs::write(home.join(".claude/settings.local.json"), settings.to_string()).unwrap();
    });
}

#[test]
fn opencode_is_connected() {
    connected("opencode", "opencode", "✓ steading", |_| {});
}

#[test]
fn codex_reads_the_settings() {
    let place = Place::new("codex").unwrap();
    let home = testkit::temporary().unwrap();
    let transport = || {
        let mut get = require(NodeTool::install()).command("codex", home.path()).unwrap();
        get.args(["mcp", "get", "steading", "--json"]);
        let read = finish(get, LIMIT).unwrap();
        assert!(read.success(), "{read:?}");
        serde_json::from_str::<Value>(&read.stdout).unwrap()["transport"].take()
    };
    connect(&place, home.path(), &["codex", "--write"]);
    let http = transport();
    let said = [&http["type"], &http["url"], &http["bearer_token_env_var"]];
    assert_eq!(json!(said), json!(["streamable_http", place.mcp_url(), "STEADING_KEY"]));
    connect(&place, home.path(), &["codex", "--write", "--stdio"]);
    let stdio = transport();
    assert_eq!((&stdio["type"], &stdio["command"]), (&json!("stdio"), &json!(place.binary())), "{stdio}");
}
