//! Routes seen from outside: which one answers, whom it lets in, and what tricks do not change.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use conformance_tests::{App, Person, Place, Reply};
use serde_json::{Value, json};

pub const FRIEND: &str = "https://friend.example";

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous", "password"] },
        "database": { "tables": { "todos": {
            "columns": { "title": "text!" },
            "access": { "list": "true", "get": "true", "create": "auth.uid != null", "delete": "row.owner == auth.uid" },
        } } },
        "storage": { "buckets": { "photos": { "access": "public_read" } } },
        "site": { "files": {
            "index.html": "home", "posts/one.html": "post one", "members/a.html": "secret a", "secret.html": "secret b",
            "shadow.txt": "never seen", "open.txt": "open", "_x/y.txt": "below",
        }, "redirects": [{ "from": "/away", "to": "/open.txt" }] },
        "routes": {
            "/api/todos/*": { "to": { "table": "todos" }, "methods": ["GET", "POST", "DELETE"], "max_body": 200 },
            "/api/todos/first": { "rewrite": "/open.txt" },
            "/api/mine": { "to": { "table": "todos" }, "auth": "signed_in" },
            "/api/admin/*": { "to": { "table": "todos" }, "auth": "admin" },
            "/api/server": { "to": { "table": "todos" }, "auth": "service" },
            "/img/*": { "to": { "bucket": "photos" } },
            "/put/*": { "to": { "bucket": "photos" }, "methods": ["GET", "PUT"], "auth": "signed_in", "max_body": 1000 },
            "/shadow.txt": { "to": { "bucket": "photos" }, "rewrite": "/a.txt" },
            "/blog/:slug": { "rewrite": "/posts/:slug.html" },
            "/deep/*": { "rewrite": "/:splat" },
            "/members/*": { "auth": "signed_in" },
            "/secret.html": { "auth": "admin" },
        },
    })
}

pub struct Ground {
    pub place: Place,
    pub app: App,
}

impl Ground {
    pub fn with(name: &str, manifest: &Value) -> Self {
        let place = Place::new(name).unwrap();
        place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        let stored = json!({ "bucket": "photos", "path": "a.txt", "text": "a picture" });
        if manifest.pointer("/storage/buckets/photos").is_some() {
            place.output("storage_put", &stored).unwrap();
        }
        let app = App::new(&place.url);
        Self { place, app }
    }

    pub fn new(name: &str) -> Self {
        Self::with(name, &manifest())
    }

    pub fn get(&self, path: &str) -> Reply {
        self.app.visitor().ask("GET", path).unwrap()
    }

    pub fn person(&self, role: Option<&str>) -> Person {
        let person = self.app.stranger().unwrap();
        if let Some(role) = role {
            self.place.output("auth_user_set", &json!({ "user": person.id(), "role": role })).unwrap();
        }
        person
    }
}

/// The app with these routes before a site of one file and a table that everybody reads.
pub fn small(routes: &Value) -> Value {
    json!({
        "auth": { "methods": ["anonymous"] },
        "database": { "tables": { "todos": { "columns": { "title": "text!" }, "access": {
            "list": "true", "get": "true", "create": "true"
        } } } },
        "site": { "files": { "index.html": "home" } },
        "routes": routes,
    })
}

pub fn told(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.body.as_str().unwrap_or_else(|| reply.code()))
}

