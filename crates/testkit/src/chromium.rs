//! A headless Chromium with one page, driven through ChromeDriver (W3C WebDriver).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directory::temporary;
use crate::process::{Ending, Process, Stdout, User, command};
use crate::{Engine, Unavailable, eventually, http, locate};

const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a command waits for an element to appear, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// The key under which WebDriver names an element (WebDriver §12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Headless, silent, and blind to everything but loopback: a page that needs the network fails here.
const FLAGS: [&str; 14] = [
    "--headless=new",
    // As root, and in containers, Chromium's own sandbox does not start; the pages are this project's.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,800",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1",
];

/// A browser with one page. Commands block, and wait up to ten seconds for the element they name; in an async
/// test that serves the page itself, call them from `spawn_blocking`. Dropping it ends the browser.
#[derive(Debug)]
pub struct Chromium {
    // Dropped in this order: the browser ends before its profile goes.
    driver: Process,
    profile: TempDir,
    authority: String,
    session: String,
}

impl Chromium {
    /// Starts a browser with an empty profile, about a second.
    ///
    /// # Errors
    /// `Missing` where the machine has no Chromium or no ChromeDriver, `Broken` with the driver's log where they
    /// do not start.
    pub fn start() -> Result<Self, Unavailable> {
        let missing = || Unavailable::Missing(Engine::Chromium);
        let browser = locate::browser().ok_or_else(missing)?;
        let driver = locate::browser_driver().ok_or_else(missing)?;
        let start = || {
            let profile = temporary()?;
            let mut driver = command(&driver, User::Current);
            driver.arg("--port=0").current_dir(profile.path());
            // What it leaves where it is killed goes with its profile.
            driver.env("HOME", profile.path()).env("TMPDIR", profile.path());
            let log = profile.path().join("chromedriver.log");
            let mut driver = Process::spawn(driver, &log, Stdout::Log, Ending::Kill)?;
            let port = announced_port(&mut driver)?;
            let authority = format!("127.0.0.1:{port}");
            let user_data = format!("--user-data-dir={}", profile.path().join("profile").display());
            let capabilities = json!({ "capabilities": { "alwaysMatch": {
                "browserName": "chrome",
                "timeouts": { "implicit": PATIENCE_MS },
                "goog:loggingPrefs": { "browser": "ALL" },
                "goog:chromeOptions": {
                    "binary": browser,
                    "args": FLAGS.iter().copied().chain([user_data.as_str()]).collect::<Vec<_>>(),
                },
            } } });
            let created = ask(&authority, "POST", "/session", &capabilities)
                .with_context(|| format!("the driver's log ends:\n{}", driver.log_tail()))?;
            let session = created["sessionId"].as_str().context("no session id")?.to_owned();
            Ok(Self { driver, profile, authority, session })
        };
        // Another program may take the very port that the driver was about to choose.
        start().or_else(|_| start()).or_else(|_| start()).map_err(Unavailable::broken("chromium"))
    }

