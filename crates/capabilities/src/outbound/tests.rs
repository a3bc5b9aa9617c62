//! What can be asked, and that nothing else is, whatever a name says.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use kernel::Networks;
use reqwest::Method;
use reqwest::dns::Resolve as _;
use url::Url;

use super::{Failure, Judged, OutOfReach, Outbound};

fn reaching(private: &[&str]) -> Outbound {
    Outbound::new(Networks::of(private.iter().copied()).unwrap()).unwrap()
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[test]
fn addresses_are_judged_before_anybody_is_asked() {
    let outbound = reaching(&["127.0.0.1", "10.1.0.0/16"]);
    let address = |host: &str| Err(Failure::Address(host.to_owned()));
    let private = |host: &str| Err(Failure::Private(host.to_owned()));
    for (text, expected) in [
        ("https://accounts.example.com/token", Ok(())),
        ("https://8.8.8.8/", Ok(())),
        ("https://10.1.2.3/", Ok(())),
        ("http://10.1.2.3:8080/", Ok(())),
        ("http://localhost:8080/", Ok(())),
        ("http://accounts.example.com/", address("accounts.example.com")),
        ("http://8.8.8.8/", address("8.8.8.8")),
        ("http://10.2.0.1/", address("10.2.0.1")),
        ("https://10.2.0.1/", private("10.2.0.1")),
        ("https://169.254.169.254/latest", private("169.254.169.254")),
        ("https://[::1]/", private("[::1]")),
        ("https://[::ffff:169.254.169.254]/", private("[::ffff:a9fe:a9fe]")),
        ("https://0x7f.1/", Ok(())),
        ("https://2130706434/", private("127.0.0.2")),
        ("https://user@accounts.example.com/", address("accounts.example.com")),
        ("file:///etc/passwd", address("")),
        ("ftp://accounts.example.com/", address("accounts.example.com")),
    ] {
        assert_eq!(outbound.judge(&url(text)), expected, "{text}");
    }
    assert_eq!(reaching(&[]).judge(&url("http://localhost:8080/")), address("localhost:8080"));
}

#[tokio::test]
async fn a_name_that_leads_to_the_platforms_surroundings_leads_nowhere() {
    let found = |private: &str| {
        let networks = Networks::of([private].into_iter()).unwrap();
        Judged::new(Arc::new(networks)).resolve("localhost".parse().unwrap())
    };
    assert!(found("10.0.0.0/8").await.is_err_and(|error| error.is::<OutOfReach>()));
    let open: Vec<_> = found("127.0.0.1").await.unwrap().map(|address| address.ip().to_string()).collect();
    assert!(!open.is_empty() && open.iter().all(|address| address == "127.0.0.1"), "{open:?}");
}

/// Answers one request on loopback with these bytes.
fn answering(bytes: Vec<u8>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(&format!("http://{}/", listener.local_addr().unwrap()));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4_096];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(&bytes);
    });
    url
}

#[tokio::test]
async fn answers_are_read_whole_up_to_a_bound_and_lead_nowhere_else() {
    let outbound = reaching(&["127.0.0.1"]);
    let ask = async |bytes: Vec<u8>| {
        let url = answering(bytes);
        outbound.send(outbound.request(Method::GET, &url).unwrap()).await
    };
    let answer = ask(b"HTTP/1.1 400 No\r\ncontent-length: 7\r\n\r\n{\"a\":1}".to_vec()).await.unwrap();
    assert_eq!(
        (answer.status, answer.json::<serde_json::Value>()),
        (400, Some(serde_json::json!({ "a": 1 })))
    );
    let to = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(ask(to.to_vec()).await.unwrap().status, 302);
    let mut large = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    large.resize(2 << 20, b'x');
    assert!(matches!(ask(large).await, Err(Failure::Large(_))));
}
