//! Branches: another environment with the same app, that shares nothing with the first but where it has come from.

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Place, Session};
use serde_json::{Value, json};
use testkit::Client;

fn manifest() -> Value {
    json!({
        "auth": { "methods": ["anonymous", "password"] },
        "database": { "tables": {
            "notes": { "columns": { "text": "text!", "n": "int" }, "access": "private" },
            "tags": { "columns": { "name": "text!" }, "access": "private" },
        } },
        "site": { "files": { "index.html": "<title>One</title>", "about.html": "about" } },
        "tests": [{ "as": "other", "do": "get", "on": "notes", "expect": "deny" }],
    })
}

/// An app and its branch.
struct Fork {
    place: Place,
    app: App,
    branch: Client,
    branched: App,
    made: Value,
}

impl Fork {
    fn new(name: &str, data: &str, before: impl FnOnce(&App)) -> anyhow::Result<Self> {
        let place = Place::new(name)?;
        place.output("app_apply", &json!({ "manifest": manifest() }))?;
        let app = App::new(&place.url);
        before(&app);
        let made = place.output("env_branch", &json!({ "data": data }))?;
        let text = |at: &str| made[at].as_str().context("a text").map(str::to_owned);
        let branch = place.steading.client().in_env(&text("slug")?);
        let branched = App::new(&text("url")?);
        Ok(Self { place, app, branch, branched, made })
    }

    fn plan(&self) -> anyhow::Result<Value> {
        self.place.output("env_merge", &json!({ "from": self.made["slug"], "dry_run": true }))
    }

    fn merge(&self) -> anyhow::Result<Value> {
        let plan = self.plan()?;
        ensure!(plan.get("conflicts").is_none(), "conflicts: {plan}");
        self.place.output("env_merge", &json!({ "from": self.made["slug"], "confirm": plan["confirm"] }))
    }
}

fn apply(client: &Client, change: impl FnOnce(&mut Value)) -> anyhow::Result<Value> {
    let mut manifest = manifest();
    change(&mut manifest);
    let plan = client.output("app_plan", &json!({ "manifest": manifest }))?;
    client.output("app_apply", &json!({ "plan_id": plan["plan_id"], "confirm": plan["confirm"] }))
}

fn rows(client: &Client, table: &str) -> Value {
    let sql = format!("SELECT rowid, * FROM {table} ORDER BY rowid");
    client.output("db_query", &json!({ "sql": sql })).unwrap()["rows"].clone()
}

fn status(person: &Person, path: &str) -> u16 {
    person.ask("GET", path).unwrap().status
}

/// The same session, shown to another app.
fn shown_to(app: &App, session: &Session) -> Person {
    Person { app: app.clone(), session: Some(session.clone()) }
}

#[test]
fn a_branch_has_everything_but_who_is_signed_in() {
    let mut alice = None;
    let fork = Fork::new("fork", "all", |app| {
        let person = app.sign_up("alice@example.org", "correct horse battery").unwrap();
        person.create("notes", &json!({ "text": "mine", "n": 1 })).unwrap();
        alice = Some(person);
    })
    .unwrap();
    let alice = alice.unwrap().session.unwrap();
    let Fork { place, app, branch, branched, made } = &fork;
    assert_eq!(made["release"], json!(1));
    assert_eq!(rows(branch, "notes"), rows(&place.client, "notes"));
    let page = |app: &App| app.visitor().ask("GET", "/").unwrap();
    assert_eq!((page(branched).status, page(branched).body), (200, page(app).body));

    // Tokens of the one open nothing of the other, whichever is older.
    assert_eq!(status(&shown_to(app, &alice), "/_/auth/me"), 200);
    assert_eq!(status(&shown_to(branched, &alice), "/_/auth/me"), 401);
    assert_eq!(status(&shown_to(branched, &alice), "/_/db/notes"), 401);
    let refresh = json!({ "refresh_token": alice.refresh });
    assert_eq!(branched.auth("refresh", &refresh).unwrap().status, 401);
    let there = branched.login("alice@example.org", "correct horse battery").unwrap();
    assert_eq!(there.session.as_ref().unwrap().user, alice.user);
    assert_eq!(there.list("notes", &[]).unwrap().body["rows"].as_array().unwrap().len(), 1);
    let there = there.session.unwrap();
    assert_eq!(status(&shown_to(app, &there), "/_/auth/me"), 401);
    assert_eq!(app.auth("refresh", &json!({ "refresh_token": there.refresh })).unwrap().status, 401);
    assert_eq!(app.auth("refresh", &refresh).unwrap().status, 200);
    let key = |client: &Client| {
        client.output("app_describe", &json!({})).unwrap()["auth"]["publishable_key"].clone()
    };
    assert_ne!(key(&place.client), key(branch));
    let jwks = |app: &App| app.visitor().ask("GET", "/.well-known/jwks.json").unwrap().body;
    assert_ne!(jwks(app), jwks(branched));

    // What is written here is not there.
    branch.output("db_execute", &json!({ "sql": "DELETE FROM notes" })).unwrap();
    assert_eq!(rows(&place.client, "notes").as_array().unwrap().len(), 1);
    branch.output("app_rollback", &json!({ "release": 1 })).unwrap();
}

