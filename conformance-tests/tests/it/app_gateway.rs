//! What routes hold requests to, seen from outside: from which pages, how often, with how large a body, for how long.

use conformance_tests::{App, Person, Reply};
use serde_json::json;
use testkit::{Client, Steading, require};

use crate::app_routes::{FRIEND, Ground, raw, small, status, told};

#[test]
fn pages_of_other_origins_use_a_route_as_it_says() {
    let to = json!({ "table": "todos" });
    let ground = Ground::with(
        "cors",
        &small(&json!({
            "/named": { "to": to, "methods": ["GET", "POST"], "cors": {
                "origins": [FRIEND], "methods": ["GET"], "headers": ["X-Own"], "credentials": true, "max_age": 7,
            } },
            "/all": { "to": to, "cors": { "origins": ["*"] } },
            "/page": { "cors": { "origins": [FRIEND] }, "rewrite": "/" },
            "/none": { "to": to },
            "/closed": { "to": to, "auth": "signed_in", "cors": { "origins": [FRIEND] } },
        })),
    );
    let ask = |method: &str, path: &str, origin: Option<&str>| {
        let request = ground.app.request(method, path);
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        let first = request.header("access-control-request-method", "GET");
        Reply::of(if method == "OPTIONS" {
            first
        } else {
            ground.app.request(method, path).header("origin", origin.unwrap_or_default())
        })
        .unwrap()
    };
    let cors = |reply: &Reply| {
        let mut said: Vec<String> = reply
            .headers
            .iter()
            .filter(|(name, _)| {
                name.starts_with("access-control-") && name != "access-control-expose-headers"
            })
            .map(|(name, value)| format!("{}: {value}", &name["access-control-".len()..]))
            .collect();
        said.sort();
        said
    };
    let varies = |reply: &Reply| {
        reply.headers.iter().any(|(name, value)| name == "vary" && value.split(", ").any(|it| it == "origin"))
    };

    let reply = ask("GET", "/named", Some(FRIEND));
    assert_eq!(
        (reply.status, cors(&reply)),
        (200, vec!["allow-credentials: true".to_owned(), format!("allow-origin: {FRIEND}")])
    );
    assert!(varies(&reply));
    let first = ask("OPTIONS", "/named", Some(FRIEND));
    assert_eq!(first.status, 204);
    assert_eq!(
        cors(&first),
        [
            "allow-credentials: true".to_owned(),
            "allow-headers: x-own".to_owned(),
            "allow-methods: GET, HEAD".replace(", HEAD", ""),
            format!("allow-origin: {FRIEND}"),
            "max-age: 7".to_owned()
        ]
    );
    assert!(varies(&first));

    let reply = ask("GET", "/all", Some("https://anybody.example"));
    assert_eq!(
        (reply.status, cors(&reply), varies(&reply)),
        (200, vec!["allow-origin: *".to_owned()], false)
    );
    let null = ask("GET", "/all", Some("null"));
    assert_eq!((null.status, cors(&null)), (200, vec!["allow-origin: *".to_owned()]));
    let reply = ask("GET", "/page", Some(FRIEND));
    assert_eq!((told(&reply), cors(&reply)), ((200, "home"), vec![format!("allow-origin: {FRIEND}")]));

    // Who may not read the answer may read the refusal neither; who may, may read why.
    let reply = ask("GET", "/closed", Some(FRIEND));
    assert_eq!((reply.status, cors(&reply)), (401, vec![format!("allow-origin: {FRIEND}")]));
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://friend.example",
        "https://friend.example.evil.example",
        "https://friend.example:444",
        "https://friend.example/",
        "HTTPS://FRIEND.EXAMPLE",
        "*",
    ] {
        for path in ["/named", "/page", "/closed", "/none"] {
            for method in ["GET", "OPTIONS"] {
                let reply = ask(method, path, Some(origin));
                assert_eq!(
                    (reply.status, cors(&reply).len()),
                    (403, 0),
                    "{method} {path} {origin:?}: {reply:?}"
                );
            }
        }
    }
    let twice =
        ground.app.request("GET", "/named").header("origin", FRIEND).header("origin", "https://evil.example");
    assert_eq!(Reply::of(twice).unwrap().status, 403);
    // The app's own pages, and programs, need none of it; caches are told that others get something else.
    for request in [
        ground.app.request("GET", "/named"),
        ground.app.request("GET", "/named").header("origin", &ground.place.url),
    ] {
        let reply = Reply::of(request).unwrap();
        assert_eq!((reply.status, cors(&reply).len(), varies(&reply)), (200, 0, true));
    }
}

