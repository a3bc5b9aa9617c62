//! Every tool and every route of the live binary, tried with another tenant's things: the answer is that for things
//! which do not exist.

use serde_json::{Value, json};
use testkit::Client;
use testkit::http::{Request, Response};

use crate::assault_routes::of_sandbox;
use crate::assault_tenants::{Things, Told, Village, mcp};

/// Inputs of each tool that name things of `t`. A tool without names in its input has its plain one, which is tried
/// in the other's environment; no tool may be left out.
fn inputs(tool: &str, t: &Things) -> Option<Vec<Value>> {
    let blob = json!({ "files": { "index.html": { "sha256": t.blob } } });
    let release: u64 = t.release.parse().unwrap();
    let sql = |text: String| json!({ "sql": text });
    let deletion = |kind: &str, name: &str| json!({ "kind": kind, "name": name, "dry_run": true });
    Some(match tool {
        "app_describe" => vec![json!({})],
        "app_plan" => {
            vec![json!({ "manifest": { "site": blob } }), json!({ "manifest": { "secrets": [t.secret] } })]
        }
        "app_apply" => vec![
            json!({ "plan_id": t.plan }),
            json!({ "plan_id": t.plan, "confirm": t.confirm }),
            json!({ "manifest": { "site": blob } }),
            json!({ "manifest": { "secrets": [t.secret] } }),
        ],
        "app_rollback" => vec![json!({ "release": release })],
        "env_list" => vec![
            json!({ "external_id": t.external_id }),
            json!({ "tags": { "craft": t.tenant } }),
            json!({ "cursor": t.env }),
        ],
        // Its slug is taken or free for everybody alike: see `a_slug_is_taken_and_nothing_more_is_said`.
        "env_create" => vec![json!({ "template": t.slug })],
        "env_delete" => vec![
            json!({ "env": t.slug, "dry_run": true }),
            json!({ "env": t.env, "dry_run": true }),
            json!({ "env": t.slug, "confirm": t.confirm }),
            json!({ "env": t.env, "confirm": t.confirm }),
        ],
        // Refused in our own, so that it changes nothing.
        "env_snapshot" => vec![json!({ "note": t.slug, "name": "\n" })],
        "env_branch" => {
            vec![json!({ "snapshot": t.snapshot }), json!({ "snapshot": t.snapshot, "data": "none" })]
        }
        "env_merge" => vec![
            json!({ "from": t.slug, "dry_run": true }),
            json!({ "from": t.env, "dry_run": true }),
            json!({ "from": t.slug, "confirm": t.confirm }),
            json!({ "from": t.env, "confirm": t.plan }),
        ],
        "env_restore" => vec![
            json!({ "snapshot": t.snapshot, "dry_run": true }),
            json!({ "snapshot": t.snapshot, "confirm": t.confirm }),
        ],
        "db_query" => vec![
            sql(format!("SELECT * FROM {}", t.table)),
            sql(format!("ATTACH DATABASE '../{}/main.db' AS other", t.env)),
            sql(format!("SELECT readfile('../{}/main.db')", t.env)),
        ],
        "db_execute" => vec![
            sql(format!("DELETE FROM {}", t.table)),
            sql(format!("ATTACH DATABASE '../{}/main.db' AS other", t.env)),
            sql(format!("VACUUM INTO '../{}/copy.db'", t.env)),
        ],
        "db_migrate" => vec![
            json!({ "name": t.migration, "sql": "CREATE TABLE side (n INTEGER)", "dry_run": true }),
            json!({ "name": "x", "sql": format!("DROP TABLE {}", t.table), "confirm": t.confirm }),
        ],
        "db_load" => vec![json!({ "table": t.table, "format": "csv", "text": "title\na\n" })],
        "access_set" => vec![json!({ "table": t.table, "access": "private", "dry_run": true })],
        "access_explain" => vec![
            json!({ "on": t.table, "do": "list", "as": "anonymous" }),
            json!({ "on": t.table, "do": "get", "as": "admin", "id": t.plan }),
        ],
        // Changes nothing.
        "auth_configure" => vec![json!({})],
        "auth_users" => {
            vec![json!({ "user": t.user }), json!({ "query": t.email }), json!({ "cursor": t.user })]
        }
        // An address of theirs is free for us; an id of theirs is nobody's.
        "auth_user_set" => vec![json!({ "user": t.user, "role": "admin" })],
        // Workspaces are each credential's own; what would change one is refused.
        "shell_run" => vec![json!({ "command": "true", "cwd": t.env, "timeout_s": 0 })],
        "file_read" => vec![json!({ "path": t.env })],
        "file_write" => vec![json!({ "path": "/proc/none", "text": t.env })],
        "file_edit" => vec![json!({ "path": t.env, "old": "a", "new": "b" })],
        "file_list" => vec![json!({ "path": t.env })],
        "file_search" => vec![json!({ "path": t.env, "name": "*" })],
        "preview_open" => vec![json!({ "port": 0 })],
        "workspace_snapshot" => vec![json!({ "name": "\n" })],
        "workspace_restore" => vec![json!({ "snapshot": t.snapshot, "dry_run": true })],
        // The same for everybody.
        "skill_read" => vec![json!({ "name": "start-here" })],
        "function_deploy" => vec![
            json!({ "name": t.slug, "access": "public" }),
            json!({ "name": t.slug, "workspace_path": t.env }),
            json!({ "name": t.slug, "files": { "index.ts": { "sha256": t.blob } } }),
        ],
        "service_deploy" => vec![
            json!({ "name": t.slug, "access": "public" }),
            json!({ "name": t.slug, "command": "true", "workspace_path": t.env }),
            json!({ "name": t.slug, "command": "true", "files": { "a": { "sha256": t.blob } } }),
        ],
        "function_invoke" => vec![json!({ "name": t.slug })],
        "site_deploy" => vec![blob, json!({ "workspace_path": t.env })],
        // A name of theirs is free for us: see `names_are_each_environments_own`.
        "secret_set" => vec![json!({ "name": t.slug, "value": "not a secret's name" })],
        "resource_delete" => vec![
            deletion("secret", &t.secret),
            deletion("table", &t.table),
            deletion("snapshot", &t.snapshot),
            json!({ "kind": "site", "confirm": t.plan }),
            json!({ "kind": "secret", "name": t.secret, "confirm": t.confirm }),
        ],
        // It is of the live tables alone.
        "client_code" => vec![json!({})],
        // No bucket is made by a name that is none.
        "storage_bucket" => vec![json!({ "name": format!("{}!", t.slug) })],
        "storage_list" => vec![json!({ "bucket": t.slug }), json!({ "bucket": "any", "cursor": t.user })],
        "storage_get" => vec![json!({ "bucket": t.slug, "path": "a" })],
        "storage_put" => vec![json!({ "bucket": t.slug, "path": "a", "text": "" })],
        "storage_sign" => vec![json!({ "bucket": t.slug, "path": "a", "method": "get" })],
        "domain_set" => vec![json!({ "domain": format!("{}.localhost", t.slug) })],
        "domain_check" => vec![json!({ "domain": format!("{}.example.com", t.slug) })],
        "usage_query" => vec![json!({ "since": "a while" })],
        "logs_query" => vec![
            json!({ "request_id": t.request }),
            json!({ "text": t.tenant }),
            json!({ "cursor": t.request }),
        ],
        _ => return None,
    })
}

