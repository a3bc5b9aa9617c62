//! What the platform counts: exactly what was done, for its operator alone, in few words however many there are who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conformance_tests::{App, Metrics, Place, Reply, Socket};
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Provider, Steading, Turn, eventually, require};

const TOKEN: &str = "planted-token-of-prometheus";
const PLANTED: &str = "planted-in-all-that-is-said";

/// Opens every WebSocket, and ends it when whoever asked does.
const SERVICE: &str = r#"
import base64, hashlib, os, socket, threading
def serve(one):
    head = b""
    while b"\r\n\r\n" not in head:
        more = one.recv(4096)
        if not more: return one.close()
        head += more
    key = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")]
    if not key:
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return one.close()
    accept = base64.b64encode(hashlib.sha1(key[0] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    one.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while one.recv(4096): pass
    one.close()
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// What is said to be there.
const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// Says what it was told of the trace, throws, and asks the model.
const FUNCTION: &str = r#"
export default {
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/throw") throw new Error("thrown");
    if (pathname !== "/ask") return new Response(request.headers.get("traceparent") ?? "none");
    const messages = [{ role: "user", content: "hi" }];
    try { return Response.json(await env.ai.chat({ messages, max_tokens: Number(searchParams.get("most")) })); }
    catch (error) { return Response.json(error.code); }
  },
};
"#;

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": { "notes": { "columns": { "text": "text!" }, "access": "private" } } },
        "site": { "files": { "index.html": "home" } },
    })
}

fn counts<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.into_iter().map(|(series, count)| (series.to_owned(), count)).collect()
}

