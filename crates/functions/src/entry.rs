//! Which file of a function's sources exports its handlers.

use capabilities::functions::{Files, Sources};
use capabilities::hosting::SitePath;
use kernel::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where it is looked for, where nobody says it: the first that is there.
const USUAL: [&str; 4] = ["index", "src/index", "main", "src/main"];
const ENDINGS: [&str; 8] = ["ts", "tsx", "mts", "cts", "js", "mjs", "cjs", "jsx"];

/// The file: the one that the sources name, `main` or `module` of their package.json, or one with a usual name.
///
/// # Errors
/// Where there is none, with what would be.
pub fn of(files: &Files, entry: Option<&SitePath>, package: Option<&Value>) -> Result<SitePath> {
    let there = |path: &str| {
        let path = path.trim_start_matches("./");
        files.keys().find(|file| file.as_str() == path).cloned()
    };
    if let Some(entry) = entry {
        return there(entry.as_str()).ok_or_else(|| {
            Error::invalid("/entry", format!("there is no file {entry}")).hint(listed(files))
        });
    }
    let said = ["module", "main"].iter().filter_map(|key| package?.get(key)?.as_str());
    for path in said {
        let guesses =
            std::iter::once(path.to_owned()).chain(ENDINGS.map(|ending| format!("{path}.{ending}")));
        if let Some(found) = guesses.clone().find_map(|guess| there(&guess)) {
            return Ok(found);
        }
    }
    let usual = USUAL.iter().flat_map(|name| ENDINGS.map(|ending| format!("{name}.{ending}")));
    if let Some(found) = usual.clone().find_map(|path| there(&path)) {
        return Ok(found);
    }
    let mut code = files
        .keys()
        .filter(|path| path.as_str().rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending)));
    // One file needs no name.
    if let (Some(only), None) = (code.next(), code.next()) {
        return Ok(only.clone());
    }
    Err(Error::invalid("/entry", "no file is the one that exports the handlers").hint(listed(files)))
}

fn listed(files: &Files) -> String {
    let names: Vec<&str> = files.keys().take(10).map(SitePath::as_str).collect();
    format!("name it index.ts, or say with entry which of these it is: {}", names.join(", "))
}

/// Whether packages are to be installed.
pub fn has_dependencies(package: &Value) -> bool {
    ["dependencies", "optionalDependencies"]
        .iter()
        .any(|key| package.get(key).and_then(Value::as_object).is_some_and(|all| !all.is_empty()))
}

/// A package.json without what only its author needs, which would be looked up all the same; none where it is needed as it
/// is, for a lock file that says what is installed.
pub fn lean(sources: &Sources, package: Option<&Value>) -> Option<Value> {
    const LOCKS: [&str; 5] = ["bun.lock", "bun.lockb", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"];
    if sources.files.keys().any(|path| LOCKS.contains(&path.as_str())) {
        return None;
    }
    let mut package = package?.clone();
    package.as_object_mut()?.remove("devDependencies");
    Some(package)
}

/// A source map (ECMA-426), as far as bundles have one. Of what a build brings nothing else is taken for one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Map {
    version: u8,
    sources: Vec<String>,
    #[serde(default)]
    sources_content: Vec<Option<String>>,
    mappings: String,
    #[serde(default)]
    names: Vec<String>,
}

/// A source map whose sources are where their author has them, beside the bundle.
pub fn remapped(map: &[u8]) -> Option<Vec<u8>> {
    let mut map: Map = serde_json::from_slice(map).ok()?;
    for source in &mut map.sources {
        *source = source.trim_start_matches("../build/").to_owned();
    }
    serde_json::to_vec(&map).ok()
}

/// The package at the top of `node_modules` that has a file.
pub fn package_of(path: &str) -> Option<String> {
    let mut names = path.rsplit_once("node_modules/")?.1.split('/');
    let first = names.next()?;
    if first.starts_with('@') { Some(format!("{first}/{}", names.next()?)) } else { Some(first.to_owned()) }
}

#[cfg(test)]
mod tests {
    use capabilities::hosting::SiteFile;
    use kernel::BlobHash;
    use serde_json::json;

    use super::*;

    fn files(paths: &[&str]) -> Files {
        let file = || SiteFile { sha256: BlobHash::of(b""), size: 0, content_type: String::new() };
        paths.iter().map(|path| (path.parse().unwrap(), file())).collect()
    }

    #[test]
    fn the_file_is_found_as_people_name_it_or_asked_for() {
        let found = |paths: &[&str], entry: Option<&str>, package: Value| {
            let entry = entry.map(|it| it.parse().unwrap());
            of(&files(paths), entry.as_ref(), Some(&package)).map(|path| path.as_str().to_owned())
        };
        assert_eq!(found(&["index.ts", "b.ts"], None, json!({})).unwrap(), "index.ts");
        assert_eq!(found(&["src/index.js", "b.ts"], None, json!({})).unwrap(), "src/index.js");
        assert_eq!(found(&["index.ts", "b.ts"], Some("b.ts"), json!({})).unwrap(), "b.ts");
        assert_eq!(found(&["index.ts", "b.ts"], None, json!({ "main": "./b" })).unwrap(), "b.ts");
        assert_eq!(
            found(&["index.ts", "b.ts"], None, json!({ "main": "dist/gone.js" })).unwrap(),
            "index.ts"
        );
        assert_eq!(found(&["hello.ts", "data.json"], None, json!({})).unwrap(), "hello.ts");
        let refused = found(&["a.ts", "b.ts"], None, json!({})).unwrap_err();
        assert_eq!(refused.pointer(), Some("/entry"));
        assert_eq!(found(&["a.ts"], Some("c.ts"), json!({})).unwrap_err().pointer(), Some("/entry"));
    }

    #[test]
    fn packages_are_told_from_their_files() {
        assert_eq!(package_of("node_modules/sharp/build/a.node").as_deref(), Some("sharp"));
        assert_eq!(package_of("node_modules/a/node_modules/@img/b/c.node").as_deref(), Some("@img/b"));
        assert!(has_dependencies(&json!({ "dependencies": { "hono": "4" } })));
        assert!(!has_dependencies(&json!({ "dependencies": {}, "devDependencies": { "a": "1" } })));
    }
}
