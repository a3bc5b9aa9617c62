//! How serving ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::ports::{IfTaken, bind};

/// A server whose `/slow` says on `entered` that it runs, and answers after `release`.
struct Slow {
    server: Server,
    listening: Listening,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

async fn slow() -> Slow {
    slow_with(HEAD).await
}

async fn slow_with(head: Duration) -> Slow {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (Arc::clone(&entered), Arc::clone(&release));
    let handler = move || {
        let (says, waits) = (Arc::clone(&says), Arc::clone(&waits));
        async move {
            says.notify_one();
            waits.notified().await;
            "done".into_response()
        }
    };
    let (listener, addr) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), IfTaken::Refuse).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let listening = listening(&Config::default(), addr, None);
    let door = Door { listener, answering: Arc::new(move |_| Box::pin(handler())), tls: None };
    let server = Server::start(vec![door], &listening, head);
    Slow { server, listening, entered, release }
}

async fn request(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_call_in_flight_ends_before_the_server_does_and_no_new_one_begins() {
    let Slow { server, listening, entered, release } = slow().await;
    let (addr, stopping) = (listening.addr, listening.stopping.clone());
    let call = request(addr).await;
    entered.notified().await;
    let stop = tokio::spawn(async move { server.stop(&listening, Duration::from_secs(60)).await });
    stopping.cancelled().await;
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stop.is_finished());
    release.notify_one();
    assert!(answer(call).await.ends_with("\r\n\r\ndone"));
    stop.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_server_up() {
    let Slow { server, listening, entered, release } = slow().await;
    let mut kept = request(listening.addr).await;
    entered.notified().await;
    release.notify_one();
    let mut head = [0; 16];
    kept.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK\r");
    server.stop(&listening, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_connection_that_does_not_begin_a_request_is_closed() {
    let Slow { server, listening, .. } = slow_with(Duration::from_millis(50)).await;
    for begun in ["", "PRI * HT", "GET /slow HTTP/1.1\r\nho"] {
        let mut stream = TcpStream::connect(listening.addr).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut more = [0];
        let end = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut more)).await;
        // With bytes that nobody read, the end is a reset.
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{begun:?}: {end:?}");
    }
    server.stop(&listening, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn after_the_grace_period_calls_are_cancelled() {
    let Slow { server, listening, entered, release: _never } = slow().await;
    let call = request(listening.addr).await;
    entered.notified().await;
    server.stop(&listening, Duration::ZERO).await;
    assert!(listening.cancelled.is_cancelled());
    assert_eq!(answer(call).await, "");
}
