//! What nobody should send, sent to the built binary: each is refused by name, and nothing is lost by it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Map, Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Steading, require};

use crate::assault_tenants::{mcp, sha256};

/// A platform whose default environment has one release.
fn settled() -> Steading {
    let steading = require(Steading::start());
    let manifest = json!({
        "database": { "tables": { "notes": { "columns": { "title": "text!" } } } },
        "site": { "files": { "index.html": "settled" } },
    });
    steading.client().output("app_apply", &json!({ "manifest": manifest })).unwrap();
    steading
        .client()
        .output("db_execute", &json!({ "sql": "INSERT INTO notes (title) VALUES ('kept')" }))
        .unwrap();
    steading
}

/// That the release, the row and the site are what [`settled`] made.
#[track_caller]
fn assert_settled(steading: &Steading) {
    let client = steading.client();
    let app = client.output("app_describe", &json!({})).unwrap();
    assert_eq!((&app["release"], &app["tables"]["notes"]["rows"]), (&json!(1), &json!(1)), "{app:#}");
    let port = steading.authority().rsplit(':').next().unwrap();
    let site = Request::get(&format!("http://default.localhost:{port}/")).send().unwrap();
    assert_eq!((site.status, site.text().unwrap()), (200, "settled"));
}

#[track_caller]
fn assert_problem(response: &Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status, status, "{:?}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json().unwrap();
    assert_eq!(problem["code"], code, "{problem:#}");
    assert!(problem["message"].as_str().is_some_and(|said| !said.is_empty()), "{problem:#}");
    problem
}

/// The problem of a refused call, by both doors, which say the same.
fn refusal(client: &Client, tool: &str, input: &Value) -> Value {
    let mut by_json = client.call(tool, input).unwrap().body;
    let answer = mcp(client, "/mcp", tool, input).send().unwrap().json().unwrap();
    let result = &answer["result"];
    assert_eq!(result["isError"], json!(true), "{tool} {input}: {answer:#}");
    assert!(result.get("structuredContent").is_none(), "{tool} {input}: {answer:#}");
    let mut by_mcp: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    for problem in [&mut by_json, &mut by_mcp] {
        problem.as_object_mut().unwrap().remove("request_id");
    }
    assert_eq!(by_json, by_mcp, "{tool} {input}");
    by_json
}

/// A value of the schema's kind, good enough to leave one wrong field the only one.
fn example(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|names| names.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("string") => "x".into(),
        Some("integer") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => json!([]),
        _ => json!({}),
    }
}

#[test]
fn every_tool_names_the_field_that_is_unknown_missing_or_of_another_type() {
    let steading = settled();
    let client = steading.client();
    let tools = client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let mut tried = 0;
    for tool in tools["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let schema = &tool["input_schema"];
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|field| field.as_str().unwrap())
            .collect();
        let good: Map<String, Value> =
            required.iter().map(|field| ((*field).to_owned(), example(&properties[*field]))).collect();
        let mut wrong = vec![(
            {
                let mut input = good.clone();
                input.insert("zzz".into(), 1.into());
                input
            },
            "/zzz".to_owned(),
        )];
        for field in properties.keys() {
            let other = if properties[field]["type"] == "array" { json!(true) } else { json!([[]]) };
            let mut input = good.clone();
            input.insert(field.clone(), other);
            wrong.push((input, format!("/{field}")));
        }
        for field in &required {
            let mut input = good.clone();
            input.remove(*field);
            wrong.push((input, format!("/{field}")));
        }
        for (input, field) in wrong {
            let problem = refusal(&client, name, &Value::Object(input.clone()));
            assert_eq!(problem["code"], "invalid_input", "{name} {input:?}: {problem:#}");
            assert_eq!(problem["field"], json!(field), "{name} {input:?}: {problem:#}");
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
    assert_settled(&steading);
}

#[test]
fn a_hundred_megabytes_are_too_large_on_every_door_and_nothing_of_them_is_kept() {
    const BODY: usize = 100 << 20;
    let steading = settled();
    let client = steading.client();
    let before = steading.rss().unwrap();
    let sql = |bytes: usize| format!("{{\"sql\":\"{}\"}}", "x".repeat(bytes));
    let body = sql(BODY);
    for path in ["/v1/tools/db_query", "/mcp", "/v1/envs", "/v1/keys", "/v1/tenants"] {
        let request = client.request("POST", path).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        assert_problem(&request.body(body.as_str()).send().unwrap(), 413, "too_large");
    }
    for hash in ["0".repeat(64), sha256(&body)] {
        let put = client.request("PUT", &format!("/v1/blobs/{hash}")).body(body.as_str());
        assert_problem(&put.send().unwrap(), 413, "too_large");
        let there = client.request("HEAD", &format!("/v1/blobs/{hash}")).send().unwrap();
        assert_eq!(there.status, 404);
    }
    // A length that is only announced is not waited for, nor is room made for it.
    let announced = client.request("POST", "/v1/tools/db_query").header("content-type", "application/json");
    let announced =
        announced.header("content-length", &u64::MAX.to_string()).header("expect", "100-continue");
    if let Ok(response) = announced.send() {
        assert!([400, 413, 431].contains(&response.status), "{} {:?}", response.status, response.text());
    }
    let grown = steading.rss().unwrap().saturating_sub(before) >> 20;
    assert!(grown < 80, "{grown} MB more than before");
    let blobs = steading
        .ready()
        .data_dir
        .join("envs")
        .read_dir()
        .unwrap()
        .map(|env| env.unwrap().path().join("blobs"));
    let kept: u64 = blobs
        .flat_map(|blobs| blobs.read_dir().into_iter().flatten())
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 1_000, "{kept} bytes of blobs");
    assert_settled(&steading);
}

