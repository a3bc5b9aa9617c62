//! Previews that bring their server along: its command begins again where somebody visits, and only there.

use std::time::{Duration, Instant};

use conformance_tests::{Place, Preview};
use serde_json::{Value, json};
use testkit::{Client, Steading, eventually, require};

use crate::sandbox_preview::run;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a browser sends of which its user goes somewhere.
const GOES: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// A server that notes that it begins.
const COMMAND: &str = "echo x >> starts; exec python3 -m http.server 8000 --bind 127.0.0.1";

fn post(client: &Client, path: &str, body: &Value) -> (u16, Value) {
    let answer = client.request("POST", path).json(body).send().unwrap();
    (answer.status, answer.json().unwrap())
}

fn opens(client: &Client, body: &Value) -> (u16, Value) {
    post(client, "/v1/tools/preview_open", body)
}

fn shows(client: &Client, sandbox: &str, body: &Value) -> (u16, Value) {
    post(client, &format!("/v1/sandboxes/{sandbox}/previews"), body)
}

fn state(client: &Client) -> String {
    let shown = client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

fn starts(client: &Client) -> u64 {
    run(client, "cat /workspace/app/starts /workspace/starts 2>/dev/null | wc -l").trim().parse().unwrap()
}

/// Visits until there is something else than that it starts; what that is.
fn visited(preview: &Preview) -> (u16, String) {
    let seen = eventually(PATIENCE, || {
        let shown = preview.ask("GET", "/").send().unwrap();
        if shown.status == 503 {
            assert_eq!(shown.header("retry-after"), Some("1"));
            assert!(shown.text().unwrap().contains("is starting"), "{shown:?}");
            return None;
        }
        Some((shown.status, shown.text().unwrap().to_owned()))
    });
    seen.expect("it starts for ever")
}

#[test]
fn the_server_of_a_parked_preview_begins_again_for_whoever_may_see_it_and_nobody_else() {
    let quick = Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "2");
    let server = require(quick.start());
    let client = server.client().in_env("default");
    client.output("file_write", &json!({ "path": "app/index.html", "text": "served" })).unwrap();
    let (status, shown) = opens(&client, &json!({ "port": 8000, "command": COMMAND, "cwd": "app" }));
    assert_eq!(status, 200, "{shown}");
    let preview = Preview::of(&shown, &server).unwrap();
    assert_eq!(visited(&preview), (200, "served".to_owned()));
    let parked = || eventually(PATIENCE, || (state(&client) == "parked").then_some(())).is_some();
    for _ in 0..2 {
        assert!(parked(), "{}", server.log());
        for headers in [&[][..], &[GOES], &[("steading-preview", "x")]] {
            let asked = preview.ask_as_stranger("GET", "/");
            let asked = headers.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
            assert_eq!(asked.send().unwrap().status, 401);
        }
        assert_eq!(state(&client), "parked", "nobody has woken it");
        assert_eq!(visited(&preview), (200, "served".to_owned()));
    }
    assert_eq!(starts(&client), 3);
    // Of many at once one begins it.
    assert!(parked());
    std::thread::scope(|scope| {
        for visit in (0..8).map(|_| scope.spawn(|| visited(&preview))).collect::<Vec<_>>() {
            assert_eq!(visit.join().unwrap(), (200, "served".to_owned()));
        }
    });
    assert_eq!(starts(&client), 4);
    // So does whoever opens it, and what is restored has it, too.
    assert!(parked());
    assert_eq!(opens(&client, &json!({ "port": 8000 })).0, 200);
    assert_eq!(starts(&client), 5);
    client.output("workspace_snapshot", &json!({ "name": "good" })).unwrap();
    assert_eq!(post(&client, "/v1/sandboxes/default/restore", &json!({ "snapshot": "good" })).0, 200);
    assert_eq!(visited(&preview), (200, "served".to_owned()));
    assert_eq!(starts(&client), 6);
    // One that has ended is begun again, too.
    run(&client, "pkill -f '[h]ttp.server'");
    let again =
        eventually(PATIENCE, || (preview.ask("GET", "/").send().unwrap().status == 200).then_some(()));
    assert!(again.is_some());
    // What is made of its files has no command.
    assert_eq!(post(&client, "/v1/sandboxes/default/fork", &json!({ "name": "copy" })).0, 201);
    let (_, of_copy) = shows(&client, "copy", &json!({ "port": 8000 }));
    assert!(of_copy.get("command").is_none(), "{of_copy}");
    let (status, text) = visited(&Preview::of(&of_copy, &server).unwrap());
    assert!(status == 502 && text.contains("Is the server running?"), "{text}");
    let processes = client.request("GET", "/v1/sandboxes/copy/processes").send().unwrap().json().unwrap();
    assert_eq!(processes["processes"], json!([]));
    // It is known, and forgotten when that is said.
    let (_, shown) = shows(&client, "default", &json!({ "port": 8000 }));
    assert_eq!(shown["command"], COMMAND);
    let (_, shown) = shows(&client, "default", &json!({ "port": 8000, "command": "" }));
    assert!(shown.get("command").is_none(), "{shown}");
    assert!(parked());
    let (status, text) = visited(&preview);
    assert!(status == 502 && text.contains("Is the server running?"), "{text}");
}

