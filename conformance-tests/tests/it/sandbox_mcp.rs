//! Programs in a sandbox that speak MCP over their standard input and output, spoken to from outside.

use std::thread;
use std::time::Duration;

use conformance_tests::{Driver, Place, Said};
use serde_json::{Value, json};
use testkit::http::Response;
use testkit::{Client, eventually};

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
        if text == "wait":
            open("waits", "w").close()
            continue
        if text == "large":
            say(result={"content": [{"type": "text", "text": "x" * 3_000_000}]})
            continue
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
    key_id: String,
}

impl Inside {
    fn new(name: &str) -> Self {
        let place = Place::new(name).unwrap();
        let wanted = json!({ "name": "mcp", "env": place.slug, "scopes": ["sandbox:use"] });
        let operator = place.steading.client().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        let key = made["key"].as_str().unwrap().to_owned();
        let client = Client::new(&place.steading.ready().url).with_key(&key);
        let key_id = made["id"].as_str().unwrap().to_owned();
        let inside = Self { place, client, key, key_id };
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

    /// Runs a line of bash.
    fn run(&self, command: &str) {
        let request = self.client.request("POST", "/v1/sandboxes/default/exec");
        let ran = request.json(&json!({ "command": command })).send().unwrap();
        assert!(ran.text().unwrap().contains("\"code\":0"), "{command}: {:?}", ran.text());
    }

    /// Until a program has taken a call that it does not answer.
    fn waits(&self) {
        self.run("until [ -e waits ]; do sleep 0.1; done; rm waits");
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

#[test]
fn what_programs_say_is_bounded_and_many_who_wait_for_one_are_told_the_same() {
    let inside = Inside::new("inside-bounds");
    let answer = inside.post("tools", &request(1, "tools/call", &echo("large")));
    assert_eq!(answer.status, 200);
    assert!(answer.text().unwrap().len() > 3_000_000);
    let much = request(1, "tools/call", &echo(&"x".repeat(1 << 20)));
    assert_eq!(inside.post("tools", &much).status, 413);
    let says = |script: &str| json!({ "command": "python3", "args": ["-c", script] });
    let greets = "import sys, json; id = json.loads(sys.stdin.readline())['id']; \
                  print(json.dumps({'jsonrpc': '2.0', 'id': id, 'result': [0] * 40000}), flush=True); sys.stdin.read()";
    inside.servers(&json!({
        "greets": says(greets), "floods": { "command": "sh", "args": ["-c", "yes | tr -d '\\n'"] },
        "silent": { "command": "sleep", "args": ["5005"] },
    }));
    let list = request(1, "tools/list", &json!({}));
    for (server, how) in [("greets", "more than 65536 bytes"), ("floods", "a line that is too long")] {
        let told = inside.refused(server, &list, 503);
        assert!(told["message"].as_str().unwrap().contains(how), "{told}");
    }
    // So many wait for one that does not begin, and nobody more; when it ends all of them know.
    thread::scope(|scope| {
        let asking: Vec<_> = (0..40).map(|_| scope.spawn(|| inside.post("silent", &list).status)).collect();
        let told =
            |least: usize| (asking.iter().filter(|it| it.is_finished()).count() >= least).then_some(());
        assert!(eventually(Duration::from_secs(60), || told(8)).is_some());
        let ended = eventually(Duration::from_secs(60), || {
            inside.run("pkill -fx 'sleep 5005'; true");
            told(40)
        });
        assert!(ended.is_some());
        let mut told: Vec<_> = asking.into_iter().map(|it| it.join().unwrap()).collect();
        told.sort_unstable();
        assert_eq!(told, [vec![429; 8], vec![503; 32]].concat());
    });
}

#[test]
fn a_call_ends_when_it_is_cancelled_and_when_its_credential_is_revoked() {
    let inside = Inside::new("inside-ends");
    let wait = request(7, "tools/call", &echo("wait"));
    thread::scope(|scope| {
        let asked = scope.spawn(|| inside.post("tools", &wait).status);
        inside.waits();
        let params = json!({ "requestId": 7, "reason": "nobody needs it" });
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        assert_eq!(inside.post("tools", &cancel).status, 202);
        assert_eq!(asked.join().unwrap(), 409);
        let asked = scope.spawn(|| inside.post("tools", &wait).status);
        inside.waits();
        let operator = inside.place.steading.client().without_env();
        let revoked = operator.request("DELETE", &format!("/v1/keys/{}", inside.key_id)).send();
        assert_eq!(revoked.unwrap().status, 200);
        assert_eq!(asked.join().unwrap(), 401);
    });
}
