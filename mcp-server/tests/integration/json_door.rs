//! The JSON door: `/v1/tools`.

use std::sync::atomic::Ordering;

use expect_test::{Expect, expect};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::world::{ENV_KEY, READER_KEY, TENANT_KEY, TIRED_KEY, World};

/// Status, the headers that carry meaning, and the body with its request id taken out.
async fn told(request: RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    let mut told = response.status().as_u16().to_string();
    for name in ["content-type", "www-authenticate", "retry-after", "ratelimit-policy", "ratelimit", "allow"]
    {
        if let Some(value) = response.headers().get(name) {
            told += &format!("\n{name}: {}", value.to_str().unwrap());
        }
    }
    let id = response.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
    let body = response.text().await.unwrap();
    if body.is_empty() {
        return told;
    }
    let mut body: Value = serde_json::from_str(&body).unwrap();
    if let Some(request_id) = body.as_object_mut().unwrap().remove("request_id") {
        assert_eq!(request_id.as_str(), id.as_deref(), "the header and the problem name one request");
    }
    format!("{told}\n{body:#}\n")
}

async fn check(request: RequestBuilder, expected: Expect) {
    expected.assert_eq(&told(request).await);
}

fn names(list: &Value) -> Vec<&str> {
    list["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_list_is_what_the_credential_may_call_in_fixed_order() {
    let world = World::start().await;
    let all = body(world.get("/v1/tools", TENANT_KEY).send().await.unwrap()).await;
    assert_eq!(names(&all), ["echo", "add", "steps", "wait", "slow", "wipe", "whoami", "panics"]);
    let few = body(world.get("/v1/tools", READER_KEY).send().await.unwrap()).await;
    assert_eq!(names(&few), ["echo", "steps", "wait", "slow", "panics"]);
    let safe = body(world.get("/v1/tools?tools=safe", ENV_KEY).send().await.unwrap()).await;
    assert_eq!(names(&safe), ["echo", "add", "steps", "wait", "slow", "panics"]);
}

#[tokio::test]
async fn a_tool_is_shown_with_its_schemas() {
    let world = World::start().await;
    check(
        world.get("/v1/tools/echo", ENV_KEY),
        expect![[r#"
            200
            content-type: application/json
            {
              "name": "echo",
              "title": "Echo",
              "description": "A tool of the tests.",
              "input_schema": {
                "type": "object",
                "properties": {
                  "text": {
                    "type": "string",
                    "description": "What comes back."
                  }
                },
                "required": [
                  "text"
                ]
              },
              "output_schema": {
                "type": "object",
                "properties": {
                  "text": {
                    "type": "string"
                  }
                },
                "required": [
                  "text"
                ]
              },
              "annotations": {
                "title": "Echo",
                "readOnlyHint": true,
                "destructiveHint": false,
                "idempotentHint": true,
                "openWorldHint": false
              }
            }
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_call_gives_the_tools_output() {
    let world = World::start().await;
    check(
        world.post("/v1/tools/echo", ENV_KEY).json(&json!({ "text": "hello" })),
        expect![[r#"
        200
        content-type: application/json
        {
          "text": "hello"
        }
    "#]],
    )
    .await;
    check(
        world.post("/v1/tools/add", ENV_KEY),
        expect![[r#"
        200
        content-type: application/json
        {
          "count": 1
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn wrong_input_names_its_field() {
    let world = World::start().await;
    let sent = json!({ "text": "hello", "loud": true });
    check(
        world.post("/v1/tools/echo", ENV_KEY).json(&sent),
        expect![[r#"
        400
        content-type: application/problem+json
        {
          "type": "urn:steading:error:invalid_input",
          "title": "The input is not valid",
          "status": 400,
          "code": "invalid_input",
          "message": "there is no field \"loud\"",
          "field": "/loud",
          "hint": "remove it, or see the tool's input schema"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn no_credential_and_a_wrong_one_are_challenged() {
    let world = World::start().await;
    check(
        world.client.get(world.url("/v1/tools")),
        expect![[r#"
        401
        content-type: application/problem+json
        www-authenticate: Bearer realm="steading"
        {
          "type": "urn:steading:error:unauthenticated",
          "title": "A valid credential is needed",
          "status": 401,
          "code": "unauthenticated",
          "message": "the credential is not valid"
        }
    "#]],
    )
    .await;
    check(
        world.post("/v1/tools/echo", "wrong"),
        expect![[r#"
        401
        content-type: application/problem+json
        www-authenticate: Bearer realm="steading"
        {
          "type": "urn:steading:error:unauthenticated",
          "title": "A valid credential is needed",
          "status": 401,
          "code": "unauthenticated",
          "message": "the credential is not valid"
        }
    "#]],
    )
    .await;
    let basic = world.client.get(world.url("/v1/tools")).header("authorization", "Basic eDp5");
    check(
        basic,
        expect![[r#"
        401
        content-type: application/problem+json
        www-authenticate: Bearer realm="steading"
        {
          "type": "urn:steading:error:unauthenticated",
          "title": "A valid credential is needed",
          "status": 401,
          "code": "unauthenticated",
          "message": "the Authorization header cannot be read",
          "hint": "send one header Authorization: Bearer <key>"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_missing_scope_is_named_and_an_unknown_tool_is_not_found() {
    let world = World::start().await;
    check(
        world.post("/v1/tools/add", READER_KEY),
        expect![[r#"
        403
        content-type: application/problem+json
        {
          "type": "urn:steading:error:forbidden",
          "title": "The credential does not allow this",
          "status": 403,
          "code": "forbidden",
          "message": "the credential lacks the scope db:write",
          "hint": "use a credential that carries it, or ask who made this one"
        }
    "#]],
    )
    .await;
    check(
        world.get("/v1/tools/add", READER_KEY),
        expect![[r#"
        403
        content-type: application/problem+json
        {
          "type": "urn:steading:error:forbidden",
          "title": "The credential does not allow this",
          "status": 403,
          "code": "forbidden",
          "message": "the credential lacks the scope db:write",
          "hint": "use a credential that carries it, or ask who made this one"
        }
    "#]],
    )
    .await;
    check(
        world.post("/v1/tools/nope", ENV_KEY),
        expect![[r#"
            404
            content-type: application/problem+json
            {
              "type": "urn:steading:error:not_found",
              "title": "There is no such thing",
              "status": 404,
              "code": "not_found",
              "message": "there is no tool \"nope\"",
              "hint": "list the tools first"
            }
        "#]],
    )
    .await;
    check(
        world.post("/v1/tools/wipe?tools=safe", ENV_KEY),
        expect![[r#"
        403
        content-type: application/problem+json
        {
          "type": "urn:steading:error:forbidden",
          "title": "The credential does not allow this",
          "status": 403,
          "code": "forbidden",
          "message": "the tool wipe is outside the selection this connection asked for",
          "hint": "connect with ?tools=full"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_tenants_key_names_its_environment() {
    let world = World::start().await;
    let echo = || world.post("/v1/tools/echo", TENANT_KEY).json(&json!({ "text": "hello" }));
    check(
        echo(),
        expect![[r#"
        400
        content-type: application/problem+json
        {
          "type": "urn:steading:error:invalid_input",
          "title": "The input is not valid",
          "status": 400,
          "code": "invalid_input",
          "message": "this call needs an environment",
          "hint": "alpha, beta"
        }
    "#]],
    )
    .await;
    check(
        echo().header("steading-env", "beta"),
        expect![[r#"
        200
        content-type: application/json
        {
          "text": "hello"
        }
    "#]],
    )
    .await;
    check(
        echo().header("steading-env", "gamma"),
        expect![[r#"
        404
        content-type: application/problem+json
        {
          "type": "urn:steading:error:not_found",
          "title": "There is no such thing",
          "status": 404,
          "code": "not_found",
          "message": "there is no environment \"gamma\""
        }
    "#]],
    )
    .await;
    check(
        world.post("/v1/tools/whoami", TENANT_KEY),
        expect![[r#"
        200
        content-type: application/json
        {
          "text": "key"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_repeat_under_one_idempotency_key_changes_nothing_more() {
    let world = World::start().await;
    let add = || world.post("/v1/tools/add", ENV_KEY).header("idempotency-key", "once");
    let (first, second) = (body(add().send().await.unwrap()).await, body(add().send().await.unwrap()).await);
    assert_eq!((first.clone(), second), (json!({ "count": 1 }), first));
    assert_eq!(world.memory.added.load(Ordering::SeqCst), 1);
    let other = world.post("/v1/tools/wipe", ENV_KEY).header("idempotency-key", "once");
    check(
        other,
        expect![[r#"
        422
        content-type: application/problem+json
        {
          "type": "urn:steading:error:conflict",
          "title": "The state has moved",
          "status": 422,
          "code": "conflict",
          "message": "the key stood for another call"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_limit_says_when_to_come_back() {
    let world = World::start().await;
    check(
        world.post("/v1/tools/echo", TIRED_KEY),
        expect![[r#"
            429
            content-type: application/problem+json
            retry-after: 7
            ratelimit-policy: "key";q=300;w=6
            ratelimit: "key";r=0;t=7
            {
              "type": "urn:steading:error:rate_limited",
              "title": "Too many calls",
              "status": 429,
              "code": "rate_limited",
              "message": "the key made too many calls",
              "limit": {
                "name": "key",
                "scope": "key",
                "value": 300,
                "unit": "calls",
                "left": 0,
                "raise": "ask who runs the platform",
                "window_s": 6,
                "reset_s": 7
              },
              "retry_after": 7
            }
        "#]],
    )
    .await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let world = World::start().await;
    check(
        world.get("/v1/nope", ENV_KEY),
        expect![[r#"
        404
        content-type: application/problem+json
        {
          "type": "urn:steading:error:not_found",
          "title": "There is no such thing",
          "status": 404,
          "code": "not_found",
          "message": "there is no such path",
          "hint": "GET /v1/tools lists the tools"
        }
    "#]],
    )
    .await;
    check(
        world.client.delete(world.url("/v1/tools")).bearer_auth(ENV_KEY),
        expect![[r#"
        405
        content-type: application/problem+json
        allow: GET,HEAD
        {
          "type": "urn:steading:error:invalid_input",
          "title": "The input is not valid",
          "status": 405,
          "code": "invalid_input",
          "message": "this path does not take that method",
          "hint": "the Allow header lists the methods it takes"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_tool_that_panics_is_an_internal_error() {
    let world = World::start().await;
    check(
        world.post("/v1/tools/panics", ENV_KEY),
        expect![[r#"
        500
        content-type: application/problem+json
        {
          "type": "urn:steading:error:internal",
          "title": "Internal error",
          "status": 500,
          "code": "internal",
          "message": "internal error"
        }
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_call() {
    let world = World::start().await;
    let call = tokio::spawn(world.post("/v1/tools/wait", ENV_KEY).send());
    world.memory.waiting.cancelled().await;
    call.abort();
    world.memory.cancelled.cancelled().await;
}

#[tokio::test]
async fn a_deadline_ends_a_call() {
    let world = World::start().await;
    let wait = || world.post("/v1/tools/wait", ENV_KEY);
    check(
        wait().header("steading-timeout", "0.05"),
        expect![[r#"
        504
        content-type: application/problem+json
        {
          "type": "urn:steading:error:timeout",
          "title": "It took too long",
          "status": 504,
          "code": "timeout",
          "message": "the call ran longer than 0.05 s",
          "hint": "ask for less at once"
        }
    "#]],
    )
    .await;
    check(
        wait().header("steading-timeout", "soon"),
        expect![[r#"
        400
        content-type: application/problem+json
        {
          "type": "urn:steading:error:invalid_input",
          "title": "The input is not valid",
          "status": 400,
          "code": "invalid_input",
          "message": "the header steading-timeout must be seconds above zero",
          "hint": "write Steading-Timeout: 30"
        }
    "#]],
    )
    .await;
}
