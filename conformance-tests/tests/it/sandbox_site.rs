//! What is built in a sandbox becomes the site: directories that are deployed, and a whole front end from its first file
//! to its live page, and on another machine.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use conformance_tests::{Place, browser};
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{Chromium, Client, Fsync, Postgres, SeaweedFs, Steading, eventually, require};

use crate::app_sandbox_tiers::archived;

/// How long is waited for what a page is to show.
const PATIENCE: Duration = Duration::from_secs(90);

fn run(client: &Client, command: &str) -> String {
    let ran = client.output("shell_run", &json!({ "command": command, "timeout_s": 600 })).unwrap();
    assert_eq!(ran["exit_code"], 0, "{command}: {ran:#}");
    ran["stdout"].as_str().unwrap().to_owned()
}

fn refused(client: &Client, input: &Value, status: u16, code: &str) -> Value {
    let answer = client.call("site_deploy", input).unwrap();
    assert_eq!((answer.status, answer.code()), (status, code), "{input}: {answer:?}");
    answer.body
}

/// Starts the project's server, and gives a link to it.
fn developed(client: &Client) -> String {
    run(client, "cd app && (npm run dev > dev.log 2>&1 &)");
    let shown = client.output("preview_open", &json!({ "port": 5173 })).unwrap();
    shown["url"].as_str().unwrap().to_owned()
}

#[test]
fn a_directory_of_the_workspace_becomes_the_site_whole_or_not_at_all() {
    let place = Place::new("sandbox-deploy").unwrap();
    let client = &place.client;
    run(
        client,
        "mkdir -p out/assets/deep empty && echo '<h1>Built inside</h1>' > out/index.html && \
         printf '\\x00\\xff\\x01' > out/assets/raw.bin && : > out/assets/none.txt && \
         head -c 3000000 /dev/zero > out/assets/deep/large.bin",
    );
    let deployed = client.output("site_deploy", &json!({ "workspace_path": "out" })).unwrap();
    assert_eq!((&deployed["release"], &deployed["changed"]), (&json!(1), &json!(true)));
    let get = |path: &str| Request::get(&format!("{}{path}", place.url)).send().unwrap();
    assert_eq!(get("/").text().unwrap(), "<h1>Built inside</h1>\n");
    assert_eq!(get("/assets/raw.bin").body, [0, 0xFF, 1]);
    assert_eq!(get("/assets/none.txt").body, b"");
    assert_eq!(get("/assets/deep/large.bin").body, vec![0; 3_000_000]);
    // The same bytes again, by another name of the directory, are no new release.
    let again = client.output("site_deploy", &json!({ "workspace_path": "/workspace/./out/" })).unwrap();
    assert_eq!((&again["release"], &again["changed"]), (&json!(1), &json!(false)));
    // What is no directory with files is refused, and the site stays.
    for (path, status, code) in [
        ("none", 404, "not_found"),
        ("out/index.html", 400, "invalid_input"),
        ("empty", 400, "invalid_input"),
    ] {
        let told = refused(client, &json!({ "workspace_path": path }), status, code);
        assert_eq!(told["field"], "/workspace_path", "{told}");
    }
    refused(client, &json!({}), 400, "invalid_input");
    refused(client, &json!({ "workspace_path": "out", "files": {} }), 400, "invalid_input");
    // Nor does anything get out that is no file of it: links, pipes, names that are no text, what is too large.
    for (make, says) in [
        ("ln -s /etc/passwd out/passwd", "it is a link"),
        ("ln -s /run/steading/token out/assets/token", "it is a link"),
        ("ln -s / out/root", "it is a link"),
        ("mkfifo out/pipe", "it is no file"),
        ("touch out/$(printf 'a\\xff')", "no text"),
        ("truncate -s 26M out/sparse", "at most"),
        ("for i in $(seq 1 21); do truncate -s 25M out/sparse$i; done", "at most"),
        ("touch $(seq -f out/%g 1 10001)", "at most"),
    ] {
        run(client, &format!("cp -r out good && {make}"));
        let told = refused(client, &json!({ "workspace_path": "out" }), 400, "invalid_input");
        assert!(told["message"].as_str().unwrap().contains(says), "{make}: {told}");
        run(client, "rm -rf out && mv good out");
    }
    assert_eq!(get("/").text().unwrap(), "<h1>Built inside</h1>\n");
    // The files are the sandbox's, and so is the scope that opens it.
    let wanted = json!({ "name": "sites", "env": place.slug, "scopes": ["site:write"] });
    let operator = place.steading.client().without_env();
    let made = operator.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
    let other = Client::new(&place.steading.ready().url).with_key(made["key"].as_str().unwrap());
    let told = refused(&other, &json!({ "workspace_path": "out" }), 403, "forbidden");
    assert!(told["message"].as_str().unwrap().contains("sandbox:use"), "{told}");
}

