//! Programs in a sandbox that speak MCP over their standard input and output, spoken to from outside.

use std::thread;

use conformance_tests::{Driver, Place, Said};
use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Response;

const PROGRAM: &str = r#"
import json, os, sys, time
print("welcome to people", flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    method, params = message["method"], message.get("params", {})
    def say(**rest):
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **rest}), flush=True)
    if method == "initialize":
        say(result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "inside", "version": os.environ.get("WHICH", "1")}})
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        say(result={"tools": [{"name": "echo", "inputSchema": schema}]})
    elif method in ("prompts/list", "resources/list"):
        say(result={method.split("/")[0]: []})
    elif method == "tools/call":
        text = params["arguments"]["text"]
        if text == "die":
            print("I am told to die", file=sys.stderr, flush=True)
            time.sleep(0.2)
            sys.exit(1)
        print(json.dumps({"jsonrpc": "2.0", "id": 7, "method": "roots/list"}), flush=True)
        say(result={"content": [{"type": "text", "text": json.dumps({"text": text, "pid": os.getpid()})}]})
    else:
        say(error={"code": -32601, "message": "no such method"})
"#;

struct Inside {
    place: Place,
    client: Client,
    key: String,
}

impl Inside {
    fn new(name: &str) -> Self {
        let place = Place::new(name).unwrap();
        let wanted = json!({ "name": "mcp", "env": place.slug, "scopes": ["sandbox:use"] });
        let operator = place.steading.client().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        let key = made["key"].as_str().unwrap().to_owned();
        let client = Client::new(&place.steading.ready().url).with_key(&key);
        let inside = Self { place, client, key };
        inside.write("server.py", PROGRAM);
        inside.servers(&json!({ "tools": { "command": "python3", "args": ["server.py"] } }));
        inside
    }

    fn write(&self, path: &str, text: &str) {
        let request = self.client.request("PUT", &format!("/v1/sandboxes/default/files?path={path}"));
        assert_eq!(request.body(text).send().unwrap().status, 200);
    }

    fn servers(&self, servers: &Value) {
        self.write(".mcp.json", &json!({ "mcpServers": servers }).to_string());
    }

    fn post(&self, server: &str, message: &Value) -> Response {
        let path = format!("/v1/sandboxes/default/mcp/{server}");
        self.client.request("POST", &path).json(message).send().unwrap()
    }

    fn asked(&self, method: &str, params: &Value) -> Value {
        let answer = self.post("tools", &request(1, method, params));
        assert_eq!(answer.status, 200, "{method}: {:?}", answer.text());
        answer.json().unwrap()
    }

    fn echo(&self, text: &str) -> Value {
        let answer = self.asked("tools/call", &echo(text));
        serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap()
    }

    fn refused(&self, server: &str, message: &Value, status: u16) -> Value {
        let answer = self.post(server, message);
        assert_eq!(answer.status, status, "{message}: {:?}", answer.text());
        answer.json().unwrap()
    }
}

fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn echo(text: &str) -> Value {
    json!({ "name": "echo", "arguments": { "text": text } })
}

#[test]
fn a_client_outside_uses_the_tools_of_a_program_inside() {
    let inside = Inside::new("inside-client");
    let url = format!("{}/v1/sandboxes/default/mcp/tools", inside.place.steading.ready().url);
    for mode in ["legacy", "auto"] {
        let (_, mut client) = Driver::python_at(&url, &inside.key, mode).unwrap();
        let said = client.call("echo", &json!({ "text": "from outside" })).unwrap();
        let Said::Answered { failed: false, content, .. } = said else { panic!("{mode}: {said:?}") };
        assert!(content[0]["text"].as_str().unwrap().contains("from outside"), "{content:?}");
        client.end().unwrap();
    }
    // One that every sandbox has offers what its run token opens.
    inside.servers(&json!({ "tools": { "command": "/run/steading/hand", "args": ["mcp"] } }));
    let tools = inside.asked("tools/list", &json!({}));
    assert!(tools["result"]["tools"].is_array(), "{tools}");
}