#[test]
fn what_is_done_is_counted_and_nothing_else() {
    let place = Place::alone("counted").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let (app, url) = (App::new(&place.url), &place.steading.ready().url);
    let before = Metrics::of(&place.client).unwrap();
    for _ in 0..3 {
        place.output("db_query", &json!({ "sql": "SELECT 1" })).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(place.client.call("db_query", &json!({ "sql": "SELECT FROM" })).unwrap().status, 400);
    }
    assert_eq!(place.client.call("no_such_tool", &json!({})).unwrap().status, 404);
    let seen = ["/", "/", "/missing"].map(|path| app.visitor().ask("GET", path).unwrap().status);
    assert_eq!(seen, [200, 200, 404]);
    let ada = app.stranger().unwrap();
    let note = Reply::of(ada.request("POST", "/_/db/notes").json(&json!({ "text": "a" }))).unwrap();
    assert_eq!((note.status, ada.ask("GET", "/_/db/notes").unwrap().status), (201, 200));
    assert_eq!(Request::get(url).header("host", "192.0.2.1").send().unwrap().status, 404);
    let after = Metrics::of(&place.client).unwrap();
    assert_eq!(
        after.grown_since(&before),
        counts([
            (r#"steading_http_request_duration_seconds_count{door="apps"}"#, 3.0),
            (r#"steading_http_request_duration_seconds_count{door="health"}"#, 1.0),
            (r#"steading_http_request_duration_seconds_count{door="nobody"}"#, 1.0),
            (r#"steading_http_request_duration_seconds_count{door="rows"}"#, 2.0),
            (r#"steading_http_request_duration_seconds_count{door="tools"}"#, 6.0),
            (r#"steading_http_request_duration_seconds_count{door="users"}"#, 1.0),
            (r#"steading_http_requests_total{door="apps",status="2xx"}"#, 2.0),
            (r#"steading_http_requests_total{door="apps",status="4xx"}"#, 1.0),
            (r#"steading_http_requests_total{door="health",status="2xx"}"#, 1.0),
            (r#"steading_http_requests_total{door="nobody",status="4xx"}"#, 1.0),
            (r#"steading_http_requests_total{door="rows",status="2xx"}"#, 2.0),
            (r#"steading_http_requests_total{door="tools",status="2xx"}"#, 3.0),
            (r#"steading_http_requests_total{door="tools",status="4xx"}"#, 3.0),
            (r#"steading_http_requests_total{door="users",status="2xx"}"#, 1.0),
            (r#"steading_tool_call_duration_seconds_count{tool="db_query"}"#, 5.0),
            (r#"steading_tool_calls_total{outcome="invalid_input",tool="db_query"}"#, 2.0),
            (r#"steading_tool_calls_total{outcome="ok",tool="db_query"}"#, 3.0),
        ])
    );
    // What is there is what the document says, with its types and labels.
    let said: BTreeMap<&str, &str> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(' ').next().unwrap()))
        .collect();
    let there: BTreeMap<&str, &str> = after.families.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(there, said);
    // Of the machine, what this process is known to have.
    assert_eq!(after.get(r#"steading_ready{part="control_database"}"#), 1.0);
    assert!(after.get("steading_environments_open") >= 1.0);
    assert!(after.get("steading_connections_open") >= 1.0, "the one that asks");
    let (memory, own) = (after.get("process_resident_memory_bytes"), place.steading.rss().unwrap() as f64);
    assert!((0.5..2.0).contains(&(memory / own)), "{memory} and {own}");
    let (cpu, own) = (after.get("process_cpu_seconds_total"), place.steading.cpu().unwrap().as_secs_f64());
    // Sums of hundredths are not to the last bit.
    assert!(cpu > 0.0 && cpu <= own + 0.001, "{cpu} and {own}");
    let (files, most) = (after.get("process_open_fds"), after.get("process_max_fds"));
    assert!(files > 5.0 && files < most, "{files} of {most}");
    let (free, size) = (after.get("steading_disk_free_bytes"), after.get("steading_disk_size_bytes"));
    assert!(free > 0.0 && free < size, "{free} of {size}");
}

#[test]
fn what_runs_is_counted_and_what_models_use() {
    let provider = Provider::start(|_, _| {
        let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 });
        let message = json!({ "role": "assistant", "content": "hello" });
        let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
        let whole = json!({ "id": "1", "object": "chat.completion", "choices": choices, "usage": usage });
        Turn::Says(200, Vec::new(), whole)
    });
    let provider = provider.unwrap();
    let launch = Steading::launch()
        .env("STEADING_MODEL_BASE_URL", &provider.base_url)
        .env("STEADING_MODEL", "small")
        .env("STEADING_MODEL_TOKENS_OF_ENV", "10000");
    let place = Place::on(Arc::new(require(launch.start())), "runs").unwrap();
    let before = Metrics::of(&place.client).unwrap();
    place.output("shell_run", &json!({ "command": "true" })).unwrap();
    place
        .output(
            "function_deploy",
            &json!({ "name": "all", "files": { "index.ts": FUNCTION }, "access": "public" }),
        )
        .unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let app = App::new(&place.url);
    let ask = |path: &str| {
        let request = app.request("GET", &format!("/_/fn/all{path}")).header("traceparent", trace);
        Reply::of(request).unwrap()
    };
    assert_eq!((ask("/").body, ask("/throw").status), (json!(trace), 500));
    assert_eq!(ask("/ask?most=50").body["usage"]["total_tokens"], 12);
    assert_eq!(ask("/ask?most=20000").body, "budget_exceeded");
    let after = eventually(Duration::from_secs(10), || {
        let after = Metrics::of(&place.client).unwrap();
        (after.get(r#"steading_model_calls_total{outcome="said"}"#) > 0.0).then_some(after)
    });
    let after = after.unwrap();
    let grown: BTreeMap<_, _> = after
        .grown_since(&before)
        .into_iter()
        .filter(|(series, _)| {
            ["steading_sandbox_", "steading_function_answers", "steading_model_"]
                .iter()
                .any(|it| series.starts_with(it))
        })
        .collect();
    assert_eq!(
        grown,
        counts([
            (r#"steading_function_answers_total{outcome="answered"}"#, 3.0),
            (r#"steading_function_answers_total{outcome="threw"}"#, 1.0),
            (r#"steading_model_calls_total{outcome="no_budget"}"#, 1.0),
            (r#"steading_model_calls_total{outcome="said"}"#, 1.0),
            (r#"steading_model_tokens_total{kind="completion"}"#, 5.0),
            (r#"steading_model_tokens_total{kind="prompt"}"#, 7.0),
            (r#"steading_sandbox_starts_total{outcome="made"}"#, 1.0),
        ])
    );
    assert!(after.get("steading_function_processes") >= 1.0);
    assert!(after.get(r#"steading_function_starts_total{outcome="started"}"#) >= 1.0);
    assert!(after.get("steading_function_start_seconds_total") > 0.0);
    let sandboxes = ["awake", "waking", "frozen"]
        .map(|state| after.get(&format!("steading_sandboxes{{state=\"{state}\"}}")));
    // One that nobody has used for a while is frozen.
    assert!([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]].contains(&sandboxes), "{sandboxes:?}");
    // Nor is it said which model that is, and whose.
    assert!(!after.text.contains("small") && !after.text.contains(&provider.base_url));
}

#[test]
fn who_is_connected_and_held_up_is_counted() {
    let launch = Steading::launch()
        .env("STEADING_LIMITS_TOKEN_PER_SECOND", "1")
        .env("STEADING_LIMITS_TOKEN_BURST", "3");
    let place = Place::on(Arc::new(require(launch.start())), "held").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let minted = place.client.request("POST", "/v1/credentials");
    let minted =
        minted.json(&json!({ "env": place.slug, "scopes": ["db:read"], "expires_in": 300 })).send().unwrap();
    let token = minted.json().unwrap()["token"].as_str().unwrap().to_owned();
    let client = place.client.clone().with_key(&token).without_env();
    let query = json!({ "sql": "SELECT 1" });
    let refused = (0..50).filter(|_| client.call("db_query", &query).unwrap().status == 429).count();
    assert!(refused >= 1, "{refused}");
    let now = || Metrics::of(&place.client).unwrap();
    assert_eq!(now().get(r#"steading_rate_limited_total{limit="token"}"#), refused as f64);
    let series = r#"steading_tool_calls_total{outcome="rate_limited",tool="db_query"}"#;
    assert_eq!(now().get(series), refused as f64);

    let open = |kind: &str| now().get(&format!("steading_sockets_open{{kind=\"{kind}\"}}"));
    let reaches = |kind: &str, wanted: f64| {
        eventually(Duration::from_secs(10), || (open(kind) == wanted).then_some(()))
            .unwrap_or_else(|| panic!("{kind}: {}", open(kind)));
    };
    assert_eq!((open("realtime"), open("function")), (0.0, 0.0));
    let app = App::new(&place.url);
    let ada = app.stranger().unwrap();
    let (stream, socket) =
        (ada.subscribed(&[json!({ "table": "notes" })], None).unwrap(), ada.socket().unwrap());
    reaches("realtime", 2.0);
    let live = json!({ "files": { "app.py": SERVICE }, "command": "python3 app.py", "access": "public" });
    place.output("app_apply", &json!({ "manifest": { "services": { "live": live } } })).unwrap();
    let spoken = Socket::open_at(&app, "/_/svc/live/socket", &[]).unwrap().ok().unwrap();
    reaches("function", 1.0);
    assert_eq!(now().get(r#"steading_http_requests_total{door="functions",status="1xx"}"#), 1.0);
    drop((stream, socket, spoken));
    reaches("realtime", 0.0);
    reaches("function", 0.0);
}

#[test]
fn labels_say_few_things_whoever_asks_whatever() {
    let launch = Steading::launch().env("STEADING_METRICS_TOKEN", TOKEN);
    let place = Place::on(Arc::new(require(launch.start())), PLANTED).unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    place.output("secret_set", &json!({ "name": "KEY", "value": PLANTED })).unwrap();
    let url = &place.steading.ready().url;
    let authority = place.steading.authority();
    let ask = |n: usize| {
        let word = format!("{PLANTED}{n}");
        let hosts = [
            authority.to_owned(),
            format!("{word}.localhost"),
            format!("{word}.example"),
            place.url.replace("http://", ""),
        ];
        let paths = [
            format!("/{word}"),
            format!("/v1/tools/{word}"),
            format!("/v1/{word}"),
            format!("/mcp/{word}"),
            format!("/_/db/{word}"),
            format!("/_/fn/{word}"),
            format!("/_/{word}?{word}"),
            format!("/oauth/{word}"),
        ];
        let method = ["GET", "POST", "PATCH", "PLANTED"][n % 4];
        let request = Request::new(method, &format!("{url}{}", paths[n / 4 % paths.len()]))
            .via(authority)
            .header("host", &hosts[n / 32 % hosts.len()])
            .header("user-agent", &word)
            .header("traceparent", &format!("00-{n:032x}-{n:016x}-01"))
            .bearer(if n.is_multiple_of(3) { &place.steading.ready().key } else { &word });
        request.json(&json!({ "sql": word })).send().unwrap().status
    };
    let asked = |from: usize, to: usize| (from..to).map(ask).collect::<BTreeSet<u16>>();
    assert!(asked(0, 200).contains(&404));
    let tools = |sql: &str| place.client.call("db_query", &json!({ "sql": sql })).unwrap().status;
    assert_eq!(tools(&format!("SELECT '{PLANTED}' FROM nothing")), 400);
    let few = Metrics::of(&place.client).unwrap();
    asked(200, 1_200);
    assert_eq!(tools(&format!("SELECT '{PLANTED}' FROM more")), 400);
    let many = Metrics::of(&place.client).unwrap();
    let series = |metrics: &Metrics| metrics.series.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(series(&few).symmetric_difference(&series(&many)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(many.series.len() < 1_000, "{}", many.series.len());

    let shown =
        place.client.request("GET", &format!("/v1/envs/{}", place.slug)).send().unwrap().json().unwrap();
    // As ids of environments and tenants begin, in this century.
    let ids: Vec<_> = shown.to_string().split('"').filter(|it| it.len() > 30).map(str::to_owned).collect();
    assert!(ids.iter().any(|id| id.starts_with("env_0")), "{shown}");
    let data = place.steading.ready().data_dir.display().to_string();
    let key = place.steading.ready().key.clone();
    let unwanted =
        [PLANTED, "planted", "env_0", "ten_0", "key_0", "localhost", "127.0.0.1", TOKEN, &data, &key];
    for text in unwanted.into_iter().chain(ids.iter().map(String::as_str)) {
        let line = many.text.lines().find(|line| line.contains(text));
        assert_eq!(line, None, "{text:?}");
    }
}

#[test]
fn only_the_operator_and_a_token_of_its_own_open_it() {
    let launch = Steading::launch().env("STEADING_METRICS_TOKEN", TOKEN);
    let place = Place::on(Arc::new(require(launch.start())), "readers").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let url = &place.steading.ready().url;
    let key = |body: Value| {
        let made = place.client.clone().without_env().request("POST", "/v1/keys").json(&body).send().unwrap();
        made.json().unwrap()["key"].as_str().unwrap().to_owned()
    };
    let metrics = |request: Request| -> Response { request.send().unwrap() };
    let open = || Request::get(&format!("{url}/metrics"));
    let code = |answer: &Response| answer.json().unwrap()["code"].as_str().unwrap().to_owned();
    let nobody = metrics(open());
    assert_eq!((nobody.status, code(&nobody).as_str()), (401, "unauthenticated"));
    assert!(nobody.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{nobody:?}");
    for wrong in ["wrong", "", &TOKEN[1..], &format!("{TOKEN}x"), &TOKEN.to_uppercase()] {
        assert_eq!(metrics(open().bearer(wrong)).status, 401, "{wrong:?}");
    }
    assert_eq!(metrics(open().header("authorization", &format!("Basic {TOKEN}"))).status, 401);
    assert_eq!(metrics(Request::get(&format!("{url}/metrics?token={TOKEN}"))).status, 401);
    for key in [key(json!({ "name": "tenant" })), key(json!({ "name": "env", "env": place.slug }))] {
        let refused = metrics(open().bearer(&key));
        assert_eq!((refused.status, code(&refused).as_str()), (403, "forbidden"));
    }
    for opens in [TOKEN, &place.steading.ready().key] {
        Metrics::read(&metrics(open().bearer(opens))).unwrap();
    }
    // It is good for nothing else.
    let scraper = Client::new(url).with_key(TOKEN);
    for path in ["/v1/tenants", "/v1/keys", "/v1/tools", "/v1/runner"] {
        assert_eq!(scraper.request("GET", path).send().unwrap().status, 401, "{path}");
    }
    assert_eq!(
        scraper.in_env(&place.slug).call("db_query", &json!({ "sql": "SELECT 1" })).unwrap().status,
        401
    );
    // Apps have none, and another page's browser gets none.
    let app = App::new(&place.url).request("GET", "/metrics").bearer(TOKEN).send().unwrap();
    assert_eq!(app.status, 404);
    assert_eq!(metrics(open().bearer(TOKEN).header("origin", "https://evil.test")).status, 403);
    assert_eq!(metrics(Request::post(&format!("{url}/metrics")).bearer(TOKEN)).status, 405);
    let log = place.steading.log();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_trace_is_in_the_lines_of_its_request() {
    let launch = Steading::launch().env("STEADING_LOG_FORMAT", "json").env("STEADING_LOG_LEVEL", "debug");
    let place = Place::on(Arc::new(require(launch.start())), "traced").unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (statement, header) in [
        ("SELECT 1", Some(format!("00-{trace}-00f067aa0ba902b7-01"))),
        ("SELECT 2", None),
        ("SELECT 3", Some(format!("00-{trace}-wrong"))),
    ] {
        let mut request = place.client.request("POST", "/v1/tools/db_query");
        if let Some(header) = header {
            request = request.header("traceparent", &header);
        }
        assert_eq!(request.json(&json!({ "sql": statement })).send().unwrap().status, 200);
    }
    let done = eventually(Duration::from_secs(10), || {
        let log = std::fs::read_to_string(place.steading.log_file()).unwrap();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let done: Vec<bool> = lines
            .iter()
            .filter(|line| line["message"] == "call done" && line["span"]["tool.name"] == "db_query")
            .map(|line| line["spans"].to_string().contains(&format!("\"trace.id\":\"{trace}\"")))
            .collect();
        (done.len() == 3).then_some(done)
    });
    assert_eq!(done, Some(vec![true, false, false]));
}
