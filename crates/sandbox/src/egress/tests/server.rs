//! A server that keeps what it is asked, to the byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::tls::World;

/// A running one.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    /// The addresses at which it was reached.
    pub(super) reached: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// One that answers each request with what `answer` makes of its head and body.
    pub(super) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer).await
    }

    /// The same at every address of this machine.
    pub(super) async fn everywhere(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::at("0.0.0.0:0", answer).await
    }

    async fn at(place: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(0)));
        let reached = Arc::<Mutex<Vec<String>>>::default();
        let (kept, counted, answer) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(answer));
        let seen = Arc::clone(&reached);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                seen.lock().unwrap().push(stream.local_addr().unwrap().ip().to_string());
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &kept, answer.as_ref()).await });
            }
        });
        Self { address, requests, connections, reached, task }
    }

    /// The same over TLS, as one of the hosts of `world`.
    pub(super) async fn secure(
        world: &World,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(0)));
        let (kept, counted, answer) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(answer));
        let acceptor = TlsAcceptor::from(world.server());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                let (kept, answer, acceptor) = (Arc::clone(&kept), Arc::clone(&answer), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &kept, answer.as_ref()).await;
                    }
                });
            }
        });
        Self { address, requests, connections, reached: Arc::default(), task }
    }

    /// One that sends back what it gets.
    pub(super) async fn echo() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        Self { address, requests: Arc::default(), connections: Arc::default(), reached: Arc::default(), task }
    }

    /// `name` with its port.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{name}:{}", self.address.port())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `200` with this body.
pub(super) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Answers one request after the other. After `101` it sends back what it gets.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    kept: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str) -> Vec<u8> + ?Sized),
) {
    let mut held = Vec::new();
    loop {
        let Some(request) = request(&mut stream, &mut held).await else { return };
        kept.lock().unwrap().push(request.clone());
        let bytes = answer(&request);
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if request.contains("\r\nconnection: close\r\n") {
            drop(stream.shutdown().await);
            return;
        }
        if bytes.starts_with(b"HTTP/1.1 101") {
            let (mut read, mut write) = tokio::io::split(stream);
            drop(tokio::io::copy(&mut read, &mut write).await);
            return;
        }
    }
}

/// One request, head and body as they came.
async fn request(stream: &mut (impl AsyncRead + Unpin), held: &mut Vec<u8>) -> Option<String> {
    let end = |held: &[u8], what: &[u8]| {
        held.windows(what.len()).position(|part| part == what).map(|at| at + what.len())
    };
    loop {
        if let Some(head) = end(held, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let whole = if text.contains("transfer-encoding: chunked") {
                end(&held[head..], b"0\r\n\r\n").map(|body| head + body)
            } else {
                Some(head + length.unwrap_or(0)).filter(|whole| held.len() >= *whole)
            };
            if let Some(whole) = whole {
                let rest = held.split_off(whole);
                return Some(String::from_utf8_lossy(&std::mem::replace(held, rest)).into_owned());
            }
        }
        if stream.read_buf(held).await.ok()? == 0 {
            return None;
        }
    }
}