const PACKAGE: &str = r#"{
  "name": "counter", "private": true, "type": "module",
  "scripts": { "dev": "vite", "build": "vite build" },
  "dependencies": { "react": "19.3.1", "react-dom": "19.3.1" },
  "devDependencies": { "@vitejs/plugin-react": "6.3.0", "vite": "8.3.8" }
}
"#;

const PROJECT: [(&str, &str); 5] = [
    ("package.json", PACKAGE),
    (
        "vite.config.js",
        "import react from \"@vitejs/plugin-react\";\n\nexport default { plugins: [react()] };\n",
    ),
    (
        "index.html",
        "<!doctype html>\n<link rel=\"icon\" href=\"data:,\">\n<title>Counter</title>\n<div id=\"root\"></div>\n<script type=\"module\" src=\"/src/main.jsx\"></script>\n",
    ),
    (
        "src/main.jsx",
        "import { createRoot } from \"react-dom/client\";\nimport App from \"./App.jsx\";\n\ncreateRoot(document.getElementById(\"root\")).render(<App />);\n",
    ),
    (
        "src/App.jsx",
        "import { useState } from \"react\";\n\nexport default function App() {\n  const [count, setCount] = useState(0);\n  return <main>\n    <h1>Hello</h1>\n    <button onClick={() => setCount(count + 1)}>{count}</button>\n  </main>;\n}\n",
    ),
];

/// A setting of this machine's npm; none where it has none.
fn npm(setting: &str) -> Option<String> {
    let asked = Command::new("npm").args(["config", "get", setting]).output().unwrap();
    let text = String::from_utf8(asked.stdout).unwrap().trim().to_owned();
    Some(text).filter(|text| !text.is_empty() && text != "null" && text != "undefined")
}

/// How long changes of the front end take from the call that makes them until an open page shows them, in milliseconds.
fn reloads(client: &Client, page: &Chromium) -> anyhow::Result<Vec<f64>> {
    page.evaluate(
        "window.shown = {};
         const look = () => window.shown[document.querySelector('h1').textContent] ??= Date.now();
         new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });",
    )?;
    let mut all = Vec::new();
    for number in 0..10 {
        let title = format!("Number {number}");
        let text = PROJECT[4].1.replace("Hello", &title);
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0;
        client.output("file_write", &json!({ "path": "app/src/App.jsx", "text": text }))?;
        // Vite's watcher misses what follows another change within 50 ms, wherever it runs: the page gives it a rest.
        let shown = page.evaluate(&format!(
            "return new Promise((done) => {{
               const wait = setInterval(() => {{
                 const at = window.shown['{title}'];
                 if (at) {{ clearInterval(wait); setTimeout(() => done(at), 200); }}
               }}, 10);
             }});"
        ))?;
        all.push(shown.as_f64().context("no time")? - began);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// A digest of every file of the front end, packages included.
fn digest(client: &Client) -> String {
    let all =
        "find app -type f -print0 | sort -z | xargs -0 sha256sum; find app -type l -printf '%p %l\\n' | sort";
    run(client, &format!("({all}) | tee /tmp/all | sha256sum && wc -l < /tmp/all"))
}

