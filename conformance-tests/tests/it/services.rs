//! Services seen from outside: commands of any language, deployed by a manifest and by the tool, asked, ended, and refused.

use std::path::Path;
use std::time::Duration;

use conformance_tests::{App, Person, Place, Reply, Socket, browser};
use serde_json::{Value, json};
use testkit::{eventually, finish};

/// A plain Python server: it tells what it is told, and does what its path says.
const PYTHON: &str = include_str!("services.py");

/// A Node server that echoes over a WebSocket, with nothing but what Node has.
const NODE: &str = include_str!("services.mjs");

struct Ground {
    place: Place,
    app: App,
}

impl Ground {
    fn new(name: &str) -> Self {
        let place = Place::new(name).unwrap();
        let manifest = json!({
            "auth": { "methods": ["anonymous"] },
            "database": { "tables": { "notes": { "columns": { "text": "text!" }, "access": "private" } } },
        });
        place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        let app = App::new(&place.url);
        Self { place, app }
    }

    fn apply(&self, manifest: &Value) -> Value {
        self.place.output("app_apply", &json!({ "manifest": manifest })).unwrap()
    }

    /// Applies one service alone.
    fn serve(&self, name: &str, more: &Value) -> Value {
        self.apply(&json!({ "services": { name: python(more) } }))
    }

    fn get(&self, path: &str) -> Reply {
        self.app.visitor().ask("GET", path).unwrap()
    }

    /// How many lines of the log have this text.
    fn logged(&self, text: &str) -> usize {
        let logged = self.place.output("logs_query", &json!({ "text": text, "limit": 100 })).unwrap();
        logged["entries"].as_array().unwrap().len()
    }
}

