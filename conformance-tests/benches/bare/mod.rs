//! The floor: a bare axum server that reads JSON and writes it back, as a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

/// With this argument, a bench is the bare server.
const ECHO: &str = "bare-echo-server";

/// The bare server. Dropping it ends it.
pub struct Echo {
    child: Child,
    address: String,
}

impl Echo {
    /// Starts this program once more, as the server.
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg(ECHO).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where this process is to be the bare server, serves until its parent is gone. True where it was.
pub fn served() -> bool {
    if !std::env::args().any(|argument| argument == ECHO) {
        return false;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let listener = listener.tap_io(|socket| socket.set_nodelay(true).unwrap());
        let router = Router::new().route("/", post(async |Json(body): Json<Value>| Json(body)));
        let parent = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            served = axum::serve(listener, router) => served.unwrap(),
            _ = parent => {}
        }
    });
    true
}