#[test]
fn a_branch_without_data_has_the_app_and_no_rows() {
    let fork = Fork::new("shape", "none", |app| {
        let person = app.sign_up("alice@example.org", "correct horse battery").unwrap();
        person.create("notes", &json!({ "text": "mine" })).unwrap();
    })
    .unwrap();
    let described = |client: &Client| {
        let mut app = client.output("app_describe", &json!({})).unwrap();
        for table in ["notes", "tags"] {
            app["tables"][table]["rows"] = json!(0);
        }
        ["release", "releases", "tables", "migrations", "site"].map(|part| app[part].clone())
    };
    assert_eq!(described(&fork.branch), described(&fork.place.client));
    assert_eq!(rows(&fork.branch, "notes"), json!([]));
    assert_eq!(fork.branch.output("auth_users", &json!({})).unwrap()["users"], json!([]));
    let person = fork.branched.stranger().unwrap();
    person.create("notes", &json!({ "text": "new" })).unwrap();
    // The rules came along.
    let other = fork.branched.stranger().unwrap();
    assert_eq!(other.list("notes", &[]).unwrap().body["rows"], json!([]));
}

#[test]
fn a_branch_of_a_snapshot_is_as_it_was() {
    let place = Place::new("past").unwrap();
    place.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    place.output("db_execute", &json!({ "sql": "INSERT INTO notes (text) VALUES ('old')" })).unwrap();
    place.output("env_snapshot", &json!({ "name": "old" })).unwrap();
    let old = rows(&place.client, "notes");
    place.output("db_execute", &json!({ "sql": "DELETE FROM notes" })).unwrap();
    apply(&place.client, |manifest| {
        manifest["database"]["tables"]["notes"]["columns"]["late"] = json!("int")
    })
    .unwrap();
    for (data, expected) in [("all", old), ("none", json!([]))] {
        let made = place.output("env_branch", &json!({ "snapshot": "old", "data": data })).unwrap();
        let branch = place.steading.client().in_env(made["slug"].as_str().unwrap());
        assert_eq!(made["release"], json!(1));
        assert_eq!(rows(&branch, "notes"), expected, "{data}");
    }
    let missing =
        place.client.call("env_branch", &json!({ "snapshot": "none", "slug": "never-made" })).unwrap();
    assert_eq!((missing.status, missing.body["field"].clone()), (404, json!("/snapshot")));
    // Nothing is left of it: the slug is free.
    place.steading.client().output("env_create", &json!({ "slug": "never-made" })).unwrap();
}

