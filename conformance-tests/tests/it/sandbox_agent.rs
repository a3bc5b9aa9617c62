//! A coding agent inside a sandbox: its model is outside, its tools come from `hand mcp`, and it has no credential but the
//! run token.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use conformance_tests::{Ask, LAST_WORDS, Model, Wire};
use serde_json::{Value, json};
use testkit::{NodeTool, Steading, require};

/// Listens where a sandbox takes its proxy to, which it does not for its own loopback, and gives each connection to `to`.
fn listen(address: &str, to: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let to = to.clone();
            std::thread::spawn(move || to(stream));
        }
    });
    place
}

/// The model's other address.
fn forwarded(model: &Model) -> String {
    let behind = model.url.strip_prefix("http://").unwrap().to_owned();
    listen("127.0.0.2", move |mut near| {
        let mut far = TcpStream::connect(&behind).unwrap();
        let (mut near_too, mut far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            // Whoever ends first ends both.
            let _ = std::io::copy(&mut far_too, &mut near_too);
            let _ = near_too.shutdown(std::net::Shutdown::Both);
        });
        let _ = std::io::copy(&mut near, &mut far);
        let _ = far.shutdown(std::net::Shutdown::Both);
        let _ = back.join();
    })
}

/// Where the program can be downloaded.
fn offered(program: PathBuf) -> String {
    listen("127.0.0.3", move |stream| {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        let mut file = std::fs::File::open(&program).unwrap();
        let length = file.metadata().unwrap().len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        if stream.get_mut().write_all(head.as_bytes()).is_ok() {
            let _ = std::io::copy(&mut file, stream.get_mut());
        }
    })
}

#[test]
fn an_agent_inside_changes_and_reads_rows_with_nothing_but_its_run_token() {
    let calls = [
        ("db_execute", json!({ "sql": "INSERT INTO notes (text) VALUES ('from inside')" })),
        ("db_query", json!({ "sql": "SELECT text FROM notes" })),
    ];
    let model = Model::thinking(Wire::Chat, move |heard| {
        let (tool, input) = calls.get(heard.results.len())?;
        Some(Ask { tool: (*tool).to_owned(), input: input.clone() })
    });
    let model = model.unwrap();
    let node = require(NodeTool::install());
    let program = node.directory().join("node_modules/opencode-linux-x64/bin/opencode");
    let (brain, shop) = (forwarded(&model), offered(program));
    let listed = format!("{brain},{shop}");
    let steading = require(
        Steading::launch()
            .env("STEADING_SANDBOX_ALLOW", &listed)
            .env("STEADING_SANDBOX_ORIGINS", &listed)
            .env("STEADING_SANDBOX_MEMORY_BYTES", "3000000000")
            .env("STEADING_SANDBOX_CPU_MILLIS", "2000")
            .start(),
    );
    let operator = steading.client();
    operator.output("db_execute", &json!({ "sql": "CREATE TABLE notes (text TEXT)" })).unwrap();
    let run = |command: &str| {
        let ran = operator.output("shell_run", &json!({ "command": command, "timeout_s": 300 })).unwrap();
        assert_eq!(ran["exit_code"], 0, "{command}: {ran}\n{:?}", model.asked());
        ran["stdout"].as_str().unwrap().to_owned()
    };
    run(&format!(
        "mkdir -p bin && curl -sSf http://{shop}/opencode -o bin/opencode && chmod +x bin/opencode"
    ));
    let options = json!({ "baseURL": format!("http://{brain}/v1"), "apiKey": "none" });
    let settings = json!({
        "autoupdate": false, "share": "disabled",
        "provider": { "played": { "npm": "@ai-sdk/openai-compatible", "options": options, "models": { "m": {} } } },
        "mcp": { "steading": { "type": "local", "command": ["/run/steading/hand", "mcp"], "enabled": true } },
    });
    let path = ".config/opencode/opencode.json";
    operator.output("file_write", &json!({ "path": path, "text": settings.to_string() })).unwrap();
    let said = run(
        "OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 bin/opencode run 'Note something.' --model played/m < /dev/null",
    );
    assert!(said.contains(LAST_WORDS), "{said}");
    let results = model.results();
    assert!(results[0].contains("\"changed\":1"), "{results:?}");
    assert!(results[1].contains("from inside"), "{results:?}");
    let rows = operator.output("db_query", &json!({ "sql": "SELECT text FROM notes" })).unwrap();
    assert_eq!(rows["rows"], json!([["from inside"]]));
    // Neither the agent nor its model was shown a credential.
    let key = &steading.ready().key;
    let heard: Value = model.asked().into();
    assert!(!heard.to_string().contains(key.as_str()) && !heard.to_string().contains("stead_run_"));
    assert_eq!(run("env | grep -c stead_ || true"), "0\n");
}
