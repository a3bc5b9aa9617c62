//! Plans from outside: what they bound, how a refusal says so, and that a change holds at once.

use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Steading, require};

/// A platform with an app of the tenant `acme`: the operator, the same in that environment, and the app's address.
struct Place {
    _server: Steading,
    operator: Client,
    inside: Client,
    url: String,
}

impl Place {
    fn new() -> Self {
        let server = require(Steading::start());
        let operator = server.client().without_env();
        let made = done(
            &operator,
            "POST",
            "/v1/provision",
            &json!({ "tenant": { "slug": "acme" }, "env": { "slug": "shop" } }),
        );
        let inside = operator.clone().in_env(made["env"].as_str().unwrap());
        let manifest = json!({
            "database": { "tables": { "notes": { "columns": { "text": "text" }, "access": "public_read" } } },
            "storage": { "buckets": { "docs": { "access": "public_read" } } },
            "site": { "files": { "index.html": "<h1>hello</h1>" } },
        });
        inside.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        let url = made["url"].as_str().unwrap().to_owned();
        Self { _server: server, operator, inside, url }
    }

    /// Sets the tenant's own limits.
    fn limit(&self, limits: &Value) {
        done(&self.operator, "PATCH", "/v1/tenants/acme", &json!({ "limits": limits }));
    }

    fn limits(&self) -> Value {
        done(&self.inside, "GET", "/v1/limits?env=shop", &json!({}))
    }

    fn visit(&self, path: &str) -> Response {
        Request::new("GET", &format!("{}{path}", self.url)).send().unwrap()
    }

    /// The refusal of a tool.
    fn refused(&self, tool: &str, input: &Value) -> Value {
        let answer = self.inside.call(tool, input).unwrap();
        assert_ne!(answer.status, 200, "{}", answer.body);
        answer.body
    }
}

fn call(client: &Client, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = client.request(method, path).json(body).send().unwrap();
    (answer.status, answer.json().unwrap_or_default())
}

fn done(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let (status, told) = call(client, method, path, body);
    assert!([200, 201].contains(&status), "{method} {path}: {told:#}");
    told
}

#[test]
fn visitors_of_one_app_are_held_up_by_its_plan_and_nobody_else() {
    let place = Place::new();
    let few = json!({ "environment": { "visits_per_second": 1, "visits_burst": 5 } });
    done(&place.operator, "PUT", "/v1/plans/few", &few);
    assert_eq!((0..20).filter(|_| place.visit("/").status == 200).count(), 20, "as configured");
    done(&place.operator, "PATCH", "/v1/tenants/acme", &json!({ "plan": "few" }));
    let answers: Vec<_> = (0..20).map(|n| place.visit(["/", "/_/db/notes"][n % 2])).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((5..=8).contains(&passed), "{passed} of 5 and one a second");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(refused.header("retry-after").is_some());
    assert!(refused.header("ratelimit-policy").unwrap().contains("visits"), "{:?}", refused.headers);
    let told = refused.json().unwrap();
    assert_eq!((&told["code"], &told["limit"]["value"]), (&json!("rate_limited"), &json!(5)), "{told}");
    // The tenant's own calls go on, and so does another app.
    place.inside.output("app_describe", &json!({})).unwrap();
    let other = done(&place.operator, "POST", "/v1/provision", &json!({ "env": { "slug": "other" } }));
    let other = other["url"].as_str().unwrap();
    assert!((0..20).all(|_| Request::new("GET", other).send().unwrap().status != 429));
    done(&place.operator, "PATCH", "/v1/tenants/acme", &json!({ "plan": "default" }));
    assert_eq!((0..20).filter(|_| place.visit("/").status == 200).count(), 20, "at once");
}

