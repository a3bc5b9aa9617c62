//! Who sees what a sandbox shows: whoever was given a link, everybody where it is public, and nobody else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use conformance_tests::{Place, Preview};
use serde_json::{Value, json};
use testkit::http::Response;
use testkit::{Client, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a browser sends of which its user goes somewhere.
const GOES: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

pub const SERVER: &str = include_str!("sandbox_preview_server.py");

pub fn run(client: &Client, command: &str) -> String {
    let ran = client.output("shell_run", &json!({ "command": command })).unwrap();
    assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
    ran["stdout"].as_str().unwrap().to_owned()
}

/// How many of the requests that the server inside got have that text in them.
pub fn seen(client: &Client, text: &str) -> u32 {
    run(client, &format!("cat seen 2>/dev/null | grep -cF -e '{text}' || true")).trim().parse().unwrap()
}

/// Starts the server inside, and its preview.
pub fn served(client: &Client, server: &Steading, port: u16) -> Preview {
    client.output("file_write", &json!({ "path": "server.py", "text": SERVER })).unwrap();
    run(client, &format!("(python3 server.py {port} > server.log 2>&1 &)"));
    let shown = client.output("preview_open", &json!({ "port": port })).unwrap();
    assert_eq!(shown["public"], false);
    Preview::of(&shown, server).unwrap()
}

/// Another credential of this environment.
fn key(place: &Place) -> (Client, String) {
    let wanted = json!({ "name": "other", "env": place.slug, "scopes": ["sandbox:use"] });
    let operator = place.steading.client().without_env();
    let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
    let client = Client::new(&place.steading.ready().url).with_key(made["key"].as_str().unwrap());
    (client, made["id"].as_str().unwrap().to_owned())
}

fn show(client: &Client, body: &Value) -> Value {
    let path = "/v1/sandboxes/default/previews";
    let answer = client.request("POST", path).json(body).send().unwrap();
    assert_eq!(answer.status, 200, "{body}: {:?}", answer.text());
    answer.json().unwrap()
}

fn state(client: &Client) -> String {
    let shown = client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

/// The cookies that an answer sets, as a browser sends them back.
fn cookies(answer: &Response) -> Vec<String> {
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    set.map(|(_, value)| value.split(';').next().unwrap().to_owned()).collect()
}

/// Opens a link as a browser does, and returns its cookie.
fn opened(preview: &Preview) -> String {
    let path = &preview.link[preview.origin.len()..];
    let moved = preview.ask_as_stranger("GET", path).header(GOES.0, GOES.1).send().unwrap();
    assert_eq!((moved.status, moved.header("location")), (303, Some("/")), "{moved:?}");
    cookies(&moved).join("; ")
}

#[test]
fn a_private_preview_tells_strangers_how_to_see_it_and_does_not_wake_for_them() {
    let quick = Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "1");
    let server = require(quick.start());
    let client = server.client().in_env("default");
    let preview = served(&client, &server, 8000);
    assert_eq!(preview.ask("GET", "/page").send().unwrap().status, 200, "the server is there");
    let parked = || eventually(PATIENCE, || (state(&client) == "parked").then_some(())).is_some();
    assert!(parked());
    let page = preview.ask_as_stranger("GET", "/page").header(GOES.0, GOES.1).send().unwrap();
    let text = page.text().unwrap();
    assert_eq!(page.status, 401);
    assert!(text.contains("<h1>Private</h1>") && text.contains("preview_open"), "{text}");
    assert_eq!((page.header("cache-control"), page.header("set-cookie")), (Some("no-store"), None));
    for (method, headers) in [
        ("GET", &[][..]),
        ("HEAD", &[GOES]),
        ("POST", &[]),
        ("OPTIONS", &[("origin", "https://a.test"), ("access-control-request-method", "GET")]),
        ("GET", &[("connection", "upgrade"), ("upgrade", "websocket")]),
        ("GET", &[("steading-preview", "x"), ("cookie", "__Host-steading-preview=x")]),
        ("GET", &[("authorization", "Bearer x")]),
    ] {
        let asked = preview.ask_as_stranger(method, "/page?steading-preview=AAAA");
        let asked = headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
        let told = asked.send().unwrap();
        assert_eq!(
            (told.status, told.header("www-authenticate")),
            (401, Some("Steading-Preview")),
            "{method} {headers:?}"
        );
        assert!(told.header("access-control-allow-origin").is_none(), "{told:?}");
        assert!(told.text().unwrap().is_empty() || told.text().unwrap().contains("is private"), "{told:?}");
    }
    assert_eq!(state(&client), "parked", "nobody has woken it");
    // Who may see it wakes it. Its programs have ended with it, and begin again with whoever starts them.
    assert_eq!(preview.ask("GET", "/page").send().unwrap().status, 502);
    assert_ne!(state(&client), "parked");
    assert_eq!(served(&client, &server, 8000).ask("GET", "/page").send().unwrap().status, 200);
    // Nothing of it is in a log.
    let pass = preview.pass.unwrap();
    assert!(!server.log().contains(&pass), "{}", server.log());
    let told = client.output("logs_query", &json!({ "since": "1h" })).unwrap().to_string();
    assert!(!told.contains(&pass), "{told}");
}

#[test]
fn a_link_opens_a_preview_for_its_browser_and_leaves_no_trace_inside() {
    let place = Place::new("preview-link").unwrap();
    let preview = served(&place.client, &place.steading, 8000);
    let pass = preview.pass.clone().unwrap();
    // The routes give such a link too.
    let ports = place.client.request("GET", "/v1/sandboxes/default/ports").send().unwrap().json().unwrap();
    for shown in [&ports["ports"][0], &show(&place.client, &json!({ "port": 8000 }))] {
        assert_eq!((&shown["port"], &shown["public"]), (&json!(8000), &json!(false)));
        let same = Preview::of(shown, &place.steading).unwrap();
        assert_eq!((&same.origin, same.ask("GET", "/").send().unwrap().status), (&preview.origin, 200));
    }
    // A browser goes on without the pass, at this host and no other.
    for (path, to) in [
        (format!("/a?b=1&steading-preview={pass}&c"), "/a?b=1&c"),
        (format!("//evil.test/?steading-preview={pass}"), "/.//evil.test/"),
    ] {
        let moved = preview.ask_as_stranger("GET", &path).header(GOES.0, GOES.1).send().unwrap();
        assert_eq!((moved.status, moved.header("location")), (303, Some(to)), "{moved:?}");
        assert_eq!(moved.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(cookies(&moved).len(), 2);
    }
    let cookie = opened(&preview);
    let (first, second) = cookie.split_once("; ").unwrap();
    for cookie in [first, second, &cookie, &format!("a=1; {cookie}; b=2")] {
        let shown = preview.ask_as_stranger("GET", "/x").header("cookie", cookie).send().unwrap();
        assert_eq!(shown.status, 200, "{cookie}");
        // What is inside sets its own cookies alone.
        assert_eq!(cookies(&shown), ["app=1"]);
        assert_eq!(shown.header("cross-origin-resource-policy"), Some("same-origin"));
    }
    // A program is answered where it asks, by the link or with the header, whatever it does.
    for asked in [
        preview.ask("POST", "/post?b=1").body("text"),
        preview.ask_as_stranger("GET", &format!("/query?steading-preview={pass}&b=1")),
        preview.ask_as_stranger("POST", &format!("/query?b=1&steading%2dpreview={pass}")),
        preview.ask_as_stranger("OPTIONS", &format!("/query?steading-preview={pass}")),
        preview
            .ask("GET", "/refers")
            .header("referer", &format!("{}/a?steading-preview={pass}", preview.origin)),
        preview.ask_as_stranger("HEAD", "/cookie").header("cookie", &cookie),
    ] {
        assert_eq!(asked.clone().send().unwrap().status, 200, "{asked:?}");
    }
    let seen = |text: &str| seen(&place.client, text);
    assert_eq!(["/query?b=1\"", "a=1; b=2", "/refers", "/a\""].map(seen), [2, 1, 1, 1]);
    let values = cookie.split("; ").map(|pair| pair.split_once('=').unwrap().1);
    for trace in values.chain([pass.as_str(), "steading-preview", "steading%2dpreview"]) {
        assert_eq!(seen(trace), 0, "{trace}");
    }
}

#[test]
fn what_is_no_pass_to_it_opens_nothing() {
    let place = Place::new("preview-other").unwrap();
    let preview = served(&place.client, &place.steading, 8000);
    let pass = preview.pass.clone().unwrap();
    let cookie = opened(&preview);
    let (other, other_id) = key(&place);
    let others = served(&other, &place.steading, 8000);
    let other_port = Preview::of(&show(&place.client, &json!({ "port": 8001 })), &place.steading).unwrap();
    let other_cookie = opened(&others);
    let changed = |text: &str| {
        let at = text.len() / 2;
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &text[..at], &text[at + 1..])
    };
    let value = |cookie: &str| cookie.split_once("; ").unwrap().0.split_once('=').unwrap().1.to_owned();
    let wrong = [
        others.pass.clone().unwrap(),
        other_port.pass.unwrap(),
        changed(&pass),
        pass[1..].to_owned(),
        value(&cookie),
        preview.host.clone(),
        place.steading.ready().key.clone(),
    ];
    for wrong in &wrong {
        let asked = preview.ask_as_stranger("GET", "/").header("steading-preview", wrong).send().unwrap();
        assert_eq!(asked.status, 401, "{wrong}");
        let by_link = preview.ask_as_stranger("GET", &format!("/?steading-preview={wrong}"));
        let by_link = by_link.header(GOES.0, GOES.1).send().unwrap();
        assert_eq!((by_link.status, by_link.header("set-cookie")), (401, None), "{wrong}");
    }
    for wrong in [value(&other_cookie), changed(&value(&cookie)), pass.clone()] {
        let wrong = format!("__Host-steading-preview={wrong}; steading-preview={wrong}");
        let asked = preview.ask_as_stranger("GET", "/").header("cookie", &wrong).send().unwrap();
        assert_eq!(asked.status, 401, "{wrong}");
    }
    assert_eq!(seen(&place.client, "path"), 0, "nobody was let in");
    // What a credential has shown ends with it, for whoever was let in too.
    let mut stream = events(&others, &format!("cookie: {other_cookie}"));
    let revoked = place.steading.client().without_env().request("DELETE", &format!("/v1/keys/{other_id}"));
    assert!(revoked.send().unwrap().status < 300);
    assert_eq!(others.ask("GET", "/").send().unwrap().status, 404);
    let kept = others.ask_as_stranger("GET", "/").header("cookie", &other_cookie).send().unwrap();
    assert_eq!(kept.status, 404);
    assert!(ends(&mut stream), "what is open ends");
}

/// A stream that goes on for as long as whoever reads it may, which has begun.
fn events(preview: &Preview, header: &str) -> TcpStream {
    let port = preview.host.rsplit(':').next().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nhost: {}\r\n{header}\r\n\r\n", preview.host).unwrap();
    let mut read = String::new();
    while !read.contains("data: x") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{read}");
        read.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    stream
}

/// Whether a stream comes to its end.
fn ends(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    eventually(PATIENCE, || matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)).then_some(())).is_some()
}

