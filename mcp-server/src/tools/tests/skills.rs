//! That the skills say nothing of the product that is not so.

use std::collections::BTreeSet;

use capabilities::releases::Manifest;
use kernel::{Code, Scope};
use serde_json::{Value, json};

use super::{Ground, cost};
use crate::skills::{self, File};
use crate::tools::registry;

/// What apps answer beside rows (the tools and the manifest do not know of it).
const OF_APPS: [&str; 10] = [
    "access_token",
    "token_type",
    "refresh_token",
    "expires_in",
    "request_id",
    // Who may join a channel, and why a stream has ended.
    "signed_in",
    "session_ended",
    "session_changed",
    "token_expired",
    "slow_consumer",
];

/// A block of code in a skill.
struct Fence {
    /// What stands after the backticks: the language, and what the block is.
    info: &'static str,
    text: &'static str,
}

fn fences(file: &File) -> Vec<Fence> {
    let parts = file.text.split("```").skip(1).step_by(2);
    parts
        .map(|part| {
            let (info, text) = part.split_once('\n').unwrap();
            Fence { info, text }
        })
        .collect()
}

/// The JSON in a skill, with what it is: the name of a tool, or `manifest`.
fn json_blocks() -> Vec<(&'static File, &'static str, Value)> {
    let mut blocks = Vec::new();
    for file in skills::FILES {
        for fence in fences(file) {
            if let Some(of) = fence.info.strip_prefix("json") {
                let value = serde_json::from_str(fence.text);
                let value = value.unwrap_or_else(|e| panic!("{}: {e}: {}", file.path, fence.text));
                blocks.push((file, of.trim(), value));
            }
        }
    }
    blocks
}

fn manifests() -> Vec<(&'static File, Value)> {
    let blocks = json_blocks().into_iter().filter(|(_, of, _)| *of == "manifest");
    blocks.map(|(file, _, manifest)| (file, manifest)).collect()
}

#[tokio::test]
async fn every_manifest_in_a_skill_can_be_applied() {
    assert!(manifests().len() >= 5);
    for (file, manifest) in manifests() {
        let parsed = tool::decode::<Manifest>(manifest.clone());
        assert!(parsed.is_ok(), "{}: {:?}", file.path, parsed.err());
        let ground = Ground::new().await;
        for provider in manifest["auth"]["providers"].as_object().into_iter().flat_map(|named| named.values())
        {
            let secret = json!({ "name": provider["client_secret"], "value": "theirs" });
            ground.call("secret_set", secret).await.unwrap();
        }
        if let Some(name) = manifest["auth"]["phone"]["secret"].as_str() {
            ground.call("secret_set", json!({ "name": name, "value": "shared" })).await.unwrap();
        }
        let applied = ground.call("app_apply", json!({ "manifest": manifest })).await;
        assert!(applied.is_ok(), "{}: {:?}", file.path, applied.err());
    }
}

#[tokio::test]
async fn every_call_in_a_skill_is_one_that_its_tool_takes() {
    let ground = Ground::new().await;
    let columns = json!({ "title": "text", "done": "bool", "name": "text", "last": "text", "price": "int" });
    let table = json!({ "columns": columns, "access": "private" });
    let tables = json!({ "todos": table, "people": table, "products": table });
    let app = json!({ "database": { "tables": tables } });
    for manifest in [app, json!({ "site": { "files": { "index.html": "two" } } }), json!({ "name": "Three" })]
    {
        ground.call("app_apply", json!({ "manifest": manifest })).await.unwrap();
    }
    let mut tried = 0;
    for (file, of, input) in json_blocks() {
        // What has to do with a sandbox is tried where there are some: against the built binary.
        let runs_code = [Scope::SandboxUse, Scope::FunctionWrite, Scope::FunctionInvoke];
        let in_sandbox =
            |of| registry().doc(of).unwrap().spec.scopes.iter().any(|scope| runs_code.contains(scope));
        if of == "manifest" || in_sandbox(of) || input.get("workspace_path").is_some() {
            continue;
        }
        tried += 1;
        let outcome = ground.call(of, input.clone()).await;
        assert!(outcome.is_ok(), "{}: {of} {input}: {:?}", file.path, outcome.err());
    }
    assert!(tried >= 8, "{tried} calls");
}

/// Words of lower case letters with `_` in them: names, where they stand in a skill.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.trim_matches('_').contains('_') && !word.chars().any(|c| c.is_ascii_uppercase()))
}

/// The paths that a text names, each with the method that stands before it.
fn paths(text: &str) -> Vec<(Option<&str>, &str)> {
    let roots = ["/_/", "/v1/", "/.well-known/", "/mcp/", "/oauth/"];
    let of_path = |c: char| c.is_ascii_alphanumeric() || "/_.{}-".contains(c);
    let words: Vec<&str> = text.split(|c: char| !of_path(c)).filter(|word| !word.is_empty()).collect();
    let method = |at: usize| -> Option<&str> {
        let before = words[at.checked_sub(1)?];
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].contains(&before).then_some(before)
    };
    let path = |word: &'_ str| roots.iter().filter_map(|root| word.find(root)).min();
    let found = words.iter().enumerate().filter_map(|(at, word)| Some((method(at), &word[path(word)?..])));
    found.filter(|(_, path)| *path != "/_/").collect()
}

/// Whether a path is one of a route's: `{id}` stands for any segment.
fn is_of(path: &str, route: &str) -> bool {
    let (path, route): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
    let fits = |(part, of): (&&str, &&str)| part == of || of.starts_with('{') && !part.is_empty();
    path.len() == route.len() && path.iter().zip(&route).all(fits)
}

