//! Which credential may call which tool, as a table.

use std::fmt::Write;

use conformance_tests::Place;
use expect_test::expect_file;
use serde_json::{Value, json};
use testkit::Client;

use crate::golden_tools::listed;

/// What a credential is told when it calls `tool` with a field that no tool has: authorization comes first, and
/// nothing is done either way.
fn verdict(client: &Client, tool: &str) -> String {
    let answer = client.call(tool, &json!({ "no_tool_has_this": true })).unwrap();
    match (answer.status, answer.code()) {
        (400, "invalid_input") => "allowed".to_owned(),
        (403, "forbidden") => answer.body["message"].as_str().unwrap().to_owned(),
        _ => panic!("{tool}: {answer:?}"),
    }
}

#[test]
fn each_credential_may_call_what_the_table_says() {
    let place = Place::new("roles").unwrap();
    let key = |body: Value| {
        // Named by the body alone: the header would bind it too.
        let made = place.client.clone().without_env().request("POST", "/v1/keys").json(&body).send().unwrap();
        assert_eq!(made.status, 201, "{made:?}");
        made.json().unwrap()["key"].as_str().unwrap().to_owned()
    };
    let bound = |key: &str| place.client.clone().with_key(key).without_env();
    let of_env = key(json!({ "name": "env", "env": place.slug }));
    let reading = ["app:read", "db:read", "logs:read"];
    let of_reader = key(json!({ "name": "reader", "env": place.slug, "scopes": reading }));
    let credentials = [
        ("operator", place.client.clone()),
        ("tenant key", place.client.clone().with_key(&key(json!({ "name": "tenant" })))),
        ("environment key", bound(&of_env)),
        ("read-only key", bound(&of_reader)),
    ];
    let tools = place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let tools: Vec<&str> =
        tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let mut table = String::new();
    for (name, client) in &credentials {
        writeln!(table, "{name}").unwrap();
        let verdicts: Vec<_> = tools.iter().map(|tool| (*tool, verdict(client, tool))).collect();
        for (tool, verdict) in &verdicts {
            writeln!(table, "    {tool}: {verdict}").unwrap();
        }
        let allowed: Vec<_> = verdicts
            .iter()
            .filter(|(_, verdict)| verdict == "allowed")
            .map(|(tool, _)| json!(tool))
            .collect();
        let path = format!("/mcp/{}", place.slug);
        let shown: Vec<_> = listed(client, &path).into_iter().map(|tool| tool["name"].clone()).collect();
        assert_eq!(shown, allowed, "{name}: the list shows other tools than it may call");
    }
    expect_file!["./golden/authorization.txt"].assert_eq(&table);
}

#[test]
fn nobody_calls_a_tool_without_a_credential() {
    let place = Place::new("nobody").unwrap();
    let client = Client::new(&place.steading.ready().url).in_env(&place.slug);
    let tools = place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    for tool in tools["tools"].as_array().unwrap() {
        let tool = tool["name"].as_str().unwrap();
        let answer = client.call(tool, &json!({})).unwrap();
        assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{tool}: {answer:?}");
    }
}
