//! What runs in a sandbox calls the platform's tools through its bridge, and what an attacker there gets of that.

use std::time::Duration;

use conformance_tests::Preview;
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{Client, Steading, eventually, require};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Sends a message to the bridge, with the run token that is there or another, and says the status before the answer.
const POST: &str = r#"out=$(mktemp)
curl -sS -m 60 -o "$out" -w '%{http_code} ' --unix-socket /run/steading/bridge.sock \
  -H "authorization: Bearer ${2-$(cat /run/steading/token)}" -H 'content-type: application/json' \
  http://bridge/mcp --data-binary "$1"
cat "$out"; rm "$out"
"#;

/// A server with two environments.
struct Ground {
    steading: Steading,
}

/// A sandbox, by the key whose it is.
struct Inside {
    client: Client,
    id: String,
    operator: Client,
}

impl Ground {
    fn start(settings: &[(&str, &str)]) -> Self {
        let launch = settings.iter().fold(Steading::launch(), |launch, (name, value)| {
            launch.env(format!("STEADING_SANDBOX_{name}"), value)
        });
        let steading = require(launch.start());
        let ground = Self { steading };
        ground.operator().output("env_create", &json!({ "slug": "other" })).unwrap();
        for env in ["default", "other"] {
            let made = "CREATE TABLE beats (id INTEGER PRIMARY KEY, who TEXT)";
            ground.operator().in_env(env).output("db_execute", &json!({ "sql": made })).unwrap();
        }
        ground
    }

    fn operator(&self) -> Client {
        self.steading.client()
    }

    /// A sandbox in `env` of a key with these scopes beside that for sandboxes.
    fn sandbox(&self, env: &str, scopes: &[&str]) -> Inside {
        let scopes: Vec<&str> = scopes.iter().copied().chain(["sandbox:use"]).collect();
        let wanted = json!({ "name": "inside", "env": env, "scopes": scopes });
        let operator = self.operator().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        let client = Client::new(&self.steading.ready().url).with_key(made["key"].as_str().unwrap());
        let inside = Inside { client, id: made["id"].as_str().unwrap().to_owned(), operator };
        inside.client.output("file_write", &json!({ "path": "post", "text": POST })).unwrap();
        inside
    }
}

impl Inside {
    fn run(&self, command: &str) -> String {
        let ran = self.client.output("shell_run", &json!({ "command": command, "timeout_s": 120 })).unwrap();
        assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
        ran["stdout"].as_str().unwrap().to_owned()
    }

    /// Sends a message, and gives the status and the answer.
    fn post(&self, message: &Value, token: Option<&str>) -> (u16, Value) {
        let message = message.to_string().replace('\'', "'\\''");
        let said = self.run(&format!("bash post '{message}' {}", token.unwrap_or_default()));
        let (status, answer) = said.split_once(' ').unwrap();
        (status.parse().unwrap(), serde_json::from_str(answer).unwrap_or(Value::Null))
    }

    /// Calls a tool with the run token; a refusal is its problem.
    fn call(&self, tool: &str, input: &Value) -> Result<Value, Value> {
        let (status, answer) = self.post(&call(tool, input), None);
        assert_eq!(status, 200, "{answer}");
        let result = &answer["result"];
        if result["isError"] == true {
            return Err(serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap());
        }
        Ok(result["structuredContent"].clone())
    }

    fn token(&self) -> String {
        self.run("cat /run/steading/token")
    }

    fn revoke(&self) {
        let revoked = self.operator.request("DELETE", &format!("/v1/keys/{}", self.id)).send();
        assert!(revoked.unwrap().status < 300);
    }
}

fn call(tool: &str, input: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": input } })
}

const DATA: [&str; 6] = ["app:read", "db:read", "db:write", "logs:read", "storage:read", "storage:write"];