    /// The directory of the browser's profile, which is in the command line of each of its processes.
    #[must_use]
    pub fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// The process id of the driver.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.driver.id()
    }

    /// Opens an address and waits until the page has loaded.
    ///
    /// # Errors
    /// Where nothing answers there.
    pub fn goto(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// The address the page has now.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn url(&self) -> anyhow::Result<String> {
        text(self.get("/url")?)
    }

    /// The title of the page.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn title(&self) -> anyhow::Result<String> {
        text(self.get("/title")?)
    }

    /// The document as it is now, as HTML.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn source(&self) -> anyhow::Result<String> {
        text(self.get("/source")?)
    }

    /// The text that a reader sees in the first element that matches.
    ///
    /// # Errors
    /// Where no element matches in time.
    pub fn text(&self, css: &str) -> anyhow::Result<String> {
        text(self.get(&format!("/element/{}/text", self.find(css)?))?)
    }

    /// Clicks the first element that matches.
    ///
    /// # Errors
    /// Where no element matches in time, or another one covers it.
    pub fn click(&self, css: &str) -> anyhow::Result<()> {
        self.post(&format!("/element/{}/click", self.find(css)?), &json!({})).map(drop)
    }

    /// Types into the first element that matches, after what stands there.
    ///
    /// # Errors
    /// Where no element matches in time, or it takes no text.
    pub fn type_into(&self, css: &str, text: &str) -> anyhow::Result<()> {
        self.post(&format!("/element/{}/value", self.find(css)?), &json!({ "text": text })).map(drop)
    }

    /// Runs the body of a function in the page; a promise is waited for. Gives what it returns, as JSON.
    ///
    /// # Errors
    /// What the function threw.
    pub fn evaluate(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The messages on the page's console since the last call, failed loads among them.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn console(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }))?;
        let message = |entry: &Value| text(entry["message"].clone());
        entries.as_array().context("not a list of messages")?.iter().map(message).collect()
    }

    /// The visible part of the page, as a PNG file's bytes.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn screenshot(&self) -> anyhow::Result<Vec<u8>> {
        Ok(STANDARD.decode(text(self.get("/screenshot")?)?)?)
    }

    /// Shows pages as a telephone of this width does, until [`Chromium::as_usual`].
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn as_narrow_as(&self, width: u32) -> anyhow::Result<()> {
        let screen = json!({ "width": width, "height": 740, "deviceScaleFactor": 1, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", &screen)
    }

    /// Shows pages in the window again.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn as_usual(&self) -> anyhow::Result<()> {
        self.devtools("Emulation.clearDeviceMetricsOverride", &json!({}))
    }

    fn devtools(&self, command: &str, params: &Value) -> anyhow::Result<()> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).map(drop)
    }

    /// Gives the browser an authenticator of its own until the result is dropped (WebAuthn Level 3 §11.3). Whoever is asked
    /// for a finger or a PIN gives it, where `user` is verified.
    ///
    /// # Errors
    /// Where the browser has no such authenticator.
    pub fn authenticator(&self, user: PasskeyUser) -> anyhow::Result<Passkeys<'_>> {
        let verified = user == PasskeyUser::Verified;
        let id = self.post(
            "/webauthn/authenticator",
            &json!({
                "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
                "hasUserVerification": verified, "isUserVerified": verified, "isUserConsenting": true,
            }),
        )?;
        Ok(Passkeys { browser: self, id: text(id)? })
    }

    fn find(&self, css: &str) -> anyhow::Result<String> {
        let found = self.post("/element", &json!({ "using": "css selector", "value": css }))?;
        text(found[ELEMENT].clone())
    }

    fn get(&self, path: &str) -> anyhow::Result<Value> {
        ask(&self.authority, "GET", &format!("/session/{}{path}", self.session), &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        ask(&self.authority, "POST", &format!("/session/{}{path}", self.session), body)
    }
}

/// Whether an authenticator knows its user by more than being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasskeyUser {
    /// By a finger, a face, or a PIN.
    Verified,
    /// Not at all.
    Present,
}

/// The authenticator of a browser.
#[derive(Debug)]
pub struct Passkeys<'a> {
    browser: &'a Chromium,
    id: String,
}

impl Passkeys<'_> {
    /// Its passkeys with their private keys and counters.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn all(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.browser.get(&format!("/webauthn/authenticator/{}/credentials", self.id))?;
        Ok(all.as_array().context("no list of passkeys")?.clone())
    }

    /// Puts a passkey into it, as [`Passkeys::all`] gives one.
    ///
    /// # Errors
    /// Where it is none.
    pub fn put(&self, passkey: &Value) -> anyhow::Result<()> {
        self.browser.post(&format!("/webauthn/authenticator/{}/credential", self.id), passkey).map(drop)
    }

    /// Takes all passkeys out of it.
    ///
    /// # Errors
    /// Where the browser is gone.
    pub fn clear(&self) -> anyhow::Result<()> {
        self.delete("/credentials")
    }

    fn delete(&self, what: &str) -> anyhow::Result<()> {
        let browser = self.browser;
        let path = format!("/session/{}/webauthn/authenticator/{}{what}", browser.session, self.id);
        ask(&browser.authority, "DELETE", &path, &Value::Null).map(drop)
    }
}

impl Drop for Passkeys<'_> {
    fn drop(&mut self) {
        drop(self.delete(""));
    }
}

/// The port that the driver chose for itself; it says so in its log, so no other program's can be taken for it.
fn announced_port(driver: &mut Process) -> anyhow::Result<u16> {
    let port = eventually(READY_LIMIT, || {
        let log = driver.log_tail();
        if log.contains("port not available") {
            return Some(None);
        }
        let port = log.split("started successfully on port ").nth(1)?;
        port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().map(Some)
    });
    port.flatten().with_context(|| format!("no port within {READY_LIMIT:?}:\n{}", driver.log_tail()))
}

/// One WebDriver command: the value of its answer, or its error.
fn ask(authority: &str, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = http::Request::new(method, &format!("http://{authority}{path}"));
    let response = if body.is_null() { request } else { request.json(body) }.send()?;
    let mut answer = response.json()?;
    let value = answer["value"].take();
    if response.status != 200 {
        bail!("{method} {path}: {}", value["message"].as_str().unwrap_or("an error without a message"));
    }
    Ok(value)
}

fn text(value: Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text),
        other => bail!("not a text: {other}"),
    }
}
