//! What holds for every tool, tried on a platform with real engines.

mod access;
mod around;
mod auth;
mod functions;
mod minted;
mod secrets;
mod skills;
mod storage;

use std::sync::Arc;

use capabilities::auth::{Auth, AuthLimits, Outside};
use capabilities::database::{Databases, Limits};
use capabilities::domains::{Dns, DomainSettings, Domains, Reserved};
use capabilities::hosting::Blobs;
use capabilities::logs::Logs;
use capabilities::mail::{Post, Route};
use capabilities::realtime::{Realtime, RealtimeLimits};
use capabilities::releases::{LiveCheck, Releases, Served};
use capabilities::rows::LiveApps;
use capabilities::snapshots::{Attic, Backups, SnapshotLimits, Snapshots};
use capabilities::storage::{Contents, LinkKeys, Storage, StorageLimits};
use control::{Control, ControlConfig};
use futures::future::BoxFuture;
use hands::{Hands, HandsLimits, Keeping, place_of};
use kernel::{Caller, Env, Principal, Proof as _, Result, Scope, Scopes, Timestamp};
use sandbox::local::{self, Local};
use sandbox::preview::Labels;
use sandbox::workspace::checkpoints::Checkpoints;
use sandbox::workspace::templates::Templates;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tool::{Call, Effect, Selection};

use super::registry;
use crate::app_addresses::AppAddresses;
use crate::app_keys::AppKeys;
use crate::platform::{Platform, Urls};
use crate::seal::Keeper;
use crate::tenancy::Lives;

/// What a model may have to read for all tools, in tokens of the o200k vocabulary.
const TOKENS: usize = 4_000;

/// What it may have to read for all tools that only read.
const READ_ONLY_TOKENS: usize = 1_100;

/// There is no listener here; that releases answer is tested against the built binary.
struct Trusting;

impl LiveCheck for Trusting {
    fn check<'a>(&'a self, _: &'a Env, _: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

struct Ground {
    platform: Arc<Platform>,
    _dir: tempfile::TempDir,
}

impl Ground {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (control, _) = Control::open(ControlConfig::new(dir.path())).await.unwrap();
        let environments_dir = dir.path().join("envs");
        std::fs::create_dir_all(&environments_dir).unwrap();
        let databases = Arc::new(Databases::new(environments_dir.clone(), Limits::default()));
        let blobs = Blobs::new(&environments_dir).unwrap();
        let logs = Logs::new(&environments_dir);
        let urls = Urls {
            scheme: "http",
            apps_domain: "localhost:8787".to_owned(),
            preview_domain: "preview.localhost:8787".to_owned(),
            domains: ("http", Some(8787)),
        };
        let control = Arc::new(control);
        let keys = Arc::new(AppKeys(Arc::clone(&control)));
        let links = Arc::clone(&keys) as Arc<dyn LinkKeys>;
        let addresses = AppAddresses { control: Arc::clone(&control), urls: urls.clone() };
        let post = Post::new(&Route::Outbox, Arc::new(addresses), logs.clone()).unwrap();
        let auth =
            Auth::new(Arc::clone(&databases), keys, post, Outside::unknown().unwrap(), AuthLimits::default());
        let settings = DomainSettings {
            reserved: Reserved { domains: vec!["localhost".to_owned()] },
            apps_host: "localhost".to_owned(),
            addresses: Vec::new(),
        };
        // Nobody answers there: what a check makes of answers is tested where there are some.
        let dns = Dns::new(&["127.0.0.1:9".parse().unwrap()]).unwrap();
        let seal = Arc::new(Keeper(Arc::clone(&control)));
        let clock = Arc::new(Timestamp::now);
        let domains =
            Arc::new(Domains::new(settings, control.store().clone(), seal, dns, None, logs.clone(), clock));
        let releases = Releases::new(Arc::clone(&databases), blobs.clone(), logs.clone(), Arc::new(Trusting));
        let releases = Arc::new(releases.with_domains(Arc::clone(&domains)));
        let contents = Contents::local(&environments_dir).unwrap();
        let snapshots = Snapshots::new(
            environments_dir.clone(),
            Arc::clone(&databases),
            Arc::clone(&releases),
            auth.clone(),
            logs.clone(),
            contents.clone(),
            Attic::local(&dir.path().join("archive")).unwrap(),
            SnapshotLimits::default(),
        );
        let backups = Backups::local(&dir.path().join("backups"), snapshots.clone(), u64::MAX).unwrap();
        let live = Arc::clone(&releases) as Arc<dyn LiveApps>;
        let (limits, stopping) = (RealtimeLimits::default(), CancellationToken::new());
        let realtime =
            Realtime::new(Arc::clone(&databases), Arc::clone(&live), auth.clone(), limits, stopping);
        let storage = Storage::new(Arc::clone(&databases), live, contents, links, StorageLimits::default());
        // Nothing here runs code: the process that would make sandboxes is none.
        let run_dir = dir.path().join("run");
        let settings = local::Settings { run_dir, trees: Vec::new(), spares: Vec::new(), runsc: None };
        let none = Arc::new(Local::new(|| std::process::Command::new("false"), settings));
        let journal: hands::Journal = Arc::new(|_, _| {});
        let keeping = Keeping {
            place: place_of(&dir.path().join("sandboxes")).unwrap(),
            checkpoints: Checkpoints::local(&dir.path().join("checkpoints")).unwrap(),
            templates: Templates::new(dir.path().join("templates")),
        };
        let hands =
            Hands::new(Arc::clone(&none), control.store().clone(), journal, keeping, HandsLimits::default())
                .unwrap();
        let functions = around::functions(none, dir.path(), blobs.clone());
        let models = models::Models::new(None, 0, control.store().clone()).unwrap();
        let previews = Labels::new(control.preview_key());
        let platform = Platform {
            hands,
            functions,
            models,
            masks: Arc::default(),
            previews,
            control,
            databases,
            releases,
            auth,
            domains,
            realtime,
            blobs,
            storage,
            snapshots,
            backups,
            logs,
            urls,
            lives: Lives::default(),
            environments_dir,
            called: Arc::new(|_, _, _| {}),
        };
        platform.recover().await.unwrap();
        Self { platform: Arc::new(platform), _dir: dir }
    }

