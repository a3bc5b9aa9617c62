//! Functions seen from outside: deployed by a tool, asked by visitors, users and servers, and what none of them gets.

use conformance_tests::{App, Person, Place, Reply};
use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Request;

/// Tells all that it is told, and does what its path says.
const ALL: &str = r#"
const seen = async (answer) => answer.then((it) => ({ it }), (error) => ({ status: error.status, code: error.code, message: error.message }));
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    switch (url.pathname.split("/")[1]) {
      case "told":
        return Response.json({ url: request.url, method: request.method, headers: Object.fromEntries(request.headers),
          caller: ctx.caller, user: ctx.user, body: await request.text(), env });
      case "all": return Response.json(await seen(env.db("notes").list({ select: "text" })));
      case "mine": return Response.json(await seen(ctx.db("notes").list({ select: "text" })));
      case "make": return Response.json(await seen(ctx.db("notes").create({ text: "by the function" })));
      case "wipe": return Response.json(await seen(ctx.db("notes").delete(url.searchParams.get("id"))));
      case "throw": throw new RangeError("a reason for the owner");
      case "circle": return env.fn("all").fetch("/circle");
      case "other": return Response.json(await seen((url.searchParams.has("own") ? env : ctx).fn("inner").invoke({ a: 1 })));
      case "secret": console.log(`it is ${env.API_KEY}`); return new Response("said");
      case "late": console.log("before"); setTimeout(() => console.log("after"), 5); return new Response("soon");
      case "raw": {
        const answer = await fetch("http://platform.internal" + url.searchParams.get("path"),
          { unix: "/run/steading/bridge.sock", headers: JSON.parse(url.searchParams.get("headers")) });
        return new Response(await answer.text(), { status: answer.status });
      }
      case "size": { let size = 0; for await (const part of request.body ?? []) size += part.length; return new Response(`${size}`); }
      case "head": return new Response("x", { headers: [["set-cookie", "a=1; Domain=localhost; Path=/"], ["steading-own", "1"],
        ["access-control-allow-origin", "*"], ["strict-transport-security", "max-age=1"], ["x-own", "1"]] });
      default: return new Response("no such path", { status: 404 });
    }
  },
};
"#;

/// Says who has called it.
const INNER: &str = "exports.main = async (event, context) => ({ event, caller: context.caller });";

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": { "notes": { "columns": { "text": "text!" }, "access": "private" } } },
    })
}

/// An app with these functions.
pub struct Ground {
    pub place: Place,
    pub app: App,
}

impl Ground {
    pub fn new(name: &str) -> Self {
        Self::of(Place::new(name).unwrap())
    }

    pub fn of(place: Place) -> Self {
        place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
        let app = App::new(&place.url);
        Self { place, app }
    }

    pub fn deploy(&self, name: &str, code: &str, more: &Value) -> Value {
        let mut input = json!({ "name": name, "files": { "index.ts": code } });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.place.output("function_deploy", &input).unwrap()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.app.visitor().ask("GET", path).unwrap()
    }

    pub fn key(&self, scopes: &[&str]) -> String {
        let wanted = json!({ "name": "server", "env": self.place.slug, "scopes": scopes });
        let operator = self.place.steading.client().without_env();
        let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
        made["key"].as_str().unwrap().to_owned()
    }
}

#[test]
fn who_may_ask_is_what_the_function_says() {
    let ground = Ground::new("fn-access");
    let deployed = ground.deploy("all", ALL, &json!({}));
    assert_eq!(deployed["url"], format!("{}/_/fn/all", ground.place.url));
    assert_eq!(deployed["access"], "signed_in");
    let person = ground.app.stranger().unwrap();
    let (may, may_not) = (ground.key(&["function:invoke"]), ground.key(&["db:read", "db:write"]));
    let server = |key: &str| Person { session: None, ..person.clone() }.with_token(key);
    let asked = |who: &Person| who.ask("GET", "/_/fn/all/told").unwrap();
    let statuses = || {
        let all = [&ground.app.visitor(), &person, &server(&may), &server(&may_not)];
        all.map(|who| asked(who).status)
    };
    assert_eq!(statuses(), [401, 200, 200, 403]);
    for (access, expected) in [("service", [401, 403, 200, 403]), ("public", [200, 200, 200, 403])] {
        let changed = json!({ "name": "all", "access": access });
        assert_eq!(ground.place.output("function_deploy", &changed).unwrap()["version"], deployed["version"]);
        assert_eq!(statuses(), expected, "{access}");
    }
    assert_eq!(asked(&ground.app.visitor()).body["caller"], json!({ "kind": "anonymous" }));
    assert_eq!(asked(&server(&may)).body["caller"], json!({ "kind": "service" }));
    let told = asked(&person).body;
    assert_eq!((&told["user"]["id"], &told["caller"]["kind"]), (&json!(person.id()), &json!("user")));
    // A session that has ended is not taken for none.
    assert_eq!(asked(&person.with_token("x.y.z")).status, 200, "it is none of ours, and for the function");
    let (head, _) = person.token().rsplit_once('.').unwrap();
    assert_eq!(asked(&person.with_token(&format!("{head}.AAAA"))).status, 401);
    for path in ["/_/fn/none", "/_/fn/No", "/_/fn/", "/_/fn/all%2Ftold"] {
        assert_eq!(ground.get(path).status, 404, "{path}");
    }
    assert_eq!(ground.get("/_/fn").status, 404);
    assert!(ground.get("/_/openapi.json").body["paths"]["/_/fn/all"]["post"].is_object());
}

