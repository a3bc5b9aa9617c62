//! MCP over stdio, carried to the HTTP endpoint.

use kernel::Secret;
use mcp_server::mcp::{McpOptions, Sessions};
use mcp_server::stdio::{Target, bridge};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;
use tool::Selection;

use crate::fixture::Fixture;
use crate::world::{ENV_KEY, TENANT_KEY, World};

/// A client at the other end of the pipes.
struct Client {
    input: DuplexStream,
    output: Lines<BufReader<DuplexStream>>,
    running: JoinHandle<kernel::Result<()>>,
}

impl Client {
    fn of(base: &str, key: &str, env: Option<&str>, selection: Selection) -> Self {
        let target = Target::new(base, &Secret::new(key), env, selection).unwrap();
        let (input, theirs) = tokio::io::duplex(1 << 16);
        let (written, output) = tokio::io::duplex(1 << 16);
        let running = tokio::spawn(bridge(target, theirs, written));
        Self { input, output: BufReader::new(output).lines(), running }
    }

    fn to(world: &World) -> Self {
        Self::of(&world.url("/"), ENV_KEY, None, Selection::Full)
    }

    async fn say(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.output.next_line().await.unwrap().unwrap()).unwrap()
    }

    async fn initialize(&mut self, capabilities: Value) -> Value {
        let client = json!({ "name": "test", "version": "1" });
        let params =
            json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client });
        self.say(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
        let answer = self.hear().await;
        self.say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        answer
    }

    /// Ends the input; gives what is still said.
    async fn end(self) -> Vec<Value> {
        let Self { input, mut output, running } = self;
        drop(input);
        let mut rest = vec![];
        while let Some(line) = output.next_line().await.unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        running.await.unwrap().unwrap();
        rest
    }
}

