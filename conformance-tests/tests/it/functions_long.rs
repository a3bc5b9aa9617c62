//! What lasts between a function and whoever asks it: large bodies, news, sockets; and where routes lead.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use conformance_tests::{App, Reply, Socket, browser};
use serde_json::json;
use testkit::eventually;

use crate::functions::Ground;

const STREAMS: &str = r#"
export default {
  async fetch(request, env, ctx) {
    const path = new URL(request.url).pathname;
    if (path === "/news") {
      let at = 0;
      const body = new ReadableStream({
        async pull(to) {
          if (at > 0) await new Promise((done) => setTimeout(done, 1000));
          to.enqueue(new TextEncoder().encode(`data: ${at++}\n\n`));
        },
        cancel() { console.log("nobody reads any more"); },
      });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    }
    if (path === "/socket") {
      const { socket, response } = ctx.upgrade();
      socket.onmessage = async (event) => {
        const { ask } = JSON.parse(event.data);
        const rows = await ctx.db("notes").list().then((page) => page.rows.length, (error) => error.status);
        socket.send(JSON.stringify({ answer: ask, rows }));
      };
      socket.onclose = () => console.log("the socket is closed");
      return response;
    }
    if (path === "/early") return new Response("enough", { status: 202 });
    let size = 0;
    if (request.body) for await (const part of request.body) size += part.length;
    return new Response(`${request.method} ${path} ${size}`);
  },
};
"#;

/// Asks and reads the head of the answer.
pub fn begun(app: &App, path: &str, token: &str) -> (u16, BufReader<TcpStream>) {
    let authority = app.url().split_once("://").unwrap().1;
    let port = authority.rsplit(':').next().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n\r\n")
        .unwrap();
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    while line.trim_end() != "" {
        line.clear();
        from.read_line(&mut line).unwrap();
    }
    (status, from)
}

fn heard(from: &mut BufReader<TcpStream>, wanted: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(from.read_line(&mut line).unwrap() > 0, "it ended before {wanted}");
        if line.trim_end() == wanted {
            return;
        }
    }
}

#[test]
fn news_pass_at_once_and_end_with_the_session() {
    let ground = Ground::new("fn-news");
    ground.deploy("streams", STREAMS, &json!({}));
    let person = ground.app.stranger().unwrap();
    let (status, mut from) = begun(&ground.app, "/_/fn/streams/news", person.token());
    assert_eq!(status, 200);
    heard(&mut from, "data: 0");
    let first = Instant::now();
    heard(&mut from, "data: 1");
    assert!(first.elapsed() > Duration::from_millis(500), "they were gathered");
    // Who signs out has no more of it.
    assert_eq!(person.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    let ended = Instant::now();
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|read| read > 0) {
        line.clear();
        assert!(ended.elapsed() < Duration::from_secs(25), "it goes on after the session");
    }
    // The function hears that nobody reads.
    let said = eventually(Duration::from_secs(10), || {
        let logged = ground.place.output("logs_query", &json!({ "text": "nobody reads" })).unwrap();
        logged["entries"].as_array().filter(|entries| !entries.is_empty()).map(drop)
    });
    assert_eq!(said, Some(()));
}

