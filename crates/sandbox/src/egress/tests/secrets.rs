//! Secrets on their way out: what their hosts get, and what nobody else does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::Secret;
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::{Server, ok};
use super::tls::{World, shake};
use super::{PATIENCE, Policy, Sandbox, head, parts, policy};
use crate::egress::{Bound, Outcome, Places, Refusal};

const TEXT: &str = "secret_npm_aaaaaaaaaaaaaaaa";
const REAL: &str = "npm_Real-Value/1+2=";

/// A policy for these places, all vouched for, with a secret for the first.
fn bound(places: &[&str]) -> Policy {
    let hosts = vec![places[0].parse().unwrap()];
    let secret = Bound::new("npm", TEXT, Secret::new(REAL), hosts, Places::HeadersAndQuery).unwrap();
    Policy { secrets: vec![secret], ..policy(places, places) }
}

/// Sends a request in TLS to a place and reads the whole answer.
async fn ask(sandbox: &Sandbox, to: &str, authority: &str, request: &str) -> String {
    let name = to.split(':').next().unwrap();
    let mut stream = shake(sandbox.tunnel(to).await, name, authority).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end"));
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(to: &str, fields: &str) -> String {
    format!("GET /x?key={TEXT} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{fields}\r\n")
}

/// The value of a field of a request.
fn field(request: &str, name: &str) -> Option<String> {
    let prefix = format!("{name}: ");
    request.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
}

#[tokio::test]
async fn a_secret_reaches_its_host_and_what_comes_back_of_it_is_covered() {
    let world = World::new();
    let server = Server::secure(&world, |request| {
        let echo = field(request, "x-key").unwrap();
        let basic = field(request, "authorization").unwrap();
        let (first, rest) = request.split_at(request.find(&echo).unwrap() + 5);
        format!(
            "HTTP/1.1 200 {echo}\r\nlocation: https://b.test/?{echo}\r\nx-basic: {basic}\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
            first.len(),
            rest.len()
        )
        .into_bytes()
    })
    .await;
    let a = server.named("a.test");
    let sandbox = Sandbox::trusting(bound(&[&a]), world.roots());
    let pair = STANDARD.encode(format!("user:{TEXT}"));
    let fields = format!(
        "authorization: Basic {pair}\r\nx-key: {TEXT}\r\naccept-encoding: gzip\r\nrange: bytes=0-5\r\n"
    );
    let answer = ask(&sandbox, &a, sandbox.egress.authority_pem(), &get(&a, &fields)).await;

    let [request] = server.requests().try_into().unwrap();
    let real = STANDARD.encode(format!("user:{REAL}"));
    let coded = "npm%5FReal%2DValue%2F1%2B2%3D";
    let expected = format!(
        "GET /x?key={coded} HTTP/1.1\r\nhost: {a}\r\naccept-encoding: identity\r\nauthorization: Basic {real}\r\n\
         x-key: {REAL}\r\n\r\n"
    );
    assert_eq!(request, expected);

    let stars = |text: &str| "*".repeat(text.len());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(field(&answer, "location"), Some(format!("https://b.test/?{}", stars(REAL))));
    assert_eq!(field(&answer, "x-basic"), Some(format!("Basic {}", stars(&real))));
    let covered =
        expected.replace(&real, &stars(&real)).replace(REAL, &stars(REAL)).replace(coded, &stars(coded));
    let body: String =
        parts(&answer).1.split("\r\n").filter(|line| usize::from_str_radix(line, 16).is_err()).collect();
    assert_eq!(body, covered.replace("\r\n", ""));
    for secret in [REAL, coded, &real] {
        assert!(!answer.contains(secret) && !format!("{:?}", sandbox.events(1).await).contains(secret));
    }
}

#[tokio::test]
async fn to_another_allowed_host_the_text_goes_out_as_it_is_and_unread() {
    let world = World::new();
    let (server, other) =
        (Server::secure(&world, |_| ok("")).await, Server::secure(&world, |_| ok("")).await);
    let plain = Server::start(|_| ok("")).await;
    let (a, b, c) = (server.named("a.test"), other.named("b.test"), plain.named("a.test"));
    let sandbox = Sandbox::trusting(bound(&[&a, &b, &c]), world.roots());
    let request = get(&b, &format!("x-key: {TEXT}\r\n"));
    // The other host's own certificate comes through: nothing is opened on the way.
    ask(&sandbox, &b, world.pem(), &request).await;
    assert_eq!(other.requests(), [request]);
    assert!(shake(sandbox.tunnel(&b).await, "b.test", sandbox.egress.authority_pem()).await.is_err());
    assert!(shake(sandbox.tunnel(&a).await, "a.test", world.pem()).await.is_err());
    // The secret's own host, at a port that it is not for, without TLS.
    sandbox
        .ask(format!("GET http://{c}/?{TEXT} HTTP/1.1\r\nx-key: {TEXT}\r\nconnection: close\r\n\r\n"))
        .await;
    assert!(plain.requests()[0].contains(&format!("x-key: {TEXT}")), "{:?}", plain.requests());
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn without_a_certificate_to_trust_a_host_gets_nothing() {
    let (world, impostor) = (World::new(), World::new());
    let server = Server::secure(&impostor, |_| ok("")).await;
    let (a, d) = (server.named("a.test"), server.named("127.0.0.1"));
    let sandbox = Sandbox::trusting(bound(&[&a]), world.roots());
    let answer = ask(&sandbox, &a, sandbox.egress.authority_pem(), &get(&a, "")).await;
    assert_eq!(
        parts(&answer),
        (
            &*format!("HTTP/1.1 502 the certificate of {a} is not trusted"),
            &*format!("the certificate of {a} is not trusted\n")
        )
    );
    // Trusted, but for other names.
    let sandbox = Sandbox::trusting(bound(&[&d]), impostor.roots());
    let answer = ask(&sandbox, &d, sandbox.egress.authority_pem(), &get(&d, "")).await;
    assert_eq!(parts(&answer).0, format!("HTTP/1.1 502 the certificate of {d} is not trusted"));
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_tunnel_to_a_secrets_host_names_no_other() {
    let world = World::new();
    let server = Server::secure(&world, |_| ok("")).await;
    let (a, b) = (server.named("a.test"), server.named("b.test"));
    let sandbox = Sandbox::trusting(bound(&[&a, &b]), world.roots());
    let authority = sandbox.egress.authority_pem().to_owned();
    for host in [&b, "a.test", "a.test:443"] {
        let answer = ask(&sandbox, &a, &authority, &get(host, &format!("x-key: {TEXT}\r\n"))).await;
        assert!(
            parts(&answer).0.starts_with(&format!("HTTP/1.1 421 the tunnel is to {a}")),
            "{host}: {answer}"
        );
    }
    let absolute = format!("GET https://{b}/ HTTP/1.1\r\nhost: {a}\r\nconnection: close\r\n\r\n");
    assert!(ask(&sandbox, &a, &authority, &absolute).await.starts_with("HTTP/1.1 421 "));
    let nested = format!("CONNECT {b} HTTP/1.1\r\nhost: {a}\r\nconnection: close\r\n\r\n");
    assert!(ask(&sandbox, &a, &authority, &nested).await.starts_with("HTTP/1.1 400 "));
    assert!(shake(sandbox.tunnel(&a).await, "b.test", &authority).await.is_err());
    let mut tunnel = sandbox.tunnel(&a).await;
    tunnel
        .write_all(format!("GET / HTTP/1.1\r\nhost: {a}\r\nx-key: {TEXT}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    assert_eq!(super::rest(&mut tunnel).await.as_bytes()[..1], [21]);
    assert!(server.requests().is_empty());
    // The same as it is meant.
    let answer = ask(&sandbox, &a, &authority, &get(&a, &format!("x-key: {TEXT}\r\n"))).await;
    assert_eq!(parts(&answer).0, "HTTP/1.1 200 OK");
    assert_eq!(field(&server.requests()[0], "x-key").as_deref(), Some(REAL));
}

#[tokio::test]
async fn a_secrets_host_at_a_private_address_gets_nothing() {
    let world = World::new();
    let server = Server::secure(&world, |_| ok("")).await;
    let a = server.named("a.test");
    let policy = Policy { origins: Vec::new(), ..bound(&[&a]) };
    let sandbox = Sandbox::trusting(policy, world.roots());
    let answer = sandbox.ask(format!("CONNECT {a} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(parts(&answer).0, format!("HTTP/1.1 403 {a} is not at a public address"));
    let sandbox = Sandbox::trusting(Policy { allow: Vec::new(), ..bound(&[&a]) }, world.roots());
    let answer = sandbox.ask(format!("CONNECT {a} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(parts(&answer).0, format!("HTTP/1.1 403 {a} is not an allowed host"));
    assert_eq!((server.connections(), sandbox.refusal().await), (0, Refusal::NotAllowed(a.parse().unwrap())));
}

#[tokio::test]
async fn a_policy_that_changes_holds_for_the_next_request_of_a_tunnel() {
    let world = World::new();
    let server = Server::secure(&world, |_| ok("")).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::trusting(bound(&[&a]), world.roots());
    let tunnel = sandbox.tunnel(&a).await;
    let mut stream = shake(tunnel, "a.test", sandbox.egress.authority_pem()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {a}\r\nx-key: {TEXT}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    sandbox.egress.update(policy(&[&a], &[&a]));
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    sandbox.egress.update(Policy::default());
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with(&format!("HTTP/1.1 403 {a} is not an allowed host")));
    let keys: Vec<_> = server.requests().iter().map(|request| field(request, "x-key").unwrap()).collect();
    assert_eq!((keys, server.connections()), (vec![REAL.to_owned(), TEXT.to_owned()], 1));
    assert!(sandbox.events(2).await.iter().any(|event| matches!(event.outcome, Outcome::Cut(_))));
}

#[tokio::test]
async fn what_another_protocol_brings_back_is_covered_too() {
    let world = World::new();
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let server = Server::secure(&world, |_| switching.to_vec()).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::trusting(bound(&[&a]), world.roots());
    let tunnel = sandbox.tunnel(&a).await;
    let mut stream = shake(tunnel, "a.test", sandbox.egress.authority_pem()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {a}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let sent = format!("a {REAL} and {TEXT} z");
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(String::from_utf8(back).unwrap(), sent.replace(REAL, &"*".repeat(REAL.len())));
}

#[tokio::test]
async fn each_sandbox_has_an_authority_of_its_own() {
    let world = World::new();
    let server = Server::secure(&world, |_| ok("")).await;
    let a = server.named("a.test");
    let (one, two) = (
        Sandbox::trusting(bound(&[&a]), world.roots()),
        Sandbox::trusting(bound(&[&a]), RootCertStore::empty()),
    );
    assert_ne!(one.egress.authority_pem(), two.egress.authority_pem());
    assert!(shake(two.tunnel(&a).await, "a.test", one.egress.authority_pem()).await.is_err());
    assert!(shake(one.tunnel(&a).await, "a.test", one.egress.authority_pem()).await.is_ok());
}
