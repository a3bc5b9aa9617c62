//! A tenant's life from outside: provisioned, suspended, resumed, deleted, restored and removed for good.

use std::time::{Duration, Instant};

use conformance_tests::home_beside;
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Fsync, Postgres, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(60);

const COUNTS: &str = "let n = 0; export default () => Response.json({ n: ++n });";

fn call(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = client.request(method, path).json(body).send().unwrap();
    (answer.status, answer.json().unwrap_or_default())
}

fn done(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let (status, told) = call(client, method, path, body);
    assert!([200, 201].contains(&status), "{method} {path}: {told:#}");
    told
}

fn provision(client: &Client, item: &Value) -> Value {
    done(client, "POST", "/v1/provision", item)
}

fn visit(url: &str) -> Response {
    Request::new("GET", url).send().unwrap()
}

fn item(tenant: &str, env: &str) -> Value {
    json!({
        "tenant": { "external_id": tenant, "name": "Acme", "tags": { "tier": "gold" } },
        "env": { "external_id": env, "name": "Shop", "tags": { "region": "eu" } },
        "credential": { "scopes": ["db:read", "app:read"], "expires_in": 600 },
    })
}

/// The status and the code of a call of a tool.
fn told(client: &Client) -> (u16, String) {
    let (status, told) = call(client, "POST", "/v1/tools/app_describe", &json!({}));
    (status, told["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_suspended_tenant_opens_nothing_and_has_everything_when_it_is_resumed() {
    let server = require(Steading::start());
    let operator = server.client().without_env();
    let made = provision(&operator, &item("cust-1", "shop-1"));
    let (tenant, env, url) = (made["tenant"]["tenant"].clone(), made["env"].clone(), made["url"].clone());
    let (tenant, env, url) = (tenant.as_str().unwrap(), env.as_str().unwrap(), url.as_str().unwrap());
    let inside = operator.clone().in_env(env);
    let input = json!({ "name": "counts", "files": { "index.ts": COUNTS }, "access": "public" });
    inside.output("function_deploy", &input).unwrap();
    let counts = format!("{url}/_/fn/counts");
    assert_eq!(visit(&counts).json().unwrap()["n"], 1);
    assert_eq!(visit(&counts).json().unwrap()["n"], 2, "the same process");
    let minted = operator.clone().with_key(made["credential"]["token"].as_str().unwrap()).in_env(env);
    let key = operator.request("POST", "/v1/keys").header("steading-tenant", tenant);
    let key = key.json(&json!({ "name": "k" })).send().unwrap().json().unwrap();
    let key = operator.clone().with_key(key["key"].as_str().unwrap()).in_env(env);
    assert_eq!([told(&key).0, told(&minted).0], [200, 200]);

    let suspended = done(&operator, "POST", &format!("/v1/tenants/{tenant}/suspend"), &json!({}));
    assert_eq!(suspended["state"], "suspended");
    assert_eq!(told(&key), (403, "forbidden".to_owned()));
    assert_eq!(told(&minted), (401, "unauthenticated".to_owned()));
    for path in [url.to_owned(), counts.clone(), format!("{url}/_/health")] {
        let answer = visit(&path);
        assert_eq!(answer.status, 503, "{path}: {:?}", answer.text());
    }
    // Nor does it get anything new, by whoever.
    let (status, refused) = call(&operator, "POST", "/v1/provision", &item("cust-1", "shop-2"));
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "{refused}");
    assert_eq!(told(&inside).0, 404, "not even the operator works in what is closed");
    let inside_it = operator.request("POST", "/v1/envs").header("steading-tenant", tenant);
    let refused = inside_it.json(&json!({ "slug": "more" })).send().unwrap();
    assert_eq!(refused.status, 403, "{:?}", refused.text());
    // Others go on.
    let other = provision(&operator, &item("cust-2", "shop-1"));
    assert_ne!(other["env"], made["env"]);
    // A repeat changes nothing, and neither has a restart.
    done(&operator, "POST", &format!("/v1/tenants/{tenant}/suspend"), &json!({}));
    let server = server.restart().unwrap();
    let operator = server.client().without_env();
    assert_eq!(visit(&counts).status, 503);

    let resumed = done(&operator, "POST", &format!("/v1/tenants/{tenant}/resume"), &json!({}));
    assert_eq!(resumed["state"], "active");
    assert_eq!([told(&key).0, told(&minted).0], [200, 200]);
    assert_eq!(visit(&counts).json().unwrap()["n"], 1, "the process has ended meanwhile");
}

#[test]
fn a_deleted_tenant_is_restored_or_removed_with_all_that_is_its() {
    let server = require(Steading::start());
    let operator = server.client().without_env();
    let made = provision(&operator, &item("cust-1", "shop-1"));
    let (tenant, env) = (made["tenant"]["tenant"].as_str().unwrap(), made["env"].as_str().unwrap());
    let (slug, url) = (made["tenant"]["slug"].as_str().unwrap(), made["url"].as_str().unwrap());
    operator
        .clone()
        .in_env(env)
        .output(
            "app_apply",
            &json!({ "manifest": { "database": { "tables": { "notes": { "columns": { "a": "text" } } } } } }),
        )
        .unwrap();
    let minted = operator.clone().with_key(made["credential"]["token"].as_str().unwrap()).in_env(env);
    let path = format!("/v1/tenants/{tenant}");
    let (status, refused) = call(&operator, "DELETE", &path, &json!({}));
    assert_eq!((status, &refused["field"]), (400, &json!("/confirm")), "{refused}");
    let confirmed = format!("{path}?confirm={slug}");
    let deleted = done(&operator, "DELETE", &confirmed, &json!({}));
    assert_eq!(deleted["state"], "deleted");
    assert!(deleted["purge_after"].as_str().is_some(), "{deleted}");
    assert_eq!((told(&minted).0, visit(url).status), (401, 503));
    let (status, refused) = call(&operator, "POST", "/v1/provision", &item("cust-1", "shop-1"));
    assert_eq!((status, &refused["field"]), (409, &json!("/tenant/external_id")), "{refused}");
    assert_eq!(call(&operator, "POST", &format!("{path}/resume"), &json!({})).0, 409);
    assert_eq!(done(&operator, "POST", &format!("{path}/restore"), &json!({}))["state"], "active");
    assert_eq!(told(&minted).0, 200);

    // For good.
    let directory = server.ready().data_dir.join("envs").join(env);
    assert!(directory.is_dir());
    done(&operator, "DELETE", &format!("{confirmed}&purge=true"), &json!({}));
    let gone = eventually(PATIENCE, || (call(&operator, "GET", &path, &json!({})).0 == 404).then_some(()));
    assert!(gone.is_some());
    assert!(!directory.exists());
    assert_eq!((told(&minted).0, visit(url).status), (401, 404));
    let again = provision(&operator, &item("cust-1", "shop-1"));
    assert_eq!(again["tenant"]["made"], true);
    assert_ne!(again["env"], made["env"]);
    // The one that the operator's key is in stays.
    let (status, refused) = call(&operator, "DELETE", "/v1/tenants/default?confirm=default", &json!({}));
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")), "{refused}");
}

#[test]
fn what_a_builder_provisions_is_there_once_and_found_again() {
    let server = require(Steading::start());
    let operator = server.client().without_env();
    // Many at once, of the same.
    let all: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..12).map(|_| scope.spawn(|| provision(&operator, &item("cust-1", "shop-1")))).collect();
        asked.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(
        all.iter()
            .all(|it| (&it["env"], &it["tenant"]["tenant"]) == (&all[0]["env"], &all[0]["tenant"]["tenant"]))
    );
    let tokens: std::collections::BTreeSet<_> =
        all.iter().map(|it| it["credential"]["token"].as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 12, "each call gives a credential of its own");
    // In bulk: what is wrong with one hinders no other.
    let mut items: Vec<Value> = (0..60).map(|n| item(&format!("bulk-{n}"), "shop")).collect();
    items[7]["env"]["slug"] = "Not A Slug".into();
    items[8]["surprise"] = true.into();
    items[9]["credential"]["env"] = "default".into();
    items[10]["env"]["template"] = "none such".into();
    items[11]["credential"]["expires_in"] = 0.into();
    let told = provision(&operator, &json!({ "items": items }));
    let results = told["results"].as_array().unwrap();
    assert_eq!(results.len(), 60);
    assert_eq!(results[7]["error"]["field"], "/env/slug");
    assert_eq!(results[8]["error"]["code"], "invalid_input");
    assert_eq!(results[9]["error"]["field"], "/credential/env");
    assert_eq!(results[10]["error"]["field"], "/env/template");
    assert_eq!(results[11]["error"]["field"], "/credential/expires_in");
    assert_eq!(results.iter().filter(|it| it["env"].is_string()).count(), 55);
    for (items, field) in [(json!([]), "/items"), (json!(vec![item("a", "b"); 101]), "/items")] {
        let (status, refused) = call(&operator, "POST", "/v1/provision", &json!({ "items": items }));
        assert_eq!((status, &refused["field"]), (400, &json!(field)));
    }
    // A repeat with the same idempotency key makes nothing, and is not shown the token again.
    let wanted =
        json!({ "env": { "name": "Twice" }, "credential": { "scopes": ["db:read"], "expires_in": 60 } });
    let keyed = |body: &Value| {
        let request = operator.request("POST", "/v1/provision").header("idempotency-key", "once");
        let answer = request.json(body).send().unwrap();
        (answer.status, answer.json().unwrap())
    };
    let (first, again) = (keyed(&wanted).1, keyed(&wanted).1);
    assert!(first["credential"]["token"].is_string() && again["credential"]["token"].is_null(), "{again}");
    assert_eq!((&first["env"], &first["credential"]["id"]), (&again["env"], &again["credential"]["id"]));
    assert_eq!(keyed(&json!({ "env": { "name": "Another" } })).0, 422);
    // Found by what the builder knows.
    let one = done(&operator, "GET", "/v1/tenants?external_id=bulk-3", &Value::Null);
    assert_eq!(one["tenants"].as_array().unwrap().len(), 1);
    let tenant = one["tenants"][0]["tenant"].as_str().unwrap();
    let found = |query: &str| {
        let request = operator.request("GET", &format!("/v1/envs?{query}")).header("steading-tenant", tenant);
        let found = request.send().unwrap().json().unwrap();
        found["environments"].as_array().unwrap_or_else(|| panic!("{found}")).len()
    };
    assert_eq!([found("tags=region=eu"), found("tags=region=us"), found("external_id=shop")], [1, 0, 1]);
    let gold = done(&operator, "GET", "/v1/tenants?tags=tier%3Dgold", &Value::Null);
    assert_eq!(gold["tenants"].as_array().unwrap().len(), 56, "of what is refused nothing is made");
    let changed =
        done(&operator, "PATCH", &format!("/v1/tenants/{tenant}"), &json!({ "tags": { "tier": "tin" } }));
    assert_eq!((&changed["tags"], &changed["name"]), (&json!({ "tier": "tin" }), &json!("Acme")));
    let gold = done(&operator, "GET", "/v1/tenants?tags=tier%3Dgold", &Value::Null);
    assert_eq!(gold["tenants"].as_array().unwrap().len(), 55);
    // A tenant's own key provisions in its tenant, and names no other.
    let request =
        operator.request("POST", "/v1/keys").header("steading-tenant", tenant).json(&json!({ "name": "k" }));
    let key = request.send().unwrap().json().unwrap();
    let own = operator.clone().with_key(key["key"].as_str().unwrap());
    let mine = provision(&own, &json!({ "env": { "external_id": "mine" } }));
    assert!(mine["tenant"].is_null() && mine["env"].is_string(), "{mine}");
    assert_eq!(call(&own, "POST", "/v1/provision", &item("bulk-4", "shop")).0, 403);
    for path in ["suspend", "resume", "restore"] {
        assert_eq!(call(&own, "POST", &format!("/v1/tenants/{tenant}/{path}"), &json!({})).0, 403);
    }
}

