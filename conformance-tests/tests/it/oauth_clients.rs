//! Other programs' own sign-in against the authorization server: the official suite, the SDKs, the Inspector.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use conformance_tests::{Place, Visitor};
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{NodeTool, PythonTool, eventually, require};

use crate::oauth_claude::Terminal;
use crate::oauth_flow::{register, text};

const LIMIT: Duration = Duration::from_secs(120);

/// A program that says what its user has to open.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _home: tempfile::TempDir,
}

impl Program {
    fn start(mut command: Command, home: tempfile::TempDir) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, _home: home }
    }

    fn tell(&mut self, thing: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{thing}").unwrap();
    }

    /// What it says in the next line.
    fn says(&mut self, name: &str) -> String {
        let line = self.lines.next().unwrap_or_else(|| panic!("it says no {name}")).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        text(&said, name).to_owned()
    }

    /// What it says until the end, where its user opens what it names.
    fn visited(&mut self, begin: &str, mut visit: impl FnMut(&str)) -> String {
        let mut all = String::new();
        for line in self.lines.by_ref().map_while(Result::ok) {
            if let Some(at) = line.find(begin) {
                visit(line[at..].split_whitespace().next().unwrap());
            }
            all.push_str(&line);
            all.push('\n');
        }
        all
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lets a program of a user sign in at a place, and looks at what a tool answers it.
fn signs_in(mut program: Program, place: &Place, target: &Value) {
    let ready = place.steading.ready();
    program.tell(target);
    let open = program.says("open");
    let back = Visitor::new(&ready.url).allow(&open, &ready.key, Some(&place.slug)).unwrap();
    program.tell(&json!({ "back": back }));
    let told = program.says("told");
    assert!(told.contains(&place.slug), "{told}");
}

fn typescript(sdk: u32) {
    let (place, home) = (Place::new("oauth-ts").unwrap(), testkit::temporary().unwrap());
    let node = require(NodeTool::install());
    let mut command = node.command("node", home.path()).unwrap();
    let script = include_str!("../../clients/node/sign_in.mjs");
    command.args(["--input-type=module", "--eval", script]).current_dir(node.directory());
    signs_in(Program::start(command, home), &place, &json!({ "url": place.mcp_url(), "sdk": sdk }));
}

#[test]
fn the_typescript_sdk_1_x_signs_in_and_refreshes() {
    typescript(1);
}

#[test]
fn the_typescript_sdk_2_x_signs_in_and_refreshes() {
    typescript(2);
}

#[test]
fn the_python_sdk_signs_in() {
    let (place, home) = (Place::new("oauth-python").unwrap(), testkit::temporary().unwrap());
    let mut command = require(PythonTool::install()).command(home.path()).unwrap();
    command.args(["-c", include_str!("../../clients/python/sign_in.py")]);
    signs_in(Program::start(command, home), &place, &json!({ "url": place.mcp_url() }));
}

#[test]
fn the_official_suite_finds_nothing_wrong() {
    let (place, home) = (Place::new("oauth-suite").unwrap(), testkit::temporary().unwrap());
    let ready = place.steading.ready();
    let client = register(
        &ready.url,
        &json!({ "redirect_uris": ["http://127.0.0.1/callback"], "client_name": "suite" }),
    );
    let port = free_port();
    let mut suite = require(NodeTool::install()).command("conformance", home.path()).unwrap();
    suite.args(["authorization", "--url", &ready.url, "--client-id", text(&client, "client_id")]);
    suite.args(["--resource", &place.mcp_url(), "--port", &port.to_string()]).env_remove("HTTP_PROXY");
    let mut suite = Program::start(suite, home);
    let said = suite.visited(&format!("{}/oauth/authorize?", ready.url), |url| {
        let back = Visitor::new(&ready.url).allow(url, &ready.key, None).unwrap();
        // It listens when it has said what to open.
        let arrived = eventually(LIMIT, || Request::get(&back).send().ok());
        assert_eq!(arrived.map(|answer| answer.status), Some(200));
    });
    assert!(said.contains("Total: 3 passed, 0 failed"), "{said}");
    assert!(suite.child.wait().unwrap().success(), "{said}");
}

#[test]
fn the_inspector_signs_in() {
    let (place, home) = (Place::new("oauth-inspector").unwrap(), testkit::temporary().unwrap());
    let ready = place.steading.ready();
    let listens = format!("http://127.0.0.1:{}/oauth/callback", free_port());
    let mut inspector = require(NodeTool::install()).command("mcp-inspector", home.path()).unwrap();
    inspector.args(["--cli", &place.mcp_url(), "--transport", "http", "--callback-url", &listens]);
    inspector.args(["--method", "tools/call", "--tool-name", "app_describe"]);
    inspector.env("MCP_INSPECTOR_SECRET_STORE", "memory").env("BROWSER", "none");
    let terminal = Terminal::start(&inspector);
    let url = terminal.link(&format!("{}/oauth/authorize?", ready.url));
    let back = Visitor::new(&ready.url).allow(&url, &ready.key, None).unwrap();
    assert_eq!(Request::get(&back).send().unwrap().status, 200);
    terminal.shows(|text| (text.contains("structuredContent") && text.contains(&place.slug)).then_some(()));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