/// Sends these bytes and reads until the other side closes.
pub fn raw(app: &App, request: &str) -> String {
    let authority = app.url().trim_start_matches("http://");
    let port = authority.rsplit(':').next().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.replace("HOST", authority).as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A peer that refuses may reset the connection after its answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn the_most_particular_route_answers_and_else_the_site() {
    let ground = Ground::new("routes");
    let alice = ground.person(None);
    let made = alice.send("POST", "/api/todos", &json!({ "title": "Milk" })).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(made.header("location"), Some(format!("/_/db/todos/{id}").as_str()));
    ground.get("/api/todos").lists(&[id]).unwrap();
    ground.get("/api/todos/").lists(&[id]).unwrap();
    ground.get("/api/todos?where=title%20==%20%22x%22").lists(&[]).unwrap();
    assert_eq!(ground.get(&format!("/api/todos/{id}")).body["title"], "Milk");
    let row = ground.get(&format!("/api/todos/{id}"));
    let etag = row.header("etag").unwrap();
    let same =
        Reply::of(ground.app.request("GET", &format!("/api/todos/{id}")).header("if-none-match", etag));
    assert_eq!(same.unwrap().status, 304);
    for (path, answer) in [
        ("/", (200, "home")),
        ("/api/todos/first", (200, "open")),
        ("/img/a.txt", (200, "a picture")),
        ("/img/b.txt", (404, "not_found")),
        ("/img", (404, "not_found")),
        ("/shadow.txt", (200, "a picture")),
        ("/blog/one", (200, "post one")),
        ("/deep/open.txt", (200, "open")),
        ("/open.txt", (200, "open")),
        ("/deep/_x/y.txt", (200, "below")),
    ] {
        assert_eq!(told(&ground.get(path)), answer, "{path}");
    }
    assert_eq!(ground.get("/away").header("location"), Some("/open.txt"));
    // Rules of the table hold behind its route.
    let refused = ground.app.visitor().send("POST", "/api/todos", &json!({ "title": "x" })).unwrap();
    refused.refuses(403, "forbidden").unwrap();
    ground
        .person(None)
        .ask("DELETE", &format!("/api/todos/{id}"))
        .unwrap()
        .refuses(403, "forbidden")
        .unwrap();
    assert_eq!(alice.ask("DELETE", &format!("/api/todos/{id}")).unwrap().status, 204);
    // The document says what is there, and the description too.
    let document = ground.get("/_/openapi.json").body;
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths["/api/todos/{splat}"]["post"]["summary"], "Rows of todos.");
    assert_eq!(paths["/api/mine"]["get"]["security"], json!([{ "session": [] }]));
    assert!(!paths.contains_key("/deep/{splat}"));
    let seen = ground.place.output("app_describe", &json!({})).unwrap();
    assert_eq!(seen["routes"]["/api/admin/*"], "table todos, role admin");
}