#[test]
fn what_is_not_json_or_not_text_is_said_to_be_so() {
    let steading = settled();
    let client = steading.client();
    let send = |path: &str, body: &[u8]| {
        let request = client.request("POST", path).header("content-type", "application/json");
        request.header("accept", "application/json, text/event-stream").body(body).send().unwrap()
    };
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    let within = |inner: &[u8]| [b"{\"manifest\":{\"database\":", inner, b"}}"].concat();
    let bodies = [
        b"{".to_vec(),
        b"\xff\xfe".to_vec(),
        b"{\"sql\": \"\xc3\x28\"}".to_vec(),
        b"{\"sql\": \"\\ud800\"}".to_vec(),
        b"{\"sql\": 1e999}".to_vec(),
        b"[1]".to_vec(),
        b"null".to_vec(),
        b"\"text\"".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        deep(20_000),
        within(&deep(100)),
        within(&deep(20_000)),
    ];
    for body in &bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        for path in ["/v1/tools/app_apply", "/v1/envs", "/v1/keys"] {
            let response = send(path, body);
            assert_eq!(response.status, 400, "{path} {start}: {:?}", response.text());
            assert_problem(&response, 400, "invalid_input");
        }
        let response = send("/mcp", body);
        assert_eq!(response.status, 400, "{start}: {:?}", response.text());
        let code = response.json().unwrap()["error"]["code"].as_i64().unwrap();
        assert!([-32700, -32600].contains(&code), "{start}: {code}");
    }
    // Deep inside of what is JSON-RPC, too.
    let mut rpc = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"app_apply\",\"arguments\":".to_vec();
    rpc.extend(deep(100_000));
    rpc.extend(b"}}");
    assert_eq!(send("/mcp", &rpc).status, 400);
    // Names that are not text, in paths and in headers.
    let raw = |path: &str, header: &[u8]| {
        let mut head =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n").into_bytes();
        head.extend(format!("authorization: Bearer {}\r\n", steading.ready().key).bytes());
        head.extend(header);
        head.extend(b"\r\n");
        status(&steading, &head)
    };
    assert_eq!(raw("/v1/envs", b"steading-tenant: \xff\xfe\r\n"), Some(400));
    assert_eq!(raw("/v1/envs", b"steading-tenant: a\r\nsteading-tenant: b\r\n"), Some(400));
    assert_eq!(raw("/v1/tools/\x01", b""), Some(400));
    for (method, path) in [
        ("GET", "/v1/envs/%ff%fe"),
        ("GET", "/v1/envs?zzz=1"),
        ("GET", "/v1/keys?cursor=%ff"),
        ("GET", "/v1/tools?tools=all"),
        ("POST", "/v1/tools/%ff"),
        ("POST", "/mcp/%ff"),
        ("DELETE", "/v1/keys/%00%ff"),
        ("DELETE", "/v1/envs/default?dry_run=perhaps"),
    ] {
        let response = client.request(method, path).send().unwrap();
        let problem = assert_problem(&response, 400, "invalid_input");
        assert!(problem["hint"].is_string() || problem["field"].is_string(), "{path}: {problem:#}");
    }
    assert_settled(&steading);
}