/// Requests of each route that name things of `t`.
fn requests(method: &str, route: &str, client: &Client, t: &Things) -> Option<Vec<Request>> {
    let plain = |path: &str| vec![client.request(&method.to_uppercase(), path)];
    let with = |path: &str, body: Value| plain(path).into_iter().map(|r| r.json(&body)).collect::<Vec<_>>();
    Some(match (method, route) {
        // Each tool has its own row in `inputs`.
        ("post", tool) if tool.starts_with("/v1/tools/") => vec![],
        ("get", "/v1/tools" | "/v1/schemas/manifest" | "/oauth/jwks.json") => plain(route),
        ("get", "/healthz" | "/readyz" | "/v1/openapi.json") => plain(route),
        // They ask for no credential and look nobody up; the page has another tag each time.
        (_, "/.well-known/oauth-protected-resource/mcp/{env}") => plain(&route.replace("{env}", "a")),
        ("get", "/oauth/device") => vec![],
        (_, it) if ["/oauth/", "/.well-known/", "/console/"].iter().any(|at| it.starts_with(at)) => plain(it),
        ("get", "/v1/tools/{tool}") => plain("/v1/tools/db_query"),
        ("head", "/v1/blobs/{sha256}") => plain(&format!("/v1/blobs/{}", t.blob)),
        ("put", "/v1/blobs/{sha256}") => plain(&format!("/v1/blobs/{}", t.blob))
            .into_iter()
            .map(|request| request.body(t.content.as_str()))
            .collect(),
        ("get", "/v1/envs") => {
            let by = |query: String| plain(&format!("/v1/envs?{query}"));
            [by(format!("external_id={}", t.external_id)), by(format!("cursor={}", t.env))].concat()
        }
        ("post", "/v1/envs") => with(route, json!({ "template": t.slug })),
        ("get", "/v1/envs/{env}") => {
            [plain(&format!("/v1/envs/{}", t.slug)), plain(&format!("/v1/envs/{}", t.env))].concat()
        }
        ("delete", "/v1/envs/{env}") => [&t.slug, &t.env]
            .into_iter()
            .flat_map(|env| {
                let path = format!("/v1/envs/{env}");
                [plain(&format!("{path}?dry_run=true")), plain(&format!("{path}?confirm={}", t.confirm))]
            })
            .flatten()
            .collect(),
        ("get", "/v1/envs/{env}/egress") => {
            [plain(&format!("/v1/envs/{}/egress", t.slug)), plain(&format!("/v1/envs/{}/egress", t.env))]
                .concat()
        }
        ("put", "/v1/envs/{env}/egress") => [&t.slug, &t.env]
            .into_iter()
            .flat_map(|env| with(&format!("/v1/envs/{env}/egress"), json!({ "allow": [] })))
            .collect(),
        ("get", "/v1/envs/{env}/sandboxes") => [
            plain(&format!("/v1/envs/{}/sandboxes", t.slug)),
            plain(&format!("/v1/envs/{}/sandboxes", t.env)),
        ]
        .concat(),
        ("put", "/v1/envs/{env}/sandboxes") => [&t.slug, &t.env]
            .into_iter()
            .flat_map(|env| with(&format!("/v1/envs/{env}/sandboxes"), json!({ "isolation": "namespaces" })))
            .collect(),
        ("get", "/v1/envs/{env}/export") => {
            [plain(&format!("/v1/envs/{}/export", t.slug)), plain(&format!("/v1/envs/{}/export", t.env))]
                .concat()
        }
        ("get" | "post", "/v1/envs/{env}/backups") => {
            [plain(&format!("/v1/envs/{}/backups", t.slug)), plain(&format!("/v1/envs/{}/backups", t.env))]
                .concat()
        }
        ("get" | "delete", "/v1/envs/{env}/backups/{backup}") => {
            plain(&format!("/v1/envs/{}/backups/{}", t.slug, t.snapshot))
        }
        // Its slug is taken or free for everybody alike.
        ("post", "/v1/envs/{env}/import") => plain("/v1/envs/no--slug/import"),
        ("get", "/v1/keys") => plain(&format!("/v1/keys?cursor={}", t.key_id)),
        ("post", "/v1/keys") => [
            with(route, json!({ "name": "k", "env": t.slug })),
            with(route, json!({ "name": "k", "env": t.env })),
        ]
        .concat(),
        ("delete", "/v1/keys/{key}") => plain(&format!("/v1/keys/{}", t.key_id)),
        ("get", "/v1/members") => plain(&format!("/v1/members?cursor={}", t.member)),
        // Of a role that is none, so that nobody is invited.
        ("post", "/v1/members") => with(route, json!({ "email": t.email, "role": t.slug })),
        ("patch", "/v1/members/{member}") => {
            with(&format!("/v1/members/{}", t.member), json!({ "role": "owner" }))
        }
        ("delete", "/v1/members/{member}") => plain(&format!("/v1/members/{}", t.member)),
        ("post", "/v1/members/{member}/invitation") => plain(&format!("/v1/members/{}/invitation", t.member)),
        ("get", "/v1/budgets") => [
            plain(&format!("{route}?env={}", t.slug)),
            plain(&format!("{route}?env={}", t.env)),
            plain(&format!("{route}?cursor={}", t.budget)),
        ]
        .concat(),
        ("put", "/v1/budgets") => [&t.slug, &t.env]
            .into_iter()
            .flat_map(|env| with(route, json!({ "env": env, "unit": "tokens", "period": "day", "most": 0 })))
            .collect(),
        ("get" | "delete", "/v1/budgets/{budget}") => plain(&format!("/v1/budgets/{}", t.budget)),
        ("put", "/v1/budgets/{budget}") => with(&format!("/v1/budgets/{}", t.budget), json!({ "most": 0 })),
        // Of nobody's, or the caller's own.
        (
            "get",
            "/v1/audit/key" | "/v1/prices" | "/v1/sandboxes" | "/v1/plans" | "/v1/meters"
            | "/v1/usage/export",
        ) => plain(route),
        ("get", "/v1/costs/estimate") => plain("/v1/costs/estimate?envs=1"),
        ("put", "/v1/meters") => with(route, json!({ "meter": "calls", "micro": 1 })),
        // What it says of the caller's own tenant grows with each question; an export is of no one environment.
        ("get", "/v1/audit" | "/v1/audit/export" | "/v1/usage" | "/v1/limits" | "/v1/statements") => {
            [plain(&format!("{route}?env={}", t.slug)), plain(&format!("{route}?env={}", t.env))].concat()
        }
        ("put", "/v1/prices") => with(route, json!({ "model": t.slug, "input": 1, "output": 1 })),
        ("post", "/v1/keys/{key}/rotate") => with(&format!("/v1/keys/{}/rotate", t.key_id), json!({})),
        ("get", "/v1/credentials") => plain(&format!("/v1/credentials?cursor={}", t.key_id)),
        ("post", "/v1/credentials") => [&t.slug, &t.env]
            .into_iter()
            .flat_map(|env| with(route, json!({ "env": env, "scopes": ["db:read"], "expires_in": 60 })))
            .collect(),
        ("delete", "/v1/credentials/{credential}") => plain(&format!("/v1/credentials/{}", t.key_id)),
        // The operator's alone: nobody's programs name anybody.
        ("post", "/v1/signing-keys/rotate" | "/v1/encryption-keys/rotate") => plain(route),
        ("get" | "put", "/v1/runner" | "/v1/signing-keys" | "/v1/encryption-keys" | "/metrics") => {
            plain(route)
        }
        ("put" | "delete", "/v1/plans/{plan}") => plain(&format!("/v1/plans/{}", t.slug)),
        // No sandbox is made by a name that is none.
        ("post", "/v1/sandboxes") => with(route, json!({ "name": format!("{}!", t.slug) })),
        (_, route) if route.starts_with("/v1/sandboxes/{sandbox}") => {
            return of_sandbox(method, route, client, t);
        }
        ("get", "/v1/tenants") => plain(&format!("/v1/tenants?cursor={}", t.tenant_id)),
        ("post", "/v1/tenants") => with(route, json!({ "slug": t.tenant })),
        ("get" | "delete", "/v1/tenants/{tenant}") => plain(&format!("/v1/tenants/{}", t.tenant_id)),
        ("patch", "/v1/tenants/{tenant}") => {
            with(&format!("/v1/tenants/{}", t.tenant), json!({ "name": "x" }))
        }
        (
            "post",
            "/v1/tenants/{tenant}/suspend" | "/v1/tenants/{tenant}/resume" | "/v1/tenants/{tenant}/restore",
        ) => plain(&route.replace("{tenant}", &t.tenant)),
        ("post", "/v1/provision") => [
            with(route, json!({ "tenant": { "slug": t.tenant } })),
            with(route, json!({ "env": { "template": t.slug } })),
        ]
        .concat(),
        _ => return None,
    })
}

