//! Minted credentials and keys seen from outside: what they are held to, where they are good, and what ends them.

use std::net::IpAddr;
use std::time::Duration;

use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Steading, eventually, finish, require};

use crate::assault_tenants::mcp;

const PATIENCE: Duration = Duration::from_secs(30);

fn mint(client: &Client, body: &Value) -> Response {
    client.request("POST", "/v1/credentials").json(body).send().unwrap()
}

/// A credential that is made, and what is said of it.
fn minted(client: &Client, body: &Value) -> (Client, Value) {
    let made = mint(client, body);
    assert_eq!(made.status, 201, "{:?}", made.text());
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.json().unwrap();
    (client.clone().with_key(made["token"].as_str().unwrap()).without_env(), made)
}

fn made_key(client: &Client, body: &Value) -> (String, Client) {
    let made = client.clone().without_env().request("POST", "/v1/keys").json(body).send().unwrap();
    assert_eq!(made.status, 201, "{:?}", made.text());
    let made = made.json().unwrap();
    let key = client.clone().with_key(made["key"].as_str().unwrap());
    (made["id"].as_str().unwrap().to_owned(), key)
}

fn status(client: &Client, method: &str, path: &str) -> u16 {
    client.request(method, path).send().unwrap().status
}

/// What a query is answered, with the place that a refusal names.
fn query(client: &Client, input: &Value) -> (u16, String) {
    let answer = client.call("db_query", input).unwrap();
    (answer.status, answer.body["field"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_credential_does_what_it_is_for_and_nothing_else() {
    let place = Place::new("credentials-held").unwrap();
    let other = Place::new("credentials-other").unwrap();
    let args = json!({ "db_query": { "/limit": { "max": 2 }, "/sql": { "prefix": "SELECT" } } });
    let wanted =
        json!({ "env": place.slug, "tools": ["db_query", "env_list"], "expires_in": 60, "args": args });
    let (client, made) = minted(&place.client, &wanted);
    assert_eq!(
        (&made["tools"], &made["scopes"], &made["args"]),
        (&json!(["db_query"]), &json!(["db:read"]), &args)
    );
    let good = json!({ "sql": "SELECT 1 AS one", "limit": 2 });
    assert_eq!(client.output("db_query", &good).unwrap()["rows"], json!([[1]]));
    for (input, field) in [
        (json!({ "sql": "SELECT 1", "limit": 3 }), "/limit"),
        (json!({ "sql": "SELECT 1" }), "/limit"),
        (json!({ "sql": "WITH a AS (SELECT 1) SELECT * FROM a", "limit": 1 }), "/sql"),
    ] {
        assert_eq!(query(&client, &input), (403, field.to_owned()), "{input}");
        let answer = mcp(&client, "/mcp", "db_query", &input).send().unwrap();
        assert!(answer.text().unwrap().contains("forbidden"), "{:?}", answer.text());
    }
    // Nothing beside it, by any door.
    let tools = client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["db_query"]);
    for tool in ["db_execute", "app_describe", "env_list", "logs_query", "shell_run"] {
        assert_eq!(client.call(tool, &json!({})).unwrap().code(), "forbidden", "{tool}");
        let answer = mcp(&client, "/mcp", tool, &json!({})).send().unwrap();
        assert!(answer.text().unwrap().contains("forbidden"), "{tool}: {:?}", answer.text());
    }
    let blob = format!("/v1/blobs/{}", "0".repeat(64));
    for (method, path) in [
        ("GET", "/v1/keys"),
        ("GET", "/v1/envs"),
        ("GET", "/v1/tenants"),
        ("GET", "/v1/signing-keys"),
        ("POST", "/v1/signing-keys/rotate"),
        ("GET", "/v1/encryption-keys"),
        ("POST", "/v1/encryption-keys/rotate"),
        ("PUT", blob.as_str()),
        ("GET", "/v1/sandboxes"),
    ] {
        assert_eq!(status(&client, method, path), 403, "{method} {path}");
    }
    // A credential of one environment is none of another, nor of an app's host.
    assert_eq!(query(&client.clone().in_env(&other.slug), &good).0, 404);
    let tables = json!({ "items": { "columns": { "title": "text!" }, "access": "private" } });
    place.client.output("app_apply", &json!({ "manifest": { "database": { "tables": tables } } })).unwrap();
    let app = Request::get(&format!("{}/_/db/items", place.url)).bearer(made["token"].as_str().unwrap());
    assert_eq!(app.send().unwrap().status, 401);
    // What holds its tools holds it to them: a route is no tool, whatever its scopes open.
    let wide = json!({ "env": place.slug, "tools": ["site_deploy"], "expires_in": 60 });
    assert_eq!(status(&minted(&place.client, &wide).0, "PUT", &blob), 403);
    // Of a tool that looks for more inside, what was asked for counts, and no more than its maker has.
    let migrating = json!({ "database": { "migrations": [{ "name": "a", "sql": "CREATE TABLE made (a TEXT) STRICT" }] } });
    let plan = json!({ "manifest": migrating });
    let tools = json!(["app_plan"]);
    let (with, said) = minted(
        &place.client,
        &json!({ "env": place.slug, "tools": tools, "scopes": ["app:read", "db:read", "db:write", "key:admin"], "expires_in": 60 }),
    );
    assert_eq!(said["scopes"], json!(["app:read", "db:read", "db:write"]));
    let (bare, _) = minted(&place.client, &json!({ "env": place.slug, "tools": tools, "expires_in": 60 }));
    assert_eq!(
        (with.call("app_plan", &plan).unwrap().status, bare.call("app_plan", &plan).unwrap().status),
        (200, 403)
    );
    assert_eq!(with.call("db_execute", &json!({ "sql": "SELECT 1" })).unwrap().code(), "forbidden");
    // Listed without its token, and by those it stands on alone.
    let listed = place.client.request("GET", "/v1/credentials").send().unwrap();
    let text = listed.text().unwrap().to_owned();
    assert!(text.contains(made["id"].as_str().unwrap()) && !text.contains(made["token"].as_str().unwrap()));
    let own = client.request("GET", "/v1/credentials").send().unwrap().json().unwrap();
    assert_eq!(own["credentials"], json!([]));
}

#[test]
fn what_is_wrong_with_a_request_for_a_credential_is_said_where_it_stands() {
    let place = Place::new("credentials-wrong").unwrap();
    let good = json!({ "env": place.slug, "scopes": ["db:read"], "expires_in": 60 });
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, expected, field) in [
        (without("scopes"), 400, "/tools"),
        (without("expires_in"), 400, "/expires_in"),
        (with("env", json!("nowhere")), 404, "/env"),
        (with("env", json!(1)), 400, "/env"),
        (with("scopes", json!([])), 403, "/scopes"),
        (with("scopes", json!(["key:admin"])), 403, "/scopes"),
        (with("scopes", json!(["db:none"])), 400, "/scopes/0"),
        (with("tools", json!([])), 400, "/tools"),
        (with("tools", json!(["db_query", "nothing"])), 400, "/tools/1"),
        (with("tools", json!(["db_execute"])), 403, "/tools"),
        (with("tools", json!("db_query")), 400, "/tools"),
        (with("expires_in", json!(0)), 400, "/expires_in"),
        (with("expires_in", json!(86_401)), 400, "/expires_in"),
        (with("expires_in", json!(-1)), 400, "/expires_in"),
        (with("expires_in", json!("60")), 400, "/expires_in"),
        (with("source", json!("somewhere")), 400, "/source"),
        (with("source", json!(["10.0.0.0/8", "10.0.0.0/33"])), 400, "/source/1"),
        (with("source", json!([])), 400, "/source"),
        (with("args", json!({ "nothing": { "/a": { "max": 1 } } })), 400, "/args/nothing"),
        (with("args", json!({ "db_query": { "limit": { "max": 1 } } })), 400, "/args/db_query/limit"),
        (with("args", json!({ "db_query": { "/limit": { "least": 1 } } })), 400, "/args/db_query/~1limit"),
        (with("speed", json!(1)), 400, "/speed"),
    ] {
        let refused = mint(&place.client, &body);
        let problem = refused.json().unwrap();
        assert_eq!(
            (refused.status, problem["field"].as_str()),
            (expected, Some(field)),
            "{body}: {problem:#}"
        );
    }
    let mut rules = with("tools", json!(["db_query"]));
    rules["args"] = json!({ "logs_query": { "/limit": { "max": 1 } } });
    assert_eq!(mint(&place.client, &rules).json().unwrap()["field"], "/args/logs_query");
    let nobody = Client::new(&place.steading.ready().url);
    assert_eq!(mint(&nobody, &good).status, 401);
    // The same once more is the same credential, and its token is not shown again.
    let once = || {
        let request = place.client.request("POST", "/v1/credentials").header("idempotency-key", "mint-once");
        request.json(&good).send().unwrap().json().unwrap()
    };
    let (first, again) = (once(), once());
    assert_eq!(first["id"], again["id"]);
    assert!(first["token"].is_string() && again["token"].is_null());
}

#[test]
fn a_child_is_never_more_than_its_parent_and_ends_with_it() {
    let place = Place::new("credentials-children").unwrap();
    let other = Place::new("credentials-elsewhere").unwrap();
    let (key_id, key) = made_key(&place.client, &json!({ "name": "root" }));
    let parent = json!({
        "env": place.slug, "tools": ["db_query", "logs_query"], "expires_in": 600,
        "source": "127.0.0.0/8", "args": { "db_query": { "/limit": { "max": 5 } } },
    });
    let (parent, made) = minted(&key, &parent);
    let sql = |limit: u32| json!({ "sql": "SELECT 1", "limit": limit });
    // Every way to ask for more.
    let more = json!({
        "tools": ["db_query", "db_execute"], "scopes": ["db:read", "db:write", "key:admin"], "expires_in": 86_400,
        "source": ["127.0.0.1", "::/0", "10.0.0.0/8"], "args": { "db_query": { "/limit": { "max": 1000 } } },
    });
    let (child, said) = minted(&parent, &more);
    assert_eq!((&said["tools"], &said["scopes"]), (&json!(["db_query"]), &json!(["db:read"])));
    assert_eq!((&said["source"], &said["parent"]), (&json!(["127.0.0.1/32"]), &made["id"]));
    assert!(said["expires_at"].as_str() <= made["expires_at"].as_str(), "{said:#}");
    assert_eq!((query(&child, &sql(5)).0, query(&child, &sql(6)).0), (200, 403));
    // Scopes alone do not free it of its parent's tools.
    let (free, said) = minted(&parent, &json!({ "scopes": ["db:read", "db:write"], "expires_in": 60 }));
    assert_eq!((&said["tools"], query(&free, &sql(6)).0), (&json!(["db_query", "logs_query"]), 403));
    for (body, expected) in [
        (json!({ "env": other.slug, "tools": ["db_query"], "expires_in": 60 }), 404),
        (json!({ "tools": ["db_execute"], "expires_in": 60 }), 403),
        (json!({ "tools": ["db_query"], "expires_in": 60, "source": "10.0.0.0/8" }), 403),
    ] {
        assert_eq!(mint(&parent, &body).status, expected, "{body}");
    }
    // It makes no keys, and sees and ends what stands on it alone.
    assert_eq!(parent.request("POST", "/v1/keys").json(&json!({ "name": "k" })).send().unwrap().status, 403);
    let path = |made: &Value| format!("/v1/credentials/{}", made["id"].as_str().unwrap());
    let (_, beside) = minted(&key, &json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 60 }));
    assert_eq!(status(&parent, "DELETE", &path(&beside)), 404);
    assert_eq!(status(&child, "DELETE", &path(&made)), 404);
    assert_eq!(status(&other.client.clone().with_key("stead_key_none"), "DELETE", &path(&made)), 401);
    assert_eq!(query(&child, &sql(1)).0, 200);
    // Its parent's end is its own, at once.
    assert_eq!(status(&key, "DELETE", &path(&made)), 200);
    assert_eq!([query(&parent, &sql(1)).0, query(&child, &sql(1)).0, query(&free, &sql(1)).0], [401; 3]);
    let (last, _) = minted(&key, &json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 60 }));
    assert_eq!(query(&last, &sql(1)).0, 200);
    assert_eq!(status(&place.client.clone().without_env(), "DELETE", &format!("/v1/keys/{key_id}")), 200);
    assert_eq!(query(&last, &sql(1)).0, 401, "its key is gone");
    let (brief, _) =
        minted(&place.client, &json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 1 }));
    assert!(eventually(PATIENCE, || (query(&brief, &sql(1)).0 == 401).then_some(())).is_some());
}

