//! The packages that people use, deployed as they use them: each check below `packages` is a function that asks its packages
//! for what they are for, on both runtimes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use conformance_tests::Place;
use serde_json::{Map, Value, json};

/// Checks that there are, and those that a runtime is known not to pass, with what it says.
const CHECKS: usize = 42;
const KNOWN: [(&str, &str, &str); 2] =
    [("bun", "stripe", "constructEventAsync"), ("bun", "undici", "close is not a function")];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packages")
}

fn read(path: &str) -> String {
    fs::read_to_string(directory().join(path)).unwrap()
}

/// The packages of a module's imports, each of which is a line.
fn imported(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with("import "));
    let names = lines.filter_map(|line| line.rsplit('"').nth(1));
    let package = |name: &str| {
        let parts = if name.starts_with('@') { 2 } else { 1 };
        name.split('/').take(parts).collect::<Vec<_>>().join("/")
    };
    names.map(package).collect()
}

/// A function of a file and those beside it, with the packages that it imports, in the versions that are pinned.
fn function(runtime: &str, entry: &str, text: &str, beside: &[(&str, String)]) -> Value {
    let pinned: Value = serde_json::from_str(&read("package.json")).unwrap();
    let pinned: BTreeMap<String, String> = serde_json::from_value(pinned["dependencies"].clone()).unwrap();
    let wanted = imported(text);
    let needed: BTreeMap<_, _> = pinned.into_iter().filter(|(name, _)| wanted.contains(name)).collect();
    let package = json!({ "type": "module", "dependencies": needed });
    let mut files: Map<String, Value> =
        beside.iter().map(|(path, text)| ((*path).to_owned(), json!(text))).collect();
    files.insert(entry.to_owned(), json!(text));
    files.insert("package.json".to_owned(), json!(package.to_string()));
    json!({ "files": files, "runtime": runtime, "variables": { "GREETING": "hello" } })
}

/// What packages do on a runtime.
fn check(runtime: &str) {
    let place = Place::new(runtime).unwrap();
    let deploy = |name: &str, entry: &str, text: &str, beside: &[(&str, String)]| {
        let mut function = function(runtime, entry, text, beside);
        function["name"] = json!(name);
        function["entry"] = json!(entry);
        place.output("function_deploy", &function).unwrap();
    };
    let local = [("local.mjs", read("checks/local.mjs"))];
    let mut names = Vec::new();
    for entry in fs::read_dir(directory().join("checks")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".mjs").filter(|name| *name != "local") else { continue };
        deploy(name, "index.mjs", &read(&format!("checks/{file}")), &local);
        names.push(name.to_owned());
    }
    assert_eq!(names.len(), CHECKS);
    deploy("eighteen", "app.ts", &read("app.ts"), &[]);

    let ask = |name: &str, path: &str| {
        place.output("function_invoke", &json!({ "name": name, "path": path })).unwrap()
    };
    let failed: BTreeMap<String, String> = names
        .iter()
        .map(|name| (name.clone(), ask(name, "/")))
        .filter(|(_, answer)| answer["status"] != 200 || answer["body"] != "ok")
        .map(|(name, answer)| (name, answer["body"].to_string()))
        .collect();
    let known: BTreeMap<_, _> = KNOWN.iter().filter(|it| it.0 == runtime).map(|it| (it.1, it.2)).collect();
    assert_eq!(failed.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>(), "{failed:#?}");
    assert!(failed.iter().all(|(name, said)| said.contains(known[name.as_str()])), "{failed:#?}");

    let passed = ask("eighteen", "/")["body"].as_str().unwrap().to_owned();
    let passed: BTreeMap<String, Value> = serde_json::from_str(&passed).unwrap();
    assert_eq!(passed.len(), 18);
    assert!(passed.values().all(|passes| *passes == true), "{passed:#?}");
    // Where its errors come from is the file that was deployed.
    let thrown = ask("eighteen", "/throw")["body"].as_str().unwrap().to_owned();
    let (said, stack) = thrown.split_once('\n').unwrap();
    assert_eq!(said, "RangeError: from line 1");
    assert!(stack.lines().next().unwrap().contains("app.ts:61:"), "{stack}");
}

#[test]
fn enough_of_the_packages_that_people_use_work_on_bun() {
    check("bun");
}

#[test]
fn enough_of_the_packages_that_people_use_work_on_node() {
    check("node");
}
