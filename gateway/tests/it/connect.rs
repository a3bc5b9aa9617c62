//! `connect`: every client's settings parse as that client reads them, and files keep what was in them.

use std::path::Path;

use serde_json::{Value, json};

use crate::platform::{Serving, err, out, run, steading};

const CLIENTS: [&str; 7] =
    ["claude-code", "claude-desktop", "cursor", "vscode", "codex", "gemini", "opencode"];

/// The settings that are printed, whatever the format.
fn printed(client: &str, text: &str) -> Value {
    match client {
        "codex" => serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap(),
        _ => serde_json::from_str(text).unwrap(),
    }
}

/// The client's file, below `dir` as home and project.
fn file(client: &str) -> &'static str {
    match client {
        "claude-code" => ".mcp.json",
        "claude-desktop" => ".config/Claude/claude_desktop_config.json",
        "cursor" => ".cursor/mcp.json",
        "vscode" => ".vscode/mcp.json",
        "codex" => ".codex/config.toml",
        "gemini" => ".gemini/settings.json",
        _ => "opencode.json",
    }
}

fn section(client: &str) -> &'static str {
    match client {
        "vscode" => "servers",
        "codex" => "mcp_servers",
        "opencode" => "mcp",
        _ => "mcpServers",
    }
}

#[test]
fn each_client_gets_its_own_form() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |client: &str| {
        let output = run(dir.path(), &["connect", client, "--listen", "127.0.0.1:8787"]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        printed(client, &out(&output))[section(client)]["steading"].clone()
    };
    let url = "http://127.0.0.1:8787/mcp/default";
    let bearer = |variable: &str| json!({ "Authorization": format!("Bearer {variable}") });
    assert_eq!(
        entry("claude-code"),
        json!({ "type": "http", "url": url, "headers": bearer("${STEADING_KEY}") })
    );
    assert_eq!(entry("cursor"), json!({ "url": url, "headers": bearer("${env:STEADING_KEY}") }));
    assert_eq!(
        entry("vscode"),
        json!({ "type": "http", "url": url, "headers": bearer("${input:steading-key}") })
    );
    assert_eq!(entry("gemini"), json!({ "httpUrl": url, "headers": bearer("$STEADING_KEY") }));
    assert_eq!(entry("codex"), json!({ "url": url, "bearer_token_env_var": "STEADING_KEY" }));
    assert_eq!(
        entry("opencode"),
        json!({ "type": "remote", "url": url, "enabled": true, "headers": bearer("{env:STEADING_KEY}") })
    );
    let data_dir = std::path::absolute(dir.path().join(".steading")).unwrap();
    let desktop = entry("claude-desktop");
    assert_eq!(desktop["args"], json!(["mcp", "--data-dir", data_dir]));
    assert!(Path::new(desktop["command"].as_str().unwrap()).is_absolute());
}

#[test]
fn the_running_platform_and_the_chosen_environment_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), &[]);
    let output = run(dir.path(), &["connect", "cursor", "--env", "shop", "--tools", "readonly"]);
    let settings = printed("cursor", &out(&output));
    assert_eq!(
        settings["mcpServers"]["steading"]["url"],
        format!("{}/mcp/shop?tools=readonly", serving.url())
    );
}

#[test]
fn over_stdio_every_client_starts_the_binary() {
    let dir = tempfile::tempdir().unwrap();
    for client in CLIENTS {
        let settings = printed(client, &out(&run(dir.path(), &["connect", client, "--stdio"])));
        let entry = &settings[section(client)]["steading"];
        let program = if client == "opencode" { &entry["command"][0] } else { &entry["command"] };
        assert!(program.as_str().unwrap().ends_with("steading"), "{client}: {entry}");
        assert!(!settings.to_string().contains("STEADING_KEY"), "{client}");
    }
}

#[test]
fn a_key_never_goes_into_settings() {
    let dir = tempfile::tempdir().unwrap();
    for client in CLIENTS {
        for args in [&["connect", client, "--json"][..], &["connect", client, "--write", "--file", "f"][..]] {
            let mut command = steading(dir.path());
            command.args(args).env("STEADING_URL", "https://cloud.example").env("STEADING_KEY", "sk_hunter2");
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{client}: {}", err(&output));
            assert!(!out(&output).contains("hunter2") && !err(&output).contains("hunter2"), "{client}");
        }
        let written = std::fs::read_to_string(dir.path().join("f")).unwrap();
        assert!(
            written.contains("https://cloud.example") && !written.contains("hunter2"),
            "{client}: {written}"
        );
        std::fs::remove_file(dir.path().join("f")).unwrap();
    }
}

#[test]
fn writing_keeps_other_entries_and_the_file_as_it_was() {
    for client in CLIENTS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file(client));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = match client {
            "codex" => "# mine\nmodel = \"o\"\n\n[mcp_servers.other]\nurl = \"http://other\"\n".to_owned(),
            _ => json!({ "theme": "dark", section(client): { "other": { "url": "http://other" } } })
                .to_string(),
        };
        std::fs::write(&path, &before).unwrap();
        let output = run(dir.path(), &["connect", client, "--write", "--json"]);
        let report: Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(report["changed"], true, "{client}: {report}");
        let backup = dir.path().join(report["backup"].as_str().unwrap());
        assert_eq!(std::fs::read_to_string(backup).unwrap(), before, "{client}");

        let after = std::fs::read_to_string(&path).unwrap();
        let mut merged = printed(client, &after);
        let fresh = printed(client, &out(&run(dir.path(), &["connect", client])));
        assert_eq!(merged[section(client)]["steading"], fresh[section(client)]["steading"], "{client}");
        merged[section(client)].as_object_mut().unwrap().remove("steading");
        for ours in ["inputs", "$schema"] {
            merged.as_object_mut().unwrap().remove(ours);
        }
        assert_eq!(merged, printed(client, &before), "{client}");

        let again = run(dir.path(), &["connect", client, "--write", "--json"]);
        let report: Value = serde_json::from_str(&out(&again)).unwrap();
        assert_eq!((&report["changed"], &report["backup"]), (&json!(false), &json!(null)), "{client}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "{client}");
    }
}

#[test]
fn a_file_with_comments_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let before = "{ // mine\n \"mcp\": {} }";
    std::fs::write(dir.path().join("opencode.json"), before).unwrap();
    let output = run(dir.path(), &["connect", "opencode", "--write"]);
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert!(err(&output).contains("run this without --write"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("opencode.json")).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_backup_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, elsewhere) = (dir.path().join(".mcp.json"), dir.path().join("elsewhere"));
    std::fs::write(&settings, "{\"a\":1}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.path().join(".mcp.json.bak")).unwrap();
    let output = run(dir.path(), &["connect", "claude-code", "--write"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(!elsewhere.exists());
    assert_eq!(std::fs::read_to_string(dir.path().join(".mcp.json.bak1")).unwrap(), "{\"a\":1}");
}
