//! The command line as a person uses it: an app of its own from the first environment to the last key.

use std::time::Duration;

use conformance_tests::{Place, browser, steading};
use serde_json::{Value, json};
use testkit::{Finished, eventually, finish};

const LIMIT: Duration = Duration::from_secs(60);

/// A project directory, and the place that its commands work on.
struct Desk {
    place: Place,
    directory: tempfile::TempDir,
}

impl Desk {
    fn new(name: &str) -> Self {
        let desk = Self { place: Place::new(name).unwrap(), directory: testkit::temporary().unwrap() };
        std::fs::create_dir(desk.directory.path().join("public")).unwrap();
        desk.page("One");
        desk.manifest("text");
        desk
    }

    fn page(&self, heading: &str) {
        let page =
            format!("<!doctype html><title>Shop</title><link rel=icon href='data:,'><h1>{heading}</h1>");
        std::fs::write(self.directory.path().join("public/index.html"), page).unwrap();
    }

    fn manifest(&self, price: &str) {
        let columns = json!({ "title": "text!", "price": price });
        let manifest = json!({
            "name": "Shop",
            "database": { "tables": { "items": { "columns": columns, "access": "private" } } },
            "site": { "dir": "public" },
        });
        std::fs::write(self.directory.path().join("steading.json"), manifest.to_string()).unwrap();
    }

    /// Runs a command, and expects this exit code of it.
    fn run(&self, arguments: &[&str], exit: i32) -> Finished {
        let mut command = self.place.command(arguments);
        command.current_dir(self.directory.path());
        let finished = finish(command, LIMIT).unwrap();
        assert_eq!(finished.status.unwrap().code(), Some(exit), "{arguments:?}: {finished:?}");
        finished
    }

    /// What a program reads of a command that succeeds.
    fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json"]].concat(), 0);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {finished:?}"))
    }

    fn heading(&self) -> String {
        browser(|browser| {
            browser.goto(&self.place.url)?;
            browser.text("h1")
        })
        .unwrap()
    }
}

/// The words after `command` where a text tells its reader to run it.
fn told<'a>(text: &'a str, command: &str) -> Vec<&'a str> {
    let (_, rest) = text.split_once(command).unwrap_or_else(|| panic!("no {command:?} in {text}"));
    rest.lines().next().unwrap_or_default().split_whitespace().collect()
}

