//! Channels: who joins and sends is decided by the manifest; who is there is seen; and no other site gets in.

use conformance_tests::{App, Person, Socket};
use serde_json::{Value, json};

use crate::app_realtime::ground;

fn joined(person: &Person, channel: &str, state: Option<Value>) -> (Socket, Value) {
    let mut socket = person.socket().unwrap();
    let mut join = json!({ "type": "join", "channel": channel });
    if let Some(state) = state {
        join["state"] = state;
    }
    socket.say(&join).unwrap();
    let joined = socket.hear().unwrap();
    assert_eq!((&joined["type"], &joined["channel"]), (&json!("joined"), &json!(channel)), "{joined}");
    (socket, joined)
}

#[test]
fn members_of_a_channel_hear_and_see_each_other_until_they_leave() {
    let (_place, app) = ground("channel-members");
    let (ada, bob) = (app.stranger().unwrap(), app.stranger().unwrap());
    let (mut of_ada, first) = joined(&ada, "room:1", Some(json!({ "name": "Ada" })));
    assert_eq!(first["members"], json!([]));
    let (mut elsewhere, _) = joined(&ada, "room:2", None);
    let (mut of_bob, second) = joined(&bob, "room:1", None);
    let member = |joined: &Value, person: &Person, state: Value| json!({ "id": joined["id"], "user": person.id(), "state": state });
    assert_eq!(second["members"], json!([member(&first, &ada, json!({ "name": "Ada" }))]));

    let presence = |event: &str, member: Value| json!({ "type": "presence", "channel": "room:1", "event": event, "member": member });
    let show = |socket: &mut Socket, state: Value| {
        socket.say(&json!({ "type": "presence", "channel": "room:1", "state": state })).unwrap();
    };
    show(&mut of_bob, json!({ "typing": true }));
    assert_eq!(of_ada.hear().unwrap(), presence("join", member(&second, &bob, json!({ "typing": true }))));
    show(&mut of_bob, json!({ "typing": false }));
    assert_eq!(of_ada.hear().unwrap(), presence("update", member(&second, &bob, json!({ "typing": false }))));

    let message = json!({
        "type": "broadcast", "channel": "room:1", "event": "wave", "data": { "to": [1, "all"] }, "reference": "r1",
    });
    of_bob.say(&message).unwrap();
    assert_eq!(of_bob.hear().unwrap(), json!({ "type": "sent", "reference": "r1" }));
    let from = json!({ "id": second["id"], "user": bob.id() });
    let said = json!({
        "type": "broadcast", "channel": "room:1", "event": "wave", "data": { "to": [1, "all"] }, "from": from,
    });
    assert_eq!(of_ada.hear().unwrap(), said);

    drop(of_bob);
    assert_eq!(of_ada.hear().unwrap(), presence("leave", member(&second, &bob, json!({ "typing": false }))));
    of_ada.say(&json!({ "type": "leave", "channel": "room:1" })).unwrap();
    assert_eq!(of_ada.hear().unwrap(), json!({ "type": "left", "channel": "room:1", "reason": "asked" }));
    elsewhere.say(&json!({ "type": "ping" })).unwrap();
    assert_eq!(elsewhere.hear().unwrap(), json!({ "type": "pong" }), "another room hears nothing");
}

#[test]
fn a_server_says_something_to_a_channel_and_streams_hear_it() {
    let (place, app) = ground("channel-server");
    let mut events = app.visitor().events("channel=news", None).unwrap();
    assert_eq!(events.event().unwrap()["type"], "joined");
    let message = json!({ "channel": "news", "event": "headline", "data": "rain" });
    app.visitor().send("POST", "/_/realtime/broadcast", &message).unwrap().refuses(403, "forbidden").unwrap();
    app.stranger()
        .unwrap()
        .send("POST", "/_/realtime/broadcast", &message)
        .unwrap()
        .refuses(403, "forbidden")
        .unwrap();
    let admin = app.sign_up("root@example.com", "a garden in june").unwrap();
    place.output("auth_user_set", &json!({ "user": admin.id(), "role": "admin" })).unwrap();
    let told = admin.send("POST", "/_/realtime/broadcast", &message).unwrap();
    assert_eq!((told.status, told.body), (200, json!({ "told": 1 })));
    let from = json!({ "id": null, "user": admin.id() });
    let said =
        json!({ "type": "broadcast", "channel": "news", "event": "headline", "data": "rain", "from": from });
    assert_eq!(events.event().unwrap(), said);
}

