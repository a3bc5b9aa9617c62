//! What hostile code in a sandbox tries, each beside the same thing done as it is meant.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::{Server, ok};
use super::{Limits, Policy, Refusal, Sandbox, head, limited, parts, policy, rest};

#[tokio::test]
async fn no_writing_of_loopback_is_reached() {
    let server = Server::start(|_| ok("secret")).await;
    let port = server.address().port();
    let any = format!("*:{port}");
    for host in
        ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "a.test", "0"]
    {
        let sandbox = Sandbox::under(policy(&[&any], &[&format!("b.test:{port}")]));
        let answer =
            sandbox.ask(format!("GET http://{host}:{port}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
        assert!(
            parts(&answer).0.contains(" 403 ") && answer.contains("is not at a public address"),
            "{host}: {answer}"
        );
        let answer =
            sandbox.ask(format!("CONNECT {host}:{port} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
        assert!(parts(&answer).0.contains("is not at a public address"), "{host}: {answer}");
    }
    assert_eq!(server.connections(), 0);
    let sandbox = Sandbox::under(policy(&[&any], &[&format!("b.test:{port}")]));
    let answer =
        sandbox.ask(format!("GET http://b.test:{port}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(parts(&answer), ("HTTP/1.1 200 OK", "secret"));
    assert_eq!(*sandbox.known.asked.lock().unwrap(), ["b.test"]);
}

#[test]
fn a_name_that_changes_its_mind_leads_to_no_private_address() {
    // In a network of its own an address that is everybody's is this machine's, so that it can be dialled.
    // SIOCSIFADDR of a second name of the loopback, SIOCSIFFLAGS of itself (netdevice(7)).
    let alone = "import fcntl, os, socket, struct, sys\n\
                 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                 fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 0x49))\n\
                 address = socket.inet_aton('8.8.8.8')\n\
                 fcntl.ioctl(s, 0x8916, struct.pack('16sHH4s8x', b'lo:1', socket.AF_INET, 0, address))\n\
                 os.execv(sys.argv[1], sys.argv[1:])\n";
    let name = "egress::tests::attacks::where_a_public_address_answers";
    let mut command = std::process::Command::new("unshare");
    let command = command.args(["--net", "python3", "-c", alone]).arg(std::env::current_exe().unwrap());
    let ran = command.args(["--exact", "--ignored", "--nocapture", name]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
}

#[tokio::test]
#[ignore = "runs in a network of its own, started by the one above"]
async fn where_a_public_address_answers() {
    let server = Server::everywhere(|_| ok("reached")).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[]));
    let says = |turns: &[&[&str]]| {
        let turns = turns.iter().map(|turn| turn.iter().map(|it| it.parse().unwrap()).collect());
        *sandbox.known.fickle.lock().unwrap() = turns.collect();
        sandbox.known.asked.lock().unwrap().clear();
    };
    let asked = || sandbox.known.asked.lock().unwrap().clone();
    let get = format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n");
    let connect = format!("CONNECT {a} HTTP/1.1\r\nhost: {a}\r\nconnection: close\r\n\r\n");
    // It is asked once, and what was judged is dialled; whatever it would say next.
    says(&[&["8.8.8.8"], &["127.0.0.1"]]);
    assert_eq!(parts(&sandbox.ask(&get).await), ("HTTP/1.1 200 OK", "reached"));
    assert_eq!((asked(), server.connections()), (vec!["a.test".to_owned()], 1));
    // The next request is judged anew.
    for request in [&get, &connect] {
        says(&[&["127.0.0.1"], &["8.8.8.8"]]);
        let answer = sandbox.ask(request).await;
        assert!(parts(&answer).0.contains("is not at a public address"), "{request}: {answer}");
    }
    says(&[&["8.8.8.8"], &["127.0.0.1"], &["8.8.8.8"]]);
    let mut kept = sandbox.open().await;
    kept.write_all(format!("GET http://{a}/ HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert!(head(&mut kept).await.starts_with("HTTP/1.1 200 "));
    kept.read_exact(&mut [0; "reached".len()]).await.unwrap();
    kept.write_all(get.as_bytes()).await.unwrap();
    // One that is asked over the connection that is there stays with the address that was judged.
    assert_eq!(parts(&rest(&mut kept).await), ("HTTP/1.1 200 OK", "reached"));
    assert_eq!((asked().len(), server.connections()), (1, 2));
    // Of several only the public ones are tried, first or last.
    for turn in [["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "10.0.0.1"]] {
        says(&[&turn]);
        assert_eq!(parts(&sandbox.ask(&get).await), ("HTTP/1.1 200 OK", "reached"));
    }
    assert_eq!(*server.reached.lock().unwrap(), ["8.8.8.8"; 4]);
}

#[tokio::test]
async fn a_redirect_to_a_denied_host_is_the_programs_next_request_and_refused() {
    let inner = Server::start(|_| ok("inner")).await;
    let location = inner.named("127.0.0.1");
    let to = location.clone();
    let server = Server::start(move |_| {
        format!("HTTP/1.1 302 Found\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut stream = sandbox.open().await;
    stream.write_all(format!("GET http://{a}/ HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.contains(&format!("location: http://{location}/")));
    let follow = format!("GET http://{location}/ HTTP/1.1\r\nconnection: close\r\n\r\n");
    stream.write_all(follow.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert_eq!(parts(&answer).0, format!("HTTP/1.1 403 {location} is not an allowed host"));
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy_is_refused() {
    let sandbox = Sandbox::under(policy(&["*", "*:8080"], &[]));
    for (request, reason) in [
        ("GET / HTTP/1.1\r\nhost: a.test", "this is a proxy"),
        ("GET https://a.test/ HTTP/1.1", "this is a proxy"),
        ("GET ftp://a.test/ HTTP/1.1", "this is a proxy"),
        ("OPTIONS * HTTP/1.1\r\nhost: a.test", "this is a proxy"),
        ("GET http://u:p@a.test/ HTTP/1.1", "the address names a user"),
        ("GET http://a.test:0/ HTTP/1.1", "no host with a port"),
        ("GET http://a.test:99999/ HTTP/1.1", ""),
        ("GET http://a..test/ HTTP/1.1", "no host with a port"),
        ("CONNECT a.test HTTP/1.1", "no host with a port"),
        ("CONNECT a.test: HTTP/1.1", "no host with a port"),
        ("CONNECT u@a.test:8080 HTTP/1.1", "no host with a port"),
        ("CONNECT http://a.test:8080/ HTTP/1.1", ""),
        ("GET http://a.test/ HTTP/1.1\r\nx: a\rb: c", ""),
        ("GET http://a.test/ HTTP/1.1\r\nx: a\0b", ""),
        ("GET http://a.test/ HTTP/1.1\r\nx y: a", ""),
        ("GET http://a.test/ HTTP/1.1\r\nx: a\r\n folded", ""),
        ("GET http://a.test/\tx HTTP/1.1", ""),
        ("GET http://a.test/ HTTP/1.1\r\ntransfer-encoding: chunked, identity", ""),
        ("GET http://a.test/ HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2", ""),
        ("GET http://a.test/ HTTP/1.1\r\ncontent-length: +1", ""),
        ("GET http://a.test/ HTTP/1.0\r\ntransfer-encoding: chunked", ""),
    ] {
        let answer = sandbox.ask(format!("{request}\r\nconnection: close\r\n\r\n")).await;
        let line = parts(&answer).0;
        assert!(line.starts_with("HTTP/1.1 400 ") && line.contains(reason), "{request:?}: {answer}");
    }
    assert!(sandbox.known.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_of_two_lengths_is_one_request_and_the_last_of_its_connection() {
    let server = Server::start(|_| ok("")).await;
    let a = server.named("a.test");
    let hidden = format!("GET http://{a}/hidden HTTP/1.1\r\nhost: a.test\r\n\r\n");
    for lengths in [
        format!("content-length: {}\r\ntransfer-encoding: chunked", hidden.len() + 5),
        format!("transfer-encoding: chunked\r\ncontent-length: {}", hidden.len() + 5),
    ] {
        let sandbox = Sandbox::under(policy(&[&a], &[&a]));
        let answer =
            sandbox.ask(format!("POST http://{a}/seen HTTP/1.1\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    for request in requests {
        let lower = request.to_ascii_lowercase();
        assert!(request.starts_with("POST /seen ") && request.ends_with("0\r\n\r\n"), "{request}");
        assert!(!lower.contains("content-length") && !lower.contains("hidden"), "{request}");
    }
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let server = Server::start(|_| ok("")).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let long = format!("GET http://{a}/ HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(80 << 10));
    let many = format!("GET http://{a}/ HTTP/1.1\r\n{}\r\n", "x: a\r\n".repeat(200));
    for request in [long, many] {
        let answer = sandbox.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert_eq!(server.connections(), 0);
    let huge =
        Server::start(|_| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(80 << 10)).into_bytes())
            .await;
    let b = huge.named("b.test");
    let sandbox = Sandbox::under(policy(&[&b], &[&b]));
    let answer = sandbox.ask(format!("GET http://{b}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert!(parts(&answer).0.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn in_a_tunnel_to_port_80_no_other_host_is_named() {
    let sandbox = Sandbox::under(policy(&["a.test"], &["a.test:80"]));
    for request in [
        "GET / HTTP/1.1\r\nhost: b.test",
        "GET / HTTP/1.1\r\nhost: a.test:81",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test",
        "GET http://b.test/ HTTP/1.1\r\nhost: a.test",
        "GET http://a.test/ HTTP/1.1\r\nhost: b.test",
    ] {
        let mut tunnel = sandbox.tunnel("a.test:80").await;
        tunnel.write_all(format!("{request}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let answer = rest(&mut tunnel).await;
        assert!(
            parts(&answer).0.starts_with("HTTP/1.1 421 the tunnel is to a.test:80"),
            "{request:?}: {answer}"
        );
    }
    // The same with the right name gets as far as the port that nobody listens at.
    let mut tunnel = sandbox.tunnel("a.test:80").await;
    tunnel.write_all(b"GET / HTTP/1.1\r\nhost: A.test:80\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut tunnel).await;
    assert!(!answer.contains("421"), "{answer}");
    let mut tunnel = sandbox.tunnel("a.test:80").await;
    tunnel.write_all(b"SSH-2.0-x\r\n\r\n").await.unwrap();
    assert!(rest(&mut tunnel).await.starts_with("HTTP/1.1 400 "));
}

/// The first message of a TLS client that wants `name`.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn in_a_tunnel_no_other_name_is_shaken_hands_for() {
    let server = Server::echo().await;
    let a = server.named("a.test");
    for (name, step, passes) in [
        ("a.test", usize::MAX, true),
        ("A.TEST", 1, true),
        ("b.test", usize::MAX, false),
        ("b.test", 1, false),
        ("127.0.0.1", usize::MAX, false),
    ] {
        let sandbox = Sandbox::under(policy(&[&a], &[&a]));
        let mut tunnel = sandbox.tunnel(&a).await;
        let hello = hello(name);
        for part in hello.chunks(step.min(hello.len())) {
            tunnel.write_all(part).await.unwrap();
        }
        if passes {
            let mut back = vec![0; hello.len()];
            tunnel.read_exact(&mut back).await.unwrap();
            assert_eq!(back, hello, "{name}");
        } else {
            let mut alert = Vec::new();
            tunnel.read_to_end(&mut alert).await.unwrap();
            assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112], "{name}");
            let refused = sandbox
                .events(2)
                .await
                .into_iter()
                .any(|event| matches!(event.outcome, super::Outcome::Refused(Refusal::OtherHost(_))));
            assert!(refused);
        }
    }
}

#[tokio::test]
async fn garbage_and_breaking_off_leave_the_proxy_as_it_was() {
    let server = Server::start(|_| ok("well")).await;
    let a = server.named("a.test");
    let limits = Limits { head: Duration::from_millis(500), ..Limits::default() };
    let sandbox = Sandbox::under(limited(&a, limits));
    for bytes in [
        &b"\x16\x03\x01\x00\x05abcde"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET",
        b"\r\n\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = sandbox.open().await;
        stream.write_all(bytes).await.unwrap();
        drop(stream);
    }
    let mut tunnel = sandbox.tunnel(&a).await;
    tunnel.write_all(b"\x16\x03\x01\x00\x05abcde").await.unwrap();
    drop(rest(&mut tunnel).await);
    let answer = sandbox.ask(format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(parts(&answer), ("HTTP/1.1 200 OK", "well"));
}

#[tokio::test]
async fn without_a_policy_nothing_is_reached() {
    let sandbox = Sandbox::under(Policy::default());
    let answer = sandbox.ask("CONNECT a.test:443 HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(parts(&answer).0, "HTTP/1.1 403 a.test:443 is not an allowed host");
}
