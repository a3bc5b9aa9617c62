//! The MCP door: `/mcp` and `/mcp/{env}`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use expect_test::expect;
use mcp_server::mcp::{McpOptions, Sessions};
use reqwest::Response;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{ENV_KEY, OTHER_KEY, READER_KEY, TENANT_KEY, TIRED_KEY, World};

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The messages of an event stream.
async fn events(response: Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect()
}

/// A tool's result, with what the client would show a model.
async fn called(world: &World, key: &str, name: &str, arguments: Value) -> Value {
    let params = json!({ "name": name, "arguments": arguments });
    let answer = world.modern("/mcp", key, "tools/call", params).await;
    assert_eq!(answer.status(), 200);
    body(answer).await["result"].take()
}

/// The problem in a failed call, without its request id.
async fn problem(world: &World, key: &str, name: &str, arguments: Value) -> Value {
    let result = called(world, key, name, arguments).await;
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(result.get("structuredContent"), None, "{result}");
    let mut problem: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(problem.as_object_mut().unwrap().remove("request_id").is_some());
    problem
}

fn names(list: &Value) -> Vec<&str> {
    list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn one_endpoint_greets_clients_of_three_revisions() {
    let world = World::start().await;
    let skills = json!({ "io.modelcontextprotocol/skills": { "directoryRead": true } });
    let capabilities = json!({ "extensions": skills, "prompts": {}, "resources": {}, "tools": {} });
    for version in ["2025-06-18", "2025-11-25"] {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": version, "capabilities": {}, "clientInfo": client });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let answer = world.post("/mcp", ENV_KEY).json(&message).send().await.unwrap();
        assert_eq!(answer.headers().get("mcp-session-id"), None);
        let answer = body(answer).await;
        assert_eq!(answer["result"]["protocolVersion"], version);
        assert_eq!(answer["result"]["serverInfo"]["name"], "steading");
        assert_eq!(answer["result"]["capabilities"], capabilities);
    }
    let answer = body(world.modern("/mcp", ENV_KEY, "server/discover", json!({})).await).await;
    let result = &answer["result"];
    assert_eq!(result["capabilities"], capabilities);
    assert!(result["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")), "{result}");
    let instructions = result["instructions"].as_str().unwrap();
    let tokens = tiktoken_rs::o200k_base().unwrap().encode_ordinary(instructions).len();
    assert!(tokens <= 150, "the instructions take {tokens} tokens");
}