#[test]
fn what_the_manifest_does_not_allow_is_refused_and_the_socket_stays() {
    let (place, app) = ground("channel-rules");
    let (ada, bob) = (app.stranger().unwrap(), app.stranger().unwrap());
    let (own, others) = (format!("own:{}", ada.id()), format!("own:{}", bob.id()));
    let (mut socket, _) = joined(&ada, &own, None);
    let wrong = |message: Value| -> String {
        socket.say(&message).unwrap();
        let heard = socket.hear().unwrap();
        let about = ["channel", "sub", "about"].into_iter().find_map(|about| heard[about].as_str());
        let field = heard["field"].as_str().unwrap_or_default();
        format!("{} {} {} {field}", heard["type"], heard["code"], about.unwrap_or_default())
    };
    let send = |channel: &str| json!({ "type": "broadcast", "channel": channel, "event": "e" });
    let mut wrong = wrong;
    for (message, expected) in [
        (json!({ "type": "join", "channel": others }), format!(r#""error" "forbidden" {others} /channel"#)),
        (send(&others), format!(r#""error" "forbidden" {others} /channel"#)),
        (send("news"), r#""error" "forbidden" news /channel"#.to_owned()),
        (
            json!({ "type": "join", "channel": "nothing" }),
            r#""error" "forbidden" nothing /channel"#.to_owned(),
        ),
        (json!({ "type": "join", "channel": "a b" }), r#""error" "invalid_input" a b /channel"#.to_owned()),
        (json!({ "type": "join", "channel": own }), format!(r#""error" "conflict" {own} "#)),
        (json!({ "type": "leave", "channel": "news" }), r#""error" "conflict" news "#.to_owned()),
        (
            json!({ "type": "presence", "channel": "news", "state": {} }),
            r#""error" "conflict" news "#.to_owned(),
        ),
        (
            json!({ "type": "presence", "channel": own, "state": { "a": "x".repeat(3_000) } }),
            format!(r#""error" "too_large" {own} /state"#),
        ),
        (
            json!({ "type": "broadcast", "channel": own, "event": "" }),
            format!(r#""error" "invalid_input" {own} /event"#),
        ),
        (
            json!({ "type": "subscribe", "table": "nothing" }),
            r#""error" "not_found" nothing /table"#.to_owned(),
        ),
        (
            json!({ "type": "unsubscribe", "sub": "nothing" }),
            r#""error" "not_found" nothing /sub"#.to_owned(),
        ),
        (json!({ "type": "hello", "token": bob.token() }), r#""error" "conflict" hello "#.to_owned()),
        (
            json!({ "type": "join", "channel": own, "as": "root" }),
            r#""error" "invalid_input" message "#.to_owned(),
        ),
        (json!({ "type": "nothing" }), r#""error" "invalid_input" message "#.to_owned()),
        (json!([]), r#""error" "invalid_input" message "#.to_owned()),
    ] {
        assert_eq!(wrong(message.clone()), expected, "{message}");
    }
    // Another release that shuts the channel puts out who is in it.
    let mut shut = crate::app_realtime::manifest();
    shut["realtime"]["channels"]["own:*"] = json!({});
    place.output("app_apply", &json!({ "manifest": shut })).unwrap();
    assert_eq!(socket.hear().unwrap(), json!({ "type": "left", "channel": own, "reason": "forbidden" }));
}

#[test]
fn who_says_too_much_is_told_and_what_is_too_long_ends_it() {
    let (_place, app) = ground("channel-flood");
    let mut socket = app.stranger().unwrap().socket().unwrap();
    // In one write, so that a server on a busy machine has them all before it has had the time to forgive them.
    const PINGS: usize = 800;
    socket.say_all(&vec![json!({ "type": "ping" }); PINGS]).unwrap();
    let heard: Vec<Value> = (0..PINGS).map(|_| socket.hear().unwrap()).collect();
    let refused = heard.iter().filter(|heard| heard["code"] == "rate_limited").count();
    let answered = heard.iter().filter(|heard| heard["type"] == "pong").count();
    assert!(
        refused > 0 && answered >= 100 && refused + answered == PINGS,
        "{refused} refused, {answered} answered"
    );

    let mut socket = app.stranger().unwrap().socket().unwrap();
    socket.say(&json!({ "type": "join", "channel": "x".repeat(70_000) })).unwrap();
    let (before, code, reason) = socket.closed().unwrap();
    assert_eq!((code, reason.as_str(), &before[0]["reason"]), (1002, "protocol", &json!("protocol")));
}

/// What comes of opening a socket with these headers and this first message.
fn opening(app: &App, headers: &[(&str, &str)], hello: &str) -> String {
    match Socket::open(app, headers).unwrap() {
        Err(reply) => format!("{} {}", reply.status, reply.code()),
        Ok(mut socket) => {
            socket.say_text(hello).unwrap();
            let heard = socket.hear().unwrap();
            let code = heard["code"].as_str().unwrap_or_default();
            format!("open, {} {code}", heard["type"].as_str().unwrap_or_default())
        }
    }
}

#[test]
fn another_site_gets_no_socket() {
    let (place, app) = ground("channel-hijack");
    let mut friendly = crate::app_realtime::manifest();
    friendly["auth"]["origins"] = json!(["https://friend.example"]);
    place.output("app_apply", &json!({ "manifest": friendly })).unwrap();
    let described = place.output("app_describe", &json!({})).unwrap();
    let key = described["auth"]["publishable_key"].as_str().unwrap();
    let ada = app.stranger().unwrap();
    let hello = |token: Option<&str>, key: Option<&str>| {
        json!({ "type": "hello", "token": token, "key": key }).to_string()
    };
    let own = app.url().to_owned();
    let friend = "https://friend.example";
    let (_other_place, other) = ground("channel-hijack-other");
    let stranger = other.stranger().unwrap();
    let server = place.steading.ready().key.clone();
    for (origin, hello, expected) in [
        (None, hello(Some(ada.token()), None), "open, ready "),
        (None, hello(None, None), "open, ready "),
        (Some(own.as_str()), hello(Some(ada.token()), None), "open, ready "),
        (Some("https://evil.example"), hello(Some(ada.token()), Some(key)), "403 forbidden"),
        (Some("null"), hello(Some(ada.token()), Some(key)), "403 forbidden"),
        (Some(other.url()), hello(Some(ada.token()), Some(key)), "403 forbidden"),
        (Some(friend), hello(Some(ada.token()), Some(key)), "open, ready "),
        (Some(friend), hello(Some(ada.token()), None), "open, error forbidden"),
        (Some(friend), hello(Some(ada.token()), Some("pk_wrong")), "open, error forbidden"),
        (None, hello(Some(stranger.token()), None), "open, error unauthenticated"),
        (None, hello(Some("a.b.c"), None), "open, error unauthenticated"),
        (None, hello(Some(server.as_str()), None), "open, error unauthenticated"),
        (None, json!({ "type": "ping" }).to_string(), "open, error invalid_input"),
        (None, "[".to_owned(), "open, error invalid_input"),
    ] {
        let headers: Vec<(&str, &str)> = origin.into_iter().map(|origin| ("origin", origin)).collect();
        assert_eq!(opening(&app, &headers, &hello), expected, "{origin:?} {hello}");
    }
    let bearer = format!("Bearer {}", ada.token());
    assert_eq!(opening(&app, &[("authorization", &bearer)], ""), "400 invalid_input");
}

#[test]
fn a_socket_goes_on_with_a_newer_token_of_the_same_user_and_of_nobody_else() {
    let (_place, app) = ground("channel-renew");
    let (ada, bob) = (app.stranger().unwrap(), app.stranger().unwrap());
    let (mut socket, _) = joined(&ada, "room:1", Some(json!({ "name": "Ada" })));
    let session = ada.session.as_ref().unwrap();
    let renewed = app.auth("refresh", &json!({ "refresh_token": session.refresh })).unwrap();
    let newer = renewed.body["access_token"].as_str().unwrap().to_owned();
    let mut heard = |token: Option<&str>| {
        socket.say(&json!({ "type": "hello", "token": token })).unwrap();
        let heard = socket.hear().unwrap();
        format!("{} {}", heard["type"].as_str().unwrap(), heard["code"].as_str().unwrap_or_default())
    };
    assert_eq!(heard(Some(&newer)), "renewed ");
    assert_eq!(heard(Some(bob.token())), "error conflict");
    assert_eq!(heard(None), "error conflict");
    assert_eq!(heard(Some("a.b.c")), "error unauthenticated");
    // The session is still the one that it hangs on.
    assert_eq!(ada.with_token(&newer).send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    assert_eq!(socket.closed().unwrap().2, "session_ended");
}

#[test]
fn what_is_said_without_a_connection_is_bounded_as_over_one() {
    let (_place, app) = ground("channel-bounds");
    let ada = app.stranger().unwrap();
    let say = |person: &Person, event: &str, data: Value| {
        let message = json!({ "channel": "room:1", "event": event, "data": data });
        person.send("POST", "/_/realtime/broadcast", &message).unwrap()
    };
    say(&ada, "", json!(1)).refuses(400, "invalid_input").unwrap();
    say(&ada, &"e".repeat(101), json!(1)).refuses(400, "invalid_input").unwrap();
    let refused = say(&ada, "e", json!("x".repeat(65_536)));
    assert_eq!(refused.body["field"], "/data", "{refused:?}");
    refused.refuses(413, "too_large").unwrap();
    // Each of these counts for several.
    let large = json!("x".repeat(60_000));
    let refused = (0..400).map(|_| say(&ada, "e", large.clone())).find(|reply| reply.status != 200).unwrap();
    refused.refuses(429, "rate_limited").unwrap();
}