fn call(id: Value, name: &str, arguments: Value) -> Value {
    let params = json!({ "name": name, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn modern(mut message: Value) -> Value {
    let meta = &mut message["params"]["_meta"];
    meta["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    message
}

#[tokio::test]
async fn a_client_of_2025_11_25_initializes_and_calls() {
    let world = World::start().await;
    let mut client = Client::to(&world);
    let greeting = client.initialize(json!({})).await;
    assert_eq!(greeting["result"]["serverInfo"]["name"], "steading");
    client.say(call(json!("x"), "echo", json!({ "text": "two\nlines" }))).await;
    let answer = client.hear().await;
    assert_eq!(
        (&answer["id"], &answer["result"]["structuredContent"]["text"]),
        (&json!("x"), &json!("two\nlines"))
    );
    assert!(client.end().await.is_empty());
}

#[tokio::test]
async fn a_client_of_2026_07_28_discovers_and_calls() {
    let world = World::start().await;
    let mut client = Client::to(&world);
    client.say(modern(json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {} }))).await;
    assert_eq!(client.hear().await["result"]["capabilities"]["tools"], json!({}));
    client.say(modern(json!({ "jsonrpc": "2.0", "id": 5, "method": "skills/list", "params": {} }))).await;
    assert_eq!(client.hear().await["result"]["skills"][0]["uri"], "skill://start-here/SKILL.md");
    client.say(modern(call(json!(2), "echo", json!({ "text": "hello" })))).await;
    assert_eq!(client.hear().await["result"]["resultType"], "complete");
    // A name that no header can hold travels encoded, and is unknown rather than a mismatch.
    client.say(modern(call(json!(3), "grüße\n", json!({})))).await;
    assert_eq!(client.hear().await["error"]["message"], "there is no tool \"grüße\\n\"");
}

#[tokio::test]
async fn environment_and_selection_are_the_command_lines() {
    let world = World::start().await;
    let mut client = Client::of(&world.url(""), TENANT_KEY, Some("beta"), Selection::ReadOnly);
    client.say(call(json!(1), "echo", json!({ "text": "hello" }))).await;
    assert_eq!(client.hear().await["result"]["isError"], false);
    client.say(call(json!(2), "add", json!({}))).await;
    assert_eq!(client.hear().await["result"]["isError"], true);
}

#[tokio::test]
async fn calls_run_beside_each_other_and_steps_are_passed_on() {
    let world = World::start().await;
    let mut client = Client::to(&world);
    client.say(call(json!(1), "slow", json!({}))).await;
    world.memory.waiting.cancelled().await;
    let mut steps = call(json!(2), "steps", json!({}));
    steps["params"]["_meta"] = json!({ "progressToken": 9 });
    client.say(steps).await;
    for step in 1..=3 {
        assert_eq!(client.hear().await["params"]["progress"], f64::from(step));
    }
    assert_eq!(client.hear().await["id"], 2);
    world.memory.release.cancel();
    // Also where the client has said all it wanted to say.
    let rest = client.end().await;
    assert_eq!(rest.len(), 1);
    assert_eq!((&rest[0]["id"], &rest[0]["result"]["isError"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_on_the_platform_and_not_answered() {
    for message in [call(json!(1), "wait", json!({})), modern(call(json!(1), "wait", json!({})))] {
        let world = World::start().await;
        let mut client = Client::to(&world);
        client.say(message).await;
        world.memory.waiting.cancelled().await;
        let cancel =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
        client.say(cancel).await;
        world.memory.cancelled.cancelled().await;
        assert!(client.end().await.is_empty());
    }
}

#[tokio::test]
async fn in_a_session_the_platform_can_ask_the_client() {
    let options = McpOptions { sessions: Sessions::Legacy, ..McpOptions::default() };
    let world = World::beside(options, Fixture::new()).await;
    let mut client = Client::to(&world);
    client.initialize(json!({ "elicitation": {} })).await;
    client.say(call(json!(1), "test_elicitation", json!({ "message": "Who?" }))).await;
    let question = client.hear().await;
    assert_eq!(
        (&question["method"], &question["params"]["message"]),
        (&json!("elicitation/create"), &json!("Who?"))
    );
    let result = json!({ "action": "accept", "content": { "username": "ada", "email": "a@example.com" } });
    client.say(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result })).await;
    let answer = client.hear().await;
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("ada"), "{answer}");
    assert!(client.end().await.is_empty());
}

#[tokio::test]
async fn what_goes_wrong_is_told_in_answer_to_the_request() {
    let world = World::start().await;
    let mut client = Client::of(&world.url(""), "wrong", None, Selection::Full);
    client.say(call(json!(1), "add", json!({}))).await;
    let refused = client.hear().await;
    assert_eq!(refused["id"], 1);
    assert_eq!(refused["error"]["message"], "the credential is not valid");
    assert_eq!(refused["error"]["data"]["code"], "unauthenticated");
    client.input.write_all(b"{\n\n").await.unwrap();
    let broken = client.hear().await;
    assert_eq!((&broken["id"], &broken["error"]["code"]), (&Value::Null, &json!(-32700)));

    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}");
    let mut client = Client::of(&base, ENV_KEY, None, Selection::Full);
    client.say(call(json!(2), "add", json!({}))).await;
    let gone = format!("steading at {base} cannot be reached: start it with `steading serve`");
    assert_eq!(client.hear().await["error"]["message"], gone.as_str());
}

#[tokio::test]
async fn a_server_that_goes_away_during_a_call_is_told() {
    let world = World::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut client = Client::of(&base, ENV_KEY, None, Selection::Full);
    client.say(call(json!(1), "wait", json!({}))).await;
    drop(listener.accept().await.unwrap());
    let told = client.hear().await;
    let expected =
        format!("the connection to steading at {base} broke off before the answer; the outcome is not known");
    assert_eq!(told["error"]["message"], expected.as_str());
    drop(world);
}

#[test]
fn an_address_that_is_none_and_a_key_that_is_none_are_refused() {
    for (base, key) in [("nope", "k"), ("mailto:a@b", "k"), ("http://127.0.0.1:1", "a\nb")] {
        let error = Target::new(base, &Secret::new(key), None, Selection::Full).unwrap_err();
        assert_eq!(error.code(), kernel::Code::InvalidInput, "{base}");
    }
    let target = Target::new("http://127.0.0.1:1", &Secret::new("hush"), None, Selection::Full).unwrap();
    assert!(!format!("{target:?}").contains("hush"));
}
