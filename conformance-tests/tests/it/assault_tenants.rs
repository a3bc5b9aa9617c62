//! Two tenants on one platform, and what each gets to know of the other.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Steading, require};

/// A tenant's name, keys and things, or names of things that nobody has.
#[derive(Debug, Clone)]
pub struct Things {
    pub tenant: String,
    pub tenant_id: String,
    pub slug: String,
    pub env: String,
    pub plan: String,
    pub snapshot: String,
    pub confirm: String,
    pub blob: String,
    pub content: String,
    pub secret: String,
    pub table: String,
    pub migration: String,
    pub external_id: String,
    pub request: String,
    pub key_id: String,
    pub member: String,
    pub release: String,
    pub user: String,
    pub email: String,
    pub sandbox: String,
    pub budget: String,
}

/// A tenant's credentials.
#[derive(Debug, Clone)]
pub struct Keys {
    pub wide: String,
    pub bound: String,
    pub readonly: String,
    pub hands: String,
}

impl Keys {
    pub fn each(&self) -> [(&'static str, &str); 4] {
        [
            ("tenant-wide", &self.wide),
            ("bound", &self.bound),
            ("read-only", &self.readonly),
            ("sandbox", &self.hands),
        ]
    }
}

/// A platform with two tenants.
pub struct Village {
    pub steading: Steading,
    pub ours: Things,
    pub our_keys: Keys,
    pub theirs: Things,
    pub their_keys: Keys,
}

impl Village {
    pub fn found() -> Self {
        let steading = require(
            Steading::launch()
                .env("STEADING_LIMITS_KEY_PER_SECOND", "1000000")
                .env("STEADING_LIMITS_KEY_BURST", "1000000")
                .env("STEADING_LIMITS_TENANT_PER_SECOND", "1000000")
                .env("STEADING_LIMITS_TENANT_BURST", "1000000")
                .start(),
        );
        let (ours, our_keys) = settle(&steading, "weaver", 1);
        let (theirs, their_keys) = settle(&steading, "potter", 3);
        Self { steading, ours, our_keys, theirs, their_keys }
    }

    pub fn client(&self, key: &str) -> Client {
        Client::new(&self.steading.ready().url).with_key(key)
    }