#[test]
fn a_route_takes_its_methods_and_says_which() {
    let ground = Ground::new("methods");
    for (method, path, allow) in [
        ("PUT", "/api/todos/x", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("PATCH", "/api/todos", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("POST", "/api/mine", "GET, HEAD, OPTIONS"),
        ("DELETE", "/img/a.txt", "GET, HEAD, OPTIONS"),
        ("PUT", "/img/a.txt", "GET, HEAD, OPTIONS"),
        ("POST", "/members/a", "GET, HEAD, OPTIONS"),
        ("TRACE", "/blog/one", "GET, HEAD, OPTIONS"),
        ("BREW", "/img/a.txt", "GET, HEAD, OPTIONS"),
        ("get", "/img/a.txt", "GET, HEAD, OPTIONS"),
    ] {
        let reply = Reply::of(ground.app.request(method, path).header("content-length", "0")).unwrap();
        reply.refuses(405, "invalid_input").unwrap();
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
        assert_eq!(reply.body["type"], "about:blank");
    }
    // What a request says about another method changes nothing.
    let tricks = [
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "PUT"),
        ("x-method-override", "DELETE"),
        ("x-original-url", "/_/openapi.json"),
        ("x-rewrite-url", "/secret.html"),
        ("x-forwarded-prefix", "/_"),
        ("x-forwarded-path", "/secret.html"),
    ];
    for (name, value) in tricks {
        let reply = Reply::of(ground.app.request("GET", "/img/a.txt").header(name, value)).unwrap();
        assert_eq!(told(&reply), (200, "a picture"), "{name}");
    }
    let head = Reply::of(ground.app.request("HEAD", "/img/a.txt")).unwrap();
    assert_eq!((head.status, head.header("content-length"), &head.body), (200, Some("9"), &Value::Null));
    let head = Reply::of(ground.app.request("HEAD", "/blog/one")).unwrap();
    assert_eq!((head.status, head.header("content-length"), &head.body), (200, Some("8"), &Value::Null));
    for path in ["/img/a.txt", "/blog/one", "/api/mine", "/members/a"] {
        let reply = Reply::of(ground.app.request("OPTIONS", path)).unwrap();
        assert_eq!((reply.status, reply.header("allow")), (204, Some("GET, HEAD, OPTIONS")), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[test]
fn a_route_lets_in_whom_it_says() {
    let ground = Ground::new("whom");
    let (user, admin) = (ground.person(None), ground.person(Some("admin")));
    let key = |scopes: Value| {
        let body = json!({ "name": "server", "env": ground.place.slug, "scopes": scopes });
        let made = ground.place.client.clone().without_env().request("POST", "/v1/keys").json(&body);
        made.send().unwrap().json().unwrap()["key"].as_str().unwrap().to_owned()
    };
    let server = ground.app.visitor().with_token(&key(json!(["app:read", "db:read", "db:write"])));
    // A key opens only what it is for, and the operator's is for no app.
    let lesser = ground.app.visitor().with_token(&key(json!(["db:read"])));
    lesser.ask("GET", "/api/server").unwrap().refuses(403, "forbidden").unwrap();
    lesser.ask("GET", "/members/a").unwrap().refuses(403, "forbidden").unwrap();
    let operator = ground.app.visitor().with_token(&ground.place.steading.ready().key);
    operator.ask("GET", "/api/server").unwrap().refuses(401, "unauthenticated").unwrap();
    let visitor = ground.app.visitor();
    for (path, statuses) in [
        ("/api/mine", [401, 200, 200, 200]),
        ("/api/admin", [401, 403, 200, 200]),
        ("/api/server", [401, 403, 403, 200]),
        ("/members/a", [401, 200, 200, 200]),
        ("/secret.html", [401, 403, 200, 200]),
        ("/blog/one", [200, 200, 200, 200]),
    ] {
        let found = [&visitor, &user, &admin, &server].map(|who| who.ask("GET", path).unwrap());
        assert_eq!(found.each_ref().map(|reply| reply.status), statuses, "{path}: {found:?}");
        for reply in &found {
            match reply.status {
                401 => {
                    reply.refuses(401, "unauthenticated").unwrap();
                    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
                    assert_eq!(reply.header("cache-control"), Some("no-store"));
                }
                403 => reply.refuses(403, "forbidden").unwrap(),
                _ if statuses[0] == 200 => {}
                _ => {
                    let kept = reply.header("cache-control").unwrap();
                    assert!(kept == "no-store" || kept == "private, no-cache", "{path} {kept}");
                    assert!(
                        reply
                            .headers
                            .iter()
                            .any(|(name, value)| name == "vary" && value.contains("authorization"))
                    );
                }
            }
        }
    }
    // A session of another environment, one that has ended, and nonsense open nothing.
    let elsewhere = Ground::new("elsewhere").person(Some("admin"));
    let ended = ground.person(Some("admin"));
    assert_eq!(ended.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    for token in [elsewhere.token(), ended.token(), "x", "sk_x"] {
        for path in ["/members/a", "/api/mine", "/secret.html"] {
            ground
                .app
                .visitor()
                .with_token(token)
                .ask("GET", path)
                .unwrap()
                .refuses(401, "unauthenticated")
                .unwrap();
        }
    }
    // A page that shows a platform key has lost it.
    let page = server.request("GET", "/api/server").header("origin", &ground.place.url);
    Reply::of(page).unwrap().refuses(403, "forbidden").unwrap();
}

#[test]
fn no_spelling_of_a_path_leads_around_a_route() {
    let ground = Ground::new("spelling");
    // Each is guarded as /members/a.html and /secret.html are, or is nowhere.
    for path in [
        "/members/a",
        "/members/a.html",
        "/members/a/",
        "/members/%61",
        "/m%65mbers/a.html",
        "/members/a.html/",
        "/secret",
        "/secret/",
        "/secret.html",
        "/%73ecret.html",
        "/deep/members/a.html",
        "/deep/secret.html",
        "/deep/members/a",
        "/deep/secret",
    ] {
        let reply = ground.get(path);
        assert!(matches!(reply.status, 401 | 308), "{path}: {reply:?}");
        assert!(
            !reply.body.to_string().contains("secret a") && !reply.body.to_string().contains("secret b"),
            "{path}"
        );
    }
    for path in [
        "//members/a.html",
        "/members//a.html",
        "/x/../members/a.html",
        "/members/./a.html",
        "/members/%2e/a.html",
        "/x/%2e%2e/members/a.html",
        "/members%2fa.html",
        "/members%5ca.html",
        "/MEMBERS/a.html",
        "/Secret.html",
        "/members/a.html%00",
        "/secret.html%20",
        "/secret.html.",
        "/%2573ecret.html",
        "/deep//members/a.html",
        "/deep/%2e%2e/secret.html",
        "/deep/../secret.html",
        "/secret.html;x",
        "/./secret.html",
    ] {
        let reply = ground.get(path);
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
    }
    // And no route reaches the app's own interfaces.
    for path in
        ["/deep/_/openapi.json", "/deep/_/db/todos", "/deep/%5f/db/todos", "/img/_/db/todos", "/%5f/db/todos"]
    {
        assert_eq!(ground.get(path).status, 404, "{path}");
    }
    assert_eq!(ground.get("/_/db/todos").status, 200);
    // A query changes nothing, and neither does an absolute target.
    assert_eq!(ground.get("/secret.html?x=/open.txt").status, 401);
    let absolute =
        raw(&ground.app, "GET http://HOST/secret.html HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&absolute), "401", "{absolute}");
    let two = raw(
        &ground.app,
        "GET /img/a.txt HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\nGET /secret.html HTTP/1.1\r\nHost: HOST\r\n\r\n",
    );
    assert!(!two.contains("secret b") && two.matches("HTTP/1.1 ").count() <= 1, "{two}");
}

#[test]
fn an_earlier_release_opens_nothing_that_is_closed_today() {
    let mut before = manifest();
    before["routes"] = json!({ "/other/*": { "auth": "signed_in" } });
    before["site"]["files"]["other/b.html"] = json!("secret c");
    let ground = Ground::with("earlier", &before);
    ground.place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let port = ground.place.url.rsplit(':').next().unwrap().to_owned();
    let preview = App::new(&format!("http://1--{}.localhost:{port}", ground.place.slug));
    let seen = |path: &str| preview.visitor().ask("GET", path).unwrap().status;
    // Its own routes hold, and those of today.
    assert_eq!([seen("/other/b"), seen("/members/a"), seen("/secret"), seen("/")], [401, 401, 401, 200]);
    let user = ground.person(None);
    let theirs = preview.visitor().with_token(user.token());
    let shown = |path: &str| theirs.ask("GET", path).unwrap().status;
    assert_eq!([shown("/other/b"), shown("/members/a"), shown("/secret")], [200, 200, 403]);
    // A release takes its routes back with it.
    ground.place.output("app_rollback", &json!({ "release": 1 })).unwrap();
    assert_eq!((ground.get("/members/a").status, ground.get("/img/a.txt").status), (200, 404));
    ground.place.output("app_rollback", &json!({ "release": 2 })).unwrap();
    assert_eq!((ground.get("/members/a").status, ground.get("/img/a.txt").status), (401, 200));
}

#[test]
fn a_plan_says_what_a_route_opens_and_refuses_what_cannot_be() {
    let place = Place::new("plan").unwrap();
    let plan = |routes: Value| {
        let mut manifest = small(&routes);
        manifest["site"]["files"]["shadow.txt"] = json!("x");
        place.output("app_plan", &json!({ "manifest": manifest })).map_err(|e| e.to_string())
    };
    let seen = plan(json!({
        "/a/*": { "to": { "table": "todos" }, "cors": { "origins": [FRIEND] } },
        "/shadow.txt": { "to": { "table": "todos" }, "auth": "admin" },
    }))
    .unwrap();
    let effects: Vec<String> = seen["effects"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["target"].as_str().unwrap().starts_with("route"))
        .map(|it| {
            format!(
                "{} {}: {}",
                it["kind"].as_str().unwrap(),
                it["target"].as_str().unwrap(),
                it["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(effects, [
        format!("privilege route /a/*: everybody reaches rows of todos there, as far as its access lets them, also from pages of {FRIEND}"),
        "privilege route /shadow.txt: whoever has the role admin reaches rows of todos there, as far as its access lets them".to_owned(),
        "privilege routes: answer in place of /shadow.txt of the site".to_owned(),
    ]);
    for (routes, field, words) in [
        (
            json!({ "/a": { "to": { "function": "f" } } }),
            "/manifest/routes/~1a/to",
            "there is no function f to lead to",
        ),
        (json!({ "/a": { "speed": 1 } }), "/manifest/routes/~1a", "unknown field"),
        (
            json!({ "/a": { "to": { "table": "nope" } } }),
            "/manifest/routes/~1a/to",
            "there is no table nope to lead to",
        ),
        (json!({ "/_/db": {} }), "/manifest/routes/~1_~1db", "the app's own interfaces are there"),
        (
            json!({ "/a/:x": {}, "/a/:y": {} }),
            "/manifest/routes/~1a~1:y",
            "the routes /a/:x and /a/:y are for the same paths",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["*"], "credentials": true } } }),
            "/manifest/routes/~1a/cors/credentials",
            "pages of every origin",
        ),
    ] {
        let refusal = plan(routes).unwrap_err();
        assert!(refusal.contains(field) && refusal.contains(words), "{refusal}");
    }
    // What a route leads to is not removed under it.
    place
        .output("app_apply", &json!({ "manifest": small(&json!({ "/a": { "to": { "table": "todos" } } })) }))
        .unwrap();
    let refusal = place
        .output("resource_delete", &json!({ "kind": "table", "name": "todos", "dry_run": true }))
        .unwrap_err();
    assert!(refusal.to_string().contains("there is no table todos to lead to"), "{refusal}");
}

#[test]
fn the_log_names_the_route_and_the_reason_and_no_secret() {
    let ground = Ground::new("logged");
    let refused = ground.get("/members/a?token=s3cret-in-a-query");
    let id = refused.body["request_id"].as_str().unwrap().to_owned();
    assert_eq!(refused.header("x-request-id"), Some(id.as_str()));
    let found = ground.place.output("logs_query", &json!({ "request_id": id, "level": "warn" })).unwrap();
    let [entry] = found["entries"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!(entry["message"], "GET /members/a 401");
    assert_eq!(
        (&entry["fields"]["route"], &entry["fields"]["code"]),
        (&json!("/members/*"), &json!("unauthenticated"))
    );
    let alice = ground.person(None);
    let wrong = alice.send("POST", "/api/todos", &json!({ "title": 12_345_678 })).unwrap();
    let id = wrong.body["request_id"].as_str().unwrap().to_owned();
    let found = ground.place.output("logs_query", &json!({ "request_id": id })).unwrap();
    assert_eq!(found["entries"][0]["fields"]["field"], "/title", "{found}");
    let all = ground.place.output("logs_query", &json!({ "limit": 500 })).unwrap().to_string();
    for secret in ["s3cret", "12345678", alice.token()] {
        assert!(!all.contains(secret), "{secret}");
    }
}
