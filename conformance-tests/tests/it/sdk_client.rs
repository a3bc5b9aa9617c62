//! The browser client: its logic in Node against a small app and the real one, its types by the TypeScript compiler.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance_tests::{Place, browser};
use serde_json::{Value, json};
use testkit::{Chromium, Finished, NodeTool, finish, require};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs one of the pinned programs where the client and the named files lie side by side.
fn run(program: &str, arguments: &[&str], files: &[&str], app: &str) -> Finished {
    let home = testkit::temporary().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = |from: PathBuf, name: &str| {
        std::fs::copy(&from, home.path().join(name)).unwrap_or_else(|error| panic!("{from:?}: {error}"))
    };
    // Node takes a file for a module by its ending.
    std::fs::write(home.path().join("sdk.mjs"), client(".js")).unwrap();
    std::fs::write(home.path().join("sdk.d.ts"), client(".d.ts")).unwrap();
    for file in files {
        copy(here.join("tests/it/sdk").join(file), file);
    }
    let mut command = require(NodeTool::install()).command(program, home.path()).unwrap();
    command.args(arguments).env("APP", app);
    finish(command, LIMIT).unwrap()
}

/// The client's parts with this ending, as one module.
fn client(ending: &str) -> String {
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/edge/src/data");
    let names =
        std::fs::read_dir(&parts).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("sdk") && name.ends_with(ending)).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.iter().map(|name| std::fs::read_to_string(parts.join(name)).unwrap()).collect()
}

fn manifest() -> Value {
    let columns = json!({ "title": "text!", "done": "bool = false", "position": "real = 0" });
    json!({
        "database": { "tables": { "todos": { "columns": columns, "access": "private" } } },
        "auth": { "methods": ["anonymous", "password"] },
        "site": { "files": {} },
    })
}

fn passes(test: &str, app: &str) {
    let ran = run("node", &["--test", "--test-reporter=spec", test], &["app.mjs", test], app);
    assert!(ran.success(), "{}\n{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("tests 0\n"), "{}", ran.stdout);
}

#[test]
fn a_session_survives_tabs_ends_of_tokens_and_lost_networks() {
    passes("client.test.mjs", "");
}

#[test]
fn rows_versions_pages_and_filters_become_the_right_requests() {
    passes("rows.test.mjs", "");
}

#[test]
fn the_client_and_the_app_understand_each_other() {
    let place = Place::new("sdk").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    passes("live.test.mjs", &place.url);
}

#[test]
fn the_types_take_what_an_app_says_and_refuse_its_mistakes() {
    let options = ["--strict", "--noEmit", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
    let target = ["--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "sample.ts"];
    let ran = run("tsc", &[&options[..], &target[..]].concat(), &["sample.ts"], "");
    assert!(ran.success(), "{}\n{}", ran.stdout, ran.stderr);
}

#[test]
fn the_client_is_small_and_needs_nothing_else() {
    let text = client(".js");
    let code: usize = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with("/*"))
        .map(|line| line.len() + 1)
        .sum();
    assert!(code < 32 << 10, "{code} bytes without comments and indentation");
    assert!(!text.contains("import ") || text.matches("import ").count() == 1, "only the example imports");
}

/// Uses the app at `url` from whatever page is open: what comes of it, or the status and code of the error.
fn from_here(browser: &Chromium, url: &str, key: &str) -> Value {
    let script = format!(
        "return (async () => {{ \
           const {{ createClient, where }} = await import('{url}/_/sdk.js'); \
           const app = createClient({{ url: '{url}', key: {key} }}); \
           try {{ \
             await app.auth.anonymous(); \
             const todos = app.db('todos'); \
             const row = await todos.create({{ title: 'far away' }}); \
             await todos.update(row.id, {{ done: true }}, {{ ifMatch: row }}); \
             const {{ rows }} = await todos.list({{ where: where`id == ${{row.id}}`, select: ['title', 'done'] }}); \
             await todos.delete(row.id); \
             await app.auth.logout(); \
             return rows; \
           }} catch ({{ status, code }}) {{ return [status, code]; }} \
         }})()"
    );
    browser.evaluate(&script).unwrap()
}

#[test]
fn a_page_of_another_origin_needs_to_be_named_and_the_key() {
    let (app, named, unnamed) =
        (Place::new("sdk").unwrap(), Place::new("page").unwrap(), Place::new("page").unwrap());
    let page = json!({ "manifest": { "site": { "files": { "index.html": "<!doctype html><title>page</title>" } } } });
    for place in [&named, &unnamed] {
        place.output("app_apply", &page).unwrap();
    }
    let mut manifest = manifest();
    manifest["auth"]["origins"] = json!([named.url]);
    app.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let described = app.output("app_describe", &json!({})).unwrap();
    let key = described["auth"]["publishable_key"].to_string();
    assert!(key.starts_with("\"pk_"), "{described}");
    // A refusal has no headers for other origins: to their pages it is no answer at all.
    let unreachable = json!([0, "unavailable"]);
    browser(|browser| {
        browser.goto(&named.url)?;
        assert_eq!(from_here(browser, &app.url, &key), json!([{ "title": "far away", "done": true }]));
        assert_eq!(from_here(browser, &app.url, "undefined"), unreachable);
        assert_eq!(from_here(browser, &app.url, "'pk_wrong'"), unreachable);
        browser.goto(&unnamed.url)?;
        assert_eq!(from_here(browser, &app.url, &key), unreachable);
        browser.console().map(drop)
    })
    .unwrap();
}