#[test]
fn a_command_that_does_not_listen_is_not_begun_in_a_loop_and_says_why_to_whoever_runs_it_alone() {
    let place = Place::new("preview-command").unwrap();
    let client = &place.client;
    let began = Instant::now();
    let broken = "echo x >> starts; echo 'no such module: fnord' >&2; exit 3";
    for (status, told) in [
        opens(client, &json!({ "port": 8000, "command": broken })),
        shows(client, "default", &json!({ "port": 8000, "command": broken })),
    ] {
        assert_eq!((status, &told["code"], &told["field"]), (503, &json!("unavailable"), &json!("/port")));
        assert!(told["message"].as_str().unwrap().contains("no such module: fnord"), "{told}");
    }
    let (_, shown) = shows(client, "default", &json!({ "port": 8000 }));
    let preview = Preview::of(&shown, &place.steading).unwrap();
    for visit in 0..40 {
        let asked = preview.ask("GET", "/");
        let asked = if visit % 2 == 0 { asked.header(GOES.0, GOES.1) } else { asked };
        let shown = asked.send().unwrap();
        let (status, text) = (shown.status, shown.text().unwrap());
        // Who has begun it once more may be told to wait for it.
        if status == 503 {
            continue;
        }
        assert!(status == 502 && text.contains("does not listen on its port"), "{status} {text}");
        assert!(!text.contains("fnord"), "{text}");
    }
    // Whoever may run it has had it begun twice; those who look, each three seconds at most.
    let most = 2 + began.elapsed().as_secs() / 3;
    let there = starts(client);
    assert!((2..=most).contains(&there), "{there} of {most}");
    assert!(!place.steading.log().contains("fnord"), "{}", place.steading.log());
    // Another command is tried at once.
    assert_eq!(opens(client, &json!({ "port": 8000, "command": COMMAND })).0, 200);
    assert_eq!(preview.ask("GET", "/").send().unwrap().status, 200);
    // One that runs and does not listen runs once.
    let waits = "echo x >> starts; echo it-waits; exec sleep 600";
    let before = starts(client);
    let (status, told) = opens(client, &json!({ "port": 8001, "command": waits }));
    assert!(status == 503 && told["message"].as_str().unwrap().contains("it-waits"), "{told}");
    let (_, shown) = shows(client, "default", &json!({ "port": 8001 }));
    let (status, text) = visited(&Preview::of(&shown, &place.steading).unwrap());
    assert!(status == 502 && !text.contains("it-waits"), "{text}");
    assert_eq!(starts(client), before + 1);
    // One that has run for a while before it ends is left alone, too.
    let before = starts(client);
    let (status, told) =
        opens(client, &json!({ "port": 8001, "command": "echo x >> starts; sleep 4; echo gave-up; exit 1" }));
    assert!(status == 503 && told["message"].as_str().unwrap().contains("gave-up"), "{told}");
    assert_eq!(visited(&Preview::of(&shown, &place.steading).unwrap()).0, 502);
    assert_eq!(starts(client), before + 1);
    // There are not many, and none is long.
    for port in 8002..8008 {
        assert_eq!(shows(client, "default", &json!({ "port": port, "command": "exit 1" })).0, 503);
    }
    for (body, status, code, field) in [
        (json!({ "port": 8008, "command": "true" }), 429, "quota_exceeded", "/command"),
        (json!({ "port": 8000, "command": "x".repeat(4_097) }), 400, "invalid_input", "/command"),
        (json!({ "port": 8000, "command": "a\u{0}b" }), 400, "invalid_input", "/command"),
        (json!({ "port": 8000, "command": "a", "cwd": "x".repeat(1_025) }), 400, "invalid_input", "/cwd"),
        (json!({ "port": 8000, "cwd": "app" }), 400, "invalid_input", "/cwd"),
        (json!({ "port": 0, "command": "true" }), 400, "invalid_input", "/port"),
    ] {
        for (was, told) in [opens(client, &body), shows(client, "default", &body)] {
            assert_eq!(
                (was, told["code"].as_str(), told["field"].as_str()),
                (status, Some(code), Some(field))
            );
        }
    }
    // One that is forgotten makes room.
    assert_eq!(opens(client, &json!({ "port": 8001, "command": "" })).0, 200);
    assert_eq!(opens(client, &json!({ "port": 8008, "command": "python3 -m http.server 8008" })).0, 200);
}
