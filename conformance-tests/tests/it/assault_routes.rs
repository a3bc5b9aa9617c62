//! Requests of the routes of sandboxes, for the matrix of what nobody may.

use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Request;

use crate::assault_tenants::Things;

/// Requests of a route of a sandbox that name things of `t`.
pub fn of_sandbox(method: &str, route: &str, client: &Client, t: &Things) -> Option<Vec<Request>> {
    let plain = |path: &str| vec![client.request(&method.to_uppercase(), path)];
    let with = |path: &str, body: Value| plain(path).into_iter().map(|r| r.json(&body)).collect::<Vec<_>>();

    let rest = route.trim_start_matches("/v1/sandboxes/{sandbox}");
    let rest = rest.replace("{process}", "1").replace("{snapshot}", &t.snapshot).replace("{server}", "a");
    let path = format!("/v1/sandboxes/{}{rest}", t.sandbox);
    Some(match (method, rest.as_str()) {
        ("post", "/exec" | "/processes") => with(&path, json!({ "command": "true" })),
        ("post", "/mcp/a") => with(&path, json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })),
        ("post", "/previews") => [
            with(&path, json!({ "port": 1 })),
            with(&path, json!({ "port": 1, "command": "true", "cwd": "." })),
        ]
        .concat(),
        ("post", "/processes/1/signal") => with(&path, json!({ "signal": 9 })),
        ("post", "/files/mkdir") => with(&path, json!({ "path": "a" })),
        ("post", "/files/move") => with(&path, json!({ "from": "a", "to": "b" })),
        ("post", "/files/search") => with(&path, json!({ "name": "*" })),
        ("post", "/snapshots" | "/freeze") => with(&path, json!({})),
        ("post", "/fork") => with(&path, json!({ "name": "b", "snapshot": t.snapshot })),
        ("post", "/restore") => with(&path, json!({ "snapshot": t.snapshot })),
        ("post", "/pause" | "/resume" | "/thaw") => plain(&path),
        ("put", "/files") => {
            plain(&format!("{path}?path=a")).into_iter().map(|request| request.body("a")).collect()
        }
        ("get" | "delete", "/files") => plain(&format!("{path}?path=a")),
        ("get", "/files/stat" | "/files/watch" | "/files/list") => plain(&path),
        (
            "get" | "delete",
            "" | "/ports" | "/mcp" | "/exec" | "/processes" | "/processes/1" | "/snapshots",
        ) => plain(&path),
        ("delete", rest) if rest.starts_with("/snapshots/") => plain(&path),
        _ => return None,
    })
}
