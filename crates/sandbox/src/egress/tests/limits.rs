//! How much is too much, and what a change of the policy does to what is open.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::{Server, ok};
use super::{Limits, Outcome, Policy, Sandbox, limited, parts, policy, rest};
use crate::egress::Cut;

/// How the first connection that ends ended.
async fn end(sandbox: &Sandbox) -> Outcome {
    sandbox.events(1).await[0].outcome.clone()
}

#[tokio::test]
async fn a_policy_that_changes_cuts_what_it_does_not_allow_any_more() {
    let server = Server::echo().await;
    let (a, b) = (server.named("a.test"), server.named("b.test"));
    let sandbox = Sandbox::under(policy(&[&a, &b], &[&a, &b]));
    let (mut cut, mut stays) = (sandbox.tunnel(&a).await, sandbox.tunnel(&b).await);
    let mut back = [0; 1];
    for tunnel in [&mut cut, &mut stays] {
        tunnel.write_all(b"x").await.unwrap();
        tunnel.read_exact(&mut back).await.unwrap();
    }
    sandbox.egress.update(policy(&[&b], &[&b]));
    assert_eq!(rest(&mut cut).await, "");
    assert_eq!(end(&sandbox).await, Outcome::Cut(Cut::Denied));
    stays.write_all(b"y").await.unwrap();
    stays.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"y");
    let answer = sandbox.ask(format!("CONNECT {a} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert!(parts(&answer).0.contains(" 403 "), "{answer}");
}

#[tokio::test]
async fn a_policy_that_changes_cuts_an_answer_that_is_being_read() {
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let server = Server::start(|_| endless.to_vec()).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut stream = sandbox.open().await;
    stream.write_all(format!("GET http://{a}/ HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    super::head(&mut stream).await;
    let mut chunk = [0; 8];
    stream.read_exact(&mut chunk).await.unwrap();
    sandbox.egress.update(Policy::default());
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(end(&sandbox).await, Outcome::Cut(Cut::Denied));
}

#[tokio::test]
async fn bytes_beyond_the_sum_are_not_carried() {
    let server = Server::start(|_| ok(&"x".repeat(100_000))).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(limited(&a, Limits { bytes: 20_000, ..Limits::default() }));
    let get = format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n");
    let answer = sandbox.ask(&get).await;
    assert!(answer.len() < 60_000, "{}", answer.len());
    assert_eq!(end(&sandbox).await, Outcome::Cut(Cut::Spent));
    let answer = sandbox.ask(&get).await;
    assert_eq!(parts(&answer).0, "HTTP/1.1 403 the sandbox has used all of its network bytes");
    sandbox.egress.update(policy(&[&a], &[&a]));
    assert_eq!(sandbox.ask(&get).await.matches('x').count(), 100_000);
}

#[tokio::test]
async fn bytes_beyond_the_rate_wait() {
    let server = Server::start(|_| ok(&"x".repeat(60_000))).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(limited(&a, Limits { bytes_per_second: 30_000, ..Limits::default() }));
    let began = tokio::time::Instant::now();
    let answer = sandbox.ask(format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(answer.matches('x').count(), 60_000);
    // The first 30,000 are there at once; what comes in one piece is owed for.
    assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_closes_the_connection() {
    let limits = Limits { head: Duration::from_millis(300), ..Limits::default() };
    let sandbox = Sandbox::under(limited("a.test:1", limits));
    let mut stream = sandbox.open().await;
    stream.write_all(b"GET http://a.test/ HTTP/1.1\r\nx: ").await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let dripping = tokio::spawn(async move {
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut all = Vec::new();
    drop(tokio::time::timeout(super::PATIENCE, read.read_to_end(&mut all)).await.unwrap());
    tokio::time::timeout(super::PATIENCE, dripping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_in_which_nothing_moves_is_cut() {
    let server = Server::echo().await;
    let a = server.named("a.test");
    let sandbox =
        Sandbox::under(limited(&a, Limits { idle: Duration::from_millis(300), ..Limits::default() }));
    let mut tunnel = sandbox.tunnel(&a).await;
    tunnel.write_all(b"x").await.unwrap();
    assert_eq!(rest(&mut tunnel).await, "x");
    assert_eq!(end(&sandbox).await, Outcome::Cut(Cut::Idle));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_told_of() {
    let silent = Server::start(|_| Vec::new()).await;
    let a = silent.named("a.test");
    let sandbox =
        Sandbox::under(limited(&a, Limits { idle: Duration::from_millis(300), ..Limits::default() }));
    let answer = sandbox.ask(format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
    let reason = format!("HTTP/1.1 504 the connection to {a} was cut: nothing came or went for too long");
    assert_eq!(parts(&answer).0, reason);
}

#[tokio::test]
async fn a_connection_that_lasts_too_long_is_closed() {
    let server = Server::echo().await;
    let a = server.named("a.test");
    let sandbox =
        Sandbox::under(limited(&a, Limits { longest: Duration::from_millis(300), ..Limits::default() }));
    let mut tunnel = sandbox.tunnel(&a).await;
    assert_eq!(rest(&mut tunnel).await, "");
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let server = Server::start(|_| ok("")).await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(limited(&a, Limits { connections: 1, ..Limits::default() }));
    let first = sandbox.tunnel(&a).await;
    let mut second = sandbox.open().await;
    second
        .write_all(format!("GET http://{a}/ HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn requests_beyond_the_rate_are_told_to_wait() {
    let sandbox = Sandbox::under(limited("a.test:1", Limits { requests_per_minute: 1, ..Limits::default() }));
    let get = "GET http://b.test/ HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert!(sandbox.ask(get).await.starts_with("HTTP/1.1 403 "));
    let answer = sandbox.ask(get).await;
    assert_eq!(parts(&answer).0, "HTTP/1.1 429 too many requests in a minute");
    assert!(answer.contains("\r\nretry-after: 10\r\n"));
}

#[tokio::test]
async fn what_is_open_ends_with_the_serving() {
    let server = Server::echo().await;
    let a = server.named("a.test");
    let sandbox = Sandbox::under(policy(&[&a], &[&a]));
    let mut tunnel = sandbox.tunnel(&a).await;
    sandbox.task.abort();
    assert_eq!(rest(&mut tunnel).await, "");
    assert_eq!(end(&sandbox).await, Outcome::Allowed);
}
