//! `steading mcp`: messages pass between stdio and the MCP door unchanged.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::platform::{Answer, stand_in, steading};

#[test]
fn messages_pass_both_ways_with_the_headers_that_http_wants() {
    let dir = tempfile::tempdir().unwrap();
    let (url, requests) = stand_in(|request| {
        let message = request.json();
        let result = |result: Value| json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        match message["method"].as_str() {
            Some("initialize") => Answer {
                headers: &[("mcp-session-id", "s1")],
                ..Answer::json(200, &result(json!({ "protocolVersion": "2025-11-25" })))
            },
            Some("tools/call") => {
                let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress" });
                let body =
                    format!("data: {progress}\n\nid: 7\ndata: {}\n\n", result(json!({ "content": [] })));
                Answer { status: 200, content_type: "text/event-stream", headers: &[], body }
            }
            Some("notifications/initialized") => {
                Answer { status: 202, content_type: "text/plain", headers: &[], body: String::new() }
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
    let mut send = |message: Value| writeln!(stdin, "{message}").unwrap();

    send(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }));
    assert_eq!(next()["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(requests.recv().unwrap().line, "POST /mcp/shop?tools=safe");

    send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let request = requests.recv().unwrap();
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!((header("mcp-session-id"), header("mcp-protocol-version")), (Some("s1"), Some("2025-11-25")));
    assert_eq!(header("authorization"), Some("Bearer k"));

    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let params = json!({ "name": "db_query", "arguments": {}, "_meta": meta });
    send(json!({ "jsonrpc": "2.0", "id": "two", "method": "tools/call", "params": params }));
    assert_eq!(next()["method"], "notifications/progress");
    assert_eq!(next(), json!({ "jsonrpc": "2.0", "id": "two", "result": { "content": [] } }));
    let request = requests.recv().unwrap();
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!(header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!((header("mcp-method"), header("mcp-name")), (Some("tools/call"), Some("db_query")));

    send(json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list" }));
    let failed = next();
    assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(3), &json!(-32603)));
    assert!(failed["error"]["message"].as_str().unwrap().starts_with("no"), "{failed}");

    writeln!(stdin, "{{not json").unwrap();
    assert_eq!(next()["error"]["code"], -32700);
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