#[test]
fn an_app_is_planned_applied_changed_and_rolled_back() {
    let desk = Desk::new("shop");
    let plan = desk.run(&["plan"], 0);
    assert!(plan.stdout.contains("table items") && plan.stdout.contains("site"), "{}", plan.stdout);
    let words = told(&plan.stdout, "steading apply");
    let first = desk.run(&[&["apply"], words.as_slice()].concat(), 0);
    assert_eq!(first.stdout.trim(), format!("Release 1 is live: {}", desk.place.url));
    assert_eq!(desk.heading(), "One");
    let again = desk.run(&["apply"], 0);
    assert_eq!(again.stdout.trim(), format!("Nothing changed; release 1 is live: {}", desk.place.url));

    let insert = r#"{"sql":"INSERT INTO items (title, price) VALUES ('tea', 'cheap')"}"#;
    assert_eq!(desk.json(&["call", "db_execute", insert])["changed"], 1);
    desk.page("Two");
    assert_eq!(desk.json(&["apply"])["release"], 2);
    assert_eq!(desk.heading(), "Two");
    let back = desk.run(&["rollback"], 0);
    assert_eq!(back.stdout.trim(), format!("Release 1 is live: {}", desk.place.url));
    assert_eq!(desk.heading(), "One");
    let rows = desk.json(&["call", "db_query", r#"{"sql":"SELECT title, price FROM items"}"#]);
    assert_eq!(rows["rows"], json!([["tea", "cheap"]]), "rows are kept");
    desk.run(&["rollback", "9"], 4);
    let logs = desk.run(&["logs", "--since", "1h"], 0);
    assert!(logs.stdout.contains("release"), "{}", logs.stdout);
}

#[test]
fn what_a_plan_tells_to_type_accepts_a_loss() {
    let desk = Desk::new("loss");
    desk.json(&["apply"]);
    let insert = r#"{"sql":"INSERT INTO items (title, price) VALUES ('tea', 'cheap')"}"#;
    desk.json(&["call", "db_execute", insert]);
    desk.manifest("int");
    let refused = desk.run(&["apply"], 5);
    assert!(refused.stderr.contains("1 of 1 values cannot become int and are lost"), "{}", refused.stderr);
    let plan = desk.run(&["plan"], 0);
    let words = told(&plan.stdout, "steading apply");
    desk.run(&[&["apply"], words.as_slice()].concat(), 0);
    let rows = desk.json(&["call", "db_query", r#"{"sql":"SELECT title, price FROM items"}"#]);
    assert_eq!(rows["rows"], json!([["tea", null]]));
}

#[test]
fn environments_are_made_listed_and_deleted() {
    let desk = Desk::new("envs");
    let slug = format!("{}-more", desk.place.slug);
    let made = desk.run(&["env", "create", &slug], 0);
    let url = desk.place.url.replace(&desk.place.slug, &slug);
    assert_eq!(made.stdout.trim(), format!("{slug} is at {url}"));
    let listed = |slug: &str| desk.run(&["env", "list"], 0).stdout.lines().any(|line| line.starts_with(slug));
    assert!(listed(&slug));
    desk.run(&["env", "create", &slug], 5);
    desk.run(&["env", "create", "No_Slug"], 2);
    let refused = desk.run(&["env", "delete", &slug], 5);
    let words = told(&refused.stderr, "pass --yes, or");
    let deleted = desk.run(&[&["env", "delete", &slug], words.as_slice()].concat(), 0);
    assert_eq!(deleted.stdout.trim(), "Deleted.");
    assert!(!listed(&slug));
    desk.run(&["env", "delete", &slug, "--yes"], 4);
}

#[test]
fn a_key_works_until_it_is_revoked() {
    let desk = Desk::new("keys");
    let made = desk.run(&["key", "create", "ci", "--bound", "--scope", "app:read"], 0);
    let key = made.stdout.lines().next().unwrap().to_owned();
    let with_key = |arguments: &[&str]| {
        let mut command = steading().command(arguments);
        command.env("STEADING_KEY", &key).current_dir(desk.directory.path());
        finish(command, LIMIT).unwrap().status.unwrap().code()
    };
    assert_eq!(with_key(&["call", "app_describe"]), Some(0), "a bound key needs no --env");
    assert_eq!(with_key(&["call", "db_query", r#"{"sql":"SELECT 1"}"#]), Some(3));
    let keys = desk.run(&["key", "list"], 0).stdout;
    assert!(!keys.contains(&key), "a key is shown once");
    let bound = desk.json(&["call", "app_describe"])["env"].take();
    let keys = desk.json(&["key", "list"]);
    let listed = keys["keys"].as_array().unwrap().iter().find(|key| key["env"] == bound).unwrap();
    let revoked = desk.run(&["key", "revoke", listed["id"].as_str().unwrap()], 0);
    assert_eq!(revoked.stdout.trim(), "Revoked.");
    let refused = eventually(LIMIT, || with_key(&["call", "app_describe"]).filter(|code| *code != 0));
    assert_eq!(refused, Some(3));
}

#[test]
fn the_tools_are_shown_to_people_and_to_programs() {
    let desk = Desk::new("tools");
    let tools = desk.json(&["tools"]);
    let over_http = desk.place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    assert_eq!(tools, over_http);
    let people = desk.run(&["tools"], 0).stdout;
    for tool in tools["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        assert!(people.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {people}");
        assert_eq!(desk.json(&["tools", name]), *tool);
    }
    assert!(!people.contains('\u{1b}'), "colours where nobody sees them");
}

#[test]
fn results_are_on_stdout_and_the_rest_on_stderr() {
    let desk = Desk::new("streams");
    let applied = desk.run(&["apply"], 0);
    assert_eq!(applied.stdout.lines().count(), 1, "{}", applied.stdout);
    assert!(applied.stderr.contains("table items"), "{}", applied.stderr);
    let again = desk.run(&["apply", "--json"], 0);
    assert_eq!((again.stdout.lines().count(), again.stderr.as_str()), (1, ""), "a program reads {again:?}");
    let failed = desk.run(&["call", "db_query", r#"{"sql":"SELEC"}"#], 2);
    assert_eq!(failed.stdout, "");
    assert!(failed.stderr.starts_with("error: "), "{}", failed.stderr);
    let failed = desk.run(&["call", "db_query", r#"{"sql":"SELEC"}"#, "--json"], 2);
    assert_eq!(serde_json::from_str::<Value>(&failed.stdout).unwrap()["code"], "invalid_input");
    desk.run(&["apply", "nowhere"], 2);
    desk.run(&["no-such-command"], 64);
}
