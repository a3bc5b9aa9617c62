//! The routes of sandboxes, for the OpenAPI document.

use serde_json::{Map, Value, json};

/// Path below a sandbox, method, id, what it does, status, and the parameters of its query.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

const ROWS: &[Row] = &[
    ("", "get", "showSandbox", "One sandbox: its state, isolation, limits and what it uses", "200", &[]),
    ("", "delete", "destroySandbox", "End one, and remove its files and their snapshots", "204", &[]),
    ("/pause", "post", "pauseSandbox", "Stop what runs where it is, until the next call", "200", &[]),
    ("/resume", "post", "resumeSandbox", "Wake it", "200", &[]),
    (
        "/exec",
        "post",
        "exec",
        "Run {command | argv, cwd, env, stdin, timeout_s}; lines of JSON as it runs",
        "200",
        &[],
    ),
    (
        "/exec",
        "get",
        "execSocket",
        "The same over a WebSocket, with standard input and a terminal",
        "101",
        &[],
    ),
    ("/processes", "get", "listProcesses", "The commands in the background", "200", &[]),
    ("/processes", "post", "spawn", "Run a command in the background", "201", &[]),
    ("/processes/{process}", "get", "attach", "Its output as it comes; lines of JSON", "200", &["from"]),
    (
        "/processes/{process}",
        "delete",
        "endProcess",
        "End it with all it has begun, and forget it",
        "204",
        &[],
    ),
    ("/processes/{process}/signal", "post", "signal", "Send {signal}, a number, to all of it", "204", &[]),
    ("/files", "get", "readFile", "A file's bytes", "200", &["path", "offset", "limit"]),
    ("/files", "put", "writeFile", "Make a file of the body", "200", &["path", "mode", "existing"]),
    ("/files", "delete", "removeFile", "Remove a file or a directory", "204", &["path", "recursive"]),
    ("/files/list", "get", "listFiles", "What is in a directory", "200", &["path", "depth", "limit"]),
    ("/files/stat", "get", "statFile", "What is known of a file", "200", &["path"]),
    (
        "/files/watch",
        "get",
        "watchFiles",
        "Changes below a directory as they happen; lines of JSON",
        "200",
        &["path"],
    ),
    ("/files/mkdir", "post", "makeDirectory", "Make the directory {path} and those above it", "204", &[]),
    ("/files/move", "post", "moveFile", "Move {from, to, existing}", "204", &[]),
    ("/files/search", "post", "searchFiles", "Find files by {path, name, line, all, limit}", "200", &[]),
    ("/mcp", "get", "listMcpServers", "The MCP servers that /workspace/.mcp.json names", "200", &[]),
    ("/mcp/{server}", "post", "speakMcp", "A message of MCP to one of them, and its answer", "200", &[]),
    ("/ports", "get", "listPorts", "The ports that are listened on, with their addresses", "200", &[]),
    (
        "/previews",
        "post",
        "openPreview",
        "The address that {port} is shown at; {public} says to whom, {command} what serves it",
        "200",
        &[],
    ),
    ("/snapshots", "get", "listSnapshots", "Its snapshots, newest first", "200", &[]),
    ("/snapshots", "post", "takeSnapshot", "Keep its files as they are, under {name}", "201", &[]),
    ("/snapshots/{snapshot}", "delete", "removeSnapshot", "Remove one", "204", &[]),
    (
        "/fork",
        "post",
        "forkSandbox",
        "Make one more, {name}, with its files as they are or {snapshot} has them",
        "201",
        &[],
    ),
    (
        "/freeze",
        "post",
        "freezeSandbox",
        "Let each run begin with its files as they are now, told by their digest",
        "201",
        &[],
    ),
    ("/thaw", "post", "thawSandbox", "Let its files be changed again", "204", &[]),
    ("/restore", "post", "restoreSnapshot", "Put its files back to {snapshot}; what runs ends", "200", &[]),
];

/// What is done once for each idempotency key.
const ONCE: [&str; 4] = ["spawn", "takeSnapshot", "forkSandbox", "freezeSandbox"];

/// These need a path; the others begin at `/workspace`.
const PATHS: [&str; 3] = ["readFile", "writeFile", "removeFile"];

fn headers(described: &mut Value) {
    if let Some(parameters) = described["parameters"].as_array_mut() {
        parameters.push(json!({ "$ref": "#/components/parameters/idempotency" }));
    }
}

/// A parameter of the query of the operation `id`.
fn parameter(name: &str, id: &str) -> Value {
    let schema = match name {
        "offset" | "limit" | "depth" | "from" => json!({ "type": "integer", "minimum": 0 }),
        "recursive" => json!({ "type": "boolean" }),
        "existing" => json!({ "enum": ["replace", "refuse"] }),
        "mode" => json!({ "type": "string", "description": "Three octal digits." }),
        _ => json!({ "type": "string" }),
    };
    let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
    if name == "path" && PATHS.contains(&id) {
        parameter["required"] = true.into();
    }
    parameter
}

