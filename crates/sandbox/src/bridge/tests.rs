//! Calls through the bridge, from the program that makes them inside and from ones that should not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use hand::mcp::Bridge;
use kernel::{EnvId, RunId, Secret};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;

/// Says what it was asked, for whoever shows a good token.
#[derive(Default)]
struct Echo {
    tokens: Tokens,
    asked: Mutex<Vec<Value>>,
}

impl Tools for Echo {
    fn answer<'a>(
        &'a self,
        sandbox: SandboxId,
        token: &'a str,
        message: Map<String, Value>,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(async move {
            let pass = self.tokens.check(sandbox, token)?;
            let message = Value::from(message);
            self.asked.lock().unwrap().push(message.clone());
            assert_eq!(pass.grant().sandbox, sandbox);
            let answer = |id: &Value| json!({ "jsonrpc": "2.0", "id": id, "result": message["params"] });
            Ok(message.get("id").map(answer))
        })
    }
}

/// A sandbox's bridge, its socket, and a run in it.
struct Sandbox {
    tools: Arc<Echo>,
    id: SandboxId,
    run: RunId,
    token: Secret,
    socket: PathBuf,
    task: JoinHandle<()>,
    directory: TempDir,
}

impl Sandbox {
    fn start(tools: &Arc<Echo>) -> Self {
        let (id, run) = (SandboxId::new(), RunId::new());
        let tools_granted = Arc::new(BTreeSet::from(["db_query".to_owned()]));
        let token = tools
            .tokens
            .begin(Grant { sandbox: id, run, env: EnvId::new(), tools: tools_granted, lasts: LONGEST })
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bridge.sock");
        let task = tokio::spawn(serve(
            UnixListener::bind(&socket).unwrap(),
            id,
            Arc::clone(tools) as Arc<dyn Tools>,
        ));
        Self { tools: Arc::clone(tools), id, run, token, socket, task, directory }
    }

    /// What `hand mcp` writes for what it reads, with this token.
    async fn mcp(&self, token: &Secret, input: &str) -> Vec<Value> {
        let bridge = Bridge { socket: self.socket.clone(), token: self.directory.path().join("token") };
        std::fs::write(&bridge.token, token.expose()).unwrap();
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut output = Vec::new();
            bridge.serve(input.as_bytes(), &mut output).unwrap();
            output
        });
        let output = String::from_utf8(output.await.unwrap()).unwrap();
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn send(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        // It may answer before it has read all.
        drop(stream.write_all(request).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn refused(answers: &[Value]) -> &str {
    match answers {
        [answer] if answer["id"] == 1 => answer["error"]["message"].as_str().unwrap(),
        other => panic!("{other:?}"),
    }
}

const CALL: &str =
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"db_query\"}}\n";

#[tokio::test]
async fn a_run_calls_its_tools_in_order() {
    let tools = Arc::new(Echo::default());
    let sandbox = Sandbox::start(&tools);
    let note = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";
    let input = format!("{CALL}{note}{}", CALL.replace("\"id\":1", "\"id\":\"two\""));
    let answers = sandbox.mcp(&sandbox.token, &input).await;
    let answer = |id: Value| json!({ "jsonrpc": "2.0", "id": id, "result": { "name": "db_query" } });
    assert_eq!(answers, [answer(json!(1)), answer(json!("two"))]);
    assert_eq!(sandbox.tools.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn no_token_but_that_of_a_run_that_lives_here_opens_anything() {
    let tools = Arc::new(Echo::default());
    let (here, there) = (Sandbox::start(&tools), Sandbox::start(&tools));
    let invalid = "the run token is not valid; read the token from /run/steading/token again; it is good while the \
                   run is active";
    for token in [&there.token, &Secret::new("stead_run_made-up")] {
        assert_eq!(refused(&here.mcp(token, CALL).await), invalid);
    }
    assert_eq!(tools.asked.lock().unwrap().len(), 0);

    let renewed = tools.tokens.renew(here.run).unwrap();
    for token in [&here.token, &renewed] {
        assert_eq!(here.mcp(token, CALL).await.len(), 1);
    }
    tools.tokens.end(here.run);
    for token in [&here.token, &renewed] {
        assert_eq!(refused(&here.mcp(token, CALL).await), invalid);
    }
    tools.tokens.end_all_in(there.id);
    assert_eq!(refused(&there.mcp(&there.token, CALL).await), invalid);
}

#[tokio::test]
async fn the_door_takes_messages_and_nothing_else() {
    let tools = Arc::new(Echo::default());
    let sandbox = Sandbox::start(&tools);
    let token = sandbox.token.expose();
    let request = |line: &str, headers: &str, body: &str| {
        format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
    };
    let good = format!("authorization: bearer {token}\r\ncontent-type: application/json; charset=utf-8\r\n");
    let kind = "content-type: application/json\r\n";
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MESSAGE));
    for (status, line, headers, body) in [
        (200, "POST /mcp", good.as_str(), "{\"id\":1}"),
        (202, "POST /mcp", &good, "{}"),
        (404, "POST /", &good, "{}"),
        (405, "GET /mcp", &good, ""),
        (401, "POST /mcp", kind, "{}"),
        (401, "POST /mcp", &format!("{good}authorization: Bearer x\r\n"), "{}"),
        (401, "POST /mcp", &format!("{kind}authorization: Basic {token}\r\n"), "{}"),
        (401, "POST /mcp", &format!("{kind}authorization: Bearer \r\n"), "{}"),
        (400, "POST /mcp", &format!("authorization: Bearer {token}\r\n"), "{}"),
        (400, "POST /mcp", &good, "[{}]"),
        (400, "POST /mcp", &good, "{"),
        (400, "POST /mcp", &good, &format!("{{\"x\":{}", "[".repeat(10_000))),
        (413, "POST /mcp", &good, &large),
        (413, "POST /mcp", &good, &format!("{{\"x\":[{}0]}}", "0,".repeat(VALUES))),
        (200, "POST /mcp", &good, &format!("{{\"id\":1,\"x\":\"{}\\\"\"}}", "[,".repeat(VALUES))),
    ] {
        let answer = sandbox.send(request(line, headers, body).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {headers}: {answer}");
        assert!(!answer.contains(token), "{answer}");
    }
    assert!(sandbox.send(b"\0\0\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    assert_eq!(sandbox.mcp(&sandbox.token, CALL).await.len(), 1);
}

#[test]
fn what_a_sandbox_asks_for_too_often_comes_later_and_is_not_owed_for_ever() {
    let start = Instant::now();
    let pace = Pace(Mutex::new(start));
    for _ in 0..AT_ONCE {
        assert_eq!(pace.wait(start), Duration::ZERO);
    }
    assert_eq!([pace.wait(start), pace.wait(start)], [EACH, EACH * 2]);
    let later = start + EACH * (AT_ONCE + 2);
    assert_eq!(pace.wait(later), Duration::ZERO);
}