#[test]
fn what_runs_inside_has_the_tools_of_its_run_and_no_others() {
    let ground = Ground::start(&[]);
    let all = [
        &DATA[..],
        &["app:write", "secret:write", "auth:read", "auth:write", "resource:delete", "site:write"],
    ];
    let inside = ground.sandbox("default", &all.concat());
    let lines = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }),
        json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": { "name": "db_execute",
            "arguments": { "sql": "INSERT INTO beats (who) VALUES (?1)", "params": ["inside"] }, "_meta": { "progressToken": 7 } } }),
        json!({ "jsonrpc": "2.0", "id": 4, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": 5, "method": "no/such" }),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    inside.client.output("file_write", &json!({ "path": "lines", "text": lines })).unwrap();
    // A result shows no more than a context holds.
    let shorten = r#"import json, sys
for line in sys.stdin:
    answer = json.loads(line)
    for tool in answer.get("result", {}).get("tools", []):
        assert tool.pop("inputSchema")["type"] == "object" and tool.pop("description")
        tool.pop("outputSchema")
    print(json.dumps(answer))
"#;
    inside.client.output("file_write", &json!({ "path": "shorten.py", "text": shorten })).unwrap();
    let said = inside.run("/run/steading/hand mcp < lines | python3 shorten.py");
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [initialized, listed, inserted, pinged, unknown] = answers.as_slice() else { panic!("{said}") };
    assert_eq!(initialized["result"]["serverInfo"]["name"], "steading");
    assert_eq!(initialized["result"]["protocolVersion"], "2025-06-18");
    let names: Vec<&str> = listed["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "app_describe",
            "client_code",
            "db_execute",
            "db_load",
            "db_query",
            "logs_query",
            "skill_read",
            "storage_get",
            "storage_list",
            "storage_put",
        ]
    );
    assert_eq!(inserted["result"]["structuredContent"], json!({ "changed": 1 }));
    assert_eq!((&pinged["result"], &unknown["error"]["code"]), (&json!({}), &json!(-32601)));
    let query = json!({ "sql": "SELECT who FROM beats" });
    assert_eq!(inside.call("db_query", &query).unwrap()["rows"], json!([["inside"]]));
    assert_eq!(ground.operator().output("db_query", &query).unwrap()["rows"], json!([["inside"]]));

    // Whatever the credential may: it is not the run's.
    let registered = ground.operator().request("GET", "/v1/tools").send().unwrap().json().unwrap();
    for tool in registered["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        if !names.contains(&name) {
            let refused = inside.call(name, &json!({})).unwrap_err();
            assert_eq!(refused["code"], "forbidden", "{name}: {refused}");
        }
    }
    // What the credential may not, the run may not.
    let reader = ground.sandbox("default", &["db:read"]);
    assert_eq!(reader.call("db_query", &query).unwrap()["rows"], json!([["inside"]]));
    let refused = reader.call("db_execute", &json!({ "sql": "DELETE FROM beats" })).unwrap_err();
    assert_eq!(refused["message"], "the credential lacks the scope db:write");
    let listed = reader.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }), None).1;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 1, "{listed}");

    // An idempotency key is the run's own, and the calls are recorded under it.
    let mut once = call("db_execute", &json!({ "sql": "INSERT INTO beats (who) VALUES ('once')" }));
    once["params"]["_meta"] = json!({ "steading/idempotency-key": "k" });
    for _ in 0..2 {
        assert_eq!(inside.post(&once, None).1["result"]["structuredContent"], json!({ "changed": 1 }));
    }
    let count = json!({ "sql": "SELECT count(*) FROM beats WHERE who = 'once'" });
    assert_eq!(inside.call("db_query", &count).unwrap()["rows"], json!([[1]]));
    let recorded = eventually(LIMIT, || {
        let recorded = records(&ground.steading);
        recorded.contains("run|db_execute|").then_some(recorded)
    });
    let recorded = recorded.unwrap();
    assert!(recorded.contains("run|shell_run|forbidden"), "{recorded}");
    let log = std::fs::read_to_string(ground.steading.log_file()).unwrap();
    let digits = recorded.lines().find_map(|line| line.strip_prefix("key_")?.split('|').next()).unwrap();
    assert!(log.contains(&format!("run_{digits}")), "the record names the run: {recorded}");
}

