//! What a model pays for the tools, in tokens.

use std::fmt::Write;

use conformance_tests::steading;
use expect_test::expect_file;
use serde_json::{Value, json};
use testkit::Client;

/// What a model may have to read for one tool on average.
const PER_TOOL: usize = 85;
/// What it may have to read for those that work in no sandbox.
const WITHOUT_SANDBOX: usize = 3_200;
/// What it may have to read for the tools that only read.
const READ_ONLY: usize = 1_100;

/// The tools that a credential is shown at an MCP endpoint, by the stateless protocol.
pub fn listed(client: &Client, path: &str) -> Vec<Value> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
    let response = client
        .request("POST", path)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/list")
        .json(&request)
        .send()
        .unwrap();
    let mut answer = response.json().unwrap();
    assert_eq!(answer["result"].get("nextCursor"), None, "the tools do not fit on one page");
    match answer["result"]["tools"].take() {
        Value::Array(tools) => tools,
        _ => panic!("{answer}"),
    }
}

#[test]
fn tools_cost_a_model_what_the_table_says() {
    let steading = steading();
    let client = steading.client().without_env();
    let vocabulary = tiktoken_rs::o200k_base_singleton();
    let tokens = |tool: &Value| {
        let text = |name: &str| tool[name].as_str().unwrap();
        let shown = format!("{} {} {}", text("name"), text("description"), tool["inputSchema"]);
        vocabulary.encode_ordinary(&shown).len()
    };
    let mut table = String::new();
    let mut total = |selection: &str| {
        let tools = listed(&client, &format!("/mcp/default?tools={selection}"));
        let total: usize = tools.iter().map(tokens).sum();
        writeln!(
            table,
            "{selection}: {} tools, {total} tokens, {} on average",
            tools.len(),
            total / tools.len()
        )
        .unwrap();
        (tools, total)
    };
    let (_, read_only) = total("readonly");
    total("safe");
    let (tools, full) = total("full");
    writeln!(table).unwrap();
    for tool in &tools {
        writeln!(table, "{:4} {}", tokens(tool), tool["name"].as_str().unwrap()).unwrap();
    }
    expect_file!["./golden/tools.txt"].assert_eq(&table);
    let of_sandbox = ["shell_", "file_", "preview_", "workspace_"];
    let others = tools.iter().filter(|it| {
        let name = it["name"].as_str().unwrap();
        !of_sandbox.iter().any(|begin| name.starts_with(begin))
    });
    let without: usize = others.map(tokens).sum();
    assert!(without <= WITHOUT_SANDBOX, "{without} tokens for the tools without sandboxes");
    assert!(full <= PER_TOOL * tools.len(), "{full} tokens for {} tools", tools.len());
    assert!(read_only <= READ_ONLY, "{read_only} tokens for the tools that only read");
}