fn json_body(properties: Value, needed: &[&str]) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    json!({ "required": true, "content": { "application/json": { "schema": schema } } })
}

/// What is sent to the operation `id`, where it takes something.
fn body(id: &str) -> Option<Value> {
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let (properties, needed): (Value, &[&str]) = match id {
        "exec" | "spawn" => {
            let mut properties = json!({
                "command": { "type": "string", "description": "A line for bash; or argv." },
                "argv": { "type": "array", "items": text(), "description": "A program and its arguments." },
                "cwd": text(),
                "env": { "type": "object", "additionalProperties": text() },
                "timeout_s": { "type": "integer", "minimum": 1, "maximum": 3_600 },
                "terminal": {
                    "type": "object", "required": ["rows", "cols"], "additionalProperties": false,
                    "properties": { "rows": number(), "cols": number() },
                },
            });
            if id == "exec" {
                properties["stdin"] = text();
                properties["stdin_base64"] = text();
            }
            (properties, &[])
        }
        "speakMcp" => {
            let message = json!({
                "type": "object", "required": ["jsonrpc", "method"],
                "properties": {
                    "jsonrpc": { "const": "2.0" }, "method": text(), "id": {}, "params": { "type": "object" },
                },
            });
            return Some(
                json!({ "required": true, "content": { "application/json": { "schema": message } } }),
            );
        }
        "signal" => (json!({ "signal": number() }), &["signal"]),
        "writeFile" => {
            let bytes = json!({ "application/octet-stream": {} });
            return Some(json!({ "required": true, "content": bytes }));
        }
        "makeDirectory" => (json!({ "path": text() }), &["path"]),
        "moveFile" => (
            json!({ "from": text(), "to": text(), "existing": { "enum": ["replace", "refuse"] } }),
            &["from", "to"],
        ),
        "searchFiles" => (
            json!({
                "path": text(), "name": text(), "line": text(), "limit": number(),
                "all": { "type": "boolean", "description": "Also what .gitignore names." },
            }),
            &[],
        ),
        "openPreview" => (
            json!({
                "port": { "type": "integer", "minimum": 1, "maximum": 65_535 },
                "public": { "type": "boolean", "description": "Show it to everybody; false ends that." },
                "command": {
                    "type": "string", "maxLength": 4_096,
                    "description": "A line for bash that serves it, now and where it is visited again; empty forgets it.",
                },
                "cwd": { "type": "string", "maxLength": 1_024, "description": "Where that begins, from /workspace." },
            }),
            &["port"],
        ),
        "takeSnapshot" | "freezeSandbox" => (json!({ "name": text() }), &[]),
        "forkSandbox" => (json!({ "name": text(), "snapshot": text() }), &["name"]),
        "restoreSnapshot" => (json!({ "snapshot": text() }), &["snapshot"]),
        _ => return None,
    };
    Some(json_body(properties, needed))
}

/// The paths with their methods; `operation` makes one of an id, a summary and a status.
pub fn described(operation: fn(&str, &str, &str) -> Value) -> Vec<(String, Value)> {
    let mut create = operation("createSandbox", "Make one more, under {name}", "201");
    create["parameters"] = json!([]);
    headers(&mut create);
    create["requestBody"] = json_body(
        json!({
            "name": { "type": "string", "description": "Its id where it is left out." },
            "template": { "enum": ["blank", "node", "python"] },
            "isolation": {
                "enum": ["namespaces", "pod", "gvisor", "microvm"],
                "description": "The least that it must be kept apart by; it is not made where a machine has less.",
            },
        }),
        &[],
    );
    let mut paths: Vec<(String, Map<String, Value>)> = vec![(
        "/v1/sandboxes".to_owned(),
        [
            ("get".to_owned(), operation("listSandboxes", "The credential's sandboxes", "200")),
            ("post".to_owned(), create),
        ]
        .into_iter()
        .collect(),
    )];
    for (rest, method, id, summary, status, query) in ROWS {
        let path = format!("/v1/sandboxes/{{sandbox}}{rest}");
        let mut described = operation(id, summary, status);
        described["parameters"] = query.iter().map(|name| parameter(name, id)).collect();
        if ONCE.contains(id) {
            headers(&mut described);
        }
        if let Some(body) = body(id) {
            described["requestBody"] = body;
        }
        match paths.last_mut() {
            Some((last, methods)) if *last == path => {
                methods.insert((*method).to_owned(), described);
            }
            _ => paths.push((path, [((*method).to_owned(), described)].into_iter().collect())),
        }
    }
    paths.into_iter().map(|(path, methods)| (path, methods.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to these is nothing.
    const EMPTY: [&str; 3] = ["pauseSandbox", "resumeSandbox", "thawSandbox"];

    #[test]
    fn what_is_sent_is_described() {
        for (path, methods) in described(|id, _, _| json!({ "operationId": id })) {
            for (method, operation) in methods.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                let sends = ["post", "put"].contains(&method.as_str()) && !EMPTY.contains(&id);
                assert_eq!(operation.get("requestBody").is_some(), sends, "{method} {path}");
            }
        }
    }
}
