//! The skills over MCP: the extension of SEP-2640, resources, and prompts.

use std::time::Duration;

use mcp_server::mcp::{McpOptions, Sessions};
use mcp_server::skills;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::{NodeTool, require};

use crate::world::{ENV_KEY, TENANT_KEY, World};

/// How long one scenario of the suite may take.
const LIMIT: Duration = Duration::from_secs(90);

/// The answer to a request, in both eras the same but for what only the later has.
async fn ask(world: &World, method: &str, params: Value) -> Value {
    let read = |body: Vec<u8>| serde_json::from_slice::<Value>(&body).unwrap();
    let old = world.legacy("/mcp", ENV_KEY, method, params.clone()).await;
    let mut old = read(old.bytes().await.unwrap().to_vec());
    let new = world.modern("/mcp", TENANT_KEY, method, params).await;
    let new = read(new.bytes().await.unwrap().to_vec());
    if let Some(result) = old["result"].as_object_mut() {
        for later in ["resultType", "ttlMs", "cacheScope"] {
            if let Some(value) = new["result"].get(later) {
                result.insert(later.to_owned(), value.clone());
            }
        }
    }
    assert_eq!(old["result"], new["result"], "{method}");
    assert_eq!(old["error"]["message"], new["error"]["message"], "{method}");
    new
}

#[tokio::test]
async fn what_is_listed_is_what_can_be_read_byte_by_byte() {
    let world = World::start().await;
    let listed = ask(&world, "skills/list", json!({})).await["result"].take();
    assert_eq!((&listed["cacheScope"], listed.get("nextCursor")), (&json!("public"), None));
    let listed = listed["skills"].as_array().unwrap();
    assert_eq!(listed.len(), skills::all().len());
    for (entry, skill) in listed.iter().zip(skills::all()) {
        let frontmatter = json!({ "name": skill.name, "description": skill.description });
        assert_eq!(entry["frontmatter"], frontmatter);
        let got = ask(&world, "skills/get", json!({ "uri": entry["uri"] })).await;
        assert_eq!(got["result"]["skill"], *entry);
        assert_eq!(entry["resources"].as_array().unwrap().len(), skill.files.len());
        for resource in entry["resources"].as_array().unwrap() {
            let read =
                ask(&world, "resources/read", json!({ "uri": resource["uri"] })).await["result"].take();
            let contents = &read["contents"][0];
            assert_eq!(
                (&contents["uri"], &contents["mimeType"]),
                (&resource["uri"], &json!("text/markdown"))
            );
            let text = contents["text"].as_str().unwrap();
            let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(resource["digest"], format!("sha256:{digest}"));
            assert_eq!(resource["size"], text.len());
        }
    }
    let resources = ask(&world, "resources/list", json!({})).await["result"]["resources"].take();
    assert_eq!(resources.as_array().unwrap().len(), skills::FILES.len());
}

#[tokio::test]
async fn each_skill_is_a_prompt() {
    let world = World::start().await;
    let listed = ask(&world, "prompts/list", json!({})).await["result"]["prompts"].take();
    let first = json!({
        "name": "start-here", "title": "Start here", "description": skills::all()[0].description,
    });
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]), (skills::all().len(), &first));
    for skill in skills::all() {
        let got = ask(&world, "prompts/get", json!({ "name": skill.name })).await["result"].take();
        let content = json!({ "type": "text", "text": skill.body });
        assert_eq!(got["messages"], json!([{ "role": "user", "content": content }]));
        assert_eq!(got["description"], skill.description);
    }
}

#[tokio::test]
async fn directories_show_what_is_directly_in_them() {
    let world = World::start().await;
    let inside = async |uri: &str| {
        let read = ask(&world, "resources/directory/read", json!({ "uri": uri })).await;
        let shown =
            |one: &Value| format!("{} {}", one["uri"].as_str().unwrap(), one["mimeType"].as_str().unwrap());
        read["result"]["resources"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    let skill = "skill://data-and-access";
    let expected = [format!("{skill}/SKILL.md text/markdown"), format!("{skill}/references inode/directory")];
    assert_eq!(inside(skill).await, expected);
    let expected = ["manifest", "rules"].map(|name| format!("{skill}/references/{name}.md text/markdown"));
    assert_eq!(inside(&format!("{skill}/references")).await, expected);
}

#[tokio::test]
async fn what_is_not_there_is_refused_and_nothing_beside_the_skills_can_be_read() {
    let world = World::start().await;
    let uris = [
        "skill://",
        "skill://start-here",
        "skill://start-here/",
        "skill://start-here/skill.md",
        "skill://start-here/../data-and-access/SKILL.md",
        "skill://start-here/%53KILL.md",
        "skill://start-here/SKILL.md?x",
        "skill://../Cargo.toml",
        "skill:///etc/passwd",
        "file:///etc/passwd",
        "start-here/SKILL.md",
        "",
    ];
    for uri in uris {
        for method in ["resources/read", "skills/get"] {
            let refused = ask(&world, method, json!({ "uri": uri })).await;
            assert_eq!(refused["error"]["code"], -32602, "{method} {uri}");
        }
    }
    for uri in ["skill://start-here/SKILL.md", "skill://", "skill://start-here/", "skill://start-here/none"] {
        let refused = ask(&world, "resources/directory/read", json!({ "uri": uri })).await;
        assert_eq!(refused["error"]["code"], -32602, "{uri}");
    }
    let long =
        ask(&world, "resources/read", json!({ "uri": format!("skill://{}", "x".repeat(5_000)) })).await;
    assert!(long.to_string().len() < 300, "{long}");
    for (name, arguments) in [("start", json!({})), ("start-here", json!({ "task": "x" }))] {
        let refused = ask(&world, "prompts/get", json!({ "name": name, "arguments": arguments })).await;
        assert_eq!(refused["error"]["code"], -32602, "{name}");
    }
    for method in ["skills/list", "prompts/list", "resources/list"] {
        let refused = ask(&world, method, json!({ "cursor": "start-here" })).await;
        assert_eq!(refused["error"]["message"], "there is no such cursor", "{method}");
    }
}

#[tokio::test]
async fn nobody_reads_a_skill_without_a_credential() {
    let world = World::start().await;
    for method in ["skills/list", "prompts/list", "resources/list"] {
        assert_eq!(world.modern("/mcp", "wrong", method, json!({})).await.status(), 401);
    }
}

/// Runs one scenario of the official suite: how many of its checks passed and how many did not.
async fn scenario(name: &str) -> (usize, usize, String) {
    let world = World::open(McpOptions { sessions: Sessions::None, ..McpOptions::default() }).await;
    let home = testkit::temporary().unwrap();
    let mut suite = require(NodeTool::install()).command("conformance", home.path()).unwrap();
    suite.args(["server", "--scenario", name, "--url", &world.url("/mcp"), "--verbose"]);
    let finished = tokio::task::spawn_blocking(|| testkit::finish(suite, LIMIT)).await.unwrap().unwrap();
    let said = finished.stdout + &finished.stderr;
    (said.matches("SUCCESS").count(), said.matches("FAILURE").count(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_suite_finds_the_extension_as_it_should_be() {
    for (name, checks) in [
        ("sep-2640-skills-enumeration", 32),
        ("sep-2640-skills-manifest", 6),
        ("sep-2640-skills-directory", 7),
    ] {
        let (passed, failed, said) = scenario(name).await;
        assert_eq!((passed, failed), (checks, 0), "{name}: {said}");
    }
}
