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
    ("/previews", "post", "openPreview", "The address that {port} is shown at", "200", &[]),
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

/// The paths with their methods; `operation` makes one of an id, a summary and a status.
pub fn described(operation: fn(&str, &str, &str) -> Value) -> Vec<(String, Value)> {
    let mut paths: Vec<(String, Map<String, Value>)> = vec![(
        "/v1/sandboxes".to_owned(),
        [
            ("get".to_owned(), operation("listSandboxes", "The credential's sandboxes", "200")),
            ("post".to_owned(), operation("createSandbox", "Make one more, under {name}", "201")),
        ]
        .into_iter()
        .collect(),
    )];
    for (rest, method, id, summary, status, query) in ROWS {
        let path = format!("/v1/sandboxes/{{sandbox}}{rest}");
        let mut described = operation(id, summary, status);
        described["parameters"] = query
            .iter()
            .map(|name| {
                json!({
                    "name": name, "in": "query", "schema": { "type": "string" },
                })
            })
            .collect();
        match paths.last_mut() {
            Some((last, methods)) if *last == path => {
                methods.insert((*method).to_owned(), described);
            }
            _ => paths.push((path, [((*method).to_owned(), described)].into_iter().collect())),
        }
    }
    paths.into_iter().map(|(path, methods)| (path, methods.into())).collect()
}