/// One of the names that things have.
type NameOf = fn(&Things) -> &str;

/// The same question about `theirs` and about nothing must have the same answer.
struct Pair<'a> {
    theirs: &'a Things,
    missing: &'a Things,
    asked: u32,
    wrong: Vec<String>,
}

impl Pair<'_> {
    fn ask(&mut self, what: &str, question: impl Fn(&Things) -> Vec<Request>) {
        let answers = |things: &Things| -> Vec<Told> {
            let send = |request: Request| -> Response { request.send().unwrap() };
            question(things).into_iter().map(|request| things.told(&send(request))).collect()
        };
        let (theirs, missing) = (answers(self.theirs), answers(self.missing));
        self.asked += u32::try_from(theirs.len()).unwrap();
        for (n, (theirs, missing)) in theirs.iter().zip(&missing).enumerate() {
            if theirs != missing {
                self.wrong.push(format!("{what}, no. {n}:\n  theirs  {theirs:?}\n  missing {missing:?}"));
            }
            assert_ne!(theirs.status, 500, "{what}, no. {n}: {theirs:?}");
        }
    }
}

#[test]
fn what_is_anothers_is_answered_like_what_does_not_exist() {
    let village = Village::found();
    let before = village.their_state();
    let (theirs, missing) = (&village.theirs, &village.theirs.missing(&village.ours.confirm));
    let mut pair = Pair { theirs, missing, asked: 0, wrong: Vec::new() };
    let operator = village.steading.client().without_env();
    let get = |path: &str| operator.request("GET", path).send().unwrap().json().unwrap();
    let tools: Vec<String> = get("/v1/tools")["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().into())
        .collect();
    assert!(tools.len() >= 15, "{tools:?}");
    for (kind, key) in village.our_keys.each() {
        let client = village.client(key);
        for tool in &tools {
            let Some(_) = inputs(tool, theirs) else {
                panic!("{tool} is not in the matrix: add it to `inputs`")
            };
            let of = |t: &Things| inputs(tool, t).unwrap();
            let path = format!("/v1/tools/{tool}");
            let json_call = |name: &str, value: &str, input: &Value| {
                client.request("POST", &path).header(name, value).json(input)
            };
            let what = |how: &str| format!("{tool} with a {kind} key, {how}");
            // Their environment and their tenant, whatever the input.
            pair.ask(&what("Steading-Env: slug"), |t| {
                of(theirs).iter().map(|input| json_call("steading-env", &t.slug, input)).collect()
            });
            pair.ask(&what("Steading-Env: id"), |t| {
                of(theirs).iter().map(|input| json_call("steading-env", &t.env, input)).collect()
            });
            pair.ask(&what("Steading-Tenant: slug"), |t| {
                of(theirs).iter().map(|input| json_call("steading-tenant", &t.tenant, input)).collect()
            });
            pair.ask(&what("Steading-Tenant: id"), |t| {
                of(theirs).iter().map(|input| json_call("steading-tenant", &t.tenant_id, input)).collect()
            });
            pair.ask(&what("/mcp/slug"), |t| {
                of(theirs)
                    .iter()
                    .map(|input| mcp(&client, &format!("/mcp/{}", t.slug), tool, input))
                    .collect()
            });
            pair.ask(&what("/mcp/id"), |t| {
                of(theirs).iter().map(|input| mcp(&client, &format!("/mcp/{}", t.env), tool, input)).collect()
            });
            // Their things, asked for in our environment.
            let ours = &village.ours.slug;
            pair.ask(&what("in our environment by JSON"), |t| {
                of(t).iter().map(|input| json_call("steading-env", ours, input)).collect()
            });
            pair.ask(&what("in our environment by MCP"), |t| {
                of(t).iter().map(|input| mcp(&client, &format!("/mcp/{ours}"), tool, input)).collect()
            });
        }
    }
    let paths = get("/v1/openapi.json")["paths"].clone();
    let mut routes: Vec<(String, String)> = paths
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (method.clone(), path.clone()))
        })
        .collect();
    routes.push(("get".to_owned(), "/v1/tools/{tool}".to_owned()));
    routes.push(("get".to_owned(), "/v1/openapi.json".to_owned()));
    for (kind, key) in village.our_keys.each() {
        let client = village.client(key);
        for (method, route) in &routes {
            let Some(_) = requests(method, route, &client, theirs) else {
                panic!("{method} {route} is not in the matrix: add it to `requests`")
            };
            let what = |how: &str| format!("{method} {route} with a {kind} key, {how}");
            let ask = |t: &Things| requests(method, route, &client, t).unwrap();
            let ours = &village.ours.slug;
            pair.ask(&what("in our environment"), |t| {
                ask(t).into_iter().map(|request| request.header("steading-env", ours)).collect()
            });
            pair.ask(&what("without an environment"), ask);
            let headers: [(&str, NameOf); 4] = [
                ("steading-env", |t| &t.slug),
                ("steading-env", |t| &t.env),
                ("steading-tenant", |t| &t.tenant),
                ("steading-tenant", |t| &t.tenant_id),
            ];
            for (header, value) in headers {
                pair.ask(&what(header), |t| {
                    ask(theirs).into_iter().map(|request| request.header(header, value(t))).collect()
                });
            }
        }
    }
    assert!(pair.asked > 1_000, "only {} questions were asked", pair.asked);
    assert!(
        pair.wrong.is_empty(),
        "{} of {} differ:\n{}",
        pair.wrong.len(),
        pair.asked,
        pair.wrong.join("\n")
    );
    assert_eq!(village.their_state(), before);
}