#[test]
fn a_port_is_public_until_it_is_not() {
    let place = Place::new("preview-public").unwrap();
    let preview = served(&place.client, &place.steading, 8000);
    let asked = |headers: &[(&str, &str)]| {
        let asked = preview.ask_as_stranger("GET", "/x");
        headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value)).send().unwrap().status
    };
    let others = ("origin", "https://other.test");
    let cookie = opened(&preview);
    assert_eq!((asked(&[]), asked(&[others, ("cookie", &cookie)])), (401, 403));
    let public = place.client.output("preview_open", &json!({ "port": 8000, "public": true })).unwrap();
    assert_eq!(public, json!({ "url": preview.origin, "public": true }));
    // What does not say it leaves it as it is.
    assert_eq!(place.client.output("preview_open", &json!({ "port": 8000 })).unwrap(), public);
    let ports = place.client.request("GET", "/v1/sandboxes/default/ports").send().unwrap().json().unwrap();
    assert_eq!(ports["ports"], json!([{ "port": 8000, "url": preview.origin, "public": true }]));
    assert_eq!((asked(&[]), asked(&[others, ("cookie", &cookie)])), (200, 200));
    assert_eq!(seen(&place.client, "steading-preview"), 0);
    // Of this port alone, and not of what is made of its files.
    assert_eq!(show(&place.client, &json!({ "port": 8001 }))["public"], false);
    let forked = place.client.request("POST", "/v1/sandboxes/default/fork").json(&json!({ "name": "copy" }));
    assert_eq!(forked.send().unwrap().status, 201);
    let of_copy = place.client.request("POST", "/v1/sandboxes/copy/previews").json(&json!({ "port": 8000 }));
    assert_eq!(of_copy.send().unwrap().json().unwrap()["public"], false);
    // Whoever has only that it was public is sent away when it is not; whoever has a link stays.
    let (mut stranger, mut known) =
        (events(&preview, "x: y"), events(&preview, &format!("cookie: {cookie}")));
    assert_eq!(show(&place.client, &json!({ "port": 8000, "public": false }))["public"], false);
    assert_eq!(
        (asked(&[]), asked(&[others, ("cookie", &cookie)]), asked(&[("cookie", &cookie)])),
        (401, 403, 200)
    );
    assert!(ends(&mut stranger));
    known.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(known.read(&mut [0; 4096]).unwrap() > 0);
    // There are not many.
    for port in 1..=32 {
        assert_eq!(show(&place.client, &json!({ "port": port, "public": true }))["public"], true);
    }
    let more = place.client.request("POST", "/v1/sandboxes/default/previews");
    let more = more.json(&json!({ "port": 33, "public": true })).send().unwrap();
    assert_eq!((more.status, &more.json().unwrap()["code"]), (429, &json!("quota_exceeded")));
    assert_eq!(show(&place.client, &json!({ "port": 32, "public": true }))["public"], true, "it is already");
}