fn state(client: &Client) -> String {
    let shown = client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

#[test]
#[expect(clippy::print_stdout, reason = "it tells what it measured")]
fn a_front_end_is_written_installed_changed_built_deployed_and_goes_on_on_another_machine() {
    // Packages come from where this machine's come from, whose address its operator vouches for.
    let registry = npm("registry").unwrap();
    let (scheme, rest) = registry.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let port = if scheme == "http" { "80" } else { "443" };
    let target = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:{port}") };
    // What two machines have in common: the control plane's database and a bucket.
    let (seaweed, postgres) = (require(SeaweedFs::start()), require(Postgres::start(Fsync::Off)));
    let database = postgres.fresh_database().unwrap();
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let launch = |data: &Path| {
        let launch = Steading::launch()
            .data_dir(data)
            .env("STEADING_SANDBOX_ALLOW", &target)
            .env("STEADING_SANDBOX_ORIGINS", &target)
            .env("STEADING_DATABASE_URL", &database);
        seaweed.settings().into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    };
    let mut server = require(launch(first.path()).start());
    let client = server.client().in_env("default");
    for (path, text) in PROJECT {
        client.output("file_write", &json!({ "path": format!("app/{path}"), "text": text })).unwrap();
    }
    let cafile = npm("cafile").map(|path| format!(" --cafile={path}")).unwrap_or_default();
    run(&client, &format!("cd app && npm install --no-audit --no-fund --registry={registry}{cafile} 2>&1"));
    let link = developed(&client);
    browser(|page| {
        page.goto(&link)?;
        assert_eq!(page.text("h1")?, "Hello");
        page.click("button")?;
        page.click("button")?;
        assert_eq!(page.text("button")?, "2");
        page.evaluate("window.same = true")?;
        // A change is seen without the page being loaded again, and what was counted stays.
        let edit = json!({ "path": "app/src/App.jsx", "old": "Hello", "new": "Changed" });
        client.output("file_edit", &edit).unwrap();
        let seen = eventually(PATIENCE, || page.text("h1").ok().filter(|text| text == "Changed"));
        let log = || run(&client, "cat app/dev.log");
        assert!(seen.is_some(), "{:?}\n{}", page.console(), log());
        assert_eq!(
            (page.text("button")?, page.evaluate("return window.same === true")?),
            ("2".into(), json!(true))
        );
        println!("from file_write to the changed page, in ms: {:.0?}", reloads(&client, page)?);
        Ok(())
    })
    .unwrap();
    run(&client, "cd app && npm run build 2>&1");
    let deployed =
        client.output("site_deploy", &json!({ "workspace_path": "app/dist", "spa": true })).unwrap();
    browser(|page| {
        page.goto(deployed["url"].as_str().unwrap())?;
        assert_eq!(page.text("h1")?, "Number 9");
        page.click("button")?;
        assert_eq!(page.text("button")?, "1");
        let console = page.console()?;
        assert!(console.is_empty(), "{console:?}");
        Ok(())
    })
    .unwrap();

    // Nobody needs it: parked, then archived.
    server.stop();
    let parking = launch(first.path())
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "1");
    let mut parking = require(parking.start());
    let client = parking.client().in_env("default");
    let before = digest(&client);
    let parked = eventually(PATIENCE, || (state(&client) == "parked").then_some(()));
    assert!(parked.is_some(), "{}", parking.log());
    parking.stop();
    let mut archiving = require(launch(first.path()).env("STEADING_SANDBOX_ARCHIVE_AFTER_S", "1").start());
    archived(&archiving);
    archiving.stop();
    for name in ["keys", "operator.key", "envs"] {
        let copied = Command::new("cp").arg("-a").arg(first.path().join(name)).arg(second.path()).status();
        assert!(copied.unwrap().success(), "{name}");
    }
    // Nothing of the first machine is there any more.
    first.close().unwrap();
    let server = require(launch(second.path()).start());
    let client = server.client().in_env("default");
    assert_eq!(state(&client), "archived");
    let began = Instant::now();
    run(&client, "true");
    println!("from the archive to the first command: {:?}", began.elapsed());
    assert_eq!(digest(&client), before);
    let link = developed(&client);
    browser(|page| {
        page.goto(&link)?;
        assert_eq!(page.text("h1")?, "Number 9");
        page.click("button")?;
        println!("the same on another machine: {:.0?}", reloads(&client, page)?);
        assert_eq!(page.text("button")?, "1", "it was the same page all the time");
        page.console()?;
        Ok(())
    })
    .unwrap();
}
