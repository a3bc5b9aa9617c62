//! Coding agents, with no account: each connects and calls one tool for a model that this test plays.

use std::process::Command;
use std::time::Duration;

use conformance_tests::{LAST_WORDS, Model, Place, Wire};
use serde_json::{Value, json};
use testkit::{Finished, NodeTool, finish, require};

/// Longer than an agent takes for two answers of its model on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// An agent in a home and project of its own, with the settings that `connect` wrote for it.
pub struct Agent {
    pub place: Place,
    home: tempfile::TempDir,
    pub model: Model,
}

impl Agent {
    fn new(client: &str, wire: Wire) -> Self {
        Self::of(client, Model::start(wire, "app_describe").unwrap())
    }

    pub fn of(client: &str, model: Model) -> Self {
        let place = Place::new(client).unwrap();
        let home = testkit::temporary().unwrap();
        let mut connect = place.command(&["connect", client, "--write"]);
        connect.current_dir(home.path()).env("HOME", home.path());
        let connected = finish(connect, LIMIT).unwrap();
        assert!(connected.success(), "{connected:?}");
        Self { place, home, model }
    }

    fn write(&self, path: &str, content: &Value) {
        let path = self.home.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.to_string()).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = require(NodeTool::install()).command(program, self.home.path()).unwrap();
        command
            .env("STEADING_KEY", &self.place.steading.ready().key)
            // Whatever leaves this machine ends at a closed port.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", "127.0.0.1,localhost");
        command
    }

    /// Runs the agent to its end, and looks at what its model was told.
    fn check(&self, command: Command) -> Finished {
        let finished = finish(command, LIMIT).unwrap();
        assert!(finished.success(), "{finished:?}");
        assert!(finished.stdout.contains(LAST_WORDS), "{finished:?}");
        let result = self.model.result();
        let result = result.unwrap_or_else(|| panic!("no result in {:?}\n{finished:?}", self.model.asked()));
        for told in [&self.place.slug, &self.place.url] {
            assert!(result.contains(told.as_str()), "{told} is not in {result}");
        }
        let tools = self.place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
        let tools: Vec<String> = tools["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().into())
            .collect();
        assert_eq!(self.model.offered(&tools).len(), tools.len(), "{:?}", self.model.asked());
        finished
    }
}

/// Claude Code, asked to do something, and what it may call without asking back.
pub fn claude(agent: &Agent, wish: &str, allowed: &str) -> Command {
    // What its approval dialogue writes for the servers of a project.
    agent.write(".claude/settings.local.json", &json!({ "enabledMcpjsonServers": ["steading"] }));
    let mut claude = agent.command("claude");
    claude
        .args(["--print", wish, "--allowedTools", allowed])
        .env("ANTHROPIC_BASE_URL", &agent.model.url)
        .env("ANTHROPIC_API_KEY", "none")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    claude
}

#[test]
fn claude_code_gives_its_model_what_the_tool_answered() {
    let agent = Agent::new("claude-code", Wire::Messages);
    let mut claude = claude(&agent, "What is here?", "mcp__steading__app_describe");
    claude
        // Otherwise the tools are named to the model, and shown when it searches for them.
        .env("ENABLE_TOOL_SEARCH", "false");
    agent.check(claude);
}

fn codex(options: &[&str]) {
    let agent = Agent::new("codex", Wire::Responses);
    let provider = format!(
        "model_providers.played={{name=\"played\",base_url=\"{}/v1\",wire_api=\"responses\",env_key=\"PLAYED\"}}",
        agent.model.url
    );
    let mut codex = agent.command("codex");
    codex
        .args(["exec", "--skip-git-repo-check", "-c", "model_provider=played", "-c", "model=played", "-c"])
        .arg(&provider)
        .args(options)
        .arg("What is here?")
        .env("PLAYED", "none");
    agent.check(codex);
}

#[test]
fn codex_gives_its_model_what_the_tool_answered() {
    codex(&[]);
}

#[test]
fn codex_with_the_stateless_protocol_gives_its_model_what_the_tool_answered() {
    codex(&["--enable", "mcp_2026_07_28"]);
}

#[test]
fn opencode_gives_its_model_what_the_tool_answered() {
    let agent = Agent::new("opencode", Wire::Chat);
    let options = json!({ "baseURL": format!("{}/v1", agent.model.url), "apiKey": "none" });
    let provider = json!({ "npm": "@ai-sdk/openai-compatible", "options": options, "models": { "m": {} } });
    agent.write(
        ".config/opencode/opencode.json",
        &json!({ "autoupdate": false, "share": "disabled", "provider": { "played": provider } }),
    );
    let mut opencode = agent.command("opencode");
    opencode
        .args(["run", "What is here?", "--model", "played/m"])
        .env("OPENCODE_DISABLE_AUTOUPDATE", "1")
        .env("OPENCODE_DISABLE_MODELS_FETCH", "1");
    agent.check(opencode);
}
