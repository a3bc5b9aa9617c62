//! Realtime in the OpenAPI document: the stream, the socket's messages, tickets, and what a server says to channels.

use capabilities::access::Operation;
use capabilities::rows::App;
use serde_json::{Map, Value, json};

use super::openapi::{body, operation, reference};

/// Adds the paths and schemas of what this app has to tell.
pub(super) fn add(app: &App, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let tables: Vec<&String> =
        app.tables.values().filter(|it| it.allows(Operation::List)).map(|it| &it.name).collect();
    if tables.is_empty() && app.realtime.is_empty() {
        return;
    }
    let parameter = |name: &str, about: &str, schema: Value| json!({ "in": "query", "name": name, "description": about, "schema": schema });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let subscribe =
        "A table, or {\"table\", \"where\"?, \"select\"?, \"sub\"?} as JSON; may be given several times.";
    let parameters = [
        parameter("subscribe", subscribe, texts()),
        parameter("channel", "A channel to listen to; may be given several times.", texts()),
        parameter(
            "ticket",
            "From POST /_/realtime/ticket, where no header can be sent.",
            json!({ "type": "string" }),
        ),
        parameter(
            "after",
            "The id of the last event; the header Last-Event-ID goes before it.",
            json!({ "type": "string" }),
        ),
    ];
    let events = json!({
        "summary": "Tells what happens, as server-sent events; as a WebSocket, with `Upgrade: websocket`.",
        "description": "Each event is one app.Told. Over a WebSocket the client sends app.Said, `hello` first, \
            which is where the token goes.",
        "parameters": parameters,
        "responses": {
            "200": { "description": "The stream.", "content": { "text/event-stream": { "schema": reference("app.Told") } } },
            "101": { "description": "The WebSocket." },
            "default": { "$ref": "#/components/responses/problem" },
        },
    });
    paths.insert("/_/realtime".to_owned(), json!({ "get": events }));
    let ticket = json!({
        "type": "object", "required": ["ticket", "expires_in"],
        "properties": { "ticket": { "type": "string" }, "expires_in": { "type": "integer" } },
    });
    let about = "Gets what opens one stream, once and within `expires_in` seconds.";
    paths.insert("/_/realtime/ticket".to_owned(), json!({ "post": operation(about, 201, Some(ticket)) }));
    if !app.realtime.is_empty() {
        let told = json!({ "type": "object", "required": ["told"], "properties": { "told": { "type": "integer" } } });
        let mut post = operation("Says something to everybody in a channel; to how many.", 200, Some(told));
        post["requestBody"] = body(json!({
            "type": "object", "required": ["channel", "event"], "additionalProperties": false,
            "properties": { "channel": text(), "event": text(), "data": {} },
        }));
        paths.insert("/_/realtime/broadcast".to_owned(), json!({ "post": post }));
    }
    schemas.insert("app.Said".to_owned(), json!({ "oneOf": said(&tables) }));
    schemas.insert("app.Told".to_owned(), json!({ "oneOf": told(&tables) }));
}

fn text() -> Value {
    json!({ "type": "string" })
}

/// One kind of message: its `type`, what it must have, what it may have.
fn message(kind: &[&str], needed: &[(&str, Value)], also: &[(&str, Value)]) -> Value {
    let mut properties = Map::from_iter([("type".to_owned(), json!({ "enum": kind }))]);
    properties.extend(needed.iter().chain(also).map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    let required: Vec<&str> = std::iter::once("type").chain(needed.iter().map(|(name, _)| *name)).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn said(tables: &[&String]) -> Vec<Value> {
    let (state, table) = (|| json!({ "type": ["object", "null"] }), json!({ "enum": tables }));
    let channel = || ("channel", text());
    vec![
        message(&["hello"], &[], &[("token", text()), ("key", text())]),
        message(
            &["subscribe"],
            &[("table", table)],
            &[("sub", text()), ("where", text()), ("select", text()), ("after", text())],
        ),
        message(&["unsubscribe"], &[("sub", text())], &[]),
        message(&["join"], &[channel()], &[("state", state())]),
        message(&["leave"], &[channel()], &[]),
        message(&["presence"], &[channel()], &[("state", state())]),
        message(
            &["broadcast"],
            &[channel(), ("event", text())],
            &[("data", json!({})), ("reference", text())],
        ),
        message(&["ping"], &[], &[]),
    ]
}

fn told(tables: &[&String]) -> Vec<Value> {
    let at =
        || ("at", json!({ "type": ["string", "null"], "description": "From where to go on after this." }));
    let of_rows = || [("sub", text()), ("table", json!({ "enum": tables }))];
    let rows: Vec<Value> = tables.iter().map(|table| reference(table)).collect();
    let row = json!({ "anyOf": rows });
    let id = json!({ "type": "object", "required": ["id"], "properties": { "id": text() } });
    let from = json!({ "type": "object", "properties": { "id": { "type": ["string", "null"] }, "user": { "type": ["string", "null"] } } });
    let member = json!({
        "type": "object", "required": ["id", "user", "state"],
        "properties": { "id": text(), "user": { "type": ["string", "null"] }, "state": { "type": "object" } },
    });
    let with = |more: Vec<(&'static str, Value)>| [of_rows().to_vec(), more].concat();
    let channel = || ("channel", text());
    vec![
        message(&["ready", "renewed", "pong"], &[], &[]),
        message(&["subscribed"], &with(vec![("resumed", json!({ "type": "boolean" }))]), &[at()]),
        message(&["insert", "update"], &with(vec![("row", row)]), &[at()]),
        message(&["delete"], &with(vec![("row", id)]), &[at()]),
        message(
            &["reset"],
            &with(vec![("reason", json!({ "enum": ["much", "lost", "release", "unavailable"] }))]),
            &[at()],
        ),
        message(&["unsubscribed"], &[("sub", text())], &[]),
        message(&["beat"], &[], &[at()]),
        message(
            &["joined"],
            &[channel(), ("id", text()), ("members", json!({ "type": "array", "items": member }))],
            &[],
        ),
        message(
            &["presence"],
            &[
                channel(),
                ("event", json!({ "enum": ["join", "update", "leave"] })),
                ("member", member.clone()),
            ],
            &[],
        ),
        message(&["broadcast"], &[channel(), ("event", text()), ("data", json!({})), ("from", from)], &[]),
        message(&["left"], &[channel(), ("reason", json!({ "enum": ["asked", "forbidden"] }))], &[]),
        message(&["sent"], &[("reference", text())], &[]),
        message(&["error"], &[("code", text()), ("message", text())], &[("hint", text()), ("field", text())]),
        message(&["end"], &[("reason", text()), ("hint", text())], &[]),
    ]
}