#[test]
fn other_origins_pages_do_not_ride_on_a_visitors_cookie() {
    let place = Place::new("preview-ride").unwrap();
    let preview = served(&place.client, &place.steading, 8000);
    let cookie = opened(&preview);
    let own = preview.origin.as_str();
    let asked = |method: &str, headers: &[(&str, &str)]| {
        let asked = preview.ask_as_stranger(method, "/x").header("cookie", &cookie);
        headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value))
    };
    let upgrades = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")];
    let refused = |method: &str, headers: &[(&str, &str)]| {
        let told = asked(method, headers).send().unwrap();
        assert_eq!(told.status, 403, "{method} {headers:?}");
        assert!(told.text().unwrap().contains("is private") && told.header("set-cookie").is_none());
    };
    let neighbour = own.replace("8000-", "8001-");
    for origin in ["https://evil.test", "null", &neighbour, &format!("{own}0"), &own.replace("http:", "")] {
        refused("GET", &[("origin", origin)]);
        refused("POST", &[("origin", origin)]);
        refused("GET", &[upgrades[0], upgrades[1], upgrades[2], ("origin", origin)]);
    }
    for site in ["cross-site", "same-site", "anything"] {
        refused(
            "GET",
            &[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
        );
        refused(
            "POST",
            &[("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")],
        );
        let goes = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert_eq!(asked("GET", &goes).send().unwrap().status, 200);
    }
    for headers in
        [&[][..], &[("origin", own)], &[("sec-fetch-site", "same-origin")], &[("sec-fetch-site", "none")]]
    {
        assert_eq!(asked("GET", headers).send().unwrap().status, 200, "{headers:?}");
    }
    assert_eq!(["evil.test", "websocket"].map(|text| seen(&place.client, text)), [0, 0]);
    // The preview's own page, a program with the pass.
    for (head, wanted) in [
        (format!("cookie: {cookie}\r\norigin: {own}"), "101"),
        (format!("steading-preview: {}", preview.pass.as_ref().unwrap()), "101"),
        (format!("cookie: {cookie}\r\norigin: http://evil.test"), "403"),
        ("x: y".to_owned(), "401"),
    ] {
        let mut stream = TcpStream::connect(place.steading.authority()).unwrap();
        write!(
            stream,
            "GET /socket HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{head}\r\n\r\n",
            preview.host
        )
        .unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(String::from_utf8_lossy(&status), format!("HTTP/1.1 {wanted}"), "{head}");
    }
}