#[test]
fn what_only_one_side_has_changed_is_merged_and_rows_stay_apart() {
    let fork = Fork::new("merge", "all", |_| {}).unwrap();
    apply(&fork.branch, |manifest| {
        manifest["database"]["tables"]["notes"]["columns"]["done"] = json!("bool = false");
        manifest["database"]["tables"]["lists"] = json!({ "columns": { "title": "text!" } });
        manifest["site"]["files"]["index.html"] = json!("<title>Two</title>");
        manifest["site"]["files"]["new.html"] = json!("new");
        manifest["auth"]["origins"] = json!(["https://branch.example"]);
    })
    .unwrap();
    let migration = json!({ "name": "index", "sql": "CREATE TABLE extra (n INTEGER)" });
    fork.branch.output("db_migrate", &migration).unwrap();
    fork.branch.output("db_execute", &json!({ "sql": "INSERT INTO notes (text) VALUES ('there')" })).unwrap();
    apply(&fork.place.client, |manifest| {
        manifest["database"]["tables"]["tags"]["access"] = json!("public_read");
        manifest["site"]["files"]["about.html"] = json!("about us");
    })
    .unwrap();
    fork.place.output("db_execute", &json!({ "sql": "INSERT INTO notes (text) VALUES ('here')" })).unwrap();
    let before = rows(&fork.place.client, "notes");

    let unconfirmed = fork.place.client.call("env_merge", &json!({ "from": fork.made["slug"] })).unwrap();
    assert_eq!((unconfirmed.status, unconfirmed.body["field"].clone()), (409, json!("/confirm")));
    let merged = fork.merge().unwrap();
    assert_eq!(merged["changed"], true);
    let app = fork.place.output("app_describe", &json!({})).unwrap();
    assert_eq!(app["tables"]["notes"]["columns"]["done"], "bool = false");
    assert_eq!(app["tables"]["lists"]["columns"]["title"], "text!");
    assert_eq!(app["tables"]["tags"]["access"], "public_read");
    assert_eq!(app["tables"]["extra"]["rows"], 0);
    assert_eq!(app["auth"]["origins"], json!(["https://branch.example"]));
    let page = |path: &str| fork.app.visitor().ask("GET", path).unwrap().body;
    assert_eq!(
        [page("/"), page("/about"), page("/new")],
        [json!("<title>Two</title>"), json!("about us"), json!("new")]
    );
    let after = rows(&fork.place.client, "notes");
    assert_eq!(after.as_array().unwrap().len(), 1, "{after}");
    assert_eq!(after[0][0], before[0][0]);

    // Once more there is nothing to do, and what the branch changes next is judged by where it stands now.
    assert_eq!(fork.merge().unwrap()["changed"], false);
    apply(&fork.branch, |manifest| {
        manifest["database"]["tables"]["notes"]["columns"]["done"] = json!("bool = true");
        manifest["database"]["tables"]["lists"] = json!({ "columns": { "title": "text!" } });
        manifest["site"]["files"]["index.html"] = json!("<title>Two</title>");
        manifest["site"]["files"]["new.html"] = json!("new");
        manifest["auth"]["origins"] = json!(["https://branch.example"]);
    })
    .unwrap();
    assert_eq!(fork.merge().unwrap()["changed"], true);
    let app = fork.place.output("app_describe", &json!({})).unwrap();
    assert_eq!(app["tables"]["notes"]["columns"]["done"], "bool = true");
    assert_eq!(app["tables"]["tags"]["access"], "public_read");
}

#[test]
fn a_merge_that_was_undone_can_be_made_again() {
    let fork = Fork::new("merge-again", "all", |_| {}).unwrap();
    let page = |text: &str| {
        apply(&fork.branch, |manifest| manifest["site"]["files"]["index.html"] = json!(text)).unwrap();
    };
    let shown = || fork.app.visitor().ask("GET", "/").unwrap().body;
    let snapshot = || fork.place.output("env_snapshot", &json!({})).unwrap()["snapshot"].clone();
    let go_back = |snapshot: &Value| {
        let dry =
            fork.place.output("env_restore", &json!({ "snapshot": snapshot, "dry_run": true })).unwrap();
        let sure = json!({ "snapshot": snapshot, "confirm": dry["confirm"] });
        fork.place.output("env_restore", &sure).unwrap();
    };
    let first = snapshot();
    page("one");
    assert_eq!(fork.merge().unwrap()["changed"], true);
    let second = snapshot();
    page("two");
    assert_eq!(fork.merge().unwrap()["changed"], true);
    assert_eq!(shown(), "two");
    for earlier in [&second, &first] {
        go_back(earlier);
        assert_ne!(shown(), "two");
        assert_eq!(fork.merge().unwrap()["changed"], true);
        assert_eq!(shown(), "two");
        assert_eq!(fork.merge().unwrap()["changed"], false);
    }
}

