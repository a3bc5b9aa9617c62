//! `/v1/sandboxes` from outside: what each route does, and what happens to whoever goes away in the middle of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use conformance_tests::{Place, Preview};
use serde_json::{Value, json};
use testkit::http::Response;
use testkit::{Client, eventually};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Sandboxes {
    pub place: Place,
    pub client: Client,
    pub key: String,
}

impl Sandboxes {
    pub fn new(name: &str) -> Self {
        let place = Place::new(name).unwrap();
        let (client, key) = (place.client.clone(), place.steading.ready().key.clone());
        Self { place, client, key }
    }

    /// A key of this environment that may use sandboxes, and its id.
    fn key(&self) -> (Self, String) {
        let wanted = json!({ "name": "other", "env": self.place.slug, "scopes": ["sandbox:use"] });
        let operator = self.place.steading.client().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        let (key, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
        let client = Client::new(&self.place.steading.ready().url).with_key(&key);
        let place = copied(&self.place);
        (Self { place, client, key }, id)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let request = self.client.request(method, &format!("/v1/sandboxes{path}"));
        body.map_or(request.clone(), |body| request.json(body)).send().unwrap()
    }

    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body:?}: {:?}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json().unwrap() }
    }

    pub fn refused(&self, method: &str, path: &str, body: Option<&Value>, status: u16, code: &str) -> Value {
        let answer = self.ask(method, path, body);
        let told = answer.json().unwrap();
        assert_eq!((answer.status, told["code"].as_str()), (status, Some(code)), "{method} {path}: {told}");
        told
    }

    /// The lines of a command that comes to its end.
    fn exec(&self, input: &Value) -> Vec<Value> {
        let answer = self.ask("POST", "/default/exec", Some(input));
        assert_eq!(answer.status, 200, "{input}: {:?}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        answer.text().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn run(&self, command: &str) -> String {
        let lines = self.exec(&json!({ "command": command }));
        assert_eq!(lines.last(), Some(&json!({ "type": "exit", "code": 0 })), "{command}: {lines:?}");
        text(&lines, "stdout")
    }

    /// A request whose answer is read as it comes.
    fn stream(&self, method: &str, path: &str, body: &Value) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.place.steading.authority()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} /v1/sandboxes{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             steading-env: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            self.place.slug,
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }
}

fn copied(place: &Place) -> Place {
    Place {
        steading: place.steading.clone(),
        slug: place.slug.clone(),
        url: place.url.clone(),
        client: place.client.clone(),
    }
}

pub fn text(lines: &[Value], kind: &str) -> String {
    lines.iter().filter(|line| line["type"] == kind).map(|line| line["text"].as_str().unwrap()).collect()
}

/// Reads until a line has `wanted` in it.
fn until(stream: &mut BufReader<TcpStream>, wanted: &str) -> String {
    let mut all = String::new();
    while !all.contains(wanted) {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no {wanted:?} in {all:?}");
        all.push_str(&line);
    }
    all
}

