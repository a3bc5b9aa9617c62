//! HTTPS end to end: certificates of a real ACME server, of the local authority and of files, under a clock that moves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ground;

use std::time::Duration;

use capabilities::domains::{Authority, LocalCa, Method};
use kernel::Timestamp;
use testkit::{Https, NameServer, Pebble, require};

use crate::ground::Ground;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_certificate_is_renewed_ahead_of_its_end_under_a_moved_clock() {
    for method in [Method::Http01, Method::TlsAlpn01] {
        let dns = require(NameServer::start());
        let ground = Ground::new(|ports| {
            let pebble = require(Pebble::start(&dns, ports.http, ports.https));
            let settings = ground::acme(&pebble, vec![method]);
            (Authority::Acme(settings), Some(pebble))
        })
        .await;
        dns.a("cloud.platform.test", &["127.0.0.1"]).unwrap();
        let root = ground.root();
        ground.certificates.want("cloud.platform.test", None).await.unwrap();
        ground.certificates.round().await;
        let first = ground.visit("cloud.platform.test", &root).await.unwrap();
        ground.certificates.round().await;
        assert_eq!(ground.visit("cloud.platform.test", &root).await.unwrap(), first, "it is not due");

        // Pebble's certificates count for five years: three of them are not yet two thirds, four are.
        ground.forward(DAY * 365 * 3);
        ground.certificates.round().await;
        assert_eq!(ground.visit("cloud.platform.test", &root).await.unwrap(), first, "it is not due yet");
        ground.forward(DAY * 365);
        ground.certificates.round().await;
        let second = ground.visit("cloud.platform.test", &root).await.unwrap();
        assert!(second != first, "it was due");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_old_certificate_serves_while_the_authority_is_away_and_orders_back_off() {
    let dns = require(NameServer::start());
    let mut ground = Ground::new(|ports| {
        let pebble = require(Pebble::start(&dns, ports.http, ports.https));
        (Authority::Acme(ground::acme(&pebble, vec![Method::Http01, Method::TlsAlpn01])), Some(pebble))
    })
    .await;
    let host = "cloud.platform.test";
    dns.a(host, &["127.0.0.1"]).unwrap();
    let root = ground.root();
    ground.certificates.want(host, None).await.unwrap();
    ground.certificates.round().await;
    let first = ground.visit(host, &root).await.unwrap();
    ground.pebble().stop();
    ground.forward(DAY * 365 * 4);
    let mut waits = Vec::new();
    for attempt in 1..=3_i64 {
        let before = ground.now();
        ground.certificates.round().await;
        let row = ground.row(host).await.unwrap();
        assert_eq!(row.failures, attempt);
        assert_eq!(row.error.as_deref(), Some("the certificate authority cannot be reached"));
        assert_eq!(ground.visit(host, &root).await.unwrap(), first, "the old one serves");
        let due = row.due.unwrap().as_micros();
        let wait = due - ground.now().as_micros();
        // The clock goes on: it was begun between the two.
        waits.push([due - before.as_micros(), wait]);
        // Nothing is tried before its time.
        ground.certificates.round().await;
        assert_eq!(ground.row(host).await.unwrap().failures, attempt);
        ground.forward(Duration::from_micros(wait.unsigned_abs()));
    }
    for (i, [longest, shortest]) in waits.iter().enumerate() {
        let least = 60_000_000 << i;
        assert!(*longest >= least && *shortest <= least * 5 / 4, "{waits:?}");
    }
    // It comes back, and knows the account no longer.
    ground.pebble().go_on().unwrap();
    let other = ground.root();
    ground.certificates.round().await;
    ground.forward(DAY);
    ground.certificates.round().await;
    assert!(ground.visit(host, &other).await.unwrap() != first);
    assert_eq!(ground.row(host).await.unwrap().error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_ordered_for_a_host_that_is_nobodys() {
    let dns = require(NameServer::start());
    let ground = Ground::new(|ports| {
        let pebble = require(Pebble::start(&dns, ports.http, ports.https));
        (Authority::Acme(ground::acme(&pebble, vec![Method::Http01])), Some(pebble))
    })
    .await;
    let root = ground.root();
    for host in ["nobody.apps.test", "www.foreign.test", "7--default.apps.test"] {
        dns.a(host, &["127.0.0.1"]).unwrap();
        assert!(ground.visit(host, &root).await.is_err(), "{host}");
        // Also where it was asked for, by a row that is older than the loss of the domain.
        ground.certificates.want(host, None).await.unwrap();
        ground.certificates.round().await;
        assert!(ground.visit(host, &root).await.is_err(), "{host}");
        assert_eq!(ground.row(host).await, None, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_local_authority_is_believed_for_private_names_and_its_own_hosts_alone() {
    let ground = Ground::new(|_| (Authority::Local, None)).await;
    let pem = ground.certificates.ca().pem().to_owned();
    for host in ["localhost", "127.0.0.1", "cloud.platform.test", "default.apps.test", "3--default.apps.test"]
    {
        ground.visit(host, &pem).await.unwrap_or_else(|e| panic!("{host}: {e:?}"));
    }
    assert!(ground.visit("nobody.apps.test", &pem).await.is_err());
    // Whoever has the key of the authority cannot use it against others.
    let forged = ground.certificates.ca().issue(&["www.example.com".to_owned()], ground.now()).unwrap();
    assert!(ground::believed("www.example.com", &forged, &pem).is_err());
    let own = ground.certificates.ca().issue(&["shop.test".to_owned()], ground.now()).unwrap();
    ground::believed("shop.test", &own, &pem).unwrap();
    assert!(!ground.certificates.ca().issues_for("www.example.com"));
}

#[tokio::test]
async fn the_authority_is_made_once_and_anew_for_other_hosts() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("keys")).unwrap();
    let open = |hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        LocalCa::open(directory.path(), &hosts, Timestamp::now()).map(|ca| ca.pem().to_owned())
    };
    let first = open(&["apps.localhost"]).unwrap();
    assert_eq!(open(&["localhost", "shop.internal", "10.0.0.1"]).unwrap(), first);
    let key = directory.path().join("keys/ca.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let second = open(&["apps.example.com"]).unwrap();
    assert!(second != first);
    assert_eq!(open(&["apps.example.com", "a.apps.example.com"]).unwrap(), second);
    std::fs::remove_file(key).unwrap();
    let refused = open(&["localhost"]).unwrap_err();
    assert!(refused.chain().contains("one of ca.crt and ca.key is missing"), "{}", refused.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_serve_the_hosts_that_they_name_and_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        std::fs::write(directory.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
            .unwrap();
        made.cert.pem()
    };
    let wildcard = write("apps", &["*.apps.test"]);
    let ground = Ground::with_files(directory.path()).await;
    ground.visit("default.apps.test", &wildcard).await.unwrap();
    ground.visit("1--default.apps.test", &wildcard).await.unwrap();
    assert!(ground.visit("nobody.apps.test", &wildcard).await.is_err(), "not for a host that is nobody's");
    assert!(ground.visit("cloud.platform.test", &wildcard).await.is_err(), "no file names it");
    let platform = write("platform", &["cloud.platform.test"]);
    ground.certificates.round().await;
    ground.visit("cloud.platform.test", &platform).await.unwrap();
    std::fs::write(directory.path().join("platform.crt"), "broken").unwrap();
    ground.certificates.round().await;
    ground.visit("cloud.platform.test", &platform).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_to_a_challenge_is_there_for_its_host_while_its_order_runs() {
    let ground = Ground::new(|_| (Authority::Local, None)).await;
    let challenges = ground.certificates.challenges();
    let answering = challenges.answer_http("a.test", "token", "authorization");
    assert_eq!(challenges.http("a.test", "token").as_deref(), Some("authorization"));
    assert_eq!(challenges.http("b.test", "token"), None);
    assert_eq!(challenges.http("a.test", "other"), None);
    drop(answering);
    assert_eq!(challenges.http("a.test", "token"), None);
    let digest = [7; 32];
    let answering = challenges.answer_tls("cloud.platform.test", &digest).unwrap();
    let pem = ground.certificates.ca().pem().to_owned();
    // A visitor of the same host does not get it.
    ground.visit("cloud.platform.test", &pem).await.unwrap();
    let client = Https::new(ground.https.to_string(), &[&pem]).unwrap();
    let asked =
        tokio::task::spawn_blocking(move || client.handshake("cloud.platform.test", &[b"acme-tls/1"]));
    assert!(asked.await.unwrap().is_err(), "the answer is not a certificate of the authority");
    drop(answering);
    assert!(challenges.tls("cloud.platform.test").is_none());
}