#[test]
fn a_stolen_credential_opens_nothing_from_another_address() {
    let place = Place::new("credentials-source").unwrap();
    let (here, elsewhere): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
    let wanted = json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 60, "source": "127.0.0.2" });
    let (token, _) = minted(&place.client, &wanted);
    let (_, key) = made_key(&place.client, &json!({ "name": "there", "cidrs": ["127.0.0.2/32"] }));
    let key = key.without_env();
    let input = json!({ "sql": "SELECT 1" });
    for client in [&token, &key] {
        let requests = || {
            [
                client.request("POST", "/v1/tools/db_query").header("steading-env", &place.slug).json(&input),
                mcp(client, &format!("/mcp/{}", place.slug), "db_query", &input),
                client.request("GET", "/v1/tools"),
                client.request("GET", "/v1/credentials"),
            ]
        };
        for request in requests() {
            assert_eq!(request.clone().from(elsewhere).send().unwrap().status, 200);
            let refused = request.clone().from(here).send().unwrap();
            assert_eq!((refused.status, &refused.json().unwrap()["code"]), (401, &json!("unauthenticated")));
            let claimed = request.from(here).header("x-forwarded-for", "127.0.0.2");
            assert_eq!(claimed.send().unwrap().status, 401, "nobody's word is taken");
        }
    }
    // A key that is good in one place makes none that is good in another.
    let wider = |body: Value| {
        let request = key.request("POST", "/v1/keys").json(&body);
        request.from(elsewhere).send().unwrap()
    };
    assert_eq!(wider(json!({ "name": "wide", "cidrs": ["127.0.0.1"] })).status, 403);
    assert_eq!(wider(json!({ "name": "like" })).json().unwrap()["cidrs"], json!(["127.0.0.2/32"]));
}