/// The status that raw bytes are answered with; `None` where the connection is closed without a word.
fn status(steading: &Steading, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(steading.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may answer and close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

#[test]
fn huge_heads_are_refused_and_the_server_goes_on() {
    let steading = settled();
    let head = |path: &str, extra: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{extra}\r\n").into_bytes()
    };
    let refused = [
        head("/v1/tools", &format!("x: {}\r\n", "x".repeat(4 << 20))),
        head("/v1/tools", &"x: y\r\n".repeat(10_000)),
        head(&format!("/{}", "x".repeat(4 << 20)), ""),
        head("/v1/tools", &format!("authorization: Bearer {}\r\n", "x".repeat(2 << 20))),
        b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(100),
        b"POST /v1/tools/db_query HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde".to_vec(),
    ];
    for bytes in &refused {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let status = status(&steading, bytes);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{start}: {status:?}");
    }
    // A request within another's body is not answered.
    let smuggled = "GET /v1/tools HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let both = format!(
        "POST /v1/tools/db_query HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let mut stream = TcpStream::connect(steading.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(both.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count();
    assert!(answers <= 1, "{}", String::from_utf8_lossy(&answer));
    assert_settled(&steading);
}

#[test]
fn tricks_in_the_paths_of_a_site_are_refused_by_their_path() {
    let steading = settled();
    let client = steading.client();
    let long = "x".repeat(5_000);
    let single = [
        "../x",
        "a/../../x",
        "a/..",
        "..",
        ".",
        "./a",
        "",
        "/etc/passwd",
        "//a",
        "a//b",
        "a/",
        "a\0b",
        "\0",
        "a\\b",
        "..\\x",
        "C:\\x",
        "a\nb",
        "a\rb",
        "\u{7f}",
        "_/sdk.js",
        "_/db/x",
        "_",
        long.as_str(),
    ];
    let pairs = [
        ["A.txt", "a.txt"],
        ["a", "a/b"],
        ["dir/A", "DIR/a"],
        ["caf\u{e9}.txt", "cafe\u{301}.txt"],
        ["\u{130}", "i\u{307}"],
    ];
    let sites = single.iter().map(|path| vec![*path]).chain(pairs.iter().map(|pair| pair.to_vec()));
    for paths in sites {
        let mut files = Map::new();
        for path in &paths {
            files.insert((*path).to_owned(), format!("evil {path}").into());
        }
        let files = Value::Object(files);
        let problem = refusal(&client, "site_deploy", &json!({ "files": files }));
        let shown: Vec<String> = paths.iter().map(|path| path.chars().take(40).collect()).collect();
        assert_eq!(problem["code"], "invalid_input", "{shown:?}: {problem:#}");
        let field = problem["field"].as_str().unwrap_or_default();
        assert!(field.starts_with("/files"), "{shown:?}: {problem:#}");
        assert!(problem["message"].as_str().unwrap().len() < 1_000, "{shown:?}");
        let manifest = json!({ "manifest": { "site": { "files": files } } });
        let problem = refusal(&client, "app_apply", &manifest);
        let field = problem["field"].as_str().unwrap_or_default();
        assert!(field.starts_with("/manifest/site/files"), "{shown:?}: {problem:#}");
    }
    assert_settled(&steading);
}

#[test]
fn applies_at_once_end_in_one_whole_release() {
    const AT_ONCE: usize = 8;
    let steading = settled();
    let client = steading.client();
    let manifest = |n: usize| {
        let columns = json!({ "title": "text!", format!("of_{n}"): "text" });
        json!({
            "database": { "tables": { "notes": { "columns": { "title": "text!" } }, format!("t{n}"): { "columns": columns } } },
            "site": { "files": { "index.html": format!("site {n}") } },
        })
    };
    let plans: Vec<Value> = (0..AT_ONCE)
        .map(|n| client.output("app_plan", &json!({ "manifest": manifest(n) })).unwrap()["plan_id"].clone())
        .collect();
    let at_once = |inputs: Vec<Value>| {
        std::thread::scope(|scope| {
            let calls: Vec<_> = inputs
                .into_iter()
                .map(|input| {
                    let client = client.clone();
                    scope.spawn(move || client.call("app_apply", &input).unwrap())
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
        })
    };
    // All plans are for the same state: one of them is applied, the others learn what has moved.
    let answers = at_once(plans.iter().map(|plan| json!({ "plan_id": plan })).collect());
    let won: Vec<usize> = (0..AT_ONCE).filter(|n| answers[*n].status == 200).collect();
    assert_eq!(won.len(), 1, "{answers:#?}");
    for lost in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(lost.code(), "conflict", "{:#}", lost.body);
    }
    let app = client.output("app_describe", &json!({})).unwrap();
    assert_eq!(app["release"], json!(2));
    assert_eq!(app["tables"][format!("t{}", won[0])]["columns"][format!("of_{}", won[0])], json!("text"));
    let port = steading.authority().rsplit(':').next().unwrap();
    let fetch = || {
        let url = format!("http://default.localhost:{port}/");
        Request::get(&url).send().unwrap().text().unwrap().to_owned()
    };
    assert_eq!(fetch(), format!("site {}", won[0]));

    // The same manifest at once: all are told the same release, and one of them made it.
    let answers =
        at_once(vec![json!({ "manifest": { "site": { "files": { "index.html": "same" } } } }); AT_ONCE]);
    let changed = answers.iter().filter(|answer| answer.body["changed"] == json!(true)).count();
    let releases: Vec<&Value> = answers.iter().map(|answer| &answer.body["release"]).collect();
    assert_eq!((changed, releases), (1, vec![&json!(3); AT_ONCE]), "{answers:#?}");

    // Different sites at once: each is a release of its own, and the last one is live.
    let site = |n: usize| json!({ "manifest": { "site": { "files": { "index.html": format!("one of many {n}") } } } });
    let answers = at_once((0..AT_ONCE).map(site).collect());
    let mut releases: Vec<u64> =
        answers.iter().map(|answer| answer.body["release"].as_u64().unwrap()).collect();
    let last = releases.iter().position(|release| *release == 3 + AT_ONCE as u64).unwrap();
    releases.sort_unstable();
    assert_eq!(releases, (4..4 + AT_ONCE as u64).collect::<Vec<_>>());
    assert_eq!(fetch(), format!("one of many {last}"));
    assert_eq!(client.output("app_describe", &json!({})).unwrap()["tables"]["notes"]["rows"], json!(1));
}

#[test]
fn writes_with_one_idempotency_key_happen_once() {
    let steading = settled();
    let client = steading.client();
    let call = |tool: &str, key: &str, input: &Value| {
        let request = client.request("POST", &format!("/v1/tools/{tool}"));
        request.header("idempotency-key", key).json(input).send().unwrap()
    };
    let insert = json!({ "sql": "INSERT INTO notes (title) VALUES ('once')" });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let response = call("db_execute", "k1", &insert);
                // One that comes while the first still runs may be told to wait.
                assert!([200, 409].contains(&response.status), "{:?}", response.text());
            });
        }
    });
    let rows = client
        .output("db_query", &json!({ "sql": "SELECT count(*) FROM notes WHERE title = 'once'" }))
        .unwrap();
    assert_eq!(rows["rows"], json!([[1]]));
    assert_eq!(call("db_execute", "k1", &insert).status, 200);
    let other = call("db_execute", "k1", &json!({ "sql": "INSERT INTO notes (title) VALUES ('twice')" }));
    assert_problem(&other, 422, "conflict");
    assert_problem(&call("db_execute", &"k".repeat(300), &insert), 400, "invalid_input");
    let all = client.output("db_query", &json!({ "sql": "SELECT count(*) FROM notes" })).unwrap();
    assert_eq!(all["rows"], json!([[2]]));
}