#[test]
fn a_slug_is_taken_and_nothing_more_is_said() {
    let village = Village::found();
    let client = village.client(&village.our_keys.wide);
    let taken = client.call("env_create", &json!({ "slug": village.theirs.slug })).unwrap();
    assert_eq!((taken.status, taken.code()), (409, "conflict"));
    let said = taken.body.to_string();
    let theirs = &village.theirs;
    for secret in [&theirs.env, &theirs.tenant_id, &theirs.external_id] {
        assert!(!said.contains(secret), "{said}");
    }
    // An external id is the tenant's own: the same one of another tenant is another environment.
    let made = client.output("env_create", &json!({ "external_id": theirs.external_id })).unwrap();
    assert_ne!(made["env"], json!(theirs.env));
    let again = client.output("env_create", &json!({ "external_id": theirs.external_id })).unwrap();
    assert_eq!(again["env"], made["env"]);
}

#[test]
fn names_are_each_environments_own() {
    let village = Village::found();
    let (theirs, missing) = (&village.theirs, &village.theirs.missing(""));
    let ours = village.client(&village.our_keys.wide).in_env(&village.ours.slug);
    for things in [theirs, missing] {
        let secret = json!({ "name": things.secret, "value": "ours" });
        assert_eq!(ours.output("secret_set", &secret).unwrap(), json!({ "version": 1 }));
        let table = format!("CREATE TABLE t{} (n INTEGER)", things.tenant);
        let migration = json!({ "name": things.migration, "sql": table });
        assert_eq!(ours.output("db_migrate", &migration).unwrap()["applied"], json!(true));
    }
}

