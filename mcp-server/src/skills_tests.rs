//! That the skills are whole, short and found; that they are true is tested where the tools are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{FILES, all, file, find, named};

/// What a model may have to read for one skill, and for a file that a skill refers to.
const BODY_TOKENS: usize = 1_500;
const REFERENCE_TOKENS: usize = 2_500;

fn below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_file_in_the_directory_is_part_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../skills");
    let mut found = Vec::new();
    below(&root, &mut found);
    let found: BTreeSet<&str> =
        found.iter().map(|p| p.strip_prefix(&root).unwrap().to_str().unwrap()).collect();
    assert_eq!(found, FILES.iter().map(|file| file.path).collect());
}

#[test]
fn every_skill_has_a_name_a_description_and_its_files() {
    let names: Vec<&str> = all().iter().map(|skill| skill.name).collect();
    let expected = [
        "start-here",
        "build-a-web-app",
        "data-and-access",
        "auth-and-accounts",
        "files-and-images",
        "realtime",
        "write-functions",
        "run-services",
        "domains",
        "debug-and-verify",
        "change-data-safely",
        "manage-environments",
        "credentials-and-limits",
        "work-in-a-sandbox",
    ];
    assert_eq!(names, expected);
    for skill in all() {
        assert!((40..=200).contains(&skill.description.len()), "{}: {}", skill.name, skill.description);
        // A YAML reader must see what is seen here.
        assert!(!skill.description.contains([':', '#', '\'', '"']), "{}", skill.description);
        assert!(skill.body.starts_with("# "), "{}", skill.name);
        assert_eq!(skill.files[0].path, format!("{}/SKILL.md", skill.name));
        for reference in &skill.files[1..] {
            assert_eq!(reference.path.split('/').nth(1), Some("references"), "{}", reference.path);
            assert!(skill.body.contains(reference.path), "{} does not name {}", skill.name, reference.path);
        }
    }
    let files: usize = all().iter().map(|skill| skill.files.len()).sum();
    assert_eq!(files, FILES.len());
}

#[test]
fn every_file_that_a_skill_names_is_there() {
    for text in FILES.iter().map(|file| file.text) {
        let words = text.split(|c: char| c.is_whitespace() || "`()[]".contains(c));
        for path in words.filter(|word| word.ends_with(".md")) {
            assert!(FILES.iter().any(|file| file.path == path), "{path}");
        }
    }
}

#[test]
fn a_skill_is_worth_its_tokens() {
    let tokens = tiktoken_rs::o200k_base_singleton();
    let costs = FILES.iter().map(|file| (file.path, tokens.encode_ordinary(file.text).len()));
    let most = |path: &str| if path.ends_with("/SKILL.md") { BODY_TOKENS } else { REFERENCE_TOKENS };
    let costly: Vec<_> = costs.filter(|(path, cost)| *cost > most(path)).collect();
    assert_eq!(costly, []);
}

#[test]
fn a_file_is_found_by_its_path_or_by_the_end_of_it() {
    let path = |name: &str| file(name).map(|file| file.path);
    assert_eq!(path("data-and-access/references/rules.md"), Some("data-and-access/references/rules.md"));
    assert_eq!(path("references/rules.md"), Some("data-and-access/references/rules.md"));
    assert_eq!(path("rules.md"), Some("data-and-access/references/rules.md"));
    for none in ["SKILL.md", "", "/", "ules.md", "../skills/start-here/SKILL.md", "data-and-access"] {
        assert_eq!(path(none), None, "{none}");
    }
    assert_eq!(named("start-here").map(|skill| skill.name), Some("start-here"));
    assert_eq!(named("start"), None);
}

#[test]
fn words_find_the_skill_that_is_meant() {
    let name = |query: &str| find(query).map(|skill| skill.name);
    for (query, wanted) in [
        ("how do I make an admin user", "data-and-access"),
        ("why is my request forbidden", "debug-and-verify"),
        ("show logs", "debug-and-verify"),
        ("how do I begin", "start-here"),
        ("complete manifest", "start-here"),
        ("write a page in the browser with the SDK", "build-a-web-app"),
        ("web app", "build-a-web-app"),
        ("who may see which rows", "data-and-access"),
        ("access rules", "data-and-access"),
        ("add a column to a table", "data-and-access"),
        ("the call failed", "debug-and-verify"),
        ("DEBUG", "debug-and-verify"),
        ("delete an environment", "manage-environments"),
        ("rollback to an earlier release", "manage-environments"),
        ("set a secret", "manage-environments"),
        ("take a snapshot and return to it", "change-data-safely"),
        ("merge a branch", "change-data-safely"),
        ("backups", "change-data-safely"),
        ("upload a photo", "files-and-images"),
        ("resize images", "files-and-images"),
        ("my own domain", "domains"),
        ("DNS records for a custom domain", "domains"),
        ("HTTPS certificate", "domains"),
        ("make a narrower credential", "credentials-and-limits"),
        ("rotate a key", "credentials-and-limits"),
        ("a rate limit", "credentials-and-limits"),
        ("budget exceeded", "credentials-and-limits"),
        ("take webhooks of a provider", "write-functions"),
        ("a server in Python", "run-services"),
        ("write a function in TypeScript", "write-functions"),
        ("run a shell command", "work-in-a-sandbox"),
        ("npm install", "work-in-a-sandbox"),
    ] {
        assert_eq!(name(query), Some(wanted), "{query}");
    }
    for none in ["", "a b c", "xylophone", "\u{1F980}", "; DROP TABLE"] {
        assert_ne!(name(none), Some("start-here"), "{none}");
    }
    assert_eq!(name("xylophone"), None);
}

#[test]
fn a_very_long_question_is_answered_at_once() {
    let long = "rows and rules ".repeat(100_000);
    let begun = std::time::Instant::now();
    assert_eq!(find(&long).map(|skill| skill.name), Some("data-and-access"));
    assert!(begun.elapsed() < std::time::Duration::from_secs(1));
}