#[test]
fn a_suspension_holds_at_another_gateway_within_a_second() {
    let postgres = require(Postgres::start(Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let one = require(launch().start());
    let other = home_beside(&one).unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let operator = one.client().without_env();
    let made = provision(&operator, &item("cust-1", "shop-1"));
    let (tenant, env) = (made["tenant"]["tenant"].as_str().unwrap(), made["env"].as_str().unwrap());
    let there = two.client().with_key(made["credential"]["token"].as_str().unwrap()).in_env(env);
    assert_eq!(told(&there).0, 200);
    let began = Instant::now();
    done(&operator, "POST", &format!("/v1/tenants/{tenant}/suspend"), &json!({}));
    let refused = eventually(PATIENCE, || (told(&there).0 == 401).then_some(began.elapsed()));
    assert!(
        refused.unwrap() < Duration::from_millis(2_000),
        "a second, and what a busy machine adds: {refused:?}"
    );
    done(&operator, "POST", &format!("/v1/tenants/{tenant}/resume"), &json!({}));
    assert!(eventually(PATIENCE, || (told(&there).0 == 200).then_some(())).is_some());
}

/// How many processes of this machine have `word` in their command.
fn running(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn what_always_runs_at_another_gateway_ends_with_its_tenant_and_begins_again() {
    let postgres = require(Postgres::start(Fsync::Off));
    let launch = || Steading::launch().env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let one = require(launch().start());
    let other = home_beside(&one).unwrap();
    let two = require(launch().data_dir(other.path()).start());
    let operator = one.client().without_env();
    let made = provision(&operator, &item("cust-1", "shop-1"));
    let (tenant, slug) = (made["tenant"]["tenant"].as_str().unwrap(), &made["tenant"]["slug"]);
    let word = format!("86400.{}", std::process::id());
    let there = two.client().in_env(made["env"].as_str().unwrap());
    let service = json!({ "name": "beat", "files": { "index.html": "ok" }, "access": "public", "always": true,
        "command": format!("sleep {word} & exec python3 -m http.server $PORT") });
    there.output("service_deploy", &service).unwrap();
    let runs = |wanted: bool, when: &str| {
        let seen = eventually(PATIENCE, || ((running(&word) > 0) == wanted).then_some(()));
        let logged = || there.output("logs_query", &json!({ "limit": 20 }));
        assert!(seen.is_some(), "{when}: {} run; {:?}", running(&word), logged());
    };
    runs(true, "deployed");
    for _ in 0..2 {
        done(&operator, "POST", &format!("/v1/tenants/{tenant}/suspend"), &json!({}));
        runs(false, "suspended");
        done(&operator, "POST", &format!("/v1/tenants/{tenant}/resume"), &json!({}));
        runs(true, "resumed");
    }
    let path = format!("/v1/tenants/{tenant}?confirm={}&purge=true", slug.as_str().unwrap());
    done(&operator, "DELETE", &path, &json!({}));
    runs(false, "removed");
    assert_eq!(call(&operator, "GET", &format!("/v1/tenants/{tenant}"), &json!({})).0, 404);
}

#[test]
fn tenants_are_led_by_command() {
    let server = require(Steading::start());
    let said = |arguments: &[&str]| {
        let output = server.command(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let (code, made) = said(&["tenant", "create", "acme", "--external-id", "c1", "--tag", "tier=gold"]);
    assert_eq!(
        (code, &made["state"], &made["tags"]),
        (Some(0), &json!("active"), &json!({ "tier": "gold" }))
    );
    for (command, state) in
        [("suspend", "suspended"), ("resume", "active"), ("delete", "deleted"), ("restore", "active")]
    {
        let (code, told) = said(&["tenant", command, "acme"]);
        assert_eq!((code, &told["state"]), (Some(0), &json!(state)), "{command}");
    }
    assert_eq!(said(&["tenant", "show", "acme"]).1["external_id"], "c1");
    let listed = said(&["tenant", "list", "--tag", "tier=gold"]).1;
    assert_eq!(listed["tenants"].as_array().unwrap().len(), 1);
    assert_eq!(said(&["tenant", "delete", "acme", "--purge"]).0, Some(0));
    assert_eq!(said(&["tenant", "show", "acme"]).0, Some(4));
}
