//! What nobody should send, sent to both doors.

use expect_test::expect;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{ENV_KEY, World};

/// Sends raw bytes; gives the status line and the body.
async fn raw(world: &World, request: Vec<u8>) -> String {
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = socket.write_all(&request).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut body: Value = serde_json::from_str(body).unwrap_or_default();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    format!("{}\n{}\n", head.lines().next().unwrap_or_default(), body["message"])
}

fn request(path: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nauthorization: Bearer {ENV_KEY}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n{extra}\r\n",
        body.len(),
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

const HOST: &str = "host: localhost\r\n";

#[tokio::test]
async fn a_body_of_100_mb_is_too_large_on_both_doors_and_nothing_is_kept() {
    let world = World::start().await;
    for path in ["/v1/tools/echo", "/mcp"] {
        let chunk = bytes::Bytes::from(vec![b'a'; 1 << 20]);
        let chunks = futures::stream::iter(vec![chunk; 100]).map(Ok::<_, std::convert::Infallible>);
        let response = world
            .post(path, ENV_KEY)
            .header("content-type", "application/json")
            .body(reqwest::Body::wrap_stream(chunks))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 413, "{path}");
        let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["code"], "too_large", "{path}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_with_its_place() {
    let world = World::start().await;
    let tell = async |body: &[u8]| raw(&world, request("/v1/tools/echo", HOST, body)).await;
    expect![[r#"
        HTTP/1.1 400 Bad Request
        "the body is not JSON that can be read: EOF while parsing a value at line 1 column 9"
    "#]]
    .assert_eq(&tell(b"{\"text\": ").await);
    expect![[r#"
        HTTP/1.1 400 Bad Request
        "the body is not JSON that can be read: invalid unicode code point at line 1 column 11"
    "#]]
    .assert_eq(&tell(b"{\"text\": \"\xff\xfe\"}").await);
    let deep = [vec![b'['; 20_000], vec![b']'; 20_000]].concat();
    expect![[r#"
        HTTP/1.1 400 Bad Request
        "the body is not JSON that can be read: recursion limit exceeded at line 1 column 128"
    "#]]
    .assert_eq(&tell(&deep).await);
    expect![[r#"
        HTTP/1.1 400 Bad Request
        "expected object, got an array"
    "#]]
    .assert_eq(&tell(b"[1]").await);
    let form = world.post("/v1/tools/echo", ENV_KEY).header("content-type", "text/plain").body("text=1");
    assert_eq!(form.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn what_is_not_a_message_is_a_json_rpc_error() {
    let world = World::start().await;
    let tell = async |body: Vec<u8>| {
        let sent = world.post("/mcp", ENV_KEY).header("content-type", "application/json").body(body);
        let response = sent.send().await.unwrap();
        format!("{} {}\n", response.status().as_u16(), response.text().await.unwrap())
    };
    let deep = [vec![b'['; 20_000], vec![b']'; 20_000]].concat();
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "echo", "arguments": [1] } });
    let mut told = String::new();
    for body in [
        b"{".to_vec(),
        b"\xff".to_vec(),
        deep,
        b"[]".to_vec(),
        b"{\"id\": 3}".to_vec(),
        b"null".to_vec(),
        call.to_string().into_bytes(),
    ] {
        told += &tell(body).await;
    }
    expect![[r#"
        400 {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error: EOF while parsing an object at line 1 column 1"}}
        400 {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error: expected value at line 1 column 1"}}
        400 {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error: recursion limit exceeded at line 1 column 128"}}
        400 {"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request: batches are not part of MCP"}}
        400 {"jsonrpc":"2.0","id":3,"error":{"code":-32600,"message":"invalid request: not a JSON-RPC 2.0 message"}}
        400 {"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request: not a JSON-RPC 2.0 message"}}
        200 {"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"name must be a string and arguments an object"}}
    "#]].assert_eq(&told);
}

#[tokio::test]
async fn another_host_and_another_origin_are_refused_before_the_credential_is_looked_at() {
    let world = World::start().await;
    for path in ["/v1/tools/echo", "/mcp", "/mcp/alpha"] {
        let evil_host = raw(&world, request(path, "host: evil.example\r\n", b"{}")).await;
        assert_eq!(evil_host, "HTTP/1.1 403 Forbidden\n\"the platform does not answer to this host name\"\n");
        let evil_origin = format!("{HOST}origin: http://evil.example\r\n");
        let evil_origin = raw(&world, request(path, &evil_origin, b"{}")).await;
        assert_eq!(
            evil_origin,
            "HTTP/1.1 403 Forbidden\n\"pages of this origin may not call the platform\"\n"
        );
        let two_hosts = raw(&world, request(path, &format!("{HOST}host: evil.example\r\n"), b"{}")).await;
        assert!(two_hosts.starts_with("HTTP/1.1 40"), "{two_hosts}");
        let none = raw(&world, request(path, "", b"{}")).await;
        assert!(none.starts_with("HTTP/1.1 403"), "{none}");
    }
    let own = format!("{HOST}origin: http://127.0.0.1:{}\r\n", world.address.port());
    let own = raw(&world, request("/v1/tools/add", &own, b"{}")).await;
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
}

#[tokio::test]
async fn huge_headers_are_refused_and_the_server_goes_on() {
    let world = World::start().await;
    let huge = format!("{HOST}x-huge: {}\r\n", "a".repeat(2_000_000));
    let told = raw(&world, request("/v1/tools/echo", &huge, b"{}")).await;
    assert!(told.starts_with("HTTP/1.1 431"), "{told}");
    let many: String = (0..5_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let told = raw(&world, request("/mcp", &format!("{HOST}{many}"), b"{}")).await;
    assert!(told.starts_with("HTTP/1.1 431"), "{told}");
    let response = world.post("/v1/tools/add", ENV_KEY).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn headers_that_are_given_twice_or_in_other_letters_are_refused() {
    let world = World::start().await;
    let cases = [
        format!("{HOST}authorization: Bearer other\r\n"),
        format!("{HOST}steading-env: alpha\r\nsteading-env: beta\r\n"),
        format!("{HOST}steading-env: \u{e4}\r\n"),
    ];
    for extra in cases {
        for path in ["/v1/tools/add", "/mcp"] {
            let told = raw(&world, request(path, &extra, b"{}")).await;
            assert!(told.starts_with("HTTP/1.1 40"), "{extra}: {told}");
        }
    }
    assert_eq!(world.memory.added.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_calls_nothing() {
    let world = World::start().await;
    let mut half = request("/v1/tools/add", HOST, b"{}");
    half.truncate(half.len() - 1);
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(&half).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(world.memory.added.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_not_waited_for_without_end() {
    let world = World::start().await;
    let sent = async |path: &str| {
        let mut half = request(path, HOST, b"{\"text\":1}");
        half.truncate(half.len() - 5);
        raw(&world, half).await
    };
    let answers = tokio::join!(sent("/v1/tools/echo"), sent("/mcp"));
    for answer in [answers.0, answers.1] {
        assert_eq!(answer, "HTTP/1.1 408 Request Timeout\n\"the body takes too long\"\n");
    }
}