#[test]
fn sandboxes_are_made_by_name_told_of_paused_and_removed() {
    let here = Sandboxes::new("routes-life");
    assert_eq!(here.ok("GET", "", None, 200), json!({ "sandboxes": [] }));
    let made = here.ok("POST", "", Some(&json!({ "name": "build" })), 201);
    assert_eq!((&made["name"], &made["state"]), (&json!("build"), &json!("parked")));
    here.refused("POST", "", Some(&json!({ "name": "build" })), 409, "conflict");
    for bad in ["", "Build", "default", "a/b", "a--b"] {
        let told = here.refused("POST", "", Some(&json!({ "name": bad })), 400, "invalid_input");
        assert_eq!(told["field"], "/name");
    }
    here.refused("POST", "", Some(&json!({ "label": "x" })), 400, "invalid_input");
    let unnamed = here.ok("POST", "", Some(&json!({})), 201);
    assert_eq!(unnamed["name"], unnamed["id"]);
    // Each has files of its own.
    here.ok("PUT", "/build/files?path=a", None, 200);
    let ran = here.ask("POST", "/build/exec", Some(&json!({ "command": "ls" })));
    assert!(ran.text().unwrap().contains("a\\n"), "{ran:?}");
    assert_eq!(here.run("ls"), "");
    let shown = here.ok("GET", &format!("/{}", made["id"].as_str().unwrap()), None, 200);
    assert_eq!((&shown["state"], &shown["isolation"]), (&json!("running"), &json!("namespaces")));
    assert!(
        shown["usage"]["pids"].as_u64().unwrap() >= 1
            && shown["limits"]["memory_bytes"].as_u64().unwrap() > 0
    );
    let names: Vec<_> = here.ok("GET", "", None, 200)["sandboxes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.iter().filter(|it| !it.starts_with("sbx_")).collect::<Vec<_>>(), ["default", "build"]);
    assert_eq!(here.ok("POST", "/build/pause", None, 200)["state"], "paused");
    assert_eq!(here.ok("GET", "/build", None, 200)["state"], "paused");
    assert_eq!(here.ok("POST", "/build/resume", None, 200)["state"], "running");
    // A copy goes its own way, and one that is frozen begins with the same files each time.
    let kept = here.ok("POST", "/build/snapshots", Some(&json!({ "name": "one" })), 201);
    let exec = |sandbox: &str, command: &str| {
        let told = here.ask("POST", &format!("/{sandbox}/exec"), Some(&json!({ "command": command })));
        let lines: Vec<Value> =
            told.text().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        text(&lines, "stdout")
    };
    exec("build", "echo more > b");
    let of_one = json!({ "name": "copy", "snapshot": kept["snapshot"] });
    assert_eq!(here.ok("POST", "/build/fork", Some(&of_one), 201)["name"], "copy");
    here.ok("POST", "/build/fork", Some(&json!({ "name": "now" })), 201);
    assert_eq!((exec("copy", "ls"), exec("now", "ls")), ("a\n".to_owned(), "a\nb\n".to_owned()));
    for (body, status, code) in [
        (json!({ "name": "copy" }), 409, "conflict"),
        (json!({ "name": "no such", "snapshot": "one" }), 400, "invalid_input"),
        (json!({ "name": "other", "snapshot": "two" }), 404, "not_found"),
    ] {
        here.refused("POST", "/build/fork", Some(&body), status, code);
    }
    let frozen = here.ok("POST", "/now/freeze", Some(&json!({ "name": "first" })), 201);
    assert_eq!(frozen["digest"].as_str().unwrap().len(), 64);
    assert_eq!(here.ok("GET", "/now", None, 200)["frozen"], frozen["snapshot"]);
    here.refused("POST", "/now/restore", Some(&json!({ "snapshot": "first" })), 409, "conflict");
    let first = frozen["snapshot"].as_str().unwrap();
    here.refused("DELETE", &format!("/now/snapshots/{first}"), None, 409, "conflict");
    here.ok("POST", "/now/thaw", None, 204);
    assert_eq!(here.ok("GET", "/now", None, 200)["frozen"], Value::Null);
    for name in ["copy", "now"] {
        here.ok("DELETE", &format!("/{name}"), None, 204);
    }
    let unknown = json!({ "name": "x", "template": "cobol" });
    assert_eq!(here.refused("POST", "", Some(&unknown), 400, "invalid_input")["field"], "/template");
    // Nobody else sees any of it.
    let (other, _) = here.key();
    assert_eq!(other.ok("GET", "", None, 200), json!({ "sandboxes": [] }));
    for name in ["build", made["id"].as_str().unwrap()] {
        other.refused("GET", &format!("/{name}"), None, 404, "not_found");
        other.refused("DELETE", &format!("/{name}"), None, 404, "not_found");
        other.refused("POST", &format!("/{name}/exec"), Some(&json!({ "command": "ls" })), 404, "not_found");
    }
    here.ok("DELETE", "/build", None, 204);
    here.refused("GET", "/build", None, 404, "not_found");
    here.refused("DELETE", "/build", None, 404, "not_found");
    // There is an end to how many there are, and what is removed makes room.
    let mut last = Value::Null;
    let full = (0..9).find_map(|_| {
        let answer = here.ask("POST", "", Some(&json!({})));
        last = answer.json().unwrap();
        (answer.status != 201).then(|| last.clone())
    });
    assert_eq!(full.unwrap()["code"], "quota_exceeded");
    here.ok("DELETE", &format!("/{}", unnamed["id"].as_str().unwrap()), None, 204);
    here.ok("POST", "", Some(&json!({})), 201);
}

#[test]
fn a_command_is_told_as_it_runs_with_its_input_its_output_and_its_end() {
    let here = Sandboxes::new("routes-exec");
    let lines = here.exec(&json!({
        "command": "cat; echo \"$GREETING\" >&2; pwd; exit 3", "stdin": "from outside\n", "cwd": "/tmp",
        "env": { "GREETING": "grüß" },
    }));
    assert_eq!(
        (&lines[0]["type"], lines.last()),
        (&json!("started"), Some(&json!({ "type": "exit", "code": 3 })))
    );
    assert_eq!(text(&lines, "stdout"), "from outside\n/tmp\n");
    assert_eq!(text(&lines, "stderr"), "grüß\n");
    let lines = here.exec(&json!({ "argv": ["printf", "\\377\\n"] }));
    assert_eq!(lines[1], json!({ "type": "stdout", "base64": "/wo=" }));
    let bytes = here.exec(&json!({ "command": "wc -c", "stdin_base64": "AAECAw==" }));
    assert_eq!(text(&bytes, "stdout").trim(), "4");
    let killed = here.exec(&json!({ "command": "kill -9 $$" }));
    assert_eq!(killed.last(), Some(&json!({ "type": "exit", "signal": 9 })));
    let late = here.exec(&json!({ "command": "(sleep 4321 &); sleep 4321", "timeout_s": 1 }));
    assert_eq!(late.last(), Some(&json!({ "type": "exit", "timed_out": true })));
    assert_eq!(here.run("pgrep -fx 'sleep 4321' || echo none"), "none\n");
    let shown = here.exec(&json!({ "command": "stty size", "terminal": { "rows": 30, "cols": 90 } }));
    assert_eq!(text(&shown, "stdout"), "30 90\r\n");
    // Much of it comes whole, however it is cut.
    assert_eq!(here.run("seq 1 300000"), (1..=300_000).map(|n| format!("{n}\n")).collect::<String>());
    let events = here
        .client
        .request("POST", "/v1/sandboxes/default/exec")
        .header("accept", "text/event-stream")
        .json(&json!({ "command": "echo hi" }))
        .send()
        .unwrap();
    assert!(
        events.text().unwrap().ends_with(
            "event: stdout\ndata: {\"type\":\"stdout\",\"text\":\"hi\\n\"}\n\nevent: exit\ndata: {\"type\":\"exit\",\"code\":0}\n\n"
        ) || events.text().unwrap().contains("event: stdout\ndata: {\"text\":\"hi\\n\",\"type\":\"stdout\"}"),
        "{events:?}"
    );
    for (input, field) in [
        (json!({}), "/command"),
        (json!({ "command": "ls", "argv": ["ls"] }), "/command"),
        (json!({ "argv": [] }), "/command"),
        (json!({ "command": "ls", "timeout_s": 0 }), "/timeout_s"),
        (json!({ "command": "ls", "timeout_s": 3601 }), "/timeout_s"),
        (json!({ "command": "ls", "stdin": "a", "stdin_base64": "" }), "/stdin_base64"),
        (json!({ "command": "ls", "stdin_base64": "?" }), "/stdin_base64"),
    ] {
        let told = here.refused("POST", "/default/exec", Some(&input), 400, "invalid_input");
        assert_eq!(told["field"], field, "{input}");
    }
    here.refused("POST", "/default/exec", Some(&json!({ "argv": ["no-such-program"] })), 404, "not_found");
    let far = json!({ "command": "ls", "cwd": "/nowhere" });
    here.refused("POST", "/default/exec", Some(&far), 404, "not_found");
    let long = json!({ "command": "x".repeat(100_000) });
    here.refused("POST", "/default/exec", Some(&long), 413, "too_large");
    // Whoever asks in no environment is told which there are.
    let operator = here.place.steading.client().without_env();
    let told = operator.request("GET", "/v1/sandboxes").send().unwrap().json().unwrap();
    assert!(told["message"].as_str().unwrap().contains(&here.place.slug), "{told}");
}

#[test]
fn what_runs_for_somebody_ends_when_they_go_and_when_they_are_let_in_no_more() {
    let here = Sandboxes::new("routes-gone");
    let sleeping = |named: &str| here.run(&format!("pgrep -fxc 'sleep {named}' || true"));
    let endless = json!({ "command": "(setsid sleep 5001 &) ; sleep 5001" });
    let mut stream = here.stream("POST", "/default/exec", &endless);
    until(&mut stream, "started");
    eventually(PATIENCE, || (sleeping("5001").trim() == "2").then_some(())).unwrap();
    drop(stream);
    assert!(eventually(PATIENCE, || (sleeping("5001").trim() == "0").then_some(())).is_some());
    // A key that is revoked takes along what it has begun, also where it writes without a pause.
    let (other, id) = here.key();
    let mut flood = other.stream(
        "POST",
        "/default/exec",
        &json!({ "command": "while true; do echo again; sleep 0.05; done" }),
    );
    let mut watch = other.stream("GET", "/default/files/watch", &Value::Null);
    until(&mut flood, "again");
    until(&mut watch, "watching");
    let operator = here.place.steading.client().without_env();
    assert!(operator.request("DELETE", &format!("/v1/keys/{id}")).send().unwrap().status < 300);
    for stream in [&mut flood, &mut watch] {
        until(stream, "unauthenticated");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_default();
    }
    // Who does not read holds up nobody else, and the command waits for its reader.
    let mut slow = here.stream("POST", "/default/exec", &json!({ "command": "yes", "timeout_s": 30 }));
    until(&mut slow, "started");
    assert_eq!(here.run("echo still here"), "still here\n");
}

#[test]
fn commands_in_the_background_are_listed_read_signalled_and_ended() {
    let here = Sandboxes::new("routes-background");
    let script = "trap 'echo asked' USR1; echo begun; while true; do sleep 0.1; done";
    let begun = here.ok("POST", "/default/processes", Some(&json!({ "command": script })), 201);
    let path = format!("/default/processes/{}", begun["process"]);
    let mut output = here.stream("GET", &path, &Value::Null);
    until(&mut output, "begun");
    here.ok("POST", &format!("{path}/signal"), Some(&json!({ "signal": 10 })), 204);
    until(&mut output, "asked");
    let listed = here.ok("GET", "/default/processes", None, 200);
    assert_eq!(
        (&listed["processes"][0]["state"], &listed["processes"][0]["process"]),
        (&json!("running"), &begun["process"])
    );
    // Who listens no more is nothing to it; who comes later reads on from any byte.
    drop(output);
    let mut again = here.stream("GET", &format!("{path}?from=6"), &Value::Null);
    assert!(until(&mut again, "asked").contains("\"from\":6"));
    here.refused("POST", &format!("{path}/signal"), Some(&json!({ "signal": 1000 })), 400, "invalid_input");
    here.ok("DELETE", &path, None, 204);
    until(&mut again, "\"exit\"");
    assert_eq!(here.ok("GET", "/default/processes", None, 200), json!({ "processes": [] }));
    for gone in [path.as_str(), "/default/processes/77", "/default/processes/x"] {
        here.refused("GET", gone, None, 404, "not_found");
        here.refused("DELETE", gone, None, 404, "not_found");
    }
    let quick = here.ok("POST", "/default/processes", Some(&json!({ "command": "exit 4" })), 201);
    let ended = eventually(PATIENCE, || {
        let listed = here.ok("GET", "/default/processes", None, 200);
        (listed["processes"][0]["state"] == "ended").then_some(listed)
    });
    let ended = ended.unwrap();
    assert_eq!(
        (&ended["processes"][0]["code"], &ended["processes"][0]["process"]),
        (&json!(4), &quick["process"])
    );
    let wanted = json!({ "command": "cat", "stdin": "a" });
    here.refused("POST", "/default/processes", Some(&wanted), 400, "invalid_input");
}

#[test]
fn files_are_written_read_found_moved_watched_and_removed() {
    let here = Sandboxes::new("routes-files");
    let put = |query: &str, bytes: &[u8]| {
        let request = here.client.request("PUT", &format!("/v1/sandboxes/default/files?{query}"));
        request.body(bytes).send().unwrap()
    };
    let get = |query: &str| here.ask("GET", &format!("/default/files?{query}"), None);
    let mut watch = here.stream("GET", "/default/files/watch?path=/workspace", &Value::Null);
    until(&mut watch, "watching");
    let all: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    assert_eq!(put("path=deep/er/data.bin&mode=600", &all).json().unwrap(), json!({ "bytes": all.len() }));
    until(&mut watch, "deep");
    let answer = get("path=deep/er/data.bin");
    assert!(answer.body == all && answer.header("content-disposition") == Some("attachment"));
    assert_eq!(get("path=deep/er/data.bin&offset=256&limit=3").body, [0, 1, 2]);
    assert_eq!(get("path=deep/er/data.bin&offset=4000000").body, b"");
    let known = here.ok("GET", "/default/files/stat?path=deep/er/data.bin", None, 200);
    assert_eq!(
        (&known["kind"], &known["size"], &known["mode"]),
        (&json!("file"), &json!(all.len()), &json!("600"))
    );
    assert_eq!(put("path=deep/er/data.bin&existing=refuse", b"x").status, 409);
    assert_eq!(put("path=empty", b"").status, 200);
    here.ok("POST", "/default/files/mkdir", Some(&json!({ "path": "src/lib" })), 204);
    put("path=src/lib/a.rs", b"fn one() {}\nfn two() {}\n");
    let found =
        here.ok("POST", "/default/files/search", Some(&json!({ "line": "fn t", "name": "*.rs" })), 200);
    assert_eq!(found["found"], json!([{ "path": "src/lib/a.rs", "line": 2, "text": "fn two() {}" }]));
    here.ok("POST", "/default/files/move", Some(&json!({ "from": "src/lib/a.rs", "to": "b.rs" })), 204);
    let taken = json!({ "from": "b.rs", "to": "empty", "existing": "refuse" });
    here.refused("POST", "/default/files/move", Some(&taken), 409, "conflict");
    let listed = here.ok("GET", "/default/files/list?depth=2", None, 200);
    let names: Vec<_> =
        listed["files"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["b.rs", "deep", "empty", "src", "deep/er", "src/lib"]);
    assert_eq!(here.ok("GET", "/default/files/list?limit=1", None, 200)["more"], true);
    here.refused("DELETE", "/default/files?path=deep", None, 409, "conflict");
    here.ok("DELETE", "/default/files?path=deep&recursive=true", None, 204);
    here.refused("GET", "/default/files?path=deep/er/data.bin", None, 404, "not_found");
    // Nothing waits for what never comes, and a way out leads nowhere.
    here.run("mkfifo pipe; ln -s /etc/passwd out; ln -s / root");
    here.refused("GET", "/default/files?path=pipe", None, 400, "invalid_input");
    here.refused("GET", "/default/files?path=/dev/zero", None, 400, "invalid_input");
    let passwd = std::fs::read("/etc/passwd").unwrap();
    for path in ["out", "root/etc/passwd", "../../../etc/passwd", "/proc/self/root/etc/passwd"] {
        assert_ne!(get(&format!("path={path}")).body, passwd, "{path}");
    }
    for (query, field) in [("path=a&mode=9", "/mode"), ("path=a&mode=4755", "/mode")] {
        assert_eq!(put(query, b"x").json().unwrap()["field"], field);
    }
    here.refused("GET", "/default/files/list?limit=0", None, 400, "invalid_input");
    here.refused("GET", "/default/files/list?depth=99", None, 400, "invalid_input");
    here.refused("GET", "/default/files/list?sort=size", None, 400, "invalid_input");
    // Half a file is none.
    let mut half = TcpStream::connect(here.place.steading.authority()).unwrap();
    write!(
        half,
        "PUT /v1/sandboxes/default/files?path=half HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         steading-env: {}\r\ncontent-length: 100\r\n\r\nonly this",
        here.key, here.place.slug
    )
    .unwrap();
    half.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(here.run("ls half 2>/dev/null || echo none"), "none\n");
    // What is kept comes back, and what runs ends.
    let kept = here.ok("POST", "/default/snapshots", Some(&json!({ "name": "good" })), 201);
    here.run("rm b.rs; (sleep 1000 &)");
    here.ok("POST", "/default/restore", Some(&json!({ "snapshot": "good" })), 200);
    assert_eq!(here.run("ls b.rs; pgrep -fx 'sleep 1000' || echo none"), "b.rs\nnone\n");
    let id = kept["snapshot"].as_str().unwrap();
    assert_eq!(here.ok("GET", "/default/snapshots", None, 200)["snapshots"][0]["snapshot"], id);
    here.ok("DELETE", &format!("/default/snapshots/{id}"), None, 204);
    here.refused("POST", "/default/restore", Some(&json!({ "snapshot": id })), 404, "not_found");
    // Ports have addresses.
    here.run("(python3 -m http.server 8123 >/dev/null 2>&1 &)");
    let port = eventually(PATIENCE, || {
        here.ok("GET", "/default/ports", None, 200)["ports"].as_array()?.first().cloned()
    });
    let port = port.unwrap();
    let shown = here.ok("POST", "/default/previews", Some(&json!({ "port": 8123 })), 200);
    let origin = |shown: &Value| Preview::of(shown, &here.place.steading).unwrap().origin;
    assert_eq!((&port["port"], origin(&port)), (&shown["port"], origin(&shown)));
    here.refused("POST", "/default/previews", Some(&json!({ "port": 0 })), 400, "invalid_input");
}

#[test]
fn a_fork_takes_nothing_from_what_is_kept() {
    let here = Sandboxes::new("routes-kept");
    here.ok("POST", "", Some(&json!({ "name": "from" })), 201);
    for name in 0..20 {
        here.ok("POST", "/from/snapshots", Some(&json!({ "name": format!("n{name}") })), 201);
    }
    let names = || {
        let there = here.ok("GET", "/from/snapshots", None, 200);
        let there = there["snapshots"].as_array().unwrap().iter();
        there.map(|it| it["name"].as_str().unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    let before = names();
    assert_eq!(before.len(), 20);
    here.refused("POST", "/from/fork", Some(&json!({ "name": "No Name" })), 400, "invalid_input");
    here.refused("POST", "/from/fork", Some(&json!({ "name": "from" })), 409, "conflict");
    here.ok("POST", "/from/fork", Some(&json!({ "name": "to" })), 201);
    assert_eq!(names(), before);
}

#[test]
fn every_request_of_the_document_works_in_its_order() {
    let here = Sandboxes::new("routes-document");
    let document = include_str!("../../../docs/sandboxes.md");
    let mut tried = 0;
    for block in document.split("```http ").skip(1) {
        let (line, rest) = block.split_once('\n').unwrap();
        let (method, path) = line.split_once(' ').unwrap();
        let body = rest.split_once("```").unwrap().0;
        let request = here.client.request(method, path);
        let request = match body {
            "" => request,
            body if body.starts_with('{') => request.json(&serde_json::from_str(body).unwrap()),
            body => request.body(body),
        };
        let answer = request.send().unwrap();
        assert!(answer.status < 300, "{line}: {:?}", answer.text());
        match line {
            _ if line.ends_with("/exec") => {
                let lines = answer.text().unwrap().trim_end().lines().skip(1).collect::<Vec<_>>();
                let told =
                    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
                let said = [json!({ "type": "stdout", "text": "5\n" }), json!({ "type": "exit", "code": 3 })];
                assert_eq!(told, said);
            }
            _ if line.contains("offset=4") => assert_eq!(answer.text().unwrap(), "total"),
            _ => {}
        }
        tried += 1;
    }
    assert!(tried >= 12, "{tried} requests");
}