    /// Everything about `their` side that must stay as it is.
    pub fn their_state(&self) -> Value {
        let client = self.client(&self.their_keys.wide);
        let app = client.clone().in_env(&self.theirs.slug);
        let hands = self.client(&self.their_keys.hands).in_env(&self.theirs.slug);
        let get = |path: &str| client.request("GET", path).send().unwrap().json().unwrap();
        let rows = json!({ "sql": format!("SELECT * FROM {}", self.theirs.table) });
        let port = self.steading.authority().rsplit(':').next().unwrap();
        let site = Request::get(&format!("http://{}.localhost:{port}/", self.theirs.slug)).send().unwrap();
        let mut keys = get("/v1/keys");
        for key in keys["keys"].as_array_mut().unwrap() {
            key.as_object_mut().unwrap().remove("last_used_at");
        }
        json!({
            "app": app.output("app_describe", &json!({})).unwrap(),
            "rows": app.output("db_query", &rows).unwrap(),
            "envs": get("/v1/envs"),
            "env": get(&format!("/v1/envs/{}", self.theirs.slug)),
            "keys": keys,
            "budgets": get("/v1/budgets"),
            "sandboxes": hands.request("GET", "/v1/sandboxes").send().unwrap().json().unwrap(),
            "site": site.text().unwrap(),
        })
    }
}

fn post(client: &Client, tenant: Option<&str>, path: &str, body: &Value) -> Value {
    let mut request = client.request("POST", path).json(body);
    if let Some(tenant) = tenant {
        request = request.header("steading-tenant", tenant);
    }
    let response = request.send().unwrap();
    let body = response.json().unwrap();
    assert_eq!(response.status, 201, "{path}: {body:#}");
    body
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Makes a tenant with an environment at release `releases`, and everything in it that has a name.
fn settle(steading: &Steading, name: &str, releases: u64) -> (Things, Keys) {
    let operator = steading.client().without_env();
    let tenant = post(&operator, None, "/v1/tenants", &json!({ "slug": name }));
    let new_key = |body: Value| post(&operator, Some(name), "/v1/keys", &body);
    let wide = new_key(json!({ "name": "wide" }));
    let key = text(&wide["key"]);
    let client = Client::new(&steading.ready().url).with_key(&key);
    let (slug, external_id) = (format!("{name}-shop"), format!("{name}-order-1"));
    let env = json!({ "slug": slug, "external_id": external_id, "tags": { "craft": name } });
    let env = client.output("env_create", &env).unwrap();
    let app = client.in_env(&slug);
    let readonly = json!(["app:read", "db:read", "logs:read", "env:read"]);
    let keys = Keys {
        bound: text(&new_key(json!({ "name": "bound", "env": slug }))["key"]),
        readonly: text(&new_key(json!({ "name": "reader", "scopes": readonly }))["key"]),
        hands: text(&new_key(json!({ "name": "hands", "scopes": ["sandbox:use", "site:write"] }))["key"]),
        wide: key,
    };
    let table = format!("{name}_wares");
    let columns = json!({ "columns": { "title": "text!" } });
    for release in 1..=releases {
        let manifest = json!({
            "database": { "tables": { table.as_str(): columns } },
            "site": { "files": { "index.html": format!("{name} {release}") } },
        });
        app.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    }
    let insert = format!("INSERT INTO {table} (title) VALUES ('of {name}')");
    app.output("db_execute", &json!({ "sql": insert })).unwrap();
    let secret = format!("{}_TOKEN", name.to_uppercase());
    app.output("secret_set", &json!({ "name": secret, "value": format!("value of {name}") })).unwrap();
    let migration = format!("001_{name}");
    app.output("db_migrate", &json!({ "name": migration, "sql": "CREATE TABLE side (n INTEGER)" })).unwrap();
    let plan = json!({ "manifest": { "site": { "files": { "index.html": "planned" } } } });
    let plan = text(&app.output("app_plan", &plan).unwrap()["plan_id"]);
    let snapshot = text(&app.output("env_snapshot", &json!({})).unwrap()["snapshot"]);
    let dry = app.output("env_delete", &json!({ "env": slug, "dry_run": true })).unwrap();
    let content = format!("a blob of {name}");
    let blob = sha256(&content);
    let put = app.request("PUT", &format!("/v1/blobs/{blob}")).body(content.as_str()).send().unwrap();
    assert_eq!(put.status, 201, "{:?}", put.text());
    let request = app.request("POST", "/v1/tools/app_describe").json(&json!({})).send().unwrap();
    let email = format!("{name}@example.org");
    let user = app.output("auth_user_set", &json!({ "user": email, "password": "correct horse" })).unwrap();
    let hands = Client::new(&steading.ready().url).with_key(&keys.hands).in_env(&slug);
    let sandbox = post(&hands, None, "/v1/sandboxes", &json!({ "name": "kiln" }));
    let budget = json!({ "env": slug, "unit": "tokens", "period": "day", "most": 1_000 });
    let wide_key = Client::new(&steading.ready().url).with_key(&keys.wide);
    let budget = wide_key.request("PUT", "/v1/budgets").json(&budget).send().unwrap().json().unwrap();
    let member = json!({ "email": email, "role": "viewer" });
    let member = wide_key.request("POST", "/v1/members").json(&member).send().unwrap().json().unwrap();
    let things = Things {
        tenant: name.to_owned(),
        tenant_id: text(&tenant["tenant"]),
        slug,
        env: text(&env["env"]),
        plan,
        snapshot,
        confirm: text(&dry["confirm"]),
        blob,
        content,
        secret,
        table,
        migration,
        external_id,
        request: request.header("x-request-id").unwrap().to_owned(),
        key_id: text(&wide["id"]),
        release: releases.to_string(),
        user: text(&user["user"]["id"]),
        email,
        sandbox: text(&sandbox["id"]),
        budget: text(&budget["id"]),
        member: text(&member["id"]),
    };
    (things, keys)
}

/// A tool call by MCP, without a session.
pub fn mcp(client: &Client, path: &str, tool: &str, input: &Value) -> Request {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": input },
    });
    client.request("POST", path).header("accept", "application/json, text/event-stream").json(&call)
}