#[test]
fn a_full_database_refuses_rows_and_takes_them_when_the_plan_is_larger() {
    let place = Place::new();
    let text = "x".repeat(100_000);
    let insert =
        json!({ "sql": "INSERT INTO notes (id, text) VALUES (hex(randomblob(8)), ?1)", "params": [text] });
    place.inside.output("db_execute", &insert).unwrap();
    place.limit(&json!({ "environment": { "database_bytes": 2 << 20 } }));
    let full = (0..40).find_map(|_| {
        let answer = place.inside.call("db_execute", &insert).unwrap();
        (answer.status != 200).then_some(answer.body)
    });
    let full = full.unwrap();
    assert_eq!(full["code"], "quota_exceeded", "{full}");
    let (value, name) = (&full["limit"]["value"], &full["limit"]["name"]);
    assert_eq!((value, name), (&json!(2 << 20), &json!("database_bytes")), "{full}");
    let shown = place.limits();
    let database = &shown["environment_limits"]["database_bytes"];
    assert_eq!(database["limit"], 2 << 20, "{shown}");
    assert!(database["used"].as_u64().unwrap() > 1 << 20, "{shown}");
    let usage = place.inside.output("usage_query", &json!({})).unwrap();
    assert_eq!(usage["quotas"][0]["most"], 2 << 20, "{usage}");
    // What is there can be read and removed, and a larger plan takes more at once.
    let count = json!({ "sql": "SELECT count(*) FROM notes" });
    assert!(place.inside.output("db_query", &count).unwrap()["rows"][0][0].as_u64().unwrap() > 5);
    place.limit(&json!({ "environment": { "database_bytes": 4 << 20 } }));
    place.inside.output("db_execute", &insert).unwrap();
    place.limit(&json!({ "environment": { "database_bytes": 1 << 20 } }));
    assert_eq!(place.refused("db_execute", &insert)["code"], "quota_exceeded");
    place.inside.output("db_execute", &json!({ "sql": "DELETE FROM notes" })).unwrap();
    place.limit(&json!({}));
    place.inside.output("db_execute", &insert).unwrap();
}

#[test]
fn files_and_environments_are_as_many_as_the_plan_says() {
    let place = Place::new();
    let put = |name: &str| json!({ "bucket": "docs", "path": name, "text": "x".repeat(600) });
    place.limit(&json!({ "environment": { "files_bytes": 1_000 }, "tenant": { "environments": 2 } }));
    place.inside.output("storage_put", &put("a")).unwrap();
    let full = place.refused("storage_put", &put("b"));
    assert_eq!((&full["code"], &full["limit"]["value"]), (&json!("quota_exceeded"), &json!(1_000)), "{full}");
    assert_eq!(place.limits()["environment_limits"]["files_bytes"]["left"], 400);
    place.limit(&json!({ "environment": { "files_bytes": 2_000 }, "tenant": { "environments": 2 } }));
    place.inside.output("storage_put", &put("b")).unwrap();

    place.inside.output("env_create", &json!({ "slug": "second" })).unwrap();
    for (tool, input) in
        [("env_create", json!({ "slug": "third" })), ("env_branch", json!({ "slug": "third" }))]
    {
        let full = place.refused(tool, &input);
        assert_eq!(full["code"], "quota_exceeded", "{full}");
        assert_eq!(full["limit"]["name"], "environments", "{full}");
    }
    let shown = place.limits();
    assert_eq!(shown["limits"]["environments"], json!({ "limit": 2, "used": 2, "left": 0 }), "{shown}");
    place.limit(&json!({ "tenant": { "environments": 3 } }));
    place.inside.output("env_create", &json!({ "slug": "third" })).unwrap();
}

#[test]
fn a_tenant_sees_its_limits_and_sets_none() {
    let place = Place::new();
    let key = place.operator.request("POST", "/v1/keys").header("steading-tenant", "acme");
    let key = key.json(&json!({ "name": "ci" })).send().unwrap().json().unwrap();
    let theirs = place.operator.clone().with_key(key["key"].as_str().unwrap());
    place.limit(&json!({ "tenant": { "calls_per_second": 5, "calls_burst": 40 } }));
    let shown = done(&theirs, "GET", "/v1/limits?env=shop", &json!({}));
    assert_eq!(shown["limits"]["calls_burst"]["limit"], 40, "{shown}");
    assert_eq!(shown["plan"], "default");
    for (method, path) in [
        ("GET", "/v1/plans"),
        ("PUT", "/v1/plans/free"),
        ("DELETE", "/v1/plans/free"),
        ("PATCH", "/v1/tenants/acme"),
    ] {
        let (status, told) = call(&theirs, method, path, &json!({ "limits": {} }));
        assert_eq!((status, &told["code"]), (403, &json!("forbidden")), "{method} {path}: {told}");
    }
    // No more than its burst and what has come back meanwhile, however many connections ask at once.
    let began = std::time::Instant::now();
    let passed: usize = std::thread::scope(|scope| {
        let ask = || (0..20).filter(|_| call(&theirs, "GET", "/v1/envs", &json!({})).0 == 200).count();
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let most = 40 + 5 * (began.elapsed().as_secs() as usize + 1);
    assert!(passed <= most && passed >= 30, "{passed} of {most}");
    let (status, wrong) = call(
        &place.operator,
        "PATCH",
        "/v1/tenants/acme",
        &json!({ "limits": { "tenant": { "moons": 3 } } }),
    );
    assert_eq!((status, &wrong["field"]), (400, &json!("/limits/tenant/moons")), "{wrong}");
}
