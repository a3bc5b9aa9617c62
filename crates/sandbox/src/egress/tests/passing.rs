//! What is allowed arrives, and only that.

use kernel::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::{Server, ok};
use super::{Event, Outcome, Refusal, Sandbox, head, parts, policy};

#[tokio::test]
async fn a_request_is_passed_on_under_the_name_that_was_judged() {
    let server = Server::start(|_| ok("hello")).await;
    let (a, port) = (server.named("a.test"), server.address().port());
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let before = Timestamp::now();
    let answer = sandbox
        .ask(format!(
            "POST http://A.test.:{port}/x?y=%20 HTTP/1.1\r\nhost: evil.test\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\
             proxy-authorization: Basic eDp5\r\nproxy-connection: keep-alive\r\ncontent-length: 3\r\naccept: */*\r\n\r\nabc"
        ))
        .await;
    assert_eq!(parts(&answer), ("HTTP/1.1 200 OK", "hello"));
    let expected =
        format!("POST /x?y=%20 HTTP/1.1\r\nhost: {a}\r\ncontent-length: 3\r\naccept: */*\r\n\r\nabc");
    assert_eq!(server.requests(), [expected]);
    let [event] = sandbox.events(1).await.try_into().unwrap();
    let Event { at, target, outcome, up, down, took } = event;
    assert!(at >= before && took.as_secs() < 60 && up > 60 && down == 43, "{up} {down}");
    assert_eq!((target, outcome), (Some(a.parse().unwrap()), Outcome::Allowed));
    assert_eq!(sandbox.egress.used_bytes(), up + down);
}

#[tokio::test]
async fn requests_of_one_connection_share_a_connection_to_the_same_host_only() {
    let server = Server::start(|_| ok("")).await;
    let other = Server::start(|_| ok("")).await;
    let (a, b) = (server.named("a.test"), other.named("b.test"));
    let sandbox = Sandbox::under(policy(&[&a, &b], &[&a, &b]));
    let mut stream = sandbox.open().await;
    for host in [&a, &a, &b] {
        stream.write_all(format!("GET http://{host}/ HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert_eq!((server.connections(), server.requests().len(), other.requests().len()), (1, 2, 1));
}

#[tokio::test]
async fn what_is_refused_says_which_host_and_how_to_allow_it() {
    let sandbox = Sandbox::under(policy(&["registry.example.com", "*.a.test:8443"], &[]));
    let answer = sandbox.ask("GET http://evil.test:8080/x?key=1 HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(
        parts(&answer),
        (
            "HTTP/1.1 403 evil.test:8080 is not an allowed host",
            "evil.test:8080 is not an allowed host\n\
             allowed hosts: registry.example.com, *.a.test:8443\n\
             ask the environment's owner to allow this host for its sandboxes\n"
        )
    );
    assert!(answer.contains("\r\nx-egress-refused: evil.test:8080 is not an allowed host\r\n"), "{answer}");
    assert_eq!(sandbox.refusal().await, Refusal::NotAllowed("evil.test:8080".parse().unwrap()));
    assert!(sandbox.known.asked.lock().unwrap().is_empty());
    let answer = sandbox.ask("CONNECT evil.test:443 HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(parts(&answer).0, "HTTP/1.1 403 evil.test:443 is not an allowed host");
}

#[tokio::test]
async fn bytes_go_through_a_tunnel_both_ways_and_are_counted() {
    let server = Server::echo().await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut tunnel = sandbox.tunnel(&a).await;
    tunnel.write_all(b"\x00raw").await.unwrap();
    let mut back = [0; 4];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x00raw");
    drop(tunnel);
    let [event] = sandbox.events(1).await.try_into().unwrap();
    assert_eq!((event.outcome, event.up, event.down), (Outcome::Allowed, 4, 4));
}

#[tokio::test]
async fn a_place_that_speaks_first_is_heard() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let a = format!("a.test:{}", listener.local_addr().unwrap().port());
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut tunnel = sandbox.tunnel(&a).await;
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"220 ready\n").await.unwrap();
    let mut greeting = [0; 10];
    tunnel.read_exact(&mut greeting).await.unwrap();
    tunnel.write_all(b"EHLO\n").await.unwrap();
    let mut said = [0; 5];
    server.read_exact(&mut said).await.unwrap();
    assert_eq!((&greeting, &said), (b"220 ready\n", b"EHLO\n"));
}

#[tokio::test]
async fn a_connection_that_becomes_another_protocol_is_carried_on() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let server = Server::start(|_| switching.to_vec()).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut stream = sandbox.open().await;
    let asked = format!("GET http://{a}/ HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");

    // Nobody asked for it.
    let answer = sandbox.ask(format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(parts(&answer).0, format!("HTTP/1.1 502 the connection to {a} broke"));
}

#[tokio::test]
async fn a_body_of_unknown_length_streams_both_ways() {
    let server = Server::start(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
    })
    .await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let answer = sandbox
        .ask(format!(
            "PUT http://{a}/ HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n1\r\nz\r\n0\r\n\r\n"
        ))
        .await;
    assert_eq!(parts(&answer), ("HTTP/1.1 200 OK", "3\r\nabc\r\n0\r\n\r\n"));
    let [request] = server.requests().try_into().unwrap();
    let sent: String = request
        .split("\r\n\r\n")
        .nth(1)
        .unwrap()
        .lines()
        .filter(|line| line.contains(['x', 'y', 'z']))
        .collect();
    assert_eq!(sent, "xyz");
}
