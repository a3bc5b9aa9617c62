//! Claude Code signs in by itself, with no network but this machine's, and its model calls a tool with what it was given.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conformance_tests::{LAST_WORDS, Model, Place, Visitor, Wire};
use testkit::http::Request;
use testkit::{NodeTool, eventually, finish, require};

const LIMIT: Duration = Duration::from_secs(120);

/// A program at a terminal, which `script` gives it.
pub struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    pub fn start(command: &Command) -> Self {
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap().replace('\'', "'\\''"));
        let words: Vec<String> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        let mut script = Command::new("script");
        script.args(["-qefc", &words.join(" "), "/dev/null"]).env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            script.current_dir(directory);
        }
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut out, all) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                all.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, shown }
    }

    /// What it shows, once `find` finds what it looks for.
    pub fn shows<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        let text = || self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        eventually(LIMIT, || find(&text())).unwrap_or_else(|| panic!("{}", text()))
    }

    /// The address beginning so that it shows as a link, which the terminal can follow: nothing breaks its lines.
    pub fn link(&self, begin: &str) -> String {
        self.shows(|text| {
            let (_, link) = text.split_once(&format!("]8;;{begin}"))?;
            let end = link.find(['\u{7}', '\u{1b}'])?;
            Some(format!("{begin}{}", &link[..end]))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn signs_in(resource: impl Fn(&Place) -> String) {
    let place = Place::new("oauth-claude").unwrap();
    let (ready, home) = (place.steading.ready(), testkit::temporary().unwrap());
    let model = Model::start(Wire::Messages, "app_describe").unwrap();
    let claude = |arguments: &[&str]| {
        let mut claude = require(NodeTool::install()).command("claude", home.path()).unwrap();
        claude
            .args(arguments)
            .env("ANTHROPIC_BASE_URL", &model.url)
            .env("ANTHROPIC_API_KEY", "none")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("ENABLE_TOOL_SEARCH", "false")
            // Whatever leaves this machine ends at a closed port.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("HTTP_PROXY", "http://127.0.0.1:9")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env_remove("STEADING_KEY");
        claude
    };
    let added =
        finish(claude(&["mcp", "add", "--transport", "http", "steading", &resource(&place)]), LIMIT).unwrap();
    assert!(added.success(), "{added:?}");
    let terminal = Terminal::start(&claude(&["mcp", "login", "--no-browser", "steading"]));
    let url = terminal.link(&format!("{}/oauth/authorize?", ready.url));
    let back = Visitor::new(&ready.url).allow(&url, &ready.key, Some(&place.slug)).unwrap();
    assert!(back.starts_with("http://localhost:"), "{back}");
    assert_eq!(Request::get(&back).send().unwrap().status, 200);
    terminal.shows(|text| text.contains("Authenticated").then_some(()));
    drop(terminal);
    let asked = claude(&["--print", "What is here?", "--allowedTools", "mcp__steading__app_describe"]);
    let finished = finish(asked, LIMIT).unwrap();
    assert!(finished.success() && finished.stdout.contains(LAST_WORDS), "{finished:?}");
    let result = model.result().unwrap_or_else(|| panic!("no result in {:?}", model.asked()));
    assert!(result.contains(&place.slug), "{result}");
}

#[test]
fn claude_code_signs_in_to_one_environments_address() {
    signs_in(Place::mcp_url);
}

#[test]
fn claude_code_signs_in_and_its_user_chooses_the_environment() {
    signs_in(|place| format!("{}/mcp", place.steading.ready().url));
}