#[test]
fn sockets_pass_with_who_has_opened_them() {
    let ground = Ground::new("fn-socket");
    ground.deploy("streams", STREAMS, &json!({}));
    let person = ground.app.stranger().unwrap();
    person.create("notes", &json!({ "text": "mine" })).unwrap();
    ground.app.stranger().unwrap().create("notes", &json!({ "text": "another's" })).unwrap();
    let token = format!("Bearer {}", person.token());
    let open =
        |headers: &[(&str, &str)]| Socket::open_at(&ground.app, "/_/fn/streams/socket", headers).unwrap();
    assert_eq!(open(&[]).err().unwrap().status, 401);
    let page = [("authorization", &*token), ("origin", "https://other.example")];
    assert_eq!(open(&page).err().unwrap().status, 403);
    let mut socket = open(&[("authorization", &token)]).ok().unwrap();
    for ask in 0..3 {
        socket.say(&json!({ "ask": ask })).unwrap();
        assert_eq!(socket.hear().unwrap(), json!({ "answer": ask, "rows": 1 }));
    }
    // It ends with its session, and has none of its rights until then.
    assert_eq!(person.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    let ended = eventually(Duration::from_secs(5), || {
        let heard = socket.say(&json!({ "ask": "again" })).and_then(|()| socket.hear());
        heard.inspect(|heard| assert_eq!(*heard, json!({ "answer": "again", "rows": 401 }))).err()
    });
    assert!(ended.is_some(), "it goes on after the session");
}

#[test]
fn a_page_opens_a_socket_as_whoever_is_signed_in() {
    let ground = Ground::new("fn-socket-page");
    let code = STREAMS.replace("rows }))", "rows, user: ctx.user?.id, url: request.url }))");
    ground.deploy("streams", &code, &json!({}));
    let site = json!({ "files": { "index.html": "<title>sockets</title>" } });
    let routes =
        json!({ "/live/*": { "to": { "function": "streams" }, "auth": "signed_in", "rewrite": "/:splat" } });
    ground.place.output("app_apply", &json!({ "manifest": { "site": site, "routes": routes } })).unwrap();
    let heard = browser(|browser| {
        browser.goto(&ground.place.url)?;
        browser.evaluate(
            "return (async () => {
                const app = (await import('/_/sdk.js')).createClient();
                await app.auth.anonymous();
                const socket = await app.fn('streams').socket('/socket?room=1');
                const heard = new Promise((done, fail) => {
                    socket.onmessage = ({ data }) => done(JSON.parse(data));
                    socket.onclose = () => fail(new Error('closed'));
                });
                socket.onopen = () => socket.send(JSON.stringify({ ask: 7 }));
                const { user, url, ...rest } = await heard;
                return { ...rest, isMe: user === app.auth.user.id, at: url.slice(location.origin.length) };
            })()",
        )
    });
    let at = "/socket?room=1";
    assert_eq!(heard.unwrap(), json!({ "answer": 7, "rows": 0, "isMe": true, "at": at }));

    let person = ground.app.stranger().unwrap();
    let ticket = || {
        let made = person.send("POST", "/_/realtime/ticket", &json!({})).unwrap();
        made.body["ticket"].as_str().unwrap().to_owned()
    };
    let open = |path: &str, ticket: &str, headers: &[(&str, &str)]| {
        Socket::open_at(&ground.app, &format!("{path}?_ticket={ticket}"), headers).unwrap()
    };
    // It opens one socket, also where a route leads.
    let shown = ticket();
    let mut socket = open("/live/socket", &shown, &[]).ok().unwrap();
    socket.say(&json!({ "ask": 1 })).unwrap();
    assert_eq!(socket.hear().unwrap()["user"], person.id());
    let refused = |path: &str, ticket: &str, headers: &[(&str, &str)]| {
        open(path, ticket, headers).err().unwrap().status
    };
    let own = "/_/fn/streams/socket";
    assert_eq!(refused("/live/socket", &shown, &[]), 401, "twice");
    assert_eq!(refused(own, "stead_tk_nothing", &[]), 401);
    assert_eq!(refused(own, &ticket(), &[("origin", "https://other.example")]), 401, "of another page");
    let other = ticket();
    assert_eq!(refused(own, &format!("{other}&_ticket={other}"), &[]), 400);
    let token = format!("Bearer {}", person.token());
    assert_eq!(refused(own, &other, &[("authorization", &token)]), 400, "two who say who it is");
    // What is called so and is none is the function's own.
    let mut socket = open(own, "nothing", &[("authorization", &token)]).ok().unwrap();
    socket.say(&json!({ "ask": 2 })).unwrap();
    assert_eq!(socket.hear().unwrap()["url"], format!("{}/socket?_ticket=nothing", ground.place.url));
    // It is for sockets alone, and spent wherever it is shown.
    let shown = ticket();
    let read = ground.get(&format!("/_/fn/streams/x?%5Fticket={shown}"));
    assert_eq!((read.status, &read.body["code"]), (400, &json!("invalid_input")));
    assert_eq!(refused(own, &shown, &[]), 401);
    let elsewhere = Ground::new("fn-socket-elsewhere");
    elsewhere.deploy("streams", STREAMS, &json!({}));
    let stolen = Socket::open_at(&elsewhere.app, &format!("{own}?_ticket={}", ticket()), &[]).unwrap();
    assert_eq!(stolen.err().unwrap().status, 401, "of another app");
}

