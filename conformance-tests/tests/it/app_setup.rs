//! `steading setup`: what functions run on is there before the first of them is deployed, and can be brought along.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Steading, finish, require};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn what_was_fetched_before_serves_where_nothing_can_be_fetched() {
    let steading = require(Steading::start());
    let data = testkit::temporary().unwrap();
    let templates = data.path().join("templates");
    let mut setup = steading.command(&["setup", "--json", "--data-dir"]);
    setup.arg(data.path()).env("STEADING_SANDBOX_TEMPLATES_DIR", &templates);
    let made = finish(setup, LIMIT).unwrap();
    assert!(made.success(), "{made:?}");
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let names: Vec<&str> =
        made["made"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names[..2], ["bun", "node"], "{made}");
    let runs = |part: usize, program: &str| {
        let directory = made["made"][part]["directories"][0].as_str().unwrap().to_owned();
        let mut runs = Command::new(format!("{directory}/bin/{program}"));
        runs.arg("--version");
        finish(runs, LIMIT).unwrap().success()
    };
    assert!(runs(0, "bun") && runs(1, "node"), "{made}");

    // A platform that has no npm to ask, on which they were brought along.
    let moved = data.path().join("brought");
    std::fs::rename(&templates, &moved).unwrap();
    let bare = Steading::launch().env("STEADING_SANDBOX_TEMPLATES_DIR", &moved).env("PATH", "/nowhere");
    let bare = require(bare.start());
    for runtime in ["bun", "node"] {
        let files = json!({ "index.ts": "export default () => new Response('hello');" });
        let input = json!({ "name": runtime, "files": files, "runtime": runtime });
        bare.client().output("function_deploy", &input).unwrap();
        let asked = bare.client().output("function_invoke", &json!({ "name": runtime })).unwrap();
        assert_eq!(asked["body"], "hello");
    }
}