/// The records of calls of runs: who, what, what came of it.
fn records(steading: &Steading) -> String {
    let file = steading.ready().data_dir.join("control.db");
    let query = "SELECT credential || '|' || principal || '|' || tool || '|' || coalesce(error, '') FROM calls \
                 WHERE principal = 'run'";
    let output =
        std::process::Command::new("sqlite3").arg("-readonly").arg(file).arg(query).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_token_is_good_on_its_own_socket_for_its_own_environment_and_nowhere_else() {
    let ground = Ground::start(&[]);
    let (here, beside, there) =
        (ground.sandbox("default", &DATA), ground.sandbox("default", &DATA), ground.sandbox("other", &DATA));
    let query = call("db_query", &json!({ "sql": "SELECT 1" }));
    let tokens = [here.token(), beside.token(), there.token()];
    for (own, inside) in [&here, &beside, &there].iter().enumerate() {
        for (of, token) in tokens.iter().enumerate() {
            let (status, answer) = inside.post(&query, Some(token));
            assert_eq!(status, if own == of { 200 } else { 401 }, "{own} {of}: {answer}");
            if own != of {
                assert_eq!(answer["message"], "the run token is not valid");
            }
        }
    }
    // It writes where it belongs, whatever the message names.
    let mut insert = call("db_execute", &json!({ "sql": "INSERT INTO beats (who) VALUES ('there')" }));
    insert["params"]["_meta"] = json!({ "steading-env": "default", "env": "default" });
    assert_eq!(there.post(&insert, None).0, 200);
    let forged = "curl -sS -o /dev/null -w '%{http_code}' --unix-socket /run/steading/bridge.sock -H 'steading-env: default' \
                  -H \"authorization: Bearer $(cat /run/steading/token)\" -H 'content-type: application/json'";
    let answers = there.run(&format!("{forged} http://bridge/mcp/default -d '{query}'; {forged} http://bridge/v1/tools/db_query -d '{{}}'; {forged} -X GET http://bridge/mcp"));
    assert_eq!(answers, "404404405");
    let count = json!({ "sql": "SELECT count(*) FROM beats" });
    assert_eq!(ground.operator().output("db_query", &count).unwrap()["rows"], json!([[0]]));
    assert_eq!(there.call("db_query", &count).unwrap()["rows"], json!([[1]]));

    // Outside it opens nothing, however it came there.
    here.run("(python3 -m http.server 8123 -d /run/steading >/dev/null 2>&1 &)");
    let shown = here.client.output("preview_open", &json!({ "port": 8123 })).unwrap();
    let preview = Preview::of(&shown, &ground.steading).unwrap();
    let stolen = eventually(LIMIT, || {
        let got = preview.ask("GET", "/token").send().unwrap();
        (got.status == 200).then(|| String::from_utf8(got.body).unwrap())
    });
    assert_eq!(stolen.unwrap(), tokens[0], "whoever shows the file shows it");
    let outside = Client::new(&ground.steading.ready().url).with_key(&tokens[0]);
    for env in [None, Some("default")] {
        let outside = env.map_or(outside.clone(), |env| outside.clone().in_env(env));
        assert_eq!(outside.call("db_query", &json!({ "sql": "SELECT 1" })).unwrap().status, 401);
        for path in ["/v1/tools", "/v1/keys", "/v1/envs"] {
            assert_eq!(outside.request("GET", path).send().unwrap().status, 401, "{path}");
        }
        for path in ["/mcp", "/mcp/default"] {
            assert_eq!(outside.request("POST", path).json(&query).send().unwrap().status, 401, "{path}");
        }
    }
    let app = Request::get(&format!("http://default.localhost:{}/_/db/beats", port(&ground.steading)));
    let app = app.via(ground.steading.authority()).bearer(&tokens[0]).send().unwrap();
    assert!([401, 404].contains(&app.status), "{app:?}");
    // Nor does a key of the platform open anything inside.
    let operator = ground.steading.ready().key.clone();
    assert_eq!(here.post(&query, Some(&operator)).0, 401);
}

fn port(steading: &Steading) -> &str {
    steading.authority().rsplit(':').next().unwrap()
}

#[test]
fn a_revoked_credential_ends_what_its_run_may_at_once() {
    let ground = Ground::start(&[]);
    let (doomed, witness) = (ground.sandbox("default", &DATA), ground.sandbox("default", &DATA));
    let beat = |who: &str| {
        let insert =
            call("db_execute", &json!({ "sql": format!("INSERT INTO beats (who) VALUES (\"{who}\")") }));
        let insert = insert.to_string().replace(&format!("\\\"{who}\\\""), &format!("'\\''{who}'\\''"));
        format!("(while true; do bash post '{insert}'; sleep 0.05; done > beats.log 2>&1 &)")
    };
    let count = |who: &str| {
        let sql = json!({ "sql": "SELECT count(*) FROM beats WHERE who = ?1", "params": [who] });
        ground.operator().output("db_query", &sql).unwrap()["rows"][0][0].as_i64().unwrap()
    };
    doomed.run(&beat("doomed"));
    witness.run(&beat("witness"));
    assert!(eventually(LIMIT, || (count("doomed") > 3 && count("witness") > 3).then_some(())).is_some());
    doomed.revoke();
    // What had begun may end; nothing begins.
    let (before, seen) = (count("doomed"), count("witness"));
    assert!(eventually(LIMIT, || (count("witness") > seen + 10).then_some(())).is_some());
    assert!(count("doomed") <= before + 1, "{} {before}", count("doomed"));
}

#[test]
fn a_token_expires_and_is_renewed_inside_while_its_run_lives() {
    let ground = Ground::start(&[("TOKEN_S", "4")]);
    let inside = ground.sandbox("default", &DATA);
    let query = call("db_query", &json!({ "sql": "SELECT 1" }));
    let first = inside.token();
    assert_eq!(inside.post(&query, Some(&first)).0, 200);
    let expired = eventually(LIMIT, || (inside.post(&query, Some(&first)).0 == 401).then_some(()));
    assert!(expired.is_some(), "it is good for ever");
    for _ in 0..5 {
        let (status, answer) = inside.post(&query, None);
        assert_eq!(status, 200, "{answer}");
    }
    let newest = inside.token();
    assert_ne!(newest, first);
    assert_eq!(inside.run("stat -c '%a %u' /run/steading/token"), "400 1000\n");
    assert_eq!(inside.run("env | grep -c stead_run_ || true"), "0\n");

    // Another life of the same sandbox is another run.
    let client = inside.client.clone();
    let steading = ground.steading.restart().unwrap();
    let again = Inside { client, id: inside.id.clone(), operator: steading.client() };
    for old in [&first, &newest] {
        assert_eq!(again.post(&query, Some(old)).0, 401);
    }
    assert_eq!(again.post(&query, None).0, 200);
}

#[test]
fn a_sandbox_that_floods_its_bridge_holds_up_itself_alone() {
    let ground = Ground::start(&[]);
    let (flooder, neighbour) = (ground.sandbox("default", &DATA), ground.sandbox("default", &DATA));
    let query = call("db_query", &json!({ "sql": "SELECT 1" }));
    let large = "python3 -c \"print('{\\\"x\\\":\\\"' + 'x' * 5000000 + '\\\"}')\" > large; bash post @large | cut -c 1-3";
    assert_eq!(flooder.run(large).trim(), "413");
    let deep = "python3 -c \"print('{\\\"x\\\":' + '[' * 10000 + ']' * 10000 + '}')\" > deep; bash post @deep | cut -c 1-3";
    assert_eq!(flooder.run(deep).trim(), "400");
    let flood = r#"
import os, socket, time
token = open("/run/steading/token").read()
held, refused = [], 0
slow = ("POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{" % token).encode()
for n in range(3000):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(0.01)
    try:
        connection.connect("/run/steading/bridge.sock")
        connection.send(slow if n % 2 else b"POST /mcp HTTP/1.1\r\nx: ")
        held.append(connection)
    except OSError:
        refused += 1
    if len(held) > 900:
        held.pop(0).close()
open("flooded", "w").write(f"{len(held)} {refused}")
time.sleep(3600)
"#;
    flooder.client.output("file_write", &json!({ "path": "flood.py", "text": flood })).unwrap();
    flooder.run("(python3 flood.py > flood.log 2>&1 &)");
    let held = eventually(LIMIT, || {
        Some(flooder.run("cat flooded 2>/dev/null || true")).filter(|said| !said.is_empty())
    });
    assert!(held.is_some(), "{}", flooder.run("cat flood.log"));
    // All of its places are taken: what it sends now waits, and nobody else does.
    for _ in 0..20 {
        assert_eq!(neighbour.post(&query, None).0, 200);
    }
    assert_eq!(
        ground.operator().output("db_query", &json!({ "sql": "SELECT 1" })).unwrap()["rows"],
        json!([[1]])
    );
    flooder.run("pkill -f flood.py");
    let healed = eventually(LIMIT, || (flooder.post(&query, None).0 == 200).then_some(()));
    assert!(healed.is_some(), "its bridge stays shut");
}

#[test]
fn a_sandbox_that_was_made_by_name_has_a_run_of_its_own() {
    let ground = Ground::start(&[]);
    let own = ground.sandbox("default", &DATA);
    let made = own.client.request("POST", "/v1/sandboxes").json(&json!({ "name": "build" })).send().unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json().unwrap()["id"].as_str().unwrap().to_owned();
    let ask = |token: &str| {
        let query = call("db_query", &json!({ "sql": "SELECT 7" }));
        let command = format!(
            "curl -sS --unix-socket /run/steading/bridge.sock -H \"authorization: Bearer {token}\" \
             -H 'content-type: application/json' http://bridge/mcp -d '{query}'"
        );
        let exec = own.client.request("POST", &format!("/v1/sandboxes/{id}/exec"));
        let ran = exec.json(&json!({ "command": command })).send().unwrap();
        String::from_utf8(ran.body).unwrap()
    };
    let answered = ask("$(cat /run/steading/token)");
    assert!(answered.contains("[[7]]"), "{answered}");
    // What two sandboxes of one credential have is not each other's.
    assert!(ask(&own.token()).contains("the run token is not valid"));
}
