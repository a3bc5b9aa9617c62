//! Idempotency keys of what is no tool: nothing is made twice, and nothing is taken for another's.

use serde_json::{Value, json};
use testkit::http::Response;

use crate::sandbox_routes::Sandboxes;

#[test]
fn an_idempotency_key_is_of_one_sandbox() {
    let here = Sandboxes::new("routes-once");
    for name in ["one", "two"] {
        here.ok("POST", "", Some(&json!({ "name": name })), 201);
    }
    let keep = |sandbox: &str| {
        let request = here.client.request("POST", &format!("/v1/sandboxes/{sandbox}/snapshots"));
        request.header("idempotency-key", "k1").json(&json!({ "name": "same" })).send().unwrap()
    };
    let (first, again) = (keep("one"), keep("one"));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json().unwrap(), again.json().unwrap());
    let other = keep("two");
    assert_eq!(other.status, 422, "{:?}", other.text());
    assert_eq!(here.ok("GET", "/two/snapshots", None, 200)["snapshots"], json!([]));
    // Every environment has a sandbox of that name.
    let operator = here.place.steading.client().without_env();
    let made = operator.request("POST", "/v1/tools/env_create").json(&json!({ "name": "Elsewhere" }));
    let made = made.send().unwrap().json().unwrap();
    let in_env = |env: &str| {
        let request = operator.request("POST", "/v1/sandboxes/default/snapshots").header("steading-env", env);
        request.header("idempotency-key", "k2").json(&json!({ "name": "same" })).send().unwrap().status
    };
    assert_eq!((in_env(&here.place.slug), in_env(made["slug"].as_str().unwrap())), (201, 422));
}

#[test]
fn a_command_in_the_background_and_a_backup_are_made_once_for_a_key() {
    let here = Sandboxes::new("made-once");
    let twice = |client: &testkit::Client, path: &str, key: &str, body: &Value| -> [Response; 2] {
        let request = client.request("POST", path).header("idempotency-key", key).json(body);
        [request.clone().send().unwrap(), request.send().unwrap()]
    };
    let command = json!({ "command": "sleep 5004" });
    let [first, again] = twice(&here.client, "/v1/sandboxes/default/processes", "command", &command);
    assert_eq!((first.status, again.status), (201, 201), "{:?}", again.text());
    assert_eq!(first.json().unwrap(), again.json().unwrap());
    let listed = here.ok("GET", "/default/processes", None, 200);
    assert_eq!(listed["processes"].as_array().unwrap().len(), 1, "{listed}");
    let other = json!({ "command": "sleep 5005" });
    assert_eq!(twice(&here.client, "/v1/sandboxes/default/processes", "command", &other)[0].status, 422);
    here.ok("DELETE", &format!("/default/processes/{}", first.json().unwrap()["process"]), None, 204);

    let operator = here.place.steading.client().without_env();
    let path = format!("/v1/envs/{}/backups", here.place.slug);
    let [first, again] = twice(&operator, &path, "backup", &json!({}));
    assert_eq!((first.status, again.status), (201, 201), "{:?}", again.text());
    assert_eq!(first.json().unwrap(), again.json().unwrap());
    let there = operator.request("GET", &path).send().unwrap().json().unwrap();
    assert_eq!(there["backups"].as_array().unwrap().len(), 1, "{there}");
}