#[test]
fn a_route_is_asked_as_often_as_it_says() {
    let limit = |requests: u32, by: &str| json!({ "requests": requests, "per": "hour", "by": by });
    let routes = json!({
        "/ip": { "limit": { "requests": 2, "per": "minute" }, "rewrite": "/" },
        "/ip/closed": { "limit": limit(2, "ip"), "auth": "signed_in" },
        "/user": { "limit": limit(2, "user"), "rewrite": "/" },
        "/all": { "limit": limit(2, "route"), "auth": "signed_in", "rewrite": "/" },
    });
    let ground = Ground::with("limits", &small(&routes));
    let limits = |reply: &Reply| {
        let of = |name| reply.header(name).unwrap_or_default().to_owned();
        (reply.status, of("ratelimit-policy"), of("ratelimit"))
    };
    let policy = "\"ip\";q=2;w=60".to_owned();
    assert_eq!(limits(&ground.get("/ip")), (200, policy.clone(), "\"ip\";r=1;t=30".to_owned()));
    let second = ground.get("/ip");
    assert_eq!((second.status, second.header("ratelimit-policy")), (200, Some(policy.as_str())));
    // What a client says about its address changes nothing, and neither does another spelling.
    for (path, claim) in [("/ip", "198.51.100.1"), ("/ip/", "198.51.100.2"), ("/%69p", "::1")] {
        let reply = Reply::of(ground.app.request("GET", path).header("x-forwarded-for", claim)).unwrap();
        reply.refuses(429, "rate_limited").unwrap();
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait) && reply.body["retry_after"] == wait, "{reply:?}");
        assert_eq!(reply.header("ratelimit-policy"), Some(policy.as_str()));
    }
    // Another preview, another environment and another route are counted for themselves.
    assert_eq!(ground.get("/user").status, 200);
    let other = Ground::with("limits", &small(&routes));
    assert_eq!((other.get("/ip").status, ground.get("/ip").status), (200, 429));
    let port = ground.place.url.rsplit(':').next().unwrap().to_owned();
    let preview = App::new(&format!("http://1--{}.localhost:{port}", ground.place.slug));
    assert_eq!(preview.visitor().ask("GET", "/ip").unwrap().status, 429, "a preview is no way around");
    // Guesses count before anybody looks at them.
    let guesses =
        [1, 2, 3].map(|_| ground.app.visitor().with_token("x").ask("GET", "/ip/closed").unwrap().status);
    assert_eq!(guesses, [401, 401, 429]);
    // A user is counted, wherever they come from; others go on.
    let (alice, bob) = (ground.person(None), ground.person(None));
    let asked = |who: &Person, path: &str| who.ask("GET", path).unwrap().status;
    assert_eq!([1, 2, 3].map(|_| asked(&alice, "/user")), [200, 200, 429]);
    assert_eq!(asked(&bob, "/user"), 200);
    // Who may not pass uses up nothing of what all have together.
    assert_eq!([1, 2, 3].map(|_| ground.get("/all").status), [401, 401, 401]);
    assert_eq!([asked(&alice, "/all"), asked(&bob, "/all"), asked(&alice, "/all")], [200, 200, 429]);
}

#[test]
fn a_proxy_that_is_trusted_says_who_is_counted() {
    let steading = require(Steading::launch().env("STEADING_TRUSTED_PROXIES", "127.0.0.1").start());
    let routes = json!({ "/ip": { "limit": { "requests": 1, "per": "hour" }, "rewrite": "/" } });
    let client: Client = steading.client();
    let applied = client.output("app_apply", &json!({ "manifest": small(&routes) })).unwrap();
    let app = App::new(applied["url"].as_str().unwrap());
    let from = |address: &str| {
        Reply::of(app.request("GET", "/ip").header("x-forwarded-for", address)).unwrap().status
    };
    assert_eq!(["198.51.100.1", "198.51.100.1", "198.51.100.2"].map(from), [200, 429, 200]);
    // What stands before the last one was made up by the client; a whole /64 is one.
    assert_eq!(
        ["203.0.113.1, 198.51.100.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::2"].map(from),
        [429, 200, 429, 200]
    );
}

#[test]
fn a_body_that_is_too_large_is_refused_before_and_while_it_comes() {
    let ground = Ground::new("bodies");
    let alice = ground.person(None);
    let post =
        |title: usize| alice.send("POST", "/api/todos", &json!({ "title": "x".repeat(title) })).unwrap();
    assert_eq!(post(100).status, 201);
    let refused = post(300);
    refused.refuses(413, "too_large").unwrap();
    assert_eq!(refused.body["message"], "the body is larger than 200 bytes");
    let token = alice.token();
    let head = format!(
        "POST /api/todos HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    );
    // Without a length, as soon as more has come.
    let body = format!("{{\"title\":\"{}\"}}", "x".repeat(400));
    let chunks: String = body
        .as_bytes()
        .chunks(50)
        .map(|c| format!("{:x}\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)))
        .collect();
    let answer = raw(&ground.app, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(answer.contains("the body is larger than 200 bytes"), "{answer}");
    // Nobody has to send what is refused anyway.
    let answer = raw(&ground.app, &format!("{head}Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(status(&answer), "413", "{answer}");
    // Files are streams: they are cut, and nothing of them is kept.
    let put = |bytes: usize| {
        let chunks = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
        raw(
            &ground.app,
            &format!(
                "PUT /put/new.txt HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ),
        )
    };
    assert_eq!(status(&put(2_000)), "413");
    assert_eq!(ground.get("/img/new.txt").status, 404);
    assert_eq!(status(&put(900)), "201");
    assert_eq!(ground.get("/img/new.txt").body.as_str().map(str::len), Some(900));
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_given_up() {
    let routes = json!({ "/slow": { "to": { "table": "todos" }, "methods": ["POST"], "timeout": 1 } });
    let ground = Ground::with("timeout", &small(&routes));
    let answer = raw(
        &ground.app,
        "POST /slow HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    assert_eq!(status(&answer), "504", "{answer}");
    assert!(answer.contains("the answer did not begin within 1 s"), "{answer}");
    ground.get("/_/db/todos").lists(&[]).unwrap();
}