#[test]
fn a_proxy_is_nobody_who_asks_whatever_is_sent_through_it() {
    let launch = Steading::launch().env("STEADING_TRUSTED_PROXIES", "127.0.0.0/8");
    let steading = require(launch.start());
    let client = steading.client();
    let bound = |source: &str| {
        let wanted =
            json!({ "env": steading.ready().env, "tools": ["db_query"], "expires_in": 60, "source": source });
        let made = mint(&client, &wanted);
        assert_eq!(made.status, 201, "{:?}", made.text());
        client.clone().with_key(made.json().unwrap()["token"].as_str().unwrap()).without_env()
    };
    let (here, there) = (bound("127.0.0.0/8"), bound("198.51.100.0/24"));
    let open = |client: &Client, said: &[u8]| {
        let request = client.request("GET", "/v1/tools");
        let request = if said.is_empty() { request } else { request.header_bytes("x-forwarded-for", said) };
        request.send().unwrap().status
    };
    // As a proxy writes it: what the client has sent, then where it came from.
    for (said, expected) in [
        (&b"198.51.100.7"[..], (401, 200)),
        (b"127.0.0.1, 198.51.100.7", (401, 200)),
        (b"\xff, 198.51.100.7", (401, 200)),
        (b"127.0.0.1\xff, 203.0.113.9", (401, 401)),
        (b"198.51.100.7, \xff", (401, 401)),
        (b"unknown", (401, 401)),
        (b"127.0.0.1", (401, 401)),
        (b"", (401, 401)),
    ] {
        assert_eq!((open(&here, said), open(&there, said)), expected, "{}", said.escape_ascii());
    }
}

