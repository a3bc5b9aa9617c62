//! The pinned clients: each program runs and is the version that the lock file names.

use testkit::{Finished, NodeTool, PythonTool, finish, require, temporary};

use crate::LIMIT;

fn check(program: &str, arguments: &[&str], version: &str) {
    let (clients, home) = (require(NodeTool::install()), temporary().unwrap());
    let mut command = clients.command(program, home.path()).unwrap();
    command.args(arguments);
    check_output(&finish(command, LIMIT).unwrap(), version);
}

fn check_output(finished: &Finished, version: &str) {
    assert!(finished.success(), "{finished:?}");
    assert_eq!(finished.stdout.trim(), version);
}

#[test]
fn node_is_the_pinned_one() {
    check("node", &["--version"], "v24.21.0");
}

#[test]
fn the_conformance_suite_runs() {
    check("conformance", &["--version"], "0.2.0-alpha.12");
}

#[test]
fn the_inspector_runs() {
    check("mcp-inspector", &["--cli", "--version"], "2.12.0");
}

#[test]
fn claude_code_runs() {
    check("claude", &["--version"], "2.1.329 (Claude Code)");
}

#[test]
fn codex_runs() {
    check("codex", &["--version"], "codex-cli 0.169.0");
}

#[test]
fn opencode_runs() {
    check("opencode", &["--version"], "1.18.33");
}

#[test]
fn the_typescript_clients_are_importable() {
    let script = "import('@modelcontextprotocol/client').then((client) =>
        import('@modelcontextprotocol/sdk/client/index.js').then((sdk) =>
            console.log(typeof client.Client, typeof sdk.Client)))";
    let (clients, home) = (require(NodeTool::install()), temporary().unwrap());
    let mut node = clients.command("node", home.path()).unwrap();
    node.args(["--eval", script]).current_dir(clients.directory());
    check_output(&finish(node, LIMIT).unwrap(), "function function");
}

#[test]
fn the_python_client_is_importable() {
    let (python, home) = (require(PythonTool::install()), temporary().unwrap());
    let mut python = python.command(home.path()).unwrap();
    python.args(["-c", "import importlib.metadata, mcp; print(importlib.metadata.version('mcp'))"]);
    check_output(&finish(python, LIMIT).unwrap(), "2.3.0");
}

#[test]
fn a_program_that_no_package_has_is_an_error() {
    let (clients, home) = (require(NodeTool::install()), temporary().unwrap());
    assert!(clients.command("no-such-program", home.path()).is_err());
}
