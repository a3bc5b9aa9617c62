//! `steading mcp`: speaks MCP on stdin and stdout for the platform that the variables name.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::platform::{Answer, stand_in, steading};

#[test]
fn messages_pass_both_ways_until_the_input_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (url, requests) = stand_in(|request| {
        let message = request.json();
        match message["method"].as_str() {
            Some("initialize") => {
                let result = json!({ "protocolVersion": "2025-11-25" });
                Answer::json(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
            }
            _ => Answer::problem(401, "unauthenticated"),
        }
    });
    let mut command = steading(dir.path());
    command
        .args(["mcp", "--env", "shop", "--tools", "safe"])
        .env("STEADING_URL", &url)
        .env("STEADING_KEY", "k");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();

    writeln!(stdin, "{}", json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }))
        .unwrap();
    assert_eq!(next()["result"]["protocolVersion"], "2025-11-25");
    let request = requests.recv().unwrap();
    assert_eq!(request.line, "POST /mcp/shop?tools=safe");
    assert_eq!(request.headers["authorization"], "Bearer k");

    writeln!(stdin, "{}", json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" })).unwrap();
    let failed = next();
    assert_eq!(failed["id"], 2);
    assert!(failed["error"]["message"].as_str().unwrap().starts_with("no"), "{failed}");

    writeln!(stdin, "{{not json").unwrap();
    assert_eq!(next()["error"]["code"], -32700);
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
