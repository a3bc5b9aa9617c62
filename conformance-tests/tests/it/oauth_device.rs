//! Devices without a browser, and the command line that signs in as one.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance_tests::{Place, Visitor, form};
use serde_json::{Value, json};
use testkit::http::Response;
use testkit::{Client, eventually, finish};

use crate::oauth_flow::{register, text};

const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const CLI: &str = "steading-cli";
const LIMIT: Duration = Duration::from_secs(60);

fn begin(base: &str, fields: &[(&str, &str)]) -> Response {
    form(&format!("{base}/oauth/device"), fields).send().unwrap()
}

fn poll(base: &str, client: &str, code: &str) -> (u16, Value) {
    let fields = [("grant_type", DEVICE), ("client_id", client), ("device_code", code)];
    let answer = form(&format!("{base}/oauth/token"), &fields).send().unwrap();
    (answer.status, answer.json().unwrap())
}

fn error(base: &str, client: &str, code: &str) -> String {
    let (status, answer) = poll(base, client, code);
    assert_eq!(status, 400, "{answer}");
    text(&answer, "error").to_owned()
}

#[test]
fn a_device_asks_until_its_user_has_typed_the_code_and_gets_its_tokens_once() {
    let place = Place::new("oauth-device").unwrap();
    let base = &place.steading.ready().url;
    let begun = begin(base, &[("client_id", CLI), ("scope", "read")]);
    assert_eq!((begun.status, begun.header("cache-control")), (200, Some("no-store")));
    let begun = begun.json().unwrap();
    assert_eq!((&begun["interval"], &begun["expires_in"]), (&json!(5), &json!(600)));
    let (code, user_code) = (text(&begun, "device_code"), text(&begun, "user_code"));
    assert_eq!(text(&begun, "verification_uri"), format!("{base}/oauth/device"));
    // Who asks again at once is told to wait longer.
    assert_eq!([error(base, CLI, code), error(base, CLI, code)], ["slow_down", "slow_down"]);
    assert_eq!(error(base, CLI, "stead_device_x"), "invalid_grant");
    let other = register(base, &json!({ "grant_types": [DEVICE], "client_name": "other" }));
    assert_eq!(error(base, text(&other, "client_id"), code), "invalid_grant", "another client's");
    // The page tells nobody which codes there are who has not signed in, and finds one however it is typed.
    let mut visitor = Visitor::new(base);
    let typed = user_code.replace('-', "").to_lowercase();
    let page = visitor.get(&format!("/oauth/device?user_code={typed}")).unwrap();
    assert!(page.text().unwrap().contains("name=\"key\""));
    let page =
        visitor.sign_in(&format!("/oauth/device?user_code={typed}"), &place.steading.ready().key).unwrap();
    let html = page.text().unwrap();
    assert!(html.contains("The command line of Steading") && html.contains(&place.slug), "{html}");
    let unknown = visitor.get("/oauth/device?user_code=BBBB-BBBB").unwrap();
    assert!(unknown.text().unwrap().contains("No device waits"));
    let done = visitor.decide(&page, "allow", Some(&place.slug), None).unwrap();
    assert!(done.status == 200 && done.text().unwrap().contains("Allowed"), "{done:?}");
    let (status, tokens) = poll(base, CLI, code);
    assert_eq!((status, text(&tokens, "scope")), (200, "read"), "{tokens}");
    assert_eq!(error(base, CLI, code), "invalid_grant", "once");
    // A token for the platform as a whole, in the environment that was chosen.
    let client = Client::new(base).with_key(text(&tokens, "access_token"));
    assert!(client.output("app_describe", &json!({})).unwrap().to_string().contains(&place.slug));
    let refused =
        client.request("POST", "/v1/tools/db_execute").json(&json!({ "sql": "SELECT 1" })).send().unwrap();
    assert!(
        refused.status == 403 && refused.header("www-authenticate").unwrap().contains("db:write"),
        "{refused:?}"
    );
}

#[test]
fn a_device_that_is_refused_is_told_and_a_stranger_is_none() {
    let place = Place::new("oauth-denied").unwrap();
    let base = &place.steading.ready().url;
    for (fields, name) in [
        (vec![("client_id", "stranger")], "invalid_client"),
        (vec![("client_id", conformance_tests::CLAUDE_CODE)], "invalid_client"),
        (vec![("scope", "read")], "invalid_request"),
        (vec![("client_id", CLI), ("scope", "everything")], "invalid_scope"),
        (vec![("client_id", CLI), ("resource", "https://elsewhere.example")], "invalid_target"),
    ] {
        let answer = begin(base, &fields);
        assert_eq!(text(&answer.json().unwrap(), "error"), name, "{fields:?}");
    }
    let begun = begin(base, &[("client_id", CLI)]).json().unwrap();
    let mut visitor = Visitor::new(base);
    let path = format!("/oauth/device?user_code={}", text(&begun, "user_code"));
    let page = visitor.sign_in(&path, &place.steading.ready().key).unwrap();
    assert_eq!(visitor.decide(&page, "deny", None, None).unwrap().status, 200);
    assert_eq!(error(base, CLI, text(&begun, "device_code")), "access_denied");
}

#[test]
fn the_command_line_signs_in_works_and_signs_out() {
    let place = Place::new("oauth-login").unwrap();
    let (ready, home) = (place.steading.ready(), testkit::temporary().unwrap());
    let command = |arguments: &[&str]| {
        let mut command = Command::new(place.binary());
        command
            .args(arguments)
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("STEADING_URL", &ready.url);
        for name in ["STEADING_KEY", "STEADING_ENV", "STEADING_TENANT", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        command
    };
    let run = |arguments: &[&str], exit: i32| {
        let finished = finish(command(arguments), LIMIT).unwrap();
        assert_eq!(finished.status.unwrap().code(), Some(exit), "{arguments:?}: {finished:?}");
        finished
    };
    run(&["tools"], 3);
    let mut login = command(&["login"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(login.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("http")).unwrap();
    let page = told.split(' ').find(|word| word.starts_with("http")).unwrap();
    let mut visitor = Visitor::new(&ready.url);
    let page = visitor.sign_in(page, &ready.key).unwrap();
    visitor.decide(&page, "allow", Some(&place.slug), None).unwrap();
    let ended = eventually(LIMIT, || login.try_wait().unwrap());
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    let directory = home.path().join(".config/steading/logins");
    let file = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&directory)), (0o600, 0o700));
    let kept = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap();
    assert!(run(&["call", "app_describe", "{}", "--json"], 0).stdout.contains(&place.slug));
    // One that has ended is refreshed, by one of many at once.
    let mut old = kept();
    old["expires_at"] = json!(0);
    std::fs::write(&file, old.to_string()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| run(&["call", "app_describe", "{}", "--json"], 0));
        }
    });
    assert_ne!(kept()["refresh_token"], old["refresh_token"]);
    let token = kept()["access_token"].as_str().unwrap().to_owned();
    run(&["logout"], 0);
    assert!(!file.exists());
    assert_eq!(
        Client::new(&ready.url).with_key(&token).request("GET", "/v1/tools").send().unwrap().status,
        401
    );
    run(&["tools"], 3);
    run(&["logout"], 4);
}
