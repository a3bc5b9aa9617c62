//! Requests through a preview: to a server that keeps what it gets, and to a real dev server with a browser's socket.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Scheme, Visitor, failed, forward};

const PATIENCE: Duration = Duration::from_secs(60);
const HOST: &str = "5173-token.preview.test";

/// A door that shows whatever listens at `server` to everybody.
async fn door(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            let show = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                let (method, headers) = (request.method().clone(), request.headers().clone());
                let stream = TcpStream::connect(server).await.unwrap();
                let visitor = Visitor { address: from.ip(), scheme: Scheme::Https };
                let answer = forward(request, stream, visitor).await;
                Ok::<_, std::convert::Infallible>(
                    answer.unwrap_or_else(|failure| failed(&method, &headers, failure)),
                )
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), show).with_upgrades();
            tokio::spawn(serving);
        }
    });
    address
}

/// A server that gives one answer to each connection and keeps what it was asked, up to the end of `until`.
async fn server(answer: &'static [u8], until: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = Vec::new();
            while !asked.ends_with(until) {
                if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            *keeping.lock().unwrap() = asked;
            drop(stream.write_all(answer).await);
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    });
    (address, kept)
}

async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("too slow");
        all.push(byte.unwrap_or_else(|_| panic!("it ended: {}", String::from_utf8_lossy(&all))));
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_request_and_its_answer_go_through_as_they_come() {
    let answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=1; Domain=preview.test\r\nkeep-alive: x\r\n\
                   transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let (server, kept) = server(answer, b"0\r\n\r\n").await;
    let mut visitor = TcpStream::connect(door(server).await).await.unwrap();
    let request = format!(
        "POST /a?b=%20c HTTP/1.1\r\nhost: {HOST}\r\ncookie: __Host-stead=x; a=1\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    visitor.write_all(request.as_bytes()).await.unwrap();
    // The answer has not ended; what there is of it is here.
    let shown = until(&mut visitor, "first\r\n").await;
    assert!(shown.contains("\r\nset-cookie: a=1\r\n") && !shown.contains("keep-alive"), "{shown}");
    let asked = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
    assert_eq!(
        asked,
        format!(
            "POST /a?b=%20c HTTP/1.1\r\nhost: {HOST}\r\ncookie: a=1\r\nx-forwarded-for: 127.0.0.1\r\n\
             x-forwarded-proto: https\r\nx-forwarded-host: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn what_speaks_no_http_is_said_to() {
    for answer in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"] {
        let (server, _) = server(answer, b"\r\n\r\n").await;
        let mut visitor = TcpStream::connect(door(server).await).await.unwrap();
        visitor.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
        assert!(until(&mut visitor, "\r\n\r\n").await.starts_with("HTTP/1.1 502 "));
    }
}

/// A dev server that ends with the test.
struct Vite(Child);

impl Drop for Vite {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Vite in a project of two files.
fn vite(project: &Path, port: u16) -> Vite {
    let tool = testkit::require(testkit::NodeTool::install_vite());
    std::fs::write(
        project.join("index.html"),
        "<div id=app></div><script type=module src=/main.js></script>\n",
    )
    .unwrap();
    std::fs::write(project.join("main.js"), "import.meta.hot.accept();\nexport const word = 'before';\n")
        .unwrap();
    let mut command = tool.command("vite", project).unwrap();
    command
        .args(["--host", "127.0.0.1", "--strictPort", "--port", &port.to_string()])
        .current_dir(project)
        .env("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS", HOST)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Vite(command.spawn().unwrap())
}

#[tokio::test]
async fn a_dev_server_reloads_what_changes_through_its_preview() {
    let project = tempfile::tempdir().unwrap();
    let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let _vite = vite(project.path(), port);
    let up = timeout(PATIENCE, async {
        while TcpStream::connect(server).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    up.await.expect("it does not start");
    let door = door(server).await;

    let get = async |path: &str, host: &str| {
        let mut visitor = TcpStream::connect(door).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        visitor.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        timeout(PATIENCE, visitor.read_to_string(&mut all)).await.expect("no answer").unwrap();
        all
    };
    let page = get("/", HOST).await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("/@vite/client"), "{page}");
    assert!(get("/main.js", HOST).await.contains("'before'"));
    assert!(get("/", "evil.test").await.starts_with("HTTP/1.1 403 "));
    let client = get("/@vite/client", HOST).await;
    let token = client.split("const wsToken = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();

    let mut socket = TcpStream::connect(door).await.unwrap();
    let request = format!(
        "GET /?token={token} HTTP/1.1\r\nhost: {HOST}\r\norigin: https://{HOST}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: vite-hmr\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = until(&mut socket, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    until(&mut socket, "{\"type\":\"connected\"}").await;
    std::fs::write(
        project.path().join("main.js"),
        "import.meta.hot.accept();\nexport const word = 'after';\n",
    )
    .unwrap();
    let frame = until(&mut socket, "}]}").await;
    assert!(frame.contains("\"type\":\"update\"") && frame.contains("/main.js"), "{frame}");
    assert!(get("/main.js", HOST).await.contains("'after'"));
}