#[test]
fn nothing_that_is_between_the_platform_and_others_gets_inside_or_out() {
    let ground = Ground::new("fn-headers");
    ground.deploy("all", ALL, &json!({ "access": "public", "variables": { "NAME": "value" } }));
    let person = ground.app.stranger().unwrap();
    let forged = |request: Request| {
        let request = request
            .header("steading-fn-caller", r#"{"kind":"service"}"#)
            .header("steading-fn-kind", "scheduled")
            .header("steading-fn-url", "https://evil.test/")
            .header("steading-key", "pk_x")
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-host", "evil.test")
            .header("cookie", "own=1; __Host-stead=2");
        Reply::of(request).unwrap()
    };
    let told = forged(person.request("POST", "/_/fn/all/told/a%20b?x=1").body("text")).body;
    let headers = told["headers"].as_object().unwrap();
    assert_eq!(told["url"], format!("{}/told/a%20b?x=1", ground.place.url));
    assert_eq!((&told["method"], &told["body"]), (&json!("POST"), &json!("text")));
    assert_eq!(told["user"]["id"], person.id());
    assert_eq!(told["env"]["NAME"], "value");
    assert_eq!(
        (&headers["cookie"], &headers["x-forwarded-for"], &headers["x-forwarded-prefix"]),
        (&json!("own=1"), &json!("127.0.0.1"), &json!("/_/fn/all"))
    );
    assert!(!headers.contains_key("authorization") && !told.to_string().contains(person.token()));
    assert!(!headers.keys().any(|name| name.starts_with("steading-")), "{headers:?}");
    // What is none of the platform's is the function's business: a webhook's, for one.
    let webhook = ground.app.request("GET", "/_/fn/all/told").header("authorization", "Basic dTpw");
    assert_eq!(Reply::of(webhook).unwrap().body["headers"]["authorization"], "Basic dTpw");
    let key = ground.key(&["function:invoke"]);
    let shown = Reply::of(ground.app.request("GET", "/_/fn/all/told").bearer(&key)).unwrap();
    assert!(!shown.body.to_string().contains(&key));
    let answer = ground.get("/_/fn/all/head");
    assert_eq!((answer.header("x-own"), answer.header("set-cookie")), (Some("1"), Some("a=1; Path=/")));
    for name in ["steading-own", "access-control-allow-origin", "strict-transport-security"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // Pages of other origins are let in by the app, as to rows.
    let other = ground.app.request("GET", "/_/fn/all/head").header("origin", "https://other.example");
    assert_eq!(Reply::of(other).unwrap().status, 403);
}

#[test]
fn rows_are_asked_for_with_the_rights_of_the_app_or_of_who_asks() {
    let ground = Ground::new("fn-rights");
    ground.deploy("all", ALL, &json!({ "access": "public" }));
    ground.deploy("inner", INNER, &json!({ "access": "service" }));
    let (ada, bob) = (ground.app.stranger().unwrap(), ground.app.stranger().unwrap());
    for (who, text) in [(&ada, "ada's"), (&bob, "bob's")] {
        who.create("notes", &json!({ "text": text })).unwrap();
    }
    let texts = |who: &Person, path: &str| -> Vec<String> {
        let answer = who.ask("GET", &format!("/_/fn/all/{path}")).unwrap().body;
        let rows = answer["it"]["rows"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        let mut texts: Vec<String> =
            rows.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&ada, "mine"), ["ada's"]);
    assert_eq!(texts(&bob, "mine"), ["bob's"]);
    assert_eq!(texts(&ground.app.visitor(), "mine"), [""; 0]);
    assert_eq!(texts(&ground.app.visitor(), "all"), ["ada's", "bob's"]);
    let made = ada.ask("GET", "/_/fn/all/make").unwrap().body;
    assert_eq!(made["it"]["owner"], ada.id());
    let id = made["it"]["id"].as_str().unwrap();
    let wiped = bob.ask("GET", &format!("/_/fn/all/wipe?id={id}")).unwrap().body;
    assert_eq!(wiped["status"], 404, "{wiped}");
    assert_eq!(ground.get("/_/fn/all/make").body["status"], 403);
    // With its own rights a function asks another one whatever that says; with the caller's it may what they may.
    let own = ground.get("/_/fn/all/other?own").body;
    assert_eq!(own["it"], json!({ "event": { "a": 1 }, "caller": { "kind": "function", "name": "all" } }));
    assert_eq!(ground.get("/_/fn/all/other").body["status"], 401);
    assert_eq!(ada.ask("GET", "/_/fn/all/other").unwrap().body["status"], 403);
    // Two that ask each other end with a reason, and not with the machine.
    let circle = ground.get("/_/fn/all/circle");
    assert_eq!((circle.status, &circle.body["code"]), (429, &json!("quota_exceeded")), "{circle:?}");
}

#[test]
fn a_function_cannot_make_itself_somebody_else() {
    let ground = Ground::new("fn-forgery");
    ground.deploy("all", ALL, &json!({ "access": "public" }));
    let ada = ground.app.stranger().unwrap();
    ada.create("notes", &json!({ "text": "ada's" })).unwrap();
    let encoded = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let raw = |path: &str, headers: &Value| {
        let at = format!("/_/fn/all/raw?path={}&headers={}", encoded(path), encoded(&headers.to_string()));
        let reply = ground.get(&at);
        (reply.status, reply.body)
    };
    let rows = |body: &Value| body["rows"].as_array().map_or(0, Vec::len);
    // Its own rights, whatever it says.
    for headers in [
        json!({}),
        json!({ "authorization": format!("Bearer {}", ada.token()) }),
        json!({ "steading-key": "pk_x", "origin": "https://other.example", "host": "other.localhost" }),
        json!({ "x-forwarded-for": "203.0.113.9", "sec-fetch-site": "same-origin", "cookie": "a=1" }),
        json!({ "steading-fn-request": "req_somebody-elses" }),
    ] {
        let (status, body) = raw("/_/db/notes", &headers);
        assert_eq!((status, rows(&body)), (200, 1), "{headers}: {body}");
    }
    // Nobody's whose request it is not.
    let others = json!({ "steading-fn-request": "req_somebody-elses", "steading-fn-rights": "caller" });
    assert_eq!(raw("/_/db/notes", &others).0, 403);
    assert_eq!(raw("/_/db/notes", &json!({ "steading-fn-rights": "owner" })).0, 403);
    for (path, status) in [
        ("/_/auth/me", 404),
        ("/_/realtime", 404),
        ("/_/openapi.json", 404),
        ("/v1/tools", 404),
        ("/v1/models", 503),
        ("/", 404),
        ("/_/db/../auth/me", 404),
        ("/_/fn/none", 404),
    ] {
        assert_eq!(raw(path, &json!({})).0, status, "{path}");
    }
}

#[test]
fn what_it_throws_is_its_owners_and_so_are_its_lines() {
    let ground = Ground::new("fn-owner");
    let value = "a-value-in-secret";
    ground.place.output("secret_set", &json!({ "name": "API_KEY", "value": value })).unwrap();
    ground.deploy("all", ALL, &json!({ "access": "public", "secrets": ["API_KEY"] }));
    ground.deploy("inner", INNER, &json!({ "runtime": "node" }));
    let thrown = ground.get("/_/fn/all/throw");
    assert_eq!((thrown.status, &thrown.body["code"]), (500, &json!("internal")));
    assert!(!thrown.body.to_string().contains("reason"), "{thrown:?}");
    let id = thrown.header("x-request-id").unwrap();
    let invoke = |input: Value| ground.place.output("function_invoke", &input).unwrap();
    let shown = invoke(json!({ "name": "all", "path": "/throw" }));
    assert_eq!(shown["status"], 500);
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["name"], &body["message"]), (&json!("RangeError"), &json!("a reason for the owner")));
    assert!(body["stack"].as_str().unwrap().contains("index.ts"), "{body}");
    let late = invoke(json!({ "name": "all", "path": "late" }));
    assert_eq!(late["body"], "soon");
    let texts: Vec<_> = late["logs"].as_array().unwrap().iter().map(|line| line["text"].clone()).collect();
    assert_eq!(texts, ["before", "after"]);
    let secret = invoke(json!({ "name": "all", "path": "/secret" }));
    assert_eq!(secret["logs"], json!([{ "level": "info", "text": "it is ***" }]));
    let told = invoke(json!({ "name": "inner", "body": "{\"a\":2}" }));
    let body: Value = serde_json::from_str(told["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({ "event": { "a": 2 }, "caller": { "kind": "service" } }));
    let sent =
        invoke(json!({ "name": "all", "path": "/told?q=1", "method": "PUT", "headers": { "x-own": "1" },
        "body": { "base64": "AAEC" } }));
    let body: Value = serde_json::from_str(sent["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["method"], &body["headers"]["x-own"]), (&json!("PUT"), &json!("1")));
    let logged = ground.place.output("logs_query", &json!({ "request_id": id })).unwrap().to_string();
    assert!(logged.contains("a reason for the owner") && logged.contains(r#""function":"all""#), "{logged}");
    let all = ground.place.output("logs_query", &json!({ "limit": 100 })).unwrap().to_string();
    assert!(all.contains("it is ***") && !all.contains(value), "{all}");
    for (input, status) in [
        (json!({ "name": "none" }), 404),
        (json!({ "name": "all", "method": "a b" }), 400),
        (json!({ "name": "all", "path": "/a b" }), 400),
        (json!({ "name": "all", "headers": { "steading-fn-kind": "x" } }), 400),
        (json!({ "name": "all", "headers": { "host": "x" } }), 400),
        (json!({ "name": "all", "body": { "json": 1 } }), 400),
    ] {
        assert_eq!(ground.place.client.call("function_invoke", &input).unwrap().status, status, "{input}");
    }
}

#[test]
fn a_tool_needs_its_scope_and_a_function_comes_back_with_its_release() {
    let ground = Ground::new("fn-release");
    let code = |text: &str| format!("export default {{ fetch: () => new Response('{text}') }};");
    let first = ground.deploy("hello", &code("one"), &json!({ "access": "public" }));
    assert_eq!(ground.get("/_/fn/hello").body, "one");
    let second = ground.deploy("hello", &code("two"), &json!({}));
    assert_eq!((ground.get("/_/fn/hello").body, &second["changed"]), (json!("two"), &json!(true)));
    assert_ne!(first["version"], second["version"]);
    // What does not start is not switched to.
    let broken = json!({ "name": "hello", "files": { "index.ts": "throw new Error('at once')" } });
    let refused = ground.place.client.call("function_deploy", &broken).unwrap();
    assert_eq!((refused.status, refused.code()), (400, "invalid_input"), "{refused:?}");
    assert_eq!(ground.get("/_/fn/hello").body, "two");
    ground.place.output("app_rollback", &json!({ "release": first["release"] })).unwrap();
    assert_eq!(ground.get("/_/fn/hello").body, "one");
    // A preview of an earlier release has today's code: what was mended is not to be had as it was.
    let preview = ground.place.url.replacen("://", &format!("://{}--", second["release"]), 1);
    assert_eq!(App::new(&preview).visitor().ask("GET", "/_/fn/hello").unwrap().body, "one");
    let code =
        json!({ "manifest": { "functions": { "hello": { "files": { "index.ts": code("three") } } } } });
    let variables = json!({ "manifest": { "variables": { "A": "1" } } });
    let app = ["app:read", "app:write", "db:read"];
    for (scopes, tool, input) in [
        (&["function:invoke"][..], "function_deploy", &json!({ "name": "hello" })),
        (&["function:write"], "function_invoke", &json!({ "name": "hello" })),
        (&app, "app_plan", &code),
        (&app, "app_apply", &code),
        (&app, "app_plan", &variables),
        (&app, "app_apply", &variables),
    ] {
        let client = Client::new(&ground.place.steading.ready().url).with_key(&ground.key(scopes));
        let refused = client.call(tool, input).unwrap();
        assert_eq!((refused.status, refused.code()), (403, "forbidden"), "{tool}");
    }
}

#[test]
fn a_plan_runs_nothing_and_what_does_not_start_tells_no_secret() {
    let ground = Ground::new("fn-trial");
    let value = "a-value-in-secret";
    ground.place.output("secret_set", &json!({ "name": "API_KEY", "value": value })).unwrap();
    let files = json!({ "index.ts": "throw new Error(`it is ${process.env.API_KEY}`);" });
    let function = json!({ "files": files, "secrets": ["API_KEY"] });
    let manifest = json!({ "manifest": { "functions": { "throws": function } } });
    // A plan knows only that it can be built.
    let plan = ground.place.output("app_plan", &manifest).unwrap();
    let deployed = json!({ "name": "throws", "files": files, "secrets": ["API_KEY"] });
    for (tool, input) in [
        ("app_apply", &manifest),
        ("app_apply", &json!({ "plan_id": plan["plan_id"] })),
        ("function_deploy", &deployed),
    ] {
        let refused = ground.place.client.call(tool, input).unwrap();
        assert_eq!((refused.status, refused.code()), (400, "invalid_input"), "{tool}: {refused:?}");
        let said = format!("{refused:?}");
        assert!(said.contains("it is ***") && !said.contains(value), "{tool}: {said}");
    }
    assert_eq!(ground.get("/_/fn/throws").status, 404);
}