#[test]
fn a_key_is_rotated_with_a_time_in_which_both_are_good() {
    let place = Place::new("credentials-rotation").unwrap();
    let key = |name: &str| {
        made_key(
            &place.client,
            &json!({ "name": name, "env": place.slug, "expires_in": 9000, "cidrs": "127.0.0.0/8" }),
        )
    };
    let rotate = |client: &Client, id: &str, body: Value| {
        client.request("POST", &format!("/v1/keys/{id}/rotate")).json(&body).send().unwrap()
    };
    let open = |client: &Client| status(client, "GET", "/v1/tools");
    let (id, old) = key("kept");
    let made = rotate(&place.client, &id, json!({ "overlap_s": 600 }));
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")));
    let made = made.json().unwrap();
    let new = place.client.clone().with_key(made["key"].as_str().unwrap());
    assert_eq!((open(&old), open(&new)), (200, 200));
    assert_eq!(
        (&made["name"], made["env"].is_string(), made["expires_at"].is_string()),
        (&json!("kept"), true, true)
    );
    let keys = place.client.request("GET", "/v1/keys").send().unwrap().json().unwrap();
    let shown = keys["keys"].as_array().unwrap().iter().find(|key| key["id"] == id.as_str()).unwrap().clone();
    assert_eq!(shown["rotated_to"], made["id"]);
    assert_eq!((&shown["cidrs"], &made["cidrs"]), (&json!(["127.0.0.0/8"]), &json!(["127.0.0.0/8"])));
    assert!(shown["expires_at"].as_str() < made["expires_at"].as_str());
    assert_eq!(rotate(&place.client, &id, json!({})).status, 409, "it has a successor");

    let (id, old) = key("at-once");
    let (token, _) = minted(&old, &json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 60 }));
    assert_eq!(open(&token), 200);
    assert_eq!(rotate(&place.client, &id, json!({ "overlap_s": 0 })).status, 201);
    assert_eq!((open(&old), open(&token)), (401, 401), "what stood on it has ended with it");
    let (id, narrow) =
        made_key(&place.client, &json!({ "name": "narrow", "scopes": ["key:admin", "db:read"] }));
    let (wide, _) = key("wide");
    let narrow = narrow.without_env();
    assert_eq!(rotate(&narrow, &wide, json!({})).status, 403, "who is shown it would have more than before");
    assert_eq!(rotate(&narrow, &id, json!({ "overlap_s": 604_801 })).json().unwrap()["field"], "/overlap_s");
    assert_eq!(rotate(&narrow, "key_none", json!({})).status, 404);
    assert_eq!(rotate(&narrow, &id, json!({})).status, 201, "itself it may");
}

