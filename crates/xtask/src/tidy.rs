//! Rules for the repository's files that neither rustfmt nor clippy knows.

use std::process::Command;

use serde_json::Value;

use crate::workspace::{output, root};

const MAX_LINES: usize = 500;

/// Words that mark something unfinished, put together here so that this file does not hold them.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Directories of the machines that this was written on.
const MACHINE_PATHS: [&str; 2] = [concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// Where packages come from is the machine's own setting; a file that names it fails elsewhere.
const REGISTRIES: [&str; 8] = [
    concat!("registry", ".npmjs"),
    concat!("registry", ".yarnpkg"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("index", ".crates.io"),
    concat!("static", ".crates.io"),
    concat!("deb", ".debian.org"),
    concat!("--index", "-url"),
];

/// Checks every file that git tracks or would track: a line for each thing that is not tidy.
///
/// # Errors
/// Where git does not list the files.
pub fn check() -> anyhow::Result<Vec<String>> {
    let root = root();
    let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(Command::new("git").args(listing).current_dir(&root))?;
    let mut untidy = Vec::new();
    for name in names.split_terminator('\0') {
        // A listed file that is gone is a deletion not yet committed; one that is no text has no lines.
        if let Some(text) =
            std::fs::read(root.join(name)).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        {
            untidy.extend(check_file(name, &text));
        }
    }
    let changelog = std::fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    if !changelog.lines().any(|line| line.trim_end() == "## Unreleased") {
        untidy.push("CHANGELOG.md: no section `## Unreleased`".to_owned());
    }
    Ok(untidy)
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut untidy = Vec::new();
    // Cargo writes this file, index addresses included, and nobody edits it.
    if name.ends_with("Cargo.lock") || name == "LICENSE" {
        return untidy;
    }
    let rust = name.ends_with(".rs");
    if rust && !text.starts_with("//! ") {
        untidy.push(format!("{name}:1: a file starts with one `//!` sentence"));
    }
    let length = text.lines().count();
    if rust && length > MAX_LINES {
        untidy.push(format!("{name}: {length} lines, at most {MAX_LINES}"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        untidy.push(format!("{name}:{length}: no line end at the end"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut report = |what: &str| untidy.push(format!("{name}:{number}: {what}"));
        if line.ends_with([' ', '\t', '\r']) {
            report("blanks at the end of the line");
        }
        if rust && (line.contains(concat!("#[al", "low(")) || line.contains(concat!("#![al", "low("))) {
            report("`expect` with a reason instead of `allow`");
        }
        if UNFINISHED.iter().any(|word| starts_a_comment(line, word)) {
            report("unfinished: finish it, or leave it to the issue tracker");
        }
        if MACHINE_PATHS.iter().any(|path| names_directory(line, path)) {
            report("a directory of one machine");
        }
        if REGISTRIES.iter().any(|address| line.contains(address)) {
            report("the address of a package registry");
        }
    }
    if name.ends_with("package-lock.json") {
        untidy.extend(check_npm_lock(name, text));
    }
    untidy
}

/// Whether `word` is the first of a comment; elsewhere it may be the name of something.
fn starts_a_comment(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].trim_end();
        ["//", "///", "//!", "#", "--", "*"].iter().any(|mark| before.ends_with(mark))
    })
}

/// Whether `line` has the absolute directory `path`, and not just a longer path that ends like it.
fn names_directory(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-*/}>)]$".contains(before))
    })
}

/// npm writes the address that each package came from; an install on another machine would insist on it.
fn check_npm_lock(name: &str, text: &str) -> Vec<String> {
    let lock: Value = serde_json::from_str(text).unwrap_or_default();
    let Some(packages) = lock["packages"].as_object() else {
        return vec![format!("{name}: not a lock file")];
    };
    let mut untidy = Vec::new();
    for (package, entry) in packages {
        if entry.get("resolved").is_some() {
            untidy.push(format!("{name}: {package} carries a download address (`resolved`)"));
        }
        if !package.is_empty() && entry.get("integrity").is_none() && entry.get("inBundle").is_none() {
            untidy.push(format!("{name}: {package} has no checksum (`integrity`)"));
        }
    }
    untidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_for_rust_files_names_the_line() {
        let text = concat!("fn a() {} \n", "#[al", "low(dead_code)]\n", "// TO", "DO later\n", "fn b() {}");
        assert_eq!(
            check_file("a.rs", text),
            [
                "a.rs:1: a file starts with one `//!` sentence",
                "a.rs:4: no line end at the end",
                "a.rs:1: blanks at the end of the line",
                "a.rs:2: `expect` with a reason instead of `allow`",
                "a.rs:3: unfinished: finish it, or leave it to the issue tracker",
            ]
        );
        assert_eq!(check_file("a.rs", "//! One sentence.\n"), [""; 0]);
    }

    #[test]
    fn a_rust_file_may_have_500_lines_and_no_more() {
        let lines = |count: usize| "//! x\n".repeat(count);
        assert_eq!(check_file("a.rs", &lines(500)), [""; 0]);
        assert_eq!(check_file("a.rs", &lines(501)), ["a.rs: 501 lines, at most 500"]);
        assert_eq!(check_file("a.md", &lines(501)), [""; 0]);
    }

    #[test]
    fn a_constant_may_have_the_name_of_a_mark() {
        assert_eq!(check_file("a.rs", concat!("//! One.\nconst TO", "DO: &str = \"\";\n")), [""; 0]);
        let found = concat!("a = 1 # FIX", "ME: b\n");
        assert_eq!(
            check_file("a.toml", found),
            ["a.toml:1: unfinished: finish it, or leave it to the issue tracker"]
        );
    }

    #[test]
    fn directories_of_a_machine_are_found_and_paths_like_them_are_not() {
        let found = ["a ", MACHINE_PATHS[0], "b\n\"", MACHINE_PATHS[1], "c\"\n"].concat();
        assert_eq!(
            check_file("a.sh", &found),
            ["a.sh:1: a directory of one machine", "a.sh:2: a directory of one machine"]
        );
        let alike =
            ["data", MACHINE_PATHS[1], "c ${x}", MACHINE_PATHS[0], " ", "/work", "space/x\n"].concat();
        assert_eq!(check_file("a.sh", &alike), [""; 0]);
    }

    #[test]
    fn registry_addresses_are_found_except_where_cargo_writes_them() {
        let text = ["see ", REGISTRIES[0], "\n"].concat();
        assert_eq!(check_file("a.md", &text), ["a.md:1: the address of a package registry"]);
        assert_eq!(check_file("Cargo.lock", &text), [""; 0]);
    }

    #[test]
    fn an_npm_lock_file_has_checksums_and_no_addresses() {
        let text =
            r#"{"packages":{"":{},"node_modules/a":{"resolved":"x","integrity":"y"},"node_modules/b":{}}}"#;
        assert_eq!(
            check_npm_lock("package-lock.json", text),
            [
                "package-lock.json: node_modules/a carries a download address (`resolved`)",
                "package-lock.json: node_modules/b has no checksum (`integrity`)",
            ]
        );
        assert_eq!(check_npm_lock("package-lock.json", "{}"), ["package-lock.json: not a lock file"]);
    }

    #[test]
    fn this_repository_is_tidy() {
        assert_eq!(check().unwrap(), [""; 0]);
    }
}
