//! A plain call takes a short way through the door: what comes back is what the long way gives.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::world::{ENV_KEY, READER_KEY, World};

/// Unknown to everybody, and so a reason for the long way.
const STRANGE: &str = "test/strange";

/// Status, media type and message, without what differs from request to request.
async fn seen(answer: reqwest::Response) -> (u16, String, Value) {
    let (status, headers): (u16, HeaderMap) = (answer.status().as_u16(), answer.headers().clone());
    let kind = headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    assert!(headers.contains_key("x-request-id"));
    let mut message: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    if let Some(Value::String(text)) = message.pointer_mut("/result/content/0/text")
        && let Ok(mut problem) = serde_json::from_str::<Value>(text)
        && let Some(fields) = problem.as_object_mut()
    {
        fields.remove("request_id");
        *text = problem.to_string();
    }
    (status, kind, message)
}

#[tokio::test]
async fn the_short_way_and_the_long_one_give_the_same() {
    let world = World::start().await;
    let tools = world.get("/v1/tools", ENV_KEY).send().await.unwrap().bytes().await.unwrap();
    let tools: Value = serde_json::from_slice(&tools).unwrap();
    let mut calls: Vec<Value> = Vec::new();
    for tool in tools["tools"].as_array().unwrap() {
        // One counts its calls, and two wait to be told.
        let quick = !matches!(tool["name"].as_str(), Some("add" | "wait" | "slow"));
        for arguments in [json!({}), json!({ "text": "hi" }), json!({ "no_such_field": 1 })] {
            if quick {
                calls.push(json!({ "name": tool["name"], "arguments": arguments }));
            }
        }
    }
    calls.push(json!({ "name": "none" }));
    calls.push(json!({ "name": calls[0]["name"], "arguments": [] }));
    calls.push(
        json!({ "name": calls[0]["name"], "arguments": {}, "_meta": { "steading/idempotency-key": 1 } }),
    );
    for params in calls {
        for key in [ENV_KEY, READER_KEY, "stead_key_unknown"] {
            let mut strange = params.clone();
            strange.as_object_mut().unwrap().entry("_meta").or_insert_with(|| json!({}))[STRANGE] =
                true.into();
            let short = seen(world.legacy("/mcp", key, "tools/call", params.clone()).await).await;
            let long = seen(world.legacy("/mcp", key, "tools/call", strange.clone()).await).await;
            assert_eq!(stripped(short), stripped(long), "{params}");
            let short = seen(world.modern("/mcp", key, "tools/call", params.clone()).await).await;
            let long = seen(world.modern("/mcp", key, "tools/call", strange).await).await;
            assert_eq!(stripped(short), stripped(long), "{params}");
        }
    }
}

/// Problem documents of refused requests carry their id too.
fn stripped((status, kind, mut message): (u16, String, Value)) -> (u16, String, Value) {
    if let Some(fields) = message.as_object_mut() {
        fields.remove("request_id");
    }
    (status, kind, message)
}

#[tokio::test]
async fn headers_that_contradict_a_plain_call_are_refused_all_the_same() {
    let world = World::start().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "greet", "arguments": {}, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    for (method, name) in [("tools/list", "greet"), ("tools/call", "another"), ("tools/call", "")] {
        let answer = world
            .post("/mcp", ENV_KEY)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .header("mcp-name", name)
            .json(&message)
            .send()
            .await
            .unwrap();
        let (_, _, said) = seen(answer).await;
        assert!(said["error"]["code"].is_i64(), "{method} {name}: {said}");
    }
}