#[test]
fn programs_begin_with_the_first_message_and_go_on_for_the_next() {
    let inside = Inside::new("inside-life");
    let told = inside.client.request("GET", "/v1/sandboxes/default/mcp").send().unwrap().json().unwrap();
    assert_eq!(told, json!({ "servers": [{ "name": "tools", "command": "python3" }] }));
    let greeting = inside.asked("initialize", &json!({}));
    assert_eq!(greeting["result"]["serverInfo"], json!({ "name": "inside", "version": "1" }));
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(inside.post("tools", &initialized).status, 202);
    let first = inside.echo("a");
    assert_eq!(inside.echo("b")["pid"], first["pid"]);
    // Everybody gets the answer to what they have asked, whatever id they give it.
    thread::scope(|scope| {
        for n in 0..20 {
            let inside = &inside;
            scope.spawn(move || assert_eq!(inside.echo(&format!("text {n}"))["text"], format!("text {n}")));
        }
    });
    let unknown = inside.asked("no/such", &json!({}));
    assert_eq!((&unknown["id"], &unknown["error"]["code"]), (&json!(1), &json!(-32601)));
    // One that has ended, or is another one by now, begins anew.
    let died = inside.refused("tools", &request(1, "tools/call", &echo("die")), 503);
    assert!(died["message"].as_str().unwrap().contains("I am told to die"), "{died}");
    let second = inside.echo("c");
    assert_ne!(second["pid"], first["pid"]);
    let other = json!({ "command": "python3", "args": ["server.py"], "env": { "WHICH": "2" } });
    inside.servers(&json!({ "tools": other }));
    assert_eq!(inside.asked("initialize", &json!({}))["result"]["serverInfo"]["version"], "2");
    // So it does in a sandbox that was stopped where it is.
    assert_eq!(inside.client.request("POST", "/v1/sandboxes/default/pause").send().unwrap().status, 200);
    assert_eq!(inside.echo("d")["text"], "d");
}

#[test]
fn what_is_wrong_is_told_with_the_next_step() {
    let inside = Inside::new("inside-wrong");
    let list = request(1, "tools/list", &json!({}));
    let unknown = inside.refused("other", &list, 404);
    assert_eq!(unknown["hint"], "there is tools");
    for bad in [
        json!([list]),
        json!({ "id": 1, "method": "x" }),
        json!({ "jsonrpc": "2.0", "id": {}, "method": "x" }),
    ] {
        inside.refused("tools", &bad, 400);
    }
    let get = inside.client.request("GET", "/v1/sandboxes/default/mcp/tools").send().unwrap();
    assert_eq!(get.status, 405);
    inside.servers(&json!({
        "absent": { "command": "/no/such/program" }, "mute": { "command": "false" }, "remote": { "url": "https://example.com" },
        "rude": { "command": "sh", "args": ["-c", "echo go away >&2; exit 3"] },
    }));
    for server in ["absent", "mute", "rude"] {
        let told = inside.refused(server, &list, if server == "absent" { 400 } else { 503 });
        assert!(server != "rude" || told["message"].as_str().unwrap().contains("go away"), "{told}");
    }
    let remote = inside.refused("remote", &list, 400);
    assert!(remote["message"].as_str().unwrap().contains("mcpServers.remote"), "{remote}");
    inside.write(".mcp.json", "{");
    inside.refused("tools", &list, 400);
    // Nobody else speaks with it.
    let operator = inside.place.steading.client().in_env(&inside.place.slug);
    let shown = inside.client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    let path = format!("/v1/sandboxes/{}/mcp/tools", shown["id"].as_str().unwrap());
    assert_eq!(operator.request("POST", &path).json(&list).send().unwrap().status, 404);
}