#[test]
fn another_key_signs_and_what_was_signed_holds() {
    let place = Place::new("credentials-signing").unwrap();
    let wanted = json!({ "env": place.slug, "tools": ["db_query"], "expires_in": 60 });
    let (token, _) = minted(&place.client, &wanted);
    let kids = || {
        let set = Request::get(&format!("{}/oauth/jwks.json", place.steading.ready().url)).send().unwrap();
        let set = set.json().unwrap()["keys"].as_array().unwrap().clone();
        set.into_iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = kids();
    let rotated = place.client.request("POST", "/v1/signing-keys/rotate").send().unwrap();
    assert_eq!(rotated.status, 200, "{:?}", rotated.text());
    let after = kids();
    assert!(before.iter().all(|kid| after.contains(kid)) && before[0] != after[0], "{before:?} {after:?}");
    assert_eq!(status(&token, "GET", "/v1/tools"), 200);
    assert_eq!(status(&minted(&place.client, &wanted).0, "GET", "/v1/tools"), 200);
    let listed = place.client.request("GET", "/v1/signing-keys").send().unwrap();
    let text = listed.text().unwrap();
    assert!(text.contains("retired") && text.contains("next") && !text.contains("sealed"), "{text}");
    let (_, tenant) = made_key(&place.client, &json!({ "name": "tenant" }));
    assert_eq!(status(&tenant, "POST", "/v1/signing-keys/rotate"), 403);
}

#[test]
fn the_command_line_mints_lists_and_revokes() {
    let place = Place::new("credentials-cli").unwrap();
    let run = |arguments: &[&str]| {
        let finished = finish(place.command(arguments), PATIENCE).unwrap();
        assert_eq!(finished.status.unwrap().code(), Some(0), "{arguments:?}: {finished:?}");
        finished.stdout
    };
    let args = r#"{"db_query":{"/limit":{"max":3}}}"#;
    let token = run(&["credential", "mint", "--tool", "db_query", "--expires-in", "60", "--args", args]);
    assert_eq!(token.lines().count(), 1, "the token and nothing else: {token}");
    let client = place.client.clone().with_key(token.trim()).without_env();
    assert_eq!(query(&client, &json!({ "sql": "SELECT 1", "limit": 3 })).0, 200);
    assert_eq!(query(&client, &json!({ "sql": "SELECT 1", "limit": 4 })).0, 403);
    let listed = run(&["credential", "list", "--json"]);
    assert!(!listed.contains(token.trim()));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mine = listed["credentials"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["args"]["db_query"]["/limit"]["max"] == 3)
        .unwrap()
        .clone();
    run(&["credential", "revoke", mine["id"].as_str().unwrap()]);
    assert_eq!(query(&client, &json!({ "sql": "SELECT 1", "limit": 3 })).0, 401);
    let key: Value =
        serde_json::from_str(&run(&["key", "create", "cli", "--cidr", "127.0.0.0/8", "--json"])).unwrap();
    let rotated = run(&["key", "rotate", key["id"].as_str().unwrap(), "--overlap", "0", "--json"]);
    let rotated: Value = serde_json::from_str(&rotated).unwrap();
    assert_eq!(rotated["cidrs"], json!(["127.0.0.0/8"]));
    assert!(run(&["key", "signing"]).contains("active"));
}