/// The Python server as a manifest has it.
fn python(more: &Value) -> Value {
    let mut service =
        json!({ "files": { "app.py": PYTHON }, "command": "python3 app.py", "access": "public" });
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

#[test]
fn a_python_service_is_routed_scaled_from_zero_and_comes_back_with_its_release() {
    let ground = Ground::new("svc-python");
    let mut manifest =
        json!({ "services": { "hello": python(&json!({ "variables": { "WORD": "one" }, "idle_s": 10 })) } });
    manifest["routes"] = json!({ "/api/*": { "to": { "service": "hello" }, "methods": ["GET"] } });
    let first = ground.apply(&manifest);
    let told = ground.get("/_/svc/hello/told/a%20b?x=1").body;
    assert_eq!((&told["path"], &told["word"]), (&json!("/told/a%20b?x=1"), &json!("one")));
    assert_eq!(told["headers"]["x-forwarded-prefix"], "/_/svc/hello");
    assert_eq!(ground.get("/api/told").body["path"], "/api/told");
    assert_eq!(ground.app.visitor().ask("POST", "/api/told").unwrap().status, 405);
    for path in ["/_/fn/hello", "/_/svc/none", "/_/svc/", "/_/svc"] {
        assert_eq!(ground.get(path).status, 404, "{path}");
    }
    // The same process, with what it has written.
    let (one, two) = (ground.get("/_/svc/hello/write").body, ground.get("/_/svc/hello/write").body);
    assert_eq!((&one["run"], &one["written"], &two["written"]), (&two["run"], &json!(1), &json!(2)));
    // Nobody asks, and it is told to end; whoever asks then gets another one, with the files as they were deployed.
    let ended = eventually(Duration::from_secs(40), || (ground.logged("told to end") > 0).then_some(()));
    assert_eq!(ended, Some(()));
    let again = ground.get("/_/svc/hello/write").body;
    assert_ne!(again["run"], one["run"]);
    assert_eq!(again["written"], 1);

    let described = ground.place.output("app_describe", &json!({})).unwrap();
    assert_eq!(described["services"]["hello"]["path"], "/_/svc/hello");
    let described = ground.get("/_/openapi.json").body["paths"]["/_/svc/hello"]["get"].clone();
    assert!(described["responses"]["200"].is_object(), "{described}");
    let second =
        ground.apply(&json!({ "services": { "hello": python(&json!({ "variables": { "WORD": "two" } })) } }));
    assert_eq!(ground.get("/_/svc/hello/told").body["word"], "two");
    assert_eq!(second["changes"][0]["target"], "service hello");
    ground.place.output("app_rollback", &json!({ "release": first["release"] })).unwrap();
    assert_eq!(ground.get("/_/svc/hello/told").body["word"], "one");
    // A branch has its services too.
    let branch =
        ground.place.output("env_branch", &json!({ "slug": format!("{}-b", ground.place.slug) })).unwrap();
    let other = App::new(branch["url"].as_str().unwrap());
    assert_eq!(other.visitor().ask("GET", "/_/svc/hello/told").unwrap().body["word"], "one");

    // What a route leads to is not taken away; and what is has no address.
    let delete = |dry: bool, confirm: &Value| {
        let input = json!({ "kind": "service", "name": "hello", "dry_run": dry, "confirm": confirm });
        ground.place.client.call("resource_delete", &input).unwrap()
    };
    assert_eq!(delete(true, &Value::Null).status, 409);
    ground.apply(&json!({ "routes": {} }));
    let dry = delete(true, &Value::Null).body;
    assert_eq!(delete(false, &dry["confirm"]).body["deleted"], true);
    assert_eq!(ground.get("/_/svc/hello/told").status, 404);
}

#[test]
fn a_node_service_speaks_websocket_where_a_route_leads_to_it() {
    let ground = Ground::new("svc-node");
    let live = json!({ "files": { "server.mjs": NODE }, "command": "exec node server.mjs" });
    let routes = json!({ "/live": { "to": { "service": "live" }, "auth": "signed_in" } });
    ground.apply(&json!({ "services": { "live": live }, "routes": routes }));
    let person = ground.app.stranger().unwrap();
    let token = format!("Bearer {}", person.token());
    for path in ["/_/svc/live/socket", "/live"] {
        assert_eq!(Socket::open_at(&ground.app, path, &[]).unwrap().err().unwrap().status, 401, "{path}");
        let mut socket =
            Socket::open_at(&ground.app, path, &[("authorization", &token)]).unwrap().ok().unwrap();
        for ask in 0..3 {
            socket.say(&json!({ "ask": ask })).unwrap();
            let heard = socket.hear().unwrap();
            assert_eq!((&heard["answer"], &heard["caller"]["id"]), (&json!(ask), &json!(person.id())));
        }
    }
}

#[test]
fn what_does_not_start_says_why_and_changes_nothing() {
    let ground = Ground::new("svc-wrong");
    let first = ground.serve("hello", &json!({}));
    let cases = [
        (json!({ "command": "nothing-of-that-name" }), "/command", "code 127", "nothing-of-that-name"),
        (json!({ "command": "echo the reason >&2; exit 3" }), "/command", "code 3", "the reason"),
        (json!({ "command": "true" }), "/command", "code 0", "foreground"),
        (
            json!({ "command": "PORT=3000 python3 app.py", "health": { "timeout_s": 3 } }),
            "/command",
            "listens at 3000",
            "8080",
        ),
        (
            json!({ "command": "sleep 60", "health": { "timeout_s": 1 } }),
            "/command",
            "nothing listens at PORT, which is 8080",
            "PORT",
        ),
        (
            json!({ "health": { "path": "/status/500", "timeout_s": 2 } }),
            "/health/path",
            "has answered with 500",
            "health.path",
        ),
        (json!({ "command": " " }), "/command", "empty", "bash"),
        (json!({ "health": { "path": "no" } }), "/health/path", "begins with /", ""),
        (json!({ "memory_mb": 4096 }), "/memory_mb", "64 to 2048", ""),
        (json!({ "build": "echo cannot build >&2; exit 1" }), "/build", "cannot build", "registries"),
        (json!({ "secrets": ["NONE"] }), "/secrets/0", "not set", ""),
    ];
    for (more, at, says, also) in cases {
        let manifest = json!({ "manifest": { "services": { "hello": python(&more) } } });
        let refused = ground.place.client.call("app_apply", &manifest).unwrap();
        let said = refused.body.to_string();
        assert_eq!(refused.body["field"], format!("/manifest/services/hello{at}"), "{said}");
        assert_eq!(refused.status, 400, "{said}");
        assert!(said.contains(says) && said.contains(also), "{more}: {said}");
    }
    let described = ground.place.output("app_describe", &json!({})).unwrap();
    assert_eq!(described["release"], first["release"]);
    assert_eq!(ground.get("/_/svc/hello/told").status, 200);
    // One name is one thing.
    let function = json!({ "name": "hello", "files": { "index.ts": "export default { fetch: () => new Response('') }" } });
    assert_eq!(ground.place.client.call("function_deploy", &function).unwrap().status, 409);
}

#[test]
fn one_that_ends_is_there_for_the_next_and_is_waited_with_when_it_ends_again_and_again() {
    let ground = Ground::new("svc-crash");
    ground.serve("hello", &json!({}));
    let run = || ground.get("/_/svc/hello/told").body["run"].clone();
    let first = run();
    assert_eq!(ground.get("/_/svc/hello/die").status, 502);
    let second = run();
    assert!(second.is_string() && second != first, "{first} {second}");
    // Ended while nobody asks.
    assert_eq!(ground.get("/_/svc/hello/die-later").status, 200);
    let gone = eventually(Duration::from_secs(10), || (ground.logged("while it ran") > 1).then_some(()));
    assert_eq!(gone, Some(()));
    assert_ne!(run(), second);
    let refused = eventually(Duration::from_secs(30), || {
        Some(ground.get("/_/svc/hello/die")).filter(|answer| answer.status == 503)
    });
    let refused = refused.unwrap();
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(!refused.body.to_string().contains("code 9"), "{refused:?}");
    let back =
        eventually(Duration::from_secs(30), || (ground.get("/_/svc/hello/told").status == 200).then_some(()));
    assert_eq!(back, Some(()));
}

#[test]
fn one_that_always_runs_is_started_again_though_nobody_asks() {
    let ground = Ground::new("svc-always");
    let deployed = json!({ "name": "hello", "files": { "app.py": PYTHON }, "command": "python3 app.py",
        "access": "public", "always": true, "health_path": "/status/204" });
    let made = ground.place.output("service_deploy", &deployed).unwrap();
    assert_eq!(made["url"], format!("{}/_/svc/hello", ground.place.url));
    assert_eq!(ground.get("/_/svc/hello/die-later").status, 200);
    let begun = eventually(Duration::from_secs(30), || (ground.logged("it begins") > 1).then_some(()));
    assert_eq!(begun, Some(()));
    let changed = json!({ "name": "hello", "always": false });
    assert_eq!(ground.place.output("service_deploy", &changed).unwrap()["version"], made["version"]);
}

#[test]
fn nobody_forges_who_asks_and_no_answer_speaks_for_the_platform() {
    let ground = Ground::new("svc-forgery");
    let value = "a-value-in-secret";
    ground.place.output("secret_set", &json!({ "name": "API_KEY", "value": value })).unwrap();
    ground.serve("hello", &json!({ "secrets": ["API_KEY"] }));
    let person = ground.app.stranger().unwrap();
    person.create("notes", &json!({ "text": "ada's" })).unwrap();
    ground.app.stranger().unwrap().create("notes", &json!({ "text": "bob's" })).unwrap();
    let forged = |who: &Person| {
        let request = who
            .request("GET", "/_/svc/hello/told")
            .header("steading-caller", r#"{"kind":"service"}"#)
            .header("steading-request", "req_x")
            .header("steading-key", "pk_x")
            .header("x-forwarded-for", "203.0.113.9")
            .header("cookie", "own=1; __Host-stead=2");
        Reply::of(request).unwrap().body
    };
    let caller = |told: &Value| -> Value {
        serde_json::from_str(told["headers"]["steading-caller"].as_str().unwrap()).unwrap()
    };
    let told = forged(&person);
    assert_eq!((&caller(&told)["kind"], &caller(&told)["id"]), (&json!("user"), &json!(person.id())));
    assert_ne!(told["headers"]["steading-request"], "req_x");
    assert_eq!(told["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(told["headers"]["cookie"], "own=1");
    let names: Vec<&String> = told["headers"].as_object().unwrap().keys().collect();
    assert!(!names.iter().any(|name| *name == "authorization" || *name == "steading-key"), "{names:?}");
    assert!(!told.to_string().contains(person.token()));
    assert_eq!(caller(&forged(&ground.app.visitor())), json!({ "kind": "anonymous" }));
    // Its own rights, and those of whoever asks; of nobody else.
    let texts = |who: &Person, path: &str| {
        let answer = who.ask("GET", &format!("/_/svc/hello/{path}")).unwrap().body;
        let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        let mut texts: Vec<String> =
            rows.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&person, "all"), ["ada's", "bob's"]);
    assert_eq!(texts(&person, "mine"), ["ada's"]);
    assert_eq!(texts(&ground.app.visitor(), "mine"), [""; 0]);
    assert_eq!(ground.get("/_/svc/hello/others").body["code"], "forbidden");
    let answer = ground.get("/_/svc/hello/head");
    assert_eq!((answer.status, answer.header("x-own")), (200, Some("1")));
    for name in ["steading-fn-outcome", "access-control-allow-origin", "strict-transport-security"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(ground.get("/_/svc/hello/secret").status, 200);
    let covered = eventually(Duration::from_secs(10), || (ground.logged("it is ***") > 0).then_some(()));
    assert_eq!(covered, Some(()));
    let all = ground.place.output("logs_query", &json!({ "limit": 100 })).unwrap().to_string();
    assert!(!all.contains(value) && all.contains(r#""service":"hello""#), "{all}");
    ground.apply(&json!({ "services": { "hello": python(&json!({ "access": "service" })) } }));
    assert_eq!(
        (ground.get("/_/svc/hello").status, person.ask("GET", "/_/svc/hello").unwrap().status),
        (401, 403)
    );
}

#[test]
fn a_service_reaches_nothing_but_its_own_app() {
    let (ground, other) = (Ground::new("svc-inside"), Ground::new("svc-beside"));
    ground.serve("hello", &json!({}));
    other.serve("hello", &json!({}));
    assert_eq!(other.get("/_/svc/hello/told").status, 200);
    let gateway = ground.place.steading.ready().url.clone();
    let port = gateway.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let own = ground.get("/_/svc/hello/connect?to=127.0.0.1:8080").body;
    assert_eq!(own, json!({}), "what it would reach it does");
    // By a connection of its own: to the metadata of clouds, the gateway, the host, another's service, names.
    for target in [
        "169.254.169.254:80",
        "10.0.0.1:8080",
        "8.8.8.8:53",
        &format!("127.0.0.1:{port}"),
        "127.0.0.2:8081",
        "[::1]:22",
    ] {
        let told = ground.get(&format!("/_/svc/hello/connect?to={target}")).body;
        assert!(told["error"].is_string(), "{target}: {told}");
    }
    // By the way out: what is not allowed is refused there.
    for url in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://127.0.0.1:{port}/healthz"),
        format!("{}/_/svc/hello/told", other.place.url),
        "https://example.com/".to_owned(),
    ] {
        let told = ground.get(&format!("/_/svc/hello/fetch?url={}", conformance_tests::encoded(&url))).body;
        assert!(told["error"].as_str().is_some_and(|error| error.contains("403")), "{url}: {told}");
    }
    // Nothing of the host is seen: other processes, keys, the data directory.
    let seen = ground.get("/_/svc/hello/seen").body;
    assert!(seen["processes"].as_u64().unwrap() < 10, "{seen}");
    assert_eq!(seen["uid"].as_u64().filter(|uid| *uid == 0), None, "{seen}");
    let text = seen.to_string();
    assert!(!text.contains("STEADING_KEY") && !text.contains("operator"), "{seen}");
    // What it may not ask of the platform.
    for (path, status) in [("/_/auth/me", 404), ("/v1/tools", 404), ("/", 404)] {
        let told = ground.get(&format!("/_/svc/hello/platform?path={path}")).body;
        assert_eq!(told["status"], status, "{path}: {told}");
    }
}

#[test]
fn packages_are_installed_when_it_is_deployed() {
    let ground = Ground::new("svc-packages");
    let app = r#"
from fastapi import FastAPI, Request
app = FastAPI()
@app.get("/items/{item}")
def read(item: int, request: Request):
    return {"item": item, "caller": request.headers["steading-caller"]}
"#;
    let fast = json!({
        "files": { "app.py": app, "requirements.txt": "fastapi==0.165.0\nuvicorn==0.54.0\n" },
        "build": "pip install -q -r requirements.txt --target .",
        "command": "exec python3 -m uvicorn app:app --host 0.0.0.0 --port $PORT",
        "health": { "path": "/docs" },
        "access": "public",
    });
    let server = r#"import { nanoid } from "nanoid";
        import http from "node:http";
        http.createServer((request, response) => response.end(nanoid(8))).listen(process.env.PORT);"#;
    let node = json!({
        "files": { "server.mjs": server, "package.json": r#"{"dependencies":{"nanoid":"5.1.5"}}"# },
        "build": "npm install --no-audit --no-fund",
        "command": "node server.mjs",
        "access": "public",
    });
    ground.apply(&json!({ "services": { "fast": fast, "node": node } }));
    let item = ground.get("/_/svc/fast/items/7").body;
    assert_eq!(item, json!({ "item": 7, "caller": r#"{"kind":"anonymous"}"# }));
    assert_eq!(ground.get("/_/svc/fast/items/x").status, 422);
    assert_eq!(ground.get("/_/svc/node").body.as_str().unwrap().len(), 8);
}

#[test]
fn the_example_counts_words_for_who_is_signed_in() {
    let place = Place::new("words").unwrap();
    let mut apply = place.command(&["apply", "examples/python-service", "--json"]);
    apply.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let applied = finish(apply, Duration::from_secs(60)).unwrap();
    assert!(applied.success(), "{applied:?}");
    let app = App::new(&place.url);
    let person = app.stranger().unwrap();
    let text = json!({ "text": "three words here" });
    app.visitor()
        .send("POST", "/_/svc/words/api/counts", &text)
        .unwrap()
        .refuses(401, "unauthenticated")
        .unwrap();
    assert_eq!(app.visitor().send("POST", "/api/counts", &text).unwrap().status, 405);
    // The page itself, as somebody who has just come.
    let shown = browser(|browser| {
        browser.goto(&place.url)?;
        browser.type_into("#text", "three words here")?;
        browser.click("form button")?;
        let list = "return document.querySelector('#list li')?.textContent";
        Ok(eventually(Duration::from_secs(30), || browser.evaluate(list).ok().filter(|it| !it.is_null())))
    });
    assert_eq!(shown.unwrap(), Some(json!("3: three words here")));
    let listed = app.visitor().ask("GET", "/api/counts").unwrap().body;
    assert_eq!((&listed["rows"][0]["words"], listed["rows"].as_array().unwrap().len()), (&json!(3), 1));
    // Nobody counts for themselves.
    let row = json!({ "text": "a", "words": 1000, "author": person.id() });
    person.send("POST", "/_/db/counts", &row).unwrap().refuses(403, "forbidden").unwrap();
}

#[test]
fn what_is_in_flight_ends_before_the_process_does_when_another_version_comes() {
    let ground = Ground::new("svc-drain");
    ground.serve("hello", &json!({ "variables": { "WORD": "old" } }));
    let slow = std::thread::spawn({
        let visitor = ground.app.visitor();
        move || visitor.ask("GET", "/_/svc/hello/slow?s=4").unwrap()
    });
    let begun = eventually(Duration::from_secs(10), || (ground.logged("slowly") > 0).then_some(()));
    assert_eq!(begun, Some(()));
    ground.serve("hello", &json!({ "variables": { "WORD": "new" } }));
    assert_eq!(ground.get("/_/svc/hello/told").body["word"], "new");
    let answer = slow.join().unwrap();
    assert_eq!((answer.status, &answer.body["word"]), (200, &json!("old")));
}