#[tokio::test]
async fn the_list_is_what_the_credential_may_call_in_fixed_order() {
    let world = World::start().await;
    let list = async |path: &str, key: &str| {
        let (old, new) = (
            body(world.legacy(path, key, "tools/list", json!({})).await).await,
            body(world.modern(path, key, "tools/list", json!({})).await).await,
        );
        assert_eq!(old["result"]["tools"], new["result"]["tools"]);
        assert_eq!(new["result"]["cacheScope"], "private");
        names(&new).join(" ")
    };
    assert_eq!(list("/mcp", TENANT_KEY).await, "echo add steps wait slow wipe whoami panics");
    assert_eq!(list("/mcp", ENV_KEY).await, "echo add steps wait slow wipe panics");
    assert_eq!(list("/mcp/alpha", READER_KEY).await, "echo steps wait slow panics");
    assert_eq!(list("/mcp?tools=readonly", ENV_KEY).await, "echo steps wait slow panics");
    assert_eq!(list("/mcp/alpha?tools=safe", ENV_KEY).await, "echo add steps wait slow panics");
    let refused = world.modern("/mcp?tools=all", ENV_KEY, "tools/list", json!({})).await;
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn a_tool_is_described_with_its_schemas_and_all_hints() {
    let world = World::start().await;
    let mut list = body(world.modern("/mcp", ENV_KEY, "tools/list", json!({})).await).await;
    expect![[r#"
        {
          "name": "wipe",
          "title": "Wipe",
          "description": "A tool of the tests.",
          "inputSchema": {
            "type": "object"
          },
          "outputSchema": {
            "type": "object",
            "properties": {
              "count": {
                "type": "integer",
                "minimum": 0
              }
            },
            "required": [
              "count"
            ]
          },
          "annotations": {
            "title": "Wipe",
            "readOnlyHint": false,
            "destructiveHint": true,
            "idempotentHint": false,
            "openWorldHint": false
          }
        }
    "#]]
    .assert_eq(&format!("{:#}\n", list["result"]["tools"][5].take()));
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let world = World::with(McpOptions { page: 3, ..McpOptions::default() }).await;
    let mut seen = vec![];
    let mut params = json!({});
    loop {
        let page = body(world.modern("/mcp", ENV_KEY, "tools/list", params).await).await;
        seen.push(names(&page).join(" "));
        let Some(cursor) = page["result"].get("nextCursor") else { break };
        params = json!({ "cursor": cursor });
    }
    assert_eq!(seen, ["echo add steps", "wait slow wipe", "panics"]);
    let lost = body(world.modern("/mcp", ENV_KEY, "tools/list", json!({ "cursor": "nope" })).await).await;
    assert_eq!(lost["error"]["code"], -32602);
}

#[tokio::test]
async fn a_good_call_says_the_same_in_text_and_in_structure() {
    let world = World::start().await;
    let result = called(&world, ENV_KEY, "echo", json!({ "text": "hello" })).await;
    assert_eq!(
        result,
        json!({
            "resultType": "complete",
            "content": [{ "type": "text", "text": "{\"text\":\"hello\"}" }],
            "structuredContent": { "text": "hello" },
            "isError": false,
        }),
    );
    let params = json!({ "name": "echo", "arguments": { "text": "hello" } });
    let old = body(world.legacy("/mcp", ENV_KEY, "tools/call", params).await).await;
    assert_eq!(old["result"]["structuredContent"], result["structuredContent"]);
    assert_eq!(old["result"].get("resultType"), None);
    let record = world.memory.records.lock().unwrap()[0].clone();
    assert_eq!((record.surface, record.tool), ("mcp", "echo"));
}

#[tokio::test]
async fn a_failed_call_is_a_problem_in_text_alone() {
    let world = World::start().await;
    let mut told = String::new();
    for (key, name, arguments) in [
        (ENV_KEY, "echo", json!({ "text": 1 })),
        (READER_KEY, "add", json!({})),
        (TENANT_KEY, "add", json!({})),
        (TIRED_KEY, "add", json!({})),
        (ENV_KEY, "panics", json!({})),
    ] {
        told += &format!("{name} {}\n", problem(&world, key, name, arguments).await);
    }
    expect![[r#"
        echo {"type":"urn:steading:error:invalid_input","title":"The input is not valid","status":400,"code":"invalid_input","message":"expected string, got a number","field":"/text"}
        add {"type":"urn:steading:error:forbidden","title":"The credential does not allow this","status":403,"code":"forbidden","message":"the credential lacks the scope db:write","hint":"use a credential that carries it, or ask who made this one"}
        add {"type":"urn:steading:error:invalid_input","title":"The input is not valid","status":400,"code":"invalid_input","message":"this call needs an environment","hint":"alpha, beta"}
        add {"type":"urn:steading:error:rate_limited","title":"Too many calls","status":429,"code":"rate_limited","message":"the key made too many calls","limit":{"name":"key","scope":"key","value":300,"unit":"calls","left":0,"raise":"ask who runs the platform","window_s":6,"reset_s":7},"retry_after":7}
        panics {"type":"urn:steading:error:internal","title":"Internal error","status":500,"code":"internal","message":"internal error"}
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn only_an_unknown_name_is_a_protocol_error() {
    let world = World::start().await;
    let unknown = body(world.modern("/mcp", ENV_KEY, "tools/call", json!({ "name": "nope" })).await).await;
    assert_eq!(unknown["error"], json!({ "code": -32602, "message": "there is no tool \"nope\"" }));
    for method in ["completion/complete", "nope"] {
        let unknown = world.modern("/mcp", ENV_KEY, method, json!({})).await;
        assert_eq!(unknown.status(), 404, "{method}");
        assert_eq!(body(unknown).await["error"]["code"], -32601, "{method}");
    }
    let readonly = json!({ "name": "wipe", "arguments": {} });
    let outside = body(world.modern("/mcp?tools=readonly", ENV_KEY, "tools/call", readonly).await).await;
    let text = outside["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("\"code\":\"forbidden\""), "{outside}");
}

#[tokio::test]
async fn a_request_without_a_valid_credential_is_challenged() {
    let world = World::start().await;
    for key in [None, Some("wrong")] {
        for method in ["POST", "GET", "DELETE"] {
            let request = world.client.request(method.parse().unwrap(), world.url("/mcp"));
            let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"steading\"");
            assert_eq!(body(response).await["code"], "unauthenticated");
        }
    }
    let elsewhere = world.modern("/mcp/beta", ENV_KEY, "tools/list", json!({})).await;
    assert_eq!(elsewhere.status(), 404);
    assert_eq!(body(elsewhere).await["message"], "there is no environment \"beta\"");
}

#[tokio::test]
async fn the_path_names_a_tenant_keys_environment() {
    let world = World::start().await;
    let params = json!({ "name": "echo", "arguments": { "text": "hello" } });
    let answer = body(world.modern("/mcp/beta", TENANT_KEY, "tools/call", params).await).await;
    assert_eq!(answer["result"]["isError"], false);
}

#[tokio::test]
async fn steps_are_streamed_to_who_asks_and_the_rest_is_plain_json() {
    let world = World::start().await;
    let asked = json!({ "name": "steps", "arguments": {}, "_meta": { "progressToken": "t" } });
    for modern in [true, false] {
        let response = if modern {
            world.modern("/mcp", ENV_KEY, "tools/call", asked.clone()).await
        } else {
            world.legacy("/mcp", ENV_KEY, "tools/call", asked.clone()).await
        };
        let messages = events(response).await;
        let steps: Vec<_> = messages.iter().filter_map(|m| Some(m.get("params")?.to_string())).collect();
        let expected: Vec<_> = (1..=3)
            .map(|n| {
                let message = format!("step {n}");
                json!({ "progressToken": "t", "progress": f64::from(n), "total": 3.0, "message": message })
                    .to_string()
            })
            .collect();
        assert_eq!(steps, expected);
        assert_eq!(messages.last().unwrap()["result"]["structuredContent"], json!({ "count": 3 }));
    }
    let unasked = world.modern("/mcp", ENV_KEY, "tools/call", json!({ "name": "steps" })).await;
    assert_eq!(unasked.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let world = World::start().await;
    let request = world
        .post("/mcp", ENV_KEY)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "wait" } }));
    let call = tokio::spawn(request.send());
    world.memory.waiting.cancelled().await;
    call.abort();
    world.memory.cancelled.cancelled().await;
}

#[tokio::test]
async fn a_cancelled_notification_ends_the_call_it_names_and_no_other() {
    let world = World::start().await;
    let call = world
        .post("/mcp", ENV_KEY)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": { "name": "wait" } }));
    let call = tokio::spawn(call.send());
    world.memory.waiting.cancelled().await;
    let cancel = async |key: &str, id: &str| {
        let params = json!({ "requestId": id });
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        let sent = world.post("/mcp", key).header("mcp-protocol-version", "2025-11-25").json(&message);
        assert_eq!(sent.send().await.unwrap().status(), 202);
    };
    cancel(OTHER_KEY, "a").await;
    cancel(ENV_KEY, "b").await;
    assert!(!world.memory.cancelled.is_cancelled());
    cancel(ENV_KEY, "a").await;
    world.memory.cancelled.cancelled().await;
    let answer = body(call.await.unwrap().unwrap()).await;
    assert_eq!(answer["result"]["isError"], true);
}

#[tokio::test]
async fn a_repeat_under_one_idempotency_key_changes_nothing_more() {
    let world = World::start().await;
    let add = async |name: &str, key: Value| {
        let params = json!({ "name": name, "arguments": {}, "_meta": { "steading/idempotency-key": key } });
        body(world.modern("/mcp", ENV_KEY, "tools/call", params).await).await["result"].take()
    };
    let (first, second) = (add("add", json!("once")).await, add("add", json!("once")).await);
    assert_eq!((&first["structuredContent"], &second), (&json!({ "count": 1 }), &first));
    assert_eq!(world.memory.added.load(Ordering::SeqCst), 1);
    for refused in [add("wipe", json!("once")).await, add("add", json!(1)).await] {
        assert_eq!(refused["isError"], true, "{refused}");
    }
    assert_eq!(world.memory.added.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let world = World::start().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "add", "arguments": {}, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    for (method, name) in [("tools/list", "add"), ("tools/call", "echo")] {
        let request = world.post("/mcp", ENV_KEY).header("mcp-protocol-version", "2026-07-28");
        let request = request.header("mcp-method", method).header("mcp-name", name).json(&message);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(body(response).await["error"]["code"], -32020);
    }
    assert_eq!(world.memory.added.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn without_sessions_there_is_nothing_to_get_or_delete() {
    let world = World::start().await;
    for method in ["GET", "DELETE", "PUT"] {
        let request = world.client.request(method.parse().unwrap(), world.url("/mcp")).bearer_auth(ENV_KEY);
        let response = request.header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(body(response).await["status"], 405);
    }
}

/// Opens a session; gives its id.
async fn open(world: &World, key: &str) -> String {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let response = world.legacy("/mcp", key, "initialize", params).await;
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert_eq!(events(response).await[0]["result"]["protocolVersion"], "2025-11-25");
    let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let sent = world.post("/mcp", key).header("mcp-session-id", &session).json(&message);
    assert_eq!(sent.send().await.unwrap().status(), 202);
    session
}

#[tokio::test]
async fn a_session_is_its_openers_alone() {
    let world = World::with(McpOptions { sessions: Sessions::Legacy, ..McpOptions::default() }).await;
    let session = open(&world, ENV_KEY).await;
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {} });
    let send = async |method: &str, path: &str, key: &str, session: &str| {
        let request = world.client.request(method.parse().unwrap(), world.url(path)).bearer_auth(key);
        let request = request
            .header("accept", "application/json, text/event-stream")
            .header("mcp-session-id", session)
            .header("mcp-protocol-version", "2025-11-25");
        let request = if method == "POST" { request.json(&list) } else { request };
        request.send().await.unwrap().status().as_u16()
    };
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(send(method, "/mcp", OTHER_KEY, &session).await, 404, "{method}");
        assert_eq!(send(method, "/mcp/alpha", TENANT_KEY, &session).await, 404, "{method}");
        assert_eq!(send(method, "/mcp", READER_KEY, &session).await, 404, "{method}");
        assert_eq!(send(method, "/mcp", ENV_KEY, "nope").await, 404, "{method}");
    }
    assert_eq!(send("PUT", "/mcp", ENV_KEY, &session).await, 405);
    assert_eq!(send("POST", "/mcp", ENV_KEY, &session).await, 200);
    assert_eq!(send("DELETE", "/mcp", ENV_KEY, &session).await, 202);
    assert_eq!(send("POST", "/mcp", ENV_KEY, &session).await, 404);
}

#[tokio::test]
async fn a_tenant_has_a_thousand_sessions_and_not_one_more() {
    let world = World::with(McpOptions { sessions: Sessions::Legacy, ..McpOptions::default() }).await;
    let mut session = String::new();
    for _ in 0..1_000 {
        session = open(&world, ENV_KEY).await;
    }
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let refused = world.legacy("/mcp", OTHER_KEY, "initialize", params).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(body(refused).await["code"], "quota_exceeded");
    called(&world, OTHER_KEY, "echo", json!({ "text": "no session needed" })).await;
    let ended = world.client.delete(world.url("/mcp")).bearer_auth(ENV_KEY).header("mcp-session-id", session);
    assert_eq!(ended.send().await.unwrap().status(), 202);
    open(&world, OTHER_KEY).await;
}

#[tokio::test]
async fn stopping_lets_a_call_end_and_then_closes_every_stream() {
    let stop = CancellationToken::new();
    let options = McpOptions { sessions: Sessions::Legacy, stop: stop.clone(), ..McpOptions::default() };
    let world = World::with(options).await;
    let session = open(&world, ENV_KEY).await;
    let stream = world.client.get(world.url("/mcp")).bearer_auth(ENV_KEY);
    let stream = stream.header("accept", "text/event-stream").header("mcp-session-id", session);
    let stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let params = json!({ "name": "slow", "arguments": {} });
    let call = world.modern("/mcp", ENV_KEY, "tools/call", params);
    let ((), answer) = tokio::join!(
        async {
            world.memory.waiting.cancelled().await;
            stop.cancel();
            world.memory.release.cancel();
        },
        call,
    );
    assert_eq!(body(answer).await["result"]["structuredContent"], json!({ "count": 1 }));
    stream.bytes().await.unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_is_closed_after_the_grace() {
    let stop = CancellationToken::new();
    let options =
        McpOptions { stop: stop.clone(), grace: Duration::from_millis(50), ..McpOptions::default() };
    let world = World::with(options).await;
    let call = world.modern("/mcp", ENV_KEY, "tools/call", json!({ "name": "wait", "arguments": {} }));
    let ((), answer) = tokio::join!(
        async {
            world.memory.waiting.cancelled().await;
            stop.cancel();
        },
        call,
    );
    assert_eq!(answer.status(), 503);
    assert_eq!(body(answer).await["message"], "the platform is stopping");
    world.memory.cancelled.cancelled().await;
}
