//! Credentials that must not work: revoked, expired, foreign, narrowed, forged.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, eventually};

use crate::assault_tenants::{Village, mcp};

/// A call of every door with one credential: two tools, MCP, a route, a blob.
fn doors(client: &Client, env: &str) -> Vec<Response> {
    let call = json!({ "sql": "SELECT 1" });
    let hash = "0".repeat(64);
    let requests = [
        client.request("POST", "/v1/tools/db_query").header("steading-env", env).json(&call),
        mcp(client, &format!("/mcp/{env}"), "db_query", &call),
        client.request("GET", "/v1/envs"),
        client.request("GET", "/v1/tools"),
        client.request("HEAD", &format!("/v1/blobs/{hash}")).header("steading-env", env),
    ];
    requests.into_iter().map(|request| request.send().unwrap()).collect()
}

#[track_caller]
fn assert_unauthenticated(client: &Client, env: &str) {
    for response in doors(client, env) {
        assert_eq!(response.status, 401, "{:?}", response.text());
        assert!(response.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
        if !response.body.is_empty() {
            let problem = response.json().unwrap();
            assert_eq!(problem["code"], "unauthenticated");
            assert!(problem["hint"].is_string(), "{problem:#}");
        }
    }
}

fn make_key(village: &Village, body: &Value) -> (String, String) {
    let client = village.client(&village.our_keys.wide);
    let made = client.request("POST", "/v1/keys").json(body).send().unwrap();
    assert_eq!(made.status, 201, "{:?}", made.text());
    let made = made.json().unwrap();
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

#[test]
fn a_revoked_key_is_none_from_the_next_call_on() {
    let village = Village::found();
    let (id, key) = make_key(&village, &json!({ "name": "short" }));
    let client = village.client(&key);
    for response in doors(&client, &village.ours.slug) {
        // The blob that is asked for is not there.
        assert!([200, 404].contains(&response.status), "{:?}", response.text());
    }
    let owner = village.client(&village.our_keys.wide);
    let revoked = owner.request("DELETE", &format!("/v1/keys/{id}")).send().unwrap();
    assert_eq!(revoked.status, 200, "{:?}", revoked.text());
    assert_unauthenticated(&client, &village.ours.slug);
}

#[test]
fn a_key_ends_when_it_expires() {
    let village = Village::found();
    let (_, key) = make_key(&village, &json!({ "name": "brief", "expires_in": 1 }));
    let client = village.client(&key);
    let expired = eventually(Duration::from_secs(10), || {
        let response = client.request("GET", "/v1/tools").send().unwrap();
        (response.status != 200).then_some(response)
    });
    assert_eq!(expired.unwrap().status, 401);
    assert_unauthenticated(&client, &village.ours.slug);
}

#[test]
fn a_bound_key_stays_in_its_environment() {
    let village = Village::found();
    let owner = village.client(&village.our_keys.wide);
    owner.output("env_create", &json!({ "slug": "weaver-second" })).unwrap();
    let bound = village.client(&village.our_keys.bound);
    let ask = |env: &str| {
        let response = bound
            .request("POST", "/v1/tools/db_query")
            .header("steading-env", env)
            .json(&json!({ "sql": "SELECT 1" }))
            .send()
            .unwrap();
        let body = response.text().unwrap().replace(env, "<env>");
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body.as_object_mut().unwrap().remove("request_id");
        (response.status, body)
    };
    assert_eq!(ask(&village.ours.slug).0, 200);
    // Another environment of its own tenant is not there for it, and neither is another tenant's.
    assert_eq!(ask("weaver-second").0, 404);
    assert_eq!(ask("weaver-second"), ask("weaver-none"));
    assert_eq!(ask(&village.theirs.slug), ask("weaver-none"));
    // It does not make itself wider.
    let tools = bound.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let names: Vec<&str> =
        tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(!names.contains(&"env_delete"), "{names:?}");
    let deletion = json!({ "env": village.ours.slug, "dry_run": true });
    assert_eq!(bound.call("env_delete", &deletion).unwrap().code(), "forbidden");
    let key = bound.request("POST", "/v1/keys").json(&json!({ "name": "wider" })).send().unwrap();
    match key.status {
        403 => {}
        201 => assert_eq!(key.json().unwrap()["env"], json!(village.ours.env), "a wider key"),
        status => panic!("{status}: {:?}", key.text()),
    }
}

#[test]
fn a_read_only_key_writes_nothing_by_any_door() {
    let village = Village::found();
    let reader = village.client(&village.our_keys.readonly).in_env(&village.ours.slug);
    let all = village.steading.client().request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let mut tried = 0;
    for tool in all["tools"].as_array().unwrap() {
        if tool["annotations"]["readOnlyHint"] == json!(true) {
            continue;
        }
        let name = tool["name"].as_str().unwrap();
        tried += 1;
        let answer = reader.call(name, &json!({})).unwrap();
        assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{name}: {:#}", answer.body);
        assert!(
            answer.body["message"].as_str().unwrap().contains(':'),
            "no scope is named: {:#}",
            answer.body
        );
        let mcp = mcp(&reader, "/mcp", name, &json!({})).send().unwrap();
        let result = &mcp.json().unwrap()["result"];
        assert_eq!(result["isError"], json!(true), "{name}: {:?}", mcp.text());
        assert!(
            result["content"][0]["text"].as_str().unwrap().contains("\"forbidden\""),
            "{name}: {result:#}"
        );
    }
    assert!(tried >= 9, "{tried} tools write");
    for (method, path, body) in [
        ("POST", "/v1/envs", json!({})),
        ("POST", "/v1/keys", json!({ "name": "wider" })),
        ("POST", "/v1/tenants", json!({ "slug": "mine" })),
        ("DELETE", &format!("/v1/envs/{}?dry_run=true", village.ours.slug), json!({})),
        ("DELETE", &format!("/v1/keys/{}", village.ours.key_id), json!({})),
        ("GET", "/v1/keys", json!({})),
        ("PUT", &format!("/v1/blobs/{}", village.theirs.blob), json!({})),
    ] {
        let response = reader.request(method, path).json(&body).send().unwrap();
        assert_eq!(response.status, 403, "{method} {path}: {:?}", response.text());
    }
}

#[test]
fn a_key_makes_no_key_that_can_do_more() {
    let village = Village::found();
    let (_, maker) = make_key(&village, &json!({ "name": "maker", "scopes": ["key:admin", "db:read"] }));
    let maker = village.client(&maker);
    let ask = |body: Value| maker.request("POST", "/v1/keys").json(&body).send().unwrap();
    for scope in ["db:write", "env:delete", "tenant:admin"] {
        let response = ask(json!({ "name": "more", "scopes": ["db:read", scope] }));
        match response.status {
            400 | 403 => {}
            201 => {
                let scopes = response.json().unwrap()["scopes"].to_string();
                assert!(!scopes.contains(scope), "{scopes}");
            }
            status => panic!("{scope}: {status} {:?}", response.text()),
        }
    }
    let unsaid = ask(json!({ "name": "unsaid" }));
    if unsaid.status == 201 {
        let scopes = unsaid.json().unwrap()["scopes"].to_string();
        assert!(!scopes.contains("write") && !scopes.contains("delete"), "{scopes}");
    }
    assert_eq!(ask(json!({ "name": "odd", "scopes": ["all"] })).status, 400);
}

#[test]
fn forged_credentials_are_none() {
    let village = Village::found();
    let env = village.ours.slug.as_str();
    let operator = &village.steading.ready().key;
    let changed = |key: &str| {
        let last = if key.ends_with('A') { 'B' } else { 'A' };
        format!("{}{last}", &key[..key.len() - 1])
    };
    // {"alg":"none"} . {"sub":"usr_1","aud":"env_1","exp":4102444800}, {"alg":"HS256"}, {"alg":"EdDSA"}
    let claims = "eyJzdWIiOiJ1c3JfMSIsImF1ZCI6ImVudl8xIiwiZXhwIjo0MTAyNDQ0ODAwfQ";
    let forged = [
        changed(operator),
        changed(&village.our_keys.wide),
        operator[..operator.len() - 1].to_owned(),
        format!("{operator}A"),
        operator.to_uppercase(),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.{}", "A".repeat(43)),
        format!("eyJhbGciOiJFZERTQSJ9.{claims}.{}", "A".repeat(86)),
        village.ours.key_id.clone(),
        village.ours.env.clone(),
        "' OR 1=1 --".to_owned(),
        "a".repeat(5_000),
        String::new(),
    ];
    for key in &forged {
        assert_unauthenticated(&village.client(key), env);
    }
    // A key anywhere but in the one header is none.
    let url = &village.steading.ready().url;
    let tools = format!("{url}/v1/tools");
    let placed = [
        Request::get(&tools),
        Request::get(&format!("{tools}?key={operator}&access_token={operator}")),
        Request::get(&tools).header("cookie", &format!("key={operator}; Authorization=Bearer {operator}")),
        Request::get(&tools).header("x-api-key", operator),
        Request::get(&tools).header("authorization", operator),
        Request::get(&tools).header("authorization", &format!("Basic {operator}")),
        Request::get(&tools).bearer(operator).bearer(&village.our_keys.wide),
    ];
    for request in placed {
        let response = request.clone().send().unwrap();
        assert_eq!(response.status, 401, "{request:?}");
    }
}

#[test]
fn only_the_operator_chooses_a_tenant() {
    let village = Village::found();
    let ask = |key: &str, tenant: &str| {
        let client = village.client(key);
        client.request("GET", "/v1/envs").header("steading-tenant", tenant).send().unwrap()
    };
    let operator = &village.steading.ready().key;
    let envs = ask(operator, &village.theirs.tenant).json().unwrap();
    assert_eq!(envs["environments"][0]["env"], json!(village.theirs.env));
    for (kind, key) in village.our_keys.each() {
        assert_eq!(ask(key, &village.theirs.tenant).status, 404, "{kind}");
        assert_eq!(ask(key, &village.theirs.tenant_id).status, 404, "{kind}");
        let tenants = village.client(key).request("GET", "/v1/tenants").send().unwrap();
        assert_eq!(tenants.status, 403, "{kind}: {:?}", tenants.text());
    }
}
