//! Runs the binary, and stands in for a platform that answers as told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

/// The binary in `dir`, with nothing of this process's environment.
pub fn steading(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steading"));
    command.current_dir(dir).env_clear().env("HOME", dir).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    steading(dir).args(args).output().unwrap()
}

/// stdout as text.
pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// stderr as text.
pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A `serve --json` that is killed when it is dropped.
pub struct Serving {
    pub child: Child,
    pub stdout: BufReader<ChildStdout>,
    pub ready: Value,
}

impl Serving {
    /// Starts it in `dir` and waits for its ready line.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = steading(dir);
        command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("no ready line: {said}")
        });
        Self { child, stdout, ready }
    }

    pub fn url(&self) -> &str {
        self.ready["url"].as_str().unwrap()
    }

    /// Host and port.
    pub fn addr(&self) -> &str {
        self.url().strip_prefix("http://").unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request that the stand-in got.
#[derive(Debug)]
pub struct Request {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the stand-in answers.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, content_type: "application/json", headers: &[], body: body.to_string() }
    }

    /// A problem object with that code.
    pub fn problem(status: u16, code: &str) -> Self {
        let problem = json!({ "code": code, "message": "no", "hint": "do", "field": "/x" });
        Self { content_type: "application/problem+json", ..Self::json(status, &problem) }
    }
}

/// Stands in for a platform: answers each request by `answer`, and hands it to the test.
pub fn stand_in(answer: impl Fn(&Request) -> Answer + Send + 'static) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read(&stream) else { continue };
            let Answer { status, content_type, headers, body } = answer(&request);
            if seen.send(request).is_err() {
                return;
            }
            let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let length = body.len();
            drop(write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n{extra}\r\n{body}"
            ));
        }
    });
    (url, requests)
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