#[test]
fn an_idempotency_key_is_its_tenants_own() {
    let village = Village::found();
    let create = |key: &str, slug: &str| {
        let request = village.client(key).request("POST", "/v1/tools/env_create");
        request.header("idempotency-key", "order-7").json(&json!({ "slug": slug })).send().unwrap()
    };
    let theirs = create(&village.their_keys.wide, "potter-second");
    assert_eq!(theirs.status, 200, "{:?}", theirs.text());
    let ours = create(&village.our_keys.wide, "weaver-second");
    assert_eq!(ours.status, 200, "{:?}", ours.text());
    assert_ne!(ours.json().unwrap()["env"], theirs.json().unwrap()["env"]);
}

#[test]
fn an_apps_host_has_no_platform_and_the_platform_no_app() {
    let village = Village::found();
    let port = village.steading.authority().rsplit(':').next().unwrap();
    for label in [village.theirs.slug.clone(), format!("1--{}", village.theirs.slug)] {
        for path in ["/v1/tools", "/v1/envs", "/v1/openapi.json", "/mcp", "/oauth/jwks.json", "/v1/keys"] {
            let url = format!("http://{label}.localhost:{port}{path}");
            let response = Request::get(&url).bearer(&village.steading.ready().key).send().unwrap();
            assert_eq!(response.status, 404, "{url}: {:?}", response.text());
        }
    }
    // A blob is its environment's: no host serves it by its hash.
    for host in [&village.theirs.slug, &village.ours.slug] {
        for path in [format!("/v1/blobs/{}", village.theirs.blob), format!("/{}", village.theirs.blob)] {
            let response = Request::get(&format!("http://{host}.localhost:{port}{path}")).send().unwrap();
            assert_eq!(response.status, 404, "{path}");
        }
    }
    // An address that nobody has looks like one whose app is not there.
    for label in ["fletcher-shop", "9--fletcher-shop"] {
        let missing = Request::get(&format!("http://{label}.localhost:{port}/")).send().unwrap();
        assert_eq!(missing.status, 404, "{label}");
    }
}
