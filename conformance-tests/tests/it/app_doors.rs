//! Attacks on the road to an app: other origins, headers that claim things, odd methods, paths and bodies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};
use conformance_tests::{Attack, MARK, Reply, Scene};
use serde_json::{Value, json};

use crate::app_todo::LIST;

const STRANGE: [&str; 12] = [
    "https://evil.example",
    "null",
    "",
    "http://localhost",
    "https://friend.example.evil.example",
    "https://evil.friend.example",
    "http://friend.example",
    "https://friend.example:8443",
    "https://friend.example/",
    "HTTPS://FRIEND.EXAMPLE",
    "friend.example",
    "https://friend.example, https://evil.example",
];

/// Holds that no page of another origin may read an answer.
fn shut(reply: &Reply) -> anyhow::Result<()> {
    let allows: Vec<_> =
        reply.headers.iter().filter(|(name, _)| name.starts_with("access-control-")).collect();
    ensure!(allows.is_empty(), "another origin may read it: {allows:?}");
    Ok(())
}

/// The key that pages of other origins show.
fn publishable(scene: &Scene) -> anyhow::Result<String> {
    let described = scene.place.output("app_describe", &json!({}))?.to_string();
    let start = described.find("pk_").context("app_describe shows no publishable key")?;
    let key = described[start..].split(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
    Ok(key.into_iter().next().unwrap_or_default().to_owned())
}

const ORIGINS: &[Attack] = &[
    Attack {
        name: "pages of other origins",
        attempt: |scene| {
            let key = publishable(scene)?;
            for origin in STRANGE {
                for path in ["/_/db/todos", "/_/db/notices", "/_/auth/me", "/_/openapi.json"] {
                    let request = scene.alice.request("GET", path).header("origin", origin);
                    let reply = Reply::of(request.header("steading-key", &key))?;
                    scene
                        .refused(&reply, 403, "forbidden")
                        .with_context(|| format!("{path} from {origin:?}"))?;
                    shut(&reply)?;
                }
                let asked = scene.app.request("OPTIONS", "/_/db/todos").header("origin", origin);
                let asked = asked.header("access-control-request-method", "DELETE");
                let reply = Reply::of(asked.header("access-control-request-headers", "authorization"))?;
                ensure!(reply.status == 403, "{origin:?}: {reply:?}");
                shut(&reply)?;
                let signed_in = scene.app.request("POST", "/_/auth/anonymous").header("origin", origin);
                let reply = Reply::of(signed_in.json(&json!({})))?;
                scene.refused(&reply, 403, "forbidden")?;
            }
            let twice = scene.alice.request("GET", "/_/db/todos").header("origin", scene.app.url());
            let reply = Reply::of(twice.header("origin", "https://evil.example"))?;
            scene.refused(&reply, 403, "forbidden")
        },
    },
    Attack {
        name: "a friendly origin without the app's key",
        attempt: |scene| {
            let key = publishable(scene)?;
            let ask = |key: Option<&str>| {
                let request =
                    scene.mallory.request("GET", "/_/db/todos").header("origin", "https://friend.example");
                Reply::of(if let Some(key) = key { request.header("steading-key", key) } else { request })
            };
            let elsewhere = scene.elsewhere.stranger()?;
            let wrong = [
                "",
                "pk_",
                "pk_x",
                &key[..key.len() - 1],
                elsewhere.token(),
                &scene.place.steading.ready().key,
            ];
            for wrong in [None].into_iter().chain(wrong.map(Some)) {
                let reply = ask(wrong)?;
                scene.refused(&reply, 403, "forbidden").with_context(|| format!("{wrong:?}"))?;
                shut(&reply)?;
            }
            let reply = ask(Some(&key))?;
            reply.lists(&[scene.own_id()])?;
            let allowed = reply.header("access-control-allow-origin");
            ensure!(allowed == Some("https://friend.example"), "for whom? {reply:?}");
            ensure!(reply.header("access-control-allow-credentials").is_none(), "cookies, too? {reply:?}");
            let varies = reply.headers.iter().any(|(name, value)| name == "vary" && value.contains("origin"));
            ensure!(varies, "a cache would give it to others: {reply:?}");
            // The key alone opens nothing that a visitor does not see.
            let visitor = scene.app.request("GET", "/_/db/todos").header("origin", "https://friend.example");
            Reply::of(visitor.header("steading-key", &key))?.lists(&[])
        },
    },
];

const HEADERS: &[Attack] = &[
    Attack {
        name: "headers that claim to be somebody",
        attempt: |scene| {
            let path = format!("/_/db/todos/{}", scene.target());
            let alice = scene.alice.id();
            let claims = [
                ("x-forwarded-user", alice),
                ("x-remote-user", alice),
                ("remote-user", alice),
                ("x-auth-request-user", alice),
                ("x-user", alice),
                ("x-role", "admin"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-real-ip", "127.0.0.1"),
                ("forwarded", "for=127.0.0.1;host=localhost;proto=https"),
                ("x-forwarded-host", "localhost"),
                ("x-forwarded-proto", "https"),
                ("steading-env", scene.place.slug.as_str()),
                ("steading-tenant", "default"),
                ("x-steading-role", "service"),
                ("x-steading-service", "1"),
                ("x-api-key", &scene.place.steading.ready().key),
                ("steading-key", &scene.place.steading.ready().key),
                ("x-supabase-api", "1"),
                ("prefer", "tx=rollback"),
            ];
            for attacker in scene.attackers() {
                for (name, value) in claims {
                    let get = attacker.request("GET", &path).header(name, value);
                    scene.refused(&Reply::of(get)?, 404, "not_found").with_context(|| name)?;
                    let delete = attacker.request("DELETE", &path).header(name, value);
                    scene.refused(&Reply::of(delete)?, 404, "not_found").with_context(|| name)?;
                    let list = attacker.request("GET", "/_/db/todos").header(name, value);
                    scene.tells_nothing(&Reply::of(list)?).with_context(|| name)?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "headers that claim another method or address",
        attempt: |scene| {
            let target = format!("/_/db/todos/{}", scene.target());
            let own = format!("/_/db/todos/{}", scene.own_id());
            for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
                for method in ["DELETE", "PATCH"] {
                    for path in [&target, &own] {
                        let request = scene.mallory.request("GET", path).header(name, method);
                        scene.tells_nothing(&Reply::of(request)?)?;
                    }
                    let post = scene.mallory.request("POST", &own).header(name, method);
                    let reply = Reply::of(post.json(&json!({ "title": "changed" })))?;
                    ensure!(reply.status == 405, "{name}: {method}: {reply:?}");
                }
            }
            for name in ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-prefix"] {
                let request = scene.mallory.request("GET", &own).header(name, &target);
                let reply = Reply::of(request)?;
                scene.tells_nothing(&reply)?;
                ensure!(reply.body["id"] == scene.own_id(), "{name}: {reply:?}");
            }
            let row = scene.mallory.ask("GET", &own)?;
            ensure!(row.body == scene.own, "not as it was: {row:?}");
            Ok(())
        },
    },
    Attack {
        name: "methods that are not offered",
        attempt: |scene| {
            let path = format!("/_/db/todos/{}", scene.target());
            for method in ["PUT", "POST", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "DELETE ", "FOO"]
            {
                for attacker in scene.attackers() {
                    let Ok(reply) = Reply::of(attacker.request(method, &path).json(&json!({ "done": true })))
                    else {
                        // Closed without an answer.
                        continue;
                    };
                    scene.tells_nothing(&reply)?;
                    ensure!((400..500).contains(&reply.status), "{method}: {reply:?}");
                }
            }
            for method in ["PUT", "PATCH", "DELETE"] {
                for path in ["/_/db/todos", "/_/db", "/_/batch", "/_/auth/login", "/_/openapi.json"] {
                    let reply = scene.mallory.send(method, path, &json!({}))?;
                    // Rows are put by their id, or by columns that the query names.
                    let refused =
                        if (method, path) == ("PUT", "/_/db/todos") { &[400][..] } else { &[404, 405] };
                    ensure!(refused.contains(&reply.status), "{method} {path}: {reply:?}");
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "the app by another name",
        attempt: |scene| {
            let own = scene.app.url().trim_start_matches("http://");
            let slug = &scene.place.slug;
            let port = own.rsplit(':').next().unwrap_or_default();
            for host in [
                format!("1--{slug}.localhost:{port}"),
                format!("{slug}.localhost.:{port}"),
                format!("{slug}.LOCALHOST:{port}"),
                format!("{slug}.evil.example:{port}"),
                format!("evil.{slug}.localhost:{port}"),
                format!("{slug}.localhost"),
                format!("127.0.0.1:{port}"),
                "evil.example".to_owned(),
                String::new(),
            ] {
                for attacker in scene.attackers() {
                    let path = format!("/_/db/todos/{}", scene.target());
                    let reply = Reply::of(attacker.request("GET", &path).header("host", &host))?;
                    scene.tells_nothing(&reply).with_context(|| host.clone())?;
                    ensure!((400..500).contains(&reply.status), "{host}: {reply:?}");
                }
            }
            Ok(())
        },
    },
];

const PATHS: &[Attack] = &[Attack {
    name: "paths that mean another",
    attempt: |scene| {
        let (id, own) = (scene.target(), scene.own_id());
        let paths = [
            format!("/_/db/todos/{own}/../{id}"),
            format!("/_/db/todos/{own}/%2e%2e/{id}"),
            format!("/_/db/todos/{own}%2f..%2f{id}"),
            format!("/_/db/todos/../todos/{id}"),
            format!("/_/db/./todos/{id}"),
            format!("/_/db//todos/{id}"),
            format!("/_//db/todos/{id}"),
            format!("//_/db/todos/{id}"),
            format!("/_/db/todos//{id}"),
            format!("/_/db/todos/{id}/"),
            format!("/_/db/todos/{id}//"),
            format!("/_/DB/todos/{id}"),
            format!("/%5f/db/todos/{id}"),
            format!("/_%2fdb%2ftodos%2f{id}"),
            format!("/_/d%62/todos/{id}"),
            format!("/_/db/todos/{id};x=1"),
            format!("/_/db/todos/{id}%00"),
            format!("/_/db/todos/{id}%20"),
            format!("/_/db/todos/{id}.json"),
            format!("/_/db/todos%2f{id}"),
            format!("/_/db/todos\\{id}"),
            format!("/_/db/todos/{id}#x"),
            format!("/index.html/../_/db/todos/{id}"),
            format!("/x/%2e%2e/_/db/todos/{id}"),
            format!("/_/auth/../db/todos/{id}"),
            format!("/_/sdk.js/../db/todos/{id}"),
            format!("/_/db/todos/{}", "../".repeat(20)),
            format!("/_/db/todos/%ff{id}"),
        ];
        for path in &paths {
            for attacker in scene.attackers() {
                for method in ["GET", "DELETE"] {
                    let reply = Reply::of(attacker.request(method, path))?;
                    scene.tells_nothing(&reply).with_context(|| path.clone())?;
                    let refused = (400..500).contains(&reply.status);
                    ensure!(refused, "{method} {path}: {reply:?}");
                }
            }
        }
        for path in [
            "/_",
            "/_/",
            "/_/db",
            "/_/db/",
            "/_/x",
            "/_/../",
            "/_/fn/x",
            "/_/files/a/b",
            "/_/realtimes",
            "/_/admin",
        ] {
            let reply = scene.mallory.ask("GET", path)?;
            scene.refused(&reply, 404, "not_found").with_context(|| path)?;
        }
        Ok(())
    },
}];

/// What a connection is answered on which exactly this is written, up to its end.
fn written(scene: &Scene, text: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(scene.place.steading.authority())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    // A connection that is reset has been answered as far as it will be.
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const WIRE: &[Attack] = &[Attack {
    name: "requests that can be read in two ways",
    attempt: |scene| {
        let row = format!("/_/db/todos/{}", scene.target());
        let ours = scene.app.url().trim_start_matches("http://");
        let theirs = scene.elsewhere.url().trim_start_matches("http://");
        let hidden = format!("GET {row} HTTP/1.1\r\nHost: {ours}\r\n\r\n");
        let requests = [
            // The address in full, with and without another host beside it.
            format!("GET http://{ours}{row} HTTP/1.1\r\nHost: {ours}\r\nConnection: close\r\n\r\n"),
            format!("GET http://{ours}{row} HTTP/1.1\r\nHost: {theirs}\r\nConnection: close\r\n\r\n"),
            format!("GET http://{theirs}{row} HTTP/1.1\r\nHost: {ours}\r\nConnection: close\r\n\r\n"),
            format!("GET http://localhost{row} HTTP/1.1\r\nHost: {ours}\r\nConnection: close\r\n\r\n"),
            format!("GET http://alice@{ours}{row} HTTP/1.1\r\nHost: {ours}\r\nConnection: close\r\n\r\n"),
            format!("GET {row} HTTP/1.1\r\nHost: {ours}\r\nHost: {theirs}\r\nConnection: close\r\n\r\n"),
            format!("GET {row} HTTP/1.1\r\nHost: {ours}, {theirs}\r\nConnection: close\r\n\r\n"),
            format!("GET {row} HTTP/1.1\r\nConnection: close\r\n\r\n"),
            format!("GET {row} HTTP/1.0\r\n\r\n"),
            format!("GET {row}\r\n\r\n"),
            format!("DELETE {row} HTTP/1.1\r\nHost: {ours}\r\nConnection: close\r\n\r\n"),
            format!("DELETE {row} HTTP/1.1\nHost: {ours}\nConnection: close\n\n"),
            // One request in another's body.
            format!(
                "POST /_/auth/anonymous HTTP/1.1\r\nHost: {ours}\r\nContent-Length: {}\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{hidden}",
                hidden.len() + 5,
            ),
            format!(
                "POST /_/auth/anonymous HTTP/1.1\r\nHost: {ours}\r\nContent-Length: 0\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{hidden}",
                hidden.len(),
            ),
            format!(
                "GET /_/db/todos HTTP/1.1\r\nHost: {ours}\r\nX: y\r\n Authorization: Bearer x\r\n\
                 Connection: close\r\n\r\n"
            ),
        ];
        for request in &requests {
            let answer = written(scene, request)?;
            ensure!(!answer.contains(MARK), "LEAK: {request:?}: {answer}");
            let statuses = answer.lines().filter(|line| line.starts_with("HTTP/1.")).count();
            ensure!(statuses <= 1, "{statuses} answers to one request {request:?}: {answer}");
            ensure!(!answer.contains("\"title\":\"of mallory\""), "{request:?}: {answer}");
        }
        Ok(())
    },
}];

const BODIES: &[Attack] = &[Attack {
    name: "bodies that are too much, or nothing",
    attempt: |scene| {
        let own = format!("/_/db/todos/{}", scene.own_id());
        let deep = |count: usize| format!("{{\"title\":{}{}}}", "[".repeat(count), "]".repeat(count));
        let wide: String = (0..20_000).map(|n| format!("\"c{n}\":1,")).collect();
        let bodies = [
            ("not JSON", "title=x".to_owned(), 400),
            ("blank", " ".to_owned(), 400),
            ("no object", "[1]".to_owned(), 400),
            ("text", "\"x\"".to_owned(), 400),
            ("null", "null".to_owned(), 400),
            ("two", "{\"title\":\"x\"}{\"title\":\"y\"}".to_owned(), 400),
            ("a comment", "{\"title\":\"x\"/**/}".to_owned(), 400),
            ("a trailing comma", "{\"title\":\"x\",}".to_owned(), 400),
            ("NaN", "{\"title\":\"x\",\"n\":NaN}".to_owned(), 400),
            ("a large number", "{\"title\":\"x\",\"n\":1e999}".to_owned(), 400),
            ("a larger number", "{\"title\":\"x\",\"n\":9223372036854775808}".to_owned(), 400),
            ("half a character", "{\"title\":\"\\ud800\"}".to_owned(), 400),
            ("another type", "{\"title\":1}".to_owned(), 400),
            ("a number for a bool", "{\"title\":\"x\",\"done\":1}".to_owned(), 400),
            ("a text for a number", "{\"title\":\"x\",\"n\":\"1\"}".to_owned(), 400),
            ("an object", "{\"title\":{\"$gt\":\"\"}}".to_owned(), 400),
            ("no title", "{\"title\":null}".to_owned(), 400),
            ("a prototype", "{\"title\":\"x\",\"__proto__\":{\"owner\":\"y\"}}".to_owned(), 400),
            ("deep", deep(1_000), 400),
            ("deeper", deep(20_000), 400),
            ("deepest", deep(200_000), 413),
            ("wide", format!("{{{wide}\"title\":\"x\"}}"), 400),
            ("long", format!("{{\"title\":\"{}\"}}", "x".repeat(3 << 20)), 413),
        ];
        for (name, body, status) in &bodies {
            let code = if *status == 413 { "too_large" } else { "invalid_input" };
            for (method, path) in [("POST", "/_/db/todos"), ("PATCH", own.as_str())] {
                let request = scene.mallory.request(method, path).header("content-type", "application/json");
                let reply = Reply::of(request.body(body.as_str()))?;
                scene.refused(&reply, *status, code).with_context(|| format!("{method} {name}"))?;
                ensure!(reply.body.to_string().len() < 4_000, "{method} {name}: a long refusal");
            }
        }
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"]
        {
            let request = scene.mallory.request("POST", "/_/db/todos").header("content-type", kind);
            let reply = Reply::of(request.body("title=x"))?;
            scene.refused(&reply, 400, "invalid_input").with_context(|| kind)?;
        }
        let left = scene.mallory.list("todos", &[])?;
        ensure!(left.body["rows"] == Value::Array(vec![scene.own.clone()]), "not as it was: {left:?}");
        Ok(())
    },
}];

#[test]
fn pages_of_other_origins_are_shut_out() {
    LIST.withstands(ORIGINS).unwrap();
}

#[test]
fn headers_change_neither_who_asks_nor_what() {
    LIST.withstands(HEADERS).unwrap();
}

#[test]
fn a_path_means_what_it_says() {
    LIST.withstands(PATHS).unwrap();
}

#[test]
fn a_request_is_one_request_of_one_app() {
    LIST.withstands(WIRE).unwrap();
}

#[test]
fn bodies_that_are_no_rows_are_refused() {
    LIST.withstands(BODIES).unwrap();
}