#[test]
fn bodies_pass_as_they_come_and_no_larger_than_they_may_be() {
    let ground = Ground::new("fn-bodies");
    ground.deploy("streams", STREAMS, &json!({ "access": "public" }));
    let put = |bytes: usize| {
        Reply::of(ground.app.request("PUT", "/_/fn/streams/x").body(vec![b'x'; bytes])).unwrap()
    };
    assert_eq!(put(10 << 20).body, format!("PUT /x {}", 10 << 20));
    // Who writes all of it before they read is answered, also where nobody wants it.
    let early = ground.app.request("PUT", "/_/fn/streams/early").body(vec![b'x'; 8 << 20]);
    let early = Reply::of(early).unwrap();
    assert_eq!((early.status, early.body), (202, json!("enough")));
    let refused = put((10 << 20) + 1);
    assert_eq!((refused.status, &refused.body["code"]), (413, &json!("too_large")));
    for method in ["GET", "DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(ground.app.visitor().ask(method, "/_/fn/streams").unwrap().body, format!("{method} / 0"));
    }
}

#[test]
fn who_sends_slowly_takes_nobodys_place_and_is_refused() {
    let ground = Ground::new("fn-slow");
    let few =
        json!({ "files": { "index.ts": STREAMS }, "access": "public", "concurrency": 4, "max_instances": 1 });
    ground.place.output("app_apply", &json!({ "manifest": { "functions": { "streams": few } } })).unwrap();
    let authority = ground.app.url().split_once("://").unwrap().1.to_owned();
    let port = authority.rsplit(':').next().unwrap();
    let began = Instant::now();
    let mut slow: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let head = "PUT /_/fn/streams/x HTTP/1.1\r\ncontent-length: 60000\r\n";
            write!(stream, "{head}host: {authority}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    // As slowly as can be, until all of them have been told.
    let mut told = vec![String::new(); slow.len()];
    let mut neighbour = 0;
    while told.iter().any(String::is_empty) {
        assert!(began.elapsed() < Duration::from_secs(60), "they may go on: {told:?}");
        for (stream, told) in slow.iter_mut().zip(&mut told).filter(|(_, told)| told.is_empty()) {
            let _ = stream.write_all(b"x");
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = BufReader::new(stream).read_line(told);
        }
        let asked = Instant::now();
        let reply = Reply::of(ground.app.request("PUT", "/_/fn/streams/y").body(b"abc".to_vec())).unwrap();
        assert_eq!((reply.status, reply.body), (200, json!("PUT /y 3")));
        assert!(asked.elapsed() < Duration::from_secs(5), "a neighbour waits for who is slow");
        neighbour += 1;
    }
    assert!(neighbour > 2 && began.elapsed() >= Duration::from_secs(9));
    assert!(told.iter().all(|line| line.starts_with("HTTP/1.1 408 ")), "{told:?}");
}

#[test]
fn a_route_holds_in_place_of_what_the_function_says() {
    let ground = Ground::new("fn-routes");
    ground.deploy("streams", STREAMS, &json!({ "access": "service" }));
    let routes = json!({
        "/api/*": { "to": { "function": "streams" }, "methods": ["GET", "POST"], "max_body": 100 },
        "/in/*": { "to": { "function": "streams" }, "auth": "signed_in", "rewrite": "/deep/:splat" },
    });
    ground.place.output("app_apply", &json!({ "manifest": { "routes": routes } })).unwrap();
    assert_eq!(ground.get("/_/fn/streams").status, 401);
    assert_eq!(ground.get("/api/a%20b").body, "GET /api/a%20b 0");
    assert_eq!(ground.app.visitor().ask("PUT", "/api/x").unwrap().status, 405);
    let send =
        |bytes: usize| Reply::of(ground.app.request("POST", "/api/x").body(vec![b'x'; bytes])).unwrap();
    assert_eq!((send(100).body, send(101).status), (json!("POST /api/x 100"), 413));
    assert_eq!(ground.get("/in/x").status, 401);
    let person = ground.app.stranger().unwrap();
    assert_eq!(person.ask("GET", "/in/x").unwrap().body, "GET /deep/x 0");
}