    async fn operator(&self) -> Arc<Caller> {
        let place = self.platform.control.environments().find("default").await.unwrap().unwrap();
        let caller = Caller::new(Principal::Operator, place.tenant, kernel::KeyId::new(), Scopes::all());
        Arc::new(caller.in_env(Some(place.env)))
    }

    async fn call(&self, tool: &str, input: Value) -> Result<Value> {
        let call = Call::new(self.operator().await, tool.to_owned(), input);
        Arc::new(registry()).call(&self.platform, call).await
    }
}

#[tokio::test]
async fn every_example_works_on_a_fresh_environment() {
    // What runs code is tried where code is run: against the built binary.
    let runs_code = [Scope::SandboxUse, Scope::FunctionWrite];
    let runs_no_code = |doc: &&tool::Doc| !doc.spec.scopes.iter().any(|scope| runs_code.contains(scope));
    for doc in registry().docs().filter(runs_no_code) {
        for example in doc.spec.examples {
            let ground = Ground::new().await;
            let input = serde_json::from_str(example).unwrap();
            let outcome = ground.call(doc.name, input).await;
            assert!(outcome.is_ok(), "{} {example}: {:?}", doc.name, outcome.err());
        }
    }
}

#[test]
fn every_tool_is_worth_its_tokens() {
    let tokens = tiktoken_rs::o200k_base().unwrap();
    let cost = |doc: &tool::Doc| {
        let shown = format!("{}\n{}\n{}", doc.name, doc.spec.about, doc.input_schema);
        tokens.encode_ordinary(&shown).len()
    };
    let registry = registry();
    let costs: Vec<(&str, usize)> = registry.docs().map(|doc| (doc.name, cost(doc))).collect();
    let total: usize = costs.iter().map(|(_, cost)| cost).sum();
    assert!(total <= TOKENS, "{total} tokens for {} tools: {costs:?}", costs.len());
    let reading: usize =
        registry.docs().filter(|d| Selection::ReadOnly.admits(d.spec.effect)).map(cost).sum();
    assert!(reading <= READ_ONLY_TOKENS, "{reading} tokens for tools that read");
}