#[test]
fn a_branch_that_went_back_to_before_a_merge_brings_nothing_back_that_the_parent_has_removed() {
    let fork = Fork::new("merge-gone", "all", |_| {}).unwrap();
    let tables = |client: &Client, names: &[&str]| {
        apply(client, |manifest| {
            names.iter().for_each(|name| manifest["database"]["tables"][name] = json!({}));
        })
        .unwrap();
    };
    let there = || {
        let app = fork.place.output("app_describe", &json!({})).unwrap();
        app["tables"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    tables(&fork.branch, &["first"]);
    fork.merge().unwrap();
    let snapshot = fork.branch.output("env_snapshot", &json!({})).unwrap()["snapshot"].clone();
    let gone = json!({ "kind": "table", "name": "first", "dry_run": true });
    let confirm = fork.place.output("resource_delete", &gone).unwrap()["confirm"].clone();
    let gone = json!({ "kind": "table", "name": "first", "confirm": confirm });
    assert_eq!(fork.place.output("resource_delete", &gone).unwrap()["deleted"], true);
    tables(&fork.branch, &["first", "second"]);
    fork.merge().unwrap();
    assert_eq!(there(), ["notes", "second", "tags"]);
    let dry = fork.branch.output("env_restore", &json!({ "snapshot": snapshot, "dry_run": true })).unwrap();
    let sure = json!({ "snapshot": snapshot, "confirm": dry["confirm"] });
    fork.branch.output("env_restore", &sure).unwrap();
    tables(&fork.branch, &["first", "third"]);
    fork.merge().unwrap();
    assert_eq!(there(), ["notes", "second", "tags", "third"]);
}

#[test]
fn what_both_have_changed_is_named_and_nothing_is_done() {
    let fork = Fork::new("conflict", "none", |_| {}).unwrap();
    apply(&fork.branch, |manifest| {
        manifest["database"]["tables"]["notes"]["access"] = json!("admin_only");
        manifest["site"]["files"]["index.html"] = json!("theirs");
        manifest["database"]["tables"]["fine"] = json!({});
    })
    .unwrap();
    apply(&fork.place.client, |manifest| {
        manifest["database"]["tables"]["notes"]["access"] = json!("public_read");
        manifest["tests"] = json!([]);
        manifest["site"]["files"]["index.html"] = json!("ours");
    })
    .unwrap();
    let before = fork.place.output("app_describe", &json!({})).unwrap();
    let plan = fork.plan().unwrap();
    assert_eq!(
        plan["conflicts"],
        json!([
            "/database/tables/notes/access: changed here, changed in the branch",
            "/site/files/index.html: changed here, changed in the branch",
        ])
    );
    assert_eq!((plan.get("confirm"), &plan["changes"]), (None, &json!([])));
    let tried = json!({ "from": fork.made["slug"], "confirm": "anything" });
    let refused = fork.place.client.call("env_merge", &tried).unwrap();
    assert_eq!((refused.status, refused.body["field"].clone()), (409, json!("/from")));
    assert_eq!(fork.place.output("app_describe", &json!({})).unwrap(), before);
}

#[test]
fn only_a_branch_of_this_environment_is_merged_with_the_confirmation_of_its_own_plan() {
    let fork = Fork::new("whose", "none", |_| {}).unwrap();
    let other = Place::new("stranger").unwrap();
    other.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    for (place, from) in
        [(&fork.place, &other.slug), (&other, &fork.made["slug"].as_str().unwrap().to_owned())]
    {
        let refused = place.client.call("env_merge", &json!({ "from": from, "dry_run": true })).unwrap();
        assert_eq!(
            (refused.status, refused.body["field"].clone()),
            (409, json!("/from")),
            "{:?}",
            refused.body
        );
    }
    // A plan of app_plan is none of env_merge.
    apply(&fork.branch, |manifest| manifest["name"] = json!("of the branch")).unwrap();
    let plan = fork.place.output("app_plan", &json!({ "manifest": { "name": "mine" } })).unwrap();
    let forged = json!({ "from": fork.made["slug"], "confirm": plan["plan_id"] });
    let refused = fork.place.client.call("env_merge", &forged).unwrap();
    assert_eq!((refused.status, refused.body["field"].clone()), (409, json!("/confirm")));
    // A plan is good for the state that it saw.
    let plan = fork.plan().unwrap();
    apply(&fork.place.client, |manifest| manifest["site"]["files"]["late.html"] = json!("late")).unwrap();
    let late = json!({ "from": fork.made["slug"], "confirm": plan["confirm"] });
    let refused = fork.place.client.call("env_merge", &late).unwrap();
    assert_eq!(
        (refused.status, refused.body["field"].clone()),
        (409, json!("/confirm")),
        "{:?}",
        refused.body
    );

    // A key of one environment alone makes and merges nothing.
    let client = fork.place.steading.client().without_env();
    let body = json!({ "name": "bound", "env": fork.place.slug });
    let key = client.request("POST", "/v1/keys").json(&body).send().unwrap().json().unwrap();
    let bound = Client::new(&fork.place.steading.ready().url).with_key(key["key"].as_str().unwrap());
    for (tool, input) in [("env_branch", json!({})), ("env_merge", json!({ "from": fork.made["slug"] }))] {
        assert_eq!(bound.call(tool, &input).unwrap().status, 403, "{tool}");
    }
    bound.output("env_snapshot", &json!({})).unwrap();
}
