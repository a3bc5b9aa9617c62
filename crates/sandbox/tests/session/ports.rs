//! Ports inside, the way out, and what a sandbox is told of whom it is for.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use hand::wire::Cause;
use kernel::Secret;
use sandbox::session::{Error, Exec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::inside::{Inside, LONG};

#[tokio::test]
async fn a_dialled_port_is_a_connection_with_both_halves() {
    let inside = Inside::start().await;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let sent = bytes.clone();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.expect("bytes");
            stream.write_all(&all).await.expect("a reader");
            all
        });
        let connection = inside.session.dial(port).await.expect("a connection");
        let (mut read, mut write) = tokio::io::split(connection);
        write.write_all(&sent).await.expect("a reader");
        write.shutdown().await.expect("an end");
        let mut echo = Vec::new();
        tokio::time::timeout(LONG, read.read_to_end(&mut echo)).await.expect("in time").expect("bytes");
        assert!(
            server.await.expect("a server") == bytes && echo == bytes,
            "other bytes came through {address}"
        );
    }
}

#[tokio::test]
async fn nobody_at_a_port_is_said_at_once() {
    let inside = Inside::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    match inside.session.dial(port).await {
        Err(Error::Refused(failure)) => {
            assert_eq!(failure.cause, Cause::NotFound);
            assert!(
                failure.message.starts_with(&format!("nothing listens on port {port}")),
                "{}",
                failure.message
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dropped_connection_is_closed_inside() {
    let inside = Inside::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connection =
        inside.session.dial(listener.local_addr().expect("an address").port()).await.expect("a connection");
    let (mut stream, _) = listener.accept().await.expect("a connection");
    drop(connection);
    let mut all = Vec::new();
    let end = tokio::time::timeout(LONG, stream.read_to_end(&mut all)).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn ports_that_are_listened_on_are_told() {
    let inside = Inside::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let told =
        async || inside.session.ports().await.expect("ports").iter().any(|listening| listening.port == port);
    assert!(told().await);
    drop(listener);
    assert!(!told().await);
}

#[tokio::test]
async fn the_proxys_port_leads_to_the_one_socket_that_leads_outside() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(home.path().join("run")).expect("a directory");
    let outside = UnixListener::bind(home.path().join("run/egress.sock")).expect("a socket");
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let inside = Inside::start_in(home, port).await;
    let server = tokio::spawn(async move {
        for _ in 0..20 {
            let (mut stream, _) = outside.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("bytes");
                all.reverse();
                stream.write_all(&all).await.expect("a reader");
            });
        }
        outside
    });
    let clients = (0..20u8).map(|i| async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let mut bytes: Vec<u8> = (0..500_000u32).map(|n| (n as u8).wrapping_mul(i)).collect();
        stream.write_all(&bytes).await.expect("a reader");
        stream.shutdown().await.expect("an end");
        let mut back = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut back)).await.expect("in time").expect("bytes");
        bytes.reverse();
        assert!(back == bytes, "other bytes came through");
    });
    futures::future::join_all(clients).await;
    drop(server.await.expect("a server"));
    assert!(inside.session.ports().await.expect("ports").iter().all(|listening| listening.port != port));
    // Nobody outside any more: connections end, the hand does not.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let end = tokio::time::timeout(LONG, stream.read(&mut [0; 1])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(inside.bash("echo on").await.stdout.head, "on\n");
}

#[tokio::test]
async fn an_activation_is_what_every_later_command_sees() {
    let inside = Inside::start().await;
    let variables = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let token = |text: &str| Secret::new(text);
    inside
        .session
        .activate(variables(&[("A", "1"), ("B", "2")]), Some(&token("first")))
        .await
        .expect("an activation");
    assert_eq!(
        inside.bash("echo $A $B; cat $HOME/run/token; env | grep -c first").await.stdout.head,
        "1 2\nfirst0\n"
    );
    inside.session.activate(variables(&[("B", "3")]), Some(&token("second"))).await.expect("an activation");
    assert_eq!(inside.bash("echo $A $B; cat $HOME/run/token").await.stdout.head, "3\nsecond");
    let path = inside.home().join("run/token");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o7777, 0o400);
    let given = Exec { env: variables(&[("B", "4")]), ..Exec::command("echo $B") };
    assert_eq!(inside.run(given).await.stdout.head, "4\n");
    // A directory in its place is refused, and what was there before holds.
    std::fs::remove_file(&path).expect("a file");
    std::fs::create_dir(&path).expect("a directory");
    std::fs::write(path.join("x"), "").expect("a file");
    let refused = inside.session.activate(variables(&[("B", "5")]), Some(&token("third"))).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    assert_eq!(inside.bash("echo $B").await.stdout.head, "3\n");
}

#[tokio::test]
async fn what_is_used_is_told() {
    let inside = Inside::start().await;
    let before = inside.session.stats().await.expect("stats");
    let process = inside.session.exec(Exec::argv(["sleep", "1000"])).await.expect("a command");
    let stats = inside.session.stats().await.expect("stats");
    assert_eq!((before.commands, stats.commands), (0, 1));
    assert_eq!((before.streams, stats.streams), (0, 1));
    assert!(stats.processes >= 3 && stats.resident_bytes > 1 << 20, "{stats:?}");
    drop(process);
}