/// From the machine's own tool, so that the hash is not the product's.
pub fn sha256(content: &str) -> String {
    let directory = testkit::temporary().unwrap();
    let path = directory.path().join("content");
    std::fs::write(&path, content).unwrap();
    let output = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

impl Things {
    /// Names of the same form that nobody has; `confirm` is one of something else.
    pub fn missing(&self, confirm: &str) -> Self {
        let other = |id: &str| {
            let last = if id.ends_with('0') { "1" } else { "0" };
            format!("{}{last}", &id[..id.len() - 1])
        };
        let content = "a blob of fletcher".to_owned();
        Self {
            tenant: "fletcher".to_owned(),
            tenant_id: other(&self.tenant_id),
            slug: "fletcher-shop".to_owned(),
            env: other(&self.env),
            plan: other(&self.plan),
            snapshot: other(&self.snapshot),
            confirm: confirm.to_owned(),
            blob: sha256(&content),
            content,
            secret: "FLETCHER_TOKEN".to_owned(),
            table: "fletcher_wares".to_owned(),
            migration: "001_fletcher".to_owned(),
            external_id: "fletcher-order-1".to_owned(),
            request: other(&self.request),
            key_id: other(&self.key_id),
            release: "9".to_owned(),
            user: other(&self.user),
            email: "fletcher@example.org".to_owned(),
            sandbox: other(&self.sandbox),
            budget: other(&self.budget),
            member: other(&self.member),
        }
    }

    fn names(&self) -> Vec<&str> {
        let Self { tenant, tenant_id, slug, env, plan, snapshot, confirm, blob, .. } = self;
        let Self { content, secret, table, migration, external_id, request, key_id, release, .. } = self;
        let Self { user, email, sandbox, budget, member, .. } = self;
        let mut names = vec![
            tenant_id.as_str(),
            slug,
            env,
            plan,
            snapshot,
            confirm,
            blob,
            content,
            secret,
            table,
            migration,
            external_id,
            request,
            key_id,
            user,
            email,
            sandbox,
            budget,
            member,
            tenant,
            release,
        ];
        // A release is a single digit, and digits are everywhere else.
        names.retain(|name| name.len() > 1);
        names
    }

    /// What is told about these things: status, headers and body without what differs from call to call, and with
    /// the names of the things left out.
    pub fn told(&self, response: &Response) -> Told {
        let forget =
            |text: &str| self.names().iter().fold(text.to_owned(), |text, name| text.replace(name, "<name>"));
        let per_call = ["date", "x-request-id", "content-length"];
        let headers = response.headers.iter().filter(|(name, _)| !per_call.contains(&name.as_str()));
        let text = String::from_utf8_lossy(&response.body);
        let mut body = serde_json::from_str::<Value>(&text).unwrap_or_else(|_| text.into());
        forget_what_is_new(&mut body);
        let body = forget(&body.to_string()).replace(&format!("release {}", self.release), "release <name>");
        Told {
            status: response.status,
            headers: headers.map(|(name, value)| (name.clone(), forget(value))).collect(),
            body,
        }
    }
}

/// Takes out what is new with each call: request ids, and the tokens that dry runs hand out. They are in answers, and
/// in answers within MCP's results, which are JSON in a text.
fn forget_what_is_new(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("request_id");
            fields.remove("confirm");
            fields.values_mut().for_each(forget_what_is_new);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_what_is_new),
        Value::String(text) => {
            if let Ok(mut inner @ Value::Object(_)) = serde_json::from_str::<Value>(text) {
                forget_what_is_new(&mut inner);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

/// An answer that can be compared with another.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}