#[test]
fn names_and_declarations_keep_to_the_rules() {
    for doc in registry().docs() {
        assert!(doc.name.split_once('_').is_some(), "{} is <area>_<verb>", doc.name);
        assert!(!doc.spec.scopes.is_empty(), "{} asks for a scope", doc.name);
        assert_eq!(doc.input_schema["type"], "object", "{}", doc.name);
        let fields = &doc.input_schema["properties"];
        if doc.spec.effect == Effect::Destroy {
            assert!(
                fields["dry_run"].is_object() && fields["confirm"].is_object(),
                "{} asks first",
                doc.name
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_every_tool() {
    let ground = Ground::new().await;
    for doc in registry().docs() {
        let refused = ground.call(doc.name, json!({ "no_such_field": 1 })).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{}", doc.name);
    }
}

#[tokio::test]
async fn an_environment_is_deleted_only_with_the_token_of_its_dry_run() {
    let ground = Ground::new().await;
    let made = ground.call("env_create", json!({ "slug": "shop" })).await.unwrap();
    let directory = ground.platform.environments_dir.join(made["env"].as_str().unwrap());
    assert!(directory.join("main.db").exists());
    let refused = ground.call("env_delete", json!({ "env": "shop" })).await.unwrap_err();
    assert_eq!(refused.message(), "this cannot be undone: environment shop with its address");
    let dry = ground.call("env_delete", json!({ "env": "shop", "dry_run": true })).await.unwrap();
    assert!(directory.exists());
    let confirm = dry["confirm"].clone();
    let other = ground.call("env_delete", json!({ "env": "default", "confirm": confirm })).await.unwrap_err();
    assert_eq!(other.pointer(), Some("/confirm"));
    let gone = ground.call("env_delete", json!({ "env": "shop", "confirm": confirm })).await.unwrap();
    assert_eq!(gone["deleted"], true);
    assert!(!directory.exists());
    assert!(ground.call("env_create", json!({ "slug": "shop" })).await.is_ok(), "the slug is free again");
}

#[tokio::test]
async fn a_migration_that_loses_rows_needs_the_token_of_its_dry_run() {
    let ground = Ground::new().await;
    let migrate = |extra: Value| {
        let mut input = json!({ "name": "drop", "sql": "DROP TABLE notes" });
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        input
    };
    for sql in ["CREATE TABLE notes (text TEXT) STRICT", "INSERT INTO notes VALUES ('a')"] {
        ground.call("db_execute", json!({ "sql": sql })).await.unwrap();
    }
    let refused = ground.call("db_migrate", migrate(json!({}))).await.unwrap_err();
    assert_eq!(refused.message(), "this cannot be undone: table notes goes with 1 rows");
    let dry = ground.call("db_migrate", migrate(json!({ "dry_run": true }))).await.unwrap();
    assert_eq!(dry["effects"], json!(["table notes goes with 1 rows"]));
    let done = ground.call("db_migrate", migrate(json!({ "confirm": dry["confirm"] }))).await.unwrap();
    assert_eq!((&done["applied"], &done["history"]), (&json!(true), &json!(["drop"])));
    let again = ground.call("db_migrate", migrate(json!({}))).await.unwrap();
    assert_eq!(again["applied"], false);
}

#[tokio::test]
async fn a_secret_can_be_named_and_deleted_and_never_read() {
    let ground = Ground::new().await;
    let value = "a-very-secret-value";
    ground.call("secret_set", json!({ "name": "STRIPE_KEY", "value": value })).await.unwrap();
    let seen = ground.call("app_describe", json!({})).await.unwrap();
    assert_eq!(seen["secrets"], json!(["STRIPE_KEY"]));
    assert!(!seen.to_string().contains(value));
    let wrong = ground.call("secret_set", json!({ "name": "lower case", "value": value })).await.unwrap_err();
    assert!(!format!("{wrong:?}").contains(value));
    let secret = json!({ "kind": "secret", "name": "STRIPE_KEY", "dry_run": true });
    let dry = ground.call("resource_delete", secret).await.unwrap();
    let input = json!({ "kind": "secret", "name": "STRIPE_KEY", "confirm": dry["confirm"] });
    assert_eq!(ground.call("resource_delete", input).await.unwrap()["deleted"], true);
    assert_eq!(ground.call("app_describe", json!({})).await.unwrap()["secrets"], json!([]));
}

#[tokio::test]
async fn a_deploy_replaces_files_and_keeps_the_rules() {
    let ground = Ground::new().await;
    let site = json!({
        "files": { "index.html": "one", "old.html": "gone soon" },
        "headers": { "/*": { "x-frame-options": "DENY" } },
        "redirects": [{ "from": "/here", "to": "/there" }],
    });
    ground.call("app_apply", json!({ "manifest": { "site": site } })).await.unwrap();
    let deployed = ground.call("site_deploy", json!({ "files": { "index.html": "two" } })).await.unwrap();
    assert_eq!((&deployed["release"], &deployed["changed"]), (&json!(2), &json!(true)));
    let place = ground.platform.control.environments().find("default").await.unwrap().unwrap();
    let env = Env::for_upkeep(place.tenant, place.env);
    let live = ground.platform.releases.live(&env).await.unwrap().unwrap();
    assert_eq!((live.site.files.len(), live.site.headers.len(), live.site.redirects.len()), (1, 1, 1));
    let wrong = ground.call("site_deploy", json!({ "files": { "../up": "x" } })).await.unwrap_err();
    assert_eq!(wrong.pointer(), Some("/files/..~1up"));
}

fn cost(output: &Value) -> usize {
    tool::budget::estimate(&output.to_string())
}

#[tokio::test]
async fn an_app_of_many_tables_is_planned_applied_and_described_in_pages() {
    let ground = Ground::new().await;
    let columns: serde_json::Map<String, Value> =
        (0..20).map(|i| (format!("some_rather_long_column_name_{i}"), json!("text"))).collect();
    let tables: serde_json::Map<String, Value> = (0..80)
        .map(|i| (format!("table_{i:03}"), json!({ "columns": columns, "access": "public_read" })))
        .collect();
    let manifest = json!({ "database": { "tables": tables } });
    let plan = ground.call("app_plan", json!({ "manifest": manifest })).await.unwrap();
    assert!(plan["omitted"].as_str().unwrap().contains("changes"), "{}", plan["omitted"]);
    let applied = ground.call("app_apply", json!({ "plan_id": plan["plan_id"] })).await.unwrap();
    assert!(cost(&plan) <= 4_000 && cost(&applied) <= 4_000);

    let all = ground.call("app_describe", json!({})).await.unwrap();
    let named = all["outline"].as_object().unwrap().len();
    assert!(all["tables"] == json!({}) && named >= 50, "{named} tables are named");
    let left = 80 - named;
    let said = format!("columns of 80 tables, {left} of them not even named: section tables");
    assert_eq!(all["omitted"], json!([said]));
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut input = json!({ "section": "tables" });
        if !cursor.is_null() {
            input["cursor"] = cursor;
        }
        let page = ground.call("app_describe", input).await.unwrap();
        assert!(cost(&page) <= 4_000);
        seen.extend(page["tables"].as_object().unwrap().keys().cloned());
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, (0..80).map(|i| format!("table_{i:03}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn environments_with_long_tags_are_listed_in_pages() {
    let ground = Ground::new().await;
    let tags: serde_json::Map<String, Value> =
        (0..20).map(|i| (format!("{i:02}{}", "t".repeat(60)), json!("v".repeat(256)))).collect();
    for i in 0..6 {
        let input = json!({ "slug": format!("many-{i}"), "tags": tags, "external_id": "x".repeat(250) + &i.to_string() });
        ground.call("env_create", input).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let input = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let page = ground.call("env_list", input).await.unwrap();
        assert!(cost(&page) <= 4_000);
        for item in page["environments"].as_array().unwrap() {
            seen.push(item["slug"].as_str().unwrap().to_owned());
        }
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, ["default", "many-0", "many-1", "many-2", "many-3", "many-4", "many-5"]);
}

#[tokio::test]
async fn long_log_entries_come_in_pages_without_gap() {
    use capabilities::logs::{Entry, Level, Source};
    let ground = Ground::new().await;
    let place = ground.platform.control.environments().find("default").await.unwrap().unwrap();
    let env = Env::for_upkeep(place.tenant, place.env);
    for i in 0..20 {
        let costly = ["words and more ", "\"\\\"", "字🎉"][i % 3];
        let message = format!("entry {i} {}", costly.repeat(3_000));
        ground
            .platform
            .logs
            .append(&env, Entry::new(kernel::Timestamp::now(), Level::Info, Source::Tool, message));
    }
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let input = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let page = ground.call("logs_query", input).await.unwrap();
        assert!(cost(&page) <= 4_000);
        for entry in page["entries"].as_array().unwrap() {
            let message = entry["message"].as_str().unwrap();
            assert!(message.contains("more characters"), "the cut is said");
            seen.push(message.split(' ').nth(1).unwrap().parse::<u32>().unwrap());
        }
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, (0..20).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn an_ordinary_query_is_paged_and_not_refused() {
    let ground = Ground::new().await;
    let tables = json!({ "todos": { "columns": { "title": "text" } } });
    ground.call("app_apply", json!({ "manifest": { "database": { "tables": tables } } })).await.unwrap();
    let text: String = (0..300).map(|n| format!("{{\"title\":\"{n}\"}}\n")).collect();
    ground.call("db_load", json!({ "table": "todos", "format": "ndjson", "text": text })).await.unwrap();
    for sql in ["SELECT * FROM todos", "SELECT id FROM todos", "SELECT '{}[]{}[]' FROM todos"] {
        let (mut rows, mut cursor) = (0, Value::Null);
        loop {
            let input = json!({ "sql": sql, "limit": 1000, "cursor": cursor });
            let page = ground.call("db_query", input).await.unwrap();
            rows += page["rows"].as_array().unwrap().len();
            match page.get("cursor") {
                Some(next) => cursor = next.clone(),
                None => break,
            }
        }
        assert_eq!(rows, 300, "{sql}");
    }
}

#[tokio::test]
async fn a_change_that_is_told_to_stop_is_not_left_half_done() {
    let ground = Ground::new().await;
    let registry = Arc::new(registry());
    for after in 0..40 {
        let input = json!({ "slug": format!("shop-{after}") });
        let mut call = Call::new(ground.operator().await, "env_create", input);
        call.deadline = Some(std::time::Duration::from_micros(50 * after));
        let _ = registry.call(&ground.platform, call).await;
        assert_eq!(ground.platform.control.environments().unfinished().await.unwrap().len(), 0, "{after}");
    }
}

#[tokio::test]
async fn a_call_that_outlives_its_environment_leaves_nothing_behind() {
    let ground = Ground::new().await;
    let made = ground.call("env_create", json!({ "slug": "shop" })).await.unwrap();
    let id = made["env"].as_str().unwrap();
    let directory = ground.platform.environments_dir.join(id);
    let env = Env::for_upkeep(ground.operator().await.tenant, id.parse().unwrap());
    let dry = ground.call("env_delete", json!({ "env": "shop", "dry_run": true })).await.unwrap();
    ground.call("env_delete", json!({ "env": "shop", "confirm": dry["confirm"] })).await.unwrap();
    assert!(ground.platform.blobs.put(&env, "late".into()).await.is_err());
    assert!(!directory.exists());
}

#[tokio::test]
async fn an_environment_that_cannot_be_removed_does_not_stop_the_start() {
    let ground = Ground::new().await;
    let made = ground.call("env_create", json!({ "slug": "shop" })).await.unwrap();
    let directory = ground.platform.environments_dir.join(made["env"].as_str().unwrap());
    let tenant = kernel::Tenant::authorize(&*ground.operator().await, &[kernel::Scope::EnvDelete]).unwrap();
    let environments = ground.platform.control.environments();
    let token = environments.confirm_delete(&tenant, "shop", b"").await.unwrap().token;
    environments.begin_delete(&tenant, "shop", b"", &token).await.unwrap();
    // A file where the doomed directory goes cannot be removed as a directory.
    std::fs::write(directory.with_extension("removed"), "").unwrap();
    ground.platform.recover().await.unwrap();
    assert_eq!(environments.unfinished().await.unwrap().len(), 1);
    std::fs::remove_file(directory.with_extension("removed")).unwrap();
    ground.platform.recover().await.unwrap();
    assert_eq!(environments.unfinished().await.unwrap().len(), 0);
    assert!(!directory.exists());
}