#[test]
fn every_route_in_a_skill_is_one_of_the_product() {
    let platform: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let mut routes: Vec<(String, &str)> = vec![("POST".to_owned(), "/mcp/{env}")];
    for (path, methods) in platform["paths"].as_object().unwrap() {
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), &**path)));
    }
    routes.extend(edge::ROUTES.iter().map(|(method, path)| ((*method).to_owned(), *path)));
    let mut seen = 0;
    for file in skills::FILES {
        for (method, path) in paths(file.text) {
            let is =
                |(of, route): &(String, &str)| method.is_none_or(|method| method == of) && is_of(path, route);
            assert!(routes.iter().any(is), "{}: {method:?} {path}", file.path);
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} routes");
}

/// Names of fields and fixed values in a schema.
fn in_schema(schema: &Value, known: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("properties", Value::Object(fields)) => known.extend(fields.keys().cloned()),
                    ("enum", Value::Array(values)) => {
                        known.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    ("const", Value::String(value)) => drop(known.insert(value.clone())),
                    _ => {}
                }
                in_schema(value, known);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| in_schema(item, known)),
        _ => {}
    }
}

#[test]
fn every_name_in_a_skill_is_one_of_the_product() {
    let mut known: BTreeSet<String> = OF_APPS.iter().map(|name| (*name).to_owned()).collect();
    known.extend(Code::ALL.iter().map(|code| code.as_str().to_owned()));
    for doc in registry().docs() {
        known.insert(doc.name.to_owned());
        in_schema(&doc.input_schema, &mut known);
        in_schema(&doc.output_schema, &mut known);
    }
    in_schema(&schemars::schema_for!(Manifest).to_value(), &mut known);
    let platform: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    in_schema(&platform["components"]["schemas"]["Problem"], &mut known);
    known.extend(["created_at", "updated_at"].map(str::to_owned));
    let named = skills::FILES.iter().flat_map(|file| names(file.text).map(|name| (file.path, name)));
    // Of the examples themselves: a migration's name, a secret's value, a prefix, a scope, what models are asked, Python's own.
    let own = [
        "snsapi_userinfo",
        "001_states",
        "004_split_names",
        "sk_live_",
        "pk_",
        "todos_via_list",
        "max_tokens",
        "send_response",
        "send_header",
        "end_headers",
        "serve_forever",
    ];
    let unknown: Vec<_> = named.filter(|(_, name)| !known.contains(*name) && !own.contains(name)).collect();
    assert_eq!(unknown, []);
}

#[test]
fn fields_that_stand_behind_a_tool_are_fields_of_it() {
    let mut seen = 0;
    for file in skills::FILES {
        let prose = file.text.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
        for code in prose {
            let Some((tool, fields)) = code.split_once(" {") else { continue };
            if !tool.contains('_') {
                continue;
            }
            let registry = registry();
            let doc = registry.doc(tool).unwrap_or_else(|_| panic!("{}: {code}", file.path));
            for field in fields.trim_end_matches('}').split(", ") {
                assert!(doc.input_schema["properties"][field].is_object(), "{}: {code}", file.path);
            }
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} calls in short");
}

#[test]
fn every_tool_is_in_a_skill() {
    let registry = registry();
    let all: String = skills::FILES.iter().map(|file| file.text).collect();
    let missing: Vec<_> = registry.docs().map(|doc| doc.name).filter(|name| !all.contains(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[tokio::test]
async fn a_skill_is_read_by_its_name_or_by_words() {
    let ground = Ground::new().await;
    for skill in skills::all() {
        let read = ground.call("skill_read", json!({ "name": skill.name })).await.unwrap();
        assert_eq!(read, json!({ "name": skill.name, "text": skill.body }));
    }
    for file in skills::FILES {
        let read = ground.call("skill_read", json!({ "name": file.path })).await.unwrap();
        assert_eq!(read, json!({ "name": file.path, "text": file.text }));
        assert!(cost(&read) <= 4_000, "{}", file.path);
    }
    let read = ground.call("skill_read", json!({ "query": "who may see which rows" })).await.unwrap();
    assert_eq!(read["name"], "data-and-access");
}

#[tokio::test]
async fn what_is_no_skill_is_answered_with_those_there_are() {
    let ground = Ground::new().await;
    let hint = "the skills are start-here, build-a-web-app, data-and-access, auth-and-accounts, files-and-images, realtime, write-functions, run-services, domains, debug-and-verify, change-data-safely, manage-environments, credentials-and-limits, work-in-a-sandbox";
    for name in ["", "start", "../tools.rs", "/etc/passwd", "start-here/../start-here/SKILL.md", "SKILL.md"] {
        let refused = ground.call("skill_read", json!({ "name": name })).await.unwrap_err();
        assert_eq!((refused.code(), refused.advice()), (Code::NotFound, Some(hint)), "{name}");
    }
    let refused = ground.call("skill_read", json!({ "query": "xylophone" })).await.unwrap_err();
    assert_eq!((refused.code(), refused.advice()), (Code::NotFound, Some(hint)));
    let both = json!({ "name": "start-here", "query": "rows" });
    let refused = ground.call("skill_read", both).await.unwrap_err();
    assert_eq!(refused.message(), "give either name or query");
    let first = ground.call("skill_read", json!({})).await.unwrap();
    assert_eq!(first["name"], "start-here");
}
